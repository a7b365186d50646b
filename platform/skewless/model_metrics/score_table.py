"""Scores of many rows as counts by score: all that ranking and calibration metrics of a binary outcome need.

While rows can be held, every distinct score has its own line and metrics are exact. Beyond that, scores fall into
MODEL_METRIC_BINS equal bins; rows of one bin count as ties, which `auroc_within` and `average_precision_within` bound.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from skewless.errors import InvalidDefinition
from skewless.monitor_limits import MODEL_METRIC_BINS
from skewless.training.evaluation import auroc_of_counts, average_precision_of_counts

Counts = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ScoreTable:
    """A line per distinct score or bin, ascending: the sum of its scores, and rows of each kind (lines,).

    `unlabelled` are rows whose outcome has not come, `flagged` those of all that were predicted positive.
    """

    score_sums: Counts
    positives: Counts
    negatives: Counts
    unlabelled: Counts
    flagged: Counts

    @classmethod
    def of(cls, scores: NDArray[np.float32], outcomes: NDArray[np.int8], flagged: NDArray[np.bool_]) -> "ScoreTable":
        """The exact table of rows: scores, outcomes (1, 0, and -1 for none yet), and what was predicted, each (rows,).

        Raises InvalidDefinition for a score outside of 0 to 1, NaN included.
        """
        distinct, line = np.unique(scores, return_inverse=True)
        if len(distinct) and not (distinct[0] >= 0.0 and distinct[-1] <= 1.0):  # NaN is last, and no comparison holds
            raise InvalidDefinition(
                f"scores from {distinct[0]} to {distinct[-1]} are no probabilities; allowed: 0 to 1"
            )
        return cls(
            _summed(line, scores.astype(np.float64), len(distinct)),
            *(
                _counted(line, chosen, len(distinct))
                for chosen in (outcomes == 1, outcomes == 0, outcomes < 0, flagged)
            ),
        )

    @property
    def rows(self) -> Counts:
        """Rows of each line, labelled or not."""
        return self.positives + self.negatives + self.unlabelled

    @property
    def scores(self) -> Counts:
        """Mean score of each line that has rows; 0 for one without."""
        return self.score_sums / np.maximum(self.rows, 1.0)

    def binned(self) -> "ScoreTable":
        """The same rows in equal bins: tables of any rows then have the same lines, and add up."""
        bins = np.minimum((self.scores * MODEL_METRIC_BINS).astype(np.intp), MODEL_METRIC_BINS - 1)
        return ScoreTable(
            *(_summed(bins, getattr(self, each.name), MODEL_METRIC_BINS) for each in fields(self)),
        )

    def __add__(self, other: "ScoreTable") -> "ScoreTable":
        """The rows of two binned tables."""
        return ScoreTable(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    def judged(self) -> "ScoreTable":
        """Only the lines that have an outcome."""
        kept = (self.positives + self.negatives) > 0
        return ScoreTable(*(getattr(self, each.name)[kept] for each in fields(self)))

    def auroc(self) -> float | None:
        """See `training.evaluation.auroc`."""
        return auroc_of_counts(self.positives, self.negatives)

    def average_precision(self) -> float | None:
        """See `training.evaluation.average_precision`."""
        return average_precision_of_counts(self.positives, self.negatives)

    def auroc_within(self) -> float:
        """How far the AUROC of the rows behind binned lines can be from `auroc`: half of the pairs within lines.

        >>> rows = np.float32([0.1, 0.4, 0.4, 0.9]), np.int8([0, 0, 1, 1]), np.zeros(4, np.bool_)
        >>> ScoreTable.of(*rows).auroc_within()
        0.125
        """
        pairs = float(self.positives.sum() * self.negatives.sum())
        return float((self.positives * self.negatives).sum()) / (2.0 * pairs) if pairs else 0.0

    def average_precision_within(self) -> float:
        """How far the average precision of the rows behind binned lines can be from `average_precision`.

        The worst that a bin can hide is all its positives before its negatives, or after them.
        """
        all_positives = float(self.positives.sum())
        if not all_positives:
            return 0.0
        positives, negatives = self.positives[::-1], self.negatives[::-1]
        found, missed = np.cumsum(positives), np.cumsum(negatives)
        best = (found / np.maximum(found + missed - negatives, 1.0)).clip(max=1.0)
        before = found - positives
        worst = np.minimum(before + 1.0, found) / np.maximum(np.minimum(before + 1.0, found) + missed, 1.0)
        told = found / np.maximum(found + missed, 1.0)
        apart = np.maximum(best - told, told - worst)
        return float((positives * apart).sum() / all_positives)


def _summed(line: NDArray[np.intp], values: Counts, lines: int) -> Counts:
    return np.bincount(line, values, lines).astype(np.float64, copy=False)


def _counted(line: NDArray[np.intp], chosen: NDArray[np.bool_], lines: int) -> Counts:
    return np.bincount(line[chosen], minlength=lines).astype(np.float64)
