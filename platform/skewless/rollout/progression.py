"""A canary that grows by steps, each held for a time, and is rolled back as soon as harm is proven. A state machine.

Canary and live are compared over one step only, in which the share is constant: over several, an outage late in the day
would weigh more on the canary, which had a larger share by then. Harm is looked for as often as one likes, see
`rollout/harm.py`; the error probability `alpha` is shared out over the steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import pairwise
from typing import Any, Self

from skewless.canonical_json import Digest
from skewless.errors import Conflict, InvalidDefinition
from skewless.rollout.fields import read_fields
from skewless.rollout.harm import Tolerances, harms
from skewless.rollout.role_counts import RoleCounts
from skewless.rollout.routes import Route
from skewless.timestamps import SECOND_US

STEPS_MAX = 20


@dataclass(frozen=True, slots=True)
class Step:
    """A share of the endpoint's traffic, above 0 and below 1, and for how long it is held at least."""

    share: float
    hold_s: float = 600.0

    def __post_init__(self) -> None:
        if not 0.0 < self.share < 1.0:
            raise InvalidDefinition(
                f"a step's share is {self.share!r}; allowed: above 0 and below 1",
                hint="leave a step of 1 out: all of the traffic is what the promotion after the last step gives",
            )
        if not 0.0 <= self.hold_s < float("inf"):
            raise InvalidDefinition(f"a step is held for {self.hold_s!r} s; allowed: 0 or more")


