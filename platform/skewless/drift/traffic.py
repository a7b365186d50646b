"""Rows counted by window of event time and by slice, in the bins of one baseline. Everything merges by addition."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skewless.drift.rows import taken
from skewless.drift.window_length import check_window
from skewless.errors import InvalidDefinition
from skewless.monitor_limits import DRIFT_CELLS_MAX, DRIFT_SLICES_MAX
from skewless.statistics.counter import Counter
from skewless.statistics.observed import Observed
from skewless.statistics.tally import ROWS, Tally, TallyLayout

ALL = ""
"""The name of the slice that holds all rows."""


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Counts of successive windows of one slice, those without rows included.

    `counts` is (windows, layout.size), `lows` and `highs` (windows, layout.numbers); `first` is the number of the
    first window, which is its beginning // window_us.
    """

    layout: TallyLayout
    window_us: int
    first: int
    counts: NDArray[np.int64]
    lows: NDArray[np.float64]
    highs: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def windows(self) -> NDArray[np.int64]:
        """The number of each window."""
        return np.arange(self.first, self.first + len(self), dtype=np.int64)

    @property
    def rows(self) -> NDArray[np.int64]:
        """Rows of each window."""
        counted: NDArray[np.int64] = self.counts[:, ROWS]
        return counted

    def between(self, first: int, stop: int) -> "Series":
        """The windows with numbers from `first` up to `stop`, which must be within."""
        cut = slice(first - self.first, stop - self.first)
        return Series(self.layout, self.window_us, first, self.counts[cut], self.lows[cut], self.highs[cut])


class Traffic:
    """See the module. Windows are numbered by event time // window_us; a row belongs to its window however late it
    comes. Rows that come after their window was sealed are counted in it and in `late_rows`."""

    def __init__(self, counter: Counter, window_us: int) -> None:
        self.counter = counter
        self.window_us = check_window(window_us)
        self.late_rows = 0
        self._tallies: dict[tuple[str, int], Tally] = {}
        self._names: set[str] = set()
        self._sealed = -(1 << 62)

    @property
    def tallies(self) -> Mapping[tuple[str, int], Tally]:
        """By slice and window number."""
        return self._tallies

    @property
    def sealed(self) -> int:
        """The number of the first window that is not sealed."""
        return self._sealed

    @property
    def slices(self) -> tuple[str, ...]:
        """The slices that have rows, in order of name; ALL alone where rows are not sliced."""
        return tuple(sorted(self._names))

    @property
    def span(self) -> tuple[int, int] | None:
        """The number of the first window that has rows, and of the one after the last; None without rows."""
        numbers = [window for _, window in self._tallies]
        return (min(numbers), max(numbers) + 1) if numbers else None

    def add(self, observed: Observed, times_us: NDArray[np.int64], slices: Sequence[str] | None = None) -> None:
        """Count rows at their event times (rows,), each in its slice (rows,) where slices are given.

        Raises InvalidDefinition for what the counter refuses, and where more is to be kept than DRIFT_CELLS_MAX
        counts or DRIFT_SLICES_MAX slices.
        """
        windows = times_us // self.window_us
        self.late_rows += int(np.count_nonzero(windows < self._sealed))
        for name, window, places in _groups(windows, slices):
            part = observed if places is None else taken(observed, places)
            self.counter.add(part, self._tally(name, window))

    def seal(self, until_us: int) -> None:
        """Nothing more is expected of windows that end at `until_us` or before; what comes all the same is late."""
        self._sealed = max(self._sealed, until_us // self.window_us)

    def merged(self, other: "Traffic") -> "Traffic":
        """The traffic of both, bit for bit as if it had been counted together."""
        if other.window_us != self.window_us:
            raise InvalidDefinition(f"windows of {self.window_us} and {other.window_us} µs cannot be merged")
        whole = Traffic(self.counter, self.window_us)
        whole._take(self)
        whole._take(other)
        return whole

    def _take(self, other: "Traffic") -> None:
        self.late_rows += other.late_rows
        self._sealed = max(self._sealed, other.sealed)
        for (name, window), tally in other.tallies.items():
            self._tallies[name, window] = self._tally(name, window).merged(tally)

    def total(self, name: str = ALL) -> Tally:
        """The tally of all windows of a slice; of all rows for ALL."""
        whole = self.counter.empty()
        for (each, _), tally in self._tallies.items():
            if name in (ALL, each):
                whole = whole.merged(tally)
        return whole

    def series(self, name: str = ALL, span: tuple[int, int] | None = None) -> Series:
        """The windows of a slice, of all rows for ALL, over `span` (`self.span` where not given), gaps filled."""
        first, stop = span or self.span or (0, 0)
        layout = self.counter.layout
        counts = np.zeros((stop - first, layout.size), dtype=np.int64)
        lows, highs = (np.full((stop - first, layout.numbers), end) for end in (np.inf, -np.inf))
        for (each, window), tally in self._tallies.items():
            if name in (ALL, each) and first <= window < stop:
                place = window - first
                counts[place] += tally.counts
                lows[place] = np.minimum(lows[place], tally.lows)
                highs[place] = np.maximum(highs[place], tally.highs)
        return Series(layout, self.window_us, first, counts, lows, highs)

    def _tally(self, name: str, window: int) -> Tally:
        """The tally of a slice's window, a new one where there is none yet."""
        if (found := self._tallies.get((name, window))) is not None:
            return found
        if (len(self._tallies) + 1) * self.counter.layout.size > DRIFT_CELLS_MAX:
            raise InvalidDefinition(
                f"{len(self._tallies):,} windows of {self.counter.layout.size:,} counts are kept already; allowed:"
                f" {DRIFT_CELLS_MAX:,} counts",
                hint="take longer windows, fewer columns or no slices",
            )
        if len(self._names) >= DRIFT_SLICES_MAX and name not in self._names:
            raise InvalidDefinition(f"slice `{name}` is one too many; allowed: {DRIFT_SLICES_MAX}")
        self._names.add(name)
        self._tallies[name, window] = empty = self.counter.empty()
        return empty


def _groups(
    windows: NDArray[np.int64], slices: Sequence[str] | None
) -> Iterable[tuple[str, int, NDArray[np.intp] | None]]:
    """Slice, window and places of rows that belong together; None for all rows."""
    if not len(windows):
        return
    names = [ALL] if slices is None else sorted(set(slices))
    if len(names) == 1 and windows.min() == windows.max():
        yield names[0], int(windows[0]), None
        return
    coded = np.zeros(len(windows), dtype=np.int64)
    if slices is not None:
        code = {name: place for place, name in enumerate(names)}
        coded = np.fromiter(map(code.__getitem__, slices), np.int64, len(windows))
    order = np.lexsort((windows, coded))
    changes = (np.diff(windows[order]) != 0) | (np.diff(coded[order]) != 0)
    for places in np.split(order, np.flatnonzero(changes) + 1):
        yield names[int(coded[places[0]])], int(windows[places[0]]), places
