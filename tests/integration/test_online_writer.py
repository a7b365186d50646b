"""The online writer over a real Valkey: whoever writes in whatever order, the newest row stays, whole."""

import random
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from redis import Redis

from harness.materialize_world import NEVER_OLD, T0, VIEW, Row, micros, newest, table_of
from harness.servers import ValkeyServer
from skewless.adapters.feature_rows_arrow import feature_rows
from skewless.adapters.online_rows import OnlineRows
from skewless.adapters.online_writer import OnlineWriter, Written
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.dtypes import Dtype, column_of, to_python
from skewless.errors import Conflict, InvalidRequest
from skewless.features.contract import ViewRead
from skewless.features.feature_rows import FeatureRows
from skewless.features.point_in_time import OfflineSource
from skewless.features.redis_layout import KeyTemplate, feature_field, timestamp_field
from skewless.features.row_order import row_time_field
from skewless.features.value_encoding import stored_event_time

SOURCE = OfflineSource("weather", "nowhere", "happened", "known")


@pytest.fixture
def project(request: pytest.FixtureRequest) -> str:
    """A project of the test's own."""
    return "".join(each for each in request.node.name if each.isalnum())


def _rows(*rows: Row) -> FeatureRows:
    return feature_rows(table_of(list(rows)), VIEW, SOURCE)


@contextmanager
def _writer(server: ValkeyServer, project: str, view: ViewRead = VIEW, **options: Any) -> Iterator[OnlineWriter]:
    with closing(BlockingRedisOnlineStore(server.url)) as store:
        yield OnlineWriter(store, project, view, **{"has_created_time": True, **options})


def _stored(server: ValkeyServer, project: str, stations: list[str]) -> dict[str, int | None]:
    """By station, the `wind` of its row, after its other values were held against it."""
    with closing(BlockingRedisOnlineStore(server.url)) as store:
        reader = OnlineRows(store, project, VIEW)
        frame = reader.read({"station": column_of(Dtype.STRING, list(stations))}, len(stations), NEVER_OLD).frame
    columns = [to_python(frame.columns[f"weather__{each.name}"]) for each in VIEW.features]
    found: dict[str, int | None] = {}
    for station, (temp, wind, sky) in zip(stations, zip(*columns, strict=True), strict=True):
        found[station] = wind
        if wind is not None:
            assert (temp, wind, sky) == Row(station, 0, 0, wind).values, "a row is whole"
    return found


def _hash(server: ValkeyServer, project: str, station: str) -> dict[bytes, bytes]:
    client: Any = Redis.from_url(server.url)
    with closing(client):
        return dict(client.hgetall(_key(project, station)))


def _key(project: str, station: str) -> bytes:
    return KeyTemplate.compile(VIEW.join_keys, project).keys([station])[0]


