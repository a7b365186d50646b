"""What a point-in-time join costs: label rows by six views of forty features, beside Feast, and ten million in parts.

Two views of one key, two of another, one of both and one without an entity; each row arrives up to some hours late, one
in twenty is a correction. Both engines read the same Parquet files through DuckDB and give the same values, which is
checked before anything is timed; Feast is told to cut at created times as ours does. It joins every question with every
earlier row of its entities, so its time and memory grow with their history (17 GB at 100,000 questions): it is asked
at two sizes, and not at the large one.
The large set is what `skewless dataset build` does, by its own code and with DuckDB held to POINT_IN_TIME_MEMORY; its
peak of memory is that of a process of its own. The run takes some five minutes on two cores, and 4 GB of disk.
"""

import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.fitting import _memory_mib
from bench.measure import Block, compare, ratio, timing_of
from bench.report import Case, Goal, Options, SuiteResult, single
from skewless.adapters.arrow_columns import column_from_arrow
from skewless.adapters.duckdb_point_in_time import DuckDBOffline, features_at
from skewless.adapters.training_parquet import TrainingSetWriter
from skewless.canonical_json import Digest
from skewless.dtypes import Column, Dtype
from skewless.features.contract import FeatureContract, FeatureField, JoinKey, ViewRead
from skewless.features.point_in_time import OfflineSource
from skewless.limits import MIB, TRAINING_PART_ROWS
from skewless.timestamps import HOUR_US, Micros, parse_timestamp
from skewless.training.definition import ExampleTable, Period

LARGE_ROWS = 10_000_000
BESIDE_ROWS = (5_000, 20_000)
SOURCE_ROWS = 1_000_000
QUICK_SHARE = 50
MEMORY_MIB_MAX = 4_096
"""DuckDB's 2 GiB, a part of 500,000 rows three times over (Arrow, columns, Parquet), and the interpreter."""
_ENTITIES, _LINES = 50_000, 400
_START_US = parse_timestamp("2024-01-01")
_SPAN_H = 24 * 30
_DTYPES = ((Dtype.FLOAT32, "FLOAT"), (Dtype.FLOAT64, "DOUBLE"), (Dtype.INT64, "BIGINT"))
_LABELS = ExampleTable(path="labels.parquet")
_A, _B = JoinKey("a", Dtype.INT64), JoinKey("b", Dtype.INT64)
_VIEWS = {"v0": (_A,), "v1": (_A,), "v2": (_B,), "v3": (_B,), "v4": (_A, _B), "v5": ()}
_FEATURES = {"v0": 8, "v1": 8, "v2": 7, "v3": 7, "v4": 6, "v5": 4}


@dataclass(frozen=True, slots=True)
class _World:
    """A contract, where its rows lie, and the file of label rows in `folder`."""

    contract: FeatureContract
    sources: dict[str, OfflineSource]
    folder: Path

    @property
    def labels(self) -> Path:
        """Label rows: join keys, as_of, label and outcome_time."""
        return self.folder / _LABELS.path


