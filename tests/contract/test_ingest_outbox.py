"""The outbox on both databases: what is accepted is kept once and in order, bounded, and told about."""

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from sqlalchemy import delete, update

from harness.ingest_world import EVENT_TIME, START_US, VIEW, IngestWorld, Row
from skewless.adapters.ingest_outbox import Outbox, packed_rows, unpacked_rows
from skewless.errors import (
    Conflict,
    InvalidDefinition,
    InvalidRequest,
    LimitExceeded,
    NotFound,
    Overloaded,
    Unavailable,
)
from skewless.ingestion.batches import BatchKind, BatchState, IncomingRequest
from skewless.parity.evidence import NOT_INGESTED, NOT_ONLINE
from skewless.registry.ingest_batches import Bounds, IngestBatches, PackedBatch
from skewless.registry.ingest_tables import IngestBatchRow, IngestLaneRow, IngestPayloadRow
from skewless.registry.transactions import system_clock
from skewless.timestamps import DAY_US, HOUR_US, SECOND_US, Micros

LANE = (BatchKind.ROWS, VIEW)
BATCH = PackedBatch(*LANE, b"rows", 1, None, (), Micros(0), "", 4)


@pytest.fixture
def world(tmp_path: Path, registry_url: str) -> Iterator[IngestWorld]:
    with closing(IngestWorld(tmp_path, registry_url, "redis://nowhere")) as made:
        yield made


def row(user: str, hour: int = 1) -> Row:
    return {"user": user, "shop": 1, EVENT_TIME: START_US + hour * HOUR_US, "price": 1.0, "count": 1, "label": user}


def waiting(world: IngestWorld, state: BatchState = BatchState.ACCEPTED) -> list[str]:
    found = world.batches.waiting(*LANE, state, batches_max=1_000, bytes_max=10**9)
    return [each.id for each in found]


def failed(world: IngestWorld, batch_id: str) -> None:
    lease = world.take_lease()
    state = world.batches.note_problem(lease, batch_id, "no", counts=True, tries_max=1)
    assert state is BatchState.FAILED
    world.leases.release(lease)


def test_what_is_accepted_waits_in_its_order_with_the_rows_as_they_came(world: IngestWorld) -> None:
    ids = [world.accept([row("a", hour), row("b", hour)]).id for hour in range(3)]
    assert waiting(world) == ids
    first, *_ = world.batches.waiting(*LANE, BatchState.ACCEPTED, batches_max=1, bytes_max=1)
    assert unpacked_rows(first.payload).column("user").to_pylist() == ["a", "b"]
    state = world.outbox.batch(ids[0])
    assert state is not None
    assert (state.kind, state.name, state.rows, state.state) == (*LANE, 2, BatchState.ACCEPTED)
    (lane,) = world.outbox.lanes()
    assert (lane.waiting_batches, lane.waiting_rows, lane.oldest_accepted_time) == (3, 6, state.accepted_time)
    assert lane.waiting_bytes > 0
    assert lane == world.outbox.lane(*LANE)
    assert world.outbox.lane(BatchKind.EVENTS, "other").waiting_batches == 0


def test_a_key_is_used_once_and_answers_again_what_it_answered(world: IngestWorld) -> None:
    accepted = world.accept([row("a")], key="k")
    with pytest.raises(Conflict, match="has used the idempotency key `k`"):
        world.accept([row("b")], key="k")
    stored = world.outbox.known_key(*LANE, "ann", "k")
    assert stored is not None
    assert (stored.batch_id, stored.answer) == (accepted.id, {"rows": 1})
    assert world.outbox.known_key(*LANE, "bob", "k") is None
    assert world.outbox.known_keys(BatchKind.EVENTS, VIEW, [("ann", "k")]) == {}
    assert waiting(world) == [accepted.id]


def test_accepted_times_grow_within_a_lane_whatever_the_clock_does(tmp_path: Path, registry_url: str) -> None:
    now = system_clock()
    times = iter([now, now - 10, now, now + 5_000])
    world = IngestWorld(tmp_path, registry_url, "redis://nowhere")
    with closing(world):
        clock = IngestBatches(world.batches._transactions._engine, clock=lambda: Micros(next(times)))
        found = [clock.accept(BATCH, Bounds(10**9, 10**9))[1] - now for _ in range(4)]
    assert found == [0, 1, 2, 5_000]


@pytest.mark.parametrize(("apart_s", "told"), [(3_600, "ahead of"), (-3_600, "behind")])
def test_a_machine_whose_clock_is_far_from_the_databases_neither_accepts_nor_retries(
    world: IngestWorld, apart_s: int, told: str
) -> None:
    accepted = world.accept([row("a")])
    failed(world, accepted.id)
    wrong = IngestBatches(
        world.batches._transactions._engine, clock=lambda: Micros(system_clock() + apart_s * SECOND_US)
    )
    with pytest.raises(Unavailable, match=f"clock is .* s {told} the database's. Allowed: 60 s"):
        wrong.accept(BATCH, Bounds(10**9, 10**9))
    with pytest.raises(Unavailable, match="clock"):
        wrong.retry(accepted.id, actor="ann", reason="mended")
    assert world.batches.retry(accepted.id, actor="ann", reason="mended").state is BatchState.ACCEPTED
    assert world.accept([row("a")]).accepted_time < system_clock() + HOUR_US / 2


