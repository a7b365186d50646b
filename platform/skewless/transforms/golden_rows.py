"""Which rows are kept with a transform to show, wherever it runs, that it computes what it computed when it was fitted.

Candidates are rows of the training set and rows made for the purpose (`row_generator.py`: nulls, unseen words, the
edges of every clip and bucket with their neighbours, extremes). A row is taken for a *branch* that no row taken before
goes through. What the branches of a transform are is read off its own computation, node by node: that a node is null
or not, which of few values it has (a comparison, a bucket, a category, an hour), or where among many values it lies:
at either end, below, at or above a parameter, not a number.

    facts     per node, one int per candidate row: the branch that the row takes there      (nodes, candidates)
    rows      the first candidate of each branch not yet taken, training rows before made ones
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import Column
from skewless.transforms.evaluation import Evaluation
from skewless.transforms.operation import Kind, Settings, Vector
from skewless.transforms.row_generator import generate_rows
from skewless.transforms.spec import FittedTransform

ROWS_MAX = 256
TRAINING_CANDIDATES = 8_192
"""Training rows looked at, evenly spread, besides those with the extremes of a column."""
MADE_CANDIDATES = 2_048
_VALUES_MAX = 24
"""A node with no more distinct values than this has a branch for each."""
_SEED = 2013


@dataclass(frozen=True, slots=True)
class GoldenRows:
    """The rows kept, as columns of the transform's inputs, and for each why it is: the first branch it is there for."""

    columns: Mapping[str, Column]
    reasons: tuple[str, ...]

    @property
    def rows(self) -> int:
        """How many rows."""
        return len(self.reasons)


def choose(
    fitted: FittedTransform, columns: Mapping[str, Column], rows: int, *, rows_max: int = ROWS_MAX
) -> GoldenRows:
    """Golden rows for a transform from its training rows, the same for the same transform and rows.

    Never more than `rows_max`, and one at least where there is a training row; where there are more branches than
    that, each node has its first ones.
    """
    inputs = [name for name, _ in fitted.inputs]
    sampled = _training_candidates({name: columns[name] for name in inputs}, rows)
    made = generate_rows(fitted, rows=MADE_CANDIDATES, seed=_SEED, samples=None)
    candidates = {name: _joined(_taken(columns[name], sampled), made[name]) for name in inputs}
    count = len(sampled) + MADE_CANDIDATES
    chosen: dict[int, str] = {0: "a training row"} if len(sampled) else {}
    for facts in _facts(fitted, candidates, count):
        taken = np.fromiter(chosen, dtype=np.int64, count=len(chosen))
        covered = set(facts.branches[taken].tolist())
        branches, first = np.unique(facts.branches, return_index=True)
        for branch, row in zip(branches.tolist(), first.tolist(), strict=True):
            if branch not in covered and len(chosen) < rows_max:
                origin = "a training row" if row < len(sampled) else "made"
                chosen.setdefault(row, f"{origin}: {facts.subject} {facts.words(branch)}")
    order = np.fromiter(chosen, dtype=np.int64, count=len(chosen))
    return GoldenRows({name: _taken(candidates[name], order) for name in inputs}, tuple(chosen.values()))


_NULL, _NAN, _INFINITE, _LOW, _HIGH, _BETWEEN = -1, -2, -3, -4, -5, -6
_WORDS = {
    _NULL: "is null",
    _NAN: "is not a number",
    _INFINITE: "is infinite",
    _LOW: "is at its least",
    _HIGH: "is at its most",
    _BETWEEN: "is between its ends",
}


class _Facts(NamedTuple):
    """The branch (rows,) that each row takes in one respect, and what a branch is called."""

    subject: str
    branches: NDArray[np.int64]
    places: tuple[float, ...] = ()
    """Landmarks, or the few values there are."""
    among_landmarks: bool = False

    def words(self, branch: int) -> str:
        if branch < 0:
            return _WORDS[branch]
        if not self.places:
            return "has a value"
        if not self.among_landmarks:
            return f"is {self.places[branch]:.12g}"
        at, is_at = divmod(branch, 2)
        if is_at:
            return f"is at {self.places[at]:.12g}"
        return f"is below {self.places[at]:.12g}" if at < len(self.places) else f"is above {self.places[-1]:.12g}"


