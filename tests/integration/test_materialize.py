"""Materialization over a real Valkey and SQLite: what is taken, written, kept, noticed and gone on with."""

import random
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from shutil import copy
from typing import Any

import pytest
from redis import Redis

from harness.materialize_world import VIEW, MaterializeWorld, Row, counts, drawn_rows, micros, newest, table_of
from harness.naive_suites import NaiveRunner
from harness.servers import ValkeyServer
from skewless.adapters.feature_rows_arrow import feature_rows
from skewless.adapters.materialization import FEAST, Judged, lease_names
from skewless.adapters.online_writer import OnlineWriter
from skewless.adapters.quality_gate import QualityGate
from skewless.adapters.quarantine import Quarantine
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.errors import Conflict, Unavailable, VerificationFailed
from skewless.features.chosen_entities import ChosenEntities
from skewless.features.materialization import ASKED_FOR, EARLIER, OTHER_DEFINITION, OTHER_STORE, SINCE, Kind
from skewless.features.redis_layout import KeyTemplate, project_of
from skewless.quality.catalogue import BETWEEN
from skewless.quality.suite import Expectation, OnFailure, Suite
from skewless.registry.database import engine
from skewless.registry.entity_deletions import DeletionRequest, Deletions
from skewless.registry.leases import Leases
from skewless.registry.materializations import MaterializationRun, RunState
from skewless.registry.quality_results import QualityResults
from skewless.timestamps import Micros


@pytest.fixture
def world(
    tmp_path: Path, valkey_server: ValkeyServer, sqlite_registry: Path, request: pytest.FixtureRequest
) -> Iterator[MaterializeWorld]:
    """A world whose project no other test uses."""
    file = copy(sqlite_registry, tmp_path / "registry.db")
    database = engine(f"sqlite:///{file}")
    project = "".join(each for each in request.node.name if each.isalnum())
    made = MaterializeWorld(valkey_server.url, project, tmp_path / "weather.parquet", database)
    made.arrive([])
    yield made
    database.dispose()


@pytest.mark.parametrize("seed", range(2))
def test_after_each_run_every_entity_is_online_as_it_is_visible_offline(world: MaterializeWorld, seed: int) -> None:
    rng = random.Random(seed)
    rows = sorted(drawn_rows(rng, 300, stations=40, until=100), key=lambda row: row.known)
    kinds = []
    for as_of in (10, 30, 31, 70, 100, 250):
        # A job writes what it knows; a third of it with the next batch, after rows that became known later.
        known = [row for row in rows if row.known <= as_of + rng.choice([0, 20])]
        world.arrive([row for row in known if row not in world.rows])
        run = world.run(as_of, overlap_us=micros(60) - micros(0))
        kinds.append(run.kind)
        world.assert_right(as_of)
        assert run.verified_rows > 0
        assert run.entity_rows <= run.source_rows
    assert kinds == [Kind.FULL, *[Kind.INCREMENTAL] * 5]


def test_an_incremental_run_takes_what_became_known_and_nothing_else(world: MaterializeWorld) -> None:
    old = [Row(f"s{n}", 1, 2, n) for n in range(50)]
    world.arrive([*old, Row("ahead", 40, 3, 7), Row("ahead", 5, 3, 8)])
    first = world.run(10)
    assert (first.kind, counts(first)) == (Kind.FULL, {"new": 51, "replaced": 0, "older": 0, "same": 0})
    world.arrive([Row("s1", 1, 12, 100), Row("s2", 0, 12, 101), Row("s3", 11, 12, 102), Row("fresh", 11, 11, 103)])
    second = world.run(20)
    assert (second.kind, second.source_rows) == (Kind.INCREMENTAL, 4)
    assert counts(second) == {"new": 1, "replaced": 2, "older": 1, "same": 0}, "restated, newer, late"
    world.assert_right(20)

    third = world.run(50)  # what was known for long has happened by now
    assert (third.source_rows, counts(third)["replaced"]) == (1, 1)
    world.assert_right(50)
    assert world.run(50, full=True).reason == ASKED_FOR
    watermark = world.records.watermark("weather")
    assert watermark is not None
    assert (watermark.as_of, watermark.created_time, watermark.event_time) == (micros(50), micros(12), micros(40))
    assert [at for _, at in world.feast.recorded] == [micros(each) for each in (10, 20, 50, 50)]


