"""A bundle's ONNX model in Triton's python backend; this file runs where it was deployed.

One intra-op thread makes a row's result independent of the rows beside it, bit for bit, so one run may serve
a whole dynamic batch.

Tensors are exchanged by DLPack and never by the backend's own NumPy conversion: that one is built against the
binary interface of NumPy 1 and, under NumPy 2, reads the size of an element wrongly. Seen with Triton 2.51 and
NumPy 2.4: outputs of 0 bytes, without an error.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]  # exists inside Triton only


class TritonPythonModel:
    """What the python backend looks for: one per model instance."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the ONNX file beside this one; Triton then warms the model up."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        folder = Path(args["model_repository"]) / args["model_version"]
        self._session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        config = json.loads(args["model_config"])
        self._input = config["input"][0]["name"]
        self._outputs = [output["name"] for output in config["output"]]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Score the rows of all requests in one run and give each request its own."""
        tensors = [np.from_dlpack(pb_utils.get_input_tensor_by_name(each, self._input)) for each in requests]
        batch = tensors[0] if len(tensors) == 1 else np.concatenate(tensors)
        results = self._session.run(self._outputs, {self._input: batch})
        responses = []
        start = 0
        for tensor in tensors:
            stop = start + len(tensor)
            outputs = [
                pb_utils.Tensor.from_dlpack(name, result[start:stop])
                for name, result in zip(self._outputs, results, strict=True)
            ]
            responses.append(pb_utils.InferenceResponse(output_tensors=outputs))
            start = stop
        return responses
