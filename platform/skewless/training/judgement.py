"""A model's scores of the hold-out, judged and calibrated."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skewless.training.calibration import Calibration, CalibrationKind, cross_fitted, fit_calibration
from skewless.training.dataset import Dataset
from skewless.training.examples import select
from skewless.training.holdout import HoldoutEvaluation, ScoreEvaluation, evaluate_holdout, evaluate_scores
from skewless.training.training_set import TrainingSet, holdout_dataset


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a hold-out showed. `evaluation` is of the served scores: calibrated where a calibration is declared.

    `scores` are those of the hold-out (rows,), calibrated by what all of it teaches, as serving will see their like;
    `uncalibrated` the metrics before, None where there is no calibration. `fitted_rows` is how many rows the judged
    model was fitted on, None where it was fitted elsewhere.
    """

    dataset: Dataset
    evaluation: HoldoutEvaluation
    uncalibrated: ScoreEvaluation | None
    calibration: Calibration
    scores: NDArray[np.float32]
    fitted_rows: int | None


def judge(rows: TrainingSet, raw: NDArray[np.float32], *, fitted_rows: int | None) -> Judgement:
    """Judge scores (held-out rows,) of a training set's hold-out, and fit the declared calibration on them."""
    definition, held = rows.definition, rows.held_out
    labels, kind = rows.examples.labels[held], definition.calibration
    calibration = fit_calibration(kind, labels, raw)
    calibrated, scores = cross_fitted(kind, labels, raw), calibration.apply(raw)
    return Judgement(
        dataset=holdout_dataset(rows),
        evaluation=evaluate_holdout(labels, calibrated, select(rows.columns, held), definition.slices, ranking=scores),
        uncalibrated=None if kind is CalibrationKind.NONE else evaluate_scores(labels, raw),
        calibration=calibration,
        scores=scores,
        fitted_rows=fitted_rows,
    )