def test_numbers_of_a_lane_go_past_any_that_were_given_before_whatever_the_database_has_lost(
    world: IngestWorld,
) -> None:
    before = world.accept([row("a")])
    lost = world.accept([row("a")])
    numbers = {each.id: each.number for each in world.batches.batches()}
    with world.batches._transactions.write() as session:  # the database as it was when it was backed up
        session.execute(delete(IngestPayloadRow).where(IngestPayloadRow.batch_id == lost.id))
        session.execute(delete(IngestBatchRow).where(IngestBatchRow.id == lost.id))
        session.execute(
            update(IngestLaneRow).values(next_number=numbers[before.id] + 1, last_time=before.accepted_time)
        )
    later = world.accept([row("a")])
    found = {each.id: each.number for each in world.batches.batches()}
    assert found[before.id] == numbers[before.id] < numbers[lost.id] < found[later.id]


def test_batches_that_have_failed_are_bounded_with_those_that_wait(world: IngestWorld) -> None:
    world.outbox = Outbox(world.batches, batches_max=2)
    ids = [world.accept([row("a")]).id for _ in range(2)]
    for each in ids:
        failed(world, each)
    with pytest.raises(Overloaded, match=r"2 batches with .* to be retried or dropped"):
        world.accept([row("a")])
    (lane,) = world.outbox.lanes()
    assert (lane.waiting_batches, lane.waiting_bytes, lane.failed_batches) == (0, 0, 2)
    assert lane.failed_bytes > 0
    world.batches.drop(ids[0], actor="ann", reason="not wanted")
    world.accept([row("a")])


def test_what_a_lane_takes_at_once_is_bounded_by_what_its_rows_are_in_memory(world: IngestWorld) -> None:
    long = {**row("a"), "label": "x" * 500_000}
    ids = [world.accept([long]).id for _ in range(5)]
    state = world.outbox.batch(ids[0])
    assert state is not None
    assert state.payload_bytes < 10_000
    for bytes_max, count in ((1, 1), (1_200_000, 2), (10**9, 5)):
        found = world.batches.waiting(*LANE, BatchState.ACCEPTED, batches_max=64, bytes_max=bytes_max)
        assert [each.id for each in found] == ids[:count]

    def all_of_them(rows: pa.Table) -> pa.Array:
        return pa.array([True] * rows.num_rows)

    assert world.outbox.erase(VIEW, all_of_them, dry_run=False) == 5
    assert len(world.batches.waiting(*LANE, BatchState.ACCEPTED, batches_max=64, bytes_max=1_000)) == 5


def test_too_much_that_waits_refuses_more_and_keeps_nothing_of_it(world: IngestWorld) -> None:
    small = Outbox(world.batches, batches_max=2)
    world.outbox = small
    world.accept([row("a")], key="1")
    world.accept([row("a")], key="2")
    with pytest.raises(Overloaded, match=r"2 batches with .* wait"):
        world.accept([row("a")], key="3")
    assert small.known_key(*LANE, "ann", "3") is None
    world.outbox = Outbox(world.batches, bytes_max=10)
    with pytest.raises(Overloaded):
        world.accept([row("a")])
    assert len(waiting(world)) == 2


def test_a_batch_of_too_many_rows_is_refused(world: IngestWorld) -> None:
    with pytest.raises(LimitExceeded, match="200,001 rows"):
        world.accept(pa.table({"user": pa.nulls(200_001, pa.string())}))
    assert world.outbox.lanes() == ()


