"""Feast's repository over a real registry and a real Valkey: contracts, materialization, writes and its own SDK."""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Float32, Int64, Map, ScalarMap, Set, Struct, ZonedTimestamp
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
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.dtypes import ELEMENTS, Column, Dtype, column_of, to_python
from skewless.errors import InvalidDefinition, NotFound, Unavailable
from skewless.features.compiled_registry import CompiledRegistry
from skewless.features.contract import Action, FeatureContract, JoinKey, Mode, Policy, RequestField
from skewless.features.plan import ReadPlan
from skewless.features.redis_layout import KeyTemplate, feature_field, timestamp_field
from skewless.features.value_codec import event_times_of
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


def _extended(small: SmallRepository, tmp_path: Path) -> FeatureRepository:
    made = small.open("127.0.0.1:1", tmp_path / "registry.db")
    made.apply(small.definitions("extended"))
    return made


def _module(**definitions: Any) -> Any:
    return SimpleNamespace(__name__="odd", **definitions)


def test_names_and_join_keys_given_anew_are_in_the_contract(small: SmallRepository, tmp_path: Path) -> None:
    here, there, leg, network = _extended(small, tmp_path).contract("renamed").views
    assert (here.view, here.name, here.field_name) == ("weather", "here", "weather")
    assert (there.view, there.name) == ("weather", "there")
    assert here.join_keys == (JoinKey("station", Dtype.STRING),)
    assert there.join_keys == (JoinKey("destination", Dtype.STRING, stored_name="station"),)
    assert [feature.name for feature in there.features] == ["temp", "sky"]
    assert leg.alias == ""
    assert leg.join_keys == (
        JoinKey("destination", Dtype.STRING, stored_name="station"),
        JoinKey("line", Dtype.INT64),
    )
    assert network.join_keys == ()


def test_lists_push_and_stream_views_are_in_the_contract(small: SmallRepository, tmp_path: Path) -> None:
    repository = _extended(small, tmp_path)
    cargo, queue = repository.contract("stored_lists").views
    assert [feature.dtype for feature in cargo.features] == [*ELEMENTS, Dtype.STRING]
    assert [feature.feast_type for feature in cargo.features] == [*[""] * len(ELEMENTS), "Json"]
    assert (cargo.near_cache, queue.near_cache) == (True, False)
    assert [feature.name for feature in queue.features] == ["wind", "sky"]
    assert Path(repository.sources("stored_lists")["queue"].path).name == "weather.parquet"


def test_on_demand_views_are_in_the_contract_with_what_they_read(small: SmallRepository, tmp_path: Path) -> None:
    contract = _extended(small, tmp_path).contract("functions", request_fields=(RequestField("fare", Dtype.FLOAT64),))
    comfort, delay = contract.on_demand
    package = small.folder.name
    assert (comfort.function, delay.function) == (f"{package}.computed:comfort", f"{package}.computed:lateness")
    assert (comfort.mode, delay.mode) == (Mode.PYTHON, Mode.PANDAS)
    assert (delay.name, [feature.name for feature in delay.features]) == ("delay", ["worst"])
    assert dict(comfort.inputs) == {
        "cars": "cars",
        "station": "station",
        "temp": "weather__temp",
        "weather__temp": "weather__temp",
        "wind": "weather__wind",
        "weather__wind": "weather__wind",
    }
    # The service asks for one feature of the weather and for none of the leg; what functions read is read too.
    assert [(view.name, [feature.name for feature in view.features]) for view in contract.views] == [
        ("weather", ["temp", "wind"]),
        ("leg", ["late", "stops"]),
    ]
    assert contract.request_fields == (RequestField("fare", Dtype.FLOAT64), RequestField("cars", Dtype.INT32))
    assert FeatureContract.from_json(contract.to_json()) == contract


