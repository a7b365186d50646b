"""What streaming aggregates cost: batches of events taken by a stream's lane, beside the bare writes that they end in.

The lane adds events up for six features over windows of an hour and a day, of 2,000 entities, over a Valkey and two
Delta tables on this machine. The floor writes as many rows of as many entities by the same writers: a table of the
events, a row per entity online, a table of rows; nothing is computed, and no state kept. Both take turns.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bench.measure import Block, Timing, cpu_ratio, ratio, timing_of
from bench.read_store import running_valkey
from bench.report import Case, Goal, Options, SuiteResult
from skewless.adapters.aggregate_lane import AggregateLane
from skewless.adapters.feature_rows_arrow import feature_rows
from skewless.adapters.offline_tables import OfflineTable
from skewless.adapters.online_writer import OnlineWriter
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.aggregates.aggregation import count, distinct, last, maximum, mean, total
from skewless.aggregates.declaration import StreamAggregates
from skewless.aggregates.windows import sliding
from skewless.dtypes import TABLE, Dtype
from skewless.features.contract import ViewRead
from skewless.features.point_in_time import OfflineSource, SourceForm
from skewless.ingestion.batches import BatchKind, StoredBatch
from skewless.stack.ports import LOOPBACK
from skewless.timestamps import SECOND_US, Micros

ENTITIES = 2_000
SIZES = (1, 100, 1_000)
FLOOR, LANE = "bare writes", "lane"
OF_FLOOR_MAX = 6.0
"""At 1,000 events; a small batch is its commits, which both make."""
_START_US = 1_000_000 * SECOND_US
_EVERY_US = 10 * SECOND_US
_HOUR, _DAY = sliding("1h", every="5m"), sliding("1d", every="1h")
_MOMENT = pa.timestamp("us", "UTC")
DECLARATION = StreamAggregates(
    name="movements",
    view="activity",
    keys={"tail": Dtype.STRING},
    fields={"delay": Dtype.FLOAT64, "seats": Dtype.INT64, "dest": Dtype.STRING},
    aggregates=[
        count(_HOUR),
        mean("delay", _HOUR),
        maximum("delay", _HOUR),
        total("seats", _DAY),
        distinct("dest", _DAY),
        last("dest", _DAY),
    ],
)
NOTES = (
    "One call is one batch. Batches are 10 s apart by the lane's clock, so that windows' ends come and are answered.",
    "The floor makes the same two commits of Delta tables and writes as many rows online.",
)


@dataclass(frozen=True, slots=True)
class _Stream:
    """Implements `StreamSource`."""

    folder: Path
    project: str
    declaration: StreamAggregates = DECLARATION

    @property
    def read(self) -> ViewRead:
        """The view."""
        return self.declaration.view_read

    @property
    def source(self) -> OfflineSource:
        """Its rows."""
        path = str(self.folder / "activity")
        return OfflineSource("activity", path, "event_time", "created_time", form=SourceForm.DELTA)


def run(options: Options) -> SuiteResult:
    """Measure; about a minute."""
    cases = []
    with running_valkey(options.scratch) as port:
        for size in SIZES:
            options.progress(f"{size} events a batch")
            cases.append(_case(options, f"redis://{LOOPBACK}:{port}", size))
    largest = cases[-1].timings
    goal = Goal(
        f"lane / bare writes, {SIZES[-1]:,} events", ratio(largest[LANE], largest[FLOOR]), OF_FLOOR_MAX, at_most=True
    )
    return SuiteResult(suite="aggregates", cases=tuple(cases), goals=(goal,), floor=FLOOR, notes=NOTES)


def _case(options: Options, store_url: str, size: int) -> Case:
    folder = options.scratch / f"events-{size}"
    folder.mkdir()
    stream = _Stream(folder, f"bench{size}")
    chosen, per_turn = random.Random(size), 2 if options.quick else 5  # noqa: S311  # a benchmark's data
    blocks: dict[str, list[Block]] = {FLOOR: [], LANE: []}
    clock = {"now": _START_US}

    def opened() -> BlockingRedisOnlineStore:
        return BlockingRedisOnlineStore(store_url)

    lane = AggregateLane("movements", lambda _: stream, opened, None, clock=lambda: clock["now"])
    with closing(lane), closing(opened()) as store:
        floor = _Floor(stream, store)
        number = 0
        for _ in range(options.repetitions + 1):
            batches = []
            for _ in range(per_turn):
                number += 1
                batches.append(_batch(chosen, number, size))
            blocks[FLOOR].append(_timed(floor.write, batches))
            blocks[LANE].append(_timed(lambda batch: _taken(lane, clock, batch), batches))
    timings: dict[str, Timing] = {name: timing_of(each[1:]) for name, each in blocks.items()}  # the first one warms up
    facts = {
        "events_per_s": round(size / (timings[LANE].p50_us / 1e6), 1),
        "cpu_ratio": round(cpu_ratio(timings[LANE], timings[FLOOR]).median, 2),
        "rows_per_event": round(lane.totals.rows / (number * size), 3),
    }
    return Case(f"{size:,} events", {"events": size, "entities": ENTITIES}, timings, facts=facts)


def _taken(lane: AggregateLane, clock: dict[str, int], batch: StoredBatch) -> None:
    clock["now"] = batch.accepted_time
    lane.deliver(batch)
    while lane.tick():
        pass


def _timed(call: Callable[[StoredBatch], None], batches: Sequence[StoredBatch]) -> Block:
    walls, cpu = [], time.process_time_ns()
    for batch in batches:
        begun = time.perf_counter_ns()
        call(batch)
        walls.append(time.perf_counter_ns() - begun)
    return Block(tuple(walls), time.process_time_ns() - cpu)


class _Floor:
    """Writes a batch's events as they are, and a row of each of their entities, without computing any."""

    def __init__(self, stream: _Stream, store: BlockingRedisOnlineStore) -> None:
        beside = _Stream(stream.folder / "floor", f"{stream.project}floor")
        beside.folder.mkdir()
        self._view, self._source = beside.read, beside.source
        self._writer = OnlineWriter(store, beside.project, beside.read, has_created_time=True)
        self._rows, self._events = OfflineTable(beside.folder / "activity"), OfflineTable(beside.folder / "events")

    def write(self, batch: StoredBatch) -> None:
        """All that the lane writes of it."""
        self._events.append(batch.rows, writer="floor", number=batch.number)
        rows = _plain_rows(batch)
        entities: dict[str, int] = {tail: place for place, tail in enumerate(rows.column("tail").to_pylist())}
        self._writer.write(feature_rows(rows.take(list(entities.values())), self._view, self._source))
        self._rows.append(rows, writer="floor", number=batch.number)


