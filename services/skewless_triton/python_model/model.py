"""A bundle's Python model in Triton's python backend; this file runs where it was deployed.

The bundle's module defines `load(folder)`, which returns the function from a tensor (rows, columns) to the outputs by
name; what it answers is checked against the model's configuration, so that a mistake is an error and no prediction.
"""

import importlib.util
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skewless_tensors import answer, rehearse  # type: ignore[import-not-found]  # deployed beside this file

_MODULE = "bundle_model"
"""Not the file's own name, which may be that of this file."""
Predict = Callable[[NDArray[np.float32]], Mapping[str, NDArray[np.float32]]]


class TritonPythonModel:
    """What the python backend looks for: one per model instance, each in a process of its own."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the bundle's module and let it load its files; Triton then warms the model up."""
        config = json.loads(args["model_config"])
        entry = config["parameters"]["entry"]["string_value"]
        path = Path(args["model_repository"]) / args["model_version"] / entry
        sys.path.insert(0, str(path.parent))
        spec = importlib.util.spec_from_file_location(_MODULE, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{entry} is no Python module")
        module = importlib.util.module_from_spec(spec)
        sys.modules[_MODULE] = module
        spec.loader.exec_module(module)
        self._predict: Predict = module.load(path.parent)
        self._input = config["input"][0]["name"]
        self._columns = {output["name"]: int(output["dims"][0]) for output in config["output"]}
        rehearse(args, self._score)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Score the rows of all requests in one call and give each request its own."""
        responses: list[Any] = answer(requests, self._input, self._score)
        return responses

    def _score(self, rows: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        outputs = self._predict(rows)
        if outputs.keys() != self._columns.keys():
            raise ValueError(f"the model gave outputs {sorted(outputs)}, its signature names {sorted(self._columns)}")
        for name, columns in self._columns.items():
            output = outputs[name]
            if output.dtype != np.float32 or output.shape != (len(rows), columns):
                raise ValueError(
                    f"the model gave {output.dtype} {output.shape} for `{name}`, its signature says float32"
                    f" ({len(rows)}, {columns})"
                )
        return {name: np.ascontiguousarray(outputs[name]) for name in self._columns}
