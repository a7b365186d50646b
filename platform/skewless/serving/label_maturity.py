"""How complete the outcomes of an endpoint's predictions are, by the age of the predictions.

A prediction's age and delays are measured from when it was made, by its id, to when its first outcome was received:
both are of our own clocks, whatever moment the prediction was asked for.
"""

from dataclasses import dataclass
from typing import Any

from skewless.timestamps import DAY_US, HOUR_US, MINUTE_US, SECOND_US

AGES_US = (
    MINUTE_US, 10 * MINUTE_US, HOUR_US, 6 * HOUR_US,
    DAY_US, 2 * DAY_US, 7 * DAY_US, 14 * DAY_US, 30 * DAY_US, 90 * DAY_US,
)  # fmt: skip
"""At which maturity is looked at."""
QUANTILES = (0.5, 0.9, 0.99, 1.0)
MATURE_QUANTILE = 0.99
"""Where no horizon is declared, outcomes count as complete once this share of those that ever came has come."""


@dataclass(frozen=True, slots=True)
class AgeShare:
    """Of the predictions that are at least `age_us` old, how many had an outcome when they were that old."""

    age_us: int
    predictions: int
    with_outcome: int

    @property
    def share(self) -> float | None:
        """From 0 to 1; None where no prediction is that old."""
        return self.with_outcome / self.predictions if self.predictions else None


@dataclass(frozen=True, slots=True)
class DayOutcomes:
    """Predictions made on one UTC day, and how many have an outcome by now."""

    day: str
    end_us: int
    predictions: int
    with_outcome: int


@dataclass(frozen=True, slots=True)
class LabelMaturity:
    """What is known of an endpoint's outcomes at `now_us`. `delays_us` is by quantile, empty where none has come."""

    endpoint: str
    now_us: int
    declared_horizon_us: int | None
    ages: tuple[AgeShare, ...]
    delays_us: dict[float, float]
    days: tuple[DayOutcomes, ...]

    @property
    def horizon_us(self) -> float | None:
        """After which outcomes count as complete: as declared, else as measured; None where neither is known."""
        if self.declared_horizon_us is not None:
            return self.declared_horizon_us
        return self.delays_us.get(MATURE_QUANTILE)

    def is_mature(self, day: DayOutcomes) -> bool:
        """Whether all predictions of a day are older than the horizon."""
        return self.horizon_us is not None and day.end_us + self.horizon_us <= self.now_us

    def to_json(self) -> dict[str, Any]:
        """Plain data, times in seconds."""
        horizon = self.horizon_us
        return {
            "endpoint": self.endpoint,
            "declared_horizon_s": None if self.declared_horizon_us is None else self.declared_horizon_us / SECOND_US,
            "horizon_s": None if horizon is None else horizon / SECOND_US,
            "ages": [
                {
                    "age_s": each.age_us / SECOND_US,
                    "predictions": each.predictions,
                    "with_outcome": each.with_outcome,
                    "share": each.share,
                }
                for each in self.ages
            ],
            "delays_s": {f"{quantile:g}": delay / SECOND_US for quantile, delay in self.delays_us.items()},
            "days": [
                {
                    "day": each.day,
                    "predictions": each.predictions,
                    "with_outcome": each.with_outcome,
                    "is_mature": self.is_mature(each),
                }
                for each in self.days
            ],
        }