def test_a_compiled_registry_has_every_service(small: SmallRepository, tmp_path: Path) -> None:
    repository = _extended(small, tmp_path)
    source = FileSource(name="s", path=str(small.data / "weather.parquet"), timestamp_field="happened")
    odd = FeatureView(name="odd", entities=[], source=source, schema=[Field(name="v", dtype=Map)])
    repository.apply(_module(odd=odd, service=FeatureService(name="maps", features=[odd])))
    compiled = repository.compiled()
    assert sorted(compiled.contracts) == ["delays", "everything", "functions", "renamed", "stored_lists"]
    assert compiled.contracts["functions"] == repository.contract("functions")
    assert list(compiled.refusals) == ["maps"]
    assert "feature `odd:v` has Feast type `Map`, which cannot be read online" in compiled.refusals["maps"]
    # Weather, cargo and the stream view, of which Feast stores the join key like a feature; each with its time.
    assert compiled.hash_sizes == {("line", "station"): 3, ("station",): 7 + 10 + 4, (): 2 + 2}
    assert CompiledRegistry.from_json(compiled.to_json()).digest == repository.compiled().digest


@pytest.mark.parametrize(
    "dtype",
    [Map, Struct({"a": Int64}), Set(Int64), ScalarMap, ZonedTimestamp, Array(Array(Int64)), Array(Map)],
    ids=str,
)
def test_a_type_that_cannot_be_read_online_is_refused(small: SmallRepository, tmp_path: Path, dtype: Any) -> None:
    source = FileSource(name="s", path=str(small.data / "weather.parquet"), timestamp_field="happened")
    odd = FeatureView(name="odd", entities=[], source=source, schema=[Field(name="v", dtype=dtype)])
    repository = small.open("127.0.0.1:1", tmp_path / "registry.db")
    repository.apply(_module(odd=odd, service=FeatureService(name="service", features=[odd])))
    with pytest.raises(InvalidDefinition, match=r"feature `odd:v` has Feast type .* cannot be read online\. Allowed:"):
        repository.contract("service")


def test_uses_that_have_no_one_meaning_are_refused(small: SmallRepository, tmp_path: Path) -> None:
    weather = small.definitions().weather
    repository = _extended(small, tmp_path)
    mapped = weather.with_join_key_map({"station": "destination"})
    services = {
        "twice": ([weather, mapped], "`weather` is used twice, for different views or with different join-key maps"),
        "nothing": ([weather.with_join_key_map({"plane": "tail"})], "renames `plane`, which is none of its join keys"),
        "pinned": (["weather@v0"], "pinned to version 0, but the store keeps no versions"),
    }
    for name, (features, reason) in services.items():
        repository.apply(_module(service=FeatureService(name=name, features=features)))
        with pytest.raises(InvalidDefinition, match=reason):
            repository.contract(name)


def _colliding(view: str) -> tuple[str, str]:
    """Two features of a view whose names have one 32-bit hash."""
    seen: dict[bytes, str] = {}
    for number in itertools.count():
        feature = f"f{number}"
        other = seen.setdefault(feature_field(view, feature), feature)
        if other != feature:
            return other, feature
    raise AssertionError


def test_definitions_that_would_lose_data_are_refused_and_not_registered(
    small: SmallRepository, tmp_path: Path
) -> None:
    repository = small.open("127.0.0.1:1", tmp_path / "registry.db")
    source = FileSource(name="s", path=str(small.data / "weather.parquet"), timestamp_field="happened")
    hub = Entity(name="hub", join_keys=["station"], value_type=ValueType.STRING)
    fields = [Field(name=name, dtype=Int64) for name in _colliding("weather")]
    collides = FeatureView(name="weather", entities=[hub], source=source, schema=fields)
    inferred = FeatureView(name="inferred", entities=[hub], source=source)
    for view, reason in ((collides, "share the Redis hash field"), (inferred, "view `inferred` declares no features")):
        with pytest.raises(InvalidDefinition, match=f"the definitions are refused: .*{reason}"):
            repository.apply(_module(hub=hub, view=view))
    assert repository.definitions() == []


