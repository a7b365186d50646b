"""On-demand views from registration to their values: refused or named at `apply`; equal online, offline, in Feast."""

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from feast import FeatureService, Field, RequestSource
from feast.aggregation import Aggregation
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int64
from redis import Redis

from harness.feature_repository import (
    END_US,
    FEAST_WARNS,
    LINES,
    START_US,
    STATIONS,
    SmallRepository,
    small_repository,
)
from harness.servers import ValkeyServer
from skewless.adapters.duckdb_point_in_time import features_at
from skewless.adapters.feast_feed import FeastFeed
from skewless.adapters.feast_functions import name_functions
from skewless.adapters.feast_import import quiet
from skewless.adapters.feast_repository import FeatureRepository
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.dtypes import Column, Dtype, column_of, to_python
from skewless.errors import InvalidDefinition
from skewless.features.contract import FeatureContract
from skewless.features.frame import STATUS_CODES, FeatureFrame
from skewless.features.on_demand import OnDemandPlan
from skewless.features.plan import ReadPlan
from skewless.features.visibility import Status
from skewless.timestamps import HOUR_US, Micros
from skewless.training.definition import Period

pytestmark = FEAST_WARNS

MATERIALIZED_US = START_US + 60 * HOUR_US
PERIOD = Period(Micros(MATERIALIZED_US + 1), Micros(END_US))
ROWS = [(station, line) for station in (*STATIONS, "unknown") for line in (*LINES, 99)]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallRepository]:
    folder = tmp_path_factory.mktemp("on_demand")
    with small_repository(folder, "small_on_demand", project="ondemand", seed=11) as made:
        yield made


@pytest.fixture(scope="module")
def repository(small: SmallRepository, valkey_server: ValkeyServer) -> FeatureRepository:
    made = small.open(f"{valkey_server.host}:{valkey_server.port}", small.data / "registry.db")
    made.apply(small.definitions("extended"))
    return made


@pytest.fixture
def materialized(repository: FeatureRepository, valkey_server: ValkeyServer) -> FeatureRepository:
    """The repository over a store that holds one moment and nothing later."""
    with Redis(host=valkey_server.host, port=valkey_server.port) as client:
        client.flushdb()
    repository.materialize(MATERIALIZED_US, lambda _: None)
    return repository


def _keys() -> dict[str, Column]:
    stations, lines = zip(*ROWS, strict=True)
    return {
        "station": column_of(Dtype.STRING, stations),
        "line": column_of(Dtype.INT64, lines),
        "destination": column_of(Dtype.STRING, stations[::-1]),
        "cars": column_of(Dtype.INT32, [number % 7 for number in range(len(ROWS))]),
    }


def _online(contract: FeatureContract, url: str, as_of: int) -> FeatureFrame:
    prepared = ReadPlan.compile(contract).prepare(_keys(), len(ROWS))
    with closing(BlockingRedisOnlineStore(url)) as store:
        replies = store.read(prepared.keys, prepared.commands, timeout_s=5)
    plan = OnDemandPlan.compile(contract, importlib.import_module)
    return plan.extend(prepared.decode(replies, as_of).frame, _keys())


@pytest.mark.parametrize("service", ["renamed", "stored_lists", "functions"])
def test_online_equals_offline_as_rows_become_visible(
    materialized: FeatureRepository, valkey_server: ValkeyServer, service: str
) -> None:
    contract, sources = materialized.contract(service), materialized.sources(service)
    feed = FeastFeed(materialized, contract, sources, PERIOD)
    seen: set[Status] = set()
    for hour in (60, 75, 110, 180, 239):
        as_of = START_US + hour * HOUR_US + 250_001
        feed.advance(as_of)
        online = _online(contract, valkey_server.url, as_of)
        offline = features_at(contract, sources, _keys(), np.full(len(ROWS), as_of, dtype=np.int64))
        assert list(dict(contract.columns))[-len(offline.columns) :] == list(offline.columns)
        for name in offline.columns:
            assert to_python(online.columns[name]) == to_python(offline.columns[name]), f"{name} at hour {hour}"
            assert np.array_equal(online.statuses[name], offline.statuses[name]), f"status of {name} at hour {hour}"
            seen |= {STATUS_CODES[code] for code in offline.statuses[name]}
        for view in offline.event_times:
            assert np.array_equal(online.event_times[view], offline.event_times[view]), f"{view} at hour {hour}"
    assert seen == {Status.OK, Status.NULL, Status.MISSING, Status.STALE}


