"""What some logged rows of one bundle in one role add up to, by slice and window."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from skewless.drift.slicing import Slicing
from skewless.drift.tally_form import packed, unpacked
from skewless.drift.traffic import ALL, Traffic
from skewless.drift.unseen_words import SeenWord, printable, together
from skewless.drift.watched_bundle import VariableKey, WatchedBundle
from skewless.dtypes import Column
from skewless.statistics.observed import Observed
from skewless.statistics.tally import Tally
from skewless.statistics.variable import UNSEEN, Part, Variable
from skewless.statistics.word_index import WordIndex

OPEN_TALLIES_MAX = 256
"""Tallies that are held ready to be added to; the others are packed, to a tenth. Rows come about in order of time."""


@dataclass(frozen=True, slots=True)
class LoggedPart:
    """Rows of one bundle in one role that have the same variables: all that it keeps but those in `absent`.

    `times_us` (rows,) is their `as_of`; `misshapen` says by name which rows (rows,) have a part of another shape.
    """

    observed: Observed
    times_us: NDArray[np.int64]
    absent: frozenset[VariableKey] = frozenset()
    misshapen: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)


class BatchCounts:
    """See the module. Parts are added in any order; the sum does not depend on it."""

    def __init__(self, watched: WatchedBundle, window_us: int, slicings: Sequence[Slicing] = ()) -> None:
        self.watched = watched
        self.window_us = window_us
        self.rows = 0
        self.newest_us = -(1 << 62)
        self.shapes: dict[int, dict[str, int]] = {}
        """By the beginning of the window and the name of what has another shape: how many rows."""
        self.words: dict[str, dict[str, SeenWord]] = {}
        """By feature: words that training never saw."""
        self._slicings = slicings
        self._tallies: dict[tuple[str, int], Tally | bytes] = {}
        self._open: dict[tuple[str, int], Tally] = {}
        self._indexes: dict[str, WordIndex] = {}

    @property
    def places(self) -> list[tuple[str, int]]:
        """Slice (ALL for all rows) and beginning (µs) of every tally, sorted."""
        return sorted(self._tallies)

    def tallies(self) -> Iterator[tuple[str, int, Tally]]:
        """Slice, beginning of the window and tally of each, in the order of `places`."""
        for name, start_us in self.places:
            kept = self._tallies[name, start_us]
            yield name, start_us, unpacked(self.watched.layout, kept) if isinstance(kept, bytes) else kept

    def add(self, part: LoggedPart) -> None:
        """Count rows. Raises InvalidDefinition for what the counter refuses."""
        observed, times_us = part.observed, part.times_us
        if not observed.rows:
            return
        counting = self.watched.counting(part.absent)
        for name, names in self._sliced(observed):
            traffic = Traffic(counting.counter, self.window_us)
            traffic.add(observed, times_us, names)
            for (value, window), tally in traffic.tallies.items():
                if name == ALL:
                    self._note_words(tally, counting.placement.layout.variables, observed, times_us, window)
                self._merge((value, window * self.window_us), counting.placement.widened(tally))
        self._note_shapes(part)
        self.rows += observed.rows
        self.newest_us = max(self.newest_us, int(times_us.max()))

    def _sliced(self, observed: Observed) -> Iterator[tuple[str, list[str] | None]]:
        yield ALL, None
        for slicing in self._slicings:
            if (column := observed.columns.get(slicing.column)) is not None:
                yield slicing.column, slicing.slices_of(column)

    def _merge(self, place: tuple[str, int], found: Tally) -> None:
        known = self._open.pop(place, None)
        if known is None and (kept := self._tallies.get(place)) is not None:
            known = unpacked(self.watched.layout, kept) if isinstance(kept, bytes) else kept
        merged = found if known is None else known.merged(found)
        self._tallies[place] = self._open[place] = merged
        if len(self._open) > OPEN_TALLIES_MAX:
            oldest = next(iter(self._open))
            self._tallies[oldest] = packed(self._open.pop(oldest))

    def _note_shapes(self, part: LoggedPart) -> None:
        for name, mask in part.misshapen.items():
            windows, counts = np.unique(part.times_us[mask] // self.window_us, return_counts=True)
            for window, count in zip(windows.tolist(), counts.tolist(), strict=True):
                of_window = self.shapes.setdefault(window * self.window_us, {})
                of_window[name] = of_window.get(name, 0) + count

    def _note_words(
        self,
        tally: Tally,
        variables: Sequence[Variable],
        observed: Observed,
        times_us: NDArray[np.int64],
        window: int,
    ) -> None:
        """Remember by name what the tally of a window counted as unseen."""
        at = 1
        for variable in variables:
            start, at = at, at + variable.size
            known = variable.vocabulary
            if known is None or not known.closed or not tally.counts[start + UNSEEN]:
                continue
            assert variable.part is Part.COLUMN, "only columns hold words"
            if (index := self._indexes.get(variable.name)) is None:
                index = self._indexes[variable.name] = WordIndex(known)
            column = observed.columns[variable.name]
            rows = np.flatnonzero(column.valid & (times_us // self.window_us == window))
            self._note_unseen(variable.name, index, column, rows, times_us)

    def _note_unseen(
        self, feature: str, index: WordIndex, column: Column, rows: NDArray[np.intp], times_us: NDArray[np.int64]
    ) -> None:
        words = column.values[rows].tolist()
        news = {word for word in set(words) if index[word] == UNSEEN}
        found: dict[str, SeenWord] = {}
        for word, time_us in zip(words, times_us[rows].tolist(), strict=True):
            if word in news:
                name, seen = printable(word), SeenWord(1, 0, time_us, time_us)
                found[name] = found[name].joined(seen) if name in found else seen
        self.words[feature] = together(self.words.get(feature, {}), found)