def run(options: Options) -> SuiteResult:
    """Both comparisons; the large one takes about 4 GB of disk while it is measured."""
    share = QUICK_SHARE if options.quick else 1
    sources = SOURCE_ROWS // share
    beside = []
    for rows in (each // share for each in BESIDE_ROWS):
        options.progress(f"{rows:,} label rows beside Feast")
        beside.append(_beside_feast(_world(options.scratch / f"beside-{rows}", rows, sources), rows))
    rows = LARGE_ROWS // share
    options.progress(f"{rows:,} label rows in parts of {TRAINING_PART_ROWS:,}")
    large = _world(options.scratch / "large", rows, sources)
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as pool:
        block, facts = pool.submit(build_dataset, large, options.scratch / "joined.parquet").result()
    assert facts.pop("rows") == rows, "every label row is in the set once"
    facts["rows_per_s"] = rows / (block.wall_ns[0] / 1e9)
    facts["rows_per_cpu_s"] = rows / (block.cpu_ns / 1e9)
    case = Case("in parts", {"rows": rows, "views": 6, "features": 40}, {"skewless": timing_of([block])}, facts=facts)
    ratios = [ratio(each.timings["feast"], each.timings["skewless"]) for each in beside]
    return SuiteResult(
        suite="point-in-time",
        cases=(*beside, case),
        goals=(
            *(
                Goal(f"Feast's time to ours, {each.parameters['rows']:,} rows", measured, 1.0)
                for each, measured in zip(beside, ratios, strict=True)
            ),
            Goal("peak memory of the large join", single(facts["peak_mib"]), MEMORY_MIB_MAX, "MiB", at_most=True),
        ),
        floor="feast",
        notes=(
            "values of both were compared before timing; Feast's answer has another order",
            "Feast also resolves its registry in each call",
        ),
    )


def build_dataset(world: _World, out: Path) -> tuple[Block, dict[str, float]]:
    """Build the set as the command does: rows, peak of memory beyond the start's and what was spilled, in MiB."""
    before = _memory_mib("VmRSS")
    begun, cpu = time.perf_counter_ns(), time.process_time_ns()
    offline = DuckDBOffline(world.folder, world.sources)
    period = Period(Micros(_START_US), Micros(_START_US + (_SPAN_H + 1) * HOUR_US))
    with Spilled() as spilled, TrainingSetWriter(out) as writer:
        for examples, frame in offline.training_parts(_LABELS, world.contract, period):
            writer.write(examples, frame)
            spilled.look()
    block = Block((time.perf_counter_ns() - begun,), time.process_time_ns() - cpu)
    peak_mib = _memory_mib("VmHWM") - before
    return block, {"rows": writer.rows, "peak_mib": peak_mib, "spilled_mib": spilled.most_mib}


class Spilled:
    """The most that DuckDB had in its temporary folders, whenever it was looked at. A context manager."""

    def __init__(self) -> None:
        self.most_mib = 0.0

    def __enter__(self) -> "Spilled":
        return self

    def __exit__(self, *_: object) -> None:
        self.look()

    def look(self) -> None:
        """Add up the files that are there now."""
        folders = Path(tempfile.gettempdir()).glob("skewless-duckdb-*")
        sizes = (file.stat().st_size for folder in folders for file in folder.rglob("*") if file.is_file())
        self.most_mib = max(self.most_mib, sum(sizes) / MIB)


def _asked(table: Any) -> tuple[dict[str, Column], Any]:
    keys = {key.name: column_from_arrow(table.column(key.name), key.dtype) for key in (_A, _B)}
    return keys, table.column("as_of").cast(pa.int64()).to_numpy().astype(np.int64)


def _world(folder: Path, rows: int, source_rows: int) -> _World:
    folder.mkdir(parents=True, exist_ok=True)
    views, sources = [], {}
    for number, (name, keys) in enumerate(_VIEWS.items()):
        kinds = [_DTYPES[place % len(_DTYPES)] for place in range(_FEATURES[name])]
        fields = tuple(FeatureField(f"{name}_f{place}", dtype) for place, (dtype, _) in enumerate(kinds))
        views.append(ViewRead(name, keys, 6 * HOUR_US if number == 0 else 0, fields))
        path = folder / f"{name}.parquet"
        selected = ", ".join(
            [
                *(f"CAST(hash(i, {number}, '{key.name}') % {_size(key)} AS BIGINT) AS {key.name}" for key in keys),
                f"{_moment('i', f'{number}, 1')} AS event_time",
                f"event_time + to_hours(CAST(hash(i, {number}, 2) % 5 AS BIGINT)) AS created_time",
                *(
                    f"CAST(hash(i, {number}, {place + 3}) % 100000 / 7 AS {kind}) AS {name}_f{place}"
                    for place, (_, kind) in enumerate(kinds)
                ),
            ]
        )
        _write(f"SELECT {selected} FROM range({source_rows if keys else 1_000}) rows(i)", path)  # noqa: S608  # names of this file
        sources[name] = OfflineSource(name, str(path), "event_time", "created_time")
    keys_sql = ", ".join(f"CAST(hash(i, '{key.name}') % {_size(key)} AS BIGINT) AS {key.name}" for key in (_A, _B))
    world = _World(FeatureContract("bench", tuple(views), (), Digest("0" * 64)), sources, folder)
    _write(
        f"SELECT i AS row_id, {keys_sql}, {_moment('i', '9')} AS as_of, hash(i, 10) % 5 = 0 AS label, "  # noqa: S608  # as above
        f"as_of + to_hours(1) AS outcome_time FROM range({rows}) rows(i)",
        world.labels,
    )
    return world


def _size(key: JoinKey) -> int:
    return _ENTITIES if key.name == "a" else _LINES


def _moment(number: str, salt: str) -> str:
    return (
        f"make_timestamptz({_START_US}) + to_minutes(CAST(hash({number}, {salt}) % {_SPAN_H * 60} AS BIGINT))"
        # Apart by microseconds, so that no two rows of an entity share both their times.
        f" + to_microseconds(CAST({number} % 60000000 AS BIGINT))"
    )


def _write(sql: str, path: Path) -> None:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
        connection.execute(f"COPY ({sql}) TO '{path}' (FORMAT parquet)")


def _beside_feast(world: _World, rows: int) -> Case:
    table = pq.read_table(world.labels, columns=["row_id", "a", "b", "as_of"])
    keys, as_of = _asked(table)
    store, service = _feast_store(world.folder, world)
    entities = table.to_pandas().rename(columns={"as_of": "event_timestamp"})

    def theirs() -> Any:
        job = store.get_historical_features(
            entities, service, full_feature_names=True, filter_by_created_timestamp=True
        )
        return job.to_arrow()

    def ours() -> Any:
        return features_at(world.contract, world.sources, keys, as_of)

    _check_same(ours(), theirs())
    timings = compare({"skewless": ours, "feast": theirs}, repetitions=3, min_time_s=0.0, warm_up=False)
    return Case(f"{rows:,} beside Feast", {"rows": rows, "views": 6, "features": 40}, timings, values=rows * 40)


def _check_same(ours: Any, theirs: Any) -> None:
    """Raise AssertionError unless both have the same values."""
    ordered = theirs.sort_by("row_id")
    for name, column in ours.columns.items():
        other = column_from_arrow(ordered.column(name), column.dtype)
        assert np.array_equal(column.valid, other.valid), name
        assert np.array_equal(column.values[column.valid], other.values[column.valid]), name


def _feast_store(folder: Path, world: _World) -> tuple[Any, Any]:
    from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
    from feast.types import Float32, Float64, Int64

    from skewless.adapters.feast_repository import Connections, FeatureRepository

    (folder / "feature_store.yaml").write_text(
        "project: bench\nprovider: local\n"
        'registry: {registry_type: sql, path: "${SKEWLESS_FEAST_REGISTRY}", cache_mode: sync}\n'
        'online_store: {type: redis, connection_string: "${SKEWLESS_ONLINE_STORE}"}\n'
        "offline_store: {type: duckdb}\nentity_key_serialization_version: 3\n"
    )
    repository = FeatureRepository(folder, Connections("127.0.0.1:1", f"sqlite:///{folder}/feast.db"))
    types = {Dtype.FLOAT32: Float32, Dtype.FLOAT64: Float64, Dtype.INT64: Int64}
    entities = {name: Entity(name=name, join_keys=[name], value_type=ValueType.INT64) for name in ("a", "b")}
    views = {
        view.name: FeatureView(
            name=view.name,
            entities=[entities[key.name] for key in view.join_keys],
            ttl=timedelta(microseconds=view.ttl_us),
            schema=[Field(name=each.name, dtype=types[each.dtype]) for each in view.features],
            source=FileSource(
                name=f"{view.name}_source",
                path=world.sources[view.name].path,
                timestamp_field="event_time",
                created_timestamp_column="created_time",
            ),
        )
        for view in world.contract.views
    }
    service = FeatureService(name="all", features=list(views.values()))
    repository.apply(SimpleNamespace(__name__="bench", **entities, **views, service=service))  # type: ignore[arg-type]  # what a module has
    return repository._store, service  # noqa: SLF001  # Feast's own engine is what is compared
