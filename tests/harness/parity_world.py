"""A feature repository, a bundle over it and a store of its own, in which parity can be hurt on purpose.

One view of stations, one of legs (a composite key), one without an entity. Source rows are given as plain dicts and
written as Parquet; what is online comes there by Feast's materialization or push; what is served is read by the
gateway's reader and scored by the bundle's model. Times are in µs.
"""

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureService, FeatureView, Field, FileSource, RequestSource, ValueType
from feast.on_demand_feature_view import on_demand_feature_view
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.type_map import python_values_to_proto_values
from feast.types import Array, Bool, Float32, Float64, Int64, String, UnixTimestamp
from numpy.typing import NDArray

from harness.servers import ValkeyServer
from skewless.adapters.duckdb_point_in_time import OfflineSession
from skewless.adapters.feast_repository import Connections, FeatureRepository
from skewless.adapters.parity_keys import OtherKeys
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.dtypes import Column, Dtype, column_of
from skewless.features.contract import FeatureContract, Policy, RequestField
from skewless.features.frame import FeatureFrame
from skewless.features.on_demand import OnDemandPlan
from skewless.features.plan import ReadPlan
from skewless.parity.check import Checked, Served, Subject, check_rows
from skewless.parity.definitions import changed_views
from skewless.parity.evidence import Written
from skewless.parity.recompute import with_present_functions
from skewless.parity.report import Findings
from skewless.serving.records import tensor_digest
from skewless.timestamps import HOUR_US, from_micros, parse_timestamp
from skewless.transforms import FittedTransform, Transform, column

T0 = parse_timestamp("2024-03-01T00:00:00Z")
TTL = timedelta(hours=6)
SERVICE = "all"
_TIMESTAMP = pa.timestamp("us", tz="UTC")

Row = dict[str, Any]

WEATHER: dict[str, tuple[Any, pa.DataType]] = {
    "temp": (Float32, pa.float32()),
    "wind": (Int64, pa.int64()),
    "pressure": (Float64, pa.float64()),
    "sky": (String, pa.string()),
    "rain": (Bool, pa.bool_()),
    "seen": (UnixTimestamp, _TIMESTAMP),
    "gusts": (Array(Float32), pa.list_(pa.float32())),
}
LEG: dict[str, tuple[Any, pa.DataType]] = {"late": (Float64, pa.float64()), "stops": (Int64, pa.int64())}
NETWORK: dict[str, tuple[Any, pa.DataType]] = {"load": (Float32, pa.float32())}
KEYS = {"weather": {"station": pa.string()}, "leg": {"station": pa.string(), "line": pa.int64()}, "network": {}}
FEATURES = {"weather": WEATHER, "leg": LEG, "network": NETWORK}
FUNCTION = (
    "def feel(inputs):\n    return {'feels': [None if t is None else t - 2.0 for t in inputs['weather__temp']]}\n"
)

_STORE = """\
project: {project}
provider: local
registry: {{registry_type: sql, path: "${{SKEWLESS_FEAST_REGISTRY}}", cache_mode: sync}}
online_store: {{type: redis, connection_string: "${{SKEWLESS_ONLINE_STORE}}"}}
offline_store: {{type: skewless.adapters.feast_offline_store.VisibleDuckDBOfflineStore}}
entity_key_serialization_version: 3
"""


def hour(number: float) -> int:
    """So many hours after T0."""
    return T0 + int(number * HOUR_US)


def weather(station: str, at: float, known: float | None = None, **values: Any) -> Row:
    """A row of the view of stations: what happened at hour `at` and was known at hour `known`."""
    plain = {"temp": 1.5, "wind": 7, "pressure": 1013.25, "sky": "clear", "rain": False, "gusts": [0.5, 2.5]}
    return {
        "station": station,
        **plain,
        "seen": from_micros(hour(at)),
        **values,
        "happened": from_micros(hour(at)),
        "known": from_micros(hour(at if known is None else known)),
    }


def leg(station: str, line: int, at: float, known: float | None = None, **values: Any) -> Row:
    """A row of the view of legs."""
    return {
        "station": station,
        "line": line,
        "late": 0.1,
        "stops": 3,
        **values,
        "happened": from_micros(hour(at)),
        "known": from_micros(hour(at if known is None else known)),
    }


def network(at: float, known: float | None = None, **values: Any) -> Row:
    """A row of the view without an entity."""
    return {
        "load": 0.25,
        **values,
        "happened": from_micros(hour(at)),
        "known": from_micros(hour(at if known is None else known)),
    }


