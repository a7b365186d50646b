"""Every change of a route, as a pure function from the route before to the route after, one version later.

A role ends when it has lost its meaning, and only then: a canary, shadow or experiment whose bundle becomes live, and
an experiment that would go on answering with a bundle that was rolled back. All else goes on, since what is compared
is compared under the digests of both bundles. A change that would change nothing returns the route itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum

from skewless.canonical_json import Digest
from skewless.errors import Conflict, InvalidDefinition
from skewless.rollout.history import LiveChange, rollback_target, target_after_rollback
from skewless.rollout.routes import Canary, Experiment, Route, Shadow
from skewless.rollout.slots import moved_layout
from skewless.serving.monitoring_policy import MonitoringPolicy


class Part(StrEnum):
    """What of a route can be aborted."""

    CANARY = "canary"
    SHADOW = "shadow"
    EXPERIMENT = "experiment"


def promote(route: Route, bundle: Digest | None = None, *, arm: str | None = None) -> Route:
    """`bundle` live, or the experiment's `arm`, or with neither the canary; what was live is kept as `previous`.

    Promoting an arm, also one with the live bundle, ends the experiment. Raises Conflict where there is no canary or
    experiment to promote from, NotFound for an unknown arm, InvalidDefinition where both are given.
    """
    if bundle is not None and arm is not None:
        raise InvalidDefinition(
            f"endpoint `{route.endpoint}`: promote a bundle or an arm, not both ({bundle[:12]}, `{arm}`)"
        )
    experiment = route.experiment
    if arm is not None:
        bundle = _running_experiment(route).arm(arm).bundle
        experiment = None
    elif bundle is None:
        bundle = _running_canary(route, hint=_promote_hint(route)).bundle
    if bundle == route.live:
        return route if experiment is route.experiment else _next(replace(route, experiment=None))
    if experiment is not None and bundle in {each.bundle for each in experiment.arms}:
        experiment = None
    return _with_live(replace(route, experiment=experiment), bundle, previous=route.live)


def set_monitoring(route: Route, policy: MonitoringPolicy) -> Route:
    """What the monitor is asked for, from now on."""
    return route if policy == route.monitoring else _next(replace(route, monitoring=policy))


def rollback(route: Route, history: Sequence[LiveChange]) -> Route:
    """What was live before is live again, by the endpoint's `history` of live bundles, oldest first.

    An experiment ends where one of its arms is the bundle that is left. Raises Conflict where there is nothing to go
    back to, or `history` is not of this route.
    """
    target = rollback_target(history)
    if target is None:
        raise Conflict(
            f"endpoint `{route.endpoint}` has no earlier live bundle to roll back to",
            hint=f"`skewless rollout promote {route.endpoint} --bundle …` makes any registered bundle live",
        )
    if history[-1].bundle != route.live:
        raise Conflict(
            f"endpoint `{route.endpoint}`: its history ends with {history[-1].bundle[:12]}, live is {route.live[:12]}",
            hint="read the route and its history in one transaction, then try again",
        )
    left, experiment = route.live, route.experiment
    if experiment is not None and left in {arm.bundle for arm in experiment.arms}:
        experiment = None
    return _with_live(replace(route, experiment=experiment), target, previous=target_after_rollback(history))


def start_canary(route: Route, bundle: Digest, share: float) -> Route:
    """`bundle` answering `share` of the traffic. Raises Conflict where another canary runs, InvalidDefinition for a
    share that does not fit or a bundle that is live."""
    if route.canary is not None:
        raise Conflict(
            f"endpoint `{route.endpoint}` has a canary, {route.canary.bundle[:12]} with {route.canary.share:.4g}",
            hint="set its share, promote it, or abort it before starting another",
        )
    return _next(replace(route, canary=Canary(bundle, share)))


def set_canary_share(route: Route, share: float) -> Route:
    """The canary answering `share`; the entities it answers for already stay with it when it grows.

    Raises Conflict where there is no canary, InvalidDefinition for a share that does not fit.
    """
    canary = _running_canary(route, hint="start one first")
    return route if canary.share == share else _next(replace(route, canary=replace(canary, share=share)))


def start_shadow(route: Route, bundle: Digest, share: float = 1.0) -> Route:
    """`bundle` seeing `share` of what live answers. Raises Conflict where another shadow runs."""
    if route.shadow is not None:
        raise Conflict(
            f"endpoint `{route.endpoint}` has a shadow, {route.shadow.bundle[:12]}",
            hint="abort it before starting another",
        )
    return _next(replace(route, shadow=Shadow(bundle, share)))


def start_experiment(route: Route, experiment: Experiment) -> Route:
    """The experiment running. Raises Conflict where one runs, InvalidDefinition where its traffic does not fit."""
    if route.experiment is not None:
        raise Conflict(
            f"endpoint `{route.endpoint}` runs the experiment `{route.experiment.name}`",
            hint="promote one of its arms, or abort it, before starting another",
        )
    return _next(replace(route, experiment=experiment))


def set_arm_shares(route: Route, shares: Mapping[str, float]) -> Route:
    """The experiment with these shares, one for every arm, of which only the difference changes its arm.

    Raises Conflict where no experiment runs, InvalidDefinition where the shares do not name each arm once, or do not
    sum to 1.
    """
    experiment = _running_experiment(route)
    names = [arm.name for arm in experiment.arms]
    if set(names) != set(shares):
        raise InvalidDefinition(
            f"experiment `{experiment.name}`: shares are given for {', '.join(sorted(shares)) or 'no arm'}; "
            f"its arms are {', '.join(names)}, and each needs one"
        )
    arms = tuple(replace(arm, share=shares[arm.name]) for arm in experiment.arms)
    if arms == experiment.arms:
        return route
    checked = replace(experiment, arms=arms, layout=())  # refuses shares that are none, before they are laid out
    layout = moved_layout(experiment.layout, [arm.share for arm in arms])
    return _next(replace(route, experiment=replace(checked, layout=layout)))


def abort(route: Route, part: Part) -> Route:
    """The route without its canary, shadow or experiment; live answers for it. Raises Conflict where there is none."""
    running: dict[Part, object] = {
        Part.CANARY: route.canary,
        Part.SHADOW: route.shadow,
        Part.EXPERIMENT: route.experiment,
    }
    if running[part] is None:
        others = [each.value for each, runs in running.items() if runs is not None]
        raise Conflict(
            f"endpoint `{route.endpoint}` has no {part} to abort",
            hint=f"it has: {', '.join(others)}" if others else "only its live bundle answers",
        )
    match part:
        case Part.CANARY:
            return _next(replace(route, canary=None))
        case Part.SHADOW:
            return _next(replace(route, shadow=None))
        case Part.EXPERIMENT:
            return _next(replace(route, experiment=None))


def _with_live(route: Route, bundle: Digest, *, previous: Digest | None) -> Route:
    """`bundle` live, without a canary or shadow that it was."""
    canary = None if route.canary is not None and route.canary.bundle == bundle else route.canary
    shadow = None if route.shadow is not None and route.shadow.bundle == bundle else route.shadow
    return _next(replace(route, live=bundle, previous=previous, canary=canary, shadow=shadow))


def _next(route: Route) -> Route:
    return replace(route, version=route.version + 1)


def _running_canary(route: Route, *, hint: str) -> Canary:
    if route.canary is None:
        raise Conflict(f"endpoint `{route.endpoint}` has no canary", hint=hint)
    return route.canary


def _running_experiment(route: Route) -> Experiment:
    if route.experiment is None:
        raise Conflict(f"endpoint `{route.endpoint}` runs no experiment", hint="start one first")
    return route.experiment


def _promote_hint(route: Route) -> str:
    if route.experiment is None:
        return "name the bundle to promote"
    return f"name a bundle, or an arm of its experiment: {', '.join(arm.name for arm in route.experiment.arms)}"
