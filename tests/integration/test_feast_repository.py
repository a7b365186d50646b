"""Feast's repository over a real registry and a real Valkey: contracts, materialization, writes and its own SDK."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Float32
from redis import Redis

from harness.feature_repository import (
    EVERYTHING,
    FEAST_WARNS,
    SERVICE,
    START_US,
    TTL,
    SmallRepository,
    small_repository,
    source_tables,
)
from harness.servers import ValkeyServer
from skewless.adapters.feast_repository import Connections, FeatureRepository
from skewless.dtypes import Column, Dtype, column_of, to_python
from skewless.errors import InvalidDefinition, NotFound, Unavailable
from skewless.features.contract import Action, FeatureContract, JoinKey, Policy, RequestField
from skewless.features.plan import ReadPlan
from skewless.features.redis_layout import KeyTemplate, timestamp_field
from skewless.features.value_codec import decode_timestamp
from skewless.stack.ports import free_ports
from skewless.timestamps import HOUR_US, from_micros, to_micros

pytestmark = FEAST_WARNS

PROJECT = "prod"
SEED = 5
AS_OF = START_US + 100 * HOUR_US
STATION = KeyTemplate.compile((JoinKey("station", Dtype.STRING),), PROJECT)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallRepository]:
    with small_repository(tmp_path_factory.mktemp("repository"), "small_feast", project=PROJECT, seed=SEED) as made:
        yield made


@pytest.fixture
def client(valkey_server: ValkeyServer) -> Iterator[Redis]:
    """An emptied store."""
    with Redis(host=valkey_server.host, port=valkey_server.port) as made:
        made.flushdb()
        yield made


@pytest.fixture(scope="module")
def repository(small: SmallRepository, valkey_server: ValkeyServer) -> FeatureRepository:
    made = small.open(f"{valkey_server.host}:{valkey_server.port}", small.data / "registry.db")
    made.apply(small.definitions())
    return made


def _contract(repository: FeatureRepository, **options: Any) -> FeatureContract:
    return repository.contract(EVERYTHING, **{"request_fields": (), **options})


def test_apply_says_what_it_registered(small: SmallRepository, repository: FeatureRepository) -> None:
    applied = repository.apply(small.definitions())
    assert applied.entities == ("line", "station")
    assert applied.feature_views == ("leg", "network", "weather")
    assert applied.feature_services == ("delays", "everything")


def test_a_module_without_definitions_is_refused(repository: FeatureRepository) -> None:
    with pytest.raises(InvalidDefinition, match="defines no Feast entity"):
        repository.apply(ModuleType("empty"))


def test_a_contract_has_what_was_declared(repository: FeatureRepository) -> None:
    default, reject = Policy(Action.DEFAULT, -1.5), Policy(Action.REJECT)
    contract = _contract(
        repository,
        request_fields=(RequestField("cars", Dtype.INT32),),
        nullable_keys=frozenset({"line"}),
        policies={"weather__temp": (default, reject)},
    )
    weather, leg, network = contract.views
    assert weather.ttl_us == TTL.total_seconds() * 1_000_000
    assert weather.join_keys == (JoinKey("station", Dtype.STRING),)
    assert [feature.dtype.value for feature in weather.features] == [
        "float32",
        "int64",
        "string",
        "bool",
        "timestamp",
        "bytes",
    ]
    assert (weather.features[0].on_missing, weather.features[0].on_stale) == (default, reject)
    assert leg.join_keys == (JoinKey("line", Dtype.INT64, nullable=True), JoinKey("station", Dtype.STRING))
    assert leg.ttl_us == 0
    assert [feature.dtype.value for feature in leg.features] == ["float64", "int32"]
    assert network.join_keys == ()
    assert contract.project == PROJECT
    assert [key.name for key in contract.join_keys] == ["station", "line"]


def test_the_same_definitions_give_the_same_contract_digest(repository: FeatureRepository) -> None:
    assert _contract(repository).digest == _contract(repository).digest
    other = repository.contract(SERVICE, request_fields=())
    assert other.definitions_digest != _contract(repository).definitions_digest


def test_an_unknown_service_is_named_with_the_known_ones(repository: FeatureRepository) -> None:
    with pytest.raises(NotFound, match=r"`nope` does not exist\. Known: `delays`, `everything`"):
        repository.contract("nope", request_fields=())


def test_a_policy_of_an_unknown_column_is_refused(repository: FeatureRepository) -> None:
    with pytest.raises(InvalidDefinition, match="policy `weather__tmp` names nothing"):
        _contract(repository, policies={"weather__tmp": (Policy(), Policy())})


def test_an_unknown_nullable_key_is_refused(repository: FeatureRepository) -> None:
    with pytest.raises(InvalidDefinition, match=r"nullable key `plane` names nothing.*Known: line, station"):
        _contract(repository, nullable_keys=frozenset({"plane"}))


def test_a_folder_without_settings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidDefinition, match=r"feature_store\.yaml"):
        FeatureRepository(tmp_path, Connections("127.0.0.1:1", "sqlite://"))


def test_what_cannot_be_read_online_is_refused(small: SmallRepository, tmp_path: Path) -> None:
    definitions = small.definitions()
    hub = Entity(name="hub", join_keys=["hub"], value_type=ValueType.STRING)
    source = FileSource(name="s", path=str(small.data / "weather.parquet"), timestamp_field="happened")
    listed = FeatureView(name="listed", entities=[hub], source=source, schema=[Field(name="v", dtype=Array(Float32))])
    module: Any = SimpleNamespace(
        __name__="odd",
        **{name: value for name, value in vars(definitions).items() if not name.startswith("_")},
        hub=hub,
        listed=listed,
        aliased=FeatureService(name="aliased", features=[definitions.weather.with_name("sky")]),
        mapped=FeatureService(
            name="mapped", features=[definitions.weather.with_join_key_map({"station": "destination"})]
        ),
        lists=FeatureService(name="lists", features=[listed]),
    )
    repository = small.open("127.0.0.1:1", tmp_path / "registry.db")
    repository.apply(module)
    for service in ("aliased", "mapped"):
        with pytest.raises(InvalidDefinition, match="an alias, a join-key map or a version pin"):
            repository.contract(service, request_fields=())
    with pytest.raises(InvalidDefinition, match="feature `listed:v` has Feast type"):
        repository.contract("lists", request_fields=())


def _newest_visible(as_of: int) -> dict[str, int]:
    """Event time of each station's weather that was known at a moment, from the table as it was made."""
    newest: dict[str, int] = {}
    for row in source_tables(SEED)["weather"].to_pylist():
        happened = to_micros(row["happened"])
        if max(happened, to_micros(row["known"])) <= as_of:
            newest[row["station"]] = max(happened, newest.get(row["station"], happened))
    return newest


