"""Reads XGBoost's JSON model (`Booster.save_model("….json")`), without XGBoost.

Thresholds and leaves are float32, written in their shortest form; a value below the threshold goes left. The base
score is a probability, and enters as its log-odds.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from skewless.errors import InvalidDefinition
from skewless.training.tree_ensemble import LEAF, Tree, TreeEnsemble

_OBJECTIVES = ("binary:logistic", "reg:logistic")


def read_xgboost(data: bytes) -> TreeEnsemble:
    """The trees of a binary classifier. Raises InvalidDefinition for another model, and for what ONNX cannot say."""
    try:
        learner = json.loads(data)["learner"]
        parameters = learner["learner_model_param"]
        _check_kind(learner, parameters)
        base_score = float(str(parameters["base_score"]).strip("[]"))
        trees = learner["gradient_booster"]["model"]["trees"]
        return TreeEnsemble(
            columns=int(parameters["num_feature"]),
            trees=tuple(_tree(tree, number) for number, tree in enumerate(trees)),
            base=float(np.float32(math.log(base_score / (1.0 - base_score)))),
            less_or_equal=False,
        )
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise InvalidDefinition(f"this is no XGBoost JSON model of a binary classifier: {error!r}") from error


def _check_kind(learner: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
    objective, booster = learner["objective"]["name"], learner["gradient_booster"]["name"]
    if objective not in _OBJECTIVES or parameters.get("num_target", "1") != "1":
        raise InvalidDefinition(
            f"an XGBoost model with objective `{objective}` is no binary classifier; allowed: {', '.join(_OBJECTIVES)}"
        )
    if booster != "gbtree":
        raise InvalidDefinition(
            f"an XGBoost model of `{booster}` cannot be converted", hint="train with booster=gbtree"
        )


def _tree(tree: Mapping[str, Any], number: int) -> Tree:
    if any(tree.get("split_type", ())) or tree.get("categories"):
        raise InvalidDefinition(
            f"tree {number} splits on a categorical feature, which no ONNX tree can say",
            hint="encode categories in the transform, and train without enable_categorical",
        )
    left = np.array(tree["left_children"], dtype=np.int64)
    conditions = np.array(tree["split_conditions"], dtype=np.float32)
    leaf = left == -1
    return Tree(
        column=np.where(leaf, LEAF, np.array(tree["split_indices"], dtype=np.int64)),
        threshold=np.where(leaf, np.float32(0), conditions).astype(np.float32),
        left=np.where(leaf, 0, left),
        right=np.where(leaf, 0, np.array(tree["right_children"], dtype=np.int64)),
        missing_left=np.array(tree["default_left"], dtype=np.bool_),
        value=np.where(leaf, conditions, np.float32(0)).astype(np.float64),
    )
