"""The ways in which a fitted transform can run in this process, all of which must give the same bits."""

import json
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from skewless.canonical_json import encode
from skewless.column_table import ColumnTable
from skewless.dtypes import TABLE, Column
from skewless.transforms.execution import CHUNK_ROWS, to_float32
from skewless.transforms.node_by_node import NodeByNode
from skewless.transforms.spec import FittedTransform
from skewless.transforms.steps import StepsOfGraph

BATCH_SIZES = (2, 3, 7, 64)

Execution = Callable[[Mapping[str, Column], int], NDArray[np.float32]]
"""Columns (rows,) by name and the count of rows to a tensor (rows, outputs)."""


def executions_of(fitted: FittedTransform) -> dict[str, Execution]:
    """Every execution by its name. The reference they are compared with is one prepared call over all rows."""
    run = fitted.prepare().apply
    plain = NodeByNode(fitted.graph, fitted.learned)

    def of_table(columns: Mapping[str, Column], rows: int) -> NDArray[np.float32]:
        return run(ColumnTable.from_columns(columns, rows), rows)

    return {
        "row alone": in_batches(run, 1),
        "row alone, as a table of blocks": in_batches(of_table, 1),
        **{f"batches of {size}": in_batches(run, size) for size in BATCH_SIZES},
        "table of blocks": of_table,
        "rows reversed": lambda columns, rows: run(part(columns, slice(None, None, -1)), rows)[::-1],
        "rows apart in memory": lambda columns, rows: run(_apart(columns), rows),
        "longer than a chunk": lambda columns, rows: _longer_than_a_chunk(run, columns, rows),
        "after an empty batch": lambda columns, rows: _after_nothing(run, columns, rows),
        "stored and read again": _read_again(fitted).prepare().apply,
        "expression by expression": lambda columns, rows: to_float32(plain.outputs(columns, rows)),
    }


def in_batches(run: Execution, size: int) -> Execution:
    """The execution, called with up to `size` rows at a time."""

    def batched(columns: Mapping[str, Column], rows: int) -> NDArray[np.float32]:
        if not rows:
            return run(columns, 0)
        starts = range(0, rows, size)
        return np.concatenate(
            [run(part(columns, slice(start, start + size)), min(size, rows - start)) for start in starts]
        )

    return batched


def part(columns: Mapping[str, Column], rows: slice) -> dict[str, Column]:
    """Some rows, as views into the columns: another alignment, and without a copy."""
    return {name: Column(each.dtype, each.values[rows], each.valid[rows]) for name, each in columns.items()}


def _read_again(fitted: FittedTransform) -> FittedTransform:
    return FittedTransform.from_json(json.loads(encode(fitted.to_json())), StepsOfGraph(fitted.graph))


def _apart(columns: Mapping[str, Column]) -> dict[str, Column]:
    """The same values, none of them next to the other in memory."""
    apart: dict[str, Column] = {}
    for name, each in columns.items():
        values = np.zeros((len(each), 3), dtype=TABLE[each.dtype].numpy)
        valid = np.zeros((len(each), 5), dtype=np.bool_)
        values[:, 1], valid[:, 2] = each.values, each.valid
        apart[name] = Column(each.dtype, values[:, 1], valid[:, 2])
    return apart


def _longer_than_a_chunk(run: Execution, columns: Mapping[str, Column], rows: int) -> NDArray[np.float32]:
    """The rows at other places of a longer table: their repetition in which a chunk ends."""
    if not rows:
        return run(columns, 0)
    places = np.arange(CHUNK_ROWS + 2 * rows) % rows
    repeated = {name: Column(each.dtype, each.values[places], each.valid[places]) for name, each in columns.items()}
    start = CHUNK_ROWS // rows * rows
    return run(repeated, len(places))[start : start + rows]


def _after_nothing(run: Execution, columns: Mapping[str, Column], rows: int) -> NDArray[np.float32]:
    """An empty batch, then the rows: nothing of a call is left for the next."""
    return np.concatenate((run(part(columns, slice(0)), 0), run(columns, rows)))
