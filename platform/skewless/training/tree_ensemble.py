"""Boosted trees of a binary classifier as plain arrays: what LightGBM and XGBoost say, and what ONNX is given.

    margin(row)       base + the sum of one leaf's value per tree
    probability(row)  1 / (1 + exp(-margin))

A row goes left at a node when its value is `<=` (LightGBM) or `<` (XGBoost) the threshold; a missing value (NaN) goes
where the node says. Thresholds are float32, as the tensor is: where a library keeps float64, rounding down changes no
decision on a float32 value.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skewless.errors import InvalidDefinition

LEAF = -1
"""Stands in `Tree.column` where a node is a leaf."""


@dataclass(frozen=True, slots=True)
class Tree:
    """One tree, an entry per node, the root first; each array is (nodes,).

    `left` and `right` are larger than the node's own index, so a walk ends; they mean nothing for a leaf. `value` is
    a leaf's, 0 elsewhere.
    """

    column: NDArray[np.int64]
    threshold: NDArray[np.float32]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    missing_left: NDArray[np.bool_]
    value: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.column)


@dataclass(frozen=True, slots=True)
class TreeEnsemble:
    """Trees over a tensor of so many columns. `less_or_equal`: whether a value equal to the threshold goes left."""

    columns: int
    trees: tuple[Tree, ...]
    base: float
    less_or_equal: bool

    def __post_init__(self) -> None:
        for number, tree in enumerate(self.trees):
            _check_tree(tree, number, self.columns)

    def probabilities(self, tensor: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probabilities of the negative and the positive class (rows, 2) of a tensor (rows, columns), in float64.

        Slow and plain: what a conversion is compared with.
        """
        margin = np.full(len(tensor), self.base)
        for tree in self.trees:
            margin += tree.value[self._leaves(tree, tensor)]
        with np.errstate(over="ignore"):
            return np.stack([1.0 / (1.0 + np.exp(margin)), 1.0 / (1.0 + np.exp(-margin))], axis=1)

    def _leaves(self, tree: Tree, tensor: NDArray[np.float32]) -> NDArray[np.int64]:
        place = np.zeros(len(tensor), dtype=np.int64)
        while (inner := np.flatnonzero(tree.column[place] != LEAF)).size:
            node = place[inner]
            values, threshold = tensor[inner, tree.column[node]], tree.threshold[node]
            below = values <= threshold if self.less_or_equal else values < threshold
            go_left = np.where(np.isnan(values), tree.missing_left[node], below)
            place[inner] = np.where(go_left, tree.left[node], tree.right[node])
        return place


def floor_to_float32(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """The largest float32 that is not above each value; infinities stay.

    >>> float(floor_to_float32(np.array([0.1]))[0]) <= 0.1
    True
    """
    with np.errstate(over="ignore"):
        nearest = values.astype(np.float32)
    return np.where(nearest > values, np.nextafter(nearest, np.float32(-np.inf)), nearest).astype(np.float32)


def _check_tree(tree: Tree, number: int, columns: int) -> None:
    nodes = np.arange(len(tree))
    inner = tree.column != LEAF
    children = np.concatenate([tree.left[inner], tree.right[inner]])
    after = np.concatenate([nodes[inner], nodes[inner]])
    if not len(tree) or (children <= after).any() or (children >= len(tree)).any():
        raise InvalidDefinition(f"tree {number} of the model is broken: a node's children must come after it")
    if ((tree.column < LEAF) | (tree.column >= columns)).any():
        raise InvalidDefinition(f"tree {number} of the model reads column {tree.column.max()}, there are {columns}")
    if np.isnan(tree.threshold[inner]).any() or not np.isfinite(tree.value[~inner]).all():
        raise InvalidDefinition(f"tree {number} of the model has a threshold or a leaf that is not a number")