def _plain_rows(batch: StoredBatch) -> Any:
    """A row of the view for each event, of values that stand for any."""
    count_of = batch.rows.num_rows
    zeros = {name: np.zeros(count_of, dtype=np.int64) for name, _ in DECLARATION.features}
    columns = {
        name: pa.array(["x"] * count_of) if dtype is Dtype.STRING else pa.array(zeros[name].astype(TABLE[dtype].numpy))
        for name, dtype in DECLARATION.features
    }
    times = {"event_time": batch.rows.column("event_time"), "created_time": _moments([batch.accepted_time] * count_of)}
    return pa.table({"tail": batch.rows.column("tail"), **columns, **times})


def _batch(chosen: random.Random, number: int, size: int) -> StoredBatch:
    now = _START_US + number * _EVERY_US
    rows = pa.table(
        {
            "tail": pa.array([f"N{chosen.randrange(ENTITIES)}" for _ in range(size)]),
            "delay": pa.array([chosen.uniform(-10, 100) for _ in range(size)]),
            "seats": pa.array([chosen.randrange(200) for _ in range(size)], pa.int64()),
            "dest": pa.array([chosen.choice(("JFK", "LGA", "SFO", "LAX", "BOS")) for _ in range(size)]),
            "event_time": _moments(list(_times(chosen, now, size))),
        }
    )
    moment = Micros(now)
    return StoredBatch(f"b{number}", BatchKind.EVENTS, "movements", "bench", number, rows, moment, moment)


def _times(chosen: random.Random, now: int, size: int) -> Iterator[int]:
    """Most in order, some up to a minute late."""
    for _ in range(size):
        yield now - chosen.randrange(SECOND_US if chosen.random() < 0.9 else 60 * SECOND_US)


def _moments(moments: Sequence[int]) -> Any:
    return pa.array(moments, pa.int64()).cast(_MOMENT)