def _stored_times(client: Any) -> dict[str, int]:
    stored = {name: client.hget(STATION.key((name,)), timestamp_field("weather")) for name in ("north", "süd", "")}
    return {name: decode_timestamp(data) for name, data in stored.items() if isinstance(data, bytes)}


@pytest.mark.parametrize("hour", [3, 50, 100])
def test_materializing_writes_no_row_that_was_not_known_yet(
    repository: FeatureRepository, client: Redis, hour: int
) -> None:
    as_of = START_US + hour * HOUR_US
    said: list[str] = []
    assert repository.materialize(as_of, said.append) == ("leg", "network", "weather")
    assert said == ["1/3 leg", "2/3 network", "3/3 weather"]
    assert _stored_times(client) == _newest_visible(as_of)


def test_feasts_own_materialization_keeps_unknown_rows_out_of_sight_too(
    repository: FeatureRepository, client: Redis
) -> None:
    store = FeatureStore(config=repository._config)
    store.materialize(from_micros(0), from_micros(AS_OF), feature_views=["weather"])
    unseen = [
        row
        for row in source_tables(SEED)["weather"].to_pylist()
        if to_micros(row["happened"]) <= AS_OF < to_micros(row["known"])
    ]
    assert unseen, "the seed must make rows that happened before and became known after"
    assert _stored_times(client) == _newest_visible(AS_OF)