def test_feast_computes_the_same_values(materialized: FeatureRepository, valkey_server: ValkeyServer) -> None:
    keys = _keys()
    online = _online(materialized.contract("functions"), valkey_server.url, MATERIALIZED_US)
    rows = [
        {"station": station, "line": line, "cars": cars}
        for (station, line), cars in zip(ROWS, to_python(keys["cars"]), strict=True)
    ]
    theirs = materialized.online_features("functions", rows, full_feature_names=False)
    stale = online.statuses["weather__temp"] == STATUS_CODES.index(Status.STALE)
    for name, feature in (("comfort__feels", "feels"), ("comfort__crowded", "crowded"), ("delay__worst", "worst")):
        ours = to_python(online.columns[name])
        for row, (mine, other) in enumerate(zip(ours, theirs[feature], strict=True)):
            # Feast applies no ttl online, so it computes with values that are too old.
            assert mine == other or (stale[row] and mine is None), f"{name} of {ROWS[row]}"
    assert sum(value is not None for value in to_python(online.columns["comfort__feels"])) > 1


# --- registration ----------------------------------------------------------------------------------------------------


def _refusal(small: SmallRepository, folder: Path, function: Any, **options: Any) -> str:
    """Why `apply` refuses a view over a function."""
    weather = small.definitions().weather
    settings: dict[str, Any] = {
        "name": "made",
        "sources": [weather],
        "schema": [Field(name="value", dtype=Float64)],
        "mode": "python",
        **options,
    }
    view = on_demand_feature_view(**settings)(function)
    repository = small.open("127.0.0.1:1", folder / "registry.db")
    module: Any = SimpleNamespace(__name__="odd", view=view, **_stored(small))
    with pytest.raises(InvalidDefinition) as refused:
        repository.apply(module)
    assert repository.definitions() == [], "nothing is registered"
    return str(refused.value)


def _stored(small: SmallRepository) -> dict[str, Any]:
    features = small.definitions()
    return {"weather": features.weather, "station": features.station}


UNSUPPORTED: dict[str, dict[str, Any]] = {
    "singleton=True": {"singleton": True},
    "aggregations": {"aggregations": [Aggregation(column="temp", function="sum")]},
    "write_to_online_store=True": {"write_to_online_store": True},
    "no schema": {"schema": []},
}


@pytest.mark.parametrize("what", UNSUPPORTED)
def test_a_view_that_feast_computes_wrongly_or_elsewhere_is_refused(
    small: SmallRepository, tmp_path: Path, what: str
) -> None:
    function = small.definitions("computed").comfort
    assert f"on-demand view `made` has {what}" in _refusal(small, tmp_path, function, **UNSUPPORTED[what])


def test_substrait_is_refused_with_what_is_allowed() -> None:
    view = SimpleNamespace(
        name="made",
        mode="substrait",
        sources=[],
        features=["value"],
        singleton=False,
        aggregations=[],
        write_to_online_store=False,
    )
    with pytest.raises(InvalidDefinition, match=r"(?s)mode='substrait'.*allowed: 'python', 'pandas'"):
        name_functions([view])


def test_two_sources_of_one_name_are_refused(small: SmallRepository, tmp_path: Path) -> None:
    weather, function = small.definitions().weather, small.definitions("computed").comfort
    told = _refusal(small, tmp_path, function, sources=[weather[["temp"]], weather[["wind"]].with_name("again")])
    assert "has two sources of one name" in told


def test_a_function_in_the_definitions_themselves_is_refused(small: SmallRepository, tmp_path: Path) -> None:
    def nested(rows: Any) -> Any:
        return rows

    assert "is nested in something else and cannot be named" in _refusal(small, tmp_path, nested)


def _written(small: SmallRepository, name: str, source: str) -> Any:
    (small.folder / f"{name}.py").write_text(source)
    importlib.invalidate_caches()
    return small.definitions(name)


