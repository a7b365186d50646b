"""One endpoint's route with its bundles made ready: which of them answers which row of a request, and in which role."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from skewless.canonical_json import Digest
from skewless.dtypes import Column
from skewless.errors import InvalidDefinition
from skewless.rollout.assignment import Assigned, Splitter
from skewless.rollout.routes import Role, Route
from skewless.serving.frame_rows import Rows, columns_at
from skewless.serving.served_bundle import ServedBundle


@dataclass(frozen=True, slots=True)
class Share:
    """Rows of one request that one bundle answers in one role."""

    served: ServedBundle
    role: Role
    rows: Rows | None = None
    """None: all of the request's."""
    experiment: str = ""
    arm: str = ""
    """Both empty where the role is no arm."""

    def columns(self, given: Mapping[str, Column]) -> Mapping[str, Column]:
        """What callers gave, as far as this bundle asks for it and for these rows."""
        if self.rows is None:
            names = self.served.field_names
            return given if len(given) == len(names) else {name: given[name] for name in names}
        return columns_at(given, self.served.field_names, self.rows)


@dataclass(frozen=True, slots=True)
class ServedRoute:
    """A route and its bundles in service. Immutable: a request sees one from its start to its end.

    `candidates` holds the bundles of the canary and of the arms, but for an arm with the live bundle; rows of one that
    is not in it are answered by `live`.
    `shadow` is None where the route has none, or it is not in service.
    """

    route: Route
    live: ServedBundle
    candidates: Mapping[Digest, ServedBundle] = field(default_factory=dict)
    shadow: ServedBundle | None = None
    is_split: bool = field(init=False)
    """Whether several bundles answer; where not, nothing is hashed."""
    whole: Share = field(init=False, repr=False, compare=False)
    """All rows of a request, answered by live."""
    _splitter: Splitter = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_split", self.route.canary is not None or self.route.experiment is not None)
        object.__setattr__(self, "whole", Share(self.live, Role.LIVE))
        object.__setattr__(self, "_splitter", Splitter(self.route))
        if unknown := sorted(set(self.route.sticky_by) - set(self.live.key_names)):
            raise InvalidDefinition(
                f"endpoint `{self.endpoint}` is sticky by `{unknown[0]}`, which is no join key of its live bundle. "
                f"Join keys: {', '.join(self.live.key_names)}",
                hint="correct `sticky_by` in its route",
            )

    @property
    def endpoint(self) -> str:
        """The endpoint's name."""
        return self.route.endpoint

    @property
    def is_watched(self) -> bool:
        """Whether its roles are compared, so that each is counted."""
        return self.is_split or self.shadow is not None

    @property
    def bundles(self) -> Mapping[Digest, ServedBundle]:
        """Every bundle that scores, by digest."""
        shadow = {} if self.shadow is None else {self.shadow.digest: self.shadow}
        return {**shadow, **self.candidates, self.live.digest: self.live}

    def shares(self, given: Mapping[str, Column], rows: int) -> list[Share]:
        """Who answers which of `rows` rows, given as a Column (rows,) per join key; every row once."""
        if not self.is_split:
            return [self.whole]
        keys = {name: given[name] for name in self.live.key_names}
        groups = self._splitter.assign(keys, rows)
        if len(groups) == 1:
            return [self._share_of_all(groups[0])]
        found: list[Share] = []
        stay: list[Rows] = []
        for assigned in groups:
            served = self._scorer(assigned)
            if served is None:
                stay.append(assigned.rows)
            else:
                found.append(self._share(served, assigned, assigned.rows))
        if not found:
            return [self.whole]
        if not stay:
            return found
        return [Share(self.live, Role.LIVE, np.sort(np.concatenate(stay))), *found]

    def _share_of_all(self, assigned: Assigned) -> Share:
        served = self._scorer(assigned)
        return self.whole if served is None else self._share(served, assigned, None)

    def _share(self, served: ServedBundle, assigned: Assigned, rows: Rows | None) -> Share:
        if assigned.arm is None:
            return Share(served, assigned.role, rows)
        assert self.route.experiment is not None, "arms are of experiments"
        return Share(served, assigned.role, rows, self.route.experiment.name, assigned.arm)

    def _scorer(self, assigned: Assigned) -> ServedBundle | None:
        """The bundle that answers in its own role; None where live does, or has to."""
        if assigned.role is Role.LIVE:
            return None
        return self.live if assigned.bundle == self.live.digest else self.candidates.get(assigned.bundle)

    def mirrored(self, given: Mapping[str, Column], rows: int) -> Rows:
        """Rows that the shadow scores too, ascending."""
        keys = {name: given[name] for name in self.live.key_names}
        return np.flatnonzero(self._splitter.mirrored(keys, rows))
