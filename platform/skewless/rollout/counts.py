"""Outcomes of an experiment's arm, as counts that add up."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from skewless.errors import InvalidDefinition
from skewless.rollout.fields import read_fields


@dataclass(frozen=True, slots=True)
class ArmCounts:
    """Outcomes of the rows that an arm answered.

    `trials` outcomes arrived, of which `successes` were the experiment's success. `total` and `squares` are the sum of
    outcomes that are numbers and of their squares, 0 where outcomes are labels.

    >>> ArmCounts(10, 4) + ArmCounts(5, 1)
    ArmCounts(trials=15, successes=5, total=0.0, squares=0.0)
    """

    trials: int = 0
    successes: int = 0
    total: float = 0.0
    squares: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.successes <= self.trials or not self.squares >= 0.0:
            raise InvalidDefinition(
                f"{self.successes} successes of {self.trials} trials, squares {self.squares!r}; "
                "allowed: 0 or more trials, as many successes at most, squares of 0 or more"
            )

    def __add__(self, other: Self) -> Self:
        return type(self)(
            self.trials + other.trials,
            self.successes + other.successes,
            self.total + other.total,
            self.squares + other.squares,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        counted = {"trials": self.trials, "successes": self.successes}
        return {**counted, "total": self.total, "squares": self.squares}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`. Raises InvalidDefinition."""
        required = {"trials": int, "successes": int}
        return cls(**read_fields(data, "$", required, {"total": float, "squares": float}))
