"""A stream's lane over a real Valkey and real tables, with deaths at any command, and what both stores hold then."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import redis

from harness.aggregate_world import ENTITIES, REALS, SCHEMA, WHOLES, WORDS, Batches, Sent, bits, declared
from skewless.adapters.aggregate_lane import AggregateLane
from skewless.adapters.arrow_columns import ARROW_TYPES
from skewless.adapters.offline_sources import arrow_dataset
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.aggregates.compiled import CompiledAggregates
from skewless.aggregates.declaration import StreamAggregates
from skewless.aggregates.history import output_column
from skewless.dtypes import Dtype, column_of, to_python
from skewless.features.contract import ViewRead
from skewless.features.online_store import Reply
from skewless.features.point_in_time import OfflineSource, SourceForm
from skewless.features.redis_layout import KeyTemplate, feature_field, timestamp_field
from skewless.features.value_codec import event_times_of
from skewless.features.value_encoding import stored_values
from skewless.ingestion.batches import BatchKind, StoredBatch
from skewless.timestamps import SECOND_US, Micros

PROJECT = "world"
STEP_US = SECOND_US // 2
START = 1_000 * SECOND_US


class Died(BaseException):
    """The process that used the store is gone."""


class MortalStore(BlockingRedisOnlineStore):
    """Dies at one of its exchanges, after a share of its commands were carried out."""

    def __init__(self, url: str, dies_at: int, share: float) -> None:
        super().__init__(url)
        self.exchanges = 0
        self.dies_at = dies_at
        self.share = share

    def read(self, keys: Sequence[bytes], commands: Sequence[bytes], *, timeout_s: float) -> list[Reply]:
        """As the store does, or die."""
        self.exchanges += 1
        if self.exchanges - 1 == self.dies_at:
            done = int(len(commands) * self.share)
            super().read(keys[:done], commands[:done], timeout_s=timeout_s)
            raise Died
        return super().read(keys, commands, timeout_s=timeout_s)


@dataclass
class StreamWorld:
    """One stream in stores of its own. `now` is what timers go by (µs)."""

    folder: Path
    url: str
    declaration: StreamAggregates = field(default_factory=declared)
    project: str = PROJECT
    now: int = START

    @property
    def source(self) -> OfflineSource:
        """The table of the view's rows."""
        path = str(self.folder / "activity")
        return OfflineSource(self.declaration.view, path, "event_time", "created_time", form=SourceForm.DELTA)

    @property
    def read(self) -> ViewRead:
        """The view."""
        return self.declaration.view_read

    def lane(self, open_store: Callable[[], BlockingRedisOnlineStore] | None = None) -> AggregateLane:
        """A lane as a process that begins has it."""
        store = open_store or (lambda: BlockingRedisOnlineStore(self.url))
        return AggregateLane(self.declaration.name, lambda _: self, store, None, clock=lambda: self.now)

    def batch(self, number: int, known: int, sent: Sequence[Sent]) -> StoredBatch:
        """Events as the outbox hands them on."""
        columns: dict[str, Any] = {"tail": pa.array([each.entity for each in sent], pa.string())}
        for name, dtype in SCHEMA.items():
            columns[name] = pa.array([each.fields[name] for each in sent], ARROW_TYPES[dtype], from_pandas=False)
        times = pa.array([each.event_time for each in sent], pa.int64())
        columns["event_time"] = times.cast(ARROW_TYPES[Dtype.TIMESTAMP])
        moment = Micros(known)
        rows = pa.table(columns)
        return StoredBatch(
            f"id-{number}", BatchKind.EVENTS, self.declaration.name, "lane", number, rows, moment, moment
        )

    def offline(self) -> list[dict[str, Any]]:
        """All rows of the view's table, with times in microseconds, in order of entity, T and K."""
        return sorted(_rows(self.source), key=lambda row: (row["tail"], row["event_time"], row["created_time"]))

    def newest(self) -> dict[str, dict[str, Any]]:
        """Of each entity the row that wins."""
        return {row["tail"]: row for row in self.offline()}

    def online(self, entity: str) -> tuple[int, list[bytes | None]] | None:
        """An entity's event time and stored values in the online store, in the order of the features."""
        read = self.declaration.view_read
        (key,) = KeyTemplate.compile(read.join_keys, self.project).keys([entity])
        fields = [timestamp_field(read.view), *(feature_field(read.view, each.name) for each in read.features)]
        with redis.Redis.from_url(self.url) as client:
            held = client.hmget(key, fields)
        times, _ = event_times_of(held[:1])
        return None if held[0] is None else (int(times[0]), held[1:])

    def stored(self, row: dict[str, Any]) -> tuple[int, list[bytes]]:
        """What the online store holds where it has this row: NaN is null there."""
        values = []
        for name, dtype in self.declaration.features:
            value = None if row[name] != row[name] else row[name]
            values.append(stored_values(column_of(dtype, [value]))[0])
        return row["event_time"], values

    def state_keys(self) -> int:
        """How many entities have a state."""
        with redis.Redis.from_url(self.url) as client:
            pattern = f"skewless:aggregates:{{{self.project}/{self.declaration.name}/*:state"
            return sum(1 for _ in client.scan_iter(pattern.replace("{", "?")))


def told(compiled: CompiledAggregates, rows: Sequence[tuple[str, int, int, tuple[Any, ...]]]) -> list[tuple[Any, ...]]:
    """Rows as the view's table holds them, in every bit: entity, T, K, values."""
    values = [
        to_python(output_column(output, list(column)))
        for output, column in zip(compiled.outputs, zip(*(row[3] for row in rows), strict=True), strict=True)
    ]
    return sorted(
        (entity, moment, known, *map(bits, row))
        for (entity, moment, known, _), row in zip(rows, zip(*values, strict=True), strict=True)
    )


def held(declaration: StreamAggregates, rows: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """The same of rows that were read from the table."""
    return [
        (row["tail"], row["event_time"], row["created_time"], *(bits(row[name]) for name, _ in declaration.features))
        for row in rows
    ]


def random_batches(seed: int, count: int, *, entities: Sequence[str] = (*ENTITIES, "c", "d")) -> Batches:
    """Batches from a seed, as `aggregate_world.batches` has them; those without events are ticks."""
    chosen, now, made = random.Random(seed), START, []
    for _ in range(count):
        now += chosen.randint(1, 8) * STEP_US
        sent = [
            Sent(
                chosen.choice(entities),
                now - chosen.randint(-2, 15) * STEP_US,
                {
                    "delay": chosen.choice(REALS),
                    "passengers": chosen.choice(WHOLES),
                    "dest": chosen.choice(WORDS),
                    "id": chosen.randint(0, 10**9),
                },
            )
            for _ in range(chosen.choice((0, 1, 2, 5)))
        ]
        made.append((now, sent))
    return made


def _rows(source: OfflineSource) -> list[dict[str, Any]]:
    table = arrow_dataset(source).to_table()
    for name in ("event_time", "created_time") if table.num_rows else ():
        table = table.set_column(table.column_names.index(name), name, table.column(name).cast(pa.int64()))
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows
