"""What an endpoint's rollout has shown so far, and the changes that follow from it without anybody asking.

    canary by steps   the counts of the step since it began → `rollout/progression.py` decides → the route, audited
    experiment        outcomes of new segments of the log → counts in the registry, each segment once
    bandit            counts → `rollout/bandit.py` → arms' shares, audited

Everything is worked out anew from the log and the registry at each look, so that looking twice, or from two places at
once, does no harm: of two changes of one version the database lets one win.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from skewless.canonical_json import Digest
from skewless.errors import Conflict
from skewless.registry.records import EndpointRecord
from skewless.registry.repository import Registry, system_clock
from skewless.registry.rollout_needs import needing_adjustment
from skewless.rollout import changes
from skewless.rollout.bandit import MOVE_MIN, faded, moved_share, thompson_shares
from skewless.rollout.counts import ArmCounts
from skewless.rollout.experiments import ExperimentReading, Tally, read_experiment
from skewless.rollout.history import RouteAction
from skewless.rollout.progression import Decision, DecisionKind, Progress, decide
from skewless.rollout.role_counts import RoleCounts
from skewless.rollout.routes import Experiment, ExperimentKind, Role, Route
from skewless.rollout.shadow_comparison import ShadowComparison, ShadowReading
from skewless.serving.role_tally import RoleTally
from skewless.serving.scored_outcome import ScoredOutcome, arm_counts, outcome_counts
from skewless.timestamps import Micros


class Evidence(Protocol):
    """What was logged; `adapters.rollout_evidence.LogEvidence` is one. Times in µs."""

    def tallies(self, endpoint: str, start: Micros, end: Micros) -> Sequence[RoleTally]:
        """An endpoint's tallies that begin from `start` on and end up to `end`, in order."""
        ...

    def outcomes(self, endpoint: str, start: Micros, end: Micros) -> Sequence[ScoredOutcome]:
        """Outcomes received from `start` to before `end`; of two for one prediction the later."""
        ...

    def outcome_segments(
        self, endpoint: str, *, since: Micros, known: frozenset[str]
    ) -> Iterator[tuple[str, Sequence[ScoredOutcome]]]:
        """Each sealed segment of outcomes since then that is not known, and those of its outcomes that no earlier or
        known one has an outcome for."""
        ...


@dataclass(frozen=True, slots=True)
class Adjustment:
    """What a look at an endpoint has led to. `changed` is whether its route is another one now."""

    endpoint: str
    subject: str
    changed: bool
    words: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "endpoint": self.endpoint,
            "subject": self.subject,
            "changed": self.changed,
            "words": list(self.words),
        }


@dataclass(frozen=True, slots=True)
class Standing:
    """An endpoint's route and how what runs beside its live bundle is doing; None for what does not run.

    `progress` is of a canary that goes by steps, with what its step has counted, and `decision` what follows from it.
    `canary` and `live` are counts since the canary began, where it does not go by steps.
    """

    record: EndpointRecord
    canary: RoleCounts | None = None
    live: RoleCounts | None = None
    decision: Decision | None = None
    shadow: ShadowReading | None = None
    shadow_dropped_rows: int = 0
    experiment: ExperimentReading | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        decided = self.decision
        return {
            **self.record.to_json(),
            "canary_counts": None if self.canary is None else self.canary.to_json(),
            "live_counts": None if self.live is None else self.live.to_json(),
            "canary_progress": None if decided is None else {**decided.progress.to_json(), **decided.to_json()},
            "shadow_comparison": None if self.shadow is None else self.shadow.to_json(),
            "shadow_dropped_rows": self.shadow_dropped_rows,
            "experiment_reading": None if self.experiment is None else self.experiment.to_json(),
        }


class RolloutControl:
    """Looks at rollouts, and adjusts them. Every method raises what `Registry` does."""

    def __init__(self, registry: Registry, evidence: Evidence, *, now: Callable[[], Micros] = system_clock) -> None:
        self._registry = registry
        self._evidence = evidence
        self._now = now

    def needed(self) -> tuple[str, ...]:
        """Endpoints that something is to be adjusted of: a canary by steps, or an experiment."""
        return needing_adjustment(self._registry)

    def adjust(self, endpoint: str, *, actor: str) -> tuple[Adjustment, ...]:
        """Look once, and change what follows; a change that someone else was faster than is left for the next look."""
        done: list[Adjustment] = []
        for look in (self._adjust_canary, self._adjust_experiment):
            try:
                done += look(endpoint, actor)
            except Conflict as conflict:
                done.append(Adjustment(endpoint, "route", False, (conflict.message,)))
        return tuple(done)

    def count_outcomes(self, endpoint: str) -> dict[str, ArmCounts]:
        """Bring the counts of the endpoint's experiment up to the log and return them; empty where none runs."""
        experiment = self._registry.endpoint(endpoint).route.experiment
        if experiment is None:
            return {}
        known = self._registry.counted_segments(endpoint, experiment.name)
        since = self._started(endpoint, lambda route: route.experiment)
        for segment, outcomes in self._evidence.outcome_segments(endpoint, since=since, known=known):
            self._registry.add_counts(endpoint, experiment.name, segment, arm_counts(experiment, outcomes))
        return self._registry.experiment_counts(endpoint, experiment.name)

    def standing(self, endpoint: str) -> Standing:
        """How an endpoint's rollout is doing; the counts of its experiment are those that were last counted."""
        record = self._registry.endpoint(endpoint)
        standing = Standing(record)
        route = record.route
        if route.canary is not None:
            standing = self._with_canary(standing, route)
        if route.shadow is not None:
            standing = self._with_shadow(standing, route)
        if route.experiment is not None:
            counts = self._registry.experiment_counts(endpoint, route.experiment.name)
            standing = replace(standing, experiment=read_experiment(route.experiment, counts))
        return standing

    def _with_canary(self, standing: Standing, route: Route) -> Standing:
        assert route.canary is not None, "asked for a route with one"
        progress = self._progress(route)
        if progress is not None:
            return replace(
                standing, canary=progress.canary, live=progress.live, decision=decide(progress, route, self._now())
            )
        since = self._started(route.endpoint, lambda each: None if each.canary is None else each.canary.bundle)
        live, canary = self._counts(route.endpoint, (route.live, route.canary.bundle), since)
        return replace(standing, canary=canary, live=live)

    def _with_shadow(self, standing: Standing, route: Route) -> Standing:
        shadow = route.shadow
        assert shadow is not None, "asked for a route with one"
        since = self._started(route.endpoint, lambda each: None if each.shadow is None else each.shadow.bundle)
        tallies = [
            each
            for each in self._evidence.tallies(route.endpoint, since, self._now())
            if each.role is Role.SHADOW and each.bundle == shadow.bundle
        ]
        compared = ShadowComparison()
        for each in tallies:
            if each.comparison is not None and each.live == route.live:
                compared = compared.merged(each.comparison)
        dropped = sum(each.dropped_rows for each in tallies)
        return replace(standing, shadow=compared.reading(), shadow_dropped_rows=dropped)

    def _adjust_canary(self, endpoint: str, actor: str) -> Iterator[Adjustment]:
        route = self._registry.endpoint(endpoint).route
        progress = self._progress(route)
        if progress is None:
            return
        decision = decide(progress, route, self._now())
        reason = "; ".join(decision.reasons)
        if decision.kind is DecisionKind.HOLD:
            self._registry.set_progress(endpoint, progress.to_json(), expected_version=route.version)
        else:
            action, change = _change_of(decision)
            self._registry.change_route(
                endpoint,
                change,
                action=action,
                actor=actor,
                reason=reason,
                detail={"by": "progression", **decision.to_json()},
                expected_version=route.version,
                progress=decision.progress.to_json() if decision.kind is DecisionKind.ADVANCE else None,
            )
        yield Adjustment(
            endpoint, "canary", decision.kind is not DecisionKind.HOLD, (decision.kind.value, *decision.reasons)
        )

    def _adjust_experiment(self, endpoint: str, actor: str) -> Iterator[Adjustment]:
        counts = self.count_outcomes(endpoint)
        route = self._registry.endpoint(endpoint).route
        experiment = route.experiment
        if experiment is None:
            return
        reading = read_experiment(experiment, counts)
        if experiment.kind is not ExperimentKind.BANDIT:
            yield Adjustment(endpoint, f"experiment {experiment.name}", False, (reading.words,))
            return
        shares = thompson_shares(self._weighed(endpoint, experiment, counts), experiment)
        moved = moved_share({arm.name: arm.share for arm in experiment.arms}, shares)
        words = f"shares {_listed(shares)}"
        if moved >= MOVE_MIN:
            self._registry.change_route(
                endpoint,
                lambda before: changes.set_arm_shares(before, shares),
                action=RouteAction.SET_ARM_SHARES,
                actor=actor,
                reason=f"outcomes so far: {reading.words}",
                detail={"by": "bandit", "counts": {arm: each.to_json() for arm, each in counts.items()}},
                expected_version=route.version,
            )
        yield Adjustment(endpoint, f"experiment {experiment.name}", moved >= MOVE_MIN, (words, reading.words))

    def _weighed(self, endpoint: str, experiment: Experiment, counts: Mapping[str, ArmCounts]) -> Mapping[str, Tally]:
        """The counts that a bandit goes by: where it has a half-life, old outcomes count for less."""
        if experiment.half_life_s is None:
            return counts
        segments = self._registry.experiment_segments(endpoint, experiment.name)
        return faded(segments, now=self._now(), half_life_s=experiment.half_life_s)

    def _progress(self, route: Route) -> Progress | None:
        """How far a canary by steps has come, with the counts of its step as the log has them now."""
        state = self._registry.progress(route.endpoint)
        if state is None:
            return None
        progress = Progress.from_json(state)
        since = Micros(progress.since)
        live, canary = self._counts(route.endpoint, (progress.live_bundle, progress.canary_bundle), since)
        return replace(progress, live=live, canary=canary)

    def _counts(self, endpoint: str, bundles: tuple[Digest, Digest], since: Micros) -> tuple[RoleCounts, RoleCounts]:
        """What live and canary did since then, by their bundles."""
        until = self._now()
        tallies = self._evidence.tallies(endpoint, since, until)
        outcomes = self._evidence.outcomes(endpoint, since, until)
        live, canary = (
            sum(
                (each.counts for each in tallies if (each.role, each.bundle) == (role, bundle)),
                outcome_counts(outcomes, role=role, bundle=bundle, since=since),
            )
            for role, bundle in zip((Role.LIVE, Role.CANARY), bundles, strict=True)
        )
        return live, canary

    def _started(self, endpoint: str, part: Callable[[Route], object]) -> Micros:
        """Since when a part of the route runs, by the audit trail: when the route last changed from having none, or
        another, to this one."""
        started = Micros(0)
        for event in self._registry.audit(endpoint):
            before, after = _part_of(event.detail.get("before"), part), _part_of(event.detail.get("after"), part)
            if after is not None and _identity(after) != _identity(before):
                started = event.time
        return started


def _part_of(document: object, part: Callable[[Route], object]) -> object:
    return part(Route.from_json(document)) if isinstance(document, Mapping) else None


def _identity(part: object) -> object:
    """What makes a part the same one although its shares move."""
    return part.name if isinstance(part, Experiment) else part


def _change_of(decision: Decision) -> tuple[RouteAction, Callable[[Route], Route]]:
    if decision.kind is DecisionKind.ADVANCE:
        return RouteAction.SET_CANARY_SHARE, lambda route: changes.set_canary_share(route, decision.share)
    if decision.kind is DecisionKind.PROMOTE:
        return RouteAction.PROMOTE, changes.promote
    return RouteAction.ABORT, lambda route: changes.abort(route, changes.Part.CANARY)


def _listed(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{arm} {share:.3f}" for arm, share in shares.items())
