"""What materializing costs: ours beside Feast's own on equal data, and ten million rows of eight features by ours.

Both read the same Parquet file through DuckDB and write the newest row of every entity into the same Valkey, emptied
before each turn; afterwards both have stored the same bytes, which is checked key by key, but for the one field of
ours. Feast runs as the shipped configuration has it: only newest rows are pulled, and written in parts of 10,000. Ours
is the run of `skewless materialize` with its lease, records, marks and verification. The large run is alone in a
process of its own, which tells its peak of memory. It takes 1 GB of disk, and 1 GB of memory for Valkey.
"""

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import duckdb
import numpy as np
from redis import Redis

from bench.fitting import _memory_mib
from bench.measure import Block, ratio, timing_of
from bench.point_in_time import Spilled
from bench.read_store import running_valkey
from bench.report import Case, Goal, Options, SuiteResult, single
from skewless.adapters.feast_repository import Connections, FeatureRepository
from skewless.adapters.lease_keeper import kept_leases
from skewless.adapters.materialization import Materializer, lease_names
from skewless.adapters.materialization import Options as RunOptions
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.dtypes import TABLE, Dtype
from skewless.features.materialization import Asked
from skewless.features.redis_layout import TIMESTAMP_PREFIX, project_of
from skewless.features.row_order import ROW_TIME_PREFIX
from skewless.ingest_limits import MATERIALIZATION_VERIFY_ROWS
from skewless.registry.database import engine, upgrade
from skewless.registry.entity_deletions import Deletions
from skewless.registry.leases import Leases, owner_text
from skewless.registry.materializations import MaterializationRun, Materializations
from skewless.registry.transactions import system_clock
from skewless.stack.ports import LOOPBACK
from skewless.timestamps import HOUR_US, parse_timestamp

# After the adapter, which keeps Feast's import from changing the environment.
from feast import Entity, FeatureView, Field, FileSource, ValueType  # isort: skip
from feast import types as feast_types  # isort: skip

LARGE_ROWS = 10_000_000
BESIDE_ROWS = 200_000
QUICK_SHARE = 50
VERSIONS = 4
"""Rows of each entity, on average."""
TURNS, QUICK_TURNS = 3, 2
MEMORY_MIB_MAX = 2_048
"""DuckDB's 1 GB, a part in Arrow, commands of four batches, and the interpreter with Feast in it."""
VIEW = "stats"
AS_OF = parse_timestamp("2024-02-01")
_START_US = parse_timestamp("2024-01-01")
_SPAN_H = 24 * 30
_FEATURES: dict[str, Dtype] = {
    "f0": Dtype.FLOAT32, "f1": Dtype.FLOAT64, "f2": Dtype.INT64, "f3": Dtype.FLOAT32, "f4": Dtype.STRING,
    "f5": Dtype.FLOAT64, "f6": Dtype.BOOL, "f7": Dtype.FLOAT32,
}  # fmt: skip
_STORE = """\
project: bench_materialize
provider: local
registry: {registry_type: sql, path: "${SKEWLESS_FEAST_REGISTRY}", cache_mode: sync}
online_store: {type: redis, connection_string: "${SKEWLESS_ONLINE_STORE}"}
offline_store: {type: skewless.adapters.feast_offline_store.VisibleDuckDBOfflineStore}
entity_key_serialization_version: 3
materialization: {online_write_batch_size: 10000, pull_latest_features: true}
"""


