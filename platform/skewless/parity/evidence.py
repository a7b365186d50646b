"""What is known about the rows behind a mismatch: their versions in the source, and when they could be written."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import Column
from skewless.features.contract import ViewRead
from skewless.features.frame import FeatureFrame
from skewless.features.point_in_time import Known
from skewless.limits import MATERIALIZATION_S_MAX
from skewless.timestamps import SECOND_US

_RUN_US = int(MATERIALIZATION_S_MAX * SECOND_US)


@dataclass(frozen=True, slots=True)
class Versions:
    """Source rows of one view, a line per version (versions,), ordered by question, event and created time.

    `row` is the number of the question that a line belongs to; `columns` has a Column (versions,) per feature, as the
    online store would hold it; `raw` the source's own number of each integer feature, before the cast.
    """

    row: NDArray[np.int64]
    event_time: NDArray[np.int64]
    created_time: NDArray[np.int64]
    columns: Mapping[str, Column]
    raw: Mapping[str, Column]


@dataclass(frozen=True, slots=True)
class Watermark:
    """How far a source reaches: its newest event and created time (µs), NO_EVENT_TIME where it has no rows."""

    event_time: int
    created_time: int


@dataclass(frozen=True, slots=True)
class Written:
    """Materializations of one view: event times from `starts` to `ends` (runs,), in µs, by ascending end.

    A run writes what it finds known at its end, so its end stands for its own moment as well.
    """

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, intervals: tuple[tuple[int, int], ...]) -> "Written":
        """From (start, end) pairs in any order."""
        ordered = np.array(sorted(intervals, key=lambda pair: pair[1]), dtype=np.int64).reshape(-1, 2)
        return cls(np.ascontiguousarray(ordered[:, 0]), np.ascontiguousarray(ordered[:, 1]))

    def covers(
        self, event_time: NDArray[np.int64], created_time: NDArray[np.int64], as_of: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Which rows (rows,) a run must have written by `as_of`: in its window, and known when it ran."""
        known = np.maximum(event_time, created_time)
        return self._began_before(event_time, np.searchsorted(self.ends, known, side="left"), self._over(as_of))

    def passed(
        self, event_time: NDArray[np.int64], created_time: NDArray[np.int64], as_of: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Which rows (rows,) a run had in its window by `as_of` without knowing them yet."""
        unknown = np.searchsorted(self.ends, created_time, side="left")
        after = np.searchsorted(self.ends, event_time, side="left")
        return self._began_before(event_time, after, np.minimum(unknown, self._over(as_of)))

    def _over(self, as_of: NDArray[np.int64]) -> NDArray[np.intp]:
        """How many runs were over by each moment (rows,)."""
        return np.searchsorted(self.ends, as_of - _RUN_US, side="right")

    def _began_before(
        self, event_time: NDArray[np.int64], first: NDArray[np.intp], stop: NDArray[np.intp]
    ) -> NDArray[np.bool_]:
        """Whether any of the runs `first` to before `stop` (rows,) has a start at or before the event time (rows,).

        The least start of a range of runs is that of two overlapping ranges whose lengths are a power of two.
        """
        found = np.zeros(len(event_time), dtype=np.bool_)
        rows = np.flatnonzero(first < stop)
        length = (stop - first)[rows]
        least, width = self.starts, 1
        while len(rows):
            # `least[i]` is the least start of the runs i to before i + width.
            mine = length < 2 * width
            of, low, high = rows[mine], first[rows[mine]], stop[rows[mine]] - width
            found[of] = np.minimum(least[low], least[high]) <= event_time[of]
            rows, length = rows[~mine], length[~mine]
            least, width = np.minimum(least[:-width], least[width:]), 2 * width
        return found


class IngestTimes(Protocol):
    """When rows that were ingested became visible online; asked about few rows, those that differ."""

    def online_times(self, view: str, created_times: NDArray[np.int64]) -> NDArray[np.int64]:
        """By created time (rows,) of rows of a view, when the batch that was accepted then was online (µs).

        NOT_INGESTED where no batch was accepted at that time, NOT_ONLINE where it is not there yet.
        """
        ...


NOT_INGESTED, NOT_ONLINE = -1, 2**62
"""Stand in an array of online times."""


def take(column: Column, rows: NDArray[np.int64]) -> Column:
    """The rows (chosen,) of a column."""
    return Column(column.dtype, np.ascontiguousarray(column.values[rows]), column.valid[rows])


class OfflineAnswers(Protocol):
    """The offline store as a check needs it, about one contract."""

    def features_at(self, keys: Mapping[str, Column], as_of: NDArray[np.int64], known: Known) -> FeatureFrame:
        """Every feature for each row at its `as_of` (µs), by the visibility rule."""
        ...

    def versions(
        self, view: ViewRead, keys: Mapping[str, Column], rows: NDArray[np.int64], event_times: NDArray[np.int64]
    ) -> Versions:
        """Every version of the source rows with some event times: (questions,) row numbers and event times (µs)."""
        ...

    def watermarks(self) -> Mapping[str, Watermark]:
        """How far each view's source reaches, by view."""
        ...
