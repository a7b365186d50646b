"""What an API key may ask for, and how often. Pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from skewless.errors import InvalidDefinition
from skewless.rollout.routes import check_endpoint_name

ANY_ENDPOINT = "*"
PREFIXES_MAX = 100
"""Prefixes of one join key: each request is compared with them."""
RATE_PER_S_MIN, RATE_PER_S_MAX = 0.001, 1_000_000.0
RATE_BURST_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class ApiRate:
    """How often a caller may ask: `burst` requests at once, and `per_s` more in every second.

    Raises InvalidDefinition for a rate that never refuses, or never allows.

    >>> ApiRate(50.0, 100).to_json()
    {'per_s': 50.0, 'burst': 100}
    """

    per_s: float
    burst: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.per_s) and RATE_PER_S_MIN <= self.per_s <= RATE_PER_S_MAX):
            raise InvalidDefinition(
                f"a rate is {self.per_s:g} requests per second; allowed: {RATE_PER_S_MIN:g} to {RATE_PER_S_MAX:,.0f}",
                hint="leave the rate out for the gateway's default; revoke the key to refuse it",
            )
        if not 1 <= self.burst <= RATE_BURST_MAX:
            raise InvalidDefinition(
                f"a burst is {self.burst} requests; allowed: 1 to {RATE_BURST_MAX:,}",
                hint="a burst of one second's requests is a good beginning",
            )

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"per_s": self.per_s, "burst": self.burst}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`. Raises InvalidDefinition for data that is not a rate."""
        try:
            return cls(float(data["per_s"]), int(data["burst"]))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InvalidDefinition(f"this is not a rate of an API key: {error!r}") from error


@dataclass(frozen=True, slots=True)
class ApiScope:
    """Endpoints, and which entities of them.

    `endpoints` are names, or `*` alone for every one. `entities` gives for a join key the prefixes that its values
    may begin with; a join key that is not named may have any value. Raises InvalidDefinition for a scope that could
    never allow anything.

    >>> scope = ApiScope(("flight-delay",), {"tailnum": ("N1", "N2")})
    >>> scope.allows("flight-delay", {"tailnum": "N14228", "origin": "JFK"})
    True
    >>> scope.allows("flight-delay", {"tailnum": "N7"}), scope.allows("other", {"tailnum": "N1"})
    (False, False)
    """

    endpoints: tuple[str, ...]
    entities: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.endpoints:
            raise InvalidDefinition("a scope names no endpoint", hint=f"name endpoints, or `{ANY_ENDPOINT}` for all")
        if self.endpoints != (ANY_ENDPOINT,):
            for name in self.endpoints:
                check_endpoint_name(name)
        for key, prefixes in self.entities.items():
            if not 1 <= len(prefixes) <= PREFIXES_MAX or not all(prefixes):
                raise InvalidDefinition(
                    f"a scope allows join key {key!r} the prefixes {list(prefixes)!r}; "
                    f"allowed: 1 to {PREFIXES_MAX} of at least one character",
                    hint="leave the join key out to allow every value",
                )

    def covers(self, endpoint: str) -> bool:
        """Whether the endpoint may be asked at all."""
        return self.endpoints == (ANY_ENDPOINT,) or endpoint in self.endpoints

    def allows(self, endpoint: str, entity: Mapping[str, object]) -> bool:
        """Whether the endpoint may be asked about an entity, given as the values of its join keys.

        A value that is absent or null begins with no prefix. Numbers are compared as they are written in decimal.
        """
        return self.covers(endpoint) and all(
            str(value).startswith(prefixes) if (value := entity.get(key)) is not None else False
            for key, prefixes in self.entities.items()
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "endpoints": list(self.endpoints),
            "entities": {key: list(prefixes) for key, prefixes in self.entities.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`. Raises InvalidDefinition for data that is not a scope."""
        try:
            entities = {key: tuple(prefixes) for key, prefixes in data["entities"].items()}
            return cls(tuple(data["endpoints"]), entities)
        except (AttributeError, KeyError, TypeError) as error:
            raise InvalidDefinition(f"this is not a scope of an API key: {error!r}") from error
