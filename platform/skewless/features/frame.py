"""Stored features of some rows at one moment each, with what is known about every value. Online and offline alike."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.column_table import ColumnTable
from skewless.dtypes import Column
from skewless.features.visibility import NO_EVENT_TIME, STATUS_CODE, STATUS_CODES
from skewless.limits import FAULTS_MAX

__all__ = ["NO_EVENT_TIME", "STATUS_CODE", "STATUS_CODES", "Fault", "FeatureFrame", "Lines"]


class Lines(Mapping[str, NDArray[Any]]):
    """Lines of a matrix (names, rows) by name, in its order; asking for one makes a view, nothing is copied."""

    __slots__ = ("line", "matrix")

    def __init__(self, line: Mapping[str, int], matrix: NDArray[Any]) -> None:
        self.line = line
        self.matrix = matrix

    def __getitem__(self, name: str) -> NDArray[Any]:
        line: NDArray[Any] = self.matrix[self.line[name]]
        return line

    def __iter__(self) -> Iterator[str]:
        return iter(self.line)

    def __len__(self) -> int:
        return len(self.line)


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a stored value could not be read; its status is `invalid`, or `default` where the policy fills it."""

    row: int
    column: str
    reason: str


@dataclass(frozen=True, slots=True)
class FeatureFrame:
    """What a bundle's transform is given for the stored features, and what the receipt tells about it.

    `columns` has a Column (rows,) per `view__feature`, after policies; `statuses` a uint8 array (rows,) of indexes
    into STATUS_CODES per `view__feature`; `event_times` an int64 array (rows,) of microseconds per view, -1 for none.
    """

    rows: int
    columns: Mapping[str, Column]
    statuses: Mapping[str, NDArray[np.uint8]]
    event_times: Mapping[str, NDArray[np.int64]]
    faults: tuple[Fault, ...] = ()
    """The first values that could not be read, at most FAULTS_MAX of them."""
    near: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    """Per view, which rows (rows,) came from the near cache; empty where none did."""

    def slice(self, start: int, stop: int) -> "FeatureFrame":
        """Rows `start` to `stop` as a frame of their own, over the same memory."""
        assert isinstance(self.columns, ColumnTable), "only frames read online are cut"
        rows = stop - start
        own = (fault for fault in self.faults if start <= fault.row < stop)
        return FeatureFrame(
            rows,
            self.columns.slice(start, stop),
            _cut(self.statuses, start, stop),
            _cut(self.event_times, start, stop),
            tuple(islice((Fault(each.row - start, each.column, each.reason) for each in own), FAULTS_MAX)),
            {view: rows_near[start:stop] for view, rows_near in self.near.items()},
        )


def _cut(lines: Mapping[str, NDArray[Any]], start: int, stop: int) -> Lines:
    assert isinstance(lines, Lines), "only frames read online are cut"
    return Lines(lines.line, lines.matrix[:, start:stop])
