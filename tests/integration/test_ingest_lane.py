"""A lane brings every accepted row to both stores once, in the order of acceptance, whatever fails meanwhile."""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest

from harness.ingest_world import (
    CREATED_TIME,
    EVENT_TIME,
    PROJECT,
    START_US,
    VIEW,
    IngestWorld,
    Row,
    assert_stores_agree,
    made_rows,
)
from harness.servers import running_valkey
from skewless.adapters.ingest_lane import IngestLane
from skewless.adapters.offline_tables import OfflineTable, TableFile
from skewless.adapters.redis_maintenance import OnlineStoreMaintenance
from skewless.errors import InvalidDefinition, Unavailable
from skewless.features.chosen_entities import ChosenEntities
from skewless.ingest_limits import LANE_TRIES_MAX
from skewless.ingestion.batches import BatchKind, BatchState, Delivered, StoredBatch
from skewless.registry.entity_deletions import DeletionRequest
from skewless.registry.leases import Lease
from skewless.timestamps import HOUR_US

NEVER = threading.Event()
LANE = (BatchKind.ROWS, VIEW)


@pytest.fixture(scope="module")
def store_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_valkey(tmp_path_factory.mktemp("valkey")) as valkey:
        yield valkey.url


@pytest.fixture
def world(tmp_path: Path, store_url: str) -> Iterator[IngestWorld]:
    with closing(OnlineStoreMaintenance(store_url, PROJECT)) as maintenance:
        maintenance.clear()
    with closing(IngestWorld.made(tmp_path, store_url)) as made:
        yield made


def row(user: str, hour: int, label: str, **more: object) -> Row:
    moment = START_US + hour * HOUR_US
    return {"user": user, "shop": 1, EVENT_TIME: moment, "price": 1.0, "count": 1, "label": label, **more}


def work(lane: IngestLane, lease: Lease, steps: int = 100) -> None:
    """Step until nothing is done."""
    for _ in range(steps):
        if not lane.step(lease, NEVER):
            return


def state_of(world: IngestWorld, batch_id: str) -> BatchState:
    found = world.outbox.batch(batch_id)
    assert found is not None
    return found.state


def test_rows_are_visible_online_before_they_are_offline_and_done_when_both_have_them(world: IngestWorld) -> None:
    accepted = world.accept([row("a", 1, "first")])
    lane, lease = world.lane(world.handler(), settle_s=3600), world.take_lease()
    work(lane, lease)
    assert state_of(world, accepted.id) is BatchState.ONLINE
    assert world.online([(1, "a")]) == [(START_US + HOUR_US, {"price": 1.0, "count": 1, "label": "first"})]
    assert world.offline() == []
    work(world.lane(world.handler()), lease)
    state = world.outbox.batch(accepted.id)
    assert state is not None
    assert (state.state, state.payload_bytes) == (BatchState.DONE, 0)
    assert state.accepted_time <= (state.online_time or 0) <= (state.offline_time or 0)
    assert [each["label"] for each in world.offline()] == ["first"]


def test_stores_agree_over_late_restated_and_repeated_rows(world: IngestWorld) -> None:
    lane, lease = world.lane(world.handler()), world.take_lease()
    sent = 0
    for rows in made_rows(seed=5, batches=12):
        accepted = world.accept(rows)
        sent += accepted.rows
        lane.step(lease, NEVER)
    work(lane, lease)
    assert len(world.offline()) == sent
    assert_stores_agree(world)


def test_a_row_becomes_known_when_its_batch_was_accepted_and_a_given_time_stays(world: IngestWorld) -> None:
    given = START_US + 5
    accepted = world.accept([row("a", 1, "now"), row("b", 1, "given", **{CREATED_TIME: given})])
    work(world.lane(world.handler()), world.take_lease())
    known = {each["label"]: each[CREATED_TIME] for each in world.offline()}
    assert known == {"now": accepted.accepted_time, "given": given}


def test_two_batches_of_one_moment_are_known_one_after_the_other(world: IngestWorld) -> None:
    times = [world.accept([row("a", 1, str(number))], received_us=START_US).accepted_time for number in range(20)]
    assert times == sorted(set(times))
    work(world.lane(world.handler()), world.take_lease())
    assert_stores_agree(world)
    assert world.online([(1, "a")]) == [(START_US + HOUR_US, {"price": 1.0, "count": 1, "label": "19"})]


