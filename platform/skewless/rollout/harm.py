"""Whether a canary does harm that live does not: proven, not suspected, at whatever moment somebody looks.

Each check compares a bound of the canary with the opposite bound of live (`rollout/confidence_sequences.py`), both of
the same moments and so of the same load and the same outages. A canary is harmful where even its best case is worse
than live's worst case by more than the tolerance.
"""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from skewless.errors import InvalidDefinition
from skewless.rollout.confidence_sequences import rate_low
from skewless.rollout.fields import read_fields
from skewless.rollout.role_counts import LATENCY_EDGES_MS, RoleCounts

CHECKS = 3
_EDGES = range(len(LATENCY_EDGES_MS))


@dataclass(frozen=True, slots=True)
class Tolerances:
    """How much worse than live a canary may be before it is rolled back.

    `error_rate_rise` and `outcome_drop` are differences of rates, 0 to 1. `latency_ratio` is how many times live's
    quantile `latency_quantile` the canary's may be.
    """

    error_rate_rise: float = 0.005
    latency_quantile: float = 0.95
    latency_ratio: float = 1.25
    outcome_drop: float = 0.05

    def __post_init__(self) -> None:
        for name in ("error_rate_rise", "outcome_drop"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise InvalidDefinition(f"`{name}` is {getattr(self, name)!r}; allowed: 0 up to less than 1")
        if not 0.0 < self.latency_quantile < 1.0:
            raise InvalidDefinition(f"`latency_quantile` is {self.latency_quantile!r}; allowed: between 0 and 1")
        if not 1.0 <= self.latency_ratio < float("inf"):
            raise InvalidDefinition(f"`latency_ratio` is {self.latency_ratio!r}; allowed: 1 or more")

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "error_rate_rise": self.error_rate_rise,
            "latency_quantile": self.latency_quantile,
            "latency_ratio": self.latency_ratio,
            "outcome_drop": self.outcome_drop,
        }

    @classmethod
    def from_json(cls, data: object, path: str = "$") -> Self:
        """The inverse of `to_json`, where what is left out has its default. Raises InvalidDefinition."""
        numbers = ("error_rate_rise", "latency_quantile", "latency_ratio", "outcome_drop")
        return cls(**read_fields(data, path, {}, dict.fromkeys(numbers, float)))


def harms(canary: RoleCounts, live: RoleCounts, tolerances: Tolerances, *, alpha: float) -> tuple[str, ...]:
    """What is proven against the canary, a sentence each; none where nothing is.

    A canary that is no worse than tolerated is accused at some moment with probability `alpha` at most.
    """
    one_bound = alpha / (2 * CHECKS)
    return (
        *_error_harm(canary, live, tolerances, one_bound),
        *_latency_harm(canary, live, tolerances, one_bound),
        *_outcome_harm(canary, live, tolerances, one_bound),
    )


def _error_harm(canary: RoleCounts, live: RoleCounts, tolerances: Tolerances, alpha: float) -> Iterator[str]:
    at_least = rate_low(canary.errors, canary.requests, alpha=alpha)
    at_most = 1.0 - rate_low(live.requests - live.errors, live.requests, alpha=alpha)
    if at_least > at_most + tolerances.error_rate_rise:
        yield (
            f"errors: {canary.errors} of {canary.requests} requests failed, {live.errors} of {live.requests} on live; "
            f"a rate of {at_least:.2%} or more against {at_most:.2%} or less, "
            f"tolerated is {tolerances.error_rate_rise:.2%} above"
        )


def _latency_harm(canary: RoleCounts, live: RoleCounts, tolerances: Tolerances, alpha: float) -> Iterator[str]:
    slow = 1.0 - tolerances.latency_quantile
    above = _surely_slower(canary, slow, alpha)
    within = _surely_within(live, slow, alpha)
    if above is not None and within is not None and above > within * tolerances.latency_ratio:
        yield (
            f"latency: the {tolerances.latency_quantile:g} quantile is above {above:.3g} ms, "
            f"at most {within:.3g} ms on live; tolerated is {tolerances.latency_ratio:g} times that"
        )


def _outcome_harm(canary: RoleCounts, live: RoleCounts, tolerances: Tolerances, alpha: float) -> Iterator[str]:
    at_most = 1.0 - rate_low(canary.outcomes - canary.good_outcomes, canary.outcomes, alpha=alpha)
    at_least = rate_low(live.good_outcomes, live.outcomes, alpha=alpha)
    if at_most < at_least - tolerances.outcome_drop:
        yield (
            f"outcomes: {canary.good_outcomes} of {canary.outcomes} are good, {live.good_outcomes} of {live.outcomes} "
            f"on live; a rate of {at_most:.2%} or less against {at_least:.2%} or more, "
            f"tolerated is {tolerances.outcome_drop:.2%} below"
        )


def _surely_slower(counts: RoleCounts, slow: float, alpha: float) -> float | None:
    """The largest edge, in ms, that more than the share `slow` of answers surely exceeds; None where there is none."""

    def is_in_doubt(edge: int) -> bool:
        return rate_low(counts.slower_than(edge), counts.answers, alpha=alpha) <= slow

    first_in_doubt = bisect_left(_EDGES, True, key=is_in_doubt)
    return LATENCY_EDGES_MS[first_in_doubt - 1] if first_in_doubt else None


def _surely_within(counts: RoleCounts, slow: float, alpha: float) -> float | None:
    """The smallest edge, in ms, that at most the share `slow` of answers surely exceeds; None where there is none."""

    def is_sure(edge: int) -> bool:
        answers = counts.answers
        return 1.0 - rate_low(answers - counts.slower_than(edge), answers, alpha=alpha) <= slow

    first_sure = bisect_left(_EDGES, True, key=is_sure)
    return LATENCY_EDGES_MS[first_sure] if first_sure < len(_EDGES) else None
