"""How good the scores of a binary classifier are: four numbers, from labels and scores alone."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.errors import InvalidDefinition

_PROBABILITY_EPSILON = float(np.finfo(np.float32).eps)
"""Log loss of a certain and wrong score is infinite; scores are kept this far from 0 and 1, as in scikit-learn."""
_TINY = 1e-300
"""Stands for no rows at all at the upper end of expected counts, where there is nothing to be precise about."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Metrics over `rows` scores. None where the labels cannot say: `auroc` of one class, no positive at all."""

    rows: int
    positives: int
    auroc: float | None
    brier: float
    log_loss: float
    average_precision: float | None

    def to_json(self) -> dict[str, int | float | None]:
        """Plain data by field name."""
        return asdict(self)


def evaluate(labels: NDArray[np.bool_], scores: NDArray[np.float32]) -> Evaluation:
    """All metrics of scores (rows,), probabilities of the positive class, against labels (rows,).

    Raises InvalidDefinition for no rows, for arrays of unlike length and for a score outside of 0 to 1.
    """
    if labels.ndim != 1 or labels.shape != scores.shape or not len(labels):
        raise InvalidDefinition(
            f"labels and scores have shapes {labels.shape} and {scores.shape}; both must be (rows,) with a row or more"
        )
    wrong = ~((scores >= 0.0) & (scores <= 1.0))
    if wrong.any():
        row = int(wrong.argmax())
        raise InvalidDefinition(f"score {scores[row]} of row {row} is no probability; allowed: 0 to 1")
    return Evaluation(
        rows=len(labels),
        positives=int(labels.sum()),
        auroc=auroc(labels, scores),
        brier=brier(labels, scores),
        log_loss=log_loss(labels, scores),
        average_precision=average_precision(labels, scores),
    )


def auroc(labels: NDArray[np.bool_], scores: NDArray[np.floating]) -> float | None:
    """Chance that a positive scores above a negative, ties counting half; None where a class is absent.

    The Mann-Whitney statistic from average ranks (Hanley and McNeil 1982).

    >>> auroc(np.array([False, True, True]), np.array([0.1, 0.4, 0.1]))
    0.75
    """
    _, group, rows = np.unique(scores, return_inverse=True, return_counts=True)
    positives = np.bincount(group[labels], minlength=len(rows))
    return auroc_of_counts(positives, rows - positives)


def auroc_of_counts(positives: NDArray[Any], negatives: NDArray[Any]) -> float | None:
    """As `auroc`, from how many of each class (scores,) have each distinct score, in ascending order.

    Counts may be expectations, and scores whole bins: rows of one bin then count as ties.
    """
    all_positives, all_negatives = positives.sum(), negatives.sum()
    if not all_positives or not all_negatives:
        return None
    below = np.cumsum(negatives) - negatives / 2.0
    return float((positives * below).sum() / (all_positives * all_negatives))


def brier(labels: NDArray[np.bool_], scores: NDArray[np.floating]) -> float:
    """Mean squared distance of score and label.

    >>> brier(np.array([False, True]), np.array([0.5, 1.0]))
    0.125
    """
    return float(np.mean((scores.astype(np.float64) - labels) ** 2))


def log_loss(labels: NDArray[np.bool_], scores: NDArray[np.floating]) -> float:
    """Mean negative log-likelihood, in nats.

    >>> round(log_loss(np.array([False, True]), np.array([0.5, 0.5])), 6)
    0.693147
    """
    likely = np.clip(scores.astype(np.float64), _PROBABILITY_EPSILON, 1.0 - _PROBABILITY_EPSILON)
    return float(-np.mean(np.log(np.where(labels, likely, 1.0 - likely))))


def average_precision(labels: NDArray[np.bool_], scores: NDArray[np.floating]) -> float | None:
    """Precision averaged over the recall that each distinct threshold adds; None where nothing is positive.

    >>> average_precision(np.array([True, False, True]), np.array([0.9, 0.8, 0.7]))
    0.8333333333333333
    """
    _, group, rows = np.unique(scores, return_inverse=True, return_counts=True)
    positives = np.bincount(group[labels], minlength=len(rows))
    return average_precision_of_counts(positives, rows - positives)


def average_precision_of_counts(positives: NDArray[Any], negatives: NDArray[Any]) -> float | None:
    """As `average_precision`, from how many of each class (scores,) have each distinct score, in ascending order."""
    all_positives = positives.sum()
    if not all_positives:
        return None
    found, missed = np.cumsum(positives[::-1]), np.cumsum(negatives[::-1])
    precision = found / np.maximum(found + missed, _TINY)
    added = np.diff(found, prepend=0) / all_positives
    return float(np.sum(precision * added))
