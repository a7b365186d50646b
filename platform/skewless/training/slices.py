"""Parts of the hold-out that a model is judged on by themselves: one per value of a column, or per range."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import NUMERIC, TABLE, Column, Dtype
from skewless.errors import InvalidDefinition

VALUES_MAX = 64
"""Parts of one slice; the rows of rarer values are told together as OTHER."""
NULL = "(null)"
OTHER = "(other)"


@dataclass(frozen=True, slots=True)
class Slice:
    """A column of the contract cut into parts: by `values`, by `edges` (numbers), or by its commonest values.

    With `edges` a part is `low <= value < high`, and the first and last are open. `column` is `name` where not given.
    """

    name: str
    column: str = ""
    values: tuple[str | int | bool, ...] = ()
    edges: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.name or (self.values and self.edges):
            raise InvalidDefinition(f"slice `{self.name}` needs a name, and values or edges, not both")
        if len(set(self.values)) != len(self.values) or len(self.values) > VALUES_MAX:
            raise InvalidDefinition(
                f"slice `{self.name}` has {len(self.values)} values; allowed: up to {VALUES_MAX}, each once"
            )
        if any(not low < high for low, high in pairwise(self.edges)):
            raise InvalidDefinition(f"slice `{self.name}` has edges {self.edges}; they must increase")
        if len(self.edges) >= VALUES_MAX:
            raise InvalidDefinition(
                f"slice `{self.name}` has {len(self.edges)} edges; allowed: fewer than {VALUES_MAX}"
            )

    @property
    def source(self) -> str:
        """The column it is cut by."""
        return self.column or self.name

    def parts(self, columns: Mapping[str, Column]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        """(name, mask (rows,)) of each part that has a row, in a stable order; together they are all rows.

        Raises InvalidDefinition for a column that is not there or cannot be cut so.
        """
        column = self._column(columns)
        found = self._ranges(column) if self.edges else self._values(column)
        for name, mask in (*found, (NULL, ~column.valid)):
            if mask.any():
                yield name, mask

    def _column(self, columns: Mapping[str, Column]) -> Column:
        column = columns.get(self.source)
        if column is None:
            raise InvalidDefinition(
                f"slice `{self.name}` is of column `{self.source}`, which is none of: {', '.join(columns)}"
            )
        number = column.dtype in NUMERIC or column.dtype is Dtype.TIMESTAMP
        if self.edges and not number:
            raise InvalidDefinition(f"slice `{self.name}` has edges, but column `{self.source}` is {column.dtype}")
        if not self.edges and not (number or column.dtype is Dtype.STRING):
            raise InvalidDefinition(f"slice `{self.name}` cannot be cut by column `{self.source}` of {column.dtype}")
        return column

    def _ranges(self, column: Column) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        values = column.values.astype(np.float64)
        place = np.searchsorted(np.array(self.edges), values, side="right")
        bounds = ["", *(f"{edge:g}" for edge in self.edges), ""]
        for index, (low, high) in enumerate(pairwise(bounds)):
            name = f"{low} to {high}" if low and high else (f"below {high}" if high else f"{low} and above")
            yield name, column.valid & (place == index) & ~np.isnan(values)
        yield "(not a number)", column.valid & np.isnan(values)

    def _values(self, column: Column) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        rest = column.valid.copy()
        for value in self.values or _commonest(column):
            mask = column.valid & (column.values == np.array(value, dtype=TABLE[column.dtype].numpy))
            rest &= ~mask
            yield str(value), mask
        yield OTHER, rest


def _commonest(column: Column) -> list[object]:
    """Its commonest values, in their own order."""
    values, counts = np.unique(column.values[column.valid], return_counts=True)
    kept = np.argsort(-counts, kind="stable")[:VALUES_MAX]
    return list(values[np.sort(kept)].tolist())