def test_projects_of_one_registry_that_end_alike_are_warned_of(small: SmallRepository, tmp_path: Path) -> None:
    _extended(small, tmp_path)
    folder = tmp_path / "other"
    folder.mkdir()
    text = (small.folder / "feature_store.yaml").read_text().replace(f"project: {PROJECT}", f"project: non{PROJECT}")
    (folder / "feature_store.yaml").write_text(text)
    other = FeatureRepository(folder, Connections("127.0.0.1:1", f"sqlite:///{tmp_path}/registry.db"))
    (warning,) = other.apply(small.definitions()).warnings
    assert (warning.code, other.projects()) == ("project_suffix", (f"non{PROJECT}", PROJECT))


@pytest.mark.parametrize("versioned", [True, False])
def test_a_version_is_read_under_the_name_that_feast_stores_it(
    small: SmallRepository, tmp_path: Path, valkey_server: ValkeyServer, client: Redis, versioned: bool
) -> None:
    folder = tmp_path / "versioned"
    folder.mkdir()
    text = (small.folder / "feature_store.yaml").read_text().replace(f"project: {PROJECT}", "project: versioned")
    flag = f"cache_mode: sync, enable_online_feature_view_versioning: {str(versioned).lower()}"
    (folder / "feature_store.yaml").write_text(text.replace("cache_mode: sync", flag))
    address = f"{valkey_server.host}:{valkey_server.port}"
    repository = FeatureRepository(folder, Connections(address, f"sqlite:///{tmp_path}/versions.db"))
    source = FileSource(name="s", path=str(small.data / "weather.parquet"), timestamp_field="happened")
    station = Entity(name="station", join_keys=["station"], value_type=ValueType.STRING)
    for names in (["temp"], ["temp", "wind"]):
        schema = [Field(name=name, dtype=Float32 if name == "temp" else Int64) for name in names]
        view = FeatureView(name="weather", entities=[station], ttl=TTL, source=source, schema=schema)
        current = FeatureService(name="current", features=[view])
        repository.apply(_module(station=station, view=view, current=current))
    (now,) = repository.contract("current").views
    assert (now.name, now.field_name) == ("weather", "weather_v1" if versioned else "weather")
    if not versioned:
        return
    repository.apply(_module(old=FeatureService(name="old", features=["weather@v0:temp", "weather@v1:wind"])))
    contract = repository.contract("old")
    assert [(view.name, view.field_name) for view in contract.views] == [
        ("weather@v0", "weather"),
        ("weather@v1", "weather_v1"),
    ]
    assert [column for column, _ in contract.columns] == ["station", "weather@v0__temp", "weather@v1__wind"]
    assert repository.compiled().hash_sizes == {("station",): 3 + 3}
    assert repository.materialize(AS_OF, lambda _: None) == ("weather", "weather_v1")
    keys = {"station": column_of(Dtype.STRING, ["north", "süd"])}
    theirs = repository.online_features("old", [{"station": "north"}, {"station": "süd"}])
    for name, column in _read(contract, keys, 2, client).items():
        for ours, other in zip(to_python(column), theirs[name], strict=True):
            assert ours == other or ours is None


def _newest_visible(as_of: int) -> dict[str, int]:
    """Event time of each station's weather that was known at a moment, from the table as it was made."""
    newest: dict[str, int] = {}
    for row in source_tables(SEED)["weather"].to_pylist():
        happened = to_micros(row["happened"])
        if max(happened, to_micros(row["known"])) <= as_of:
            newest[row["station"]] = max(happened, newest.get(row["station"], happened))
    return newest


def _stored_times(client: Any) -> dict[str, int]:
    stored = {name: client.hget(STATION.keys([name])[0], timestamp_field("weather")) for name in ("north", "süd", "")}
    return {name: int(event_times_of([data])[0][0]) for name, data in stored.items() if isinstance(data, bytes)}


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
    with closing(BlockingRedisOnlineStore(_url(client))) as store:
        replies = store.read(prepared.keys, prepared.commands, timeout_s=5)
    return dict(prepared.decode(replies, AS_OF).frame.columns)


def _url(client: Redis) -> str:
    options = client.connection_pool.connection_kwargs
    return f"redis://{options['host']}:{options['port']}"


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
        [sys.executable, "-O", "-W", "ignore", "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    assert done.stderr.strip().endswith(repr(before))