def test_rows_that_come_late_into_the_source_are_found_within_the_overlap(world: MaterializeWorld) -> None:
    world.arrive([Row("a", 1, 100, 1)])
    world.run(100)
    world.arrive([Row("b", 2, 95, 2), Row("c", 2, 60, 3)])
    assert world.run(110, overlap_us=micros(10) - micros(0)).source_rows == 2, "a again, and b"
    assert set(world.online(["a", "b", "c"])) == {"a", "b"}
    world.run(110, full=True)
    world.assert_right(110)


def test_a_run_over_rows_that_are_there_changes_nothing_and_says_so(world: MaterializeWorld) -> None:
    world.arrive(drawn_rows(random.Random(3), 100, stations=30, until=50))
    first = world.run(60)
    before = _hashes(world)
    again = world.run(60, full=True)
    assert counts(again) == {"new": 0, "replaced": 0, "older": 0, "same": first.new_rows}
    assert _hashes(world) == before
    assert len(before) == first.new_rows


@pytest.mark.parametrize("lost", ["emptied", "mark"])
def test_another_store_than_the_last_runs_is_filled_as_a_whole(world: MaterializeWorld, lost: str) -> None:
    world.arrive([Row("a", 1, 1, 1), Row("b", 1, 2, 2)])
    world.run(10)
    marks = f"skewless:materialized:{world.project}".encode()
    with closing(Redis.from_url(world.url)) as redis:
        redis.delete(marks, *(_hashes(world) if lost == "emptied" else ()))
    world.arrive([Row("c", 11, 11, 3)])
    run = world.run(20)
    assert (run.kind, run.reason, run.source_rows) == (Kind.FULL, OTHER_STORE, 3)
    world.assert_right(20)
    assert world.run(30).kind is Kind.INCREMENTAL


def test_a_store_that_was_emptied_is_only_as_far_as_it_was_filled_again(world: MaterializeWorld) -> None:
    world.arrive([Row("a", 1, 1, 1), Row("b", 20, 20, 2)])
    world.run(30)
    with closing(Redis.from_url(world.url)) as redis:
        redis.delete(f"skewless:materialized:{world.project}", *_hashes(world))
    assert world.run(10).reason == OTHER_STORE
    watermark = world.records.watermark("weather")
    assert watermark is not None
    assert (watermark.as_of, watermark.created_time) == (micros(10), micros(1))
    assert world.run(30).new_rows == 1
    world.assert_right(30)


def test_a_changed_definition_is_written_for_rows_that_are_there_already(world: MaterializeWorld) -> None:
    world.arrive([Row("a", 1, 1, 4), Row("b", 1, 2, 8)])
    world.view = replace(VIEW, features=VIEW.features[:2])
    world.run(10)
    world.view = VIEW
    run = world.run(10)
    assert (run.reason, counts(run)["replaced"]) == (OTHER_DEFINITION, 2)
    world.assert_right(10)


def test_going_back_in_time_keeps_what_is_newer_and_the_next_run_goes_on_from_there(world: MaterializeWorld) -> None:
    world.arrive([Row("a", 1, 1, 1), Row("a", 20, 20, 2)])
    world.run(30)
    run = world.run(10)
    assert (run.reason, counts(run)["older"]) == (EARLIER, 1)
    world.assert_right(30)
    watermark = world.records.watermark("weather")
    assert watermark is not None
    assert watermark.as_of == micros(10)
    again = world.run(40)
    assert (again.kind, counts(again)["same"]) == (Kind.INCREMENTAL, 1)


