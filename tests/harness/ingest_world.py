"""One view over a Delta table, an outbox in a database of its own, and an online store: what ingestion works with.

Rows are made from a seed: some entities, some moments, so that many are restated, late, or come twice.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from skewless.adapters.ingest_delivery import IngestDelivery
from skewless.adapters.ingest_lane import DeliveryFailure, IngestLane, LaneListeners
from skewless.adapters.ingest_outbox import Outbox
from skewless.adapters.offline_sources import arrow_dataset, opened
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.adapters.row_lane import RowLane
from skewless.canonical_json import digest
from skewless.dtypes import Column, Dtype, column_of, to_python
from skewless.features.contract import FeatureContract, FeatureField, JoinKey, ViewRead
from skewless.features.plan import ReadPlan
from skewless.features.point_in_time import OfflineSource, SourceForm
from skewless.ingestion.batches import Accepted, BatchKind, IncomingBatch, IncomingRequest, LaneHandler
from skewless.registry import database
from skewless.registry.entity_deletions import Deletions
from skewless.registry.ingest_batches import IngestBatches
from skewless.registry.leases import Lease, Leases
from skewless.timestamps import HOUR_US, Micros, parse_timestamp

VIEW = "clicks"
PROJECT = "shop"
EVENT_TIME, CREATED_TIME = "happened", "known"
START_US = parse_timestamp("2024-01-01")
SCHEMA = pa.schema(
    [
        ("user", pa.string()),
        ("shop", pa.int64()),
        (EVENT_TIME, pa.timestamp("us", "UTC")),
        (CREATED_TIME, pa.timestamp("us", "UTC")),
        ("price", pa.float64()),
        ("count", pa.int64()),
        ("label", pa.string()),
    ]
)
READ = ViewRead(
    view=VIEW,
    join_keys=(JoinKey("shop", Dtype.INT64), JoinKey("user", Dtype.STRING)),
    ttl_us=0,
    features=(
        FeatureField("price", Dtype.FLOAT64),
        FeatureField("count", Dtype.INT64),
        FeatureField("label", Dtype.STRING),
    ),
)
Row = dict[str, Any]


@dataclass(frozen=True)
class ClicksView:
    """Implements `RowView`."""

    source: OfflineSource
    read: ViewRead = READ
    project: str = PROJECT


@dataclass
class IngestWorld:
    """Opened anew by each process that takes part. `url` is the registry database's, `store_url` the online store's."""

    folder: Path
    url: str
    store_url: str
    failures: list[DeliveryFailure] = field(default_factory=list)
    opened: list[RowLane] = field(default_factory=list)

    def __post_init__(self) -> None:
        engine = database.engine(self.url)
        self.batches = IngestBatches(engine)
        self.leases = Leases(engine)
        self.deletions = Deletions(engine)
        self.outbox = Outbox(self.batches)
        self.view = ClicksView(
            OfflineSource(VIEW, str(self.folder / "clicks"), EVENT_TIME, CREATED_TIME, form=SourceForm.DELTA)
        )

    @classmethod
    def made(cls, folder: Path, store_url: str, *, url: str = "") -> "IngestWorld":
        """A new one; without a URL its database is a SQLite file."""
        url = url or f"sqlite:///{folder / 'registry.sqlite'}"
        database.upgrade(url)
        return cls(folder, url, store_url)

    def handler(self) -> RowLane:
        """What brings rows of the view to both stores; closed with the world."""
        made = RowLane(VIEW, self.view_named, lambda: BlockingRedisOnlineStore(self.store_url), self.deletions)
        self.opened.append(made)
        return made

    def close(self) -> None:
        """Close every connection."""
        for each in self.opened:
            each.close()
        self.batches.close()

    def view_named(self, name: str) -> ClicksView:
        """The view as it is defined now."""
        assert name == VIEW
        return self.view

    def accept(self, rows: Sequence[Row] | pa.Table, *, key: str = "", received_us: int | None = None) -> Accepted:
        """Rows as the service hands them on; a row without a created time gets the moment it was received at."""
        received = Micros(received_us if received_us is not None else START_US + HOUR_US)
        table = rows if isinstance(rows, pa.Table) else table_of(rows, received)
        request = IncomingRequest("ann", key, digest(key), table.num_rows, {"rows": table.num_rows})
        return self.outbox.accept(
            IncomingBatch(
                BatchKind.ROWS,
                VIEW,
                table,
                (request,),
                received,
                event_time=EVENT_TIME,
                created_time=CREATED_TIME,
                keys=("shop", "user"),
            )
        )

    def lane(self, handler: LaneHandler, *, settle_s: float = 0.0) -> IngestLane:
        """The view's lane, without a thread."""
        listeners = LaneListeners(on_failure=self.failures.append)
        return IngestLane(BatchKind.ROWS, VIEW, handler, self.batches, listeners=listeners, settle_s=settle_s)

    def take_lease(self) -> Lease:
        """The lane's lease, for a minute."""
        return self.leases.take("lane:rows:clicks", "test", lease_s=60)

    def delivery(self, handlers: Callable[[BatchKind, str], LaneHandler] | None = None, **named: Any) -> IngestDelivery:
        """Lanes with threads, not started."""
        made = handlers or (lambda _kind, _name: self.handler())
        return IngestDelivery(self.batches, self.leases, made, on_failure=self.failures.append, **named)

    def offline(self) -> list[Row]:
        """Every row of the Delta table; times in µs."""
        table = arrow_dataset(self.view.source).to_table()
        for name in (EVENT_TIME, CREATED_TIME):
            if name in table.column_names:
                place = table.column_names.index(name)
                table = table.set_column(place, name, table.column(name).cast(pa.int64()))
        rows: list[Row] = table.to_pylist()
        return rows

    def offline_files(self) -> int:
        """How many Parquet files the table has."""
        files = opened(self.view.source).files
        return 0 if files is None else len(files.paths)

    def online(self, entities: Sequence[tuple[int, str]]) -> list[tuple[int, Row] | None]:
        """What the online store has of some (shop, user): event time (µs) and features; None where it has nothing."""
        contract = FeatureContract(PROJECT, (READ,), (), digest("any"))
        keys: dict[str, Column] = {
            "shop": column_of(Dtype.INT64, [shop for shop, _ in entities]),
            "user": column_of(Dtype.STRING, [user for _, user in entities]),
        }
        prepared = ReadPlan.compile(contract).prepare(keys, len(entities))
        with closing(BlockingRedisOnlineStore(self.store_url)) as store:
            replies = store.read(prepared.keys, prepared.commands, timeout_s=30)
        frame = prepared.decode(replies, START_US + 10**15).frame
        names = [each.name for each in READ.features]
        columns = [to_python(frame.columns[f"{VIEW}__{name}"]) for name in names]
        times: NDArray[np.int64] = frame.event_times[VIEW]
        return [
            None if time < 0 else (time, dict(zip(names, values, strict=True)))
            for time, *values in zip(times.tolist(), *columns, strict=True)
        ]


