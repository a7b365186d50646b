"""Modules of PyTorch as models, exported to ONNX. PyTorch is not installed with Skewless; who trains with it does so.

The export is PyTorch's own, by its tracer, which needs the `onnx` package and nothing else; weights lie in the file.
"""

import io
import warnings
from importlib import import_module
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.adapters.onnx_classifier import classifier_form
from skewless.adapters.tree_onnx import conversion_error
from skewless.bundles.model_files import ModelFiles
from skewless.errors import InvalidDefinition
from skewless.training.learner import (
    INPUT_NAME,
    OUTPUT_NAME,
    TrainedModel,
    TrainingData,
    classifier_signature,
)

_OPSET = 17
"""Old enough for every ONNX Runtime of the last years, Triton's included."""
_SHAPING_LIBRARIES = ("numpy", "onnx", "onnxruntime", "torch")


def require_torch() -> Any:
    """The module `torch`. Raises InvalidDefinition where it is not installed."""
    try:
        return import_module("torch")
    except ImportError as error:
        raise InvalidDefinition(
            "this training function needs PyTorch, which is not installed", hint="install it with `pip install torch`"
        ) from error


def to_onnx(module: Any, data: TrainingData) -> TrainedModel:
    """A fitted `torch.nn.Module` as ONNX, compared with it on every training row.

    The module takes float32 (rows, columns) and gives the probability of the positive class (rows,) or (rows, 1).
    Raises InvalidDefinition for another module, and where the export differs.
    """
    torch = require_torch()
    module = module.eval()
    exported = _export(torch, _two_classes(torch, module).eval(), len(data.output_names))
    data.progress("comparing the exported model with PyTorch on every training row")
    with torch.no_grad():
        positive = module(torch.from_numpy(data.tensor)).reshape(-1).numpy().astype(np.float64)
    expected: NDArray[np.float64] = np.stack([1.0 - positive, positive], axis=1)
    error_max = conversion_error(exported, data.tensor, expected, library="PyTorch")
    return TrainedModel(
        files=ModelFiles.onnx(exported),
        signature=classifier_signature(len(data.output_names)),
        notes={"library": "torch", "conversion_error_max": error_max},
        versions={name: version(name) for name in _SHAPING_LIBRARIES},
    )


def _two_classes(torch: Any, module: Any) -> Any:
    """The module with its output (rows,) or (rows, 1) as probabilities of both classes (rows, 2)."""

    class TwoClasses(torch.nn.Module):  # type: ignore[misc]  # its base is known only at run time
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, features: Any) -> Any:
            positive = self.inner(features).reshape(-1, 1)
            return torch.cat([1.0 - positive, positive], dim=1)

    return TwoClasses()


def _export(torch: Any, module: Any, columns: int) -> bytes:
    """ONNX bytes with nothing in them that varies from run to run."""
    written = io.BytesIO()
    with warnings.catch_warnings():
        # PyTorch warns that its tracer will give way to another exporter, which needs packages of its own.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            module,
            (torch.zeros(2, columns),),
            written,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_axes={INPUT_NAME: {0: "rows"}, OUTPUT_NAME: {0: "rows"}},
            opset_version=_OPSET,
            dynamo=False,
        )
    return classifier_form(written.getvalue(), columns)
