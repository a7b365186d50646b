"""The routing table: for every endpoint the bundle that is live, and its canary and shadow where it has them.

A gateway keeps a copy of it (`to_json`) on its disk, so that it can start while the registry is away.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from skewless.canonical_json import Digest
from skewless.errors import InvalidDefinition, NotFound

ENDPOINT_NAME_PATTERN = "[a-z]([a-z0-9-]{0,61}[a-z0-9])?"
"""1 to 63 of a-z, 0-9 and `-`, first a letter, not ending in `-`.

An endpoint's name stands in URLs, folder names, metric labels and host names; this is what all of them take.
"""
DIGEST_PATTERN = "[0-9a-f]{64}"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Route:
    """Where an endpoint's traffic goes.

    `live` answers. `canary`, where there is one, answers `canary_share` (0 to 1) of the traffic instead.
    `shadow` sees the same features and answers nobody. `version` grows by one with every change, from 1.
    Raises InvalidDefinition for a route that breaks one of these rules.
    """

    endpoint: str
    description: str
    live: Digest
    canary: Digest | None = None
    canary_share: float = 0.0
    shadow: Digest | None = None
    version: int = 1

    def __post_init__(self) -> None:
        check_endpoint_name(self.endpoint)
        _check_digest(self.endpoint, "live", self.live)
        for role, bundle in (("canary", self.canary), ("shadow", self.shadow)):
            if bundle is not None:
                _check_digest(self.endpoint, role, bundle)
        if not (math.isfinite(self.canary_share) and 0.0 <= self.canary_share <= 1.0):
            raise InvalidDefinition(
                f"endpoint `{self.endpoint}`: the canary's share is {self.canary_share!r}; allowed: 0 to 1"
            )
        if self.canary is None and self.canary_share > 0.0:
            raise InvalidDefinition(
                f"endpoint `{self.endpoint}`: a share of {self.canary_share} is for a canary, and there is none"
            )
        if self.version < 1:
            raise InvalidDefinition(f"endpoint `{self.endpoint}`: version is {self.version}; versions count from 1")

    def to_json(self) -> dict[str, Any]:
        """Plain data for `canonical_json.encode`."""
        return {
            "endpoint": self.endpoint,
            "description": self.description,
            "live": self.live,
            "canary": self.canary,
            "canary_share": self.canary_share,
            "shadow": self.shadow,
            "version": self.version,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`. Raises InvalidDefinition for data that is not a route."""
        try:
            return cls(
                endpoint=data["endpoint"],
                description=data["description"],
                live=data["live"],
                canary=data["canary"],
                canary_share=float(data["canary_share"]),
                shadow=data["shadow"],
                version=int(data["version"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidDefinition(f"this is not a route: {error!r}") from error


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """Every endpoint's route, sorted by endpoint. Equal tables route alike, so `!=` says whether to act.

    Raises InvalidDefinition when an endpoint has two routes.

    >>> RoutingTable.from_json({"format": 1, "routes": []}) == RoutingTable()
    True
    """

    routes: tuple[Route, ...] = ()
    _by_endpoint: dict[str, Route] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.routes, key=lambda route: route.endpoint))
        by_endpoint = {route.endpoint: route for route in ordered}
        if len(by_endpoint) != len(ordered):
            names = [route.endpoint for route in ordered]
            twice = sorted({name for name in names if names.count(name) > 1})
            raise InvalidDefinition(f"endpoints with more than one route: {', '.join(twice)}; each has one")
        object.__setattr__(self, "routes", ordered)
        object.__setattr__(self, "_by_endpoint", by_endpoint)

    def route(self, endpoint: str) -> Route:
        """The route of an endpoint. Raises NotFound, which lists the endpoints that exist."""
        route = self._by_endpoint.get(endpoint)
        if route is None:
            raise NotFound("endpoint", endpoint, known=tuple(self._by_endpoint))
        return route

    def bundles(self) -> frozenset[Digest]:
        """Every bundle that some route names, and so must be loaded."""
        named = ((route.live, route.canary, route.shadow) for route in self.routes)
        return frozenset(bundle for bundles in named for bundle in bundles if bundle is not None)

    def to_json(self) -> dict[str, Any]:
        """Plain data for `canonical_json.encode`."""
        return {"format": _FORMAT, "routes": [route.to_json() for route in self.routes]}

    @classmethod
    def from_json(cls, data: object) -> Self:
        """The inverse of `to_json`. Raises InvalidDefinition for data that is not a routing table."""
        if not isinstance(data, Mapping) or data.get("format") != _FORMAT:
            seen = data.get("format") if isinstance(data, Mapping) else type(data).__name__
            raise InvalidDefinition(f"this is not a routing table of format {_FORMAT}: got {seen!r}")
        routes = data.get("routes")
        if not isinstance(routes, list) or not all(isinstance(route, Mapping) for route in routes):
            raise InvalidDefinition("this is not a routing table: `routes` must be a list of objects")
        return cls(tuple(Route.from_json(route) for route in routes))


def check_endpoint_name(name: object) -> None:
    """Return for a name that an endpoint may have. Raises InvalidDefinition with the rule."""
    if not (isinstance(name, str) and re.fullmatch(ENDPOINT_NAME_PATTERN, name)):
        raise InvalidDefinition(
            f"{name!r} cannot name an endpoint. Allowed: 1 to 63 of a-z, 0-9 and `-`, first a letter, "
            "not ending in `-`",
            hint="choose a name such as `flight-delay`",
        )


def _check_digest(endpoint: str, role: str, bundle: object) -> None:
    if not (isinstance(bundle, str) and re.fullmatch(DIGEST_PATTERN, bundle)):
        raise InvalidDefinition(
            f"endpoint `{endpoint}`: the {role} bundle is {bundle!r}; a bundle is named by its digest, "
            "64 lower-case hexadecimal digits"
        )
