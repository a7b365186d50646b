"""Rows that can be counted: what a model read, what was made of it, what it gave, and how old it was."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.column_table import ColumnTable, beside
from skewless.dtypes import Column
from skewless.errors import InvalidDefinition
from skewless.features.frame import FeatureFrame, Lines
from skewless.statistics.ages import ages_of


@dataclass(frozen=True, slots=True)
class Observed:
    """Rows to count; arrays are only read. A part that is left out is not counted.

    `columns` has every column of the contract, after policies; `statuses` codes (rows,) per stored feature, `ages_us`
    per view (NO_AGE for none), `tensor` is (rows, outputs), `scores` (rows,) by name.
    """

    rows: int
    columns: Mapping[str, Column] = field(default_factory=dict)
    statuses: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    ages_us: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    tensor: NDArray[np.float32] | None = None
    scores: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    @classmethod
    def served(
        cls,
        given: Mapping[str, Column],
        frame: FeatureFrame,
        as_of: int | NDArray[np.int64],
        tensor: NDArray[np.float32],
        scores: Mapping[str, NDArray[np.float32]],
    ) -> "Observed":
        """Everything about answered rows: join keys and request fields `given`, and what was read at `as_of` (µs)."""
        columns = beside(given, frame.columns, frame.rows)
        return cls(frame.rows, columns, frame.statuses, ages_of(frame.event_times, as_of), tensor, scores)

    def check_lengths(self) -> None:
        """Raise InvalidDefinition where something has another number of rows."""
        columns = self.columns
        if isinstance(columns, ColumnTable):
            self._check_length("the table", columns.rows)
        else:
            for name, column in columns.items():
                self._check_length(f"column `{name}`", len(column))
        if self.tensor is not None:
            self._check_length("the tensor", len(self.tensor))
        for what, arrays in (("status", self.statuses), ("age", self.ages_us), ("score", self.scores)):
            if isinstance(arrays, Lines):
                self._check_length(f"each {what}", arrays.matrix.shape[1])
            else:
                for name, each in arrays.items():
                    self._check_length(f"{what} `{name}`", len(each))

    def _check_length(self, what: str, rows: int) -> None:
        if rows != self.rows:
            raise InvalidDefinition(f"{what} has {rows} rows; to be counted are {self.rows}")

    def table(self, start: int, stop: int) -> "Observed":
        """Rows `start` to `stop`, with the columns as a table of blocks; blocks and arrays are cut, not copied."""
        columns = self.columns
        if isinstance(columns, ColumnTable):
            columns = columns if stop - start == self.rows else columns.slice(start, stop)
        elif columns:
            cut = {
                name: Column(each.dtype, each.values[start:stop], each.valid[start:stop])
                for name, each in columns.items()
            }
            columns = ColumnTable.from_columns(cut, stop - start)
        return Observed(
            stop - start,
            columns,
            _cut(self.statuses, start, stop),
            _cut(self.ages_us, start, stop),
            None if self.tensor is None else self.tensor[start:stop],
            _cut(self.scores, start, stop),
        )


def _cut(arrays: Mapping[str, NDArray[Any]], start: int, stop: int) -> Mapping[str, NDArray[Any]]:
    if isinstance(arrays, Lines):
        return Lines(arrays.line, arrays.matrix[:, start:stop])
    return {name: each[start:stop] for name, each in arrays.items()}