def run(options: Options) -> SuiteResult:
    """Both; the large run takes some minutes."""
    share = QUICK_SHARE if options.quick else 1
    turns = QUICK_TURNS if options.quick else TURNS
    beside = _apart(_beside_feast, options.scratch / "beside", BESIDE_ROWS // share, turns)
    rows = LARGE_ROWS // share
    options.progress(f"{rows:,} rows by ours alone")
    large = _apart(_large, options.scratch / "large", rows)
    times = ratio(beside.timings["feast"], beside.timings["skewless"])
    return SuiteResult(
        suite="materialize",
        cases=(beside, large),
        goals=(
            Goal(f"Feast's time to ours, {beside.parameters['rows']:,} rows", times, 3.0),
            Goal("peak memory of the large run", single(large.facts["peak_mib"]), MEMORY_MIB_MAX, "MiB", at_most=True),
        ),
        floor="feast",
        notes=(
            "what both had stored was compared key by key",
            "rows are those of the source; the newest of each entity is written",
            "process time leaves out Valkey's, which takes more of a second core the faster it is written to",
        ),
    )


def _apart(work: Callable[..., Case], folder: Path, *arguments: int) -> Case:
    """Do work in a process of its own."""
    folder.mkdir(parents=True)
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, folder, *arguments).result()


def _beside_feast(folder: Path, rows: int, turns: int) -> Case:
    with running_valkey(folder) as port, closing(Redis(LOOPBACK, port)) as store:
        repository = _repository(folder, rows, port)
        feast: list[Block] = []
        ours: list[Block] = []
        stored: list[dict[bytes, dict[bytes, bytes]]] = []
        for _ in range(turns):
            for blocks, work in (
                (feast, partial(repository.materialize, AS_OF, lambda _: None)),
                (ours, partial(_materialized, repository, folder, port)),
            ):
                store.flushall()
                blocks.append(_timed(work))
                stored.append(_stored(store))
    assert all(each == stored[0] for each in stored), "both store the same bytes"
    entities = len(stored[0])
    facts = {
        f"{name}_{what}": count / (blocks[-1].wall_ns[0] / 1e9)
        for name, blocks in (("feast", feast), ("skewless", ours))
        for what, count in (("rows_per_s", rows), ("entities_per_s", entities))
    }
    timings = {"feast": timing_of(feast), "skewless": timing_of(ours)}
    return Case("beside Feast", {"rows": rows, "entities": entities, "features": 8}, timings, facts=facts)


def _large(folder: Path, rows: int) -> Case:
    with running_valkey(folder) as port, closing(Redis(LOOPBACK, port)) as store, Spilled() as spilled:
        repository = _repository(folder, rows, port)
        before = _memory_mib("VmRSS")
        done: list[MaterializationRun] = []
        block = _timed(lambda: done.append(_materialized(repository, folder, port, spilled.look)))
        entities = sum(1 for key in store.scan_iter(count=10_000) if project_of(key))
        used_mib = int(store.info("memory")["used_memory"]) / (1 << 20)  # type: ignore[index]  # sync client
    assert done[0].entity_rows == entities, "every entity is in the store once"
    seconds = block.wall_ns[0] / 1e9
    facts = {
        "rows_per_s": rows / seconds,
        "entities_per_s": entities / seconds,
        "peak_mib": _memory_mib("VmHWM"),
        "before_mib": before,
        "spilled_mib": spilled.most_mib,
        "valkey_mib": used_mib,
        "parts": done[0].parts,
    }
    parameters = {"rows": rows, "entities": entities, "features": 8}
    return Case("by ours alone", parameters, {"skewless": timing_of([block])}, facts=facts)


def _timed(work: Callable[[], object]) -> Block:
    begun, cpu = time.perf_counter_ns(), time.process_time_ns()
    work()
    return Block((time.perf_counter_ns() - begun,), time.process_time_ns() - cpu)


def _materialized(
    repository: FeatureRepository, folder: Path, port: int, look: Callable[[], None] = lambda: None
) -> MaterializationRun:
    """A first run, as the command does it."""
    project, database = repository.stored(), engine(_database(folder))
    with (
        closing(Materializations(database)) as records,
        kept_leases(Leases(database), lease_names([VIEW]), owner_text()) as keeper,
    ):
        materializer = Materializer(
            project,
            partial(BlockingRedisOnlineStore, f"redis://{LOOPBACK}:{port}"),
            records,
            _Feast(repository),
            options=RunOptions(Asked(AS_OF), owner_text(), HOUR_US, MATERIALIZATION_VERIFY_ROWS),
            kept_out=Deletions(database),
            clock=system_clock,
            progress=lambda *_: look(),
        )
        return materializer.run(materializer.plan(VIEW), keeper)


