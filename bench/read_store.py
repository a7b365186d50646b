"""Feature stores to read from: a Valkey, Feast repositories of several shapes, and rows written by Feast itself.

A shape is a set of views over entities. Its values are drawn from a seed, so that two runs read the same data. Every
dtype that a model commonly takes occurs: of eight features in a row three are float32, two float64, two int64 and
bool, one is a string, and from ten features on one is a timestamp. One value in twenty is null.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa

from skewless.adapters.feast_repository import Connections, FeatureRepository
from skewless.dtypes import TABLE, Dtype
from skewless.errors import StackFailed, Unavailable
from skewless.features.contract import FeatureContract
from skewless.features.plan import ReadPlan
from skewless.stack.ports import LOOPBACK, free_ports
from skewless.stack.process import start, tail
from skewless.stack.valkey import valkey_spec

# After the adapter, which keeps Feast's import from changing the environment.
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, ValueType  # isort: skip
from feast import types as feast_types  # isort: skip

SEED = 20240101
ENTITIES = 1_200
"""Of the largest entity: more than the 1,000 rows of the largest read, so that each row may be another one."""
SERVICE = "everything"
NULL_SHARE = 0.05
DTYPES = (
    Dtype.FLOAT32, Dtype.FLOAT64, Dtype.INT64, Dtype.FLOAT32, Dtype.STRING, Dtype.FLOAT64, Dtype.BOOL, Dtype.FLOAT32,
)  # fmt: skip
_READY_TIMEOUT_S = 30.0
_WRITE_ROWS = 300
"""Rows given to Feast's writer at once, which holds all their values as protobuf objects."""
_STORE = """\
project: {project}
provider: local
registry: {{registry_type: sql, path: "sqlite:///{folder}/registry.db", cache_mode: sync}}
online_store: {{type: redis, connection_string: "{address}"}}
offline_store: {{type: file}}
entity_key_serialization_version: 3
"""


@dataclass(frozen=True, slots=True)
class Key:
    """A join key: its dtype (int64 or string), how many entities exist, and whether few of them get most rows."""

    name: str
    dtype: Dtype
    count: int
    skewed: bool = False

    def value(self, index: int) -> int | str:
        """The key of one entity."""
        return 10_000_000 + index if self.dtype is Dtype.INT64 else f"{self.name}-{index:06d}"


@dataclass(frozen=True, slots=True)
class Shape:
    """`features` spread evenly over six views; view `n` belongs to key `n` modulo the count of keys."""

    name: str
    keys: tuple[Key, ...]
    features: int

    @property
    def views(self) -> dict[str, tuple[Key, tuple[tuple[str, Dtype], ...]]]:
        """By view: its key, and its features with their dtypes. Fewer than six features have a view each."""
        count = min(6, self.features)
        numbered = list(enumerate(_dtypes(self.features)))
        return {
            f"view{view}": (
                self.keys[view % len(self.keys)],
                tuple((f"feature{number:03d}", dtype) for number, dtype in numbered[view::count]),
            )
            for view in range(count)
        }


def spread(features: int) -> Shape:
    """Three entities with two views each; each row asks for other entities."""
    keys = (Key("customer", Dtype.INT64, ENTITIES), Key("product", Dtype.STRING, ENTITIES), _key("courier"))
    return Shape("three entities", keys, features)


def one_entity(features: int) -> Shape:
    """All views on one entity, which one hash holds."""
    return Shape("one entity", (Key("customer", Dtype.INT64, ENTITIES),), features)


def skewed(features: int) -> Shape:
    """As in the flights example: 3 origins, 16 carriers, many aircraft; most rows share an origin and a carrier."""
    keys = (_key("origin", 3, skewed=True), _key("carrier", 16, skewed=True), _key("aircraft"))
    return Shape("skewed keys", keys, features)


@dataclass(frozen=True, slots=True)
class ReadStore:
    """A shape's data in a running Valkey, with Feast's SDK and the contract to read it by."""

    shape: Shape
    port: int
    sdk: FeatureStore
    service: Any
    contract: FeatureContract
    plan: ReadPlan
    as_of: int
    """Microseconds; after every event time."""

    def entity_rows(self, rows: int, draw: int = 0) -> dict[str, list[Any]]:
        """Keys to ask for, by join key, `rows` of each; the same ones in every run, others for another `draw`."""
        rng = np.random.default_rng((SEED, rows, draw))
        names = {key.name for key, _ in self.shape.views.values()}
        return {key.name: _keys_of_rows(key, rows, rng) for key in self.shape.keys if key.name in names}


@contextlib.contextmanager
def running_valkey(folder: Path) -> Iterator[int]:
    """The port of a Valkey on loopback, stopped on leaving."""
    port = free_ports(1)[0]
    spec = valkey_spec(port=port, data=folder / "valkey", logs=folder / "logs")
    process = start(spec)
    try:
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while not asyncio.run(_answers(spec.probe)):
            if process.exit_status() is not None or time.monotonic() > deadline:
                raise StackFailed(f"Valkey does not come up:\n{tail(spec.log_file)}", hint="run `skewless doctor`")
            time.sleep(0.02)
        yield port
    finally:
        process.stop()


