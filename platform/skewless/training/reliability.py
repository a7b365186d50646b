"""Whether scores are probabilities: among rows scored about p, is the label positive in a share p?"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 10


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Rows of scores `low` to `high`: their mean score, and the share of them that is positive."""

    low: float
    high: float
    rows: int
    mean_score: float
    positive_share: float

    def to_json(self) -> dict[str, Any]:
        """Plain data by field name."""
        return asdict(self)


def reliability_table(
    labels: NDArray[np.bool_], scores: NDArray[np.float32], *, bins: int = BINS
) -> tuple[ReliabilityBin, ...]:
    """About `bins` groups of as many rows each, in order of score; equal scores are never parted.

    >>> table = reliability_table(np.array([True, True, False, True]), np.float32([0.9, 0.8, 0.2, 0.2]), bins=2)
    >>> [each.rows for each in table]
    [2, 2]
    """
    order = np.argsort(scores, kind="stable")
    ordered, positive = scores[order].astype(np.float64), labels[order].astype(np.float64)
    changes = np.flatnonzero(np.diff(ordered, prepend=-1.0))
    wanted = np.linspace(0, len(ordered), bins, endpoint=False)
    starts = np.unique(changes[np.searchsorted(changes, wanted, side="right") - 1])
    rows = np.diff(np.append(starts, len(ordered)))
    means = np.add.reduceat(ordered, starts) / rows
    shares = np.add.reduceat(positive, starts) / rows
    lows, highs = ordered[starts], ordered[starts + rows - 1]
    return tuple(
        ReliabilityBin(*each)
        for each in zip(lows.tolist(), highs.tolist(), rows.tolist(), means.tolist(), shares.tolist(), strict=True)
    )


def expected_calibration_error(table: tuple[ReliabilityBin, ...]) -> float:
    """The distance of mean score and share of positives, averaged over the rows (Naeini et al. 2015).

    Estimated from few rows it is above 0 even for a perfect score.
    """
    distances = sum(each.rows * abs(each.mean_score - each.positive_share) for each in table)
    return distances / sum(each.rows for each in table)
