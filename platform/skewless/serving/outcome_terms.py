"""What is agreed about an endpoint's outcomes: when one is late, and how far back one told by entity reaches."""

from dataclasses import dataclass
from typing import Any

from skewless.errors import InvalidDefinition
from skewless.limits import OUTCOME_WINDOW_S, OUTCOME_WINDOW_S_MAX
from skewless.timestamps import SECOND_US

OUTCOME_WINDOW_US = int(OUTCOME_WINDOW_S * SECOND_US)
_LONGEST_US = int(OUTCOME_WINDOW_S_MAX * SECOND_US)


@dataclass(frozen=True, slots=True)
class OutcomeTerms:
    """Times in µs. Raises InvalidDefinition for one that is not above 0, or longer than OUTCOME_WINDOW_S_MAX.

    >>> OutcomeTerms(label_horizon_us=60_000_000).to_json()
    {'label_horizon_s': 60.0, 'outcome_window_s': 2592000.0}
    """

    label_horizon_us: int | None = None
    """Within which outcomes are expected after the prediction; None: not declared, and none is late."""
    outcome_window_us: int = OUTCOME_WINDOW_US
    """An outcome told by entity belongs to no prediction that was older than this at the moment it is about."""

    def __post_init__(self) -> None:
        given = {"label horizon": self.label_horizon_us, "outcome window": self.outcome_window_us}
        for name, value in given.items():
            if value is not None and not 0 < value <= _LONGEST_US:
                raise InvalidDefinition(
                    f"the {name} is {value / SECOND_US:g} s",
                    hint=f"allowed: more than 0 and at most {OUTCOME_WINDOW_S_MAX:g} s",
                )

    def to_json(self) -> dict[str, Any]:
        """Plain data, in seconds."""
        horizon = None if self.label_horizon_us is None else self.label_horizon_us / SECOND_US
        return {"label_horizon_s": horizon, "outcome_window_s": self.outcome_window_us / SECOND_US}
