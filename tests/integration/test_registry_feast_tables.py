"""Feast's SQL registry looked at without Feast, and the watcher that has it compiled again when it changed."""

import copy
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import create_engine, text

from harness.feature_repository import END_US, FEAST_WARNS, small_repository
from harness.servers import ValkeyServer, wait_until
from skewless.adapters.feast_repository import Connections, FeatureRepository
from skewless.cli.main import main
from skewless.errors import InvalidDefinition, InvalidSettings, Unavailable
from skewless.registry.database import engine, upgrade
from skewless.registry.feast_tables import FeastTables
from skewless.registry.snapshots import FeatureSnapshots
from skewless.settings import Settings
from skewless.stack import feature_watch
from skewless.stack.doctor import Condition, examine
from skewless.stack.feature_watch import RETRY_S, FeatureWatch

PROJECT = "watched_shop"
pytestmark = FEAST_WARNS


@dataclass
class Shop:
    """A home, a repository, and what plain Feast does to its registry."""

    settings: Settings
    repository: FeatureRepository
    definitions: Any
    environment: dict[str, str]

    @property
    def registry_url(self) -> str:
        return self.settings.feast_registry_url

    def apply_with_feast(self, **ttl_hours: int) -> None:
        """What `feast apply` does; the ttl of each named view is changed in the definitions first."""
        for name, hours in ttl_hours.items():
            view = copy.copy(getattr(self.definitions, name))
            view.ttl = timedelta(hours=hours)
            setattr(self.definitions, name, view)
        self.repository.apply(self.definitions)

    def run(self, *arguments: str) -> Any:
        """What a command prints as JSON."""
        done = CliRunner().invoke(main, [*arguments, "--json"], env=self.environment)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, valkey_server: ValkeyServer) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("watched")
    online_store = f"{valkey_server.host}:{valkey_server.port}"
    with small_repository(folder, "small_watched", project=PROJECT) as small:
        settings = Settings(home=folder / "home", repo=small.folder, online_store=online_store)
        settings.folders.root.mkdir()
        repository = FeatureRepository(small.folder, Connections(online_store, settings.feast_registry_url))
        environment = {
            "SKEWLESS_HOME": str(settings.home),
            "SKEWLESS_REPO": str(settings.repo),
            "SKEWLESS_ONLINE_STORE": online_store,
        }
        made = Shop(settings, repository, small.definitions(), environment)
        made.apply_with_feast()
        upgrade(settings.registry_url)
        yield made


@pytest.fixture
def tables(shop: Shop) -> Iterator[FeastTables]:
    with closing(FeastTables(shop.registry_url)) as opened:
        yield opened


@pytest.fixture
def snapshots(shop: Shop) -> Iterator[FeatureSnapshots]:
    with closing(FeatureSnapshots(engine(shop.settings.registry_url))) as opened:
        yield opened


@dataclass
class Watched:
    """A watcher with a clock that the test turns, and a compiler that stores what is registered."""

    shop: Shop
    tables: FeastTables
    snapshots: FeatureSnapshots
    refusal: str = ""
    now_s: float = 0.0
    compiled: int = 0
    told: list[str] = field(default_factory=list)

    def watcher(self) -> FeatureWatch:
        return FeatureWatch(
            PROJECT, self.tables, self.snapshots, self._compile, self.told.append, clock=lambda: self.now_s
        )

    def _compile(self) -> bool:
        self.compiled += 1
        if self.refusal:
            raise InvalidDefinition(self.refusal)
        source = self.tables.fingerprint(PROJECT)
        assert source is not None
        self.snapshots.store(self.shop.repository.compiled(), findings=(), source=source, actor="test", reason="watch")
        return True


@pytest.fixture
def watched(shop: Shop, tables: FeastTables, snapshots: FeatureSnapshots) -> Watched:
    return Watched(shop, tables, snapshots)


def _changed(url: str, statement: str) -> None:
    made = create_engine(url)
    with made.begin() as connection:
        connection.execute(text(statement))
    made.dispose()


def test_a_registry_that_does_not_exist_says_nothing_and_is_not_created(tmp_path: Path) -> None:
    with closing(FeastTables(f"sqlite:///{tmp_path / 'none.db'}")) as tables:
        assert tables.fingerprint(PROJECT) is None
        assert tables.marks(PROJECT) == ()
    assert list(tmp_path.iterdir()) == []


def test_a_registry_without_feasts_tables_or_the_project_says_nothing(tmp_path: Path, tables: FeastTables) -> None:
    _changed(f"sqlite:///{tmp_path / 'other.db'}", "CREATE TABLE entities_of_others (name TEXT)")
    with closing(FeastTables(f"sqlite:///{tmp_path / 'other.db'}")) as other:
        assert other.fingerprint(PROJECT) is None
    assert tables.fingerprint("another_project") is None


def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "feast.db").write_bytes(b"this is not a database" * 100)
    with (
        closing(FeastTables(f"sqlite:///{tmp_path / 'feast.db'}")) as tables,
        pytest.raises(Unavailable, match="Feast registry is unavailable: file is not a database"),
    ):
        tables.fingerprint(PROJECT)


