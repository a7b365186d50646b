"""The registry over a real SQLite database: what it keeps, refuses, audits, and who wins a race."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import IntegrityError

from skewless.canonical_json import Digest, digest
from skewless.errors import Conflict, InvalidDefinition, InvalidRequest, NotFound, Unavailable
from skewless.registry import database
from skewless.registry.records import BundleRecord
from skewless.registry.repository import Registry
from skewless.rollout.routes import Route, RoutingTable
from skewless.timestamps import Micros

RACERS = 4


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    url = f"sqlite:///{tmp_path / 'registry.db'}"
    database.upgrade(url)
    made = database.engine(url)
    yield made
    made.dispose()


@pytest.fixture
def registry(engine: Engine) -> Registry:
    """A registry whose clock ticks a microsecond with every look."""
    ticks = count(1_000_000)
    return Registry(engine, clock=lambda: Micros(next(ticks)))


def _bundle(name: str, *, created_time: int = 1, made: Digest | None = None) -> BundleRecord:
    own = made or digest(name)
    parts = {"input": {"name": "features", "columns": 3}}
    return BundleRecord(
        own, name, Micros(created_time), own, digest(["contract", name]), digest(["transform", name]), parts,
        {"auroc": 0.7770000000000001}, {"rows": 12, "range": ["2013-01-01", None], "é": True},
    )  # fmt: skip


def _with_endpoint(registry: Registry, *names: str) -> list[Digest]:
    """Register bundles of these names and make the first live on `one`."""
    for name in names:
        registry.register_bundle(_bundle(name))
    made = [digest(name) for name in names]
    registry.create_endpoint("one", description="first", bundle=made[0], actor="ann", reason="start")
    return made


def _promote(registry: Registry, bundle: Digest) -> None:
    registry.set_live("one", bundle, actor="ann", reason="better")


def test_a_registered_bundle_is_read_back_exactly(registry: Registry) -> None:
    record = _bundle("flight-delay")
    registry.register_bundle(record)
    assert registry.bundle(record.digest) == record
    assert registry.bundles() == (record,)


def test_registering_a_bundle_again_changes_and_audits_nothing(registry: Registry) -> None:
    record = _bundle("flight-delay")
    registry.register_bundle(record)
    registry.register_bundle(replace(record, created_time=Micros(99)))
    assert registry.bundles() == (record,)
    assert len(registry.audit()) == 1


def test_a_digest_cannot_be_registered_with_other_content(registry: Registry) -> None:
    record = _bundle("flight-delay")
    registry.register_bundle(record)
    with pytest.raises(Conflict, match="registered with contract_digest"):
        registry.register_bundle(replace(record, contract_digest=digest("other")))


@pytest.mark.parametrize("name", ["", "a b", "../up", "x" * 101, "-x"])
def test_a_bundle_name_outside_the_allowed_form_is_refused(registry: Registry, name: str) -> None:
    with pytest.raises(InvalidDefinition, match="cannot name a bundle"):
        registry.register_bundle(replace(_bundle("fine"), name=name))


def test_bundles_are_listed_newest_first_and_by_name(registry: Registry) -> None:
    for time, name in ((3, "a"), (1, "b"), (2, "a")):
        registry.register_bundle(_bundle(name, created_time=time, made=digest(time)))
    assert [bundle.created_time for bundle in registry.bundles()] == [3, 2, 1]
    assert [bundle.created_time for bundle in registry.bundles("a")] == [3, 2]
    assert registry.bundles("c") == ()


def test_a_bundle_is_found_by_any_unique_prefix_of_its_digest(registry: Registry) -> None:
    same = "ab" * 6
    for last in "01":
        registry.register_bundle(_bundle("twin", made=Digest(same + last * 52)))
    assert registry.bundle(f"{same}1").digest.endswith("1")
    assert registry.bundle(f"{same}{'0' * 52}").digest.endswith("0")
    with pytest.raises(InvalidRequest, match="is ambiguous") as refused:
        registry.bundle(same)
    assert f"{same}{'0' * 52}, {same}{'1' * 52}" in refused.value.message


@pytest.mark.parametrize("prefix", ["", "abcdef0", "ABCDEF01", "xyzxyzxyz", "a" * 65, "abcdef0%"])
def test_a_prefix_that_is_too_short_or_no_hexadecimal_text_is_refused(registry: Registry, prefix: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        registry.bundle(prefix)
    assert "first 8 to 64" in refused.value.allowed


def test_an_unknown_bundle_is_not_found_and_the_newest_are_named(registry: Registry) -> None:
    registry.register_bundle(_bundle("flight-delay"))
    with pytest.raises(NotFound, match=f"Known: `{digest('flight-delay')[:12]} flight-delay`"):
        registry.bundle("00000000")


def test_a_new_endpoint_is_in_the_routing_table(registry: Registry) -> None:
    assert registry.routes() == RoutingTable()
    (bundle,) = _with_endpoint(registry, "a")
    assert registry.routes() == RoutingTable((Route("one", "first", bundle, version=1),))
    endpoint = registry.endpoint("one")
    assert (endpoint.live_name, endpoint.live_since, endpoint.created_time) == ("a", 1_000_001, 1_000_001)


def test_an_endpoint_is_created_once_with_an_allowed_name_and_a_registered_bundle(registry: Registry) -> None:
    (bundle,) = _with_endpoint(registry, "a")
    create: Callable[[str, Digest], object] = lambda name, live: registry.create_endpoint(  # noqa: E731
        name, description="", bundle=live, actor="ann", reason="start"
    )
    with pytest.raises(Conflict, match="endpoint `one` exists already"):
        create("one", bundle)
    with pytest.raises(InvalidDefinition, match="cannot name an endpoint"):
        create("One", bundle)
    with pytest.raises(NotFound, match="bundle"):
        create("two", digest("unknown"))
    assert [endpoint.name for endpoint in registry.endpoints()] == ["one"]
    assert len(registry.audit()) == 2, "a refused change leaves no audit event"


def test_a_promotion_changes_the_route_and_its_version(registry: Registry) -> None:
    _first, second = _with_endpoint(registry, "a", "b")
    changed = registry.set_live("one", second, actor="ben", reason="AUROC +0.01")
    assert (changed.route.live, changed.live_name, changed.route.version) == (second, "b", 2)
    assert registry.endpoint("one") == changed


def test_promoting_the_live_bundle_changes_and_audits_nothing(registry: Registry) -> None:
    (bundle,) = _with_endpoint(registry, "a")
    before = registry.audit()
    assert registry.set_live("one", bundle, actor="ann", reason="again").route.version == 1
    assert registry.audit() == before


def test_an_unknown_endpoint_or_bundle_is_not_found_and_the_known_are_named(registry: Registry) -> None:
    (bundle,) = _with_endpoint(registry, "a")
    for act in (
        lambda: registry.endpoint("two"),
        lambda: registry.set_live("two", bundle, actor="ann", reason="why"),
        lambda: registry.rollback("two", actor="ann", reason="why"),
        lambda: registry.rollback_target("two"),
    ):
        with pytest.raises(NotFound, match=r"endpoint `two` does not exist\. Known: `one`"):
            act()
    with pytest.raises(NotFound, match="bundle"):
        _promote(registry, digest("unknown"))


def test_every_change_is_audited_with_who_what_when_and_why(registry: Registry) -> None:
    first, second = _with_endpoint(registry, "a", "b")
    registry.set_live("one", second, actor="ben", reason="AUROC +0.01")
    registry.rollback("one", actor="eve", reason="late alerts")
    events = registry.audit("one")
    assert [(each.action, each.actor, each.reason) for each in events] == [
        ("create", "ann", "start"), ("promote", "ben", "AUROC +0.01"), ("rollback", "eve", "late alerts"),
    ]  # fmt: skip
    assert [dict(each.detail) for each in events] == [
        {"role": "live", "from": None, "to": first, "version": 1},
        {"role": "live", "from": first, "to": second, "version": 2},
        {"role": "live", "from": second, "to": first, "version": 3},
    ]
    assert [each.time for each in events] == sorted({each.time for each in events})
    assert [each.subject for each in registry.audit()] == [
        f"bundle/{first}", f"bundle/{second}", "endpoint/one", "endpoint/one", "endpoint/one",
    ]  # fmt: skip


def test_rollbacks_undo_promotions_one_by_one_until_none_is_left(registry: Registry) -> None:
    first, second, third = _with_endpoint(registry, "a", "b", "c")
    _promote(registry, second)
    _promote(registry, third)
    for expected in (second, first):
        assert registry.rollback_target("one") == expected
        assert registry.rollback("one", actor="ann", reason="undo").route.live == expected
    with pytest.raises(Conflict, match="no earlier live bundle"):
        registry.rollback("one", actor="ann", reason="undo")


def test_an_actor_without_a_name_is_refused_and_nothing_changes(registry: Registry) -> None:
    _first, second = _with_endpoint(registry, "a", "b")
    before = registry.endpoint("one")
    with pytest.raises(InvalidRequest, match="actor"):
        registry.set_live("one", second, actor="", reason="why")
    assert registry.endpoint("one") == before


def test_a_change_meant_for_an_older_version_is_refused(registry: Registry) -> None:
    _first, second, third = _with_endpoint(registry, "a", "b", "c")
    seen = registry.endpoint("one").route.version
    registry.set_live("one", second, actor="ann", reason="why", expected_version=seen)
    with pytest.raises(Conflict, match="is at version 2; the change was meant for version 1"):
        registry.set_live("one", third, actor="ben", reason="why", expected_version=seen)
    with pytest.raises(Conflict, match="is at version 2"):
        registry.rollback("one", actor="ben", reason="why", expected_version=seen)


def _race(acts: list[Callable[[], object]]) -> list[BaseException | None]:
    """Start all at once; what each raised, None where it succeeded."""
    barrier = threading.Barrier(len(acts))

    def run(act: Callable[[], object]) -> BaseException | None:
        barrier.wait()
        try:
            act()
        except Conflict as error:
            return error
        return None

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(run, acts))


def test_of_promotions_of_one_version_at_once_exactly_one_wins(registry: Registry) -> None:
    _first, *others = _with_endpoint(registry, "a", *(f"b{number}" for number in range(RACERS)))

    def promote(bundle: Digest) -> Callable[[], object]:
        return lambda: registry.set_live("one", bundle, actor=bundle[:8], reason="race", expected_version=1)

    raised = _race([promote(bundle) for bundle in others])
    assert sum(error is None for error in raised) == 1
    winner = others[raised.index(None)]
    assert registry.endpoint("one").route.live == winner
    assert registry.endpoint("one").route.version == 2
    assert [each.detail["to"] for each in registry.audit("one")][1:] == [winner]


def test_promotions_at_once_are_serialised_and_the_audit_is_one_chain(registry: Registry) -> None:
    _first, *others = _with_endpoint(registry, "a", *(f"b{number}" for number in range(RACERS)))

    def promote(bundle: Digest) -> Callable[[], object]:
        return lambda: registry.set_live("one", bundle, actor=bundle[:8], reason="race")

    raised = _race([promote(bundle) for bundle in others])
    details = [each.detail for each in registry.audit("one")]
    assert len(details) == 1 + sum(error is None for error in raised)
    assert [detail["from"] for detail in details[1:]] == [detail["to"] for detail in details[:-1]]
    assert [detail["version"] for detail in details] == list(range(1, len(details) + 1))
    assert registry.endpoint("one").route.live == details[-1]["to"]


def test_a_writer_that_read_an_older_version_loses_where_the_database_lets_both_read(
    registry: Registry, engine: Engine
) -> None:
    # PostgreSQL lets two transactions read one version; SQLite's write lock does not, so the second reader's
    # view is made old by changing the version under the session, between its read and its write.
    _first, second = _with_endpoint(registry, "a", "b")

    def overtake(connection: object, cursor: object, statement: str, *_rest: object) -> None:
        if statement.startswith("UPDATE endpoints"):
            cursor.execute("UPDATE endpoints SET version = 9")  # type: ignore[attr-defined]  # a DBAPI cursor

    event.listen(engine, "before_cursor_execute", overtake)
    with pytest.raises(Conflict, match="another writer changed the registry at the same moment"):
        _promote(registry, second)
    event.remove(engine, "before_cursor_execute", overtake)
    assert registry.endpoint("one").route.version == 1
    assert len(registry.audit("one")) == 1


def test_readers_go_on_while_a_writer_holds_the_database(registry: Registry, engine: Engine) -> None:
    _with_endpoint(registry, "a")
    with engine.execution_options(**{database.WRITES: True}).begin() as writer:
        writer.execute(text("UPDATE endpoints SET description = 'changing'"))
        assert registry.endpoint("one").route.description == "first"


def test_a_routing_table_is_read_by_one_statement(registry: Registry, engine: Engine) -> None:
    _with_endpoint(registry, "a")
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    registry.routes()
    assert sum(statement.startswith("SELECT") for statement in statements) == 1, statements


def test_a_database_without_the_schema_is_unavailable_and_says_what_to_do(tmp_path: Path) -> None:
    registry = Registry(database.engine(f"sqlite:///{tmp_path / 'empty.db'}"))
    with pytest.raises(Unavailable, match="no such table") as refused:
        registry.routes()
    registry.close()
    assert "skewless up" in refused.value.hint


def test_a_database_that_is_away_is_unavailable(tmp_path: Path) -> None:
    registry = Registry(database.engine(f"sqlite:///{tmp_path / 'nowhere' / 'registry.db'}"))
    with pytest.raises(Unavailable, match="unable to open database file"):
        registry.routes()
    registry.close()


def test_a_bundle_that_an_endpoint_uses_cannot_be_removed_behind_its_back(registry: Registry, engine: Engine) -> None:
    _with_endpoint(registry, "a")
    with pytest.raises(IntegrityError, match="FOREIGN KEY"), engine.begin() as connection:
        connection.execute(text("DELETE FROM bundles"))
