"""Calibration of a binary classifier: what makes its score a probability that can be taken at its word.

A calibration is a non-decreasing function of the score, so it never changes which of two rows is likelier (an isotonic
one can make them equal). It is fitted on the hold-out's scores and stored as post-processing; the very same function
is applied when the bundle serves.

    sigmoid     p' = 1 / (1 + exp(-(slope * logit(p) + intercept)))    (Platt 2000, on the log-odds)
    isotonic    linear between knots, constant outside of them         (Zadrozny and Elkan 2002, on binned scores)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.errors import InvalidDefinition

KNOTS_MAX = 256
"""Of an isotonic calibration; scores are binned to so many groups before it is fitted."""
FOLDS = 5
_EPSILON = float(np.finfo(np.float32).eps)
"""The log-odds of 0 and 1 are infinite; scores are kept this far from them."""
_STEPS_MAX = 100
_CONVERGED = 1e-10
_RIDGE = 1e-12
"""Keeps the steps finite where every score is the same."""


class CalibrationKind(StrEnum):
    """Which family of functions."""

    NONE = "none"
    SIGMOID = "sigmoid"
    ISOTONIC = "isotonic"


@dataclass(frozen=True, slots=True)
class Calibration:
    """See the module. `slope` and `intercept` are of a sigmoid; `inputs` and `outputs` the knots of an isotonic one."""

    kind: CalibrationKind = CalibrationKind.NONE
    slope: float = 1.0
    intercept: float = 0.0
    inputs: tuple[float, ...] = ()
    """Scores at the knots, strictly increasing, 0 to 1."""
    outputs: tuple[float, ...] = ()
    """Probabilities at the knots, never decreasing, 0 to 1."""

    def __post_init__(self) -> None:
        if self.kind is not CalibrationKind.SIGMOID and (self.slope, self.intercept) != (1.0, 0.0):
            raise InvalidDefinition(f"a calibration of kind `{self.kind}` has no slope and no intercept")
        if self.kind is not CalibrationKind.ISOTONIC and (self.inputs or self.outputs):
            raise InvalidDefinition(f"a calibration of kind `{self.kind}` has no knots")
        if self.kind is CalibrationKind.SIGMOID and not (0.0 < self.slope < np.inf and np.isfinite(self.intercept)):
            raise InvalidDefinition(
                f"a sigmoid calibration has slope {self.slope} and intercept {self.intercept}; allowed: a slope above 0"
                " and a finite intercept",
                hint="a slope of 0 or less means that the score says nothing, or the opposite of what it should",
            )
        if self.kind is CalibrationKind.ISOTONIC:
            self._check_knots()

    def _check_knots(self) -> None:
        if not 1 <= len(self.inputs) == len(self.outputs) <= KNOTS_MAX:
            raise InvalidDefinition(
                f"an isotonic calibration has {len(self.inputs)} inputs and {len(self.outputs)} outputs; allowed: as"
                f" many of each, 1 to {KNOTS_MAX}"
            )
        inputs, outputs = np.array(self.inputs), np.array(self.outputs)
        both = np.concatenate([inputs, outputs])
        if not ((both >= 0.0) & (both <= 1.0)).all():
            raise InvalidDefinition("the knots of an isotonic calibration must lie in 0 to 1")
        if (np.diff(inputs) <= 0.0).any() or (np.diff(outputs) < 0.0).any():
            raise InvalidDefinition(
                "the knots of an isotonic calibration must have increasing inputs and outputs that never decrease",
                hint="the calibration was changed after it was fitted; train the bundle again",
            )

    def apply(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """Calibrated probabilities (rows,) of scores (rows,) in 0 to 1, float32; a row's is the same in any batch."""
        if self.kind is CalibrationKind.NONE:
            return probabilities
        scores = np.ascontiguousarray(probabilities, dtype=np.float64)
        if self.kind is CalibrationKind.ISOTONIC:
            return np.interp(scores, self.inputs, self.outputs).astype(np.float32)
        return _sigmoid(self.slope * _log_odds(scores) + self.intercept).astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        """Plain data: the kind, and what that kind has."""
        if self.kind is CalibrationKind.SIGMOID:
            return {"kind": self.kind.value, "slope": self.slope, "intercept": self.intercept}
        if self.kind is CalibrationKind.ISOTONIC:
            return {"kind": self.kind.value, "inputs": list(self.inputs), "outputs": list(self.outputs)}
        return {"kind": self.kind.value}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Calibration":
        """The inverse of `to_json`. Raises InvalidDefinition for anything else."""
        try:
            kind = CalibrationKind(data["kind"])
            found = cls(
                kind,
                slope=float(data.get("slope", 1.0)),
                intercept=float(data.get("intercept", 0.0)),
                inputs=tuple(float(each) for each in data.get("inputs", ())),
                outputs=tuple(float(each) for each in data.get("outputs", ())),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InvalidDefinition(f"this is not a calibration: {error!r}") from error
        if data.keys() != found.to_json().keys():
            raise InvalidDefinition(f"a calibration of kind `{kind}` has the fields {sorted(found.to_json())}")
        return found


NO_CALIBRATION = Calibration()


def fit_calibration(kind: CalibrationKind, labels: NDArray[np.bool_], scores: NDArray[np.float32]) -> Calibration:
    """The calibration of a kind for scores (rows,) and labels (rows,), the same for the same rows in any order.

    Raises InvalidDefinition where a label is absent, and where the score says nothing or the opposite (sigmoid).
    """
    if kind is CalibrationKind.NONE:
        return NO_CALIBRATION
    if not 0 < int(labels.sum()) < len(labels):
        raise InvalidDefinition(
            f"{int(labels.sum())} of {len(labels)} held-out labels are positive; a calibration needs both classes"
        )
    order = np.lexsort((labels, scores))
    ordered, exact = labels[order], scores[order].astype(np.float64)
    return _fit_sigmoid(ordered, exact) if kind is CalibrationKind.SIGMOID else _fit_isotonic(ordered, exact)


def cross_fitted(kind: CalibrationKind, labels: NDArray[np.bool_], scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scores (rows,) calibrated by what the rows of other folds teach, so that their metrics are honest.

    The folds are contiguous blocks of the rows as given (by time, for a hold-out), so neighbours in time, which
    resemble each other, teach each other little.
    """
    calibrated = scores.copy()
    for fold in np.array_split(np.arange(len(scores)), FOLDS):
        others = np.ones(len(scores), dtype=np.bool_)
        others[fold] = False
        calibrated[fold] = fit_calibration(kind, labels[others], scores[others]).apply(scores[fold])
    return calibrated


def _fit_sigmoid(labels: NDArray[np.bool_], scores: NDArray[np.float64]) -> Calibration:
    """Newton's method with halved steps on the log loss (Lin, Lin and Weng 2007), from a slope of 0.

    The targets are Platt's, which keep a separable set from running to infinity.
    """
    positives = int(labels.sum())
    negatives = len(labels) - positives
    targets = np.where(labels, (positives + 1.0) / (positives + 2.0), 1.0 / (negatives + 2.0))
    features = np.stack([_log_odds(scores), np.ones(len(scores))])
    found = np.array([0.0, np.log((positives + 1.0) / (negatives + 1.0))])
    loss = _loss(found, features, targets)
    for _ in range(_STEPS_MAX):
        predicted = _sigmoid(found @ features)
        hessian = (features * (predicted * (1.0 - predicted))) @ features.T + _RIDGE * np.eye(2)
        step = np.linalg.solve(hessian, features @ (predicted - targets))
        while (lower := _loss(found - step, features, targets)) > loss and np.abs(step).max() > _CONVERGED:
            step = step / 2.0
        if np.abs(step).max() <= _CONVERGED:
            break
        found, loss = found - step, lower
    return Calibration(CalibrationKind.SIGMOID, slope=float(found[0]), intercept=float(found[1]))


def _loss(found: NDArray[np.float64], features: NDArray[np.float64], targets: NDArray[np.float64]) -> float:
    odds = found @ features
    return float(np.sum(np.logaddexp(0.0, odds) - targets * odds))


def _fit_isotonic(labels: NDArray[np.bool_], scores: NDArray[np.float64]) -> Calibration:
    """Pool adjacent violators over groups of equal scores, at most KNOTS_MAX of them, of about as many rows each.

    Each group is given one row more at the base rate, so that no score is ever taken for certain.
    """
    starts = _group_starts(scores)
    rows = np.diff(np.append(starts, len(scores))).astype(np.float64)
    positives = np.add.reduceat(labels.astype(np.float64), starts)
    totals = np.add.reduceat(scores, starts)
    base_rate = float(labels.mean())
    blocks: list[tuple[float, float, float]] = []
    """(rows, positives with the row at the base rate, sum of scores) of each block; means never decrease."""
    for count, positive, total in zip(rows, positives, totals, strict=True):
        block = (float(count), float(positive) + base_rate, float(total))
        while blocks and _mean(blocks[-1]) >= _mean(block):
            last = blocks.pop()
            block = (last[0] + block[0], last[1] + block[1] - base_rate, last[2] + block[2])
        blocks.append(block)
    inputs = np.clip([total / count for count, _, total in blocks], 0.0, 1.0)
    # Two blocks of neighbouring float32 scores can have means that round to one number; the first then speaks for both.
    kept = np.diff(inputs, prepend=-1.0) > 0.0
    outputs = np.array([_mean(block) for block in blocks])
    return Calibration(
        CalibrationKind.ISOTONIC, inputs=tuple(inputs[kept].tolist()), outputs=tuple(outputs[kept].tolist())
    )


def _mean(block: tuple[float, float, float]) -> float:
    return block[1] / (block[0] + 1.0)


def _group_starts(scores: NDArray[np.float64]) -> NDArray[np.intp]:
    """Where groups of sorted scores begin: equal scores together, about `rows / KNOTS_MAX` rows in each."""
    changes = np.flatnonzero(np.diff(scores, prepend=-1.0))
    wanted = np.linspace(0, len(scores), KNOTS_MAX, endpoint=False)
    return np.unique(changes[np.searchsorted(changes, wanted, side="right") - 1])


def _log_odds(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    kept = np.clip(probabilities, _EPSILON, 1.0 - _EPSILON)
    odds: NDArray[np.float64] = np.log(kept) - np.log1p(-kept)
    return odds


def _sigmoid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(over="ignore"):
        result: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-values))
    return result
