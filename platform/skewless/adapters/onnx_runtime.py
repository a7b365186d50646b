"""Runs a model in this process with ONNX Runtime; the only importer of onnxruntime outside of Triton."""

from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from skewless.errors import BundleRefused, InvalidDefinition

_ERRORS_ONLY = 3


class OnnxModel:
    """A model of one FP32 input (rows, columns) and one FP32 output (rows, columns), loaded from ONNX bytes.

    It computes on the calling thread alone, so that a row's result cannot depend on how a batch is divided
    among threads. `run` may be called from several threads at once.
    """

    def __init__(self, onnx: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = _ERRORS_ONLY
        try:
            session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions share no base class; nothing else runs in here
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
