"""What an API key may ask for and bring, and how often. Pure."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from skewless.errors import InvalidDefinition
from skewless.rollout.routes import check_endpoint_name

ANY_ENDPOINT = "*"
ANY = "*"
"""Every feature view, or every stream."""
PREFIXES_MAX = 100
"""Prefixes of one join key: each request is compared with them."""
RATE_PER_S_MIN, RATE_PER_S_MAX = 0.001, 1_000_000.0
RATE_BURST_MAX = 1_000_000
_BROUGHT = re.compile(r"[\w.@-]{1,200}")
"""Names of feature views and streams."""


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
    """Endpoints that may be asked, feature views and streams that rows may be brought for, and which entities of them.

    `endpoints`, `features` and `events` are names, or `*` alone for every one; what is not named is not allowed.
    `created_time` allows rows to say themselves when they became known. `entities` gives for a join key the prefixes
    that its values may begin with; a join key that is not named may have any value. Raises InvalidDefinition for a
    scope that could never allow anything.

    >>> scope = ApiScope(("flight-delay",), {"tailnum": ("N1", "N2")})
    >>> scope.allows("flight-delay", {"tailnum": "N14228", "origin": "JFK"})
    True
    >>> scope.allows("flight-delay", {"tailnum": "N7"}), scope.allows("other", {"tailnum": "N1"})
    (False, False)
    """

    endpoints: tuple[str, ...]
    entities: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    created_time: bool = False

    def __post_init__(self) -> None:
        if not (self.endpoints or self.features or self.events):
            raise InvalidDefinition(
                "a scope names no endpoint, feature view or stream", hint=f"name some, or `{ANY_ENDPOINT}` for all"
            )
        if self.endpoints != (ANY_ENDPOINT,):
            for name in self.endpoints:
                check_endpoint_name(name)
        _check_brought("feature view", self.features)
        _check_brought("stream", self.events)
        if self.created_time and not self.features:
            raise InvalidDefinition(
                "a scope allows created times without a feature view to bring rows for", hint="name feature views"
            )
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

    def takes_features(self, view: str) -> bool:
        """Whether rows of the feature view may be brought."""
        return self.features == (ANY,) or view in self.features

    def takes_events(self, stream: str) -> bool:
        """Whether events of the stream may be brought."""
        return self.events == (ANY,) or stream in self.events

    def allows(self, endpoint: str, entity: Mapping[str, object]) -> bool:
        """Whether the endpoint may be asked about an entity, given as the values of its join keys.

        A value that is absent or null begins with no prefix. Numbers are compared as they are written in decimal.
        """
        return self.covers(endpoint) and all(
            str(value).startswith(prefixes) if (value := entity.get(key)) is not None else False
            for key, prefixes in self.entities.items()
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data; what only bringers of rows have is left out where it is not there."""
        told: dict[str, Any] = {
            "endpoints": list(self.endpoints),
            "entities": {key: list(prefixes) for key, prefixes in self.entities.items()},
        }
        told |= {name: list(names) for name in ("features", "events") if (names := getattr(self, name))}
        return {**told, "created_time": True} if self.created_time else told

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`. Raises InvalidDefinition for data that is not a scope."""
        try:
            entities = {key: tuple(prefixes) for key, prefixes in data["entities"].items()}
            brought = {name: tuple(data.get(name, ())) for name in ("features", "events")}
            return cls(tuple(data["endpoints"]), entities, **brought, created_time=data.get("created_time") is True)
        except (AttributeError, KeyError, TypeError) as error:
            raise InvalidDefinition(f"this is not a scope of an API key: {error!r}") from error


def may_be_brought(name: str) -> bool:
    """Whether a scope can name it as a feature view or stream, or `*` for all.

    >>> may_be_brought("clicks@v2"), may_be_brought("*"), may_be_brought("read:all")
    (True, True, False)
    """
    return name == ANY or _BROUGHT.fullmatch(name) is not None


def _check_brought(what: str, names: tuple[str, ...]) -> None:
    if names == (ANY,):
        return
    for name in names:
        if not _BROUGHT.fullmatch(name):  # a TypeError for what is no text is the reader's to translate
            raise InvalidDefinition(
                f"{name!r} cannot name a {what}; allowed: `{ANY}` alone for all, or 1 to 200 of A-Z a-z 0-9 _ . @ -",
                hint="give the name as `skewless features list` shows it",
            )
