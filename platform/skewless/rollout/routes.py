"""The routing table: for every endpoint which bundle answers which share of its traffic, and in what role.

A gateway keeps a copy of it (`to_json`) on its disk, so that it can start while the registry is away.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from skewless.canonical_json import Digest
from skewless.errors import InvalidDefinition, NotFound
from skewless.rollout.fields import read_fields, read_texts
from skewless.rollout.slots import SLOTS, Layout, first_layout, owned_slots, slot_counts
from skewless.serving.monitoring_policy import MonitoringPolicy

ENDPOINT_NAME_PATTERN = "[a-z]([a-z0-9-]{0,61}[a-z0-9])?"
"""1 to 63 of a-z, 0-9 and `-`, first a letter, not ending in `-`.

An endpoint's name stands in URLs, folder names, metric labels and host names; this is what all of them take. Names of
experiments and arms stand in logs and metric labels too, and keep to the same form.
"""
DIGEST_PATTERN = "[0-9a-f]{64}"
ARMS_MIN, ARMS_MAX = 2, 8
TEXT_MAX = 200
"""Characters of a success label and of a salt."""
_FORMAT = 2
_NULLABLE = frozenset({"previous", "canary", "shadow", "experiment", "half_life_s", "monitoring"})
_SUM_TOLERANCE = 1e-9


class Role(StrEnum):
    """In what role a bundle gave an answer: in logs, receipts and metrics."""

    LIVE = "live"
    CANARY = "canary"
    SHADOW = "shadow"
    ARM = "arm"


class ExperimentKind(StrEnum):
    """Who decides about the shares of an experiment's arms."""

    AB = "ab"
    """People: shares stay as they were given."""
    BANDIT = "bandit"
    """Outcomes: shares follow the probability of being the best arm, see `rollout/bandit.py`."""


@dataclass(frozen=True, slots=True)
class Canary:
    """A bundle that answers `share` (0 to 1) of the endpoint's traffic instead of the live one."""

    bundle: Digest
    share: float

    def __post_init__(self) -> None:
        _check_digest("canary", self.bundle)
        _check_share("the canary's share", self.share)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"bundle": self.bundle, "share": self.share}

    @classmethod
    def from_json(cls, data: object, path: str = "$") -> Self:
        """The inverse of `to_json`; `path` is where `data` lies. Raises InvalidDefinition."""
        return cls(**read_fields(data, path, {"bundle": str, "share": float}))


@dataclass(frozen=True, slots=True)
class Shadow:
    """A bundle that sees the same features as `share` (0 to 1) of the live answers, and answers nobody."""

    bundle: Digest
    share: float = 1.0

    def __post_init__(self) -> None:
        _check_digest("shadow", self.bundle)
        _check_share("the shadow's share", self.share)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"bundle": self.bundle, "share": self.share}

    @classmethod
    def from_json(cls, data: object, path: str = "$") -> Self:
        """The inverse of `to_json`; `path` is where `data` lies. Raises InvalidDefinition."""
        return cls(**read_fields(data, path, {"bundle": str}, {"share": float}))


@dataclass(frozen=True, slots=True)
class Arm:
    """One alternative of an experiment; `share` (0 to 1) is of the rows that take part. It may name the live bundle."""

    name: str
    bundle: Digest
    share: float

    def __post_init__(self) -> None:
        _check_name("an arm", self.name)
        _check_digest(f"arm `{self.name}`", self.bundle)
        _check_share(f"the share of arm `{self.name}`", self.share)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"name": self.name, "bundle": self.bundle, "share": self.share}

    @classmethod
    def from_json(cls, data: object, path: str = "$") -> Self:
        """The inverse of `to_json`; `path` is where `data` lies. Raises InvalidDefinition."""
        return cls(**read_fields(data, path, {"name": str, "bundle": str, "share": float}))