def test_a_moment_too_late_makes_one_run_full_and_not_all_until_then(world: MaterializeWorld) -> None:
    world.arrive([Row("a", 10, 10, 1)])
    world.run(1_000_000)
    assert [world.run(as_of).reason for as_of in (20, 30, 40)] == [EARLIER, SINCE, SINCE]


def test_rows_that_come_after_none_were_found_to_judge_are_left_to_the_next_run(world: MaterializeWorld) -> None:
    world.arrive([Row("a", 1, 1, 1)])
    world.run(10)
    materializer = world.materializer(100)
    planned = materializer.plan("weather")
    assert planned.run.source_rows == 0
    world.arrive([Row("b", 50, 50, 2)])
    with world.leased() as keeper:
        run = materializer.run(planned, keeper)
    assert (run.state, run.new_rows, set(world.online(["b"]))) == (RunState.DONE, 0, set())
    assert world.run(110).new_rows == 1


def test_as_many_entities_are_compared_as_are_asked_for_however_many_rows_they_have(world: MaterializeWorld) -> None:
    world.arrive([Row(f"s{number % 100}", number, number, number) for number in range(8_000)])
    assert world.run(8_000, verify_rows=60).verified_rows == 60


def test_a_backfill_answers_for_the_rows_of_its_span_alone(world: MaterializeWorld) -> None:
    world.arrive([Row("a", 10, 10, 1), Row("a", 50, 50, 2)])
    run = world.run(60, from_time=micros(5), to_time=micros(30))
    assert (run.state, run.verified_rows) == (RunState.DONE, 1)
    assert world.online(["a"])["a"][0] == 10
    world.progress = _blanking(world, "a")
    with pytest.raises(VerificationFailed, match="1 of 1 entities"):
        world.run(60, from_time=micros(5), to_time=micros(30))


def test_rows_that_come_into_the_source_after_they_were_read_are_the_next_runs(world: MaterializeWorld) -> None:
    world.arrive([Row("a", 10, 10, 1), Row("b", 10, 10, 3)])

    def meanwhile(*_: object) -> None:
        world.progress = lambda *_: None
        world.arrive([Row("a", 50, 55, 2), Row("b", 10, 55, 4)])

    world.progress = meanwhile
    assert world.run(60).verified_rows == 2
    second = world.run(61)
    assert (second.kind, second.replaced_rows) == (Kind.INCREMENTAL, 2)
    world.assert_right(61)


def test_a_backfill_takes_rows_of_its_span_and_leaves_the_watermark(world: MaterializeWorld) -> None:
    world.arrive([Row("a", 50, 50, 1)])
    world.run(60)
    before = world.records.watermark("weather")
    world.arrive([Row("a", 10, 10, 2), Row("b", 10, 10, 3), Row("c", 30, 30, 4)])
    run = world.run(60, from_time=micros(5), to_time=micros(30))
    assert (run.kind, run.source_rows, counts(run)["new"], counts(run)["older"]) == (Kind.BACKFILL, 2, 1, 1)
    assert set(world.online(["a", "b", "c"])) == {"a", "b"}
    assert world.records.watermark("weather") == before


def test_a_view_whose_source_has_no_created_time_takes_what_happened_since(world: MaterializeWorld) -> None:
    world.has_created_time = False
    world.arrive([Row("a", 1, 1, 1), Row("b", 5, 5, 2)])
    world.run(10)
    world.arrive([Row("a", 12, 12, 3)])
    run = world.run(20)
    assert (run.kind, run.source_rows) == (Kind.INCREMENTAL, 1)
    world.assert_right(20)
    world.rows = [row._replace(wind=row.wind + 100) for row in world.rows]  # corrected under its old event time
    world.arrive([])
    assert counts(world.run(20, full=True)) == {"new": 0, "replaced": 2, "older": 0, "same": 0}
    world.assert_right(20)
    assert counts(world.run(20, full=True))["same"] == 2


