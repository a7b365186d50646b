"""Counts of everything, in one flat array: what is added to while counting, shipped, merged and stored.

    counts   rows | bins of every variable | statuses of every stored feature | Σ steps | Σ steps² of every number
    lows     the smallest finite number of each variable of numbers, +∞ where there was none
    highs    the largest, -∞ where there was none

All of it merges exactly: counts and sums by addition, extremes by minimum and maximum.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from skewless.canonical_json import Digest, digest
from skewless.errors import InvalidDefinition
from skewless.features.visibility import STATUS_CODES
from skewless.statistics.moments import STEPS_MAX
from skewless.statistics.variable import BELOW, Variable

ROWS = 0
ROWS_MAX = 1 << 32
"""Of one tally: sums of squares stay within int64 even where every row is an outlier."""

assert ROWS_MAX * STEPS_MAX**2 <= 1 << 62


@dataclass(frozen=True, slots=True, eq=False)
class Tally:
    """See the module. `layout` is the digest of the bins that were counted in; arrays are added to in place."""

    layout: Digest
    counts: NDArray[np.int64]
    lows: NDArray[np.float64]
    highs: NDArray[np.float64]

    @property
    def rows(self) -> int:
        return int(self.counts[ROWS])

    def merged(self, other: "Tally") -> "Tally":
        """The tally of the rows of both, bit for bit as if they had been counted together.

        Raises InvalidDefinition for tallies of different bins, and for more than ROWS_MAX rows.
        """
        if self.layout != other.layout:
            raise InvalidDefinition(
                f"tallies of bins {self.layout[:12]} and {other.layout[:12]} cannot be added",
                hint="count both with the baseline of one bundle",
            )
        check_rows(self.rows + other.rows)
        return Tally(
            self.layout,
            self.counts + other.counts,
            np.minimum(self.lows, other.lows),
            np.maximum(self.highs, other.highs),
        )


def check_rows(rows: int) -> None:
    """Raise InvalidDefinition where a tally would have more than ROWS_MAX rows."""
    if rows > ROWS_MAX:
        raise InvalidDefinition(
            f"a tally of {rows:,} rows is too large; allowed: {ROWS_MAX:,}", hint="count shorter spans of time"
        )


@dataclass(frozen=True, slots=True)
class TallyLayout:
    """Where each variable's counts are. Equal variables (whatever their counts) have equal layouts."""

    variables: tuple[Variable, ...]
    starts: tuple[int, ...] = field(init=False)
    """Of each variable's bins."""
    status_starts: tuple[int | None, ...] = field(init=False)
    """Of each variable's statuses, one place per code; None for a variable that has none."""
    number_lines: tuple[int | None, ...] = field(init=False)
    """Each variable's place among those of numbers; None for words."""
    numbers: int = field(init=False)
    sums_start: int = field(init=False)
    """Σ steps of all numbers, by their place; then Σ steps²."""
    size: int = field(init=False)
    digest: Digest = field(init=False)

    def __post_init__(self) -> None:
        starts, end = _running((each.size for each in self.variables), 1)
        statuses, end = _running((0 if each.statuses is None else len(STATUS_CODES) for each in self.variables), end)
        is_number = [each.vocabulary is None for each in self.variables]
        lines, numbers = _running((int(each) for each in is_number), 0)
        computed = {
            "starts": starts,
            "status_starts": tuple(
                None if each.statuses is None else start for each, start in zip(self.variables, statuses, strict=True)
            ),
            "number_lines": tuple(line if each else None for each, line in zip(is_number, lines, strict=True)),
            "numbers": numbers,
            "sums_start": end,
            "size": end + 2 * numbers,
            "digest": _bins_digest(self.variables),
        }
        for name, value in computed.items():
            object.__setattr__(self, name, value)

    def empty(self) -> Tally:
        """A tally of no rows."""
        return Tally(
            self.digest,
            np.zeros(self.size, dtype=np.int64),
            np.full(self.numbers, np.inf),
            np.full(self.numbers, -np.inf),
        )

    def counted(self, tally: Tally) -> tuple[Variable, ...]:
        """The variables with a tally's counts, statuses and moments instead of training's."""
        if tally.layout != self.digest:
            raise InvalidDefinition(f"a tally of bins {tally.layout[:12]} cannot be read as {self.digest[:12]}")
        return tuple(self._counted(place, tally) for place in range(len(self.variables)))

    def _counted(self, place: int, tally: Tally) -> Variable:
        variable, start = self.variables[place], self.starts[place]
        counted = replace(variable, counts=tuple(tally.counts[start : start + variable.size].tolist()))
        if (status_start := self.status_starts[place]) is not None:
            codes = tally.counts[status_start : status_start + len(STATUS_CODES)].tolist()
            statuses = {status.value: count for status, count in zip(STATUS_CODES, codes, strict=True) if count}
            counted = replace(counted, statuses=statuses)
        if (line := self.number_lines[place]) is not None:
            steps, squares = tally.counts[self.sums_start + line :: self.numbers][:2].tolist()
            extremes = float(tally.lows[line]), float(tally.highs[line])
            count = sum(counted.counts[BELOW:-1])
            counted = replace(counted, moments=variable.grid.moments(count, steps, squares, extremes))
        return counted


def _running(sizes: Iterable[int], start: int) -> tuple[tuple[int, ...], int]:
    """Where each size begins, from `start` on, and where the last one ends."""
    starts = []
    for size in sizes:
        starts.append(start)
        start += size
    return tuple(starts), start


def _bins_digest(variables: Sequence[Variable]) -> Digest:
    """Over all that decides what a count means."""
    return digest([_bins(each) for each in variables] + [[status.value for status in STATUS_CODES]])


def _bins(variable: Variable) -> list[object]:
    words: list[object] = []
    if (known := variable.vocabulary) is not None:
        words = [list(known.listed), list(known.rest), known.closed]
    grid = variable.grid
    named: list[object] = [variable.part.value, variable.name, variable.dtype.value, variable.statuses is not None]
    return [*named, list(variable.edges), words, grid.centre, grid.unit]
