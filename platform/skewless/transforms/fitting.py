"""Learning a graph's parameters from training rows, and checking learned parameters that were stored.

Rows come as batches that can be gone through more than once. What an operation learns can rest on what operations
below it have learned, so the graph is learned in stages, and a stage takes as many passes as its slowest statistic:

    stage     the nodes that learn whose operands need only what earlier stages have learned
    pass      every batch once: cut into chunks, the stage's operands computed, each statistic given its own
    chunk     (≤ 16,384 rows), whatever the batches' size: the operands' vectors stay near the CPU's caches

Memory beyond the batch is one chunk's vectors and what the statistics of one stage hold: ADR 12.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from skewless.dtypes import NUMERIC, Column
from skewless.errors import InvalidDefinition
from skewless.transforms.column_checks import check_columns
from skewless.transforms.declaration import at
from skewless.transforms.evaluation import Evaluation
from skewless.transforms.expressions import Expression
from skewless.transforms.graph import Graph
from skewless.transforms.learning import Given
from skewless.transforms.operation import Settings, Statistic, Vector

CHUNK_ROWS = 1 << 14


class Batch(NamedTuple):
    """Some training rows: columns (rows,) by name, and the target where an operation learns from it."""

    columns: Mapping[str, Column]
    rows: int
    target: Column | None = None

    def part(self, rows: slice) -> "Batch":
        """Some of the rows, as views."""
        columns = {name: _rows_of(column, rows) for name, column in self.columns.items()}
        target = None if self.target is None else _rows_of(self.target, rows)
        return Batch(columns, len(range(*rows.indices(self.rows))), target)


Batches = Iterable[Batch]
"""All training rows. Iterated once per pass, and every time it must give the same rows, in any order and batches."""


def learn(
    graph: Graph, columns: Mapping[str, Column], rows: int, *, target: Column | None = None
) -> dict[int, Settings]:
    """What each node that learns has learned, by node; from columns that are in memory. See `learn_from`."""
    return learn_from(graph, (Batch(columns, rows, target),))


def learn_from(graph: Graph, batches: Batches) -> dict[int, Settings]:
    """What each node that learns has learned, by node; the same bits for any order and batching of the rows.

    Raises InvalidDefinition: naming the expression that these rows cannot teach, the column that does not fit, a
    target that is missing, and for rows that are not the same in every pass.
    """
    learned: dict[int, Settings] = {}
    rows = _RowCount()
    for stage in _stages(graph):
        statistics = {index: _statistic(graph.nodes[index]) for index in stage}
        waiting = [index for index in stage if not isinstance(statistics[index], Given)]
        while waiting:
            _pass(graph, learned, batches, {index: statistics[index] for index in waiting}, rows)
            waiting = [index for index in waiting if _ended(graph.nodes[index], statistics[index])]
        for index in stage:
            learned[index] = _result(graph.nodes[index], statistics[index])
    return learned


def chunks(graph: Graph, batches: Batches) -> Iterator[Batch]:
    """All rows in batches of at most `CHUNK_ROWS`, with the graph's inputs alone, checked against them."""
    names = [each.name for each in graph.inputs]
    for batch in batches:
        check_columns(graph.inputs, batch.columns, batch.rows)
        _check_target(batch)
        read = Batch({name: batch.columns[name] for name in names}, batch.rows, batch.target)
        for start in range(0, batch.rows, CHUNK_ROWS):
            yield read.part(slice(start, min(start + CHUNK_ROWS, batch.rows)))


def check_learned(node: Expression, entry: object, *, path: str = "") -> Settings:
    """Learned parameters in their stored form. Raises InvalidDefinition, with the JSON path where one is given."""
    operation = node.operation
    where = f"{path}: " if path else ""
    if not isinstance(entry, Mapping) or entry.keys() != operation.learned.keys():
        raise InvalidDefinition(
            f"{where}`{node.text}` has the learned parameters {_shortened(entry)}; it must have"
            f" {sorted(operation.learned)}"
        )
    checked: dict[str, object] = {}
    for name, check in operation.learned.items():
        try:
            checked[name] = check(entry[name])
        except (ValueError, TypeError, OverflowError) as error:
            at_name = f"{path}.{name}: " if path else f"{name}: "
            raise InvalidDefinition(
                f"{at_name}`{node.text}` has learned parameters that are wrong: {name} {error}"
            ) from error
    try:
        operation.check_together({**node.settings, **checked})
    except ValueError as error:
        raise InvalidDefinition(f"{where}`{node.text}` has learned parameters that are wrong: {error}") from error
    return checked