def _training_candidates(columns: Mapping[str, Column], rows: int) -> NDArray[np.int64]:
    """Row numbers, ascending: evenly spread ones, and of every number and moment the rows of its extremes."""
    found = set(np.linspace(0, rows - 1, min(TRAINING_CANDIDATES, rows)).astype(np.int64).tolist()) if rows else set()
    for column in columns.values():
        if column.values.dtype.hasobject or not column.valid.any():
            continue
        values = column.values.astype(np.float64)
        usable = column.valid & np.isfinite(values)
        if usable.any():
            found |= {int(np.where(usable, values, np.inf).argmin()), int(np.where(usable, values, -np.inf).argmax())}
    return np.array(sorted(found), dtype=np.int64)


def _facts(fitted: FittedTransform, columns: Mapping[str, Column], rows: int) -> Iterator[_Facts]:
    """What every node, and its operands among its parameters, is at each row; operands first."""
    graph = fitted.graph
    with np.errstate(all="ignore"):
        vectors = Evaluation(graph, fitted.learned, range(len(graph.nodes))).vectors(columns, rows)
    for index, vector in vectors.items():
        node = graph.nodes[index]
        if node.kind is Kind.SEVERAL:
            for part, (values, valid) in enumerate(zip(vector.values, vector.valid, strict=True)):
                yield _among_values(f"`{node.text}`, part {part}", Vector(values, valid))
        elif node.kind is Kind.STRING:
            yield _Facts(f"`{node.text}`", np.where(vector.valid, 0, _NULL).astype(np.int64))
        else:
            yield _among_values(f"`{node.text}`", vector)
        landmarks = _landmarks([node.settings, fitted.learned.get(index, {})])
        for operand in graph.operands[index] if landmarks else ():
            if graph.nodes[operand].kind is Kind.NUMBER:
                yield _among_landmarks(f"what `{node.text}` is given", vectors[operand], landmarks)


def _landmarks(parameters: Iterable[Settings]) -> tuple[float, ...]:
    """The numbers among parameters: bounds, edges, values compared with; of many, the first and the last ones."""
    found: set[float] = set()
    for settings in parameters:
        for value in settings.values():
            numbers = value if isinstance(value, list) else [value]
            found |= {float(each) for each in numbers if isinstance(each, float)}
    ordered = sorted(found)
    half = _VALUES_MAX // 4
    return tuple(ordered if len(ordered) <= 2 * half else [*ordered[:half], *ordered[-half:]])


def _among_landmarks(subject: str, vector: Vector, landmarks: tuple[float, ...]) -> _Facts:
    edges = np.array(landmarks)
    values = vector.values.astype(np.float64)
    # Twice the number of landmarks below, and one more at a landmark itself.
    places = edges.searchsorted(values, "left") + edges.searchsorted(values, "right")
    return _Facts(
        subject, _with_specials(values, vector.valid, places.astype(np.int64)), landmarks, among_landmarks=True
    )


def _among_values(subject: str, vector: Vector) -> _Facts:
    values = vector.values.astype(np.float64)
    distinct = np.unique(values[vector.valid & np.isfinite(values)])
    if len(distinct) <= _VALUES_MAX:
        places = distinct.searchsorted(values).astype(np.int64)
        return _Facts(subject, _with_specials(values, vector.valid, places), tuple(distinct.tolist()))
    places = np.where(values == distinct[0], _LOW, np.where(values == distinct[-1], _HIGH, _BETWEEN)).astype(np.int64)
    return _Facts(subject, _with_specials(values, vector.valid, places))


def _with_specials(
    values: NDArray[np.float64], valid: NDArray[np.bool_], branches: NDArray[np.int64]
) -> NDArray[np.int64]:
    branches = np.where(np.isinf(values), _INFINITE, branches)
    branches = np.where(np.isnan(values), _NAN, branches)
    return np.where(valid, branches, _NULL).astype(np.int64)


def _taken(column: Column, rows: NDArray[np.int64]) -> Column:
    return Column(column.dtype, column.values[rows], column.valid[rows])


def _joined(first: Column, second: Column) -> Column:
    return Column(
        first.dtype, np.concatenate([first.values, second.values]), np.concatenate([first.valid, second.valid])
    )