@pytest.mark.parametrize("url", ["", "feast.db", "nosuch://user:hunter2@host/database"])
def test_a_url_of_no_database_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(InvalidSettings) as refused:
        FeastTables(url)
    assert "hunter2" not in str(refused.value)


def test_applying_the_same_again_and_materializing_leave_the_fingerprint(shop: Shop, tables: FeastTables) -> None:
    before = tables.fingerprint(PROJECT)
    shop.apply_with_feast()
    shop.repository.materialize(END_US, lambda _: None)
    assert tables.fingerprint(PROJECT) == before is not None


def test_a_changed_ttl_is_another_fingerprint_and_back_again_the_old_one(shop: Shop, tables: FeastTables) -> None:
    before = tables.fingerprint(PROJECT)
    shop.apply_with_feast(weather=7)
    assert tables.fingerprint(PROJECT) != before
    shop.apply_with_feast(weather=6)
    assert tables.fingerprint(PROJECT) == before


def test_objects_that_are_no_messages_are_taken_whole(shop: Shop, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'copy.db'}"
    (tmp_path / "copy.db").write_bytes(shop.settings.folders.feast_registry.read_bytes())
    seen = set()
    with closing(FeastTables(url)) as tables:
        for damage in ("x'ff'", "x'0aff01'", "x'07'", "x''", "x'0a0161'"):
            _changed(url, f"UPDATE entities SET entity_proto = {damage}")
            seen.add(tables.fingerprint(PROJECT))
    assert len(seen) == 5


def test_a_change_is_compiled_once_it_was_seen_twice(watched: Watched) -> None:
    watched.shop.apply_with_feast(weather=9)
    watcher = watched.watcher()
    assert [watcher.look(), watcher.look(), watcher.look()] == [False, True, False]
    assert watched.snapshots.newest(PROJECT).registry.contract("delays").views[0].ttl_us == 9 * 3_600_000_000
    watched.shop.apply_with_feast(weather=6)
    assert [watcher.look(), watcher.look(), watcher.look()] == [False, True, False]
    assert watched.compiled == 2


def test_every_look_that_finds_no_change_is_noted(watched: Watched) -> None:
    watcher = watched.watcher()
    watcher.look()
    watcher.look()
    for _ in range(3):
        (before,) = watched.snapshots.heads()
        watcher.look()
        (after,) = watched.snapshots.heads()
        assert after.checked_at > before.checked_at


def test_a_second_change_within_a_second_is_not_missed(watched: Watched, tmp_path: Path) -> None:
    with _copied(watched, tmp_path) as url:
        watcher = watched.watcher()
        assert [watcher.look(), watcher.look()] == [False, True]
        # The same marks, but other definitions: what two applies of one second look like from far away.
        _touch_entities(url)
        watched.now_s += 1.0
        assert [watcher.look(), watcher.look()] == [False, True]


def test_marks_that_have_settled_are_all_that_is_read(watched: Watched, tmp_path: Path) -> None:
    with _copied(watched, tmp_path) as url:
        watcher = watched.watcher()
        for _ in range(3):
            watcher.look()
            watched.now_s += 5.0
        _touch_entities(url)
        assert [watcher.look(), watcher.look()] == [False, False], "Feast changes nothing without changing the time"
        _changed(url, "UPDATE entities SET last_updated_timestamp = last_updated_timestamp + 1")
        assert [watcher.look(), watcher.look()] == [False, True]


@contextmanager
def _copied(watched: Watched, folder: Path) -> Iterator[str]:
    """Inside, the watched registry is a copy that a test may change by hand; yields its URL."""
    (folder / "copy.db").write_bytes(watched.shop.settings.folders.feast_registry.read_bytes())
    url = f"sqlite:///{folder / 'copy.db'}"
    _touch_entities(url)
    with closing(FeastTables(url)) as watched.tables:
        yield url


def _touch_entities(url: str) -> None:
    """Change what entities say, but not when they were changed."""
    made = create_engine(url)
    with made.begin() as connection:
        for name, stored in connection.execute(text("SELECT entity_name, entity_proto FROM entities")).all():
            # A second spec: of a field that is there twice, the last one counts.
            values = {"name": name, "proto": stored + b"\x0a\x01" + bytes([stored[-1] ^ 1])}
            connection.execute(text("UPDATE entities SET entity_proto = :proto WHERE entity_name = :name"), values)
    made.dispose()


def test_definitions_that_cannot_be_compiled_are_tried_again_after_a_while(watched: Watched) -> None:
    watched.shop.apply_with_feast(weather=11)
    watched.refusal = "no"
    watcher = watched.watcher()
    watcher.look()
    before = watched.snapshots.heads()
    with pytest.raises(InvalidDefinition, match="no"):
        watcher.look()
    watched.now_s += RETRY_S - 1
    assert not watcher.look()
    assert watched.snapshots.heads() == before, "a snapshot that is behind gets older"
    watched.now_s += 2
    watched.refusal = ""
    assert watcher.look()
    assert watched.compiled == 2


