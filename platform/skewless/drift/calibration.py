"""What a detector knows of recent weeks: the profile of each hour, the usual spread, and how high is too high."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skewless.drift.scales import Scales, scales_of
from skewless.drift.season import WEEK_US, Grade, Season, grade_of
from skewless.drift.streams import Floats, Kind, Raw, Ruler, Stream
from skewless.drift.threshold import Sums, Threshold, climbed, increments, threshold_of
from skewless.drift.traffic import Series
from skewless.errors import InvalidDefinition
from skewless.statistics.variable import Part
from skewless.timestamps import DAY_US

PROMISE_DAYS = 30.0
"""Mean time between false alarms of one model, where nothing else is asked for."""
WATCHED = frozenset({Part.COLUMN, Part.SCORE, Part.AGE})
"""Outputs of the transform follow from the columns, and would only add to what chance can do."""


WEIGHTS = {Kind.DISTRIBUTION: 1.0, Kind.STATUSES: 1.0, Kind.RISE: 3.0, Kind.FALL: 3.0}
"""How many times as high a sum must climb: means wander for hours, and would set the height for all others.

In simulated worlds their sums climbed 2.5 to 3.5 times as high. Fixed, since weights taken from the same four weeks
follow their luck: those of the two kinds gave 2.4 times the promised false alarms in slices, and weights for each
stream by itself 13 times."""


@dataclass(frozen=True, slots=True, eq=False)
class SliceReference:
    """One slice's usual counts by slot (slots, layout.size), smoothed, how many windows each is of, and its scales."""

    profile: Floats
    windows: Floats
    scales: Scales


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """See the module. `history_sums` (windows, streams) are history's own, each week scored beside the others."""

    grade: Grade
    season: Season
    ruler: Ruler
    slices: Mapping[str, SliceReference]
    streams: tuple[Stream, ...]
    history_sums: Sums
    threshold: Threshold

    def scores(self, series: Mapping[str, Series]) -> NDArray[np.float32]:
        """How unusual each window of each slice is (windows, streams); a slice that is missing had no rows."""
        parts = []
        for name, reference in self.slices.items():
            counted = series[name]
            slots = self.season.slots_of(counted.windows)
            parts.append(reference.scales.standardised(self.ruler.raw(counted.counts, reference.profile, slots)))
        return np.concatenate(parts, axis=1)


def calibrate(
    history: Mapping[str, Series],
    *,
    promise_days: float = PROMISE_DAYS,
    parts: frozenset[Part] = WATCHED,
    seed: int = 0,
) -> Calibration:
    """A calibration from the series of each slice, all over one span; that of all rows is ALL.

    Raises InvalidDefinition where history is shorter than a week: there is nothing to compare an hour with then.
    """
    first = next(iter(history.values()))
    grade = grade_of(len(first) * first.window_us)
    if grade is Grade.TRAINING:
        raise InvalidDefinition(
            f"{len(first) * first.window_us / DAY_US:.1f} days of history are too few to calibrate; allowed: 7 or more",
            hint="compare with the training baseline meanwhile",
        )
    season, ruler = Season.of(grade, first.window_us), Ruler(first.layout, parts)
    slices: dict[str, SliceReference] = {}
    scored, streams = [], []
    for name, series in history.items():
        profile, windows = _profile(series, season)
        raw = _left_out(series, season, ruler)
        slices[name] = SliceReference(profile, windows, scales_of(raw))
        scored.append(_scored(raw, _folds(series, season)))
        streams += ruler.streams(name)
    z = np.concatenate(scored, axis=1)
    weights = np.array([WEIGHTS[stream.kind] for stream in streams], dtype=np.float32)
    threshold = threshold_of(z, weights, first.window_us, promise_days, seed)
    return Calibration(grade, season, ruler, slices, tuple(streams), climbed(increments(z)), threshold)


def _profile(series: Series, season: Season) -> tuple[Floats, Floats]:
    sums = _by_slot(series.counts, season.slots_of(series.windows), season.slots)
    windows = np.bincount(season.slots_of(series.windows), minlength=season.slots).astype(np.float64)
    return season.smoothed(sums), season.smoothed(windows[:, np.newaxis])[:, 0]


def _folds(series: Series, season: Season) -> NDArray[np.int64]:
    """The week of each window from the first on, or the day, where hours of the day are compared."""
    fold_us = WEEK_US if season.period_us == WEEK_US else DAY_US
    return np.arange(len(series), dtype=np.int64) * series.window_us // fold_us


def _left_out(series: Series, season: Season, ruler: Ruler) -> Raw:
    """History's windows, each beside the profile of all other weeks."""
    folds, slots = _folds(series, season), season.slots_of(series.windows)
    whole = _by_slot(series.counts, slots, season.slots)
    parts = []
    for fold in range(int(folds[-1]) + 1):
        inside = folds == fold
        others = whole - _by_slot(series.counts[inside], slots[inside], season.slots)
        parts.append(ruler.raw(series.counts[inside], season.smoothed(others), slots[inside]))
    return Raw.joined(parts)


def _scored(raw: Raw, folds: NDArray[np.int64]) -> NDArray[np.float32]:
    """History's scores, each week on the scales of all other weeks: on its own it would look calmer than what follows.

    A scale that is off by a twentieth makes alarms three times as frequent, or as rare.
    """
    parts = []
    for fold in range(int(folds[-1]) + 1):
        inside = folds == fold
        parts.append(scales_of(raw.where(~inside)).standardised(raw.where(inside)))
    return np.concatenate(parts)


def _by_slot(counts: NDArray[np.int64], slots: NDArray[np.intp], count: int) -> Floats:
    """Sums (slots, cells) of windows (windows, cells)."""
    sums = np.zeros((count, counts.shape[1]))
    for slot in range(count):
        chosen = slots == slot
        if chosen.any():
            sums[slot] = counts[chosen].sum(axis=0)
    return sums
