"""Reads LightGBM's text model (`Booster.save_model`), without LightGBM.

The format: a header of `key=value` lines, then a block of them per tree, which begins with `Tree=`. Of a decision type
bit 0 says categorical, bit 1 that a missing value goes left, bits 2 and 3 what counts as missing: 0 nothing (NaN is
taken for 0), 1 zero, 2 NaN. A child below 0 is leaf `-child - 1`.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from skewless.errors import InvalidDefinition
from skewless.training.tree_ensemble import LEAF, Tree, TreeEnsemble, floor_to_float32

_CATEGORICAL, _DEFAULT_LEFT = 1, 2
_MISSING_SHIFT, _MISSING_MASK = 2, 3
_MISSING_ZERO, _MISSING_NAN = 1, 2
_ZERO = np.float32(1e-35)
"""LightGBM's `kZeroThreshold`."""


def read_lightgbm(data: bytes) -> TreeEnsemble:
    """The trees of a binary classifier. Raises InvalidDefinition for another model, and for what ONNX cannot say."""
    try:
        blocks = data.decode().split("\nend of trees")[0].split("\nTree=")
        header = _fields(blocks[0])
        scale = _scale(header)
        trees = tuple(_tree(_fields(block), number, scale) for number, block in enumerate(blocks[1:]))
        return TreeEnsemble(int(header["max_feature_idx"]) + 1, trees, 0.0, less_or_equal=True)
    except (KeyError, ValueError, IndexError) as error:
        raise InvalidDefinition(f"this is no LightGBM text model: {error!r}") from error


def _fields(block: str) -> dict[str, str]:
    return {key: value for key, _, value in (line.partition("=") for line in block.splitlines())}


def _scale(header: Mapping[str, str]) -> float:
    """What margins are multiplied with before the sigmoid."""
    objective, *settings = header["objective"].split()
    if objective not in ("binary", "cross_entropy") or header["num_class"] != "1":
        raise InvalidDefinition(
            f"a LightGBM model with objective `{header['objective']}` and {header['num_class']} classes is no binary"
            " classifier; allowed: `binary` and `cross_entropy`"
        )
    if "average_output" in header:
        raise InvalidDefinition("a LightGBM random forest (boosting=rf) cannot be converted", hint="use boosting=gbdt")
    return next((float(each.removeprefix("sigmoid:")) for each in settings if each.startswith("sigmoid:")), 1.0)


def _tree(fields: Mapping[str, str], number: int, scale: float) -> Tree:
    if fields.get("is_linear", "0") != "0":
        raise InvalidDefinition(f"tree {number} has linear leaves", hint="train with linear_tree=false")
    leaves = int(fields["num_leaves"])
    value = scale * _numbers(fields["leaf_value"], leaves)
    if leaves == 1:
        return _with_leaves(_NOTHING, value)
    splits = leaves - 1
    kinds = _integers(fields["decision_type"], splits)
    missing = (kinds >> _MISSING_SHIFT) & _MISSING_MASK
    _refuse_unspeakable(kinds, missing, number)
    exact = _numbers(fields["threshold"], splits)
    left, right = (_integers(fields[name], splits) for name in ("left_child", "right_child"))
    inner = Tree(
        column=_integers(fields["split_feature"], splits),
        threshold=floor_to_float32(_around_zero(exact)),
        left=np.where(left < 0, splits - left - 1, left),
        right=np.where(right < 0, splits - right - 1, right),
        # Where nothing counts as missing, NaN is taken for 0 and goes where 0 goes.
        missing_left=np.where(missing == _MISSING_NAN, (kinds & _DEFAULT_LEFT) != 0, exact >= 0.0),
        value=np.zeros(splits),
    )
    return _with_leaves(inner, value)


def _around_zero(thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Thresholds that decide on a value as it is as LightGBM does, which takes every value up to 1e-35 for 0."""
    below = np.nextafter(-_ZERO, np.float32(-np.inf)).astype(np.float64)
    kept = np.where((thresholds >= -_ZERO) & (thresholds < 0.0), below, thresholds)
    return np.where((kept >= 0.0) & (kept < _ZERO), np.float64(_ZERO), kept)


_NOTHING = Tree(
    column=np.empty(0, np.int64),
    threshold=np.empty(0, np.float32),
    left=np.empty(0, np.int64),
    right=np.empty(0, np.int64),
    missing_left=np.empty(0, np.bool_),
    value=np.empty(0, np.float64),
)
"""The inner nodes of a tree that is one leaf."""


def _refuse_unspeakable(kinds: NDArray[np.int64], missing: NDArray[np.int64], number: int) -> None:
    if (kinds & _CATEGORICAL).any():
        raise InvalidDefinition(
            f"tree {number} splits on a categorical feature, which no ONNX tree can say",
            hint="encode categories in the transform, and do not give LightGBM categorical_feature",
        )
    if (missing == _MISSING_ZERO).any():
        raise InvalidDefinition(
            f"tree {number} takes zero for a missing value, which no ONNX tree can say",
            hint="train with zero_as_missing=false; impute in the transform",
        )


def _with_leaves(inner: Tree, value: NDArray[np.float64]) -> Tree:
    """The inner nodes, and behind them the leaves."""
    count = len(value)
    none = np.zeros(count, dtype=np.int64)
    return Tree(
        column=np.concatenate([inner.column, none + LEAF]),
        threshold=np.concatenate([inner.threshold, none.astype(np.float32)]),
        left=np.concatenate([inner.left, none]),
        right=np.concatenate([inner.right, none]),
        missing_left=np.concatenate([inner.missing_left, none.astype(np.bool_)]),
        value=np.concatenate([inner.value, value]),
    )


def _numbers(text: str, count: int) -> NDArray[np.float64]:
    numbers = np.array([float(each) for each in text.split()], dtype=np.float64)
    if len(numbers) != count:
        raise ValueError(f"{len(numbers)} numbers where {count} are due")
    return numbers


def _integers(text: str, count: int) -> NDArray[np.int64]:
    return _numbers(text, count).astype(np.int64)
