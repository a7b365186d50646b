"""What experiments count and how far canaries have come, on SQLite and PostgreSQL."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from skewless.canonical_json import digest
from skewless.errors import Conflict, InvalidDefinition, NotFound
from skewless.registry import database
from skewless.registry.records import BundleRecord
from skewless.registry.repository import Registry
from skewless.rollout import changes
from skewless.rollout.changes import Part
from skewless.rollout.counts import ArmCounts
from skewless.rollout.history import RouteAction
from skewless.rollout.routes import Arm, Experiment, ExperimentKind, Route
from skewless.timestamps import Micros

A, B, C = (digest(name) for name in "abc")
EXPERIMENT = Experiment("wording", ExperimentKind.AB, (Arm("old", A, 0.5), Arm("new", B, 0.5)), 0.5, "late")
STARTED = 1_000


@pytest.fixture
def registry(registry_url: str) -> Iterator[Registry]:
    """A registry with an endpoint `one` that runs an experiment and has no canary."""
    ticks = count(STARTED)
    made = Registry(database.engine(registry_url), clock=lambda: Micros(next(ticks)))
    for own in (A, B, C):
        made.register_bundle(BundleRecord(own, "b", Micros(1), own, own, own, {}))
    made.create_endpoint("one", description="", bundle=A, actor="ann", reason="start")
    made.change_route(
        "one",
        lambda route: changes.start_experiment(route, EXPERIMENT),
        action=RouteAction.START_EXPERIMENT,
        actor="ann",
        reason="try",
    )
    yield made
    made.close()


def _start_canary(registry: Registry, progress: dict[str, Any] | None) -> Route:
    return registry.change_route(
        "one",
        lambda route: changes.start_canary(route, C, 0.01),
        action=RouteAction.START_CANARY,
        actor="ann",
        reason="try",
        progress=progress,
    ).route


def test_counts_of_segments_add_up_per_arm_in_the_declared_order(registry: Registry) -> None:
    assert registry.experiment_counts("one", "wording") == {"old": ArmCounts(), "new": ArmCounts()}
    assert registry.add_counts("one", "wording", "s1", {"new": ArmCounts(10, 3, 2.5, 1e22)})
    assert registry.add_counts("one", "wording", "s2", {"new": ArmCounts(1, 1, -0.5, 0.25), "old": ArmCounts(2, 0)})
    counts = registry.experiment_counts("one", "wording")
    assert list(counts) == ["old", "new"]
    assert counts == {"old": ArmCounts(2, 0), "new": ArmCounts(11, 4, 2.0, 1e22 + 0.25)}


def test_a_segment_is_counted_once_also_one_in_which_nothing_was_counted(registry: Registry) -> None:
    assert registry.add_counts("one", "wording", "s1", {"new": ArmCounts(10, 3)})
    assert not registry.add_counts("one", "wording", "s1", {"new": ArmCounts(10, 3)})
    assert registry.add_counts("one", "wording", "empty", {})
    assert not registry.add_counts("one", "wording", "empty", {"old": ArmCounts(5, 5)})
    assert registry.experiment_counts("one", "wording") == {"old": ArmCounts(), "new": ArmCounts(10, 3)}
    assert registry.counted_segments("one", "wording") == {"s1", "empty"}


def test_counts_are_told_by_segment_in_the_order_of_their_time(registry: Registry) -> None:
    registry.add_counts("one", "wording", "late", {"new": ArmCounts(1, 1)}, time=Micros(50))
    registry.add_counts("one", "wording", "early", {"old": ArmCounts(2, 0)}, time=Micros(10))
    registry.add_counts("one", "wording", "now", {})
    (first, one), (second, two), (third, three) = registry.experiment_segments("one", "wording")
    assert (first, second) == (10, 50)
    assert third > STARTED
    assert (one, two) == (
        {"old": ArmCounts(2, 0), "new": ArmCounts()},
        {"old": ArmCounts(), "new": ArmCounts(1, 1)},
    )
    assert set(three.values()) == {ArmCounts()}


def test_an_unknown_arm_experiment_or_endpoint_is_refused_with_what_exists(registry: Registry) -> None:
    with pytest.raises(InvalidDefinition, match="has no arm other; arms: old, new"):
        registry.add_counts("one", "wording", "s1", {"other": ArmCounts(1, 1)})
    for endpoint, name in (("one", "other"), ("two", "wording")):
        with pytest.raises(NotFound, match="does not exist"):
            registry.add_counts(endpoint, name, "s1", {})
        with pytest.raises(NotFound, match="does not exist"):
            registry.experiment_counts(endpoint, name)
        with pytest.raises(NotFound, match="does not exist"):
            registry.experiment_segments(endpoint, name)
    with pytest.raises(NotFound, match="Known: `wording`"):
        registry.experiment_counts("one", "other")
    assert registry.experiment_counts("one", "wording") == {"old": ArmCounts(), "new": ArmCounts()}


def test_an_experiment_that_has_ended_keeps_its_counts_and_still_takes_late_outcomes(registry: Registry) -> None:
    registry.add_counts("one", "wording", "s1", {"new": ArmCounts(10, 3)})
    registry.change_route(
        "one",
        lambda route: changes.abort(route, Part.EXPERIMENT),
        action=RouteAction.ABORT,
        actor="ann",
        reason="enough",
    )
    assert registry.add_counts("one", "wording", "s2", {"new": ArmCounts(1, 0)})
    assert registry.experiment_counts("one", "wording")["new"] == ArmCounts(11, 3)


def test_counts_are_no_change_of_the_endpoint_and_are_not_audited(registry: Registry) -> None:
    before = registry.endpoint("one"), registry.audit()
    registry.add_counts("one", "wording", "s1", {"new": ArmCounts(10, 3)})
    assert (registry.endpoint("one"), registry.audit()) == before


def test_progress_starts_with_its_canary_is_kept_on_and_ends_with_it(registry: Registry) -> None:
    assert registry.progress("one") is None
    route = _start_canary(registry, {"step": 0, "share": 0.1 + 0.2})
    assert registry.progress("one") == {"step": 0, "share": 0.1 + 0.2}
    registry.set_progress("one", {"step": 0, "looks": 2}, expected_version=route.version)
    registry.change_route(
        "one",
        lambda route: changes.set_canary_share(route, 0.05),
        action=RouteAction.SET_CANARY_SHARE,
        actor="controller",
        reason="no harm seen",
        progress={"step": 1},
    )
    assert registry.progress("one") == {"step": 1}
    registry.change_route(
        "one",
        lambda route: changes.abort(route, Part.CANARY),
        action=RouteAction.ABORT,
        actor="ann",
        reason="enough",
    )
    assert registry.progress("one") is None


def test_progress_of_a_promoted_canary_is_forgotten_but_not_by_other_changes(registry: Registry) -> None:
    _start_canary(registry, {"step": 0})
    registry.change_route(
        "one",
        lambda route: changes.start_shadow(route, B),
        action=RouteAction.START_SHADOW,
        actor="ann",
        reason="try",
    )
    assert registry.progress("one") == {"step": 0}
    registry.change_route("one", changes.promote, action=RouteAction.PROMOTE, actor="ann", reason="good")
    assert registry.progress("one") is None


def test_progress_can_be_forgotten_and_a_canary_can_go_without(registry: Registry) -> None:
    _start_canary(registry, None)
    assert registry.progress("one") is None
    registry.set_progress("one", {"step": 0})
    registry.set_progress("one", None)
    registry.set_progress("one", None)
    assert registry.progress("one") is None


def test_progress_meant_for_another_version_or_for_no_canary_is_refused(registry: Registry) -> None:
    with pytest.raises(Conflict, match="has no canary whose progress could be kept"):
        registry.set_progress("one", {"step": 0})
    route = _start_canary(registry, {"step": 0})
    with pytest.raises(Conflict, match="the change was meant for version"):
        registry.set_progress("one", {"step": 9}, expected_version=route.version - 1)
    with pytest.raises(NotFound):
        registry.set_progress("two", {"step": 0})
    with pytest.raises(NotFound):
        registry.progress("two")
    assert registry.progress("one") == {"step": 0}
