"""Boosters of LightGBM as models: converted to ONNX for every target, or as they are for Triton's FIL backend."""

from importlib.metadata import version

import lightgbm
import numpy as np
from numpy.typing import NDArray

from skewless.adapters.tree_onnx import conversion_error, tree_onnx
from skewless.bundles.model_files import ModelFiles, ModelFormat
from skewless.bundles.tree_models import FIL_INPUT, FIL_OUTPUT
from skewless.errors import InvalidDefinition
from skewless.serving.ports import ModelSignature
from skewless.training.learner import TrainedModel, TrainingData, classifier_signature
from skewless.training.lightgbm_text import read_lightgbm

DETERMINISTIC = {"deterministic": True, "force_row_wise": True, "num_threads": 1, "verbose": -1}
"""Parameters with which LightGBM gives the same model on any number of cores."""
_SHAPING_LIBRARIES = ("lightgbm", "numpy", "onnx", "onnxruntime")


def dataset(data: TrainingData, rows: NDArray[np.bool_] | None = None) -> lightgbm.Dataset:
    """LightGBM's form of training data, or of some of its rows (a mask)."""
    chosen = slice(None) if rows is None else rows
    return lightgbm.Dataset(
        data.tensor[chosen],
        label=data.labels[chosen],
        weight=data.weights[chosen] if data.is_weighted else None,
        params={"verbose": -1},
        free_raw_data=False,
    )


def to_onnx(booster: lightgbm.Booster, data: TrainingData) -> TrainedModel:
    """A fitted booster of a binary classifier as ONNX, compared with it on every training row.

    Only the trees up to the best iteration are taken, where training stopped early. Raises InvalidDefinition for
    another objective, and for what ONNX cannot say (categorical splits, zero as missing).
    """
    ensemble = read_lightgbm(_text(booster))
    onnx = tree_onnx(ensemble)
    data.progress("comparing the converted model with LightGBM on every training row")
    error_max = conversion_error(onnx, data.tensor, _probabilities(booster, data.tensor), library="LightGBM")
    return TrainedModel(
        files=ModelFiles.onnx(onnx),
        signature=classifier_signature(len(data.output_names)),
        notes={"library": "lightgbm", "trees": len(ensemble.trees), "conversion_error_max": error_max},
        versions={name: version(name) for name in _SHAPING_LIBRARIES},
    )


def to_text(booster: lightgbm.Booster, data: TrainingData) -> TrainedModel:
    """A fitted booster in LightGBM's own text form, for Triton's FIL backend on a GPU; see docs/models.md."""
    text = _text(booster)
    ensemble = read_lightgbm(text)
    return TrainedModel(
        files=ModelFiles(ModelFormat.LIGHTGBM_TEXT, {"model.txt": text}, "model.txt"),
        signature=ModelSignature(FIL_INPUT, len(data.output_names), ((FIL_OUTPUT, 2),)),
        notes={"library": "lightgbm", "trees": len(ensemble.trees)},
        versions={name: version(name) for name in ("lightgbm", "numpy")},
        score=lambda tensor: _probabilities(booster, tensor).astype(np.float32),
    )


def _text(booster: lightgbm.Booster) -> bytes:
    try:
        return booster.model_to_string().encode()
    except lightgbm.basic.LightGBMError as error:
        raise InvalidDefinition(f"LightGBM cannot write the model: {error}") from error


def _probabilities(booster: lightgbm.Booster, tensor: NDArray[np.float32]) -> NDArray[np.float64]:
    positive = np.asarray(booster.predict(tensor, num_threads=1), dtype=np.float64)
    return np.stack([1.0 - positive, positive], axis=1)
