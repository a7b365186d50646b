"""Versions of definitions over SQLite and PostgreSQL alike, and how far receivers of lineage were told."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count

import pytest
from sqlalchemy import Engine

from skewless.canonical_json import digest
from skewless.errors import Conflict, InvalidRequest, NotFound
from skewless.features.compiled_registry import CompiledRegistry
from skewless.features.definition_metadata import DefinitionSet, EntityMetadata
from skewless.registry import database
from skewless.registry.definitions import Compiled, Definitions, VersionState
from skewless.registry.lineage_events import LineagePosition, LineagePositions
from skewless.registry.repository import Registry
from skewless.registry.snapshots import FeatureSnapshots
from skewless.timestamps import Micros

NONE = DefinitionSet("prod")
LINE = replace(NONE, entities={"line": EntityMetadata("line", "line", "Int64")})
STOP = replace(NONE, entities={"stop": EntityMetadata("stop", "stop", "String")})


@pytest.fixture
def engine(registry_url: str) -> Iterator[Engine]:
    made = database.engine(registry_url)
    yield made
    made.dispose()


@pytest.fixture
def versions(engine: Engine) -> Definitions:
    ticks = count(1_000_000)
    return Definitions(engine, clock=lambda: Micros(next(ticks)))


def compiled(definitions: DefinitionSet) -> Compiled:
    """What follows from definitions that were registered; the source stands for Feast's fingerprint."""
    registry = CompiledRegistry(definitions.project, {}, {}, {("line",): len(definitions.entities)})
    return Compiled(definitions, registry, (), digest(definitions.to_json()))


def apply(versions: Definitions, definitions: DefinitionSet, reason: str = "because") -> int:
    plan = {"changes": [{"name": reason}]}
    number = versions.begin(definitions, plan=plan, before=digest("before"), actor="ann", reason=reason)
    versions.finish(number, compiled(definitions), actor="ann", reason=reason)
    return number


def test_a_version_is_in_force_once_it_is_finished_with_its_snapshot_and_audit_event(
    engine: Engine, versions: Definitions
) -> None:
    assert versions.current("prod") is None
    number = versions.begin(LINE, plan={"changes": []}, before=digest("before"), actor="ann", reason="why")
    assert (versions.current("prod"), [each.number for each in versions.unfinished("prod")]) == (None, [number])
    head = versions.finish(number, compiled(LINE), actor="ann", reason="why")
    found = versions.current("prod")
    assert found is not None
    assert (found.number, found.definitions, found.head.state) == (number, LINE, VersionState.APPLIED)
    assert (found.head.actor, found.head.reason, found.head.digest) == ("ann", "why", LINE.digest)
    assert versions.unfinished("prod") == ()
    assert FeatureSnapshots(engine).newest("prod").head == head
    (event,) = Registry(engine).audit(subject="definitions/prod")
    assert (event.actor, event.action, event.reason) == ("ann", "apply", "why")
    assert (event.detail["from"], event.detail["to"], event.detail["number"]) == (None, LINE.digest, number)


def test_to_finish_again_changes_nothing(engine: Engine, versions: Definitions) -> None:
    number = apply(versions, LINE)
    before = versions.current("prod")
    versions.finish(number, compiled(LINE), actor="bob", reason="again")
    assert versions.current("prod") == before
    assert len(Registry(engine).audit(subject="definitions/prod")) == 1


def test_a_version_that_says_what_is_in_force_leaves_no_trace(engine: Engine, versions: Definitions) -> None:
    number = apply(versions, LINE)
    apply(versions, LINE, "again")
    assert [each.number for each in versions.versions("prod")] == [number]
    assert len(Registry(engine).audit(subject="definitions/prod")) == 1


def test_what_was_abandoned_is_not_in_force_and_is_kept_for_people(versions: Definitions) -> None:
    first = apply(versions, LINE)
    second = versions.begin(STOP, plan={}, before=digest("before"), actor="bob", reason="")
    versions.abandon(second)
    found = versions.current("prod")
    assert found is not None
    assert found.number == first
    assert [each.state for each in versions.versions("prod")] == [VersionState.ABANDONED, VersionState.APPLIED]
    assert versions.version(second).definitions == STOP


def test_one_that_was_abandoned_by_another_and_registered_all_the_same_is_in_force(versions: Definitions) -> None:
    number = versions.begin(LINE, plan={}, before=digest("before"), actor="ann", reason="")
    versions.abandon(number)
    versions.finish(number, compiled(LINE), actor="ann", reason="")
    found = versions.current("prod")
    assert found is not None
    assert found.number == number
    versions.abandon(number)
    assert versions.current("prod") == found


def test_what_turned_out_is_kept_and_not_what_was_meant(versions: Definitions) -> None:
    number = versions.begin(LINE, plan={}, before=digest("before"), actor="ann", reason="")
    versions.finish(number, compiled(STOP), actor="ann", reason="")
    found = versions.current("prod")
    assert found is not None
    assert (found.definitions, found.head.digest) == (STOP, STOP.digest)


def test_projects_have_versions_of_their_own_and_the_last_of_any_is_found(versions: Definitions) -> None:
    apply(versions, LINE)
    apply(versions, replace(STOP, project="other"))
    assert [versions.current(project) is not None for project in ("prod", "other", "none")] == [True, True, False]
    head, current = versions.head(), versions.current()
    assert head is not None
    assert current is not None
    assert (head.project, current.head) == ("other", head)


def test_definitions_that_somebody_else_registered_follow_once(engine: Engine, versions: Definitions) -> None:
    for _ in range(2):
        versions.follow(compiled(LINE), plan={"changes": []}, actor="watch", reason="features compile")
    assert [each.reason for each in versions.versions("prod")] == ["features compile"]
    assert len(Registry(engine).audit(subject="definitions/prod")) == 1


def test_what_was_compiled_beside_an_older_version_does_not_follow_a_newer_one(versions: Definitions) -> None:
    plan: dict[str, object] = {"changes": []}
    versions.follow(compiled(LINE), plan=plan, after=0, actor="watch", reason="")
    first = versions.current("prod")
    assert first is not None
    second = apply(versions, STOP)
    with pytest.raises(Conflict, match="since they were read"):
        versions.follow(compiled(LINE), plan=plan, after=first.number, actor="watch", reason="")
    assert [each.number for each in versions.versions("prod")] == [second, first.number]
    versions.follow(compiled(LINE), plan=plan, after=second, actor="watch", reason="")
    found = versions.current("prod")
    assert found is not None
    assert found.definitions == LINE


def test_an_unusable_reason_is_refused_before_anything_is_begun(versions: Definitions) -> None:
    with pytest.raises(InvalidRequest, match="the reason has 4001 characters"):
        versions.begin(LINE, plan={}, before=digest("before"), actor="ann", reason="x" * 4001)
    assert versions.versions() == ()
    with pytest.raises(NotFound, match="version of definitions `7`"):
        versions.version(7)


def test_a_receiver_of_lineage_is_never_told_backwards(engine: Engine) -> None:
    positions = LineagePositions(engine)
    assert positions.position("here") == LineagePosition()
    positions.told("here", LineagePosition(5, 70))
    positions.told("here", LineagePosition(4, 80))
    assert positions.position("here") == LineagePosition(5, 80)
    assert positions.position("there") == LineagePosition()
    assert positions.ended_runs(after=0, limit=5) == ()