def test_a_module_that_imports_feast_is_refused_with_what_to_do(small: SmallRepository, tmp_path: Path) -> None:
    module = _written(small, "heavy", "import feast\n\ndef value(rows):\n    return {'value': rows['temp']}\n")
    told = _refusal(small, tmp_path, module.value)
    assert f"cannot be loaded by a server: imports Feast: {small.folder.name}.heavy" in told
    assert "a module that does not import Feast" in told


def test_a_decorated_function_in_place_resolves_to_the_view_and_is_refused(
    small: SmallRepository, tmp_path: Path
) -> None:
    source = (
        "from feast import Field\nfrom feast.on_demand_feature_view import on_demand_feature_view\n"
        f"from feast.types import Float64\nfrom {small.folder.name}.features import weather, station\n"
        "@on_demand_feature_view(sources=[weather], schema=[Field(name='value', dtype=Float64)], mode='python')\n"
        "def value(rows):\n    return {'value': [0.0 for _ in rows['temp']]}\n"
    )
    module = _written(small, "in_place", source)
    with pytest.raises(InvalidDefinition, match=r"(?s)in_place:value` is a OnDemandFeatureView, not a function.*hint"):
        small.open("127.0.0.1:1", tmp_path / "registry.db").apply(module)


def test_a_function_that_looks_over_all_rows_is_refused(small: SmallRepository, tmp_path: Path) -> None:
    module = _written(
        small, "averaging", "def value(rows):\n    n = len(rows['temp'])\n    return {'value': [float(n)] * n}\n"
    )
    assert "alone and" in _refusal(small, tmp_path, module.value)


def test_a_request_field_of_two_dtypes_is_refused(small: SmallRepository, tmp_path: Path) -> None:
    repository = small.open("127.0.0.1:1", tmp_path / "registry.db")
    repository.apply(small.definitions("extended"))
    other = on_demand_feature_view(
        name="other",
        sources=[RequestSource(name="wide", schema=[Field(name="cars", dtype=Int64)])],
        schema=[Field(name="half", dtype=Float64)],
        mode="python",
    )(_written(small, "halved", "def half(rows):\n    return {'half': [n / 2 for n in rows['cars']]}\n").half)
    comfort = small.definitions("extended").comfort
    service = FeatureService(name="both", features=[comfort, other])
    module: Any = SimpleNamespace(__name__="odd", other=other, service=service)
    repository.apply(module)
    with pytest.raises(InvalidDefinition, match=r"request field `cars` is `int32`, and .* takes it as `int64`"):
        repository.contract("both")


def test_a_view_registered_by_feast_alone_is_refused(small: SmallRepository, tmp_path: Path) -> None:
    repository = small.open("127.0.0.1:1", tmp_path / "registry.db")
    extended = small.definitions("extended")
    stripped = on_demand_feature_view(
        name="bare", sources=[extended.weather], schema=[Field(name="feels", dtype=Float64)], mode="python"
    )(_written(small, "bare", "def feels(rows):\n    return {'feels': rows['temp']}\n").feels)
    with quiet():
        repository._store.apply(
            [extended.station, extended.weather, stripped, FeatureService(name="bare", features=[stripped])]
        )
    with pytest.raises(InvalidDefinition, match="register it with `skewless apply`, not with `feast apply`"):
        repository.contract("bare")


def test_a_server_runs_the_functions_without_feast_and_pandas_only_where_it_is_asked_for(
    small: SmallRepository, repository: FeatureRepository, tmp_path: Path
) -> None:
    code = (
        "import importlib, json, sys\n"
        "from skewless.features.contract import FeatureContract\n"
        "from skewless.features.on_demand import OnDemandPlan\n"
        "data = json.loads(sys.stdin.read())\n"
        "data['on_demand'] = data['on_demand'][:1]\n"
        "OnDemandPlan.compile(FeatureContract.from_json(data), importlib.import_module)\n"
        "sys.stdout.write(repr([name for name in ('feast', 'pandas', 'dill', 'pyarrow') if name in sys.modules]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(repository.contract("functions").to_json()),
        env={"PYTHONPATH": str(small.folder.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]"
