"""What of some traffic is shown beside its training: a few figures for each variable."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from skewless.drift.traffic import ALL
from skewless.drift.watch import level_name
from skewless.drift.watched_bundle import WatchedBundle
from skewless.features.visibility import Status
from skewless.statistics.divergence import population_stability, stability_floor
from skewless.statistics.tally import Tally
from skewless.statistics.variable import BELOW, Part, Variable

HOUR, DAY = "hour", "day"
SPANS = (HOUR, DAY)
_SHOWN = (Part.COLUMN, Part.SCORE)


@dataclass(frozen=True, slots=True)
class Distance:
    """How far a span of traffic is from training; None where there is too little to say."""

    psi: float | None
    floor: float | None


@dataclass(frozen=True, slots=True)
class FeatureShown:
    """One column, or the score, over the last hour; shares from 0 to 1, None where they say nothing.

    `level` is how high it stands in heights of an alarm, `distances` by the name of a span.
    """

    name: str
    rows: int
    null: float | None
    missing: float | None
    stale: float | None
    default: float | None
    unseen: float | None
    mean: float | None
    level: float
    distances: dict[str, Distance]


@dataclass(frozen=True, slots=True)
class ViewShown:
    """The median age (s) of a view's rows over the last hour, and in training; None without rows."""

    name: str
    median_s: float | None
    training_median_s: float | None


def features_shown(
    watched: WatchedBundle, spans: dict[str, Tally], levels: dict[str, float]
) -> tuple[FeatureShown, ...]:
    """Every watched column and score. `spans` has the tally of each of SPANS, `levels` by `level_name`."""
    counted = {name: watched.layout.counted(tally) for name, tally in spans.items()}
    kept = {variable.key for variable in watched.kept}
    found = []
    for place, training in enumerate(watched.layout.variables):
        if training.part not in _SHOWN or training.key not in kept:
            continue
        distances = {name: _distance(training, variables[place]) for name, variables in counted.items()}
        level = levels.get(level_name((ALL, *training.key)), 0.0)
        found.append(_feature(counted[HOUR][place], level, distances))
    return tuple(found)


def views_shown(watched: WatchedBundle, hour: Tally) -> tuple[ViewShown, ...]:
    """The ages of every view."""
    counted = watched.layout.counted(hour)
    return tuple(
        ViewShown(training.name, median_s(now), median_s(training))
        for training, now in zip(watched.layout.variables, counted, strict=True)
        if training.part is Part.AGE
    )


def median_s(ages: Variable) -> float | None:
    """The median age in seconds, ages lying evenly within their bins; None where there is none.

    >>> from skewless.statistics.edges import AGE_EDGES_US
    >>> from skewless.dtypes import Dtype
    >>> counts = [0] * (len(AGE_EDGES_US) + 5)
    >>> counts[5] = 2  # from 1 s to 2 s
    >>> median_s(Variable(Part.AGE, "weather", Dtype.INT64, tuple(counts), tuple(AGE_EDGES_US)))
    1.5
    """
    counts = np.array(ages.counts[BELOW:-1], dtype=np.float64)
    if not counts.sum() or not ages.edges:
        return None
    # The bins at both ends are open: one holds what is below 0, the other what no age can be.
    ends = np.array([ages.edges[0], *ages.edges, ages.edges[-1]])
    below = np.concatenate(([0.0], np.cumsum(counts)))
    return float(np.interp(below[-1] / 2, below, ends)) / 1e6


def _feature(variable: Variable, level: float, distances: dict[str, Distance]) -> FeatureShown:
    total, statuses = variable.total, variable.statuses
    seen = sum((statuses or {}).values())

    def status(name: Status) -> float | None:
        return None if statuses is None or not seen else statuses.get(name.value, 0) / seen

    unseen = variable.unseen
    return FeatureShown(
        variable.name,
        total,
        variable.nulls / total if total else None,
        status(Status.MISSING),
        status(Status.STALE),
        status(Status.DEFAULT),
        unseen / total if total and unseen is not None else None,
        None if variable.moments is None else variable.moments.mean,
        level,
        distances,
    )


def _distance(training: Variable, current: Variable) -> Distance:
    first, second = (np.array(each.counts, dtype=np.float64) for each in (training, current))
    return Distance(population_stability(first, second), stability_floor(first, second))


def total(watched: WatchedBundle, tallies: Sequence[Tally]) -> Tally:
    """Some tallies of a bundle added up."""
    whole = watched.layout.empty()
    for tally in tallies:
        whole = whole.merged(tally)
    return whole
