"""Stored windows as the series that a detector takes, and which of them it must not learn from."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skewless.drift.calibration import WATCHED
from skewless.drift.season import WEEKS_MIN, Grade, grade_of
from skewless.drift.traffic import Series
from skewless.drift.watched_bundle import Placement, WatchedBundle
from skewless.features.visibility import STATUS_CODES
from skewless.statistics.tally import ROWS, Tally
from skewless.timestamps import DAY_US, parse_timestamp

COVERED_SHARE = 0.75
"""Share of the days that must have had traffic for history to count as as long as it is."""


def watched_placement(watched: WatchedBundle) -> Placement:
    """The variables of a bundle that are watched, and where their counts are."""
    return Placement(watched.layout, [each for each in watched.kept if each.part in WATCHED])


def training_tally(placement: Placement) -> Tally:
    """What training counted, in the placement's layout; sums of steps, which nothing asks it for, are left at 0."""
    layout = placement.layout
    tally = layout.empty()
    for place, variable in enumerate(layout.variables):
        start = layout.starts[place]
        tally.counts[start : start + variable.size] = variable.counts
        tally.counts[ROWS] = max(int(tally.counts[ROWS]), variable.total)
        if (of_status := layout.status_starts[place]) is not None:
            for code, status in enumerate(STATUS_CODES):
                tally.counts[of_status + code] = (variable.statuses or {}).get(status.value, 0)
        if (line := layout.number_lines[place]) is not None and variable.moments is not None:
            tally.lows[line], tally.highs[line] = variable.moments.minimum, variable.moments.maximum
    return tally


def series_of(
    placement: Placement, window_us: int, span: tuple[int, int], tallies: Iterable[tuple[int, Tally]]
) -> Series:
    """The windows with numbers from `span[0]` up to `span[1]`, gaps filled, from the beginnings and tallies of stored
    ones; several of one window, as of shorter windows, are added up."""
    first, stop = span
    layout = placement.layout
    counts = np.zeros((stop - first, layout.size), dtype=np.int64)
    lows, highs = (np.full((stop - first, layout.numbers), end) for end in (np.inf, -np.inf))
    for start_us, tally in tallies:
        place = start_us // window_us - first
        if 0 <= place < stop - first:
            found, low, high = placement.narrowed(tally.counts, tally.lows, tally.highs)
            counts[place] += found
            lows[place] = np.minimum(lows[place], low)
            highs[place] = np.maximum(highs[place], high)
    return Series(layout, window_us, first, counts, lows, highs)


def without(series: Series, left_out: NDArray[np.bool_]) -> Series:
    """The series with no rows in the windows (windows,) that are left out."""
    if not left_out.any():
        return series
    counts, lows, highs = series.counts.copy(), series.lows.copy(), series.highs.copy()
    counts[left_out], lows[left_out], highs[left_out] = 0, np.inf, -np.inf
    return Series(series.layout, series.window_us, series.first, counts, lows, highs)


def on_days(windows: NDArray[np.int64], window_us: int, days: Iterable[str]) -> NDArray[np.bool_]:
    """Which windows (windows,), by number, are on one of some days (UTC).

    >>> on_days(np.array([23, 24, 47, 48]), 3_600_000_000, ["1970-01-02"]).tolist()
    [False, True, True, False]
    """
    numbers = [parse_timestamp(day) // DAY_US for day in days]
    found: NDArray[np.bool_] = np.isin(windows * window_us // DAY_US, np.array(numbers, dtype=np.int64))
    return found


@dataclass(frozen=True, slots=True)
class Lookback:
    """What a detector is to be calibrated on: windows with numbers from `first` up to `stop`, and what that allows."""

    first: int
    stop: int
    grade: Grade

    @classmethod
    def of(cls, days_with_rows: Iterable[int], window_us: int, stop_us: int, days_max: int) -> "Lookback":
        """Whole days, or whole weeks where there are enough of them, that end at `stop_us`; at most `days_max` days.

        `days_with_rows` are numbers of days (µs // DAY_US) in which anything was counted.
        """
        last = stop_us // DAY_US
        days = sorted(day for day in set(days_with_rows) if last - days_max <= day < last)
        if not days:
            return cls(stop_us // window_us, stop_us // window_us, Grade.TRAINING)
        length = last - days[0]
        covered = min(length, int(len(days) / COVERED_SHARE))
        grade = grade_of(covered * DAY_US)
        if grade is Grade.HOUR_OF_WEEK:
            length -= length % 7
        else:
            length = min(length, 7 * WEEKS_MIN - 1)  # as long as it is, it is not covered enough for more
        return cls((last - length) * DAY_US // window_us, last * DAY_US // window_us, grade)


class LazySeries(Mapping[str, Series]):
    """Series by slice, each read when it is asked for and not kept: one at a time is in memory."""

    def __init__(self, names: Iterable[str], read: Callable[[str], Series]) -> None:
        self._names = tuple(names)
        self._read = read

    def __getitem__(self, name: str) -> Series:
        if name not in self._names:
            raise KeyError(name)
        return self._read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
