"""Runs a model of one input and one output in this process with ONNX Runtime."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.adapters.onnx_session import open_session
from skewless.errors import BundleRefused, InvalidDefinition


class OnnxModel:
    """A model of one FP32 input (rows, columns) and one FP32 output (rows, columns), loaded from ONNX bytes.

    `run` may be called from several threads at once.
    """

    def __init__(self, onnx: bytes) -> None:
        try:
            session = open_session(onnx)
        except ValueError as error:
            raise BundleRefused(f"ONNX Runtime cannot load the model: {error}") from error
        self._session = session
        self.input_name, self.input_columns = _only("input", session.get_inputs())
        self.output_name, self.output_columns = _only("output", session.get_outputs())

    def run(self, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        """Outputs (rows, output_columns) for a tensor (rows, input_columns). Raises InvalidDefinition for another."""
        if tensor.dtype != np.float32 or tensor.ndim != 2 or tensor.shape[1] != self.input_columns:
            raise InvalidDefinition(
                f"the model's input `{self.input_name}` takes float32 of shape (rows, {self.input_columns}),"
                f" got {tensor.dtype} of shape {tensor.shape}"
            )
        if not len(tensor):
            return np.empty((0, self.output_columns), dtype=np.float32)
        output: NDArray[np.float32] = self._session.run([self.output_name], {self.input_name: tensor})[0]
        return output


def _only(what: str, found: list[Any]) -> tuple[str, int]:
    """Name and columns of a model's only input or output."""
    shapes = [f"`{each.name}` {each.type} {each.shape}" for each in found]
    if len(found) != 1 or found[0].type != "tensor(float)" or len(found[0].shape) != 2:
        raise BundleRefused(f"a model must have one {what} of type tensor(float) and two axes, got {', '.join(shapes)}")
    columns = found[0].shape[1]
    if not isinstance(columns, int):
        raise BundleRefused(f"the model's {what} must state how many columns it has, got {shapes[0]}")
    return found[0].name, columns