def test_rows_of_a_deleted_entity_are_not_written_and_newer_ones_are(world: MaterializeWorld) -> None:
    world.arrive([Row("a", 1, 1, 1), Row("gone", 1, 1, 2), Row("back", 1, 1, 3)])
    with closing(Deletions(world.engine)) as deletions:
        for station in ("gone", "back"):
            deletions.begin(DeletionRequest(ChosenEntities({"station": station}), before=Micros(micros(5))))
    assert world.run(10).new_rows == 1
    assert set(world.online(["a", "gone", "back"])) == {"a"}
    world.arrive([Row("back", 12, 12, 4)])
    world.run(20)
    assert set(world.online(["a", "gone", "back"])) == {"a", "back"}
    with pytest.raises(Conflict, match="rows of entities that were deleted"):
        world.run(20, engine=FEAST)


def test_an_incremental_run_is_judged_by_the_rows_that_it_takes_and_writes_those_that_pass(
    world: MaterializeWorld, tmp_path: Path
) -> None:
    expectation = Expectation(BETWEEN, {"column": "wind", "max_value": 100}, on_failure=OnFailure.QUARANTINE)
    suite = Suite("weather", "weather", (expectation,), reviewed="2024-01-01", quarantine_share_max=1.0)
    with closing(QualityResults(world.engine)) as results:
        gate = QualityGate({"weather": suite}, NaiveRunner(), results, Quarantine(tmp_path / "quarantine"))

        def run(as_of: int) -> MaterializationRun:
            materializer = world.materializer(as_of, rules=gate.rules())
            planned = materializer.plan("weather")
            judged = gate.judged(planned.stored, planned.run.as_of, bounds=planned.run.taking.bounds)
            with world.leased() as keeper, judged as rows:
                assert rows is not None
                source = replace(planned.stored.source, path=str(rows))
                return materializer.run(planned, keeper, Judged(source, gate.outcomes[-1].run.set_aside))

        world.arrive([Row("a", 1, 1, 1), Row("b", 1, 1, 200), Row("c", 1, 1, 3)])
        assert (run(10).new_rows, run(10).set_aside_rows) == (2, 0)
        world.arrive([Row("a", 11, 11, 300), Row("c", 11, 11, 4), Row("d", 11, 11, 5)])
        second = run(20)
        assert (second.kind, second.set_aside_rows) == (Kind.INCREMENTAL, 1)
        assert [each.run.rows for each in gate.outcomes] == [3, 0, 3]
        assert [each.run.set_aside for each in gate.outcomes] == [1, 0, 1]
    assert {name: values[1][1] for name, values in world.online(list("abcd")).items()} == {"a": 1, "c": 4, "d": 5}


def test_a_dry_run_counts_what_would_become_of_rows_and_changes_nothing(world: MaterializeWorld) -> None:
    world.arrive([Row("a", 1, 1, 1), Row("b", 1, 1, 2), Row("c", 9, 9, 3)])
    world.run(10)
    world.arrive([Row("a", 2, 11, 4), Row("c", 3, 11, 5), Row("d", 3, 11, 6), Row("d", 4, 11, 7)])
    materializer = world.materializer(20)
    planned = materializer.plan("weather")
    assert planned.run.source_rows == 4
    assert materializer.compare(planned) == (1, 1, 1, 0)
    assert "d" not in world.online(["d"])
    assert len(world.records.runs("weather")) == 1
    assert world.records.unfinished("weather") is None
    full = world.materializer(20, full=True)
    assert full.compare(full.plan("weather")) == (1, 1, 0, 2)


def test_only_one_run_of_a_view_goes_on_at_a_time_and_the_other_hears_who(world: MaterializeWorld) -> None:
    world.arrive([Row("a", 1, 1, 1)])
    leases = Leases(world.engine)
    held = leases.take(lease_names(["weather"])[0], "ann@there pid 7", lease_s=600)
    with pytest.raises(Conflict, match="`view:weather` is held by ann@there pid 7"):
        world.run(10)
    leases.release(held)
    assert world.run(10).state is RunState.DONE


