"""Lanes deliver by themselves: what is woken at once, what others accepted soon, and one process at a time per lane."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.ingest_world import EVENT_TIME, START_US, VIEW, IngestWorld, Row, assert_stores_agree, made_rows
from harness.servers import running_valkey
from skewless.adapters.ingest_delivery import IngestDelivery
from skewless.adapters.ingest_lane import DeliveredBatch
from skewless.adapters.ingest_lane_thread import DeliveryTimes
from skewless.adapters.offline_tables import OfflineTable
from skewless.errors import Conflict
from skewless.ingest_limits import LANE_POLL_S, OFFLINE_COMPACT_FILES_MIN
from skewless.ingestion.batches import BatchKind, BatchState, Delivered, LaneHandler, StoredBatch
from skewless.stack.ports import free_ports
from skewless.timestamps import HOUR_US

LANE = (BatchKind.ROWS, VIEW)
DEADLINE_S = 60.0
QUICK = DeliveryTimes(lease_s=2.0, turn_s=0.5, idle_s=0.5, settle_s=0.1)


@pytest.fixture(scope="module")
def store_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_valkey(tmp_path_factory.mktemp("valkey")) as valkey:
        yield valkey.url


@pytest.fixture
def world(tmp_path: Path, store_url: str) -> Iterator[IngestWorld]:
    with closing(IngestWorld.made(tmp_path, store_url)) as made:
        yield made


def row(user: str, label: str) -> Row:
    return {"user": user, "shop": 1, EVENT_TIME: START_US + HOUR_US, "price": 1.0, "count": 1, "label": label}


def until(condition: Callable[[], bool]) -> None:
    """Return when the condition holds."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "it never came true"
        threading.Event().wait(0.02)


def stopped(*deliveries: IngestDelivery) -> None:
    assert [each.stop(DEADLINE_S) for each in deliveries] == [True] * len(deliveries)


def test_two_processes_deliver_one_lane_and_every_row_arrives_once(world: IngestWorld) -> None:
    told: list[DeliveredBatch] = []
    deliveries = [world.delivery(times=QUICK, on_delivered=told.append) for _ in range(2)]
    for each in deliveries:
        each.start()
    sent = 0
    for number, rows in enumerate(made_rows(seed=3, batches=30)):
        sent += world.accept(rows).rows
        deliveries[number % 2].wake(*LANE)
    until(lambda: not world.batches.working())
    until(lambda: not any(each.state().lanes for each in deliveries))  # idle lanes end
    stopped(*deliveries)
    assert len(world.offline()) == sent
    assert_stores_agree(world)
    done = [each.id for each in told if each.offline_time is not None]
    assert len(done) == len(set(done)) == 30
    assert all(each.accepted_time <= each.online_time for each in told)


def test_what_another_process_accepted_is_found_without_being_woken(world: IngestWorld) -> None:
    delivery = world.delivery(times=QUICK)
    delivery.start()
    accepted = world.accept([row("a", "found")])
    until(lambda: (state := world.outbox.batch(accepted.id)) is not None and state.state is BatchState.DONE)
    stopped(delivery)


def test_rows_wait_while_the_online_store_is_away_and_arrive_when_it_is_back(tmp_path: Path) -> None:
    port = free_ports(1)[0]
    with closing(IngestWorld.made(tmp_path, f"redis://127.0.0.1:{port}")) as world:
        delivery = world.delivery(times=QUICK)
        delivery.start()
        accepted = [world.accept([row("a", str(number))]) for number in range(3)]
        until(lambda: bool(world.failures))
        state = world.outbox.batch(accepted[0].id)
        assert state is not None
        assert (state.state, state.tries) == (BatchState.ACCEPTED, 0)
        assert "unavailable" in state.error
        with running_valkey(tmp_path, port=port):
            until(lambda: not world.batches.working())
            stopped(delivery)
            assert [each["label"] for each in world.offline()] == ["0", "1", "2"]
            assert_stores_agree(world)


