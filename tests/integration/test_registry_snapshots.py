"""Registry snapshots over a real SQLite database: what is kept, what counts as a change, and who wins a race."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from harness.bundles import contract
from skewless.canonical_json import digest, encode
from skewless.errors import Conflict, InvalidDefinition, InvalidRequest, NotFound, Unavailable
from skewless.features.compiled_registry import CompiledRegistry
from skewless.features.feature_checks import Finding, Severity
from skewless.registry import database
from skewless.registry.repository import Registry
from skewless.registry.snapshots import FeatureSnapshot, FeatureSnapshots
from skewless.timestamps import Micros

RACERS = 4
SOURCE = digest("what Feast's registry holds")
WARNING = Finding(Severity.WARNING, "suffix", "project `b` ends like `ab`", "use another Redis database")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    url = f"sqlite:///{tmp_path / 'registry.db'}"
    database.upgrade(url)
    made = database.engine(url)
    yield made
    made.dispose()


@pytest.fixture
def snapshots(engine: Engine) -> FeatureSnapshots:
    """Snapshots whose clock ticks a microsecond with every look."""
    ticks = count(1_000)
    return FeatureSnapshots(engine, clock=lambda: Micros(next(ticks)))


def _registry(*, project: str = "demo", refusal: str = "it reads `Map`, süß") -> CompiledRegistry:
    sizes = {("origin",): 3, (): 2, ("line", "station"): 7}
    return CompiledRegistry(project, {"delays": contract()}, {"broken": refusal}, sizes)


def _stored(snapshots: FeatureSnapshots, registry: CompiledRegistry, **changes: object) -> FeatureSnapshot:
    given = {"findings": (WARNING,), "source": SOURCE, "actor": "ann", "reason": "apply", **changes}
    return snapshots.store(registry, **given)  # type: ignore[arg-type]  # the test's own changes of right arguments


def test_a_stored_snapshot_is_read_back_exactly(snapshots: FeatureSnapshots) -> None:
    stored = _stored(snapshots, _registry())
    assert snapshots.newest("demo") == stored
    assert stored.registry.contract("delays") == contract()
    assert stored.findings == (WARNING,)
    assert snapshots.heads() == (stored.head,)
    assert (stored.head.version, stored.head.source) == (1, SOURCE)
    assert stored.head.compiled_at == stored.head.checked_at


def test_the_same_content_again_is_only_checked(snapshots: FeatureSnapshots, engine: Engine) -> None:
    first = _stored(snapshots, _registry()).head
    again = _stored(snapshots, _registry(), source=digest("materialized since")).head
    assert again.checked_at > first.checked_at
    assert again == replace(first, checked_at=again.checked_at, source=again.source)
    assert len(Registry(engine).audit()) == 1


def test_other_content_is_a_new_version_and_audited(snapshots: FeatureSnapshots, engine: Engine) -> None:
    first = _stored(snapshots, _registry())
    second = _stored(snapshots, _registry(refusal="another reason"), reason="features compile")
    assert second.head.version == 2
    assert snapshots.newest("demo") == second
    assert [(event.subject, event.action, event.actor, event.reason) for event in Registry(engine).audit()] == [
        ("features/demo", "compile", "ann", "apply"),
        ("features/demo", "compile", "ann", "features compile"),
    ]
    assert Registry(engine).audit()[1].detail == {"from": first.head.digest, "to": second.head.digest, "version": 2}


def test_projects_have_snapshots_of_their_own(snapshots: FeatureSnapshots) -> None:
    _stored(snapshots, _registry(project="b"))
    _stored(snapshots, _registry(project="a"))
    assert snapshots.projects() == ("a", "b")
    assert snapshots.newest("a").registry.project == "a"


def test_a_project_without_a_snapshot_is_refused_with_the_known_ones(snapshots: FeatureSnapshots) -> None:
    _stored(snapshots, _registry())
    with pytest.raises(NotFound, match=r"`other` does not exist. Known: `demo`") as refused:
        snapshots.newest("other")
    assert "skewless apply" in refused.value.hint


def test_a_check_moves_only_the_time_of_the_check(snapshots: FeatureSnapshots) -> None:
    head = _stored(snapshots, _registry()).head
    assert snapshots.checked(head)
    (after,) = snapshots.heads()
    assert after.checked_at > head.checked_at
    assert replace(after, checked_at=head.checked_at) == head


def test_a_check_of_what_has_changed_since_is_not_noted(snapshots: FeatureSnapshots) -> None:
    old = _stored(snapshots, _registry()).head
    newest = _stored(snapshots, _registry(refusal="another reason")).head
    assert not snapshots.checked(old)
    assert not snapshots.checked(replace(newest, source=digest("other")))
    assert snapshots.heads() == (newest,)


def test_a_change_that_cannot_be_audited_is_not_kept(snapshots: FeatureSnapshots) -> None:
    with pytest.raises(InvalidRequest, match="actor"):
        _stored(snapshots, _registry(), actor="")
    assert snapshots.heads() == ()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda document: document["registry"]["refusals"].update(x="y"), "is not what was stored"),
        (lambda document: document.clear(), "is not what was stored"),
    ],
)
def test_a_changed_document_is_refused(
    snapshots: FeatureSnapshots, engine: Engine, damage: Callable[[dict[str, object]], None], told: str
) -> None:
    document = _stored(snapshots, _registry()).document()
    damage(document)
    _overwrite(engine, document)
    with pytest.raises(InvalidDefinition, match=told):
        snapshots.newest("demo")


def test_a_document_of_another_version_is_refused_with_what_to_do(snapshots: FeatureSnapshots, engine: Engine) -> None:
    _stored(snapshots, _registry())
    documents: list[object] = [{"registry": {}, "findings": []}, {"parts": 3}, {"registry": _registry().to_json()}]
    for document in documents:
        _overwrite(engine, document, stored_digest=digest(document))
        with pytest.raises(InvalidDefinition):
            snapshots.newest("demo")


def _overwrite(engine: Engine, document: object, *, stored_digest: str | None = None) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE feature_snapshots SET document = :value"), {"value": encode(document).decode()})
        if stored_digest is not None:
            connection.execute(text("UPDATE feature_snapshots SET digest = :value"), {"value": stored_digest})


def test_of_writers_at_once_every_one_is_a_version_or_a_conflict(engine: Engine) -> None:
    ready = threading.Barrier(RACERS)

    def race(number: int) -> bool:
        ready.wait()
        try:
            _stored(FeatureSnapshots(engine), _registry(refusal=f"reason {number}"))
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(RACERS) as pool:
        won = list(pool.map(race, range(RACERS)))
    snapshot = FeatureSnapshots(engine).newest("demo")
    assert sum(won) == snapshot.head.version == len(Registry(engine).audit()) > 0


def test_a_database_from_before_snapshots_is_unavailable_and_says_who_migrates_it(
    snapshots: FeatureSnapshots, engine: Engine
) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE feature_snapshots")
    with pytest.raises(Unavailable, match="no such table: feature_snapshots") as refused:
        snapshots.heads()
    assert "`skewless up`" in refused.value.hint
