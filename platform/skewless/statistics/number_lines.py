"""Finds the bins of many variables' numbers at once: what takes time for few rows is the count of NumPy calls.

Each variable's edges are a line of one table, with -∞ cut off at its front and +∞ at its end; a binary search over
all lines at once takes six steps, whatever their number. For 160 lines it took 22 µs where one `searchsorted` per line
took 81, and for 64 rows of them 117 µs instead of 267 (NumPy 2.4, x86-64).

    numbers   (lines, rows) float64, any of them NaN, infinite or null
    places    (lines, rows) of the flat counts
    steps     (lines, rows) whole numbers of each variable's grid, 0 for what is not finite
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from skewless.statistics.moments import STEPS_MAX
from skewless.statistics.tally import Tally, TallyLayout
from skewless.statistics.variable import MINUS_INFINITY, NULL

_POWERS = (5, 4, 3, 2, 1, 0)
_WIDTH = 2 ** len(_POWERS)
"""Of a line: its edges, both ends, and NaN, which nothing reaches."""
_LOWEST = float(np.finfo(np.float64).min)


class NumberLines:
    """Some variables of numbers, ready to be counted. Threads may share it."""

    __slots__ = ("_ahead", "_centres", "_first", "_lines", "_nulls", "_per_unit", "_squares", "_steps", "_to_place")

    def __init__(self, layout: TallyLayout, places: Sequence[int]) -> None:
        """`places` are those of the variables in the layout, one for each line."""
        chosen = [layout.variables[place] for place in places]
        table = np.full((len(chosen), _WIDTH), np.nan)
        for line, variable in enumerate(chosen):
            ends = (_LOWEST, *variable.edges, np.inf)
            table[line, : len(ends)] = ends
        starts = np.array([layout.starts[place] for place in places], dtype=np.intp)[:, np.newaxis]
        # Of the table from its place 2**power - 1 on: entry n is the last of the 2**power that begin at n.
        self._ahead = [table.ravel()[(1 << power) - 1 :] for power in range(len(_POWERS))]
        self._first = np.arange(len(chosen), dtype=np.intp)[:, np.newaxis] * _WIDTH
        # Only NaN and -∞ are below the first entry of a line, the lowest finite number.
        self._to_place = starts + MINUS_INFINITY - self._first
        self._nulls = starts + NULL
        self._lines = np.array([layout.number_lines[place] for place in places], dtype=np.intp)
        self._centres = np.array([variable.grid.centre for variable in chosen])[:, np.newaxis]
        self._per_unit = np.array([1.0 / variable.grid.unit for variable in chosen])[:, np.newaxis]
        self._steps = layout.sums_start + self._lines
        self._squares = self._steps + layout.numbers

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, numbers: NDArray[np.float64], known: NDArray[np.bool_], tally: Tally) -> None:
        """Count numbers (lines, rows), of which the first `len(known)` lines are null where `known` is False.

        `numbers` is written over.
        """
        places = self._search(numbers)
        finite = np.isfinite(numbers)
        if not finite.all():
            places -= np.isnan(numbers)
        if not known.all():
            nullable = len(known)
            np.copyto(places[:nullable], self._nulls[:nullable], where=~known)
            finite[:nullable] &= known
        np.add(tally.counts, np.bincount(places.ravel(), minlength=len(tally.counts)), out=tally.counts)
        self._add_moments(numbers, None if finite.all() else ~finite, tally)

    def _search(self, numbers: NDArray[np.float64]) -> NDArray[np.intp]:
        """The place of each number's bin; NaN, which no comparison finds, stands at -∞."""
        found = np.empty(numbers.shape, dtype=np.intp)
        found[...] = self._first
        edges, reached = np.empty_like(numbers), np.empty(numbers.shape, dtype=np.int8)
        for power in _POWERS:
            # Adding the step where its last edge is reached, and 0 elsewhere, takes half as long as copying where.
            np.take(self._ahead[power], found, out=edges, mode="clip")
            np.less_equal(edges, numbers, out=reached.view(np.bool_))
            np.left_shift(reached, power, out=reached)
            np.add(found, reached, out=found)
        found += self._to_place
        return found

    def _add_moments(self, numbers: NDArray[np.float64], unusable: NDArray[np.bool_] | None, tally: Tally) -> None:
        with np.errstate(all="ignore"):
            steps = numbers - self._centres
            steps *= self._per_unit
        np.clip(steps, -STEPS_MAX, STEPS_MAX, out=steps)
        np.rint(steps, out=steps)
        if unusable is not None:
            np.copyto(steps, 0.0, where=unusable)
        # Whole numbers below 2**53, so float64 adds them up without rounding.
        tally.counts[self._steps] += steps.sum(axis=1).astype(np.int64)
        tally.counts[self._squares] += np.einsum("ij,ij->i", steps, steps).astype(np.int64)
        if unusable is not None:
            np.copyto(numbers, np.inf, where=unusable)
        tally.lows[self._lines] = np.minimum(tally.lows[self._lines], numbers.min(axis=1))
        if unusable is not None:
            np.copyto(numbers, -np.inf, where=unusable)
        tally.highs[self._lines] = np.maximum(tally.highs[self._lines], numbers.max(axis=1))