def test_of_equal_rows_of_one_batch_the_last_one_stays(world: IngestWorld) -> None:
    accepted = world.accept([row("a", 1, "x"), row("b", 1, "y"), row("a", 1, "z"), row("a", 2, "w")])
    assert (accepted.rows, accepted.duplicates) == (3, 1)
    work(world.lane(world.handler()), world.take_lease())
    assert sorted(each["label"] for each in world.offline()) == ["w", "y", "z"]


def test_a_batch_without_rows_is_done_and_leaves_nothing(world: IngestWorld) -> None:
    # All of its rows were set aside; its key is kept, so that a repeat is answered alike.
    accepted = world.accept([], key="k")
    other = world.accept([row("a", 1, "x")])
    until_done(world, world.lane(world.handler()), world.take_lease())
    assert (state_of(world, accepted.id), state_of(world, other.id)) == (BatchState.DONE, BatchState.DONE)
    assert [each["label"] for each in world.offline()] == ["x"]


class Flaky:
    """A handler whose stores fail as they are told to, and then do as the one within."""

    def __init__(self, world: IngestWorld, *, deliver: Sequence[Exception] = (), settle: Sequence[Exception] = ()):
        self._within = world.handler()
        self._deliver, self._settle = list(deliver), list(settle)

    def deliver(self, batch: StoredBatch) -> Delivered:
        if self._deliver:
            raise self._deliver.pop()
        return self._within.deliver(batch)

    def settle(self, batches: Sequence[StoredBatch]) -> None:
        if self._settle:
            raise self._settle.pop()
        self._within.settle(batches)


def until_done(world: IngestWorld, lane: IngestLane, lease: Lease) -> None:
    """Step, past pauses, until the outbox is empty."""
    for _ in range(400):
        lane.step(lease, NEVER)
        if not world.batches.working():
            return
        NEVER.wait(min(lane.wait_s, 0.05))
    raise AssertionError(f"still waiting: {world.outbox.lanes()}")


def test_a_store_that_is_away_is_waited_for_and_order_is_kept(world: IngestWorld) -> None:
    for number in range(3):
        world.accept([row("a", 1, str(number))])
    away = [Unavailable("a store", "it is away")]
    until_done(world, world.lane(Flaky(world, deliver=away * 2, settle=away * 2)), world.take_lease())
    assert [each["label"] for each in world.offline()] == ["0", "1", "2"]
    assert_stores_agree(world)
    assert {each.state for each in world.failures} == {BatchState.ACCEPTED, BatchState.ONLINE}


def test_rows_go_on_online_while_the_offline_store_is_away(world: IngestWorld) -> None:
    away = [Unavailable("a store", "it is away")] * 1_000
    lane, lease = world.lane(Flaky(world, settle=away)), world.take_lease()
    for number in range(4):
        accepted = world.accept([row("a", number, str(number))])
        work(lane, lease)
        assert state_of(world, accepted.id) is BatchState.ONLINE
    (waiting,) = world.outbox.lanes()
    assert (waiting.waiting_batches, waiting.newest_event_time) == (4, START_US + 3 * HOUR_US)


def test_rows_wait_online_for_a_disk_that_is_away(world: IngestWorld) -> None:
    place = world.folder / "clicks"
    place.write_text("what is mounted elsewhere")
    accepted = world.accept([row("a", 1, "0")])
    lane, lease = world.lane(world.handler()), world.take_lease()
    for _ in range(3):
        lane.step(lease, NEVER)
    assert state_of(world, accepted.id) is BatchState.ONLINE
    assert "cannot be read or written" in world.failures[0].error
    place.unlink()
    until_done(world, lane, lease)
    assert [each["label"] for each in world.offline()] == ["0"]


@pytest.mark.parametrize("refused", ["deliver", "settle"])
def test_a_batch_that_is_refused_is_set_aside_and_those_behind_it_go_on(world: IngestWorld, refused: str) -> None:
    wrong = pa.table({"user": ["a"], "shop": ["no number"]} if refused == "deliver" else {})
    if refused == "deliver":
        for name in (EVENT_TIME, CREATED_TIME):
            wrong = wrong.append_column(name, pa.array([START_US], pa.timestamp("us", "UTC")))
        ids = [world.accept([row("a", 1, "0")]).id, world.accept(wrong).id, world.accept([row("a", 1, "2")]).id]
        lane = world.lane(world.handler())
    else:
        ids = [world.accept([row("a", 1, str(number))]).id for number in range(3)]
        lane = world.lane(RefusesSecond(world, ids[1]))
    until_done(world, lane, world.take_lease())
    assert [state_of(world, each) for each in ids] == [BatchState.DONE, BatchState.FAILED, BatchState.DONE]
    assert sorted(each["label"] for each in world.offline()) == ["0", "2"]
    told = [each for each in world.failures if each.state is BatchState.FAILED]
    assert [each.batch_id for each in told] == [ids[1]]


