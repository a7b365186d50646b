"""What was seen of the answers in one role, as counts that add up."""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from skewless.errors import InvalidDefinition
from skewless.rollout.fields import read_fields

LATENCY_EDGES_MS = tuple(0.25 * 2 ** (step / 8) for step in range(125))
"""Upper edges of the latency bins, each included, 9 % apart: 0.25 ms to 11.6 s. One more bin holds what is above."""
LATENCY_BINS = len(LATENCY_EDGES_MS) + 1


def latency_bin(latency_ms: float) -> int:
    """The bin of a latency, from 0 to `LATENCY_BINS` - 1.

    >>> latency_bin(0.25), latency_bin(0.26), latency_bin(60_000.0)
    (0, 1, 125)
    """
    return bisect_left(LATENCY_EDGES_MS, latency_ms)


@dataclass(frozen=True, slots=True)
class RoleCounts:
    """Requests that a role answered or failed to, and the outcomes of what it answered.

    `errors` of the `requests` failed by the server's fault. `latency` counts answers by `latency_bin`. Of `outcomes`
    that arrived, `good_outcomes` were what is wanted: the label that was predicted, or a success.
    """

    requests: int = 0
    errors: int = 0
    latency: tuple[int, ...] = (0,) * LATENCY_BINS
    outcomes: int = 0
    good_outcomes: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.errors <= self.requests and 0 <= self.good_outcomes <= self.outcomes):
            raise InvalidDefinition(
                f"{self.errors} errors of {self.requests} requests and {self.good_outcomes} good of {self.outcomes} "
                "outcomes; allowed: 0 or more, and no more of a part than of the whole"
            )
        if len(self.latency) != LATENCY_BINS or min(self.latency) < 0:
            raise InvalidDefinition(
                f"latency counts of {len(self.latency)} bins; allowed: {LATENCY_BINS} counts of 0 or more"
            )

    def __add__(self, other: Self) -> Self:
        return type(self)(
            self.requests + other.requests,
            self.errors + other.errors,
            tuple(map(int.__add__, self.latency, other.latency)),
            self.outcomes + other.outcomes,
            self.good_outcomes + other.good_outcomes,
        )

    @property
    def answers(self) -> int:
        """Answers whose latency was counted."""
        return sum(self.latency)

    def slower_than(self, edge: int) -> int:
        """Answers that took longer than `LATENCY_EDGES_MS[edge]`."""
        return sum(self.latency[edge + 1 :])

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "requests": self.requests,
            "errors": self.errors,
            "latency": list(self.latency),
            "outcomes": self.outcomes,
            "good_outcomes": self.good_outcomes,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], path: str = "$") -> Self:
        """The inverse of `to_json`; `path` is where `data` lies. Raises InvalidDefinition."""
        counts = {"requests": int, "errors": int, "outcomes": int, "good_outcomes": int}
        fields = read_fields(data, path, {**counts, "latency": list})
        if not all(type(each) is int for each in fields["latency"]):
            raise InvalidDefinition(f"{path}.latency is {fields['latency']!r}; allowed: integers")
        return cls(**{**fields, "latency": tuple(fields["latency"])})
