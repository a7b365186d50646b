"""How fresh views are told to be, from sources, a real Valkey and counted traffic; as metrics and by the command."""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from redis import Redis

from harness.drift_world import DriftWorld, drift_world
from harness.scheduled_views import put_in_force, view
from harness.servers import ValkeyServer
from skewless.adapters.folder_artifact_store import FolderArtifactStore
from skewless.adapters.freshness_look import FreshnessLook
from skewless.adapters.offline_tables import OfflineTable
from skewless.cli.freshness_command import freshness
from skewless.dtypes import Dtype
from skewless.errors import NotFound
from skewless.features.contract import JoinKey
from skewless.features.definition_metadata import ViewMetadata
from skewless.features.freshness import Clock, Standing, ViewFreshness
from skewless.features.redis_layout import KeyTemplate, timestamp_field
from skewless.features.value_encoding import stored_event_time
from skewless.registry.database import engine
from skewless.registry.repository import Registry
from skewless.timestamps import HOUR_US, MINUTE_US, Micros, parse_timestamp
from skewless_monitor.freshness_collector import families

NOW = int(parse_timestamp("2026-03-29T12:00:00Z"))
HOURS = 24 * 40
_UTC = pa.timestamp("us", tz="UTC")
KEYS = (JoinKey("station", Dtype.STRING),)


@dataclass(frozen=True)
class World:
    """One registry and store. `prod` is the project of the definitions."""

    url: str
    folder: Path
    store: ValkeyServer

    def write(self, name: str, stations: Sequence[str], event_time: int) -> None:
        """Put rows of a view into the store, all of one event time."""
        keys = KeyTemplate.compile(KEYS, "prod").keys(stations)
        with Redis.from_url(self.store.url) as store:
            for key in keys:
                store.hset(key, mapping={timestamp_field(name): stored_event_time(event_time)})

    @contextmanager
    def looking(self, *, now: int = NOW, url: str | None = None) -> Iterator[FreshnessLook]:
        artifacts = FolderArtifactStore(self.folder / "home" / "artifacts")
        store = self.store.url if url is None else url
        look = FreshnessLook(self.url, artifacts, online_store=store, clock=lambda: Micros(now))
        with closing(look):
            yield look

    def define(self, *views: ViewMetadata) -> None:
        connections = engine(self.url)
        put_in_force(connections, *views)
        connections.dispose()


@pytest.fixture
def world(sqlite_registry: Path, tmp_path: Path, valkey_server: ValkeyServer) -> World:
    file = tmp_path / "home" / "registry.db"
    file.parent.mkdir()
    file.write_bytes(sqlite_registry.read_bytes())
    with Redis.from_url(valkey_server.url) as store:
        store.flushall()
    return World(f"sqlite:///{file}", tmp_path, valkey_server)


def table(last: int, *, hours: int = HOURS) -> pa.Table:
    """Rows of ten stations, one each hour up to a moment, known a minute after they happened."""
    events = [last - hour * HOUR_US for hour in range(hours)][::-1]
    return pa.table(
        {
            "station": [f"s{number % 10}" for number in range(hours)],
            "event_time": pa.array(events, _UTC),
            "created_time": pa.array([each + MINUTE_US for each in events], _UTC),
        }
    )


def found(look: FreshnessLook, as_of: int | None = None) -> dict[str, ViewFreshness]:
    return {each.view: each for each in look.look(as_of=as_of).views}


STATIONS = [f"s{number}" for number in range(10)]


