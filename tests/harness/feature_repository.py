"""A small Feast repository with its source tables, written into a folder of a test's own.

Three views: one with every scalar type and a ttl, one with a composite key, one without an entity. Their rows come
late, are corrected, and hold nulls; two rows of an entity never share both times, because such a tie has no answer.
A second module of definitions, `extended`, adds what else Feast users have: names and join keys given anew, lists,
push and stream sources, and on-demand views whose functions are in `computed`.
"""

import importlib
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewless.adapters.feast_repository import Connections, FeatureRepository
from skewless.timestamps import HOUR_US, SECOND_US, from_micros, parse_timestamp

START_US = parse_timestamp("2024-01-01")
HOURS = 240
END_US = START_US + HOURS * HOUR_US
TTL = timedelta(hours=6)
STATIONS = ("north", "süd", "")
LINES = (-3, 1, 2**40)
SERVICE = "delays"
EVERYTHING = "everything"
MODEL = "delay"
SEED = 20240101
FEAST_WARNS = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")
"""For tests that materialize: Feast reads Parquet through ibis, which still calls DuckDB by an old name."""
_TIMESTAMP = pa.timestamp("us", tz="UTC")

_STORE = """\
project: {project}
provider: local
registry: {{registry_type: sql, path: "${{SKEWLESS_FEAST_REGISTRY}}", cache_mode: sync}}
online_store: {{type: redis, connection_string: "${{SKEWLESS_ONLINE_STORE}}"}}
offline_store: {{type: skewless.adapters.feast_offline_store.VisibleDuckDBOfflineStore}}
entity_key_serialization_version: 3
"""

_FEATURES = '''\
"""Definitions."""

import os
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.types import Bool, Bytes, Float32, Float64, Int32, Int64, String, UnixTimestamp

DATA = Path(os.environ["SKEWLESS_DATA"])


def _source(view):
    return FileSource(
        name=f"{view}_source",
        path=str(DATA / f"{view}.parquet"),
        timestamp_field="happened",
        created_timestamp_column="known",
    )


station = Entity(name="station", join_keys=["station"], value_type=ValueType.STRING)
line = Entity(name="line", join_keys=["line"], value_type=ValueType.INT64)
weather = FeatureView(
    name="weather",
    entities=[station],
    ttl=timedelta(hours=6),
    schema=[
        Field(name="temp", dtype=Float32),
        Field(name="wind", dtype=Int64),
        Field(name="sky", dtype=String),
        Field(name="rain", dtype=Bool),
        Field(name="seen", dtype=UnixTimestamp),
        Field(name="photo", dtype=Bytes),
    ],
    source=_source("weather"),
)
leg = FeatureView(
    name="leg",
    entities=[station, line],
    ttl=timedelta(0),
    schema=[Field(name="late", dtype=Float64), Field(name="stops", dtype=Int32)],
    source=_source("leg"),
)
network = FeatureView(
    name="network", entities=[], ttl=timedelta(0), schema=[Field(name="load", dtype=Float32)], source=_source("network")
)
delays = FeatureService(name="delays", features=[weather[["temp", "wind", "sky", "rain"]], leg])
everything = FeatureService(name="everything", features=[weather, leg, network])
'''

_COMPUTED = '''\
"""Functions of on-demand views; no Feast here."""


def comfort(inputs):
    """Python mode: a dict of lists."""
    feels = []
    for temp, wind, cars in zip(inputs["temp"], inputs["weather__wind"], inputs["cars"]):
        feels.append(None if temp is None or wind is None else temp - 0.5 * wind + cars)
    return {"feels": feels, "crowded": [cars > 4 for cars in inputs["cars"]]}


def lateness(rows):
    """Pandas mode: a DataFrame."""
    import pandas

    return pandas.DataFrame({"worst": (rows["late"] * 2.0 + rows["stops"]).astype("float64")})
'''

