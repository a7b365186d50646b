"""Columns kept side by side in blocks of one dtype, so that one NumPy call serves many of them.

For one row the count of NumPy calls is the cost, not their size: forty columns of one row are forty small arrays,
or one block per dtype. A table is read as a mapping of columns wherever speed does not matter.

    layout:        which column is which line of which block, compiled once
    value blocks:  (columns of the block, rows) of the dtype's NumPy type
    valid blocks:  (columns of the block, rows) bool
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import TABLE, Column, Dtype


@dataclass(frozen=True, slots=True)
class ColumnLayout:
    """Names and dtypes of a table, block by block. Equal layouts hash alike, so a reader may prepare for one."""

    blocks: tuple[tuple[Dtype, tuple[str, ...]], ...]
    """(dtype, column names in order of line). A dtype may have several blocks; a name occurs once."""
    place: Mapping[str, tuple[int, int]] = field(init=False, compare=False, repr=False)
    """(block, line) of each column."""
    _hash: int = field(init=False, compare=False, repr=False)
    """Worked out once: layouts are looked up for every request, and have many names."""

    def __post_init__(self) -> None:
        place = {name: (block, line) for block, (_, names) in enumerate(self.blocks) for line, name in enumerate(names)}
        assert len(place) == sum(len(names) for _, names in self.blocks), "a column name occurs twice"
        object.__setattr__(self, "place", place)
        object.__setattr__(self, "_hash", hash(self.blocks))

    def __hash__(self) -> int:
        return self._hash

    @classmethod
    def of(cls, columns: Sequence[tuple[str, Dtype]]) -> "ColumnLayout":
        """One block per dtype, in order of first use.

        >>> ColumnLayout.of([("a", Dtype.INT64), ("b", Dtype.BOOL), ("c", Dtype.INT64)]).place["c"]
        (0, 1)
        """
        names: dict[Dtype, list[str]] = {}
        for name, dtype in columns:
            names.setdefault(dtype, []).append(name)
        return cls(tuple((dtype, tuple(listed)) for dtype, listed in names.items()))


class ColumnTable(Mapping[str, Column]):
    """Columns by name over blocks. Asking for a column makes views of its line; nothing is copied."""

    __slots__ = ("layout", "rows", "valid_blocks", "value_blocks")

    def __init__(
        self,
        layout: ColumnLayout,
        value_blocks: Sequence[NDArray[Any]],
        valid_blocks: Sequence[NDArray[np.bool_]],
        rows: int,
    ) -> None:
        """`value_blocks` and `valid_blocks` hold one array (columns, rows) per block; its lines are contiguous."""
        self.layout = layout
        self.value_blocks = value_blocks
        self.valid_blocks = valid_blocks
        self.rows = rows

    def __getitem__(self, name: str) -> Column:
        block, line = self.layout.place[name]
        return Column(self.layout.blocks[block][0], self.value_blocks[block][line], self.valid_blocks[block][line])

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout.place)

    def __len__(self) -> int:
        return len(self.layout.place)

    def __contains__(self, name: object) -> bool:
        return name in self.layout.place

    def slice(self, start: int, stop: int) -> "ColumnTable":
        """Rows `start` to `stop` over the same memory; each line stays contiguous, a block does not."""
        return ColumnTable(
            self.layout,
            [block[:, start:stop] for block in self.value_blocks],
            [block[:, start:stop] for block in self.valid_blocks],
            stop - start,
        )

    @classmethod
    def from_columns(cls, columns: Mapping[str, Column], rows: int) -> "ColumnTable":
        """A table with copies of the columns, each (rows,)."""
        layout = layout_of(columns)
        values: list[NDArray[Any]] = []
        valid: list[NDArray[np.bool_]] = []
        for dtype, names in layout.blocks:
            block = np.empty((len(names), rows), dtype=TABLE[dtype].numpy)
            known = np.empty((len(names), rows), dtype=np.bool_)
            for line, name in enumerate(names):
                block[line] = columns[name].values
                known[line] = columns[name].valid
            values.append(block)
            valid.append(known)
        return cls(layout, values, valid, rows)


def layout_of(columns: Mapping[str, Column]) -> ColumnLayout:
    """The layout that columns have, or as a table would have."""
    if isinstance(columns, ColumnTable):
        return columns.layout
    return ColumnLayout.of([(name, column.dtype) for name, column in columns.items()])


def beside(first: Mapping[str, Column], second: Mapping[str, Column], rows: int) -> ColumnTable:
    """One table of two, whose names differ; blocks of tables are used as they are, columns are copied once."""
    left, right = (
        columns if isinstance(columns, ColumnTable) else ColumnTable.from_columns(columns, rows)
        for columns in (first, second)
    )
    return ColumnTable(
        _joined(left.layout, right.layout),
        (*left.value_blocks, *right.value_blocks),
        (*left.valid_blocks, *right.valid_blocks),
        rows,
    )


@lru_cache(maxsize=1_024)
def _joined(left: ColumnLayout, right: ColumnLayout) -> ColumnLayout:
    return ColumnLayout(left.blocks + right.blocks)
