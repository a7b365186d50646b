"""What kept metrics say together: how far estimates were off, and which bundle a counter is better with."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import NormalDist
from typing import Any

from skewless.canonical_json import Digest
from skewless.model_metrics.bounds import ALPHA, Bounded, Validity, rate
from skewless.model_metrics.judged import ALL
from skewless.model_metrics.metric import COUNTER
from skewless.model_metrics.records import MetricRecord
from skewless.timestamps import Micros
from skewless.training.intervals import LEVEL

PAST_PERIODS = 30
"""Estimates are held against what came in so many periods before."""
_Z = NormalDist().inv_cdf(0.5 + LEVEL / 2.0)


def estimate_errors(records: Iterable[MetricRecord]) -> dict[tuple[Digest, str, str], float]:
    """By bundle, role and metric: the mean distance of estimate and value over the newest PAST_PERIODS mature periods.

    Left out where no mature period has both.
    """
    pairs: dict[tuple[Digest, str, str], dict[Micros, dict[bool, float]]] = {}
    for each in records:
        if each.slice == ALL and each.mature and each.value is not None:
            of_metric = pairs.setdefault((each.bundle, each.role, each.metric), {})
            of_metric.setdefault(each.period_start, {})[each.is_estimate] = each.value
    found = {}
    for key, periods in pairs.items():
        both = [periods[start] for start in sorted(periods) if len(periods[start]) == 2][-PAST_PERIODS:]
        if both:
            found[key] = sum(abs(each[True] - each[False]) for each in both) / len(both)
    return found


@dataclass(frozen=True, slots=True)
class CounterTotal:
    """A counter of one bundle in one role over mature periods; rows are what they count for.

    `low` and `high` hold at all moments, Wilson's `wilson_low` and `wilson_high` (1927) at one planned look.
    """

    counter: str
    bundle: Digest
    role: str
    hits: float
    rows: float
    low: float
    high: float
    wilson_low: float
    wilson_high: float

    @property
    def value(self) -> float:
        """The rate."""
        return self.hits / self.rows

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "value": self.value}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two bundles' rates of one counter: between which bounds second minus first lies, at all moments.

    `better` is the bundle whose rate is surely higher, None while that is open.
    """

    counter: str
    first: Digest
    second: Digest
    difference: float
    low: float
    high: float
    better: Digest | None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def counter_totals(records: Iterable[MetricRecord]) -> list[CounterTotal]:
    """Every counter of every bundle and role, over the mature periods of the records, by name, bundle and role."""
    sums: dict[tuple[str, Digest, str], tuple[float, float]] = {}
    for each in records:
        counts = each.slice == ALL and each.mature and each.metric.startswith(COUNTER)
        if counts and each.value is not None and each.effective is not None:
            key = (each.metric.removeprefix(COUNTER), each.bundle, each.role)
            hits, rows = sums.get(key, (0.0, 0.0))
            sums[key] = (hits + each.value * each.effective, rows + each.effective)
    return [_total(*key, *sums[key]) for key in sorted(sums)]


def compare_counters(totals: Sequence[CounterTotal]) -> list[Comparison]:
    """Each pair of bundles that answered callers, by counter.

    The bounds of both rates hold together with probability LEVEL, and so do those of their difference, at whatever
    moment somebody looks.
    """
    found = []
    for first, second in combinations(totals, 2):
        if first.counter != second.counter or first.bundle == second.bundle:
            continue
        one, other = (_rate(each.hits, each.rows, alpha=ALPHA / 2.0) for each in (first, second))
        low, high = other.low - one.high, other.high - one.low
        better = second.bundle if low > 0.0 else first.bundle if high < 0.0 else None
        found.append(
            Comparison(first.counter, first.bundle, second.bundle, second.value - first.value, low, high, better)
        )
    return found


def wilson(hits: float, rows: float) -> tuple[float, float]:
    """Wilson's interval of a rate with probability LEVEL.

    >>> [round(each, 4) for each in wilson(10, 100)]
    [0.0552, 0.1744]
    """
    value, extra = hits / rows, _Z**2 / rows
    middle = (value + extra / 2.0) / (1.0 + extra)
    reach = _Z / (1.0 + extra) * math.sqrt(value * (1.0 - value) / rows + extra / rows / 4.0)
    return max(min(middle - reach, value), 0.0), min(max(middle + reach, value), 1.0)


def _total(counter: str, bundle: Digest, role: str, hits: float, rows: float) -> CounterTotal:
    bounds = _rate(hits, rows, alpha=ALPHA)
    return CounterTotal(counter, bundle, role, hits, rows, bounds.low, bounds.high, *wilson(hits, rows))


def _rate(hits: float, rows: float, *, alpha: float) -> Bounded:
    return rate(hits, rows, alpha=alpha) or Bounded(0.0, 1.0, Validity.ALWAYS)