def test_lanes_go_on_when_a_database_that_was_away_is_back(world: IngestWorld) -> None:
    delivery = world.delivery(times=QUICK)
    delivery.start()
    first = world.accept([row("a", "0")])
    until(lambda: (state := world.outbox.batch(first.id)) is not None and state.state is BatchState.DONE)
    # The file itself goes first and comes last, so that nobody opens it without its log.
    names = sorted(each.name for each in world.folder.glob("registry.sqlite*"))
    for name in names:
        (world.folder / name).rename(world.folder / f"hidden-{name}")
    until(lambda: bool(delivery.state().problem))
    for name in reversed(names):
        (world.folder / f"hidden-{name}").rename(world.folder / name)
    second = world.accept([row("a", "1")])
    until(lambda: (state := world.outbox.batch(second.id)) is not None and state.state is BatchState.DONE)
    until(lambda: not delivery.state().problem)
    stopped(delivery)
    assert sorted(each["label"] for each in world.offline()) == ["0", "1"]


class Ticking:
    """A handler that stands by: it counts its ticks, and what it delivers is whole."""

    def __init__(self) -> None:
        self.ticks = 0
        self.delivered: list[str] = []
        self.is_closed = False

    def deliver(self, batch: StoredBatch) -> Delivered:
        self.delivered.append(batch.id)
        return Delivered(is_whole=True)

    def settle(self, batches: Sequence[StoredBatch]) -> None:
        raise AssertionError(f"{len(batches)} batches that were whole are settled")

    def tick(self) -> bool:
        self.ticks += 1
        return False

    def close(self) -> None:
        self.is_closed = True


def test_a_lane_that_stands_by_ticks_under_its_lease_and_gives_others_a_turn(world: IngestWorld) -> None:
    made: list[Ticking] = []

    def handlers(_kind: BatchKind, _name: str) -> LaneHandler:
        made.append(Ticking())
        return made[-1]

    delivery = world.delivery(handlers, standing=lambda: [LANE], times=QUICK)
    delivery.start()
    until(lambda: bool(made) and made[0].ticks > 3)
    accepted = world.accept([row("a", "event")])
    delivery.wake(*LANE)
    until(lambda: not world.batches.working())
    state = world.outbox.batch(accepted.id)
    assert state is not None
    assert (state.state, made[0].delivered) == (BatchState.DONE, [accepted.id])
    until(lambda: _taken(world))
    stopped(delivery)
    assert (len(made), made[0].is_closed) == (1, True)


def _taken(world: IngestWorld) -> bool:
    """Whether the lane's lease could be had for a moment, as a deletion asks for it."""
    try:
        lease = world.take_lease()
    except Conflict:
        return False
    world.leases.release(lease)
    return True


def test_a_table_that_cannot_be_put_together_is_told_and_keeps_no_other_from_it(world: IngestWorld) -> None:
    good, wrong = world.folder / "good", world.folder / "wrong"
    for folder in (wrong, good):
        table = OfflineTable(folder)
        for number in range(OFFLINE_COMPACT_FILES_MIN):
            table.append(pa.table({"x": [number]}), writer="w", number=number + 1)
    first, *_ = OfflineTable(wrong).files()
    pq.write_table(pa.table({"x": [[1]]}), wrong / first.path)  # as another job that has other types
    times = replace(QUICK, compact_s=0.05)
    delivery = world.delivery(tables=lambda: [wrong, good], times=times)
    delivery.start()
    until(lambda: len(OfflineTable(good).files()) == 1)
    until(lambda: bool(delivery.state().problem))
    # It stays told while lanes are looked for, which goes well.
    for _ in range(20):
        assert "tables are not put together" in delivery.state().problem
        threading.Event().wait(LANE_POLL_S / 10)
    shutil.rmtree(wrong)
    until(lambda: not delivery.state().problem)
    stopped(delivery)
