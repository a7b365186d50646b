"""The training tensor of a transform with target encodings: no row's encoding is learned from its own target.

A transform that is fitted on all rows encodes a training row with a mean that the row's own target is part of, and a
model trained on that learns to trust it more than it can be trusted when serving. So for training, the rows are cut
into folds, and each row is encoded with what the rows of the other folds have taught. Everything else that is learned
(means, vocabularies, edges) is the fitted transform's own. Serving always uses what all rows have taught.

    folds     (rows,) int, from the content of each row: the order of the rows does not matter, and equal rows, which
              teach the same, are in one fold
    tensor    (rows, outputs) float32, filled fold by fold
"""

from collections.abc import Mapping

import mmh3
import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import TABLE, Column
from skewless.errors import InvalidDefinition
from skewless.transforms.execution import PreparedTransform
from skewless.transforms.fitting import learn
from skewless.transforms.graph import Graph
from skewless.transforms.spec import FittedTransform, Transform

_SEED = 0x5EED
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def out_of_fold(
    transform: Transform, columns: Mapping[str, Column], rows: int, target: Column
) -> tuple[FittedTransform, NDArray[np.float32]]:
    """The transform fitted on all rows, and the tensor (rows, outputs) to train a model on.

    Without a target encoding the tensor is the fitted transform's. Costs one fit of the encodings more per fold. Raises
    InvalidDefinition as `fit` does, and for target encodings that ask for different counts of folds.
    """
    fitted = transform.fit(columns, rows, target=target)
    encoders = [index for index, node in enumerate(fitted.graph.nodes) if node.operation.needs_target]
    if not encoders:
        return fitted, fitted.prepare().apply(columns, rows)
    counts = sorted({fitted.graph.nodes[index].settings["folds"] for index in encoders})
    if len(counts) > 1:
        raise InvalidDefinition(f"target encodings of one transform have folds={counts}; give them the same")
    inputs = {name: columns[name] for name, _ in fitted.inputs}
    folds = folds_of(inputs, rows, counts[0])
    tensor = np.empty((rows, len(fitted.output_names)), dtype=np.float32)
    for fold in range(counts[0]):
        held = folds == fold
        if held.any():
            prepared = _without(fitted, encoders, inputs, target, ~held)
            tensor[held] = prepared.apply(_select(inputs, held), int(held.sum()))
    return fitted, tensor


def folds_of(columns: Mapping[str, Column], rows: int, folds: int) -> NDArray[np.intp]:
    """A fold, 0 to `folds` - 1, for each row (rows,), from the values and nulls of its columns.

    >>> from skewless.dtypes import Dtype, column_of
    >>> first, null, again = folds_of({"a": column_of(Dtype.INT64, [7, None, 7])}, 3, 5).tolist()
    >>> first == again
    True
    """
    mixed = np.full(rows, _SEED, dtype=np.uint64)
    for column in columns.values():
        mixed = _mixed(mixed ^ np.where(column.valid, _bits(column), np.uint64(1)))
    return (mixed >> np.uint64(32)).astype(np.intp) % folds


def _without(
    fitted: FittedTransform,
    encoders: list[int],
    columns: Mapping[str, Column],
    target: Column,
    others: NDArray[np.bool_],
) -> PreparedTransform:
    """The fitted transform whose target encodings have learned from the `others` alone."""
    count = int(others.sum())
    if not count:
        raise InvalidDefinition(
            "all training rows are alike, so no row can be encoded by what other rows teach",
            hint="leave the target encoding out, or train on more rows",
        )
    # A target encoding is a number that is never null, so it can be an output: the graph of these alone is learned.
    alone = Graph.of({str(index): fitted.graph.nodes[index] for index in encoders})
    taught = learn(alone, _select(columns, others), count, target=_part(target, others))
    of_fold = {int(name): taught[index] for name, index in alone.outputs}
    return FittedTransform(fitted.graph, {**fitted.learned, **of_fold}).prepare()


def _select(columns: Mapping[str, Column], chosen: NDArray[np.bool_]) -> dict[str, Column]:
    return {name: _part(column, chosen) for name, column in columns.items()}


def _part(column: Column, chosen: NDArray[np.bool_]) -> Column:
    return Column(column.dtype, column.values[chosen], column.valid[chosen])


def _bits(column: Column) -> NDArray[np.uint64]:
    """64 bits for each value, the same for equal values; strings by MurmurHash3."""
    if TABLE[column.dtype].numpy == np.dtype(object):
        words = (word.encode("utf-8", "surrogatepass") for word in column.values.tolist())
        return np.fromiter((mmh3.hash64(word, _SEED, signed=False)[0] for word in words), np.uint64, len(column))
    # Every number as float64, and -0.0 as 0.0: what a transform sees, so rows that it cannot tell apart are alike.
    return (column.values.astype(np.float64) + 0.0).view(np.uint64)


def _mixed(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Every bit of the result depends on every bit given (the finalizer of SplitMix64, Steele et al. 2014)."""
    for shift, multiplier in zip((30, 27), _MULTIPLIERS, strict=True):
        bits = (bits ^ (bits >> np.uint64(shift))) * multiplier
    return bits ^ (bits >> np.uint64(31))