def _database(folder: Path) -> str:
    return f"sqlite:///{folder}/skewless.db"


class _Feast:
    """What a run keeps with Feast."""

    def __init__(self, repository: FeatureRepository) -> None:
        self.record_materialization = repository.record_materialization

    def materialize_view(self, view: str, as_of: int, judged: object) -> None:
        """Never asked for: this is the local engine."""
        raise NotImplementedError(view, as_of, judged)


def _repository(folder: Path, rows: int, port: int) -> FeatureRepository:
    """A view over a file of rows; each arrives up to some hours late, one entity in eight has nulls."""
    path = folder / "stats.parquet"
    upgrade(_database(folder))
    _write_rows(path, rows)
    (folder / "feature_store.yaml").write_text(_STORE)
    repository = FeatureRepository(folder, Connections(f"{LOOPBACK}:{port}", f"sqlite:///{folder}/feast.db"))
    driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
    source = FileSource(
        name="rows", path=str(path), timestamp_field="event_time", created_timestamp_column="created_time"
    )
    schema = [Field(name=name, dtype=getattr(feast_types, TABLE[dtype].feast)) for name, dtype in _FEATURES.items()]
    view = FeatureView(name=VIEW, entities=[driver], ttl=timedelta(0), schema=schema, source=source)
    repository.apply(SimpleNamespace(__name__="bench", driver=driver, view=view))  # type: ignore[arg-type]  # what a module has
    return repository


def _write_rows(path: Path, rows: int) -> None:
    values = {
        "f0": "CAST(hash(i, 1) % 100000 / 7 AS FLOAT)",
        "f1": "CAST(hash(i, 2) % 100000 / 7 AS DOUBLE)",
        "f2": "CAST(hash(i, 3) % 100000 AS BIGINT)",
        "f3": "CASE WHEN hash(i, 4) % 8 > 0 THEN CAST(hash(i, 5) % 1000 AS FLOAT) END",
        "f4": "'city ' || CAST(hash(i, 6) % 5000 AS VARCHAR)",
        "f5": "CAST(hash(i, 7) % 100000 / 3 AS DOUBLE)",
        "f6": "hash(i, 8) % 2 = 0",
        "f7": "CAST(hash(i, 9) % 100000 AS FLOAT)",
    }
    minutes = f"CAST(hash(i, 11) % {_SPAN_H * 60} AS BIGINT)"
    # Apart by microseconds, so that no two rows of an entity share both their times.
    moment = f"make_timestamptz({_START_US}) + to_minutes({minutes}) + to_microseconds(CAST(i % 60000000 AS BIGINT))"
    selected = [
        f"CAST(hash(i, 10) % {max(rows // VERSIONS, 1)} AS BIGINT) AS driver_id",
        f"{moment} AS event_time",
        "event_time + to_hours(CAST(hash(i, 12) % 5 AS BIGINT)) AS created_time",
        *(f"{sql} AS {name}" for name, sql in values.items()),
    ]
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
        query = f"SELECT {', '.join(selected)} FROM range({rows}) rows(i)"  # noqa: S608  # names of this file
        connection.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet)")


def _stored(store: Redis) -> dict[bytes, dict[bytes, bytes]]:
    """Every hash of the project, without the field that only ours writes."""
    keys = [key for key in store.scan_iter(count=10_000) if project_of(key)]
    found: dict[bytes, dict[bytes, bytes]] = {}
    for some in np.array_split(np.arange(len(keys)), max(len(keys) // 1_000, 1)):
        pipeline = store.pipeline(transaction=False)
        for place in some.tolist():
            pipeline.hgetall(keys[place])
        for place, fields in zip(some.tolist(), pipeline.execute(), strict=True):
            found[keys[place]] = {name: value for name, value in fields.items() if not name.startswith(ROW_TIME_PREFIX)}
    assert all(TIMESTAMP_PREFIX + VIEW.encode() in fields for fields in found.values())
    return found
