"""How sure a measured AUROC is: DeLong's variance, computed from ranks.

DeLong, DeLong and Clarke-Pearson 1988; by midranks as Sun and Xu 2014. The interval is symmetric in the log-odds of the
AUROC, so that it stays within 0 and 1 (Pepe 2003). It takes rows for independent: where neighbours in time resemble
each other, the truth is wider.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """Where the true value lies with probability LEVEL."""

    low: float
    high: float


def auroc_interval(labels: NDArray[np.bool_], scores: NDArray[np.floating]) -> Interval | None:
    """The interval of the AUROC of scores (rows,) against labels (rows,).

    None with fewer than two rows of a class. Without a single overlap of the classes its width is 0.

    >>> found = auroc_interval(np.array([False, True, True, False]), np.array([0.1, 0.4, 0.1, 0.3]))
    >>> round(found.low, 3), round(found.high, 3)
    (0.058, 0.978)
    """
    positives, negatives = scores[labels], scores[~labels]
    if min(len(positives), len(negatives)) < 2:
        return None
    below = share_below(positives, negatives)
    above = 1.0 - share_below(negatives, positives)
    value = float(below.mean())
    error = float(np.sqrt(below.var(ddof=1) / len(positives) + above.var(ddof=1) / len(negatives)))
    if not 0.0 < value < 1.0 or error == 0.0:
        return Interval(value, value)
    odds = np.log(value / (1.0 - value))
    reach = NormalDist().inv_cdf(0.5 + LEVEL / 2.0) * error / (value * (1.0 - value))
    return Interval(*(float(1.0 / (1.0 + np.exp(-each))) for each in (odds - reach, odds + reach)))


def share_below(of: NDArray[np.floating], others: NDArray[np.floating]) -> NDArray[np.float64]:
    """For each value (values,), the share of the others that lie below it, equal ones counting half."""
    ordered = np.sort(others)
    twice = np.searchsorted(ordered, of, side="left") + np.searchsorted(ordered, of, side="right")
    return twice / (2.0 * len(others))
