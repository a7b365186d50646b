"""What is watched of each window: how far every variable's counts, statuses and mean are from the same hour's.

A stream is one number per window. Of a variable (and slice) there are up to three sources of them:

    distribution   Pearson's statistic of its bins, nulls and unseen values included, over its degrees of freedom
    statuses       the same of the statuses of a stored feature
    mean           the difference of means, in steps of the variable's grid

Each comes with how much chance alone makes of it, since windows at night hold fewer rows: `calibration.py` brings
both together on the scale of recent weeks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from skewless.statistics.tally import TallyLayout
from skewless.statistics.variable import BELOW, Part

ROWS_MIN = 20
"""Values of a window from which they say something; with fewer, a stream stands still."""
_SPREAD = 1.0
"""Added to what is expected in a bin: one row where none was ever seen is no news, ten are."""
_CHUNK = 512
"""Windows scored at once, so that what is held in between stays small."""

Floats = NDArray[np.float64]


class Kind(StrEnum):
    """What moved."""

    DISTRIBUTION = "distribution"
    STATUSES = "statuses"
    RISE = "rise of the mean"
    FALL = "fall of the mean"


@dataclass(frozen=True, slots=True, order=True)
class Stream:
    """One thing that is watched; `slice` is the name of its slice, empty for all rows."""

    slice: str
    part: Part
    name: str
    kind: Kind

    @property
    def variable(self) -> tuple[str, Part, str]:
        """Slice, part and name: what is told to have moved, whatever of it did."""
        return self.slice, self.part, self.name


@dataclass(frozen=True, slots=True)
class Raw:
    """Numbers of successive windows, NaN where a window has fewer than ROWS_MIN values.

    `ratios` (windows, segments) are Pearson's statistics over their degrees of freedom, about 1 by chance, and
    `ratio_rows` how many rows they are of; `shifts` (windows, means) are differences of means in steps, `noises`
    their variances by chance, in steps².
    """

    ratios: Floats
    ratio_rows: Floats
    shifts: Floats
    noises: Floats

    @classmethod
    def joined(cls, parts: Sequence["Raw"]) -> "Raw":
        """The windows of all parts, in order."""
        return cls(
            np.concatenate([each.ratios for each in parts]),
            np.concatenate([each.ratio_rows for each in parts]),
            np.concatenate([each.shifts for each in parts]),
            np.concatenate([each.noises for each in parts]),
        )

    def where(self, chosen: NDArray[np.bool_]) -> "Raw":
        """Those of the windows (windows,) that are True."""
        return Raw(self.ratios[chosen], self.ratio_rows[chosen], self.shifts[chosen], self.noises[chosen])


class Ruler:
    """Scores windows of one layout; made once. Only variables of `parts` are watched."""

    def __init__(self, layout: TallyLayout, parts: frozenset[Part]) -> None:
        self.layout = layout
        starts = [*layout.starts, *(start for start in layout.status_starts if start is not None)]
        with_status = [place for place, start in enumerate(layout.status_starts) if start is not None]
        owners = [*range(len(layout.variables)), *with_status]
        self._starts = np.array(starts, dtype=np.intp) - 1
        self._sizes = np.diff(np.append(self._starts, layout.sums_start - 1))
        watched = [place for place, owner in enumerate(owners) if layout.variables[owner].part in parts]
        self._watched = np.array(watched, dtype=np.intp)
        self.segments = [(layout.variables[owners[place]].key, place >= len(layout.variables)) for place in watched]
        self._numbers = [
            place
            for place, line in enumerate(layout.number_lines)
            if line is not None and layout.variables[place].part in parts
        ]
        self.means = [layout.variables[place].key for place in self._numbers]
        self._sums = np.array(
            [layout.sums_start + (layout.number_lines[place] or 0) for place in self._numbers], np.intp
        )
        self._not_finite = np.array(
            [
                [*range(start, start + BELOW), start + layout.variables[place].size - 1]
                for place in self._numbers
                for start in (layout.starts[place],)
            ],
            dtype=np.intp,
        ).reshape(len(self._numbers), BELOW + 1)

    def streams(self, name: str) -> list[Stream]:
        """The streams of a slice, in the order in which `calibration.py` scales them."""
        bins = [
            Stream(name, part, variable, Kind.STATUSES if of_status else Kind.DISTRIBUTION)
            for (part, variable), of_status in self.segments
        ]
        return [
            *bins,
            *(Stream(name, part, variable, Kind.RISE) for part, variable in self.means),
            *(Stream(name, part, variable, Kind.FALL) for part, variable in self.means),
        ]

    def raw(self, counts: NDArray[np.int64], profile: Floats, slots: NDArray[np.intp]) -> Raw:
        """Of windows (windows, layout.size), each beside the profile (slots, layout.size) of its slot (windows,)."""
        chunks = range(0, max(len(counts), 1), _CHUNK)
        parts = [
            self._chunk(counts[start : start + _CHUNK].astype(np.float64), profile[slots[start : start + _CHUNK]])
            for start in chunks
        ]
        return Raw.joined(parts)

    def _chunk(self, counts: Floats, profile: Floats) -> Raw:
        return Raw(*self._ratios(counts, profile), *self._shifts(counts, profile))

    def _ratios(self, counts: Floats, profile: Floats) -> tuple[Floats, Floats]:
        cells = slice(1, self.layout.sums_start)
        found, expected = counts[:, cells], profile[:, cells]
        rows = np.add.reduceat(found, self._starts, axis=1)
        known = np.add.reduceat(expected, self._starts, axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            per_row = np.repeat(np.where(known > 0, rows / known, np.nan), self._sizes, axis=1)
            likely = expected * per_row
            # Of two samples: the profile's own chance adds to the window's.
            distances = np.square(found - likely) / (likely * (1.0 + per_row) + _SPREAD)
        hit = np.add.reduceat((expected > 0).astype(np.float64), self._starts, axis=1)
        ratios = np.add.reduceat(distances, self._starts, axis=1) / np.maximum(hit - 1.0, 1.0)
        few = (rows < ROWS_MIN) | (known < ROWS_MIN)
        ratios[few] = np.nan
        return ratios[:, self._watched], rows[:, self._watched]

    def _shifts(self, counts: Floats, profile: Floats) -> tuple[Floats, Floats]:
        (mean, count, _), (usual, usual_count, variance) = self._means(counts), self._means(profile)
        few = (count < ROWS_MIN) | (usual_count < ROWS_MIN)
        with np.errstate(divide="ignore", invalid="ignore"):
            noise = variance / count + variance / usual_count
        return np.where(few, np.nan, mean - usual), np.where(few, np.nan, noise)

    def _means(self, counts: Floats) -> tuple[Floats, Floats, Floats]:
        """Means in steps, finite numbers counted and variances in steps², each (windows, means)."""
        every = np.add.reduceat(counts[:, 1 : self.layout.sums_start], self._starts, axis=1)[:, self._numbers]
        finite = every - counts[:, self._not_finite].sum(axis=2)
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = counts[:, self._sums] / finite
            variance = counts[:, self._sums + self.layout.numbers] / finite - np.square(mean)
        return mean, finite, np.maximum(variance, 0.0)
