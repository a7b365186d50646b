"""A stream from its declaration in a feature repository to training and back, by the commands that people run."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from harness.feature_repository import FEAST_WARNS
from harness.servers import ValkeyServer
from skewless.adapters.duckdb_point_in_time import features_at
from skewless.adapters.feast_repository import Connections, FeatureRepository
from skewless.cli.main import main
from skewless.dtypes import Dtype, column_of, to_python
from skewless.features.point_in_time import OfflineSource, SourceForm
from skewless.settings import Settings
from skewless.timestamps import MINUTE_US, parse_timestamp

pytestmark = FEAST_WARNS
PACKAGE = "aggregate_shop"
START_US = parse_timestamp("2024-01-01T10:00:00Z")
_STORE = """\
project: aggregate_shop
provider: local
registry: {registry_type: sql, path: "${SKEWLESS_FEAST_REGISTRY}", cache_mode: sync}
online_store: {type: redis, connection_string: "${SKEWLESS_ONLINE_STORE}"}
offline_store: {type: skewless.adapters.feast_offline_store.VisibleDuckDBOfflineStore}
entity_key_serialization_version: 3
"""
_FEATURES = '''\
"""Definitions."""

import os
from pathlib import Path

from feast import Entity, FeatureService, ValueType

from skewless.adapters.feast_aggregates import feature_view
from skewless.aggregates.aggregation import count, last, mean
from skewless.aggregates.declaration import StreamAggregates
from skewless.aggregates.windows import sliding
from skewless.dtypes import Dtype

hour = sliding("1h", every="10m")
landings = StreamAggregates(
    name="landings",
    view="aircraft_landings",
    keys={"tailnum": Dtype.STRING},
    fields={"delay": Dtype.FLOAT32, "dest": Dtype.STRING},
    aggregates=[count(hour), mean("delay", hour, dtype=Dtype.FLOAT32), last("dest", hour)],
    description="what an aircraft has been doing",
    owner="ann",
)
aircraft = Entity(name="aircraft", join_keys=["tailnum"], value_type=ValueType.STRING)
view = feature_view(landings, entities=[aircraft], path=Path(os.environ["SKEWLESS_DATA"]) / "aircraft_landings")
service = FeatureService(name="landed", features=[view])
'''


@dataclass
class Shop:
    settings: Settings
    data: Path
    online_store: str

    def run(self, *arguments: str, code: int = 0) -> str:
        environment = {
            "SKEWLESS_HOME": str(self.settings.home),
            "SKEWLESS_REPO": str(self.settings.repo),
            "SKEWLESS_DATA": str(self.data),
            "SKEWLESS_ONLINE_STORE": self.online_store,
        }
        done = CliRunner().invoke(main, list(arguments), env=environment)
        assert done.exit_code == code, (done.output, done.exception)
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json"))


@pytest.fixture
def shop(valkey_server: ValkeyServer, tmp_path: Path) -> Iterator[Shop]:
    repository = tmp_path / PACKAGE
    repository.mkdir()
    for name, text in {"feature_store.yaml": _STORE, "__init__.py": "", "features.py": _FEATURES}.items():
        (repository / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKEWLESS_DATA", str(tmp_path / "data"))
        patch.syspath_prepend(str(tmp_path))
        settings = Settings(home=tmp_path / "home", repo=repository, data=tmp_path / "data")
        yield Shop(settings, tmp_path / "data", valkey_server.url.removeprefix("redis://"))
        for module in [each for each in sys.modules if each == PACKAGE or each.startswith(f"{PACKAGE}.")]:
            del sys.modules[module]


def _past(folder: Path) -> Path:
    minutes = [0, 5, 20, 45]
    table = pa.table(
        {
            "tailnum": pa.array(["N1", "N1", "N2", "N1"]),
            "delay": pa.array([10.0, None, 3.0, 20.0], pa.float32()),
            "dest": pa.array(["SFO", "LAX", "SFO", None]),
            "event_time": pa.array([START_US + each * MINUTE_US for each in minutes], pa.timestamp("us", "UTC")),
        }
    )
    folder.mkdir(exist_ok=True)
    pq.write_table(table, folder / "past.parquet")
    return folder / "past.parquet"


def test_a_declared_stream_is_applied_filled_with_its_past_checked_and_read_as_any_view(shop: Shop) -> None:
    shop.run("apply", "--reason", "the first")
    (listed,) = shop.json("aggregates", "list")
    assert (listed["name"], listed["view"], listed["owner"]) == ("landings", "aircraft_landings", "ann")
    features = {each["name"]: each["dtype"] for each in shop.json("aggregates", "show", "landings")["features"]}
    assert features == {"count_1h": "int64", "mean_delay_1h": "float32", "last_dest_1h": "string"}
    assert "late" in shop.run("aggregates", "show", "landings")
    assert "landings" in shop.run("aggregates", "list")
    shop.run("aggregates", "show", "unknown", code=2)

    shop.run("aggregates", "backfill", "landings", str(_past(shop.data)))
    checked = shop.json("aggregates", "check", "landings")
    assert (checked["entities"], checked["equal"], checked["differing"]) == (2, 2, 0)
    assert "2 of 2 entities equal" in shop.run("aggregates", "check", "landings")
    shop.run("aggregates", "rebuild", "landings")

    repository = FeatureRepository(shop.settings.repo, Connections(shop.online_store, shop.settings.feast_registry_url))
    contract = repository.contract("landed")
    path = str(shop.data / "aircraft_landings")
    source = OfflineSource("aircraft_landings", path, "event_time", "created_time", form=SourceForm.DELTA)
    minutes = np.array([-1, 0, 6, 46, 61], dtype=np.int64)
    keys = {"tailnum": column_of(Dtype.STRING, ["N1"] * len(minutes))}
    frame = features_at(contract, {"aircraft_landings": source}, keys, START_US + minutes * MINUTE_US)
    told = [to_python(frame.columns[f"aircraft_landings__{name}"]) for name in features]
    # At 10:46 the hour of panes began at 09:50; what is later than the past's end is told once the lane runs.
    assert told == [[None, 1, 2, 3, 3], [None, 10.0, 10.0, 15.0, 15.0], [None, "SFO", "LAX", "LAX", "LAX"]]
