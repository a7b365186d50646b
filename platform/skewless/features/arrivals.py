"""Whether a source has gone silent for longer than it ever does: learned from when its rows arrived so far.

Silence is measured in arrivals that are missing, not in hours. Each hour of the week has a rate, the arrivals that
came in it per week of the history; adding rates up over a silence gives how many arrivals usually come in such a span:

    night of a source that rests at night       0 missing, however long
    a quarter of an hour of one that comes each 5 min    3 missing
    an hour of the week that history has not seen        0 missing: nothing is known of it

A source counts as stopped when FRESHNESS_MISSED_TIMES as many are missing as in its longest usual silence (at least one
arrival), which for regular arrivals is after three have not come, and for irregular ones later: the more its silences
vary, the longer is waited. What history cannot know, such as a public holiday, looks like a stop.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skewless.ingest_limits import (
    FRESHNESS_ARRIVALS_MIN,
    FRESHNESS_BUCKET_S,
    FRESHNESS_HISTORY_S,
    FRESHNESS_MISSED_TIMES,
    FRESHNESS_SILENCE_QUANTILE,
)
from skewless.timestamps import HOUR_US, SECOND_US

BUCKET_US = int(FRESHNESS_BUCKET_S * SECOND_US)
HISTORY_US = int(FRESHNESS_HISTORY_S * SECOND_US)
_HOURS = 168
_WEEK_US = _HOURS * HOUR_US


@dataclass(frozen=True, slots=True)
class Cadence:
    """How a source usually arrives, and how its present silence compares.

    `typical_us` is the median time between two arrivals, `silent_us` how long ago the last one came. `missing` is how
    many usually come in that time, `allowed` how many may be missing; `history_us` is how long it was watched.
    """

    typical_us: int
    silent_us: int
    missing: float
    allowed: float
    history_us: int

    @property
    def is_stopped(self) -> bool:
        """Whether more is missing than ever usually is."""
        return self.missing > self.allowed


def arrivals_of(moments: NDArray[np.int64]) -> NDArray[np.int64]:
    """The arrivals (sorted, distinct, µs) that rows which became known at some moments make up.

    >>> arrivals_of(np.array([7, 3, 5, BUCKET_US + 1])).tolist() == [0, BUCKET_US]
    True
    """
    return np.unique(moments // BUCKET_US) * BUCKET_US


def cadence_of(arrivals: NDArray[np.int64], now: int) -> Cadence | None:
    """What arrivals (sorted, distinct, µs) say at `now`; None for fewer than FRESHNESS_ARRIVALS_MIN.

    Those of FRESHNESS_HISTORY_S before the last one count, so that a source which has stopped is not forgotten.
    """
    arrivals = arrivals[arrivals <= now]
    if not len(arrivals):
        return None
    arrivals = arrivals[arrivals >= arrivals[-1] - HISTORY_US]
    if len(arrivals) < FRESHNESS_ARRIVALS_MIN:
        return None
    usual = _running(_rates(arrivals), np.append(arrivals, now))
    silences = np.diff(usual[:-1])
    longest = float(np.quantile(silences, FRESHNESS_SILENCE_QUANTILE, method="lower"))
    last = int(arrivals[-1])
    return Cadence(
        typical_us=int(np.median(np.diff(arrivals))),
        silent_us=now - last,
        missing=float(usual[-1] - usual[-2]),
        allowed=FRESHNESS_MISSED_TIMES * max(1.0, longest),
        history_us=last - int(arrivals[0]),
    )


def _rates(arrivals: NDArray[np.int64]) -> NDArray[np.float64]:
    """Arrivals (168,) per hour of the week; 0 for an hour that does not occur between the first and the last one."""
    hours = arrivals // HOUR_US
    counts = np.bincount(hours % _HOURS, minlength=_HOURS)
    span = int(hours[-1] - hours[0]) + 1
    # Hours at both ends count as seen in full, which makes rates smaller and this more patient.
    times = np.full(_HOURS, span // _HOURS)
    times[(int(hours[0]) + np.arange(span % _HOURS)) % _HOURS] += 1
    rates: NDArray[np.float64] = counts / np.maximum(times, 1)
    return rates


def _running(rates: NDArray[np.float64], moments: NDArray[np.int64]) -> NDArray[np.float64]:
    """How many arrivals come from 1970 up to each moment (moments,) at these rates, evenly within an hour."""
    before = np.concatenate(([0.0], np.cumsum(rates)))
    weeks, within = np.divmod(moments, _WEEK_US)
    hour, rest = np.divmod(within, HOUR_US)
    found: NDArray[np.float64] = weeks * before[-1] + before[hour] + rates[hour] * (rest / HOUR_US)
    return found