@dataclass(frozen=True, slots=True)
class ProgressionPlan:
    """By which steps a canary grows, and what ends it. After the last step it is promoted.

    A step ends when its time is over and the canary has answered `requests_min` requests and seen `outcomes_min`
    outcomes in it. A canary that is no worse than tolerated is rolled back with probability `alpha` at most, over all
    its steps. Raises InvalidDefinition for a plan that breaks a rule.
    """

    steps: tuple[Step, ...] = (Step(0.01), Step(0.05), Step(0.25), Step(0.5))
    requests_min: int = 500
    outcomes_min: int = 0
    alpha: float = 0.01
    tolerances: Tolerances = field(default_factory=Tolerances)

    def __post_init__(self) -> None:
        shares = [step.share for step in self.steps]
        if not 1 <= len(shares) <= STEPS_MAX or any(a >= b for a, b in pairwise(shares)):
            raise InvalidDefinition(f"the steps' shares are {shares}; allowed: 1 to {STEPS_MAX}, each above the last")
        if min(self.requests_min, self.outcomes_min) < 0:
            raise InvalidDefinition(
                f"`requests_min` is {self.requests_min} and `outcomes_min` {self.outcomes_min}; allowed: 0 or more"
            )
        if not 0.0 < self.alpha < 1.0:
            raise InvalidDefinition(f"`alpha` is {self.alpha!r}; allowed: between 0 and 1, such as 0.01")

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "steps": [{"share": step.share, "hold_s": step.hold_s} for step in self.steps],
            "requests_min": self.requests_min,
            "outcomes_min": self.outcomes_min,
            "alpha": self.alpha,
            "tolerances": self.tolerances.to_json(),
        }

    @classmethod
    def from_json(cls, data: object, path: str = "$") -> Self:
        """The inverse of `to_json`, where what is left out has its default. Raises InvalidDefinition."""
        kinds = {"steps": list, "requests_min": int, "outcomes_min": int, "alpha": float, "tolerances": dict}
        fields = read_fields(data, path, {}, kinds)
        if "steps" in fields:
            fields["steps"] = tuple(
                Step(**read_fields(step, f"{path}.steps[{index}]", {"share": float}, {"hold_s": float}))
                for index, step in enumerate(fields["steps"])
            )
        if "tolerances" in fields:
            fields["tolerances"] = Tolerances.from_json(fields["tolerances"], f"{path}.tolerances")
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a canary is on its plan: which step since when (µs), and what was counted in that step."""

    plan: ProgressionPlan
    live_bundle: Digest
    canary_bundle: Digest
    step: int
    since: int
    live: RoleCounts = field(default_factory=RoleCounts)
    canary: RoleCounts = field(default_factory=RoleCounts)

    @classmethod
    def started(cls, plan: ProgressionPlan, route: Route, now: int) -> Self:
        """At the first step. Raises Conflict where the route's canary does not have the first step's share."""
        first = plan.steps[0].share
        if route.canary is None or route.canary.share != first:
            share = "no canary" if route.canary is None else f"a canary with {route.canary.share:g}"
            raise Conflict(
                f"endpoint `{route.endpoint}` has {share}; the plan begins with a share of {first:g}",
                hint="start the canary with the share of the plan's first step",
            )
        return cls(plan, route.live, route.canary.bundle, 0, now)

    @property
    def share(self) -> float:
        """The canary's share of the traffic in this step."""
        return self.plan.steps[self.step].share

    def counted(self, *, canary: RoleCounts, live: RoleCounts) -> Self:
        """With more of what was answered in this step, by the canary and by live."""
        return replace(self, canary=self.canary + canary, live=self.live + live)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "plan": self.plan.to_json(),
            "live_bundle": self.live_bundle,
            "canary_bundle": self.canary_bundle,
            "step": self.step,
            "since": self.since,
            "live": self.live.to_json(),
            "canary": self.canary.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`. Raises InvalidDefinition."""
        texts = {"live_bundle": str, "canary_bundle": str}
        required = {"plan": dict, **texts, "step": int, "since": int, "live": dict, "canary": dict}
        fields = read_fields(data, "$", required)
        fields["plan"] = ProgressionPlan.from_json(fields["plan"], "$.plan")
        for role in ("live", "canary"):
            fields[role] = RoleCounts.from_json(fields[role], f"$.{role}")
        if not 0 <= fields["step"] < len(fields["plan"].steps):
            raise InvalidDefinition(f"$.step is {fields['step']}; the plan has {len(fields['plan'].steps)} steps")
        return cls(**fields)


class DecisionKind(StrEnum):
    """What is to be done with the canary now."""

    HOLD = "hold"
    ADVANCE = "advance"
    PROMOTE = "promote"
    ROLL_BACK = "roll_back"


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done, why, and the progress to keep once it is done.

    `share` is the canary's share after it: 1 when it is promoted, 0 when it is rolled back.
    """

    kind: DecisionKind
    share: float
    reasons: tuple[str, ...]
    progress: Progress

    def to_json(self) -> dict[str, Any]:
        """Plain data for an audit event; the counts are those on which it was decided."""
        return {"decision": self.kind.value, "share": self.share, "reasons": list(self.reasons)}


def decide(progress: Progress, route: Route, now: int) -> Decision:
    """What is to be done at `now` (µs). Holds where `route` was changed by somebody else since the step began."""
    step, plan = progress.plan.steps[progress.step], progress.plan
    changed = _changed_by_hand(progress, route)
    if changed:
        return Decision(DecisionKind.HOLD, route.canary.share if route.canary else 0.0, (changed,), progress)
    alpha = plan.alpha / len(plan.steps)
    proven = harms(progress.canary, progress.live, plan.tolerances, alpha=alpha)
    if proven:
        return Decision(DecisionKind.ROLL_BACK, 0.0, proven, progress)
    waiting = _waiting(progress, step, now)
    if waiting:
        return Decision(DecisionKind.HOLD, step.share, waiting, progress)
    passed = (f"step {progress.step + 1} of {len(plan.steps)} at {step.share:.4g} passed: {_seen(progress)}",)
    if progress.step + 1 == len(plan.steps):
        return Decision(DecisionKind.PROMOTE, 1.0, passed, progress)
    after = replace(progress, step=progress.step + 1, since=now, live=RoleCounts(), canary=RoleCounts())
    return Decision(DecisionKind.ADVANCE, after.share, passed, after)


def _changed_by_hand(progress: Progress, route: Route) -> str:
    """Why the progress is not of this route any more, empty where it is."""
    if route.canary is None or route.canary.bundle != progress.canary_bundle:
        return "the route no longer has this canary"
    if route.live != progress.live_bundle:
        return f"the live bundle was changed to {route.live[:12]}; start the canary's progression again"
    if route.canary.share != progress.share:
        return f"the canary's share was set to {route.canary.share:g}, the step's is {progress.share:g}"
    return ""


def _waiting(progress: Progress, step: Step, now: int) -> tuple[str, ...]:
    """What the step still waits for, a sentence each."""
    plan, held_s = progress.plan, (now - progress.since) / SECOND_US
    waiting = []
    if held_s < step.hold_s:
        waiting.append(f"held for {held_s:.0f} of {step.hold_s:.0f} s")
    if progress.canary.requests < plan.requests_min:
        waiting.append(f"the canary answered {progress.canary.requests} of {plan.requests_min} requests")
    if progress.canary.outcomes < plan.outcomes_min:
        waiting.append(f"the canary saw {progress.canary.outcomes} of {plan.outcomes_min} outcomes")
    return tuple(waiting)


def _seen(progress: Progress) -> str:
    canary, live = progress.canary, progress.live
    return (
        f"{canary.errors} errors in {canary.requests} requests, {live.errors} in {live.requests} on live; "
        f"{canary.good_outcomes} of {canary.outcomes} outcomes good, {live.good_outcomes} of {live.outcomes} on live"
    )
