"""The registry over SQLite and PostgreSQL alike: what it keeps, refuses and audits of bundles and endpoints."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import IntegrityError

from skewless.canonical_json import Digest, digest
from skewless.errors import Conflict, InvalidDefinition, InvalidRequest, NotFound
from skewless.registry import database
from skewless.registry.records import BundleRecord
from skewless.registry.repository import Registry
from skewless.rollout import changes
from skewless.rollout.changes import Part
from skewless.rollout.history import LiveChange, RouteAction
from skewless.rollout.routes import Arm, Canary, Experiment, ExperimentKind, Route, RoutingTable, Shadow
from skewless.timestamps import Micros

AB = Experiment(
    "wording", ExperimentKind.AB, (Arm("old", digest("a"), 0.25), Arm("new", digest("c"), 0.75)), 0.2, "late", salt="s"
)
BANDIT = replace(
    AB, name="bandit", kind=ExperimentKind.BANDIT, exploration_min=0.05, maximise=False, half_life_s=3600.5
)


@pytest.fixture
def engine(registry_url: str) -> Iterator[Engine]:
    made = database.engine(registry_url)
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


def _change(registry: Registry, action: RouteAction, change: Callable[[Route], Route]) -> Route:
    return registry.change_route("one", change, action=action, actor="ann", reason="try").route


def test_a_registered_bundle_is_read_back_exactly(registry: Registry) -> None:
    record = _bundle("flight-delay")
    registry.register_bundle(record)
    assert registry.bundle(record.digest) == record
    assert registry.bundles() == (record,)


def test_documents_are_read_back_bit_for_bit(registry: Registry) -> None:
    # A database's own type for JSON would turn 1e22 into an integer, -0.0 into 0, and refuse a zero character.
    metrics = {"z": 1e22, "a": [-0.0, 5e-324, 1.0, 1, 0.1 + 0.2, 1e308], "b\0": "\0", "né": {"y": None, "x": True}}
    record = replace(_bundle("odd"), metrics=metrics)
    registry.register_bundle(record)
    kept = registry.bundle(record.digest).metrics
    assert digest(dict(kept)) == digest(metrics)
    assert repr(dict(kept)) == repr(metrics)


def test_registering_a_bundle_again_changes_and_audits_nothing(registry: Registry) -> None:
    record = _bundle("flight-delay")
    registry.register_bundle(record)
    registry.register_bundle(replace(record, created_time=Micros(99)))
    assert registry.bundles() == (record,)
    assert len(registry.audit()) == 1


def test_what_admitted_a_bundle_or_an_endpoint_is_kept_with_the_change(registry: Registry) -> None:
    checks = {"checks": {"digests": "passed"}}
    registry.register_bundle(_bundle("a"), actor="ann", reason="trained", detail=checks)
    registry.create_endpoint(
        "one", description="", bundle=digest("a"), actor="ann", reason="start", detail={"gates": "passed"}
    )
    registered, created = registry.audit()
    assert registered.detail == {"name": "a", "artifact": digest("a"), **checks}
    assert (created.detail["gates"], created.detail["to"]) == ("passed", digest("a"))


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


def test_a_promotion_changes_the_route_and_its_version_and_keeps_what_was_live(registry: Registry) -> None:
    first, second = _with_endpoint(registry, "a", "b")
    changed = registry.set_live("one", second, actor="ben", reason="AUROC +0.01")
    assert (changed.route.live, changed.route.previous, changed.route.version) == (second, first, 2)
    assert (changed.live_name, changed.names) == ("b", {first: "a", second: "b"})
    assert registry.endpoint("one") == changed


def test_promoting_the_live_bundle_changes_and_audits_nothing(registry: Registry) -> None:
    (bundle,) = _with_endpoint(registry, "a")
    before = registry.audit()
    assert registry.set_live("one", bundle, actor="ann", reason="again").route.version == 1
    assert registry.audit() == before


ROUTES: list[tuple[str, Callable[[Route], Route]]] = [
    ("a canary", lambda route: changes.start_canary(route, digest("b"), 0.1 + 0.2)),
    ("a shadow", lambda route: changes.start_shadow(route, digest("b"), 1e-9)),
    ("an A/B test", lambda route: changes.start_experiment(route, AB)),
    ("a bandit", lambda route: changes.start_experiment(route, BANDIT)),
    ("a previous bundle", lambda route: changes.promote(route, digest("b"))),
    ("stickiness", lambda route: replace(route, sticky_by=("tailnum", "é"), version=route.version + 1)),
    ("another description", lambda route: replace(route, description="new\0"[:3], version=route.version + 1)),
    (
        "everything at once",
        lambda route: replace(
            route,
            previous=digest("d"),
            canary=Canary(digest("b"), 0.5),
            shadow=Shadow(digest("c"), 0.75),
            experiment=BANDIT,
            sticky_by=("tailnum",),
            version=route.version + 1,
        ),
    ),
]


@pytest.mark.parametrize("change", [change for _, change in ROUTES], ids=[name for name, _ in ROUTES])
def test_a_route_is_read_back_exactly_as_it_was_changed(registry: Registry, change: Callable[[Route], Route]) -> None:
    _with_endpoint(registry, "a", "b", "c", "d")
    expected = change(registry.endpoint("one").route)
    assert _change(registry, RouteAction.START_CANARY, change) == expected
    assert registry.routes() == RoutingTable((expected,))
    assert set(registry.endpoint("one").names) == expected.bundles()


def test_parts_of_a_route_start_and_end_one_by_one(registry: Registry) -> None:
    _with_endpoint(registry, "a", "b", "c")
    steps: list[tuple[RouteAction, Callable[[Route], Route]]] = [
        (RouteAction.START_CANARY, lambda route: changes.start_canary(route, digest("b"), 0.05)),
        (RouteAction.SET_CANARY_SHARE, lambda route: changes.set_canary_share(route, 0.5)),
        (RouteAction.START_EXPERIMENT, lambda route: changes.start_experiment(route, AB)),
        (RouteAction.SET_ARM_SHARES, lambda route: changes.set_arm_shares(route, {"old": 0.6, "new": 0.4})),
        (RouteAction.START_SHADOW, lambda route: changes.start_shadow(route, digest("c"))),
        (RouteAction.ABORT, lambda route: changes.abort(route, Part.EXPERIMENT)),
        (RouteAction.PROMOTE, changes.promote),
        (RouteAction.ABORT, lambda route: changes.abort(route, Part.SHADOW)),
    ]
    expected = registry.endpoint("one").route
    for action, change in steps:
        expected = change(expected)
        assert _change(registry, action, change) == expected
        assert registry.endpoint("one").route == expected
    assert expected.live == digest("b")
    assert [each.action for each in registry.audit("one")] == ["create", *(action for action, _ in steps)]


def test_an_endpoint_never_uses_the_name_of_an_experiment_twice(registry: Registry) -> None:
    _with_endpoint(registry, "a", "b", "c")
    _change(registry, RouteAction.START_EXPERIMENT, lambda route: changes.start_experiment(route, AB))
    _change(registry, RouteAction.ABORT, lambda route: changes.abort(route, Part.EXPERIMENT))
    with pytest.raises(Conflict, match="had an experiment `wording` before"):
        _change(registry, RouteAction.START_EXPERIMENT, lambda route: changes.start_experiment(route, AB))
    assert registry.endpoint("one").route.experiment is None
    _change(registry, RouteAction.START_EXPERIMENT, lambda route: changes.start_experiment(route, BANDIT))


def test_an_experiment_keeps_its_arms_while_it_runs(registry: Registry) -> None:
    _with_endpoint(registry, "a", "b", "c")
    _change(registry, RouteAction.START_EXPERIMENT, lambda route: changes.start_experiment(route, AB))
    other = replace(AB, arms=(Arm("old", digest("a"), 0.25), Arm("new", digest("b"), 0.75)))
    with pytest.raises(InvalidDefinition, match="cannot go on with others"):
        _change(
            registry,
            RouteAction.SET_ARM_SHARES,
            lambda route: replace(route, experiment=other, version=route.version + 1),
        )


def test_the_database_lets_an_endpoint_run_one_experiment(registry: Registry, engine: Engine) -> None:
    _with_endpoint(registry, "a", "b", "c")
    _change(registry, RouteAction.START_EXPERIMENT, lambda route: changes.start_experiment(route, AB))
    columns = "kind, traffic, success, maximise, exploration_min, salt, layout, started_time, ended_time"
    another = f"INSERT INTO experiments (endpoint_name, name, {columns}) SELECT 'one', 'b', {columns} FROM experiments"
    unique = r"uq_experiments_running|UNIQUE constraint failed: experiments\.endpoint_name"
    writing = engine.execution_options(**{database.WRITES: True})
    with pytest.raises(IntegrityError, match=unique), writing.begin() as connection:
        connection.execute(text(another))


def test_an_unknown_endpoint_or_bundle_is_not_found_and_the_known_are_named(registry: Registry) -> None:
    (bundle,) = _with_endpoint(registry, "a")
    for act in (
        lambda: registry.endpoint("two"),
        lambda: registry.set_live("two", bundle, actor="ann", reason="why"),
        lambda: registry.rollback("two", actor="ann", reason="why"),
        lambda: registry.rollback_target("two"),
        lambda: registry.live_changes("two"),
    ):
        with pytest.raises(NotFound, match=r"endpoint `two` does not exist\. Known: `one`"):
            act()
    with pytest.raises(NotFound, match="bundle"):
        _promote(registry, digest("unknown"))


def test_every_change_is_audited_with_who_what_when_and_why(registry: Registry) -> None:
    first, second = _with_endpoint(registry, "a", "b")
    one = registry.endpoint("one").route
    two = registry.set_live("one", second, actor="ben", reason="AUROC +0.01").route
    three = registry.rollback("one", actor="eve", reason="late alerts", detail={"gates": "overridden"}).route
    events = registry.audit("one")
    assert [(each.action, each.actor, each.reason) for each in events] == [
        ("create", "ann", "start"), ("promote", "ben", "AUROC +0.01"), ("rollback", "eve", "late alerts"),
    ]  # fmt: skip
    assert [dict(each.detail) for each in events] == [
        {"from": None, "to": first, "version": 1, "before": None, "after": one.to_json()},
        {"from": first, "to": second, "version": 2, "before": one.to_json(), "after": two.to_json()},
        {"from": second, "to": first, "version": 3, "before": two.to_json(), "after": three.to_json(),
         "gates": "overridden"},
    ]  # fmt: skip
    assert [each.time for each in events] == sorted({each.time for each in events})
    assert [each.subject for each in registry.audit()] == [
        f"bundle/{first}", f"bundle/{second}", "endpoint/one", "endpoint/one", "endpoint/one",
    ]  # fmt: skip


def test_the_audit_trail_is_read_on_from_any_number(registry: Registry) -> None:
    first, second = _with_endpoint(registry, "a", "b")
    everything = registry.audit()
    assert registry.audit(after=everything[1].number, limit=1) == everything[2:3]
    assert registry.audit(after=everything[-1].number) == ()
    assert [each.detail["name"] for each in registry.audit(subject=f"bundle/{second}")] == ["b"]
    assert registry.audit(subject=f"bundle/{first}")[0].number < registry.audit("one")[0].number


def test_rollbacks_undo_promotions_one_by_one_until_none_is_left(registry: Registry) -> None:
    first, second, third = _with_endpoint(registry, "a", "b", "c")
    _promote(registry, second)
    _promote(registry, third)
    assert registry.live_changes("one") == (
        LiveChange(RouteAction.CREATE, first),
        LiveChange(RouteAction.PROMOTE, second),
        LiveChange(RouteAction.PROMOTE, third),
    )
    for expected, previous in ((second, first), (first, None)):
        assert registry.rollback_target("one") == expected
        route = registry.rollback("one", actor="ann", reason="undo").route
        assert (route.live, route.previous) == (expected, previous)
    with pytest.raises(Conflict, match="no earlier live bundle"):
        registry.rollback("one", actor="ann", reason="undo")


@pytest.mark.parametrize(
    ("actor", "reason"),
    [("", "why"), ("x" * 201, "why"), ("ann", "x" * 4_001), ("a\0", "why"), ("ann", "\0"), ("ann", "\udcff")],
)
def test_an_unusable_actor_or_reason_is_refused_and_nothing_changes(
    registry: Registry, actor: str, reason: str
) -> None:
    _first, second = _with_endpoint(registry, "a", "b")
    before = registry.endpoint("one")
    with pytest.raises(InvalidRequest, match=r"actor|reason"):
        registry.set_live("one", second, actor=actor, reason=reason)
    assert registry.endpoint("one") == before


def test_a_change_meant_for_an_older_version_is_refused(registry: Registry) -> None:
    _first, second, third = _with_endpoint(registry, "a", "b", "c")
    seen = registry.endpoint("one").route.version
    registry.set_live("one", second, actor="ann", reason="why", expected_version=seen)
    with pytest.raises(Conflict, match="is at version 2; the change was meant for version 1"):
        registry.set_live("one", third, actor="ben", reason="why", expected_version=seen)
    with pytest.raises(Conflict, match="is at version 2"):
        registry.rollback("one", actor="ben", reason="why", expected_version=seen)


def test_a_writer_that_read_an_older_version_loses(registry: Registry, engine: Engine) -> None:
    # Whatever a database lets two transactions read, the second to write is told so. Here the version is changed
    # under the session, between its read and its write.
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
    _with_endpoint(registry, "a", "c")
    _change(registry, RouteAction.START_EXPERIMENT, lambda route: changes.start_experiment(route, AB))
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    registry.routes()
    assert sum(statement.startswith("SELECT endpoints") for statement in statements) == 1, statements
    assert len(statements) <= 2, "SQLite says BEGIN"


def test_a_bundle_that_an_endpoint_uses_cannot_be_removed_behind_its_back(registry: Registry, engine: Engine) -> None:
    _with_endpoint(registry, "a")
    writing = engine.execution_options(**{database.WRITES: True})
    with pytest.raises(IntegrityError), writing.begin() as connection:
        connection.execute(text("DELETE FROM bundles"))


def test_a_retired_bundle_is_listed_no_more_and_no_route_can_name_it(registry: Registry) -> None:
    _first, second = _with_endpoint(registry, "a", "b")
    registry.retire_bundles([second, digest("never registered")], actor="gc", reason="unused")
    assert [bundle.name for bundle in registry.bundles()] == ["a"]
    assert [bundle.name for bundle in registry.bundles(include_retired=True)] == ["a", "b"]
    assert registry.bundle(second).retired_time is not None
    for change in (
        lambda: _promote(registry, second),
        lambda: _change(registry, RouteAction.START_SHADOW, lambda route: changes.start_shadow(route, second)),
        lambda: registry.create_endpoint("two", description="", bundle=second, actor="ann", reason="why"),
    ):
        with pytest.raises(Conflict, match=r"\(b\) is retired"):
            change()
    before = registry.audit()
    registry.retire_bundles([second], actor="gc", reason="again")
    assert registry.audit() == before, "it was retired already"
    registry.register_bundle(_bundle("b"))
    _promote(registry, second)
    assert [each.action for each in registry.audit(subject=f"bundle/{second}")] == ["register", "retire", "register"]


@pytest.mark.parametrize("change", [change for _, change in ROUTES[:5]], ids=[name for name, _ in ROUTES[:5]])
def test_no_bundle_that_a_route_names_can_be_retired(registry: Registry, change: Callable[[Route], Route]) -> None:
    made = _with_endpoint(registry, "a", "b", "c", "d")
    used = _change(registry, RouteAction.START_CANARY, change).bundles()
    with pytest.raises(Conflict, match="in use: endpoint `one`"):
        registry.retire_bundles(made, actor="gc", reason="unused")
    for bundle in used:
        with pytest.raises(Conflict, match=f"bundle `{bundle}` is in use: endpoint `one`"):
            registry.retire_bundles([bundle], actor="gc", reason="unused")
    registry.retire_bundles(set(made) - used, actor="gc", reason="unused")
    assert {bundle.digest for bundle in registry.bundles()} == used


def test_a_rollback_leaves_out_a_previous_bundle_that_was_retired_and_refuses_to_return_to_one(
    registry: Registry,
) -> None:
    first, second, third = _with_endpoint(registry, "a", "b", "c")
    _promote(registry, second)
    _promote(registry, third)
    registry.retire_bundles([first], actor="gc", reason="old")
    route = registry.rollback("one", actor="ann", reason="undo").route
    assert (route.live, route.previous) == (second, None)
    with pytest.raises(Conflict, match=r"\(a\) is retired; its files may be gone"):
        registry.rollback("one", actor="ann", reason="undo")
    assert registry.endpoint("one").route == route


def test_what_routes_rollbacks_experiments_and_recent_changes_name_is_referenced(registry: Registry) -> None:
    names = "abcdefgh"
    made = dict(zip(names, _with_endpoint(registry, *names), strict=True))
    for name in "defg":
        _promote(registry, made[name])
    _change(registry, RouteAction.START_EXPERIMENT, lambda route: changes.start_experiment(route, AB))
    now = registry.audit()[-1].time
    later, never = Micros(now + 1), Micros(1 << 60)
    # The live bundle, the one before it (which a rollback returns to), and the arms.
    assert registry.referenced_bundles(since=later) == {made[name] for name in "gfac"}
    _change(registry, RouteAction.ABORT, lambda route: changes.abort(route, Part.EXPERIMENT))
    assert registry.referenced_bundles(since=never) == {made[name] for name in "gf"}
    assert registry.referenced_bundles(since=later) == {made[name] for name in "gfac"}, "the change names the arms"
    registry.rollback("one", actor="ann", reason="undo")
    assert registry.referenced_bundles(since=never) == {made[name] for name in "fe"}
    assert registry.referenced_bundles() == set(made.values())