@dataclass(slots=True)
class _RowCount:
    """How many rows the first pass had."""

    first: int | None = field(default=None)

    def check(self, rows: int) -> None:
        if self.first is not None and rows != self.first:
            raise InvalidDefinition(
                f"the training rows changed while they were learned from: {self.first:,} in the first pass, then"
                f" {rows:,}",
                hint="give rows that can be gone through more than once: a table, or a function of a fixed snapshot",
            )
        require_rows(rows)
        self.first = rows


def require_rows(rows: int) -> None:
    """Raise InvalidDefinition for no rows at all."""
    if not rows:
        raise InvalidDefinition("a transform cannot be fitted on 0 rows")


def _stages(graph: Graph) -> list[list[int]]:
    """The nodes that learn, those first on which others rest. Nodes that need no row are all in the first stage."""
    stage_of: list[int] = []
    stages: dict[int, list[int]] = {}
    for index, (node, operands) in enumerate(zip(graph.nodes, graph.operands, strict=True)):
        stage = max((stage_of[operand] for operand in operands), default=0)
        if node.operation.learned:
            needs_rows = not isinstance(_statistic(node), Given)
            stage += needs_rows
            stages.setdefault(stage if needs_rows else 0, []).append(index)
        stage_of.append(stage)
    return [stages[stage] for stage in sorted(stages)]


def _statistic(node: Expression) -> Statistic:
    return node.operation.statistic(node.settings)


def _pass(
    graph: Graph,
    learned: Mapping[int, Settings],
    batches: Batches,
    statistics: Mapping[int, Statistic],
    count: _RowCount,
) -> None:
    evaluation = Evaluation(graph, learned, {operand for index in statistics for operand in graph.operands[index]})
    rows = 0
    for chunk in chunks(graph, batches):
        rows += chunk.rows
        with np.errstate(all="ignore"):
            vectors = evaluation.vectors(chunk.columns, chunk.rows)
        for index, statistic in statistics.items():
            operands = [vectors[operand] for operand in graph.operands[index]]
            if graph.nodes[index].operation.needs_target:
                operands.append(_target(chunk, graph.nodes[index]))
            _add(graph.nodes[index], statistic, operands)
    count.check(rows)


def _target(batch: Batch, node: Expression) -> Vector:
    if batch.target is None:
        raise InvalidDefinition(
            f"`{node.text}`{at(node.location)} learns from the target, and none was given",
            hint="give fit() the training target: fit(…, target=column)",
        )
    return Vector(batch.target.values.astype(np.float64, copy=False), batch.target.valid)


def _check_target(batch: Batch) -> None:
    target = batch.target
    if target is None:
        return
    if target.values.shape != (batch.rows,) or target.valid.shape != (batch.rows,):
        raise InvalidDefinition(
            f"the target has values of shape {target.values.shape}; it must be ({batch.rows},), one per row"
        )
    if target.dtype not in NUMERIC:
        raise InvalidDefinition(
            f"the target is {target.dtype}; allowed: {', '.join(sorted(NUMERIC))}",
            hint="give a label as a number, 1 for what is to be predicted",
        )


def _add(node: Expression, statistic: Statistic, operands: list[Vector]) -> None:
    try:
        statistic.add(*operands)
    except ValueError as error:
        raise _cannot_be_fitted(node, error) from error


def _ended(node: Expression, statistic: Statistic) -> bool:
    try:
        return statistic.end_pass()
    except ValueError as error:
        raise _cannot_be_fitted(node, error) from error


def _result(node: Expression, statistic: Statistic) -> Settings:
    try:
        with np.errstate(all="ignore"):
            return check_learned(node, statistic.learned())
    except ValueError as error:
        raise _cannot_be_fitted(node, error) from error


def _cannot_be_fitted(node: Expression, error: ValueError) -> InvalidDefinition:
    return InvalidDefinition(
        f"`{node.text}`{at(node.location)} cannot be fitted: {error}",
        hint="check that the training rows hold this column, or leave the expression out",
    )


def _rows_of(column: Column, rows: slice) -> Column:
    return Column(column.dtype, column.values[rows], column.valid[rows])


def _shortened(entry: object) -> str:
    text = repr(entry)
    return text if len(text) <= 200 else f"{text[:200]} …"
