"""How sure a metric is: bounds that hold however often somebody looks, or at one look where no such are known.

Rows of one entity are alike, and count for fewer than they are: sums are divided by the design effect
(`parity.rates.effective_rows`) before bounds are taken. That is an estimate; with one row per entity it is about 1.
"""

from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from skewless.model_metrics.score_table import ScoreTable
from skewless.monitor_limits import MODEL_METRIC_RESAMPLES
from skewless.rollout.confidence_sequences import mean_bounds, rate_low
from skewless.training.evaluation import average_precision_of_counts
from skewless.training.intervals import LEVEL, share_below

ALPHA = 1.0 - LEVEL
_REACH = NormalDist().inv_cdf(0.5 + LEVEL / 2.0)
_SEED = 20_130_501
_ODDS_MAX = 500.0
"""Log-odds beyond which a share is 0 or 1 as far as numbers go, and exponentials begin to overflow."""


class Validity(StrEnum):
    """When bounds hold with probability LEVEL."""

    ALWAYS = "always"
    """At all moments at once: they may be read at any time, and acted on."""
    POINTWISE = "pointwise"
    """At one look that was planned."""


@dataclass(frozen=True, slots=True)
class Bounded:
    """Between which values a metric lies, and in which sense."""

    low: float
    high: float
    validity: Validity


@dataclass(frozen=True, slots=True)
class Loss:
    """The mean of a loss of each row: rows, sum, and the sum of squared distances from guesses made before.

    `design` is by how much fewer rows the rows count for.
    """

    rows: float
    total: float
    spread: float
    design: float = 1.0

    def bounds(self, *, highest: float) -> Bounded | None:
        """Of a loss from 0 to `highest`; None without rows."""
        if not self.rows:
            return None
        rows = max(int(self.rows / self.design), 1)
        share = rows / self.rows
        found = mean_bounds(rows, self.total * share, self.spread * share, lowest=0.0, highest=highest, alpha=ALPHA)
        return Bounded(found.low, found.high, Validity.ALWAYS)


def rate(hits: float, rows: float, *, design: float = 1.0, alpha: float = ALPHA) -> Bounded | None:
    """Of a share of rows, with probability 1 - `alpha`; None without rows."""
    if not rows:
        return None
    effective = max(int(rows / design), 1)
    found = int(hits * effective / rows)
    missed = int((rows - hits) * effective / rows)
    low, high = rate_low(found, effective, alpha=alpha / 2.0), 1.0 - rate_low(missed, effective, alpha=alpha / 2.0)
    return Bounded(low, high, Validity.ALWAYS)


def auroc_bounds(table: ScoreTable, value: float, *, design: float) -> Bounded | None:
    """DeLong's interval of an AUROC from counts, wider by a design effect; None with fewer than two rows of a class.

    With exact counts and a design effect of 1 it is `training.intervals.auroc_interval`.
    """
    positives, negatives = table.positives, table.negatives
    counts = float(positives.sum()), float(negatives.sum())
    if min(counts) < 2.0:
        return None
    below = (np.cumsum(negatives) - negatives / 2.0) / counts[1]
    above = 1.0 - (np.cumsum(positives) - positives / 2.0) / counts[0]
    variance = sum(
        float((rows * np.square(shares - value)).sum()) / (count - 1.0) / count
        for rows, shares, count in ((positives, below, counts[0]), (negatives, above, counts[1]))
    )
    return _in_log_odds(value, variance * design)


def clustered_auroc_bounds(
    labels: NDArray[np.bool_], scores: NDArray[np.float32], clusters: NDArray[np.intp], value: float
) -> Bounded | None:
    """DeLong's interval with rows (rows,) that are alike within clusters (Obuchowski 1997); None as `auroc_bounds`.

    Never narrower than for independent rows, which few clusters could make it by chance.
    """
    positives, negatives = scores[labels], scores[~labels]
    if min(len(positives), len(negatives)) < 2:
        return None
    parts = np.zeros(len(scores))
    parts[labels] = (share_below(positives, negatives) - value) / len(positives)
    parts[~labels] = (1.0 - share_below(negatives, positives) - value) / len(negatives)
    independent = sum(float(np.square(parts[own]).sum()) * own.sum() / (own.sum() - 1) for own in (labels, ~labels))
    sums = np.bincount(clusters, parts)
    used = int(np.count_nonzero(np.bincount(clusters)))
    clustered = float(np.square(sums).sum()) * used / (used - 1) if used > 1 else 0.0
    return _in_log_odds(value, max(clustered, independent))


def average_precision_bounds(table: ScoreTable, value: float, *, design: float) -> Bounded | None:
    """A bootstrap interval from counts, the same for the same counts; None with fewer than two positives.

    Rows are drawn anew as Poisson counts. A design effect widens the interval in the log-odds. Drawing fewer rows
    would not do: an average precision of few positives is biased upwards, and with none there is none.
    """
    judged = table.judged()
    if judged.positives.sum() < 2.0:
        return None
    random = np.random.default_rng(_SEED)
    found = [value]
    for _ in range(MODEL_METRIC_RESAMPLES):
        drawn = average_precision_of_counts(random.poisson(judged.positives), random.poisson(judged.negatives))
        if drawn is not None:
            found.append(drawn)
    low, high = np.quantile(found, [ALPHA / 2.0, 1.0 - ALPHA / 2.0])
    reach = float(np.sqrt(design))
    return Bounded(
        _stretched(value, min(float(low), value), reach),
        _stretched(value, max(float(high), value), reach),
        Validity.POINTWISE,
    )


def _stretched(value: float, edge: float, reach: float) -> float:
    """An edge as many times as far from the value in the log-odds; 0 and 1 are as far as it goes, and stay.

    >>> round(_stretched(0.5, 0.8, 2.0), 6)
    0.941176
    """
    if not (0.0 < value < 1.0 and 0.0 < edge < 1.0):
        return edge
    middle = np.log(value / (1.0 - value))
    odds = np.clip(middle + reach * (np.log(edge / (1.0 - edge)) - middle), -_ODDS_MAX, _ODDS_MAX)
    return float(1.0 / (1.0 + np.exp(-odds)))


def mean_pointwise(value: float, variance: float) -> Bounded:
    """A normal interval of a mean that has no bounds of its own."""
    reach = _REACH * float(np.sqrt(variance))
    return Bounded(value - reach, value + reach, Validity.POINTWISE)


def _in_log_odds(value: float, variance: float) -> Bounded:
    """As `training.intervals.auroc_interval`: symmetric in the log-odds, so that it stays within 0 and 1."""
    error = float(np.sqrt(variance))
    if not 0.0 < value < 1.0 or error == 0.0:
        return Bounded(value, value, Validity.POINTWISE)
    odds = np.log(value / (1.0 - value))
    reach = _REACH * error / (value * (1.0 - value))
    low, high = (float(1.0 / (1.0 + np.exp(-each))) for each in (odds - reach, odds + reach))
    return Bounded(low, high, Validity.POINTWISE)
