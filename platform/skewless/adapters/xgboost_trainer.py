"""Boosters of XGBoost as models: converted to ONNX for every target, or as they are for Triton's FIL backend."""

from importlib.metadata import PackageNotFoundError, version

import numpy as np
import xgboost
from numpy.typing import NDArray

from skewless.adapters.tree_onnx import conversion_error, tree_onnx
from skewless.bundles.model_files import ModelFiles, ModelFormat
from skewless.bundles.tree_models import FIL_INPUT, FIL_OUTPUT
from skewless.errors import InvalidDefinition
from skewless.serving.ports import ModelSignature
from skewless.training.learner import TrainedModel, TrainingData, classifier_signature
from skewless.training.xgboost_json import read_xgboost

DETERMINISTIC = {"nthread": 1, "tree_method": "hist", "verbosity": 0}
"""Parameters with which XGBoost gives the same model on any number of cores."""
_SHAPING_LIBRARIES = ("numpy", "onnx", "onnxruntime")


def matrix(data: TrainingData, rows: NDArray[np.bool_] | None = None) -> xgboost.DMatrix:
    """XGBoost's form of training data, or of some of its rows (a mask)."""
    chosen = slice(None) if rows is None else rows
    weights = data.weights[chosen] if data.is_weighted else None
    return xgboost.DMatrix(data.tensor[chosen], label=data.labels[chosen], weight=weights, nthread=1)


def to_onnx(booster: xgboost.Booster, data: TrainingData) -> TrainedModel:
    """A fitted booster of a binary classifier as ONNX, compared with it on every training row.

    Only the trees up to the best iteration are taken, where training stopped early. Raises InvalidDefinition for
    another objective, and for what ONNX cannot say (categorical splits, other boosters than trees).
    """
    best = _best(booster)
    ensemble = read_xgboost(_json(best))
    onnx = tree_onnx(ensemble)
    data.progress("comparing the converted model with XGBoost on every training row")
    error_max = conversion_error(onnx, data.tensor, _probabilities(best, data.tensor), library="XGBoost")
    return TrainedModel(
        files=ModelFiles.onnx(onnx),
        signature=classifier_signature(len(data.output_names)),
        notes={"library": "xgboost", "trees": len(ensemble.trees), "conversion_error_max": error_max},
        versions={**{name: version(name) for name in _SHAPING_LIBRARIES}, **_version()},
    )


def to_json(booster: xgboost.Booster, data: TrainingData) -> TrainedModel:
    """A fitted booster in XGBoost's own JSON form, for Triton's FIL backend on a GPU; see docs/models.md."""
    best = _best(booster)
    text = _json(best)
    trees = len(read_xgboost(text).trees)
    return TrainedModel(
        files=ModelFiles(ModelFormat.XGBOOST_JSON, {"xgboost.json": text}, "xgboost.json"),
        signature=ModelSignature(FIL_INPUT, len(data.output_names), ((FIL_OUTPUT, 2),)),
        notes={"library": "xgboost", "trees": trees},
        versions={"numpy": version("numpy"), **_version()},
        score=lambda tensor: _probabilities(best, tensor).astype(np.float32),
    )


def json_of(data: bytes) -> bytes:
    """XGBoost's binary model (UBJSON) in its JSON form. Raises InvalidDefinition for another file."""
    try:
        return _json(xgboost.Booster(model_file=bytearray(data)))
    except xgboost.core.XGBoostError as error:
        reason = str(error).splitlines()[0]
        raise InvalidDefinition(f"XGBoost cannot read the model: {reason}") from error


def _best(booster: xgboost.Booster) -> xgboost.Booster:
    stopped = booster.attr("best_iteration")
    return booster if stopped is None else booster[: int(stopped) + 1]


def _json(booster: xgboost.Booster) -> bytes:
    return bytes(booster.save_raw("json"))


def _probabilities(booster: xgboost.Booster, tensor: NDArray[np.float32]) -> NDArray[np.float64]:
    positive = np.asarray(booster.predict(xgboost.DMatrix(tensor, nthread=1)), dtype=np.float64)
    return np.stack([1.0 - positive, positive], axis=1)


def _version() -> dict[str, str]:
    """Of the distribution that is installed: the one for CPUs alone has a name of its own."""
    for name in ("xgboost", "xgboost-cpu"):
        try:
            return {name: version(name)}
        except PackageNotFoundError:
            continue
    return {"xgboost": xgboost.__version__}
