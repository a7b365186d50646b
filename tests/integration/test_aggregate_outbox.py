"""Events through the real outbox, lanes and leases, by the real clock: rows come, and go again when windows end."""

from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pyarrow as pa

from harness.aggregate_stores import StreamWorld, held
from harness.polling import until
from harness.servers import ValkeyServer
from skewless.adapters.aggregate_backfill import rows_until
from skewless.adapters.aggregate_check import check
from skewless.adapters.aggregate_lane import AggregateLane
from skewless.adapters.aggregate_lane_rows import event_batch, source_table
from skewless.adapters.aggregate_lane_step import OpenedStream
from skewless.adapters.ingest_delivery import IngestDelivery
from skewless.adapters.ingest_outbox import Outbox
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.aggregates.aggregation import count, mean
from skewless.aggregates.declaration import StreamAggregates
from skewless.aggregates.windows import sliding
from skewless.canonical_json import digest
from skewless.dtypes import Dtype, column_of
from skewless.features.value_encoding import stored_values
from skewless.ingestion.batches import BatchKind, IncomingBatch, IncomingRequest
from skewless.registry import database
from skewless.registry.entity_deletions import Deletions
from skewless.registry.ingest_batches import IngestBatches
from skewless.registry.leases import Leases
from skewless.registry.transactions import system_clock

NAME = "movements"
STREAM = StreamAggregates(
    name=NAME,
    view="activity",
    keys={"tail": Dtype.STRING},
    fields={"delay": Dtype.FLOAT64},
    aggregates=[
        count(sliding("4s", every="1s")),
        mean("delay", sliding("3s", every="1s")),
        count(sliding("2d", every="1d")),
    ],
    lateness="1m",
)


def _accept(outbox: Outbox, number: int, delays: dict[str, float]) -> None:
    now = system_clock()
    rows = pa.table(
        {
            "tail": pa.array(list(delays), pa.string()),
            "delay": pa.array(list(delays.values()), pa.float64()),
            "event_time": pa.array([now] * len(delays), pa.timestamp("us", "UTC")),
        }
    )
    request = IncomingRequest("ann", f"key-{number}", digest(number), rows.num_rows, {})
    outbox.accept(IncomingBatch(BatchKind.EVENTS, NAME, rows, (request,), now, event_time="event_time"))


async def test_events_of_the_outbox_are_counted_once_and_leave_their_windows_on_time(
    valkey_server: ValkeyServer, tmp_path: Path
) -> None:
    world = StreamWorld(tmp_path, valkey_server.url, declaration=STREAM, project=f"p{uuid4().hex}")
    url = f"sqlite:///{tmp_path / 'registry.sqlite'}"
    database.upgrade(url)
    engine = database.engine(url)

    def handler(_kind: BatchKind, name: str) -> AggregateLane:
        return AggregateLane(name, lambda _: world, lambda: BlockingRedisOnlineStore(world.url), Deletions(engine))

    def counts() -> list[bytes | None]:
        online = world.online("a")
        return [] if online is None else [online[1][0], online[1][2]]

    def whole(*numbers: int) -> list[bytes]:
        return [stored_values(column_of(Dtype.INT64, [each]))[0] for each in numbers]

    with closing(IngestBatches(engine)) as batches:
        outbox = Outbox(batches)
        delivery = IngestDelivery(batches, Leases(engine), handler, standing=lambda: [(BatchKind.EVENTS, NAME)])
        delivery.start()
        try:
            _accept(outbox, 1, {"a": 1.5, "b": 2.0})
            _accept(outbox, 2, {"a": 2.5})
            delivery.wake(BatchKind.EVENTS, NAME)
            await until(lambda: counts()[1:] == whole(2))
            await until(lambda: counts() == whole(0, 2))  # four seconds later, and nobody sent anything
        finally:
            assert delivery.stop(30.0)
        assert batches.working() == []
    with closing(handler(BatchKind.EVENTS, NAME)) as lane:
        while lane.tick():  # an entity's timer may have been due when delivery stopped
            pass
    with closing(BlockingRedisOnlineStore(world.url)) as store:
        stream = OpenedStream.of(world, store)
        record = stream.states.lane()
        assert record is not None
        (table,) = stream.stored_events.counted(since=0, until=record.known)
        keys, rows = rows_until(stream, event_batch(stream.compiled, stream.template, table), record.known)
        listed = [keys[number] for number in rows.entities.tolist()]
        times = (rows.event_times, rows.created_times)
        made = source_table(stream.compiled, stream.source, listed, rows.columns, times)
        for name in ("event_time", "created_time"):
            made = made.set_column(made.column_names.index(name), name, made.column(name).cast(pa.int64()))
        assert sorted(held(STREAM, made.to_pylist())) == sorted(held(STREAM, world.offline()))
        findings = check(stream)
        assert findings.entities == findings.equal + findings.newer