def test_a_registry_that_is_away_is_told_once_and_looked_at_again(watched: Watched, tmp_path: Path) -> None:
    (tmp_path / "feast.db").write_bytes(b"this is not a database" * 100)
    with closing(FeastTables(f"sqlite:///{tmp_path / 'feast.db'}")) as watched.tables:
        stop = threading.Event()
        thread = threading.Thread(target=watched.watcher().run, args=(stop,), kwargs={"every_s": 0.001})
        thread.start()
        wait_until(lambda: bool(watched.told), "the failure is told")
        stop.set()
        thread.join()
    assert len(watched.told) == 1
    assert "Feast registry is unavailable" in watched.told[0]


def test_plain_feast_apply_becomes_a_snapshot_by_a_process_that_ends(shop: Shop, snapshots: FeatureSnapshots) -> None:
    stop, told = threading.Event(), list[str]()
    shop.apply_with_feast(weather=13)
    thread = threading.Thread(
        target=feature_watch.watch, args=(shop.settings, stop, told.append), kwargs={"every_s": 0.1}
    )
    thread.start()

    def is_followed() -> bool:
        return any("says what its definitions say" in line for line in told)

    try:
        wait_until(is_followed, f"the change is compiled: {told}", timeout_s=120)
    finally:
        stop.set()
        thread.join()
    assert snapshots.newest(PROJECT).registry.contract("delays").views[0].ttl_us == 13 * 3_600_000_000


def test_the_compiler_that_refuses_is_quoted(shop: Shop, tmp_path: Path) -> None:
    elsewhere = shop.settings.model_copy(update={"repo": tmp_path})
    with pytest.raises(InvalidDefinition, match=r"(?s)cannot be compiled \(exit status 2\).*feature_store.yaml"):
        feature_watch.compile_apart(elsewhere, threading.Event())


def test_a_repository_without_an_sql_registry_cannot_be_watched(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").write_text("project: p\nregistry: data/registry.db\n")
    elsewhere = shop.settings.model_copy(update={"repo": tmp_path})
    with pytest.raises(InvalidDefinition, match="is of type `file`; only one of type `sql` can be watched") as refused:
        feature_watch.watch(elsewhere, threading.Event(), print)
    assert "skewless features compile" in refused.value.hint


def test_doctor_says_when_the_definitions_changed_since_the_snapshot(shop: Shop) -> None:
    shop.run("features", "compile")
    assert _doctor(shop)[0] is Condition.OK
    shop.apply_with_feast(weather=17)
    condition, seen, remedy = _doctor(shop)
    assert (condition, "the definitions have changed since" in seen) == (Condition.UNHEALTHY, True)
    assert "skewless features compile" in remedy
    shop.run("apply")
    assert _doctor(shop)[0] is Condition.OK


def _doctor(shop: Shop) -> tuple[Condition, str, str]:
    (found,) = [each for each in examine(shop.settings) if each.check == "registry snapshot"]
    return found.condition, found.seen, found.remedy


def test_apply_stores_a_snapshot_that_features_list_and_show_read(shop: Shop) -> None:
    shop.run("apply")
    listed = shop.run("features", "list")
    assert listed["project"] == PROJECT
    assert sorted(listed["registry"]["contracts"]) == ["delays", "everything"]
    assert listed["registry"]["hash_sizes"] == [[[], 2], [["line", "station"], 3], [["station"], 7]]
    assert shop.run("features", "show", "delays") == listed["registry"]["contracts"]["delays"]
    text_of = CliRunner().invoke(main, ["features", "list"], env=shop.environment)
    assert text_of.stdout.splitlines()[1].split() == ["delays", "2", "6", "station,", "line", "-"]


def test_an_unknown_feature_service_is_refused_with_the_known_ones(shop: Shop) -> None:
    shop.run("apply")
    done = CliRunner().invoke(main, ["features", "show", "nope"], env=shop.environment)
    assert done.exit_code == 2
    assert "Known: `delays`, `everything`" in done.stderr


def test_listing_features_imports_no_feast_and_no_redis(shop: Shop) -> None:
    shop.run("apply")
    code = (
        "import sys; from click.testing import CliRunner; from skewless.cli.main import main; "
        "assert CliRunner().invoke(main, ['features', 'list']).exit_code == 0; "
        "print([each for each in ('feast', 'redis', 'pandas', 'pyarrow', 'duckdb') if each in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=shop.environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"


def test_apply_registers_nothing_where_no_snapshot_can_follow(shop: Shop, tmp_path: Path) -> None:
    registry = tmp_path / "feast.db"
    (tmp_path / "not-migrated.db").touch()
    environment = {
        **shop.environment,
        "SKEWLESS_FEAST_REGISTRY": f"sqlite:///{registry}",
        "SKEWLESS_DATABASE_URL": f"sqlite:///{tmp_path / 'not-migrated.db'}",
    }
    done = CliRunner().invoke(main, ["apply"], env=environment)
    assert done.exit_code == 3
    assert "no such table: definition_versions" in done.stderr
    assert not registry.exists()