def test_writers_at_once_are_numbered_in_their_order_and_no_two_alike(world: IngestWorld) -> None:
    errors: list[Exception] = []

    def accept() -> None:
        try:
            for _ in range(8):
                world.accept([row("a")])
        except Exception as error:  # noqa: BLE001  # a thread's boundary: the test tells it
            errors.append(error)

    threads = [threading.Thread(target=accept) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert errors == []
    found = world.batches.waiting(*LANE, BatchState.ACCEPTED, batches_max=100, bytes_max=10**9)
    numbers = [each.number for each in found]
    assert (len(numbers), numbers) == (32, sorted(set(numbers)))
    times = [each.accepted_time for each in found]
    assert times == sorted(set(times))


def test_who_has_lost_the_lease_marks_nothing(world: IngestWorld) -> None:
    accepted = world.accept([row("a")])
    lost = world.take_lease()
    world.leases.release(lost)
    held = world.take_lease()
    for mark in (
        lambda: world.batches.mark_online(lost, [accepted.id]),
        lambda: world.batches.mark_done(lost, [accepted.id], was_online=True),
        lambda: world.batches.note_problem(lost, accepted.id, "no", counts=True, tries_max=1),
    ):
        with pytest.raises(Conflict, match="not held any more"):
            mark()
    assert waiting(world) == [accepted.id]
    world.batches.mark_online(held, [accepted.id])
    assert waiting(world, BatchState.ONLINE) == [accepted.id]


def test_a_failed_batch_is_retried_as_the_last_or_dropped_and_both_are_audited(world: IngestWorld) -> None:
    first, second, third = (world.accept([row("a")]) for _ in range(3))
    for each in (first, second):
        failed(world, each.id)
    assert [each.id for each in world.batches.batches(state=BatchState.FAILED)] == [second.id, first.id]
    retried = world.batches.retry(first.id, actor="ann", reason="mended")
    assert retried.accepted_time == first.accepted_time
    last = world.outbox.batch(third.id)
    assert last is not None
    assert retried.number > last.number
    assert waiting(world) == [third.id, first.id]
    dropped = world.batches.drop(second.id, actor="ann", reason="not wanted")
    assert (dropped.state, dropped.payload_bytes) == (BatchState.DROPPED, 0)
    assert world.batches.payload(second.id) is None
    with pytest.raises(Conflict, match="`dropped`; only one that has failed"):
        world.batches.retry(second.id, actor="ann", reason="again")
    with pytest.raises(NotFound):
        world.batches.drop("nothing", actor="ann", reason="no")


def test_what_is_done_is_forgotten_in_time_and_what_waits_never(tmp_path: Path, registry_url: str) -> None:
    world = IngestWorld(tmp_path, registry_url, "redis://nowhere")
    with closing(world):
        done, still = world.accept([row("a")], key="1"), world.accept([row("a")], key="2")
        lease = world.take_lease()
        world.batches.mark_online(lease, [done.id])
        world.batches.mark_done(lease, [done.id], was_online=True)
        engine = world.batches._transactions._engine  # the same database at another time
        assert IngestBatches(engine, clock=lambda: Micros(done.accepted_time + HOUR_US)).forget() == 0
        later = IngestBatches(engine, clock=lambda: Micros(done.accepted_time + 8 * DAY_US))
        assert later.forget() == 3
        assert world.outbox.batch(done.id) is None
        assert waiting(world) == [still.id]
        assert world.outbox.known_key(*LANE, "ann", "2") is None


def test_matching_rows_are_erased_from_what_waits_and_from_what_failed(world: IngestWorld) -> None:
    first, second = world.accept([row("a"), row("b")]), world.accept([row("a")])
    failed(world, second.id)
    world.accept([row("c")])

    def is_a(rows: pa.Table) -> pa.Array:
        return pc.equal(rows.column("user"), "a").combine_chunks()

    assert world.outbox.erase(VIEW, is_a, dry_run=True) == 2
    assert world.outbox.erase(VIEW, is_a, dry_run=False) == 2
    assert world.outbox.erase(VIEW, is_a, dry_run=True) == 0
    kept = world.batches.payload(first.id)
    assert kept is not None
    assert unpacked_rows(kept).column("user").to_pylist() == ["b"]
    state = world.outbox.batch(second.id)
    assert state is not None
    assert state.rows == 0


def test_the_reason_of_a_failed_batch_goes_with_the_rows_that_it_may_name(world: IngestWorld) -> None:
    kept, shrunk = world.accept([row("b")]), world.accept([row("ann"), row("b")])
    lease = world.take_lease()
    for each in (kept, shrunk):
        world.batches.note_problem(lease, each.id, "`ann` cannot be written", counts=True, tries_max=1)
    world.leases.release(lease)
    world.outbox.erase(VIEW, lambda rows: pc.equal(rows.column("user"), "ann").combine_chunks(), dry_run=False)
    states = [world.outbox.batch(each.id) for each in (kept, shrunk)]
    assert [state is not None and "ann" in state.error for state in states] == [True, False]
    assert states[1] is not None
    assert states[1].error, "who looks at the batch is told why there is no reason"


def test_bytes_that_are_no_rows_are_refused() -> None:
    packed = packed_rows(pa.table({"x": [1]}))
    for wrong in (b"", b"rows", packed[: len(packed) // 2]):
        with pytest.raises(InvalidDefinition, match="cannot be read"):
            unpacked_rows(wrong)


def test_two_requests_of_a_batch_have_no_key_in_common(world: IngestWorld) -> None:
    request = IncomingRequest("ann", "k", "0" * 64, 1, {})
    batch = PackedBatch(*LANE, b"rows", 2, None, (request, request), Micros(0), "", 8)
    with pytest.raises(InvalidRequest, match="have one key"):
        world.batches.accept(batch, Bounds(10**9, 10))


def test_it_is_known_when_the_rows_of_a_moment_were_online(world: IngestWorld) -> None:
    there, waits = world.accept([row("a")]), world.accept([row("a")])
    moment = world.batches.mark_online(world.take_lease(), [there.id])
    asked = np.array([waits.accepted_time, there.accepted_time, 5, there.accepted_time], dtype=np.int64)
    assert world.batches.online_times(VIEW, asked).tolist() == [NOT_ONLINE, moment, NOT_INGESTED, moment]
    assert world.batches.online_times("another", asked).tolist() == [NOT_INGESTED] * 4
