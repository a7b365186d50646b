"""Several writers at once, threads and processes, on SQLite and PostgreSQL: one wins, and the past has one order."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, event, select

from harness.postgres import PostgresServer
from skewless.canonical_json import Digest, digest
from skewless.errors import Conflict
from skewless.registry import database
from skewless.registry.records import BundleRecord
from skewless.registry.repository import Registry
from skewless.registry.tables import BundleRow
from skewless.rollout import changes
from skewless.rollout.counts import ArmCounts
from skewless.rollout.history import RouteAction
from skewless.rollout.routes import Arm, Experiment, ExperimentKind
from skewless.timestamps import Micros

RACERS = 4
ROUNDS = 3
# Waits for the line that starts the race, promotes, and says how it went.
PROMOTER = """
import sys
from skewless.errors import Conflict
from skewless.registry.database import engine
from skewless.registry.repository import Registry
url, version, bundle = sys.argv[1:]
registry = Registry(engine(url))
registry.endpoints()
print("ready", flush=True)
sys.stdin.readline()
try:
    registry.set_live("one", bundle, actor=bundle[:8], reason="race", expected_version=int(version))
    print("won")
except Conflict:
    print("lost")
registry.close()
"""


@pytest.fixture
def engine(registry_url: str) -> Iterator[Engine]:
    made = database.engine(registry_url)
    yield made
    made.dispose()


@pytest.fixture
def registry(engine: Engine) -> Registry:
    return Registry(engine)


def _bundles(registry: Registry, count: int) -> list[Digest]:
    """Register so many bundles, and make the first live on `one`."""
    made = [digest(f"bundle {number}") for number in range(count)]
    for number, own in enumerate(made):
        registry.register_bundle(BundleRecord(own, f"b{number}", Micros(number), own, own, own, {}))
    registry.create_endpoint("one", description="", bundle=made[0], actor="ann", reason="start")
    return made


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


def _promotion(registry: Registry, bundle: Digest, *, expected_version: int | None = None) -> Callable[[], object]:
    return lambda: registry.set_live("one", bundle, actor=bundle[:8], reason="race", expected_version=expected_version)


def _check_history(registry: Registry) -> None:
    """The audit trail of the endpoint is one chain, in the order of its numbers and versions, and ends at the route."""
    events = registry.audit("one")
    assert [each.number for each in events] == sorted({each.number for each in events})
    details = [each.detail for each in events]
    assert [detail["version"] for detail in details] == list(range(1, len(details) + 1))
    assert [detail["before"] for detail in details[1:]] == [detail["after"] for detail in details[:-1]]
    assert registry.endpoint("one").route.to_json() == details[-1]["after"]


def test_of_promotions_of_one_version_by_threads_exactly_one_wins(registry: Registry) -> None:
    _first, *others = _bundles(registry, 1 + RACERS)
    for version in range(1, ROUNDS + 1):
        candidates = [each for each in others if each != registry.endpoint("one").route.live]
        raised = _race([_promotion(registry, bundle, expected_version=version) for bundle in candidates])
        assert sum(error is None for error in raised) == 1, raised
        assert registry.endpoint("one").route.live == candidates[raised.index(None)]
    _check_history(registry)


def test_of_promotions_of_one_version_by_processes_exactly_one_wins(registry: Registry, registry_url: str) -> None:
    _first, *others = _bundles(registry, 1 + RACERS)
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROMOTER, registry_url, "1", bundle],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for bundle in others
    ]  # fmt: skip
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    # All of them wait for this; the loop takes less time than a promotion does.
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60)[0].strip() for process in running]
    assert sorted(said) == ["lost"] * (RACERS - 1) + ["won"]
    assert registry.endpoint("one").route.live == others[said.index("won")]
    assert len(registry.audit("one")) == 2
    _check_history(registry)


def test_promotions_that_expect_no_version_are_one_chain_too(registry: Registry) -> None:
    _first, *others = _bundles(registry, 1 + RACERS)
    for _ in range(ROUNDS):
        before = len(registry.audit("one"))
        raised = _race([_promotion(registry, bundle) for bundle in others])
        changed = len(registry.audit("one")) - before
        # One that finds its bundle live already succeeds and changes nothing.
        assert 1 <= changed <= sum(error is None for error in raised)
    _check_history(registry)


def test_a_promotion_and_a_rollback_at_once_are_one_chain(registry: Registry) -> None:
    first, second, third = _bundles(registry, 3)
    registry.set_live("one", second, actor="ann", reason="better")
    for _ in range(ROUNDS):
        undo: Callable[[], object] = lambda: registry.rollback("one", actor="ann", reason="undo")  # noqa: E731
        _race([_promotion(registry, third), undo])
        _check_history(registry)
        assert registry.endpoint("one").route.live in {first, second, third}
        if registry.endpoint("one").route.live != second:
            registry.set_live("one", second, actor="ann", reason="again")


def test_audit_numbers_are_in_the_order_of_commits_also_between_endpoints(registry: Registry) -> None:
    # Whoever reads on from the last number seen must never miss an event that was committed later with a lower one.
    _bundles(registry, 1)
    stop = threading.Event()
    seen: list[int] = []

    def follow() -> None:
        while True:
            ended = stop.is_set()
            seen.extend(each.number for each in registry.audit(after=seen[-1] if seen else 0))
            if ended:
                return

    def write(writer: int) -> None:
        for number in range(15):
            own = digest([writer, number])
            registry.register_bundle(BundleRecord(own, "more", Micros(1), own, own, own, {}))

    follower = threading.Thread(target=follow)
    follower.start()
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(write, range(3)))
    stop.set()
    follower.join()
    assert seen == [each.number for each in registry.audit()]
    assert len(seen) == 2 + 45


def test_a_bundle_is_never_retired_and_routed_to_at_once(registry: Registry) -> None:
    made = _bundles(registry, 2 * ROUNDS)
    for bundle in made[1:]:
        retire: Callable[[], object] = lambda given=bundle: registry.retire_bundles(  # type: ignore[misc]  # noqa: E731
            [given], actor="gc", reason="unused"
        )
        raised = _race([_promotion(registry, bundle), retire])
        routed = registry.endpoint("one").route.live == bundle
        retired = registry.bundle(bundle).retired_time is not None
        assert routed != retired
        assert [error is None for error in raised] == [routed, retired]


def test_a_change_waits_for_a_retirement_that_is_not_committed_and_then_refuses(
    postgres_server: PostgresServer,
) -> None:
    # SQLite has one writer at a time. PostgreSQL lets both begin, so the row of the bundle is what they queue at.
    engine = database.engine(postgres_server.empty_database())
    registry = Registry(engine)
    _first, second = _bundles(registry, 2)
    waiting = threading.Event()

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if "FOR SHARE" in statement:
            waiting.set()

    event.listen(engine, "before_cursor_execute", note)
    with engine.begin() as connection, ThreadPoolExecutor(1) as pool:
        connection.execute(select(BundleRow.digest).where(BundleRow.digest == second).with_for_update())
        promotion = pool.submit(_promotion(registry, second))
        assert waiting.wait(30)
        connection.execute(BundleRow.__table__.update().where(BundleRow.digest == second).values(retired_time=1))  # type: ignore[attr-defined]  # a Table
        connection.commit()
        with pytest.raises(Conflict, match="is retired"):
            promotion.result(30)
    registry.close()


def test_one_segment_of_outcomes_is_counted_once_whoever_adds_it(registry: Registry) -> None:
    first, second = _bundles(registry, 2)
    experiment = Experiment("e", ExperimentKind.AB, (Arm("a", first, 0.5), Arm("b", second, 0.5)), 0.5, "late")
    registry.change_route(
        "one",
        lambda route: changes.start_experiment(route, experiment),
        action=RouteAction.START_EXPERIMENT,
        actor="ann",
        reason="try",
    )
    added: list[bool] = []
    for segment in range(ROUNDS):
        adding: Callable[[], object] = lambda name=f"s{segment}": added.append(  # type: ignore[misc]  # noqa: E731
            registry.add_counts("one", "e", name, {"a": ArmCounts(2, 1)})
        )
        assert _race([adding] * RACERS) == [None] * RACERS
    assert sorted(added) == [False] * ROUNDS * (RACERS - 1) + [True] * ROUNDS
    assert registry.experiment_counts("one", "e") == {"a": ArmCounts(2 * ROUNDS, ROUNDS), "b": ArmCounts()}


def test_an_endpoint_of_one_name_is_created_once(registry: Registry) -> None:
    (bundle,) = _bundles(registry, 1)
    create: Callable[[], object] = lambda: registry.create_endpoint(  # noqa: E731
        "two", description="", bundle=bundle, actor="ann", reason="race"
    )
    raised = _race([create] * RACERS)
    assert sum(error is None for error in raised) == 1
    assert len(registry.audit("two")) == 1
