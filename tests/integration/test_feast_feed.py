"""Rows that Feast writes as they become visible, read back online and compared with the offline answer, bit for bit."""

import itertools
import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

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
from skewless.adapters.duckdb_point_in_time import features_at
from skewless.adapters.feast_feed import FeastFeed
from skewless.adapters.feast_repository import FeatureRepository
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.adapters.redis_maintenance import OnlineStoreMaintenance
from skewless.dtypes import Column, Dtype, column_of
from skewless.errors import Unavailable
from skewless.features.contract import FeatureContract, RequestField
from skewless.features.frame import STATUS_CODES, FeatureFrame
from skewless.features.plan import ReadPlan
from skewless.features.visibility import Status
from skewless.stack.ports import free_ports
from skewless.timestamps import HOUR_US, Micros, to_micros
from skewless.training.definition import Period

pytestmark = FEAST_WARNS

MATERIALIZED_US = START_US + 60 * HOUR_US
PERIOD = Period(Micros(MATERIALIZED_US + 1), Micros(END_US))
ENTITIES = [*itertools.product((*STATIONS, "unknown"), LINES), ("north", 99), ("north", None)]


@pytest.fixture(params=[1, 2, 3], ids=lambda seed: f"seed {seed}")
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SmallRepository]:
    with small_repository(tmp_path, f"fed_{request.param}", project=f"fed{request.param}", seed=request.param) as made:
        yield made


def _opened(small: SmallRepository, address: str) -> tuple[FeatureRepository, FeatureContract]:
    repository = small.open(address, small.data / "feast_registry.db")
    repository.apply(small.definitions())
    contract = repository.contract(
        EVERYTHING, request_fields=(RequestField("cars", Dtype.INT32),), nullable_keys=frozenset({"line"})
    )
    return repository, contract


def _keys() -> dict[str, Column]:
    stations, lines = zip(*ENTITIES, strict=True)
    return {"station": column_of(Dtype.STRING, stations), "line": column_of(Dtype.INT64, lines)}


def _online(contract: FeatureContract, url: str, as_of: int) -> FeatureFrame:
    prepared = ReadPlan.compile(contract).prepare(_keys(), len(ENTITIES))
    with closing(BlockingRedisOnlineStore(url)) as store:
        replies = store.read(prepared.keys, prepared.commands, timeout_s=5)
    return prepared.decode(replies, as_of).frame


def _assert_equal(online: FeatureFrame, offline: FeatureFrame, as_of: int) -> None:
    assert online.columns.keys() == offline.columns.keys()
    for view, times in online.event_times.items():
        assert np.array_equal(times, offline.event_times[view]), f"event time of {view} at {as_of}"
    for name, served in online.columns.items():
        expected = offline.columns[name]
        assert served.dtype is expected.dtype
        assert np.array_equal(served.valid, expected.valid), f"{name} at {as_of}"
        if served.values.dtype.hasobject:
            assert served.values.tolist() == expected.values.tolist(), f"{name} at {as_of}"
        else:
            assert served.values.tobytes() == expected.values.tobytes(), f"{name} at {as_of}"
        assert np.array_equal(online.statuses[name], offline.statuses[name]), f"status of {name} at {as_of}"


def test_online_equals_offline_bit_for_bit_at_every_moment(small: SmallRepository, valkey_server: ValkeyServer) -> None:
    repository, contract = _opened(small, f"{valkey_server.host}:{valkey_server.port}")
    sources = repository.sources(EVERYTHING)
    repository.materialize(MATERIALIZED_US, lambda _: None)
    feed = FeastFeed(repository, contract, sources, PERIOD)
    rng = random.Random(small.folder.name)
    moments = sorted({MATERIALIZED_US, END_US - 1, *(rng.randrange(MATERIALIZED_US, END_US) for _ in range(20))})
    seen: set[Status] = set()
    for as_of in moments:
        feed.advance(as_of)
        online = _online(contract, valkey_server.url, as_of)
        offline = features_at(contract, sources, _keys(), np.full(len(ENTITIES), as_of, dtype=np.int64))
        _assert_equal(online, offline, as_of)
        seen |= {STATUS_CODES[code] for codes in online.statuses.values() for code in codes}
    assert seen == {Status.OK, Status.NULL, Status.MISSING, Status.STALE}


def _visible_between(small: SmallRepository, after: int, to: int) -> int:
    """Rows whose first visible moment lies in (after, to], counted from the tables as they were made."""
    seed = int(small.folder.name.removeprefix("fed_"))
    rows = [row for table in source_tables(seed).values() for row in table.to_pylist()]
    return sum(after < max(to_micros(row["happened"]), to_micros(row["known"])) <= to for row in rows)


def test_each_row_is_written_once_when_it_becomes_visible(small: SmallRepository, valkey_server: ValkeyServer) -> None:
    repository, contract = _opened(small, f"{valkey_server.host}:{valkey_server.port}")
    feed = FeastFeed(repository, contract, repository.sources(EVERYTHING), PERIOD)
    before = MATERIALIZED_US
    for hour in range(61, HOURS, 7):
        moment = START_US + hour * HOUR_US + 250_001
        assert feed.advance(moment) == _visible_between(small, before, moment)
        assert feed.advance(moment) == 0
        before = moment
    assert feed.advance(before - HOUR_US) == 0


def test_nothing_is_lost_when_the_store_is_away_for_a_while(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    address, url = f"127.0.0.1:{port}", f"redis://127.0.0.1:{port}"
    first, second = START_US + 80 * HOUR_US, START_US + 120 * HOUR_US
    with small_repository(tmp_path, "fed_9", project="fed9", seed=9) as small:
        with running_valkey(tmp_path / "server", port=port):
            repository, contract = _opened(small, address)
            sources = repository.sources(EVERYTHING)
            repository.materialize(MATERIALIZED_US, lambda _: None)
            feed = FeastFeed(repository, contract, sources, PERIOD)
            feed.advance(first)
        with pytest.raises(Unavailable, match="online store"):
            feed.advance(second)
        with running_valkey(tmp_path / "server", port=port):
            assert feed.advance(second) == _visible_between(small, first, second)
            online = _online(contract, url, second)
    _assert_equal(
        online, features_at(contract, sources, _keys(), np.full(len(ENTITIES), second, dtype=np.int64)), second
    )


def test_a_feed_of_a_period_without_rows_writes_nothing(small: SmallRepository, valkey_server: ValkeyServer) -> None:
    repository, contract = _opened(small, f"{valkey_server.host}:{valkey_server.port}")
    later = Period(Micros(END_US + 1000 * HOUR_US), Micros(END_US + 1001 * HOUR_US))
    assert FeastFeed(repository, contract, repository.sources(EVERYTHING), later).advance(later.end) == 0


def test_entities_of_other_projects_are_not_touched(small: SmallRepository, valkey_server: ValkeyServer) -> None:
    other = OnlineStoreMaintenance(valkey_server.url, "someone")
    repository, contract = _opened(small, f"{valkey_server.host}:{valkey_server.port}")
    FeastFeed(repository, contract, repository.sources(EVERYTHING), PERIOD).advance(END_US)
    assert other.entities() == 0
    other.close()
    own = OnlineStoreMaintenance(valkey_server.url, repository.project)
    assert own.entities() == len(STATIONS) + 2 * len(LINES) + 1
    own.close()
