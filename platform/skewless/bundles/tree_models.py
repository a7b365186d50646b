"""Tree models in their libraries' own formats, which Triton's FIL backend runs: what can be told from the file.

A mistake found here costs a sentence; found by the server it costs a deployment. The number of features and of classes
must be the signature's, and what FIL cannot run (linear boosters, linear leaves, several targets) is refused.
"""

import json
import re
import struct
from typing import Any

from skewless.errors import BundleRefused
from skewless.serving.ports import ModelSignature

FIL_INPUT, FIL_OUTPUT = "input__0", "output__0"
"""The only names that the FIL backend knows."""
_BOOSTERS = ("gbtree", "dart")
_BINARY_OBJECTIVES = re.compile(r"binary|cross_entropy|logistic|logitraw|hinge")


def check_xgboost_json(path: str, data: bytes, signature: ModelSignature) -> None:
    """Raises BundleRefused for another file than XGBoost's JSON, or a model that does not fit its signature."""
    try:
        learner = json.loads(data)["learner"]
        parameters, booster = learner["learner_model_param"], str(learner["gradient_booster"]["name"])
        found = {key: int(parameters.get(key, "0")) for key in ("num_feature", "num_class", "num_target")}
        objective = str(learner["objective"]["name"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise BundleRefused(
            f"`{path}` is no XGBoost model in JSON: {error!r}", hint="write it with Booster.save_model('xgboost.json')"
        ) from error
    _check_xgboost(path, booster, found, objective, signature)


def check_xgboost_ubj(path: str, data: bytes, signature: ModelSignature) -> None:
    """As `check_xgboost_json`, for XGBoost's UBJSON."""
    try:
        if not re.match(rb"\{L.{7}\x07learner", data, re.DOTALL):
            raise ValueError("it does not begin with a learner")  # noqa: TRY301  # one sentence for every way to differ
        tail = data[data.rfind(b"learner_model_param") :]
        found = {key: int(_ubj_text(tail, key) or "0") for key in ("num_feature", "num_class", "num_target")}
        booster = next((each for each in _BOOSTERS if _ubj_string(each) in data), "gblinear")
        objective = _ubj_text(tail, "name")
    except (ValueError, struct.error) as error:
        raise BundleRefused(
            f"`{path}` is no XGBoost model in UBJSON: {error}", hint="write it with Booster.save_model('xgboost.ubj')"
        ) from error
    _check_xgboost(path, booster, found, objective, signature)


def check_lightgbm_text(path: str, data: bytes, signature: ModelSignature) -> None:
    """Raises BundleRefused for another file than LightGBM's text, or a model that does not fit its signature."""
    header = data.partition(b"\n\n")[0].decode(errors="replace")
    stated = dict(line.partition("=")[::2] for line in header.splitlines())
    try:
        if not header.startswith("tree\n"):
            raise ValueError("it does not begin with `tree`")  # noqa: TRY301  # one sentence for every way to differ
        columns, classes = int(stated["max_feature_idx"]) + 1, int(stated["num_class"])
    except (KeyError, ValueError) as error:
        raise BundleRefused(
            f"`{path}` is no LightGBM model in text: {error}", hint="write it with Booster.save_model('model.txt')"
        ) from error
    if b"\nis_linear=1" in data:
        raise BundleRefused(f"`{path}` has linear leaves, which the FIL backend cannot run")
    binary = _BINARY_OBJECTIVES.search(stated.get("objective", "")) is not None
    _check_columns(path, signature, columns=columns, classes=classes, binary=binary)


def _check_xgboost(path: str, booster: str, found: dict[str, int], objective: str, signature: ModelSignature) -> None:
    if booster not in _BOOSTERS:
        raise BundleRefused(f"`{path}` is a `{booster}` model; the FIL backend runs {' and '.join(_BOOSTERS)}")
    if found["num_target"] > 1:
        raise BundleRefused(f"`{path}` has {found['num_target']} targets; the FIL backend runs models of one")
    binary = _BINARY_OBJECTIVES.search(objective) is not None
    _check_columns(path, signature, columns=found["num_feature"], classes=found["num_class"], binary=binary)


def _check_columns(path: str, signature: ModelSignature, *, columns: int, classes: int, binary: bool) -> None:
    """FIL gives a column per class, or one; of a binary classifier either, as the configuration's dims ask."""
    if columns != signature.input_columns:
        raise BundleRefused(f"`{path}` takes {columns} features, its signature says {signature.input_columns}")
    allowed = (classes,) if classes > 1 else ((1, 2) if binary else (1,))
    given = signature.outputs[0][1]
    if given not in allowed:
        raise BundleRefused(
            f"`{path}` gives {' or '.join(map(str, allowed))} columns of output, its signature says {given}"
        )


def _ubj_string(text: str) -> bytes:
    return b"SL" + struct.pack(">q", len(text)) + text.encode()


def _ubj_text(data: bytes, key: str) -> str:
    """The string under a key, where it stands first; empty where it stands nowhere."""
    sought = b"L" + struct.pack(">q", len(key)) + key.encode() + b"SL"
    at = data.find(sought)
    if at < 0:
        return ""
    at += len(sought)
    (length,) = struct.unpack_from(">q", data, at)
    return data[at + 8 : at + 8 + length].decode(errors="replace")


def fil_parameters(signature: ModelSignature) -> dict[str, Any]:
    """What the FIL backend has to be told so that it gives scores or probabilities, and never names of classes."""
    classifier = signature.outputs[0][1] > 1
    return {
        # Releases before 25.09 read the first name, those since then the second; both ignore the other.
        "output_class": str(classifier).lower(),
        "is_classifier": str(classifier).lower(),
        "predict_proba": str(classifier).lower(),
        # Read by some releases without a default. It decides classes, which are never asked for.
        "threshold": "0.5",
    }
