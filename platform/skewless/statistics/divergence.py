"""How far two histograms of the same bins are apart, in the field's measures.

Each takes counts (bins,) of a reference and of current rows; counts need not be whole where bins were interpolated.
None stands for a comparison with no rows on one side. Where a bin hides what a measure asks for, the answer is a
range that surely holds it, with the truth for rows spread evenly within their bins.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.floating]
PSEUDO_COUNT = 0.5
"""Added to every bin that was hit on either side (Jeffreys' prior), so that an empty bin has a finite weight."""

_NORMAL_OF_A_THOUSANDTH = NormalDist().inv_cdf(0.999)


@dataclass(frozen=True, slots=True)
class Within:
    """A number, and the range that surely holds it whatever lies within the bins."""

    value: float
    low: float
    high: float


def population_stability(reference: Counts, current: Counts) -> float | None:
    """Population stability index: Σ (p - q) ln(p / q) over the bins that were hit on either side.

    Without any change it is about `stability_floor`, not 0.

    >>> round(population_stability(np.array([50, 50]), np.array([70, 30])), 4)
    0.1659
    """
    hit = (reference + current) > 0
    if not reference.sum() or not current.sum():
        return None
    p, q = (_shares(counts[hit] + PSEUDO_COUNT) for counts in (reference, current))
    return float(np.sum((p - q) * np.log(p / q)))


def stability_floor(reference: Counts, current: Counts) -> float | None:
    """The population stability index that chance alone gives on average: (bins - 1) (1/n + 1/m), bins that were hit."""
    if not reference.sum() or not current.sum():
        return None
    freedom, per_bin = _chance(reference, current)
    return freedom * per_bin


def stability_limit(reference: Counts, current: Counts) -> float | None:
    """The population stability index that chance alone exceeds once in a thousand times, for independent rows.

    Small differences make the index, over 1/n + 1/m, Pearson's statistic: chi-square with bins - 1 degrees of freedom.
    Its quantile is Wilson and Hilferty's approximation (1931): 3 % too high for two bins, less for more.
    """
    if not reference.sum() or not current.sum():
        return None
    freedom, per_bin = _chance(reference, current)
    if not freedom:
        return 0.0
    spread = 2 / (9 * freedom)
    return freedom * per_bin * (1 - spread + _NORMAL_OF_A_THOUSANDTH * math.sqrt(spread)) ** 3


def _chance(reference: Counts, current: Counts) -> tuple[int, float]:
    """Degrees of freedom, and what each of them adds on average."""
    bins = int(np.count_nonzero((reference + current) > 0))
    return bins - 1, float(1 / reference.sum() + 1 / current.sum())


def jensen_shannon(reference: Counts, current: Counts) -> float | None:
    """Jensen-Shannon distance: the square root of the divergence to base 2, from 0 to 1. No smoothing.

    >>> jensen_shannon(np.array([1, 0]), np.array([0, 5]))
    1.0
    """
    if not reference.sum() or not current.sum():
        return None
    p, q = _shares(reference), _shares(current)
    middle = (p + q) / 2
    return math.sqrt(max((_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2, 0.0))


def kolmogorov_smirnov(reference: Counts, current: Counts, single: NDArray[np.bool_] | None = None) -> Within | None:
    """The largest distance of the distribution functions; bins ascend. `value` is that at the edges, also `low`.

    `single` (bins,) says which bins hold one number only, so that they hide nothing; None where none does.

    >>> kolmogorov_smirnov(np.array([1, 1, 2]), np.array([2, 2, 0]))
    Within(value=0.5, low=0.5, high=0.75)
    """
    if not reference.sum() or not current.sum():
        return None
    f, g = _distribution(reference), _distribution(current)
    low = float(np.abs(f - g).max())
    high = np.maximum(f[1:] - g[:-1], g[1:] - f[:-1])
    if single is not None:
        high[single] = 0.0
    return Within(low, low, max(low, min(float(high.max()), 1.0)))


def wasserstein(
    reference: Counts, current: Counts, ends: NDArray[np.float64], single: NDArray[np.bool_] | None = None
) -> Within | None:
    """How far values must move on average to turn one into the other, in their unit (first Wasserstein distance).

    `ends` (bins + 1,) ascend: bin i lies between `ends[i]` and `ends[i + 1]`, and no value lies beyond the outermost.
    `single` as for `kolmogorov_smirnov`; the one number of such a bin is its lower end.
    """
    if not reference.sum() or not current.sum():
        return None
    f, g = _distribution(reference), _distribution(current)
    width = np.diff(ends)
    apart = f - g
    value = _mean_distance(apart[:-1], apart[1:])
    low = np.maximum(np.maximum(f[:-1] - g[1:], g[:-1] - f[1:]), 0.0)
    high = np.maximum(f[1:] - g[:-1], g[1:] - f[:-1])
    if single is not None:
        for each in (value, low, high):
            each[single] = np.abs(apart[1:])[single]
    return Within(*(float(np.sum(width * each)) for each in (value, low, high)))


def rank_distance(reference: Counts, current: Counts) -> float | None:
    """How far values moved on average, in ranks of the reference: from 0 to 1.

    The Wasserstein distance without a unit: it needs no ends, and no outlier stretches it. Where all values left by one
    end it is a half.

    >>> rank_distance(np.array([5, 5]), np.array([0, 3]))
    0.25
    """
    if not reference.sum() or not current.sum():
        return None
    f, g = _distribution(reference), _distribution(current)
    apart = f - g
    return float(np.sum(np.diff(f) * _mean_distance(apart[:-1], apart[1:])))


def _shares(counts: Counts) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = counts / counts.sum()
    return shares


def _distribution(counts: Counts) -> NDArray[np.float64]:
    """The distribution function (bins + 1,) at the ends of the bins."""
    return np.concatenate(([0.0], np.cumsum(counts) / counts.sum()))


def _relative_entropy(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """Of p to q, in bits."""
    hit = p > 0
    return float(np.sum(p[hit] * np.log2(p[hit] / q[hit])))


def _mean_distance(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of |x| where x runs evenly from `left` to `right`: also where it passes zero on the way."""
    size = np.abs(left) + np.abs(right)
    crossing = (left * right < 0) & (size > 0)
    squares = left**2 + right**2
    return np.where(crossing, squares / np.where(crossing, 2 * size, 1.0), size / 2)
