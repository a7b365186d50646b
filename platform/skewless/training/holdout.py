"""A model judged on rows that it has not seen: metrics overall and per slice, with their uncertainty."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import Column
from skewless.training.evaluation import Evaluation, auroc, average_precision, evaluate
from skewless.training.intervals import Interval, auroc_interval
from skewless.training.reliability import ReliabilityBin, expected_calibration_error, reliability_table
from skewless.training.slices import Slice


@dataclass(frozen=True, slots=True)
class ScoreEvaluation:
    """Metrics of some rows. `auroc_interval` is None where a class has fewer than two rows.

    `mean_score` beside the share of positives tells whether the scores are right on average; `ece` whether they are
    right at every level.
    """

    evaluation: Evaluation
    auroc_interval: Interval | None
    ece: float
    mean_score: float

    def to_json(self) -> dict[str, int | float | None]:
        """Plain data: the metrics by name, the interval as `auroc_low` and `auroc_high`."""
        interval = self.auroc_interval
        return {
            **self.evaluation.to_json(),
            "auroc_low": None if interval is None else interval.low,
            "auroc_high": None if interval is None else interval.high,
            "ece": self.ece,
            "mean_score": self.mean_score,
        }


@dataclass(frozen=True, slots=True)
class HoldoutEvaluation:
    """Overall metrics, those of each part of each slice, and the table behind the calibration error."""

    overall: ScoreEvaluation
    slices: Mapping[str, Mapping[str, ScoreEvaluation]]
    reliability: tuple[ReliabilityBin, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "metrics": self.overall.to_json(),
            "slices": {
                name: {part: found.to_json() for part, found in parts.items()} for name, parts in self.slices.items()
            },
            "reliability": [each.to_json() for each in self.reliability],
        }


def evaluate_scores(
    labels: NDArray[np.bool_], scores: NDArray[np.float32], ranking: NDArray[np.float32] | None = None
) -> ScoreEvaluation:
    """Metrics of scores (rows,) against labels (rows,). Raises InvalidDefinition as `evaluate`.

    `ranking` gives the scores that AUROC and average precision are of, where `scores` were calibrated by parts: each
    part's calibration is another, so rows of two parts could change places, which those of one calibration never do.
    """
    ranked = scores if ranking is None else ranking
    found = evaluate(labels, scores)
    return ScoreEvaluation(
        evaluation=replace(found, auroc=auroc(labels, ranked), average_precision=average_precision(labels, ranked)),
        auroc_interval=auroc_interval(labels, ranked),
        ece=expected_calibration_error(reliability_table(labels, scores)),
        mean_score=float(scores.mean(dtype=np.float64)),
    )


def evaluate_holdout(
    labels: NDArray[np.bool_],
    scores: NDArray[np.float32],
    columns: Mapping[str, Column],
    slices: Iterable[Slice],
    *,
    ranking: NDArray[np.float32] | None = None,
) -> HoldoutEvaluation:
    """Metrics overall and for every part of every slice of held-out rows; `columns` are theirs, each (rows,).

    `ranking` as for `evaluate_scores`. Raises InvalidDefinition for scores that are no probabilities and for a slice
    that cannot be cut.
    """
    ranked = scores if ranking is None else ranking

    def judged(rows: NDArray[np.bool_]) -> ScoreEvaluation:
        return evaluate_scores(labels[rows], scores[rows], ranked[rows])

    return HoldoutEvaluation(
        overall=evaluate_scores(labels, scores, ranked),
        slices={each.name: {part: judged(rows) for part, rows in each.parts(columns)} for each in slices},
        reliability=reliability_table(labels, scores),
    )
