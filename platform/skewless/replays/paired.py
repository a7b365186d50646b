"""Two scores of the same rows against what turned out: each metric of both, and how sure their difference is.

Rows are taken for independent. Where neighbours in time resemble each other the truth is wider. Differences are second
minus first. The interval of the AUROC's is DeLong's for correlated curves (DeLong, DeLong and Clarke-Pearson 1988); the
others are means of a difference per row, whose interval is that of a mean.
"""

from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.training.evaluation import auroc
from skewless.training.intervals import LEVEL, Interval, share_below

_REACH = NormalDist().inv_cdf(0.5 + LEVEL / 2.0)
_EPSILON = float(np.finfo(np.float32).eps)
"""How far scores are kept from 0 and 1, as in `training.evaluation.log_loss`."""
ROWS_MIN = 2


@dataclass(frozen=True, slots=True)
class PairedMetric:
    """One metric of both scores; None where the labels cannot say. `better` is whether the second is better with
    confidence LEVEL, None where that cannot be told."""

    name: str
    first: float | None
    second: float | None
    difference: float | None
    interval: Interval | None
    better: bool | None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def paired_metrics(
    labels: NDArray[np.bool_],
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    *,
    first_positive: NDArray[np.bool_],
    second_positive: NDArray[np.bool_],
) -> tuple[PairedMetric, ...]:
    """AUROC, log loss, Brier score and accuracy of two scores (rows,), probabilities of the positive class.

    `first_positive` and `second_positive` (rows,) say which rows each labelled positive. No rows give no metrics.
    """
    if not len(labels):
        return ()
    brier = [(scores.astype(np.float64) - labels) ** 2 for scores in (first, second)]
    right = [(positive == labels).astype(np.float64) for positive in (first_positive, second_positive)]
    return (
        _auroc(labels, first, second),
        _mean("log_loss", _log_losses(labels, first), _log_losses(labels, second), higher_is_better=False),
        _mean("brier", *brier, higher_is_better=False),
        _mean("accuracy", *right, higher_is_better=True),
    )


def auroc_difference_interval(
    labels: NDArray[np.bool_], first: NDArray[np.floating], second: NDArray[np.floating]
) -> Interval | None:
    """The interval of AUROC(second) - AUROC(first) on the same rows; None with fewer than two rows of a class.

    >>> same = auroc_difference_interval(np.array([1, 0, 1, 0], bool), np.arange(4.0), np.arange(4.0))
    >>> same.low, same.high
    (0.0, 0.0)
    """
    if min(int(labels.sum()), int((~labels).sum())) < ROWS_MIN:
        return None
    below = share_below(second[labels], second[~labels]) - share_below(first[labels], first[~labels])
    above = share_below(second[~labels], second[labels]) - share_below(first[~labels], first[labels])
    middle = float(below.mean())
    error = float(np.sqrt(below.var(ddof=1) / len(below) + above.var(ddof=1) / len(above)))
    return Interval(middle - _REACH * error, middle + _REACH * error)


def _auroc(labels: NDArray[np.bool_], first: NDArray[np.float32], second: NDArray[np.float32]) -> PairedMetric:
    one, other = auroc(labels, first), auroc(labels, second)
    if one is None or other is None:
        return PairedMetric("auroc", one, other, None, None, None)
    interval = auroc_difference_interval(labels, first, second)
    return PairedMetric("auroc", one, other, other - one, interval, _better(interval, higher_is_better=True))


def _mean(
    name: str, first: NDArray[np.float64], second: NDArray[np.float64], *, higher_is_better: bool
) -> PairedMetric:
    """A metric that is the mean of one number per row."""
    one, other = float(first.mean()), float(second.mean())
    interval = _mean_interval(second - first)
    return PairedMetric(name, one, other, other - one, interval, _better(interval, higher_is_better=higher_is_better))


def _mean_interval(differences: NDArray[np.float64]) -> Interval | None:
    if len(differences) < ROWS_MIN:
        return None
    middle = float(differences.mean())
    reach = _REACH * float(differences.std(ddof=1)) / len(differences) ** 0.5
    return Interval(middle - reach, middle + reach)


def _better(interval: Interval | None, *, higher_is_better: bool) -> bool | None:
    """Whether a difference in an interval that leaves out 0 is for the better; None where it does not."""
    if interval is None or interval.low <= 0.0 <= interval.high:
        return None
    return (interval.low > 0.0) is higher_is_better


def _log_losses(labels: NDArray[np.bool_], scores: NDArray[np.float32]) -> NDArray[np.float64]:
    likely = np.clip(scores.astype(np.float64), _EPSILON, 1.0 - _EPSILON)
    losses: NDArray[np.float64] = -np.log(np.where(labels, likely, 1.0 - likely))
    return losses
