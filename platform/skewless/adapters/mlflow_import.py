"""Reads a model out of an MLflow model directory, without MLflow and without unpickling anything.

The directory's `MLmodel` names flavours, each with its files. Taken are `onnx`, `lightgbm` (a Booster's text) and
`xgboost` (JSON or UBJSON); trees are converted to ONNX, compared with the trees as they were read. Everything else is
kept by MLflow as a pickle, and is refused.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml

from skewless.adapters.onnx_classifier import classifier_form, tensors_of
from skewless.adapters.tree_onnx import conversion_error, tree_onnx
from skewless.bundles.model_files import ModelFiles
from skewless.canonical_json import digest, digest_bytes
from skewless.errors import InvalidDefinition
from skewless.limits import MIB
from skewless.serving.ports import ModelSignature
from skewless.training.imported import ImportedModel
from skewless.training.learner import TrainedModel, classifier_signature
from skewless.training.lightgbm_text import read_lightgbm
from skewless.training.tree_ensemble import TreeEnsemble
from skewless.training.xgboost_json import read_xgboost

DESCRIPTION = "MLmodel"
DESCRIPTION_BYTES_MAX = MIB
MODEL_BYTES_MAX = 512 * MIB
_COMPARED_ROWS = 2_000
_KEPT = ("mlflow_version", "model_uuid", "run_id", "utc_time_created")
"""What of the description goes into the provenance."""
_AS_ONNX = "log the model as ONNX (`mlflow.onnx.log_model`), or a Booster instead of its scikit-learn wrapper"


def read_mlflow(folder: Path, columns: int) -> ImportedModel:
    """The model of an MLflow directory as ONNX over `columns` inputs, with where it came from and its inputs' names.

    Raises InvalidDefinition for a directory that is none, and for a flavour that only a pickle could bring.
    """
    description = _description(folder)
    flavors = description.get("flavors")
    if not isinstance(flavors, Mapping):
        raise InvalidDefinition(f"`{DESCRIPTION}` of `{folder.name}` names no flavours")
    flavor = next((name for name in _READERS if name in flavors), None)
    if flavor is None:
        found = ", ".join(sorted(str(name) for name in flavors if name != "python_function")) or "none"
        raise InvalidDefinition(
            f"the MLflow model `{folder.name}` has the flavours {found}; allowed: {', '.join(_READERS)}",
            hint=_AS_ONNX,
        )
    settings = flavors[flavor]
    path = settings.get("data")
    _refuse_pickled(flavor, settings)
    data = _read(folder, path)
    model = _READERS[flavor](data, settings, columns)
    source = {
        "kind": "mlflow",
        "flavor": flavor,
        "file": path,
        "sha256": digest_bytes(data),
        "description_digest": digest(json.loads(json.dumps(description, default=str))),
        **{name: str(description[name]) for name in _KEPT if description.get(name)},
    }
    return ImportedModel(model, source, _input_names(description))


def _description(folder: Path) -> Mapping[str, Any]:
    data = _read(folder, DESCRIPTION, bytes_max=DESCRIPTION_BYTES_MAX)
    try:
        description = yaml.safe_load(data)
    except yaml.YAMLError as error:
        raise InvalidDefinition(f"`{DESCRIPTION}` of `{folder.name}` is no YAML: {error}") from error
    if not isinstance(description, Mapping):
        raise InvalidDefinition(f"`{DESCRIPTION}` of `{folder.name}` describes no model")
    return description


def _read(folder: Path, path: object, *, bytes_max: int = MODEL_BYTES_MAX) -> bytes:
    """A file of the directory; nothing outside of it is read, not even through a link."""
    if not isinstance(path, str) or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise InvalidDefinition(f"`{folder.name}` names {path!r} as a file; it must be a path within the directory")
    place = folder / path
    try:
        if not place.resolve().is_relative_to(folder.resolve()):
            raise InvalidDefinition(f"`{path}` of `{folder.name}` is a link that leads out of the directory")
        if place.stat().st_size > bytes_max:
            raise InvalidDefinition(f"`{path}` of `{folder.name}` is larger than {bytes_max // MIB} MiB")
        return place.read_bytes()
    except OSError as error:
        hint = "give the directory that holds the file `MLmodel`" if path == DESCRIPTION else ""
        raise InvalidDefinition(f"`{path}` of `{folder.name}` cannot be read: {error.strerror}", hint=hint) from error


def _refuse_pickled(flavor: str, settings: Mapping[str, Any]) -> None:
    """LightGBM's scikit-learn wrappers are pickled by MLflow; XGBoost's are written as the Booster within them."""
    model_class = str(settings.get("model_class", ""))
    if flavor == "lightgbm" and model_class not in ("", "lightgbm.basic.Booster"):
        raise InvalidDefinition(f"the MLflow model is a `{model_class}`, which MLflow keeps as a pickle", hint=_AS_ONNX)


def _from_onnx(data: bytes, _: Mapping[str, Any], columns: int) -> TrainedModel:
    onnx = classifier_form(data, columns)
    input_name, output = tensors_of(onnx)
    return TrainedModel(ModelFiles.onnx(onnx), ModelSignature(input_name, columns, (output,)))


def _from_lightgbm(data: bytes, _: Mapping[str, Any], columns: int) -> TrainedModel:
    return _from_trees(read_lightgbm(data), columns, "LightGBM")


def _from_xgboost(data: bytes, _: Mapping[str, Any], columns: int) -> TrainedModel:
    if not data.lstrip().startswith(b'{"'):
        from skewless.adapters.xgboost_trainer import json_of  # which loads XGBoost, for its binary form alone

        data = json_of(data)
    return _from_trees(read_xgboost(data), columns, "XGBoost")


def _from_trees(ensemble: TreeEnsemble, columns: int, library: str) -> TrainedModel:
    if ensemble.columns != columns:
        raise InvalidDefinition(
            f"the {library} model takes {ensemble.columns} columns, the transform gives {columns}",
            hint="give the transform that the model was fitted on",
        )
    onnx = tree_onnx(ensemble)
    rows = _rows_at_thresholds(ensemble)
    error_max = conversion_error(onnx, rows, ensemble.probabilities(rows), library=f"{library}'s trees")
    return TrainedModel(
        ModelFiles.onnx(onnx),
        classifier_signature(columns),
        notes={"trees": len(ensemble.trees), "conversion_error_max": error_max},
    )


def _rows_at_thresholds(ensemble: TreeEnsemble) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Made rows (rows, columns) that lie at, just below and just above the thresholds, where conversions go wrong."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(_COMPARED_ROWS, ensemble.columns)).astype(np.float32)
    if not ensemble.trees:
        return rows
    columns = np.concatenate([tree.column for tree in ensemble.trees])
    thresholds = np.concatenate([tree.threshold for tree in ensemble.trees])
    for column in range(ensemble.columns):
        own = thresholds[columns == column]
        own = own[np.isfinite(own)]
        if len(own):
            chosen = rng.choice(own, _COMPARED_ROWS)
            toward = rng.choice(np.array([-np.inf, np.inf], np.float32), _COMPARED_ROWS)
            rows[:, column] = np.where(rng.random(_COMPARED_ROWS) < 0.5, chosen, np.nextafter(chosen, toward))
    rows[: ensemble.columns][np.eye(ensemble.columns, dtype=np.bool_)[: len(rows)]] = np.nan
    return rows


def _input_names(description: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the inputs by the signature, empty where there is none or it is one tensor."""
    signature = description.get("signature")
    inputs = signature.get("inputs") if isinstance(signature, Mapping) else None
    if not isinstance(inputs, str):
        return ()
    try:
        names = [each.get("name") for each in json.loads(inputs)]
    except (AttributeError, TypeError, ValueError) as error:
        raise InvalidDefinition(f"the MLflow model's signature cannot be read: {error!r}") from error
    return tuple(names) if len(names) > 1 and all(isinstance(name, str) for name in names) else ()


_READERS: Mapping[str, Callable[[bytes, Mapping[str, Any], int], TrainedModel]] = {
    "onnx": _from_onnx,
    "lightgbm": _from_lightgbm,
    "xgboost": _from_xgboost,
}