@dataclass(frozen=True, slots=True)
class Experiment:
    """Bundles compared by the outcomes of what they answered.

    `traffic` (0 to 1) is the share of the endpoint's traffic that takes part; the arms' shares are of that and sum
    to 1. An outcome equal to `success` counts as a success, which `maximise` says is wanted. A bandit gives each arm at
    least `exploration_min`. `salt`, empty for the experiment's name, decides which entities fall to which arm.
    An outcome counts half for a bandit after `half_life_s`, where that is given: for arms that change with time.
    `layout` is which arm owns which slots (see `rollout/slots.py`); empty it is made from the shares, and
    `changes.set_arm_shares` carries it on. Raises InvalidDefinition for what breaks one of these rules.
    """

    name: str
    kind: ExperimentKind
    arms: tuple[Arm, ...]
    traffic: float
    success: str
    maximise: bool = True
    exploration_min: float = 0.0
    salt: str = ""
    layout: Layout = ()
    half_life_s: float | None = None

    def __post_init__(self) -> None:
        _check_name("an experiment", self.name)
        where = f"experiment `{self.name}`"
        _check_share(f"{where}: the share of the traffic that takes part", self.traffic)
        _check_text(f"{where}: the success label", self.success, characters_min=1)
        _check_text(f"{where}: the salt", self.salt, characters_min=0)
        self._check_arms(where)
        self._check_exploration(where)
        if not self.layout:
            object.__setattr__(self, "layout", first_layout([arm.share for arm in self.arms]))
        self._check_layout(where)

    def _check_arms(self, where: str) -> None:
        names = [arm.name for arm in self.arms]
        if not ARMS_MIN <= len(names) <= ARMS_MAX:
            raise InvalidDefinition(f"{where} has {len(names)} arms; allowed: {ARMS_MIN} to {ARMS_MAX}")
        if len(set(names)) != len(names):
            raise InvalidDefinition(f"{where} names an arm twice: {', '.join(names)}; each name once")
        total = math.fsum(arm.share for arm in self.arms)
        if abs(total - 1.0) > _SUM_TOLERANCE:
            raise InvalidDefinition(
                f"{where}: the arms' shares sum to {total!r}; allowed: 1",
                hint="a share of an arm is of the traffic that takes part, and `traffic` says how much does",
            )

    def _check_exploration(self, where: str) -> None:
        least, arms = self.exploration_min, len(self.arms)
        if self.kind is ExperimentKind.AB:
            for name, value in (("exploration_min", least or None), ("half_life_s", self.half_life_s)):
                if value is not None:
                    raise InvalidDefinition(f"{where}: `{name}` is {value!r}; only a bandit has one")
            return
        if self.half_life_s is not None and not 0.0 < self.half_life_s < math.inf:
            raise InvalidDefinition(f"{where}: `half_life_s` is {self.half_life_s!r}; allowed: above 0, or none")
        if not 0.0 < least <= 1.0 / arms:
            raise InvalidDefinition(
                f"{where}: `exploration_min` is {least!r}; allowed for {arms} arms: above 0 and up to {1.0 / arms:.6g}",
                hint="0.05 keeps 5 % of the traffic on each arm, so that an arm can recover from bad luck",
            )
        for arm in self.arms:
            if arm.share < least - _SUM_TOLERANCE:
                raise InvalidDefinition(f"{where}: arm `{arm.name}` has {arm.share!r}; allowed: {least!r} or more")

    def _check_layout(self, where: str) -> None:
        runs_fit = all(0 <= arm < len(self.arms) and count > 0 for arm, count in self.layout)
        if not runs_fit or tuple(owned_slots(self.layout, len(self.arms))) != slot_counts(
            [arm.share for arm in self.arms]
        ):
            raise InvalidDefinition(
                f"{where}: the layout does not give each arm its share of the {SLOTS} slots",
                hint="leave `layout` out to have it made from the shares",
            )

    def arm(self, name: str) -> Arm:
        """The arm of that name. Raises NotFound, which lists the arms."""
        for each in self.arms:
            if each.name == name:
                return each
        raise NotFound("arm", name, known=tuple(each.name for each in self.arms))

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "name": self.name,
            "kind": self.kind.value,
            "arms": [arm.to_json() for arm in self.arms],
            "traffic": self.traffic,
            "success": self.success,
            "maximise": self.maximise,
            "exploration_min": self.exploration_min,
            "salt": self.salt,
            "layout": [list(run) for run in self.layout],
            "half_life_s": self.half_life_s,
        }

    @classmethod
    def from_json(cls, data: object, path: str = "$") -> Self:
        """The inverse of `to_json`; `path` is where `data` lies. Raises InvalidDefinition."""
        required = {"name": str, "kind": str, "arms": list, "traffic": float, "success": str}
        optional = {"maximise": bool, "exploration_min": float, "salt": str, "layout": list, "half_life_s": float}
        fields = read_fields(_without_nulls(data), path, required, optional)
        fields["kind"] = _kind(fields["kind"], f"{path}.kind")
        arms = enumerate(fields["arms"])
        fields["arms"] = tuple(Arm.from_json(arm, f"{path}.arms[{index}]") for index, arm in arms)
        fields["layout"] = _layout(fields.get("layout", ()), f"{path}.layout")
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class Route:
    """Where an endpoint's traffic goes.

    `live` answers what nothing else answers. `previous` is what a rollback makes live again; it stays loaded. Shares of
    the canary and of an experiment's traffic are shares of the endpoint's traffic, and never overlap. `sticky_by` names
    the join keys by which traffic is split; empty, all of a row's join keys do. `version` grows by one with every
    change, from 1. `monitoring` is what the monitor is asked for; gateways take from it which predictions are compared.
    Raises InvalidDefinition for a route that breaks one of these rules.
    """

    endpoint: str
    description: str
    live: Digest
    previous: Digest | None = None
    canary: Canary | None = None
    shadow: Shadow | None = None
    experiment: Experiment | None = None
    version: int = 1
    sticky_by: tuple[str, ...] = ()
    monitoring: MonitoringPolicy = field(default_factory=MonitoringPolicy)

    def __post_init__(self) -> None:
        check_endpoint_name(self.endpoint)
        where = f"endpoint `{self.endpoint}`"
        _check_digest(f"{where}: live", self.live)
        if self.previous is not None:
            _check_digest(f"{where}: previous", self.previous)
        for part, bundle in self._beside_live().items():
            if bundle == self.live:
                raise InvalidDefinition(f"{where}: the {part} bundle is the live one, {bundle}; it must be another")
        if self.canary is not None and self.experiment is not None:
            _check_share_sum(where, self.canary.share, self.experiment.traffic)
        _check_names(f"{where}: `sticky_by`", self.sticky_by)
        if self.version < 1:
            raise InvalidDefinition(f"{where}: version is {self.version}; versions count from 1")

    def bundles(self) -> frozenset[Digest]:
        """Every bundle that it names and so must be loaded; `previous` too, so that a rollback is instant."""
        arms = self.experiment.arms if self.experiment is not None else ()
        return frozenset([self.live, *self._beside_live().values(), *(arm.bundle for arm in arms)])

    def _beside_live(self) -> dict[str, Digest]:
        """The bundles that can never be the live one, by what they are."""
        named: dict[str, Digest] = {}
        if self.previous is not None:
            named["previous"] = self.previous
        if self.canary is not None:
            named["canary"] = self.canary.bundle
        if self.shadow is not None:
            named["shadow"] = self.shadow.bundle
        return named

    def to_json(self) -> dict[str, Any]:
        """Plain data for `canonical_json.encode`; `rollout/schema.py` says its form."""
        return {
            "endpoint": self.endpoint,
            "description": self.description,
            "live": self.live,
            "previous": self.previous,
            "canary": self.canary.to_json() if self.canary is not None else None,
            "shadow": self.shadow.to_json() if self.shadow is not None else None,
            "experiment": self.experiment.to_json() if self.experiment is not None else None,
            "version": self.version,
            "sticky_by": list(self.sticky_by),
            "monitoring": None if self.monitoring == MonitoringPolicy() else self.monitoring.to_json(),
        }

    @classmethod
    def from_json(cls, data: object) -> Self:
        """The inverse of `to_json`; what is null, or has a default, may be left out.

        Raises InvalidDefinition for data that is not a route, with the place in it.
        """
        optional = {
            "previous": str,
            "canary": dict,
            "shadow": dict,
            "experiment": dict,
            "version": int,
            "sticky_by": list,
            "monitoring": dict,
        }
        fields = read_fields(_without_nulls(data), "$", {"endpoint": str, "description": str, "live": str}, optional)
        for part, read in (("canary", Canary), ("shadow", Shadow), ("experiment", Experiment)):
            if part in fields:
                fields[part] = read.from_json(fields[part], f"$.{part}")
        if "monitoring" in fields:
            fields["monitoring"] = MonitoringPolicy.from_json(fields["monitoring"], "$.monitoring")
        fields["sticky_by"] = read_texts(fields.get("sticky_by", ()), "$.sticky_by")
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """Every endpoint's route, sorted by endpoint. Equal tables route alike, so `!=` says whether to act.

    Raises InvalidDefinition when an endpoint has two routes.

    >>> RoutingTable.from_json({"format": 2, "routes": []}) == RoutingTable()
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
        return frozenset().union(*(route.bundles() for route in self.routes))

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
        if not isinstance(routes, list):
            raise InvalidDefinition("this is not a routing table: `routes` must be a list of objects")
        return cls(tuple(Route.from_json(route) for route in routes))


def _without_nulls(data: object) -> object:
    """An object without those of its fields that may be null and are."""
    if not isinstance(data, Mapping):
        return data
    return {name: value for name, value in data.items() if value is not None or name not in _NULLABLE}


def _kind(text: str, path: str) -> ExperimentKind:
    if text not in tuple(ExperimentKind):
        raise InvalidDefinition(f"{path} is {text!r}; allowed: {', '.join(ExperimentKind)}")
    return ExperimentKind(text)


def _layout(runs: Sequence[object], path: str) -> Layout:
    layout: list[tuple[int, int]] = []
    for index, run in enumerate(runs):
        match run:
            case [int(arm), int(count)] if bool not in (type(arm), type(count)):
                layout.append((arm, count))
            case _:
                raise InvalidDefinition(f"{path}[{index}] is {run!r}; allowed: [index of an arm, slots]")
    return tuple(layout)


def check_endpoint_name(name: object) -> None:
    """Return for a name that an endpoint may have. Raises InvalidDefinition with the rule."""
    _check_name("an endpoint", name)


def _check_name(what: str, name: object) -> None:
    if not (isinstance(name, str) and re.fullmatch(ENDPOINT_NAME_PATTERN, name)):
        raise InvalidDefinition(
            f"{name!r} cannot name {what}. Allowed: 1 to 63 of a-z, 0-9 and `-`, first a letter, not ending in `-`",
            hint="choose a name such as `flight-delay`",
        )


def _check_digest(where: str, bundle: object) -> None:
    if not (isinstance(bundle, str) and re.fullmatch(DIGEST_PATTERN, bundle)):
        raise InvalidDefinition(
            f"{where} is the bundle {bundle!r}; a bundle is named by its digest, 64 lower-case hexadecimal digits"
        )


def _check_share(what: str, share: float) -> None:
    if not 0.0 <= share <= 1.0:  # NaN fails too
        raise InvalidDefinition(f"{what} is {share!r}; allowed: 0 to 1")


def _check_share_sum(where: str, canary: float, traffic: float) -> None:
    if canary + traffic > 1.0 + _SUM_TOLERANCE:
        raise InvalidDefinition(
            f"{where}: the canary's share {canary!r} and the experiment's traffic {traffic!r} are more than all of it",
            hint="both are shares of the endpoint's traffic; make one of them smaller, or end it",
        )


def _check_text(what: str, text: str, *, characters_min: int) -> None:
    if not characters_min <= len(text) <= TEXT_MAX:
        raise InvalidDefinition(f"{what} has {len(text)} characters; allowed: {characters_min} to {TEXT_MAX}")


def _check_names(what: str, names: tuple[str, ...]) -> None:
    if len(set(names)) != len(names) or not all(names):
        raise InvalidDefinition(f"{what} is {list(names)!r}; allowed: names of join keys, each once")