@dataclass(slots=True)
class ParityWorld:
    """See the module. `rows` are the source rows by view; `write_sources` makes files of them."""

    repository: FeatureRepository
    url: str
    folder: Path
    rows: dict[str, list[Row]] = field(default_factory=dict)
    definitions: dict[str, Any] = field(default_factory=dict)

    def define(self, *, ttl: timedelta = TTL) -> None:
        """Register the definitions; again to change them."""
        entities = {
            "station": Entity(name="station", join_keys=["station"], value_type=ValueType.STRING),
            "line": Entity(name="line", join_keys=["line"], value_type=ValueType.INT64),
        }
        views = {
            name: FeatureView(
                name=name,
                entities=[entities[key] for key in KEYS[name]],
                ttl=ttl if name == "weather" else timedelta(0),
                schema=[Field(name=feature, dtype=kind) for feature, (kind, _) in FEATURES[name].items()],
                source=FileSource(
                    name=f"{name}_source",
                    path=str(self.folder / f"{name}.parquet"),
                    timestamp_field="happened",
                    created_timestamp_column="known",
                ),
            )
            for name in FEATURES
        }
        module = importlib.import_module(f"functions_{self.repository.project}")
        comfort = on_demand_feature_view(
            name="comfort",
            sources=[views["weather"][["temp"]], RequestSource(name="trip", schema=[Field(name="cars", dtype=Int64)])],
            schema=[Field(name="feels", dtype=Float64)],
            mode="python",
        )(module.feel)
        service = FeatureService(name=SERVICE, features=[*views.values(), comfort])
        self.definitions = {**entities, **views, "comfort": comfort, "service": service}
        self.repository.apply(SimpleNamespace(__name__="world", **self.definitions))  # type: ignore[arg-type]  # what a module has

    def contract(self, policies: Mapping[str, tuple[Policy, Policy]] | None = None) -> FeatureContract:
        """What a bundle built now reads."""
        return self.repository.contract(SERVICE, request_fields=(RequestField("cars", Dtype.INT64),), policies=policies)

    def write_sources(self, **rows: list[Row]) -> None:
        """Write the source tables, with these rows in place of what they had."""
        self.rows.update(rows)
        for name, keys in KEYS.items():
            kinds = {**keys, **{each: kind for each, (_, kind) in FEATURES[name].items()}}
            schema = pa.schema([*kinds.items(), ("happened", _TIMESTAMP), ("known", _TIMESTAMP)])
            pq.write_table(
                pa.Table.from_pylist(self.rows.get(name, []), schema=schema), self.folder / f"{name}.parquet"
            )

    def materialize(self, at: float) -> None:
        """Materialize all views as of an hour."""
        self.repository.materialize(hour(at), lambda _: None)

    def push(self, view: str, rows: list[Row], *, key_types: Mapping[str, ValueType] | None = None) -> None:
        """Write rows with Feast's own conversion and Redis writer; the source does not learn of them."""
        registered = self.repository._store.registry.get_feature_view(view, self.repository.project)
        types = {each.name: each.dtype.to_value_type() for each in registered.entity_columns} | dict(key_types or {})
        kinds = {each.name: each.dtype.to_value_type() for each in registered.features}
        protos = {
            name: python_values_to_proto_values([row[name] for row in rows], kind)
            for name, kind in ({**types, **kinds} if KEYS[view] else kinds).items()
        }
        names = list(KEYS[view])
        written: list[Any] = [
            (
                EntityKey(join_keys=names, entity_values=[protos[name][place] for name in names]),
                {name: protos[name][place] for name in kinds},
                row["happened"],
                None,
            )
            for place, row in enumerate(rows)
        ]
        store = self.repository._store
        store._get_provider().online_write_batch(store.config, registered, written, progress=None)

    def serve(self, entities: list[Row], at: float | list[float], *, contract: FeatureContract | None = None) -> Served:
        """What a gateway answers about entities at an hour, or at one hour each: features read, scored and recorded."""
        contract = contract or self.contract()
        moments = [hour(each) for each in (at if isinstance(at, list) else [at] * len(entities))]
        given = _given(contract, entities)
        prepared = ReadPlan.compile(contract).prepare(given, len(entities))
        with closing(BlockingRedisOnlineStore(self.url)) as store:
            replies = store.read(prepared.keys, prepared.commands, timeout_s=5)
        as_of = np.array(moments, dtype=np.int64)
        frame = prepared.decode(replies, as_of).frame
        frame = OnDemandPlan.compile(contract, importlib.import_module).extend(frame, given)
        return answered(frame, given, as_of)

    def subject(self, store: BlockingRedisOnlineStore, *, contract: FeatureContract | None = None) -> Subject:
        """What served rows are checked against, as the command line puts it together; `store` is looked into."""
        contract = contract or self.contract()
        present, _ = with_present_functions(contract, importlib.import_module)
        return Subject(
            transform=TRANSFORM,
            contract=present,
            plan=OnDemandPlan.compile(present, importlib.import_module),
            score=score,
            changed=changed_views(contract, self.repository.compiled()),
            written={view: Written.of(runs) for view, runs in self.repository.materialized(SERVICE).items() if runs},
            probe=OtherKeys(contract, store),
        )

    def check(self, served: Served, *, contract: FeatureContract | None = None) -> tuple[Checked, dict[str, Any]]:
        """The check of served rows, and its report."""
        with closing(BlockingRedisOnlineStore(self.url)) as store:
            subject = self.subject(store, contract=contract)
            with OfflineSession(subject.contract, self.repository.sources(SERVICE)) as offline:
                checked = check_rows(replace(subject, watermarks=offline.watermarks()), served, offline)
        findings = Findings()
        findings.add(checked, subject.contract)
        return checked, findings.report({})

    def causes(self, served: Served, *, contract: FeatureContract | None = None) -> dict[str, set[str]]:
        """Every cause that a check names, with the views that it names it for."""
        _, report = self.check(served, contract=contract)
        found: dict[str, set[str]] = {}
        for each in report["causes"]:
            found.setdefault(each["cause"], set()).add(each["view"])
        return found