def build(shape: Shape, folder: Path, port: int) -> ReadStore:
    """Register a shape's views under a project of its own, and write every entity's row through Feast's writer."""
    project = f"{shape.name} {shape.features}".replace(" ", "_")
    home = folder / project
    home.mkdir(parents=True)
    (home / "feature_store.yaml").write_text(
        _STORE.format(project=project, folder=home.as_posix(), address=f"{LOOPBACK}:{port}")
    )
    repository = FeatureRepository(home, Connections(online_store="", registry=""))
    repository.apply(_definitions(shape, home))
    now = datetime.now(UTC).replace(microsecond=0)
    rng = np.random.default_rng(SEED)
    for view, (key, features) in shape.views.items():
        write = repository.writer(view)
        for batch in _source_rows(key, features, now, rng).to_batches(max_chunksize=_WRITE_ROWS):
            write(batch)
    sdk = FeatureStore(repo_path=str(home))
    contract = repository.contract(SERVICE, request_fields=())
    return ReadStore(
        shape=shape,
        port=port,
        sdk=sdk,
        service=sdk.get_feature_service(SERVICE),
        contract=contract,
        plan=ReadPlan.compile(contract, _hash_sizes(contract)),
        as_of=int(now.timestamp()) * 1_000_000,
    )


def _hash_sizes(contract: FeatureContract) -> dict[tuple[str, ...], int]:
    """How many fields each hash has where nothing but the contract's views was written into it."""
    sizes: dict[tuple[str, ...], int] = {}
    for view in contract.views:
        names = tuple(sorted(key.key_name for key in view.join_keys))
        sizes[names] = sizes.get(names, 0) + 1 + len(view.features)
    return sizes


async def _answers(probe: Any) -> bool:
    try:
        await probe()
    except Unavailable:
        return False
    return True


def _key(name: str, count: int = ENTITIES, *, skewed: bool = False) -> Key:
    return Key(name, Dtype.STRING, count, skewed)


def _dtypes(features: int) -> list[Dtype]:
    chosen = [DTYPES[number % len(DTYPES)] for number in range(features)]
    return [*chosen[:-1], Dtype.TIMESTAMP] if features >= 10 else chosen


def _keys_of_rows(key: Key, rows: int, rng: np.random.Generator) -> list[int | str]:
    """Different entities where there are enough of them and they are not skewed; else entity n about 1/(n + 1)."""
    if not key.skewed:
        return [key.value(int(index)) for index in rng.permutation(key.count)[:rows]]
    weights = 1 / np.arange(1, key.count + 1)
    return [key.value(int(index)) for index in rng.choice(key.count, size=rows, p=weights / weights.sum())]


def _definitions(shape: Shape, folder: Path) -> ModuleType:
    module = ModuleType("definitions")
    entities = {key.name: _entity(key) for key in shape.keys}
    views = [_view(view, entities[key.name], features, folder) for view, (key, features) in shape.views.items()]
    service = FeatureService(name=SERVICE, features=views)
    vars(module).update({each.name: each for each in (*entities.values(), *views, service)})
    return module


def _entity(key: Key) -> Any:
    kind = {Dtype.INT64: ValueType.INT64, Dtype.STRING: ValueType.STRING}[key.dtype]
    return Entity(name=key.name, join_keys=[key.name], value_type=kind)


def _view(name: str, entity: Any, features: tuple[tuple[str, Dtype], ...], folder: Path) -> Any:
    """A view whose source is never read: its rows are written straight into the online store."""
    source = FileSource(name=f"{name}_source", path=str(folder / f"{name}.parquet"), timestamp_field="event_time")
    schema = [Field(name=feature, dtype=getattr(feast_types, TABLE[dtype].feast)) for feature, dtype in features]
    return FeatureView(name=name, entities=[entity], ttl=timedelta(days=1), schema=schema, source=source)


def _source_rows(
    key: Key, features: tuple[tuple[str, Dtype], ...], now: datetime, rng: np.random.Generator
) -> pa.Table:
    """A row for each entity of a key, with event times of the last hour."""
    seconds = rng.integers(0, 3600, key.count)
    columns: dict[str, Any] = {
        key.name: [key.value(index) for index in range(key.count)],
        "event_time": pa.array([now - timedelta(seconds=int(each)) for each in seconds], pa.timestamp("us", tz="UTC")),
    }
    for name, dtype in features:
        columns[name] = _values(dtype, key.count, now, rng)
    return pa.table(columns)


def _values(dtype: Dtype, count: int, now: datetime, rng: np.random.Generator) -> Any:
    """An Arrow array of random values of a dtype, one in twenty of them null."""
    draw: Mapping[Dtype, Any] = {
        Dtype.FLOAT32: lambda: rng.normal(0, 100, count).astype(np.float32),
        Dtype.FLOAT64: lambda: rng.lognormal(0, 3, count),
        Dtype.INT64: lambda: rng.integers(-5, 100_000, count),
        Dtype.BOOL: lambda: rng.random(count) < 0.3,
        Dtype.STRING: lambda: np.array([f"category {index}" for index in rng.integers(0, 500, count)], dtype=object),
        Dtype.TIMESTAMP: lambda: int(now.timestamp()) * 1_000_000 - rng.integers(0, 10**6, count) * 1_000_000,
    }
    array = pa.array(draw[dtype](), mask=rng.random(count) < NULL_SHARE)
    return array.cast(pa.timestamp("us", tz="UTC")) if dtype is Dtype.TIMESTAMP else array