def test_each_view_is_told_by_its_source_its_store_and_its_target(world: World) -> None:
    sources = {"fresh": NOW - 30 * MINUTE_US, "late": NOW - 30 * MINUTE_US, "stopped": NOW - 10 * HOUR_US}
    for name, last in sources.items():
        pq.write_table(table(last), world.folder / f"{name}.parquet", row_group_size=100)
    delta = OfflineTable(world.folder / "delta")
    delta.append(table(NOW - 30 * MINUTE_US), writer="test", number=1)
    target = {"freshness": "2h"}
    delta_view = view("delta", target, str(world.folder / "delta"))
    assert delta_view.source is not None
    world.define(
        *(view(name, target, str(world.folder / f"{name}.parquet")) for name in sources),
        view("gone", target, str(world.folder / "nowhere.parquet")),
        view("plain", {}, str(world.folder / "fresh.parquet")),
        replace(delta_view, source=replace(delta_view.source, format="delta")),
    )
    for name in ("fresh", "stopped", "delta"):
        world.write(name, STATIONS[:9], sources.get(name, NOW - 30 * MINUTE_US))
    world.write("late", STATIONS, NOW - 5 * HOUR_US)
    with world.looking() as look:
        views = found(look)
    assert {name: each.standing for name, each in views.items()} == {
        "fresh": Standing.FRESH,
        "late": Standing.LATE,
        "stopped": Standing.STOPPED,
        "gone": Standing.UNKNOWN,
        "plain": Standing.NO_TARGET,
        "delta": Standing.FRESH,
    }
    fresh = views["fresh"]
    assert (fresh.source_age_us, fresh.arrival_age_us) == (30 * MINUTE_US, 29 * MINUTE_US)
    assert (fresh.online_age_us, fresh.online.asked, fresh.online.found) == (30 * MINUTE_US, 10, 9)
    assert fresh.online.ages_us == {0.5: 30 * MINUTE_US, 0.9: 30 * MINUTE_US, 1.0: 30 * MINUTE_US}
    assert fresh.clock is Clock.WALL
    assert "`skewless materialize late`" in views["late"].advice
    assert "nowhere.parquet` is not there" in views["gone"].advice


def test_an_emptied_store_is_noticed_and_one_that_is_away_is_told(world: World) -> None:
    pq.write_table(table(NOW - MINUTE_US), world.folder / "weather.parquet")
    world.define(view("weather", {"freshness": "2h"}, str(world.folder / "weather.parquet")))
    with world.looking() as look:
        (emptied,) = look.look().views
        assert emptied.is_missing_online
        assert emptied.standing is Standing.LATE
        world.write("weather", STATIONS, NOW - MINUTE_US)
        (filled,) = look.look().views
        assert filled.standing is Standing.FRESH
    with world.looking(url="redis://127.0.0.1:1") as look:
        (away,) = look.look().views
    assert away.standing is Standing.UNKNOWN
    assert "online store is unavailable" in away.advice


def test_new_definitions_are_followed_without_a_restart(world: World) -> None:
    pq.write_table(table(NOW), world.folder / "weather.parquet")
    with world.looking() as look:
        assert look.look().views == ()
        world.define(view("weather", {}, str(world.folder / "weather.parquet")))
        assert [each.target_us for each in look.look().views] == [None]
        world.define(view("weather", {"freshness": "90m"}, str(world.folder / "weather.parquet")))
        assert [each.target_us for each in look.look().views] == [90 * MINUTE_US]


def test_a_view_read_by_a_replay_alone_is_told_at_the_replays_moment(world: World, tmp_path: Path) -> None:
    replayed: DriftWorld = drift_world(tmp_path / "replayed", days=2, logged_days=1)
    registry = Registry(engine(replayed.url))
    registry.create_endpoint(
        replayed.key.endpoint, description="", bundle=replayed.bundle.digest, actor="test", reason=""
    )
    registry.close()
    as_of = replayed.end_us - HOUR_US // 2
    pq.write_table(table(as_of + 300 * HOUR_US), world.folder / "weather.parquet", row_group_size=64)
    pq.write_table(table(NOW - HOUR_US), world.folder / "other.parquet")
    there = replace(world, url=replayed.url)
    target = {"freshness": "2h"}
    there.define(
        view("weather", target, str(world.folder / "weather.parquet")),
        view("other", target, str(world.folder / "other.parquet")),
    )
    there.write("weather", STATIONS, as_of - HOUR_US)
    artifacts = FolderArtifactStore(replayed.made.home.artifacts)
    look = FreshnessLook(replayed.url, artifacts, online_store=world.store.url, clock=lambda: Micros(NOW))
    with closing(look):
        views = found(look)
        given = found(look, as_of=as_of - HOUR_US)["weather"]
    weather, other = views["weather"], views["other"]
    assert (weather.clock, weather.as_of) == (Clock.REPLAY, as_of)
    assert weather.standing is Standing.FRESH
    assert weather.source_age_us == HOUR_US, "what its source holds of the future does not count"
    assert weather.served is not None
    assert weather.served.rows == 40
    assert 0.5 * HOUR_US < weather.served.median_us < 2 * HOUR_US, "served an hour after it happened, in doubling bins"
    assert (other.clock, other.as_of, other.served) == (Clock.WALL, NOW, None)
    assert (given.clock, given.as_of) == (Clock.GIVEN, as_of - HOUR_US)