@pytest.mark.parametrize("seed", range(3))
def test_in_whatever_order_and_from_however_many_writers_rows_come_the_newest_stays(
    valkey_server: ValkeyServer, project: str, seed: int
) -> None:
    rng = random.Random(seed)
    stations = [f"s{number}" for number in range(25)]
    rows = [Row(rng.choice(stations), rng.randrange(8), rng.randrange(8), number) for number in range(600)]
    rows = list({(row.station, row.happened, row.known): row for row in rows}.values())  # no two are equal in both
    counted: list[Written] = []

    def write(some: list[Row]) -> None:
        with _writer(valkey_server, project) as writer:
            while some:
                cut = rng.randrange(1, 40)
                counted.append(writer.write(_rows(*some[:cut])))
                some = some[cut:]

    threads = [threading.Thread(target=write, args=(rng.sample(rows, len(rows)),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = {station: row.wind for station, row in newest(rows, 100).items()}
    assert _stored(valkey_server, project, sorted(expected)) == expected
    assert sum(each.new for each in counted) == len(expected), "each entity was new once"
    assert sum(each.rows for each in counted) == 3 * len(rows)
    with _writer(valkey_server, project) as writer:
        again = writer.write(_rows(*rows))
    assert (again.new, again.replaced, again.rows) == (0, 0, len(rows))


def test_rows_are_told_apart_by_what_became_of_them(valkey_server: ValkeyServer, project: str) -> None:
    with _writer(valkey_server, project) as writer:
        assert writer.write(_rows(Row("a", 5, 5, 1), Row("b", 5, 5, 2), Row("c", 5, 5, 3))) == (3, 0, 0, 0)
        more = [Row("a", 5, 5, 1), Row("b", 5, 6, 4), Row("c", 4, 9, 5), Row("d", 1, 1, 6), Row("d", 1, 1, 6)]
        assert writer.compare(_rows(*more)) == (1, 1, 1, 2)
        assert _stored(valkey_server, project, list("abcd")) == {"a": 1, "b": 2, "c": 3, "d": None}
        assert writer.write(_rows(*more)) == (1, 1, 1, 2)
        assert _stored(valkey_server, project, list("abcd")) == {"a": 1, "b": 4, "c": 3, "d": 6}
        assert writer.write(_rows()) == (0, 0, 0, 0)


def test_a_row_that_feast_wrote_gives_way_to_one_of_its_event_time_and_not_to_an_older_one(
    valkey_server: ValkeyServer, project: str
) -> None:
    with _writer(valkey_server, project) as writer:
        writer.write(_rows(Row("a", 5, 9, 1), Row("b", 5, 9, 2)))
        client: Any = Redis.from_url(valkey_server.url)
        with closing(client):
            for station, at in (
                ("a", 7),
                ("b", 5),
            ):  # as Feast writes: without our field, or with the one that was there
                client.hset(_key(project, station), timestamp_field("weather"), stored_event_time(micros(at)))
            client.hdel(_key(project, "b"), row_time_field("weather"))
        assert writer.write(_rows(Row("a", 6, 99, 3), Row("b", 5, 6, 4))) == (0, 1, 1, 0)
        assert writer.write(_rows(Row("a", 7, 7, 5))) == (0, 1, 0, 0)
    assert _stored(valkey_server, project, ["a", "b"]) == {"a": 5, "b": 4}


def test_a_server_that_lost_its_scripts_is_given_them_again(valkey_server: ValkeyServer, project: str) -> None:
    with _writer(valkey_server, project) as writer, closing(Redis.from_url(valkey_server.url)) as client:
        for round_ in range(3):
            client.script_flush()
            rows = [Row(f"s{number}", round_, round_, 100 * round_ + number) for number in range(50)]
            assert sum(writer.write(_rows(*rows))[:2]) == 50
    assert _stored(valkey_server, project, ["s7"]) == {"s7": 207}


def test_many_new_rows_are_written_without_being_looked_at_and_none_is_lost_to_that(
    valkey_server: ValkeyServer, project: str
) -> None:
    with _writer(valkey_server, project) as first, _writer(valkey_server, project) as second:
        first.write(_rows(Row("s9000", 50, 50, 1), Row("s5", 0, 0, 2)))
        rows = [Row(f"s{number}", 10, 10, number) for number in range(9_500)]
        assert second.write(_rows(*rows)) == (9_498, 1, 1, 0)
    assert _stored(valkey_server, project, ["s9000", "s5", "s9499"]) == {"s9000": 1, "s5": 5, "s9499": 9499}
    assert set(_hash(valkey_server, project, "s9499")) == set(_hash(valkey_server, project, "s5"))


def test_a_definition_that_changed_is_written_over_rows_of_the_same_times(
    valkey_server: ValkeyServer, project: str
) -> None:
    before = replace(VIEW, features=VIEW.features[:1])
    with _writer(valkey_server, project, before) as writer:
        writer.write(feature_rows(table_of([Row("a", 5, 5, 1)]), before, SOURCE))
    assert _stored(valkey_server, project, ["a"]) == {"a": None}
    with _writer(valkey_server, project) as writer:
        assert writer.write(_rows(Row("a", 5, 5, 1))).replaced == 1
        assert writer.write(_rows(Row("a", 5, 5, 1))).same == 1
    assert _stored(valkey_server, project, ["a"]) == {"a": 1}


def test_without_created_times_the_row_written_last_stays_of_equal_event_times(
    valkey_server: ValkeyServer, project: str
) -> None:
    source = replace(SOURCE, created_time=None)

    def rows(*some: Row) -> FeatureRows:
        return feature_rows(table_of(list(some)), VIEW, source)

    with _writer(valkey_server, project, has_created_time=False) as writer:
        assert writer.write(rows(Row("a", 5, 0, 1))) == (1, 0, 0, 0)
        assert writer.write(rows(Row("a", 5, 0, 2), Row("a", 5, 0, 3))) == (0, 1, 0, 1)
        assert writer.write(rows(Row("a", 5, 0, 3), Row("a", 4, 0, 9))) == (0, 0, 1, 1)
    assert _stored(valkey_server, project, ["a"]) == {"a": 3}
    assert row_time_field("weather") not in _hash(valkey_server, project, "a")


def test_hashes_live_as_long_as_they_are_told_to(valkey_server: ValkeyServer, project: str) -> None:
    with _writer(valkey_server, project, lifetime_s=1_000) as writer:
        writer.write(_rows(*(Row(f"s{number}", 1, 1, number) for number in range(5_000))))
    client: Any = Redis.from_url(valkey_server.url)
    with closing(client):
        assert all(0 < client.ttl(_key(project, station)) <= 1_000 for station in ("s0", "s4999"))


def test_other_views_of_an_entity_are_left_as_they_are(valkey_server: ValkeyServer, project: str) -> None:
    client: Any = Redis.from_url(valkey_server.url)
    others = {feature_field("other", "x"): b"kept", timestamp_field("other"): stored_event_time(T0)}
    with closing(client), _writer(valkey_server, project) as writer:
        client.hset(_key(project, "a"), mapping=others)
        assert writer.write(_rows(Row("a", 1, 1, 1))).new == 1
    assert others.items() <= _hash(valkey_server, project, "a").items()


def test_a_null_key_and_a_key_that_is_no_hash_are_told_and_nothing_is_written(
    valkey_server: ValkeyServer, project: str
) -> None:
    with _writer(valkey_server, project) as writer:
        rows = _rows(Row("a", 1, 1, 1), Row("b", 1, 1, 2))
        rows.keys["station"].valid[1] = False
        with pytest.raises(InvalidRequest, match="join key `station` of feature view `weather` is null in row 1"):
            writer.write(rows)
        assert _stored(valkey_server, project, ["a"]) == {"a": None}
        with closing(Redis.from_url(valkey_server.url)) as client:
            client.set(_key(project, "b"), b"something else")
        with pytest.raises(Conflict, match="an entity of feature view `weather` cannot be written") as refused:
            writer.write(_rows(Row("b", 1, 1, 2)))
        assert "'b'" not in str(refused.value), "no value of an entity is kept with batches, audited or logged"


def test_nulls_are_stored_as_nulls_and_read_back(valkey_server: ValkeyServer, project: str) -> None:
    rows = _rows(Row("a", 1, 1, 8))
    for column in rows.values.values():
        column.valid[:] = False
    with _writer(valkey_server, project) as writer:
        writer.write(FeatureRows(rows.keys, rows.values, rows.event_times, np.array([5], dtype=np.int64)))
    stored = _hash(valkey_server, project, "a")
    assert [stored[feature_field("weather", each.name)] for each in VIEW.features] == [b""] * 3