class RefusesSecond(Flaky):
    """Its offline store refuses one batch."""

    def __init__(self, world: IngestWorld, refused: str) -> None:
        super().__init__(world)
        self.refused = refused

    def settle(self, batches: Sequence[StoredBatch]) -> None:
        if any(each.id == self.refused for each in batches):
            raise InvalidDefinition("a value does not fit")
        super().settle(batches)


def test_a_retried_batch_is_delivered_though_later_ones_are_in_the_table_already(world: IngestWorld) -> None:
    ids = [world.accept([row("a", 1, str(number))]).id for number in range(3)]
    handler, lease = RefusesSecond(world, ids[1]), world.take_lease()
    until_done(world, world.lane(handler), lease)
    handler.refused = ""
    world.batches.retry(ids[1], actor="ann", reason="mended")
    until_done(world, world.lane(handler), lease)
    assert sorted(each["label"] for each in world.offline()) == ["0", "1", "2"]
    assert_stores_agree(world)


def test_after_the_registry_was_restored_new_rows_are_appended_and_what_waited_is_not_appended_again(
    world: IngestWorld,
) -> None:
    lease = world.take_lease()
    world.accept([row("a", 1, "before")])
    until_done(world, world.lane(world.handler()), lease)
    waits = world.accept([row("a", 2, "waits")])
    backup = world.folder / "backup.sqlite"
    copied(world.folder / "registry.sqlite", backup)
    lost = world.accept([row("a", 3, "lost")])
    until_done(world, world.lane(world.handler()), lease)
    copied(backup, world.folder / "registry.sqlite")
    assert (state_of(world, waits.id), world.outbox.batch(lost.id)) == (BatchState.ACCEPTED, None)
    world.accept([row("a", 4, "after")])
    until_done(world, world.lane(world.handler()), lease)
    assert [each["label"] for each in world.offline()] == ["before", "waits", "lost", "after"]
    assert_stores_agree(world)


def copied(source: Path, target: Path) -> None:
    """Have one database hold what another does."""
    with closing(sqlite3.connect(source)) as read, closing(sqlite3.connect(target)) as written:
        read.backup(written)


class OvertakenTable(OfflineTable):
    """A table whose columns another process changes while each of its files is written."""

    def _write(self, rows: pa.Table) -> TableFile:
        written = super()._write(rows)
        other = OfflineTable(self._folder)
        other._writable(pa.schema([(f"{written.path}", pa.int64())]))
        return written


def test_a_batch_is_not_to_blame_for_who_else_writes_to_its_table(world: IngestWorld) -> None:
    accepted = world.accept([row("a", 1, "0")])
    handler, lease = world.handler(), world.take_lease()
    work(world.lane(handler, settle_s=3600), lease)
    handler._table = OvertakenTable(world.folder / "clicks")
    for _ in range(LANE_TRIES_MAX + 1):
        world.lane(handler).step(lease, NEVER)  # a lane of its own each time, which has nothing to wait for
    assert len(world.failures) == LANE_TRIES_MAX + 1
    assert "another process changed" in world.failures[0].error
    assert state_of(world, accepted.id) is BatchState.ONLINE
    until_done(world, world.lane(world.handler()), lease)
    assert [each["label"] for each in world.offline()] == ["0"]


def test_a_settled_batch_whose_mark_was_lost_is_not_appended_again(world: IngestWorld) -> None:
    for number in range(3):
        world.accept([row("a", number, str(number))])
    lane, lease = world.lane(world.handler(), settle_s=3600), world.take_lease()
    work(lane, lease)
    handler = world.handler()
    found = world.batches.waiting(*LANE, BatchState.ONLINE, batches_max=2, bytes_max=10**9)
    handler.settle([lane._stored(each) for each in found])  # as a lane that is killed before its mark
    until_done(world, world.lane(world.handler()), lease)
    assert sorted(each["label"] for each in world.offline()) == ["0", "1", "2"]


def test_rows_of_a_deleted_entity_reach_neither_store(world: IngestWorld) -> None:
    world.accept([row("a", 1, "gone"), row("b", 1, "stays")])
    entities = ChosenEntities({"shop": "1", "user": "a"})
    world.deletions.begin(DeletionRequest(entities, actor="ann", reason="asked for"))
    world.accept([row("a", 2, "after")])
    until_done(world, world.lane(world.handler()), world.take_lease())
    assert sorted(each["label"] for each in world.offline()) == ["after", "stays"]
    assert_stores_agree(world)
