"""Brings a table of blocks in: into a workspace by a few copies of whole blocks, or row by row for very few rows."""

from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from skewless.column_table import ColumnLayout, ColumnTable
from skewless.dtypes import TABLE
from skewless.transforms.column_checks import check_columns, check_layout
from skewless.transforms.operation import Vector
from skewless.transforms.plan import Plan
from skewless.transforms.row_program import row_function
from skewless.transforms.workspace import Lines, Workspace, lines_of

_NAN = np.float32(np.nan)


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Lines of one block, all of them where `source` is None, and where they go."""

    block: int
    source: NDArray[np.intp] | None
    target: Lines


@dataclass(frozen=True, slots=True)
class _Shape:
    """What an array of a block must be for its lines to be copied unseen."""

    block: int
    columns: int
    dtype: np.dtype[Any]


class BlockLoader:
    """What one layout's blocks hold of a transform's inputs, found once. Holds no state between calls."""

    __slots__ = ("_not_null", "_numbers", "_others", "_plan", "_row_of", "_shapes")

    def __init__(self, plan: Plan, layout: ColumnLayout) -> None:
        """Raises InvalidDefinition for a layout without one of the transform's columns, or with another dtype."""
        check_layout(plan.inputs, layout)
        line_of, node_of = dict(plan.number_inputs), dict(plan.other_inputs)
        not_null = {each.name for each in plan.inputs if not each.nullable}
        numbers: list[_Numbers] = []
        others: list[tuple[int, int, int]] = []
        required: list[tuple[int, NDArray[np.intp]]] = []
        for block, (_, names) in enumerate(layout.blocks):
            read = sorted((line_of[name], place) for place, name in enumerate(names) if name in line_of)
            if read:
                numbers.append(_numbers(block, read, len(names)))
            others += [(node_of[name], block, place) for place, name in enumerate(names) if name in node_of]
            never = [place for place, name in enumerate(names) if name in not_null]
            if never:
                required.append((block, np.array(never, dtype=np.intp)))
        used = {part.block for part in numbers} | {block for _, block, _ in others}
        self._plan = plan
        self._row_of = row_function(plan, layout)
        self._numbers = tuple(numbers)
        self._others = tuple(others)
        self._not_null = tuple(required)
        self._shapes = tuple(
            _Shape(block, len(names), np.dtype(TABLE[dtype].numpy))
            for block, (dtype, names) in enumerate(layout.blocks)
            if block in used
        )

    def load(self, table: ColumnTable, workspace: Workspace) -> None:
        """Copy what the transform reads of a table of this layout.

        Raises InvalidDefinition for arrays of another dtype or count of rows, and for a null where none may be.
        """
        value_blocks, valid_blocks, rows = table.value_blocks, table.valid_blocks, workspace.rows
        self._check_shapes(table, rows)
        for at, lines in self._not_null:
            if not valid_blocks[at].take(lines, 0).all():
                self._refuse(table, rows)
        values, valid, others = workspace.values, workspace.valid, workspace.others
        for part in self._numbers:
            block, known = value_blocks[part.block], valid_blocks[part.block]
            if part.source is None:
                values[part.target], valid[part.target] = block, known
            else:
                values[part.target], valid[part.target] = block.take(part.source, 0), known.take(part.source, 0)
        for node, at, line in self._others:
            others[node] = Vector(value_blocks[at][line], valid_blocks[at][line])

    def rows(self, table: ColumnTable, rows: int) -> NDArray[np.float32]:
        """The tensor of a table of this layout, computed row by row. Raises InvalidDefinition as `load` does."""
        self._check_shapes(table, rows)
        outputs = len(self._plan.output_names)
        tensor = np.empty((rows, outputs), dtype=np.float32)
        with np.errstate(all="ignore"):
            for row in range(rows):
                made = self._row_of(table.value_blocks, table.valid_blocks, row)
                if made is None:
                    self._refuse(table, rows)
                tensor[row] = np.fromiter(made, np.float64, outputs)
            np.putmask(tensor, np.isnan(tensor), _NAN)
        return tensor

    def _check_shapes(self, table: ColumnTable, rows: int) -> None:
        blocks = table.value_blocks
        for shape in self._shapes:
            block = blocks[shape.block]
            if block.dtype != shape.dtype or block.shape != (shape.columns, rows):
                self._refuse(table, rows)

    def _refuse(self, table: ColumnTable, rows: int) -> NoReturn:
        """Say which column it is, and why."""
        check_columns(self._plan.inputs, table, rows)
        raise AssertionError("a table's blocks agree with its layout")


def _numbers(block: int, read: list[tuple[int, int]], columns: int) -> _Numbers:
    source = [place for _, place in read]
    whole = source == list(range(columns))
    return _Numbers(block, None if whole else np.array(source, dtype=np.intp), lines_of([line for line, _ in read]))
