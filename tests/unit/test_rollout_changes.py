"""Changes of a route: what each one does, what it ends, and what it refuses."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.routes import arm_shares, digests, experiments, routes
from skewless.canonical_json import Digest, digest
from skewless.errors import Conflict, InvalidDefinition, NotFound, SkewlessError
from skewless.rollout.changes import (
    Part,
    abort,
    promote,
    rollback,
    set_arm_shares,
    set_canary_share,
    start_canary,
    start_experiment,
    start_shadow,
)
from skewless.rollout.history import LiveChange, RouteAction
from skewless.rollout.routes import Arm, Canary, Experiment, ExperimentKind, Route, Shadow

A, B, C, D = (digest(name) for name in "abcd")
EXPERIMENT = Experiment("one", ExperimentKind.AB, (Arm("control", A, 0.5), Arm("other", B, 0.5)), 0.5, "yes")
PLAIN = Route("flights", "", A)
FULL = Route("flights", "", A, canary=Canary(C, 0.1), shadow=Shadow(D, 0.5), experiment=EXPERIMENT)


def history(*bundles: Digest) -> list[LiveChange]:
    return [
        LiveChange(RouteAction.PROMOTE if number else RouteAction.CREATE, bundle)
        for number, bundle in enumerate(bundles)
    ]


def test_a_promotion_keeps_what_was_live_as_previous() -> None:
    assert promote(PLAIN, B) == Route("flights", "", B, previous=A, version=2)


def test_a_promotion_without_a_name_is_of_the_canary_which_ends() -> None:
    after = promote(FULL)
    assert (after.live, after.previous, after.canary) == (C, A, None)
    assert (after.shadow, after.experiment) == (FULL.shadow, FULL.experiment)


def test_promoting_the_shadow_ends_it() -> None:
    after = promote(FULL, D)
    assert (after.live, after.shadow, after.canary) == (D, None, FULL.canary)


def test_promoting_an_arm_ends_the_experiment_by_name_or_by_bundle() -> None:
    for after in (promote(FULL, arm="other"), promote(FULL, B)):
        assert (after.live, after.previous, after.experiment, after.canary) == (B, A, None, FULL.canary)


def test_promoting_the_arm_that_is_live_ends_the_experiment_and_nothing_else() -> None:
    assert promote(FULL, arm="control") == replace(FULL, experiment=None, version=2)


def test_promoting_another_bundle_ends_nothing() -> None:
    other = digest("e")
    assert promote(FULL, other) == replace(FULL, live=other, previous=A, version=2)


def test_promoting_what_is_live_changes_nothing() -> None:
    assert promote(FULL, A) is FULL


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (lambda: promote(PLAIN), Conflict, "has no canary\n\nhint: name the bundle to promote"),
        (lambda: promote(replace(FULL, canary=None)), Conflict, "an arm of its experiment: control, other"),
        (lambda: promote(PLAIN, arm="other"), Conflict, "runs no experiment"),
        (lambda: promote(FULL, arm="third"), NotFound, "arm `third` does not exist. Known: `control`, `other`"),
        (lambda: promote(FULL, B, arm="other"), InvalidDefinition, "promote a bundle or an arm, not both"),
        (lambda: rollback(PLAIN, history(A)), Conflict, "no earlier live bundle"),
        (lambda: rollback(PLAIN, history(A, B)), Conflict, "its history ends with"),
        (lambda: start_canary(FULL, B, 0.1), Conflict, "has a canary, " + C[:12] + " with 0.1"),
        (lambda: start_canary(PLAIN, A, 0.1), InvalidDefinition, "the canary bundle is the live one"),
        (lambda: start_canary(PLAIN, B, 1.5), InvalidDefinition, "allowed: 0 to 1"),
        (lambda: set_canary_share(PLAIN, 0.1), Conflict, "has no canary"),
        (lambda: set_canary_share(FULL, 0.6), InvalidDefinition, "more than all of it"),
        (lambda: start_shadow(FULL, B), Conflict, "has a shadow, " + D[:12]),
        (lambda: start_shadow(PLAIN, A), InvalidDefinition, "the shadow bundle is the live one"),
        (lambda: start_experiment(FULL, EXPERIMENT), Conflict, "runs the experiment `one`"),
        (lambda: set_arm_shares(PLAIN, {}), Conflict, "runs no experiment"),
        (lambda: set_arm_shares(FULL, {}), InvalidDefinition, "given for no arm; its arms are control, other"),
        (lambda: set_arm_shares(FULL, {"control": 1.0}), InvalidDefinition, "its arms are control, other"),
        (lambda: set_arm_shares(FULL, {"control": 0.5, "other": 0.4}), InvalidDefinition, "sum to 0.9"),
        (lambda: set_arm_shares(FULL, {"control": -0.5, "other": 1.5}), InvalidDefinition, "allowed: 0 to 1"),
        (lambda: abort(PLAIN, Part.CANARY), Conflict, "has no canary to abort\n\nhint: only its live bundle answers"),
        (lambda: abort(replace(FULL, shadow=None), Part.SHADOW), Conflict, "it has: canary, experiment"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused(
    change: Callable[[], Route], error: type[SkewlessError], said: str
) -> None:
    with pytest.raises(error) as refused:
        change()
    assert said in str(refused.value)


def test_a_rollback_undoes_promotions_one_by_one() -> None:
    route, changes = promote(promote(PLAIN, B), C), history(A, B, C)
    route = rollback(route, changes)
    assert (route.live, route.previous, route.version) == (B, A, 4)
    changes.append(LiveChange(RouteAction.ROLLBACK, B))
    route = rollback(route, changes)
    assert (route.live, route.previous, route.version) == (A, None, 5)
    changes.append(LiveChange(RouteAction.ROLLBACK, A))
    with pytest.raises(Conflict, match="no earlier live bundle"):
        rollback(route, changes)


def test_a_rollback_takes_the_bundle_that_is_left_out_of_every_answer() -> None:
    left = replace(FULL, live=B, previous=A)
    after = rollback(left, history(A, B))
    assert (after.live, after.experiment) == (A, None)
    assert B not in after.bundles()


def test_a_rollback_ends_a_canary_that_becomes_live_and_leaves_the_others() -> None:
    before = Route("flights", "", B, previous=C, canary=Canary(C, 0.1), shadow=Shadow(D))
    after = rollback(before, history(C, B))
    assert (after.live, after.canary, after.shadow) == (C, None, Shadow(D))


def test_a_canary_starts_grows_and_is_aborted() -> None:
    started = start_canary(PLAIN, B, 0.05)
    assert started == Route("flights", "", A, canary=Canary(B, 0.05), version=2)
    assert set_canary_share(started, 0.25).canary == Canary(B, 0.25)
    assert set_canary_share(started, 0.05) is started
    assert abort(started, Part.CANARY) == replace(PLAIN, version=3)


def test_a_shadow_and_an_experiment_start_and_are_aborted() -> None:
    started = start_experiment(start_shadow(PLAIN, D, 0.5), EXPERIMENT)
    assert started == Route("flights", "", A, shadow=Shadow(D, 0.5), experiment=EXPERIMENT, version=3)
    assert abort(abort(started, Part.SHADOW), Part.EXPERIMENT) == replace(PLAIN, version=5)


def test_shares_of_arms_that_are_the_same_change_nothing() -> None:
    assert set_arm_shares(FULL, {"other": 0.5, "control": 0.5}) is FULL


@settings(deadline=None)
@given(experiments(), st.data())
def test_changed_shares_move_only_what_they_differ_by(experiment: Experiment, data: st.DataObject) -> None:
    before = [arm.share for arm in experiment.arms]
    after = data.draw(arm_shares(len(before), experiment.exploration_min))
    route = set_arm_shares(
        Route("one", "", A, experiment=experiment),
        {arm.name: share for arm, share in zip(experiment.arms, after, strict=True)},
    )
    assert route.experiment is not None
    moved = sum(old != new for old, new in zip(owners(experiment), owners(route.experiment), strict=True))
    differ = sum(abs(a - b) for a, b in zip(before, after, strict=True)) / 2
    assert moved / 10_000 <= differ + len(before) / 10_000, "a slot per arm is what rounding may add"


def test_routes_and_their_changes_load_no_numpy() -> None:
    """The supervisor loads them, and stays small."""
    program = (
        "import sys; import skewless.rollout.changes, skewless.rollout.counts, skewless.rollout.history;"
        "sys.exit('numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0


def owners(experiment: Experiment) -> list[int]:
    return [arm for arm, count in experiment.layout for _ in range(count)]


@settings(deadline=None)
@given(routes(), digests, st.lists(st.integers(0, 8), max_size=12), st.floats(0, 1))
def test_every_change_adds_one_to_the_version_or_changes_nothing(
    route: Route, bundle: Digest, steps: list[int], share: float
) -> None:
    past = [
        LiveChange(RouteAction.CREATE, route.previous or digest("first")),
        LiveChange(RouteAction.PROMOTE, route.live),
    ]
    changes: list[Callable[[Route], Route]] = [
        lambda each: promote(each, bundle),
        promote,
        lambda each: rollback(each, past),
        lambda each: start_canary(each, bundle, share),
        lambda each: set_canary_share(each, share),
        lambda each: start_shadow(each, bundle, share),
        lambda each: abort(each, Part.CANARY),
        lambda each: abort(each, Part.SHADOW),
        lambda each: abort(each, Part.EXPERIMENT),
    ]
    for step in steps:
        try:
            after = changes[step](route)
        except (Conflict, InvalidDefinition):
            continue
        assert after is route or after.version == route.version + 1
        assert Route.from_json(after.to_json()) == after
        route = after
