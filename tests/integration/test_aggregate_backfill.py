"""A stream's past, taken in at once, is what the stream would have made of it; and what was changed online is found."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.aggregate_stores import StreamWorld, held, random_batches, told
from harness.aggregate_world import Batches, PlainLane
from harness.servers import ValkeyServer
from skewless.adapters.aggregate_backfill import backfill, rebuild
from skewless.adapters.aggregate_check import check
from skewless.adapters.aggregate_lane_step import OpenedStream
from skewless.adapters.duckdb_aggregates import GivenEvents
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.adapters.redis_replies import packed
from skewless.aggregates.compiled import CompiledAggregates
from skewless.errors import Conflict, InvalidRequest
from skewless.features.redis_layout import KeyTemplate, feature_field
from skewless.timestamps import SECOND_US

PAST = 15


@pytest.fixture
def world(valkey_server: ValkeyServer, tmp_path: Path) -> StreamWorld:
    return StreamWorld(tmp_path, valkey_server.url, project=f"p{uuid4().hex}")


@pytest.fixture
def store(world: StreamWorld) -> Iterator[BlockingRedisOnlineStore]:
    with closing(BlockingRedisOnlineStore(world.url)) as opened:
        yield opened


def _written(world: StreamWorld, batches: Batches, path: Path) -> Path:
    """Events of batches as a file, with when they became known."""
    tables = []
    for known, sent in batches:
        if sent:
            rows = world.batch(0, known, sent).rows
            tables.append(rows.append_column("created_time", pa.array([known] * len(sent), pa.timestamp("us", "UTC"))))
    pq.write_table(pa.concat_tables(tables), path)
    return path


def test_a_past_that_is_taken_in_and_what_comes_after_it_give_the_rows_of_one_stream(
    world: StreamWorld, store: BlockingRedisOnlineStore
) -> None:
    batches = random_batches(21, 30)
    path = _written(world, batches[:PAST], world.folder / "past.parquet")
    stream = OpenedStream.of(world, store)
    done = backfill(stream, GivenEvents(world.declaration, path))
    assert done.events == sum(len(sent) for _, sent in batches[:PAST])
    again = backfill(OpenedStream.of(world, store), GivenEvents(world.declaration, path))
    assert (again.events, again.rows) == (0, 0), "what is there is not taken in again"
    with closing(world.lane()) as lane:
        for number, (known, sent) in enumerate([*batches[PAST:], (batches[-1][0] + 100 * SECOND_US, [])], start=1):
            world.now = known
            if sent:
                lane.deliver(world.batch(number, known, sent))
            while lane.tick():
                pass
    plain = PlainLane(CompiledAggregates.of(world.declaration))
    for known, sent in [*batches, (world.now, [])]:
        plain.take(known, sent)
    expected = [(entity, row.event_time, row.created_time, row.values) for entity, row in plain.rows]
    assert held(world.declaration, world.offline()) == told(CompiledAggregates.of(world.declaration), expected)
    with pytest.raises(Conflict, match="has begun"):
        backfill(OpenedStream.of(world, store), GivenEvents(world.declaration, _written(world, batches, path)))


def test_a_past_without_created_times_was_known_when_it_happened_and_a_missing_column_is_named(
    world: StreamWorld, store: BlockingRedisOnlineStore
) -> None:
    _, sent = random_batches(22, 8)[-1]
    table = world.batch(0, 0, sent or random_batches(23, 1)[0][1]).rows
    path = world.folder / "past.parquet"
    pq.write_table(table.drop_columns(["dest"]), path)
    with pytest.raises(InvalidRequest, match="no column dest"):
        backfill(OpenedStream.of(world, store), GivenEvents(world.declaration, path))
    pq.write_table(table, path)
    backfill(OpenedStream.of(world, store), GivenEvents(world.declaration, path))
    assert {row["event_time"] <= row["created_time"] for row in world.offline()} <= {True}
    span = GivenEvents(world.declaration, path).span()
    assert span.events == table.num_rows


def test_what_somebody_changed_online_is_found_and_a_rebuild_keeps_what_is_right(
    world: StreamWorld, store: BlockingRedisOnlineStore
) -> None:
    batches = random_batches(24, 10)
    with closing(world.lane()) as lane:
        for number, (known, sent) in enumerate(batches, start=1):
            world.now = known
            if sent:
                lane.deliver(world.batch(number, known, sent))
            while lane.tick():
                pass
    stream = OpenedStream.of(world, store)
    right = check(stream)
    assert right.entities == right.equal > 0
    (key,) = KeyTemplate.compile(world.read.join_keys, world.project).keys(["a"])
    wrong = packed("EVAL", "return {redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])}", 1, key,
                   feature_field(world.read.view, "count_6s"), b" \x63")  # fmt: skip
    store.read([key], [wrong], timeout_s=5.0)
    found = check(stream)
    assert [(each.entity, each.features) for each in found.examples] == [({"tail": "a"}, ("count_6s",))]
    before = stream.states.lane()
    rebuild(stream)
    assert before is not None
    assert stream.states.timers() == world.state_keys() > 0