def answered(frame: FeatureFrame, given: Mapping[str, Column], as_of: Any, **changes: Any) -> Served:
    """The record of rows whose features were read; `changes` replace fields of it."""
    tensor = TRANSFORM.prepare().apply({**given, **frame.columns}, frame.rows)
    record = Served(
        prediction_ids=[f"p{number}" for number in range(frame.rows)],
        as_of=as_of,
        given=given,
        frame=frame,
        tensor=tensor,
        has_tensor=np.ones(frame.rows, dtype=np.bool_),
        tensor_digests=[tensor_digest(row) for row in tensor],
        outputs=score(tensor),
        rungs=["normal"] * frame.rows,
    )
    return replace(record, **changes)


def _given(contract: FeatureContract, entities: list[Row]) -> dict[str, Column]:
    named = [(key.name, key.dtype) for key in contract.join_keys]
    named += [(each.name, each.dtype) for each in contract.request_fields]
    defaults: Row = {"line": 1, "cars": 4}
    return {name: column_of(dtype, [{**defaults, **each}[name] for each in entities]) for name, dtype in named}


def score(tensor: NDArray[np.float32]) -> NDArray[np.float32]:
    """The model: two numbers per row, made of powers of two, so that they are exact everywhere."""
    numbers = np.clip(np.nan_to_num(tensor.astype(np.float64)), -4096.0, 4096.0)
    total = np.sum(numbers, axis=1, keepdims=True) / 4096.0
    return np.concatenate([total, 1.0 - total], axis=1).astype(np.float32)


def _transform() -> FittedTransform:
    declared = Transform(
        {
            "temp": column("weather__temp", Dtype.FLOAT32).impute(0.0),
            "wind": column("weather__wind", Dtype.INT64).impute(0.0),
            "pressure": column("weather__pressure", Dtype.FLOAT64).impute(0.0),
            "late": column("leg__late", Dtype.FLOAT64).impute(0.0),
            "load": column("network__load", Dtype.FLOAT32).impute(0.0),
            "feels": column("comfort__feels", Dtype.FLOAT64).impute(0.0),
            "cars": column("cars", Dtype.INT64, nullable=False),
        }
    )
    sample = {
        "weather__temp": column_of(Dtype.FLOAT32, [1.5]),
        "weather__wind": column_of(Dtype.INT64, [1]),
        "weather__pressure": column_of(Dtype.FLOAT64, [1.0]),
        "leg__late": column_of(Dtype.FLOAT64, [1.0]),
        "network__load": column_of(Dtype.FLOAT32, [1.0]),
        "comfort__feels": column_of(Dtype.FLOAT64, [1.0]),
        "cars": column_of(Dtype.INT64, [1]),
    }
    return declared.fit(sample, 1)


TRANSFORM = _transform()


@contextmanager
def parity_world(folder: Path, name: str, server: ValkeyServer) -> Iterator[ParityWorld]:
    """A world under `folder`, in a project of its own called `name`; its function can be imported in the block."""
    project = "".join(each for each in name if each.isalnum())
    repository = folder / "repository"
    repository.mkdir()
    (repository / "feature_store.yaml").write_text(_STORE.format(project=project))
    module = f"functions_{project}"
    (folder / f"{module}.py").write_text(FUNCTION)
    connections = Connections(f"{server.host}:{server.port}", f"sqlite:///{folder}/feast.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        try:
            yield ParityWorld(FeatureRepository(repository, connections), server.url, folder)
        finally:
            sys.modules.pop(module, None)
