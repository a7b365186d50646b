"""Rates with how sure they are: exact binomial bounds, made wider by how mismatches cluster in entities.

Rows of one entity are alike: where one is wrong, its neighbours are. Counting them as independent would promise too
much, so the number of rows is divided by the design effect, the variance of the rate between entities over that of
independent rows (Korn and Graubard 1998), and Clopper's and Pearson's bounds (1934) are taken for that many.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.monitor_limits import PARITY_CLUSTERS

LEVEL = 0.95
_STEPS = 60
_TERMS = 400
_TINY = 1e-300


@dataclass(frozen=True, slots=True)
class Rate:
    """`hits` of `rows` from `entities` entities, and between which bounds the true rate lies with probability LEVEL."""

    hits: int
    rows: int
    entities: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """Hits per row; 0 for no rows."""
        return self.hits / self.rows if self.rows else 0.0


class ClusterCounts:
    """Rows by entity, hashed into bins: memory does not grow with the number of entities. Fewer bins, wider bounds."""

    def __init__(self, counts: NDArray[np.int64] | None = None) -> None:
        self.counts = np.zeros(PARITY_CLUSTERS, dtype=np.int64) if counts is None else counts

    def add(self, hashes: NDArray[np.uint64]) -> None:
        """Count a row of each of these entities."""
        bins = (hashes % np.uint64(len(self.counts))).astype(np.intp)
        self.counts += np.bincount(bins, minlength=len(self.counts))

    @property
    def total(self) -> int:
        """Rows."""
        return int(self.counts.sum())

    def folded(self, bins: int) -> "ClusterCounts":
        """The same rows in fewer bins, of which there is a multiple now."""
        return ClusterCounts(self.counts.reshape(-1, bins).sum(axis=0))


def clustered_rate(hits: ClusterCounts | None, rows: ClusterCounts) -> Rate:
    """The rate of rows that are hits; None: there are none.

    With no hit, and with nothing but hits, the variance says nothing, and each entity counts as one row.
    """
    used = rows.counts > 0
    total, entities = int(rows.counts.sum()), int(np.count_nonzero(used))
    found = 0 if hits is None else int(hits.counts.sum())
    if not total:
        return Rate(0, 0, 0, 0.0, 1.0)
    value = found / total
    effective = float(entities)
    if hits is not None and 0 < found < total and entities > 1:
        effective = effective_rows(hits.counts[used], rows.counts[used], value * (1.0 - value))
    low, high = clopper_pearson(value * effective, effective)
    return Rate(found, total, entities, low, high)


def effective_rows(totals: NDArray[Any], rows: NDArray[Any], row_variance: float) -> float:
    """For how many independent rows of this variance the rows of some entities count, 1 to all of them.

    `totals` and `rows` (entities,) are what the values of each entity's rows add up to, and how many there are, at
    least one. Fewer than two entities say nothing: all rows count.
    """
    total, entities = float(rows.sum()), len(rows)
    if entities < 2:
        return total
    apart = totals - float(totals.sum()) / total * rows
    variance = entities / (entities - 1) * float(np.sum(np.square(apart))) / total**2
    return float(np.clip(row_variance / variance, 1.0, total)) if variance else total


def clopper_pearson(hits: float, rows: float, level: float = LEVEL) -> tuple[float, float]:
    """Exact bounds of a rate from `hits` of `rows`, which need not be whole numbers.

    >>> [round(each, 6) for each in clopper_pearson(7, 20_000)]
    [0.000141, 0.000721]
    """
    tail = (1.0 - level) / 2.0
    low = 0.0 if hits <= 0 else _beta_quantile(tail, hits, rows - hits + 1.0)
    high = 1.0 if hits >= rows else _beta_quantile(1.0 - tail, hits + 1.0, rows - hits)
    return low, high


def _beta_quantile(share: float, a: float, b: float) -> float:
    """Below which point a Beta(a, b) variable lies with probability `share`, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2.0
        if _beta_below(middle, a, b) < share:
            low = middle
        else:
            high = middle
    return (low + high) / 2.0


def _beta_below(point: float, a: float, b: float) -> float:
    """The regularised incomplete beta function, by Lentz's continued fraction (DLMF 8.17.22)."""
    if point <= 0.0 or point >= 1.0:
        return float(point >= 1.0)
    if point > (a + 1.0) / (a + b + 2.0):
        return 1.0 - _beta_below(1.0 - point, b, a)
    log_front = a * math.log(point) + b * math.log1p(-point)
    log_front += math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    c, d = 1.0, 1.0 / _away_from_zero(1.0 - (a + b) * point / (a + 1.0))
    fraction = d
    for term in range(1, _TERMS):
        for numerator in (
            term * (b - term) * point / ((a + 2 * term - 1.0) * (a + 2 * term)),
            -(a + term) * (a + b + term) * point / ((a + 2 * term) * (a + 2 * term + 1.0)),
        ):
            d = 1.0 / _away_from_zero(1.0 + numerator * d)
            c = _away_from_zero(1.0 + numerator / c)
            fraction *= c * d
        if abs(c * d - 1.0) < 1e-12:
            break
    return math.exp(log_front) * fraction / a


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
