"""Views over Delta tables are what they are over Parquet, to Feast itself and to everything of ours."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import redis

from harness.feature_repository import (
    END_US,
    EVERYTHING,
    FEAST_WARNS,
    HOURS,
    LINES,
    START_US,
    STATIONS,
    SmallRepository,
    small_repository,
    source_tables,
)
from harness.servers import ValkeyServer, running_valkey
from skewless.adapters.feast_repository import FeatureRepository
from skewless.adapters.offline_tables import OfflineTable
from skewless.features.point_in_time import SourceForm
from skewless.timestamps import HOUR_US, from_micros

pytestmark = FEAST_WARNS
_PARQUET = 'path=str(DATA / f"{view}.parquet"),'
_DELTA = 'path=str(DATA / f"{view}_delta"),\n        file_format=DeltaFormat(),'
_SEED = 7


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    with running_valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="module")
def repositories(
    tmp_path_factory: pytest.TempPathFactory, valkey: ValkeyServer
) -> Iterator[Mapping[str, FeatureRepository]]:
    """The small repository over Parquet, and once more over Delta tables that were appended to in parts."""
    with ExitStack() as stack:
        found = {}
        for form in ("parquet", "delta"):
            folder = tmp_path_factory.mktemp(form)
            made = stack.enter_context(small_repository(folder, f"sources_{form}", seed=_SEED))
            if form == "delta":
                _move_to_delta(made)
            repository = made.open(f"{valkey.host}:{valkey.port}", folder / "registry.db")
            repository.apply(made.definitions())
            found[form] = repository
        yield found


def _move_to_delta(made: SmallRepository) -> None:
    for view, rows in source_tables(_SEED).items():
        table = OfflineTable(made.data / f"{view}_delta")
        for number, start in enumerate(range(0, rows.num_rows, 50)):
            table.append(rows.slice(start, 50), writer="test", number=number + 1)
        (made.data / f"{view}.parquet").unlink()
        table.compact(files_min=2)
    definitions = made.folder / "features.py"
    text = definitions.read_text()
    assert _PARQUET in text
    definitions.write_text(
        text.replace(_PARQUET, _DELTA).replace(
            "from feast.types", "from feast.data_format import DeltaFormat\nfrom feast.types"
        )
    )


def _online(valkey: ValkeyServer) -> dict[bytes, dict[bytes, bytes]]:
    """All that the store holds; then it holds nothing."""
    with redis.Redis(valkey.host, valkey.port) as client:
        found = {key: client.hgetall(key) for key in client.scan_iter()}
        client.flushall()
    return found


def _feast_materializes(repository: FeatureRepository, as_of: int) -> None:
    store: Any = repository._store  # what `feast materialize` does
    store.materialize(start_date=from_micros(0), end_date=from_micros(as_of))


def test_feasts_own_materialization_writes_the_same_bytes_from_a_delta_table(
    repositories: Mapping[str, FeatureRepository], valkey: ValkeyServer
) -> None:
    _online(valkey)
    for as_of in (START_US + HOURS * HOUR_US // 3, END_US):
        written = {}
        for form, repository in repositories.items():
            _feast_materializes(repository, as_of)
            written[form] = _online(valkey)
        assert len(written["parquet"]) > len(STATIONS)
        assert written["delta"] == written["parquet"]


def test_feasts_own_training_sets_are_the_same_from_a_delta_table(
    repositories: Mapping[str, FeatureRepository],
) -> None:
    moments = [from_micros(START_US + number * 37 * HOUR_US // 10) for number in range(40)]
    asked = pd.DataFrame(
        {
            "station": [STATIONS[number % 3] for number in range(40)],
            "line": [LINES[number % 3] for number in range(40)],
            "event_timestamp": pd.to_datetime(moments),
        }
    )
    answers = {}
    for form, repository in repositories.items():
        store: Any = repository._store  # what users of Feast call
        names = ["weather:temp", "weather:wind", "leg:late"]
        found = pa.Table.from_pandas(store.get_historical_features(asked, names).to_df(), preserve_index=False)
        answers[form] = found.sort_by([("event_timestamp", "ascending")]).to_pylist()
    assert repr(answers["delta"]) == repr(answers["parquet"])


def test_our_sources_say_that_they_are_delta_tables(repositories: Mapping[str, FeatureRepository]) -> None:
    forms = {form: {each.form for each in found.sources(EVERYTHING).values()} for form, found in repositories.items()}
    assert forms == {"parquet": {SourceForm.PARQUET}, "delta": {SourceForm.DELTA}}


def test_a_delta_table_that_nobody_wrote_to_materializes_nothing(
    repositories: Mapping[str, FeatureRepository], valkey: ValkeyServer, tmp_path: Path
) -> None:
    with small_repository(tmp_path, "sources_empty", project="empty", seed=_SEED) as made:
        _move_to_delta(made)
        definitions = made.folder / "features.py"
        definitions.write_text(definitions.read_text().replace("_delta", "_nowhere"))
        repository = made.open(f"{valkey.host}:{valkey.port}", tmp_path / "registry.db")
        repository.apply(made.definitions())
        _online(valkey)
        _feast_materializes(repository, END_US)
        assert _online(valkey) == {}
