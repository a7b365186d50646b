"""A metric of some predictions: its value and bounds, or why it has none."""

from dataclasses import dataclass
from typing import Any

from skewless.model_metrics.bounds import Bounded, Validity

COUNTER = "counter_"
"""Begins the name of a business counter's metric."""
HIGHER_IS_BETTER = frozenset({"accuracy", "auroc", "average_precision", "precision", "recall", "f1", "ndcg", "map"})
LOWER_IS_BETTER = frozenset({"log_loss", "brier", "ece", "mae", "rmse"})
"""The rest is best at a value of its own, or says what the world does and not how good the model is."""
ESTIMATED = ("accuracy", "auroc", "log_loss", "brier")
"""Metrics that are estimated before outcomes come."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A value of None has a `reason`; a value that is not exact says in it how far it may be off.

    `effective` is for how many independent rows those of a rate count, None for what is no rate.
    """

    name: str
    value: float | None
    bounds: Bounded | None = None
    reason: str | None = None
    is_estimate: bool = False
    effective: float | None = None

    @property
    def low(self) -> float | None:
        """The lower bound."""
        return None if self.bounds is None else self.bounds.low

    @property
    def high(self) -> float | None:
        """The upper bound."""
        return None if self.bounds is None else self.bounds.high

    @property
    def validity(self) -> Validity | None:
        """In which sense the bounds hold."""
        return None if self.bounds is None else self.bounds.validity

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "metric": self.name,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "bounds": None if self.validity is None else self.validity.value,
            "reason": self.reason,
            "is_estimate": self.is_estimate,
            "effective": self.effective,
        }
