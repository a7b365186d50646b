"""Whether scores are the probabilities that they say they are, from counts by score."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skewless.model_metrics.score_table import ScoreTable
from skewless.training.reliability import BINS, ReliabilityBin

_EPSILON = float(np.finfo(np.float32).eps)
"""The log-odds of 0 and 1 are infinite; scores are kept this far from them, as in `training.calibration`."""
_STEPS_MAX = 50
_CONVERGED = 1e-9
_SLOPE_MAX = 1e3
"""A slope beyond this means that the scores part the classes: no finite one is likeliest."""


@dataclass(frozen=True, slots=True)
class LogOddsFit:
    """The likeliest `slope` and `intercept` of log-odds against those that were served; 1 and 0 where all is well.

    A slope below 1: scores are too extreme. An intercept above 0: they are too low. (Cox 1958.)
    """

    slope: float = 1.0
    intercept: float = 0.0

    def apply(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probability (scores,) that this says for each score."""
        return _sigmoid(self.slope * log_odds(scores) + self.intercept)


def fit_log_odds(table: ScoreTable) -> LogOddsFit | None:
    """Logistic regression of outcomes on the log-odds of their scores, by Newton's method on counts.

    None where it has no answer: one class, one score, or scores that part the classes.
    """
    judged = table.judged()
    odds, positives, rows = log_odds(judged.scores), judged.positives, judged.positives + judged.negatives
    if not 0.0 < positives.sum() < rows.sum() or np.ptp(odds) < _CONVERGED:
        return None
    features = np.stack([odds, np.ones(len(odds))])
    base_rate = positives.sum() / rows.sum()
    found = np.array([0.0, np.log(base_rate / (1.0 - base_rate))])
    loss = _loss(found, features, positives, rows)
    for _ in range(_STEPS_MAX):
        predicted = _sigmoid(found @ features)
        hessian = (features * (rows * predicted * (1.0 - predicted))) @ features.T
        try:
            step = np.linalg.solve(hessian, features @ (positives - rows * predicted))
        except np.linalg.LinAlgError:
            return None
        while (lower := _loss(found + step, features, positives, rows)) > loss and np.abs(step).max() > _CONVERGED:
            step = step / 2.0
        if np.abs(step).max() <= _CONVERGED:
            break
        found, loss = found + step, lower
        if abs(found[0]) > _SLOPE_MAX:
            return None
    else:
        return None
    return LogOddsFit(float(found[0]), float(found[1]))


def reliability(table: ScoreTable, *, bins: int = BINS) -> tuple[ReliabilityBin, ...]:
    """About `bins` groups of as many labelled rows each, in order of score: `training.reliability_table` of counts."""
    judged = table.judged()
    rows = judged.positives + judged.negatives
    if not len(rows):
        return ()
    ends = np.cumsum(rows)
    wanted = np.linspace(0, ends[-1], bins, endpoint=False)
    starts = np.unique(np.searchsorted(ends - rows, wanted, side="right") - 1)
    scores = judged.scores
    counts = np.add.reduceat(rows, starts)
    means = np.add.reduceat(scores * rows, starts) / counts
    shares = np.add.reduceat(judged.positives, starts) / counts
    highs = scores[np.append(starts[1:], len(rows)) - 1]
    return tuple(
        ReliabilityBin(low, high, int(count), mean, share)
        for low, high, count, mean, share in zip(
            scores[starts].tolist(), highs.tolist(), counts.tolist(), means.tolist(), shares.tolist(), strict=True
        )
    )


def log_odds(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of probabilities, kept away from 0 and 1."""
    kept = np.clip(probabilities, _EPSILON, 1.0 - _EPSILON)
    odds: NDArray[np.float64] = np.log(kept) - np.log1p(-kept)
    return odds


def _loss(
    found: NDArray[np.float64], features: NDArray[np.float64], positives: NDArray[np.float64], rows: NDArray[np.float64]
) -> float:
    odds = found @ features
    return float(np.sum(rows * np.logaddexp(0.0, odds) - positives * odds))


def _sigmoid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(over="ignore"):
        result: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-values))
    return result