def test_a_lost_lease_stops_a_run_before_it_notes_anything(world: MaterializeWorld) -> None:
    world.arrive([Row("a", 1, 1, 1)])
    materializer = world.materializer(10)
    with world.leased() as keeper:
        leases = Leases(world.engine)
        planned = materializer.plan("weather")
        leases.release(keeper.held["view:weather"])
        leases.take("view:weather", "somebody", lease_s=600)
        with pytest.raises(Conflict, match="not held any more; somebody has it now"):
            materializer.run(planned, keeper)
    assert world.records.runs("weather") == ()
    assert world.records.watermark("weather") is None


def test_a_failed_verification_names_the_entity_and_both_values_and_moves_nothing(world: MaterializeWorld) -> None:
    world.arrive([Row("a", 1, 1, 4), Row("b", 1, 1, 8)])
    world.progress = _blanking(world, "b")
    with pytest.raises(VerificationFailed) as caught:
        world.run(10)
    assert "1 of 2 entities of feature view `weather`" in caught.value.message
    (example,) = caught.value.examples
    assert "station 'b': event time online 2024-03-01T00:00:01Z, offline 2024-03-01T00:00:01Z" in example
    assert "temp online None, offline 2.0; wind online None, offline 8" in example
    (run,) = world.records.runs("weather")
    assert (run.state, run.error) == (RunState.FAILED, caught.value.message)
    assert "station" not in str(caught.value), "what is kept and told names neither keys nor values"
    assert world.records.watermark("weather") is None
    assert world.feast.recorded == []


def test_rows_that_others_wrote_meanwhile_are_no_fault(world: MaterializeWorld) -> None:
    world.arrive([Row("a", 1, 1, 4), Row("b", 1, 1, 8)])
    newer = [Row("a", 15, 15, 6), Row("b", 1, 50, 7)]  # dated ahead of the run, and restated after it

    def meanwhile(_view: str, _done: int, _total: int) -> None:
        source = world.stored.views["weather"].source
        with closing(BlockingRedisOnlineStore(world.url)) as store:
            OnlineWriter(store, world.project, VIEW, has_created_time=True).write(
                feature_rows(table_of(newer), VIEW, source)
            )

    world.progress = meanwhile
    assert world.run(10).verified_rows == 2
    assert {station: values[1][1] for station, values in world.online(["a", "b"]).items()} == {"a": 6, "b": 7}


def test_a_source_that_is_away_is_told_before_anything_is_begun(world: MaterializeWorld) -> None:
    world.path.unlink()
    with pytest.raises(Unavailable, match="a source cannot be read"):
        world.run(10)
    assert world.records.runs() == ()


def _blanking(world: MaterializeWorld, station: str) -> Callable[[str, int, int], None]:
    """What makes nulls of a station's values whenever a run says how far it is."""
    (key,) = KeyTemplate.compile(VIEW.join_keys, world.project).keys([station])

    def blank(*_: object) -> None:
        with closing(Redis.from_url(world.url)) as redis:
            client: Any = redis
            client.hset(key, mapping={name: b"" for name in client.hkeys(key) if len(name) == 4})

    return blank


def _hashes(world: MaterializeWorld) -> dict[bytes, dict[bytes, bytes]]:
    """Every hash of the world's project."""
    with closing(Redis.from_url(world.url)) as redis:
        client: Any = redis
        return {key: client.hgetall(key) for key in client.scan_iter(count=1_000) if project_of(key) == world.project}


def test_newest_is_what_the_twin_of_the_rule_says() -> None:
    rows = [Row("a", 1, 5, 1), Row("a", 1, 4, 2), Row("a", 9, 2, 3), Row("b", 1, 1, 9), Row("b", 1, 1, 8)]
    assert newest(rows, 5) == {"a": rows[0], "b": rows[4]}
    assert newest(rows, 9)["a"] == rows[2]