_EXTENDED = '''\
"""More definitions: all of `features`, and what it leaves out."""

import warnings

from feast import PushSource, RequestSource, StreamFeatureView
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Json

from PACKAGE import computed
from PACKAGE.features import *  # noqa: F403
from PACKAGE.features import _source

cargo = FeatureView(
    name="cargo",
    entities=[station],
    ttl=timedelta(hours=12),
    schema=[
        Field(name="flags", dtype=Array(Bool)),
        Field(name="counts", dtype=Array(Int32)),
        Field(name="totals", dtype=Array(Int64)),
        Field(name="weights", dtype=Array(Float32)),
        Field(name="prices", dtype=Array(Float64)),
        Field(name="goods", dtype=Array(String)),
        Field(name="seals", dtype=Array(Bytes)),
        Field(name="stamps", dtype=Array(UnixTimestamp)),
        Field(name="manifest", dtype=Json),
    ],
    source=PushSource(name="cargo_push", batch_source=_source("cargo")),
    tags={"skewless.near_cache": "true"},
)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    queue = StreamFeatureView(
        name="queue",
        entities=[station],
        ttl=timedelta(hours=6),
        schema=[Field(name="wind", dtype=Int64), Field(name="sky", dtype=String)],
        source=PushSource(name="queue_push", batch_source=_source("weather")),
    )
trip = RequestSource(name="trip", schema=[Field(name="cars", dtype=Int32)])
comfort = on_demand_feature_view(
    name="comfort",
    sources=[weather[["temp", "wind"]], trip],
    schema=[Field(name="feels", dtype=Float64), Field(name="crowded", dtype=Bool)],
    mode="python",
)(computed.comfort)
lateness = on_demand_feature_view(
    name="lateness", sources=[leg], schema=[Field(name="worst", dtype=Float64)], mode="pandas"
)(computed.lateness)
renamed = FeatureService(
    name="renamed",
    features=[
        weather[["temp", "wind", "rain", "seen"]].with_name("here"),
        weather[["temp", "sky"]].with_join_key_map({"station": "destination"}).with_name("there"),
        leg.with_join_key_map({"station": "destination"}),
        network,
    ],
)
stored_lists = FeatureService(name="stored_lists", features=[cargo, queue])
functions = FeatureService(name="functions", features=[comfort, weather[["temp"]], lateness.with_name("delay")])
'''

_MODEL = '''\
"""A model of the small repository."""

from skewless.dtypes import Dtype
from skewless.features.contract import RequestField
from skewless.training.definition import BinaryLabels, BoostedTrees, ExampleTable, ModelDefinition, Period
from skewless.transforms import Transform, column

delay = ModelDefinition(
    name="delay",
    description="whether the train will be late",
    feature_service="delays",
    request_fields=(RequestField("cars", Dtype.INT32),),
    transform=Transform(
        {
            "temp": column("weather__temp", Dtype.FLOAT32).clean().impute_mean(),
            "late": column("leg__late", Dtype.FLOAT64).clean(high=1e6).impute(0.0),
            "cars": column("cars", Dtype.INT32, nullable=False),
        }
    ),
    examples=ExampleTable(path="examples.parquet"),
    training=Period.between("2024-01-01", "2024-01-09"),
    holdout=Period.between("2024-01-07", "2024-01-09"),
    labels=BinaryLabels(negative="on_time", positive="late"),
    learner=BoostedTrees(max_iter=5, min_samples_leaf=5),
    nullable_keys=frozenset({"line"}),
)
'''


@dataclass(frozen=True, slots=True)
class SmallRepository:
    """The repository's folder, an importable package of its own name, and the folder of its source tables."""

    folder: Path
    data: Path

    def open(self, online_store: str, registry: Path) -> FeatureRepository:
        """The repository over a Redis at `host:port` and a registry file."""
        return FeatureRepository(self.folder, Connections(online_store, f"sqlite:///{registry}"))

    def definitions(self, module: str = "features") -> ModuleType:
        """A module of the repository; needs `importable`."""
        return importlib.import_module(f"{self.folder.name}.{module}")


@contextmanager
def small_repository(folder: Path, name: str, *, project: str = "prod", seed: int = SEED) -> Iterator[SmallRepository]:
    """The repository and its tables under `folder`, importable as the package `name` inside the block."""
    repository, data = folder / name, folder / "data"
    (repository / "models").mkdir(parents=True)
    data.mkdir()
    files = {
        "feature_store.yaml": _STORE.format(project=project),
        "__init__.py": "",
        "features.py": _FEATURES,
        "computed.py": _COMPUTED,
        "extended.py": _EXTENDED.replace("PACKAGE", name),
        "models/__init__.py": "",
        "models/delay.py": _MODEL,
    }
    for path, text in files.items():
        (repository / path).write_text(text)
    for view, table in {**source_tables(seed), "cargo": cargo_table(seed)}.items():
        pq.write_table(table, data / f"{view}.parquet")
    pq.write_table(example_table(seed), data / "examples.parquet")
    with pytest.MonkeyPatch.context() as patch:
        # Set before the library does, so that the test's end takes it back.
        patch.setenv("SKEWLESS_DATA", str(data))
        patch.syspath_prepend(str(folder))
        try:
            yield SmallRepository(repository, data)
        finally:
            for module in [each for each in sys.modules if each == name or each.startswith(f"{name}.")]:
                del sys.modules[module]


