"""A view of stations over a Parquet file, to be materialized without Feast, and a naive twin of what should be online.

Rows are plain tuples. `arrive` adds some to the source as a writing job would, and what is visible at a moment follows
from the one rule: happened and known. Times are whole numbers from `T0` on, in seconds.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import Engine

from skewless.adapters.feast_stored_views import StoredProject, StoredView
from skewless.adapters.lease_keeper import LeaseKeeper, kept_leases
from skewless.adapters.materialization import Judged, Materializer, Options, lease_names
from skewless.adapters.online_rows import OnlineRows
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.dtypes import Dtype, column_of, to_python
from skewless.features.contract import FeatureField, JoinKey, ViewRead
from skewless.features.materialization import Asked
from skewless.features.point_in_time import OfflineSource
from skewless.registry.entity_deletions import Deletions
from skewless.registry.leases import Leases
from skewless.registry.materializations import MaterializationRun, Materializations
from skewless.timestamps import SECOND_US, parse_timestamp

T0 = parse_timestamp("2024-03-01T00:00:00Z")
NEVER_OLD = 1 << 62
VIEW = ViewRead(
    "weather",
    (JoinKey("station", Dtype.STRING),),
    0,
    (FeatureField("temp", Dtype.FLOAT32), FeatureField("wind", Dtype.INT64), FeatureField("sky", Dtype.STRING)),
)
_MICROS = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    [
        ("station", pa.string()),
        ("temp", pa.float32()),
        ("wind", pa.int64()),
        ("sky", pa.string()),
        ("happened", _MICROS),
        ("known", _MICROS),
    ]
)


class Row(NamedTuple):
    """One row of the source: when it happened and when it became known, in seconds after T0."""

    station: str
    happened: int
    known: int
    wind: int

    @property
    def values(self) -> tuple[float, int, str]:
        """What the features hold: made of `wind`, so that no two rows are mistaken for each other."""
        return float(np.float32(self.wind / 4)), self.wind, f"sky {self.wind % 7}"


def micros(seconds: float) -> int:
    """A moment of the world."""
    return T0 + int(seconds * SECOND_US)


def newest(rows: list[Row], as_of: float) -> dict[str, Row]:
    """By station, the row that should be online: visible, then happened last, then known last, then the least."""
    found: dict[str, Row] = {}
    for row in rows:
        if max(row.happened, row.known) > as_of:
            continue
        best = found.setdefault(row.station, row)
        newer = (row.happened, row.known) > (best.happened, best.known)
        tied = (row.happened, row.known) == (best.happened, best.known)
        if newer or (tied and row.values < best.values):
            found[row.station] = row
    return found


def drawn_rows(rng: random.Random, rows: int, *, stations: int, until: int) -> list[Row]:
    """Rows of some stations, late and dated ahead, with versions of the same event; each has a `wind` of its own."""
    made = []
    for _ in range(rows):
        happened = rng.randrange(until)
        delay = rng.choice([0, 0, 1, rng.randrange(until), -rng.randrange(1 + happened)])
        made.append(Row(f"s{rng.randrange(stations)}", happened, happened + delay, rng.randrange(1 << 40)))
    return made


def table_of(rows: list[Row]) -> pa.Table:
    """Rows as the source has them."""
    plain: list[tuple[Any, ...]] = [(row.station, *row.values, row.happened, row.known) for row in rows]
    columns: list[tuple[Any, ...]] = list(zip(*plain, strict=True)) or [()] * 6
    return pa.table(
        [
            *(pa.array(column, kind) for column, kind in zip(columns[:4], SCHEMA.types[:4], strict=True)),
            *(pa.array([micros(each) for each in column], pa.int64()).cast(_MICROS) for column in columns[4:]),
        ],
        schema=SCHEMA,
    )


@dataclass(slots=True)
class FeastRecord:
    """Implements `materialization.FeastSide`: remembers what it was told."""

    recorded: list[tuple[str, int]] = field(default_factory=list)

    def record_materialization(self, view: str, as_of: int) -> None:
        """Remember it."""
        self.recorded.append((view, as_of))

    def materialize_view(self, view: str, as_of: int, judged: Judged | None) -> None:
        """Only the local engine is tested here."""
        raise AssertionError((view, as_of, judged))


@dataclass(slots=True)
class MaterializeWorld:
    """See the module. `view` and `has_created_time` may be changed between runs, as a definition is."""

    url: str
    project: str
    path: Path
    engine: Engine
    view: ViewRead = VIEW
    has_created_time: bool = True
    rows: list[Row] = field(default_factory=list)
    feast: FeastRecord = field(default_factory=FeastRecord)
    open_store: Callable[[str], BlockingRedisOnlineStore] = BlockingRedisOnlineStore
    progress: Callable[[str, int, int], None] = lambda *_: None

    def arrive(self, rows: list[Row]) -> None:
        """Rows are added to the source."""
        self.rows += rows
        pq.write_table(table_of(self.rows), self.path)

    @property
    def stored(self) -> StoredProject:
        """What Feast's registry would say."""
        created = "known" if self.has_created_time else None
        source = OfflineSource(self.view.name, str(self.path), "happened", created)
        view = StoredView(self.view, source, ())
        nobody_asks = cast("Any", None)
        return StoredProject(self.project, {self.view.name: view}, {}, {}, 0, nobody_asks)

    def materializer(self, as_of: float, **options: Any) -> Materializer:
        """What materializes at a moment; `options` are fields of Asked, then of Options."""
        asked = {name: options.pop(name) for name in ("full", "from_time", "to_time") if name in options}
        plain = {"owner": "tests", "overlap_us": 0, "verify_rows": 50, **options}
        return Materializer(
            self.stored,
            lambda: self.open_store(self.url),
            Materializations(self.engine),
            self.feast,
            options=Options(Asked(micros(as_of), **asked), **plain),
            kept_out=Deletions(self.engine),
            clock=lambda: micros(as_of),
            progress=lambda *told: self.progress(*told),
        )

    @contextmanager
    def leased(self) -> Iterator[LeaseKeeper]:
        """The view's lease."""
        with kept_leases(Leases(self.engine), lease_names([self.view.name]), "tests", lease_s=60) as keeper:
            yield keeper

    def run(self, as_of: float, **options: Any) -> MaterializationRun:
        """Materialize at a moment; where an unfinished run is gone on with, once more after it."""
        materializer = self.materializer(as_of, **options)
        with self.leased() as keeper:
            planned = materializer.plan(self.view.name)
            done = materializer.run(planned, keeper)
            if planned.is_new or done.as_of >= micros(as_of):
                return done
            return materializer.run(materializer.plan(self.view.name), keeper)

    @property
    def leases(self) -> Leases:
        """Who works on what."""
        return Leases(self.engine)

    @property
    def records(self) -> Materializations:
        """Runs and watermarks."""
        return Materializations(self.engine)

    def online(self, stations: list[str]) -> dict[str, tuple[int, tuple[Any, ...]]]:
        """By station, event time (s after T0) and values as a gateway reads them; without those that have none."""
        with closing(BlockingRedisOnlineStore(self.url)) as store:
            reader = OnlineRows(store, self.project, replace(self.view, ttl_us=0))
            frame = reader.read({"station": column_of(Dtype.STRING, list(stations))}, len(stations), NEVER_OLD).frame
        columns = [to_python(frame.columns[f"{self.view.name}__{each.name}"]) for each in self.view.features]
        times = frame.event_times[self.view.name].tolist()
        return {
            station: ((time - T0) // SECOND_US, tuple(values))
            for station, time, values in zip(stations, times, zip(*columns, strict=True), strict=True)
            if time != -1
        }

    def expected(self, as_of: float) -> dict[str, tuple[int, tuple[Any, ...]]]:
        """What `online` should say of all stations."""
        return {station: (row.happened, row.values) for station, row in newest(self.rows, as_of).items()}

    def assert_right(self, as_of: float) -> None:
        """Online is what is visible offline, for every station."""
        stations = sorted({row.station for row in self.rows})
        assert self.online(stations) == self.expected(as_of)


def counts(run: MaterializationRun) -> Mapping[str, int]:
    """What became of the rows of a run."""
    return {name: getattr(run, f"{name}_rows") for name in ("new", "replaced", "older", "same")}