def test_every_view_is_told_to_prometheus_in_some_twenty_series(world: World) -> None:
    pq.write_table(table(NOW - MINUTE_US), world.folder / "weather.parquet")
    world.define(view("weather", {"freshness": "2h"}, str(world.folder / "weather.parquet")))
    world.write("weather", STATIONS, NOW - HOUR_US)
    with world.looking() as look:
        told = {
            (sample.name, *sample.labels.values()): sample.value
            for family in families(look.look())
            for sample in family.samples
        }
    assert told["skewless_freshness_target_seconds", "weather"] == 7_200
    assert told["skewless_freshness_source_age_seconds", "weather"] == 60
    assert told["skewless_freshness_online_age_seconds", "weather"] == 3_600
    assert told["skewless_freshness_entity_age_seconds", "weather", "0.9"] == 3_600
    assert told["skewless_freshness_found_ratio", "weather"] == 1
    assert told["skewless_freshness_standing", "weather", "fresh"] == 1
    assert told["skewless_freshness_standing", "weather", "late"] == 0
    assert told["skewless_freshness_unreadable", "weather", "source"] == 0
    assert told["skewless_freshness_missing_arrivals", "weather"] < 1
    assert len(told) <= 25


def test_the_command_shows_a_table_and_json_and_can_be_a_check(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(table(NOW - MINUTE_US), world.folder / "weather.parquet")
    world.define(
        view("weather", {"freshness": "2h"}, str(world.folder / "weather.parquet")),
        view("leg", {}, str(world.folder / "nowhere.parquet")),
    )
    world.write("weather", STATIONS, NOW - 3 * HOUR_US)
    monkeypatch.setenv("SKEWLESS_HOME", str(world.folder / "home"))
    monkeypatch.setenv("SKEWLESS_ONLINE_STORE", f"{world.store.host}:{world.store.port}")
    at = ("--as-of", "2026-03-29T12:00:00Z")
    shown = CliRunner().invoke(freshness, at, catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    (line,) = [each for each in shown.stdout.splitlines() if each.startswith("weather ")]
    assert " ".join(line.split()) == "weather 2 h 1 min 0 s 3 h 3 h / 3 h / 3 h - late"
    assert "weather: the store is 3 h old and its source 1 min: `skewless materialize weather`" in shown.stdout
    assert "without a target: leg" in shown.stdout
    assert "ages at 2026-03-29T12:00:00Z, as asked for" in shown.stdout
    told = json.loads(CliRunner().invoke(freshness, ("weather", *at, "--json"), catch_exceptions=False).stdout)
    (weather,) = told["views"]
    assert (weather["state"], weather["online"]["age_s"], weather["target_s"]) == ("late", 10_800.0, 7_200.0)
    assert CliRunner().invoke(freshness, (*at, "--check"), catch_exceptions=False).exit_code == 1
    monkeypatch.delenv("SKEWLESS_ONLINE_STORE")
    alone = CliRunner().invoke(freshness, at, catch_exceptions=False).stdout
    assert "what the online store holds is not known: no online store is configured here" in alone
    assert CliRunner().invoke(freshness, ("leg", *at, "--check"), catch_exceptions=False).exit_code == 0
    with pytest.raises(NotFound, match="`nosuch` does not exist"):
        CliRunner().invoke(freshness, ("nosuch",), catch_exceptions=False)
