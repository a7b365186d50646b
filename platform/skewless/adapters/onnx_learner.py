"""Training's learner: boosted trees by scikit-learn, run by ONNX Runtime as the server runs them."""

from collections.abc import Mapping
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from skewless.adapters import sklearn_trainer
from skewless.adapters.onnx_runtime import OnnxModel
from skewless.training.definition import BoostedTrees
from skewless.training.train import LearnedModel, Progress, Scorer

_SHAPING_LIBRARIES = ("numpy", "onnx", "onnxruntime", "scikit-learn", "skl2onnx")


class BoostedTreesLearner:
    """Implements `training.train.Learner` for `BoostedTrees`."""

    def __init__(self, parameters: BoostedTrees) -> None:
        self._parameters = parameters

    def fit(self, tensor: NDArray[np.float32], labels: NDArray[np.bool_], progress: Progress) -> LearnedModel:
        """Fit on (rows, columns) and (rows,). Raises InvalidDefinition for what cannot be fitted or exported."""
        trained = sklearn_trainer.train(tensor, labels, self._parameters, progress)
        return LearnedModel(
            onnx=trained.onnx,
            input_name=trained.input_name,
            output_name=trained.output_name,
            output_columns=OnnxModel(trained.onnx).output_columns,
            notes={"conversion_error_max": trained.conversion_error_max},
        )

    def scorer(self, model: LearnedModel) -> Scorer:
        """The exported model, ready to run."""
        return OnnxModel(model.onnx).run

    def versions(self) -> Mapping[str, str]:
        """Versions of the libraries that shape a model."""
        return {name: version(name) for name in _SHAPING_LIBRARIES}
