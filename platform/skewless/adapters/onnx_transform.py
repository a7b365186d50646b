"""Runs the ONNX export of a transform in this process, to compare it with the transform itself."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.adapters.onnx_export import export_onnx
from skewless.adapters.onnx_session import open_session
from skewless.dtypes import Column
from skewless.errors import InvalidDefinition
from skewless.transforms import FittedTransform
from skewless.transforms.column_checks import check_columns
from skewless.transforms.onnx_graph import OUTPUT, exported_inputs


class OnnxTransform:
    """A fitted transform as ONNX Runtime computes it, on the calling thread alone."""

    def __init__(self, fitted: FittedTransform) -> None:
        """Raises InvalidDefinition naming what cannot be exported, or what ONNX Runtime does not load."""
        model = export_onnx(fitted)
        try:
            self._session = open_session(model)
        except ValueError as error:
            raise InvalidDefinition(f"ONNX Runtime cannot load the exported transform: {error}") from error
        self._inputs = fitted.graph.inputs
        self._outputs = len(fitted.output_names)

    def apply(self, columns: Mapping[str, Column], rows: int) -> NDArray[np.float32]:
        """As `PreparedTransform.apply`: the tensor (rows, outputs), float32."""
        check_columns(self._inputs, columns, rows)
        return self.run(self.feed(columns, rows)) if rows else np.empty((0, self._outputs), dtype=np.float32)

    def feed(self, columns: Mapping[str, Column], rows: int) -> dict[str, NDArray[Any]]:
        """What the session takes for these columns, which are not checked: arrays (rows, 1) by input name."""
        return exported_inputs(self._inputs, columns, rows)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """The tensor for what `feed` gave, one row or more."""
        tensor: NDArray[np.float32] = self._session.run([OUTPUT], inputs)[0]
        return tensor