def test_feasts_sdk_reads_the_same_values(repository: FeatureRepository, client: Redis) -> None:
    repository.materialize(AS_OF, lambda _: None)
    entities = [("north", 1), ("süd", -3), ("", 2**40), ("unknown", 1)]
    rows = [{"station": station, "line": line} for station, line in entities]
    theirs = repository.online_features(EVERYTHING, rows)
    stations, lines = zip(*entities, strict=True)
    keys = {"station": column_of(Dtype.STRING, stations), "line": column_of(Dtype.INT64, lines)}
    contract = _contract(repository)
    compared = 0
    # Feast does not apply the ttl to an ordinary online read, so what is null here may have a value there.
    for name, column in _read(contract, keys, len(rows), client).items():
        ours = to_python(column)
        if name == "weather__seen":
            ours = [None if value is None else from_micros(int(str(value))) for value in ours]
        assert len(ours) == len(theirs[name])
        for mine, other in zip(ours, theirs[name], strict=True):
            assert mine == other or mine is None
            compared += mine is not None
    assert compared > 10


def _read(contract: FeatureContract, keys: dict[str, Column], rows: int, client: Any) -> dict[str, Column]:
    prepared = ReadPlan.compile(contract).prepare(keys, rows)
    answers: Any = [client.hmget(each.key, list(each.fields)) for each in prepared.reads]
    return dict(prepared.decode(answers, AS_OF).columns)


def _weather(happened: int, known: int, temp: float) -> pa.RecordBatch:
    moment = pa.timestamp("us", tz="UTC")
    schema = {name: field.type for name, field in zip(*_weather_schema(), strict=True)}
    row = {"station": "north", "happened": happened, "known": known, "temp": temp}
    arrays = {name: pa.array([row.get(name)], pa.int64() if kind == moment else kind) for name, kind in schema.items()}
    return pa.RecordBatch.from_pydict({name: array.cast(schema[name]) for name, array in arrays.items()})


def _weather_schema() -> tuple[list[str], list[pa.Field]]:
    schema = source_tables(SEED)["weather"].schema
    return schema.names, list(schema)


def _temp(repository: FeatureRepository, client: Redis) -> object:
    keys = {"station": column_of(Dtype.STRING, ["north"]), "line": column_of(Dtype.INT64, [1])}
    return to_python(_read(_contract(repository), keys, 1, client)["weather__temp"])[0]


def test_a_writer_keeps_the_newer_row_and_takes_a_correction(repository: FeatureRepository, client: Redis) -> None:
    write = repository.writer("weather")
    now = AS_OF - HOUR_US
    write(_weather(now, now, 1.0))
    write(_weather(now - HOUR_US, now, 2.0))
    assert _temp(repository, client) == 1.0
    write(_weather(now, now + 5, 3.0))
    assert _temp(repository, client) == 3.0
    write(pa.concat_batches([_weather(now + 9, now, 4.0), _weather(now + 8, now, 5.0)]))
    assert _temp(repository, client) == 4.0


def test_a_store_that_is_away_is_unavailable(small: SmallRepository, repository: FeatureRepository) -> None:
    (port,) = free_ports(1)
    away = small.open(f"127.0.0.1:{port}", small.data / "registry.db")
    with pytest.raises(Unavailable, match="online store"):
        away.materialize(AS_OF, lambda _: None)


def test_materializing_before_apply_says_what_to_run(small: SmallRepository, tmp_path: Path) -> None:
    with pytest.raises(InvalidDefinition, match=r"(?s)no registered feature view.*skewless apply"):
        small.open("127.0.0.1:1", tmp_path / "registry.db").materialize(AS_OF, lambda _: None)


@pytest.mark.parametrize("was_set", [False, True])
def test_importing_the_adapter_leaves_the_environment_and_standard_output_alone(was_set: bool, tmp_path: Path) -> None:
    before = str(tmp_path) if was_set else None
    variable = "PROMETHEUS_MULTIPROC_DIR"
    environment = {name: value for name, value in os.environ.items() if name != variable}
    if before is not None:
        environment[variable] = before
    code = (
        "import os, sys; import skewless.adapters.feast_repository; "
        f"sys.stderr.write(repr(os.environ.get({variable!r})))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    assert done.stderr.strip().endswith(repr(before))