def newest_by_entity(rows: Sequence[Row]) -> dict[tuple[int, str], Row]:
    """A naive twin of the order of rows: of each entity the row with the latest event, then created time."""
    newest: dict[tuple[int, str], Row] = {}
    for row in rows:
        entity = (row["shop"], row["user"])
        held = newest.get(entity)
        if held is None or (row[EVENT_TIME], row[CREATED_TIME]) > (held[EVENT_TIME], held[CREATED_TIME]):
            newest[entity] = row
    return newest


def assert_stores_agree(world: IngestWorld) -> None:
    """Online is the newest offline row of every entity, value by value."""
    newest = newest_by_entity(world.offline())
    entities = list(newest)
    for entity, held in zip(entities, world.online(entities), strict=True):
        row = newest[entity]
        expected = (row[EVENT_TIME], {name: row[name] for name in ("price", "count", "label")})
        assert held == expected, f"{entity}: online {held}, offline {expected}"


def table_of(rows: Sequence[Row], received: Micros) -> pa.Table:
    """Rows as the service decodes them; times may be µs."""
    filled = [{**row, CREATED_TIME: row.get(CREATED_TIME, received)} for row in rows]
    return pa.Table.from_pylist(filled, schema=SCHEMA)


def made_rows(seed: int, batches: int, rows_max: int = 40) -> Iterator[list[Row]]:
    """Batches of rows about few entities at few moments; every value says which row it is of."""
    chosen = random.Random(seed)
    for batch in range(batches):
        yield [
            {
                "user": f"user-{chosen.randrange(12)}",
                "shop": chosen.randrange(3),
                EVENT_TIME: START_US + chosen.randrange(20) * HOUR_US,
                "price": None if chosen.random() < 0.1 else chosen.random(),
                "count": batch * 1_000 + number,
                "label": f"{batch}/{number}",
            }
            for number in range(chosen.randrange(1, rows_max))
        ]