def source_tables(seed: int) -> dict[str, pa.Table]:
    """Rows of each view in no order, with their event time `happened` and created time `known`."""
    rng = random.Random(seed)
    return {
        "weather": _table(rng, [{"station": station} for station in STATIONS], {"station": pa.string()}, _weather()),
        "leg": _table(
            rng,
            [{"station": station, "line": line} for station in STATIONS[:2] for line in LINES],
            {"station": pa.string(), "line": pa.int64()},
            {
                "late": (pa.float64(), [None, -0.0, 0.1, 1e300, float("inf"), 17.25]),
                "stops": (pa.int32(), [None, 0, -(2**31), 2**31 - 1, 12]),
            },
        ),
        "network": _table(rng, [{}], {}, {"load": (pa.float32(), [None, 0.5, 0.25, 1.0])}),
    }


def cargo_table(seed: int) -> pa.Table:
    """Rows of the view of lists, as those of `source_tables`."""
    rng = random.Random(seed + 2)
    listed: dict[str, tuple[pa.DataType, list[object]]] = {
        "flags": (pa.bool_(), [[], [True], [False, True]]),
        "counts": (pa.int32(), [[], [0], [-(2**31), 2**31 - 1]]),
        "totals": (pa.int64(), [[], [-1, 2**53 + 1], [-(2**63), 2**63 - 1]]),
        "weights": (pa.float32(), [[], [0.1, -0.0], [float("inf")]]),
        "prices": (pa.float64(), [[], [0.1, -0.0], [1e300, float("-inf")]]),
        "goods": (pa.string(), [[], [""], ["a", "\U0001f327"]]),
        "seals": (pa.binary(), [[], [b""], [b"\x00\xff", b"a"]]),
        "stamps": (_TIMESTAMP, [[], [from_micros(START_US), from_micros(START_US + 1_999_999)]]),
    }
    features = {name: (pa.list_(kind), [None, *choices]) for name, (kind, choices) in listed.items()}
    features["manifest"] = (pa.string(), [None, "{}", '{"a": [1, null]}'])
    return _table(rng, [{"station": station} for station in STATIONS], {"station": pa.string()}, features)


def example_table(seed: int) -> pa.Table:
    """A question every twenty minutes; some have no line, some never get an outcome."""
    rng = random.Random(seed + 1)
    rows = []
    for number in range(HOURS * 3):
        as_of = START_US + number * 20 * 60 * SECOND_US
        label = rng.choice([True, False, False]) if number % 17 else None
        rows.append(
            {
                "station": rng.choice([*STATIONS, "unknown"]),
                "line": rng.choice([*LINES, None]),
                "cars": rng.randrange(1, 9),
                "as_of": from_micros(as_of),
                "label": label,
                "outcome_time": None if label is None else from_micros(as_of + HOUR_US),
            }
        )
    schema = {
        "station": pa.string(),
        "line": pa.int64(),
        "cars": pa.int32(),
        "as_of": _TIMESTAMP,
        "label": pa.bool_(),
        "outcome_time": _TIMESTAMP,
    }
    return pa.Table.from_pylist(rows, schema=pa.schema(list(schema.items())))


def _weather() -> dict[str, tuple[pa.DataType, list[object]]]:
    moment = from_micros(START_US)
    return {
        "temp": (pa.float32(), [None, -0.0, 0.0, 21.5, float("nan"), float("-inf"), 0.1]),
        "wind": (pa.int64(), [None, 0, -7, 2**50]),
        "sky": (pa.string(), [None, "", "clear", "bewölkt \U0001f327"]),
        "rain": (pa.bool_(), [None, True, False]),
        "seen": (_TIMESTAMP, [None, moment, moment + timedelta(microseconds=1_999_999)]),
        "photo": (pa.binary(), [None, b"", b"\x00\xff"]),
    }


def _table(
    rng: random.Random,
    entities: list[dict[str, object]],
    keys: dict[str, pa.DataType],
    features: dict[str, tuple[pa.DataType, list[object]]],
) -> pa.Table:
    rows = []
    for entity in entities:
        # A coarse grid, so that corrections, late rows and rows that become known together all occur.
        times = {(hour, rng.choice([0, 0, 1, 5, 30])) for hour in rng.choices(range(HOURS), k=HOURS // 3)}
        times |= {(hour, late + 1) for hour, late in sorted(times)[::5]}
        for hour, late in sorted(times):
            happened = START_US + hour * HOUR_US + 250_001
            values = {name: rng.choice(choices) for name, (_, choices) in features.items()}
            known = from_micros(happened + late * HOUR_US)
            rows.append({**entity, "happened": from_micros(happened), "known": known, **values})
    rng.shuffle(rows)
    types = {**keys, "happened": _TIMESTAMP, "known": _TIMESTAMP} | {name: kind for name, (kind, _) in features.items()}
    return pa.Table.from_pylist(rows, schema=pa.schema(list(types.items())))
