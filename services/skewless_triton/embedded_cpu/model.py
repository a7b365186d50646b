"""A bundle's ONNX model in Triton's python backend; this file runs where it was deployed.

One intra-op thread makes a row's result independent of the rows beside it, bit for bit, so one run may serve
a whole dynamic batch.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from skewless_tensors import answer, rehearse  # type: ignore[import-not-found]  # deployed beside this file


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
        rehearse(args, self._score)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Score the rows of all requests in one run and give each request its own."""
        responses: list[Any] = answer(requests, self._input, self._score)
        return responses

    def _score(self, rows: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        return dict(zip(self._outputs, self._session.run(self._outputs, {self._input: rows}), strict=True))
