"""The schema: migrations and tables agree, go up and down with data inside, and several may upgrade at once."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.schema import CreateIndex, CreateTable

from skewless.canonical_json import digest
from skewless.errors import InvalidSettings, Unavailable
from skewless.registry import database
from skewless.registry.records import BundleRecord
from skewless.registry.repository import Registry
from skewless.registry.snapshots import FeatureSnapshots
from skewless.registry.tables import Base
from skewless.timestamps import Micros

REPOSITORY = Path(__file__).parents[2]
UPGRADERS = 4


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'folder' / 'registry.db'}"


@contextmanager
def _opened(url: str) -> Iterator[Engine]:
    engine = database.engine(url)
    try:
        yield engine
    finally:
        engine.dispose()


def _schema(engine: Engine) -> dict[str, str]:
    """SQL of every table and index as SQLite keeps it, white space evened out and constraints in one order."""
    with engine.connect() as connection:
        found = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")).all()
    lines = {name: sorted(line.strip().rstrip(",") for line in sql.splitlines()) for name, sql in found}
    return {name: "\n".join(each) for name, each in lines.items() if name != "alembic_version"}


def _move(url: str, revision: str) -> None:
    with database.migrating(url) as connection:
        config = Config()
        config.set_main_option("script_location", str(database.migrations_folder()))
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        (command.downgrade if revision == "base" else command.upgrade)(config, revision)


def _bundle(name: str) -> BundleRecord:
    made = digest(name)
    return BundleRecord(made, name, Micros(1), made, made, made, {"input": {"columns": 1}}, {"auroc": 0.75})


def test_migrations_build_exactly_the_tables_of_the_code(url: str, tmp_path: Path) -> None:
    database.upgrade(url)
    with _opened(url) as migrated, _opened(f"sqlite:///{tmp_path / 'declared.db'}") as declared:
        Base.metadata.create_all(declared)
        assert _schema(migrated) == _schema(declared)
        with migrated.connect() as connection:
            options = {"compare_type": True, "compare_server_default": True}
            assert compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata) == []


def test_the_migrations_sql_for_postgresql_is_that_of_the_tables() -> None:
    asked = [sys.executable, "-m", "alembic", "-c", "migrations/alembic.ini"]
    asked += ["-x", "url=postgresql+psycopg://user@host/database", "upgrade", "head", "--sql"]
    done = subprocess.run(asked, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True)
    printed = {_evened(statement) for statement in done.stdout.split(";")}
    dialect = make_url("postgresql+psycopg://").get_dialect()()
    for table in Base.metadata.sorted_tables:
        assert _evened(str(CreateTable(table).compile(dialect=dialect))) in printed
        for index in table.indexes:
            assert _evened(str(CreateIndex(index).compile(dialect=dialect))) in printed


def _evened(statement: str) -> tuple[str, ...]:
    lines = (line.strip().rstrip(",") for line in statement.splitlines())
    return tuple(sorted(line for line in lines if line and not line.startswith("--")))


def test_data_stays_through_an_upgrade_that_has_nothing_to_do(url: str) -> None:
    database.upgrade(url)
    with _opened(url) as engine:
        Registry(engine).register_bundle(_bundle("kept"))
        database.upgrade(url)
        assert [bundle.name for bundle in Registry(engine).bundles()] == ["kept"]


def test_the_schema_goes_down_and_up_again_with_data_in_its_tables(url: str) -> None:
    database.upgrade(url)
    with _opened(url) as engine:
        registry = Registry(engine)
        registry.register_bundle(_bundle("first"))
        registry.create_endpoint("one", description="", bundle=_bundle("first").digest, actor="test", reason="try")
        before = _schema(engine)
    _move(url, "base")
    current, newest = database.revision_status(url)
    assert current is None
    with _opened(url) as engine:
        assert _schema(engine) == {}
    database.upgrade(url)
    assert database.revision_status(url) == (newest, newest)
    with _opened(url) as engine:
        assert _schema(engine) == before
        assert Registry(engine).bundles() == ()


def test_a_database_from_before_snapshots_keeps_its_data_and_gets_their_table(url: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    _move(url, "0001")
    with _opened(url) as engine:
        assert "feature_snapshots" not in _schema(engine)
        Registry(engine).register_bundle(_bundle("kept"))
    database.upgrade(url)
    with _opened(url) as engine:
        assert [bundle.name for bundle in Registry(engine).bundles()] == ["kept"]
        assert FeatureSnapshots(engine).heads() == ()


def test_a_database_that_was_never_migrated_says_so_and_is_not_created(url: str, tmp_path: Path) -> None:
    current, newest = database.revision_status(url)
    assert current is None
    assert newest
    assert list(tmp_path.iterdir()) == []


def test_threads_that_upgrade_at_once_all_find_the_newest_schema(url: str) -> None:
    with ThreadPoolExecutor(UPGRADERS) as pool:
        list(pool.map(database.upgrade, [url] * UPGRADERS))
    current, newest = database.revision_status(url)
    assert current == newest


def test_processes_that_upgrade_at_once_all_succeed(url: str) -> None:
    code = "import sys; from skewless.registry.database import upgrade; upgrade(sys.argv[1])"
    running = [
        subprocess.Popen([sys.executable, "-c", code, url], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(UPGRADERS)
    ]
    said = [process.communicate(timeout=60)[0] for process in running]
    assert [process.returncode for process in running] == [0] * UPGRADERS, said
    assert said == [b""] * UPGRADERS, "an upgrade is quiet"
    current, newest = database.revision_status(url)
    assert current == newest


def test_a_migration_that_fails_leaves_the_schema_as_it_was(url: str) -> None:
    def fail_half_way() -> None:
        with database.migrating(url) as connection:
            connection.exec_driver_sql("CREATE TABLE half (way INTEGER)")
            raise RuntimeError("half way")

    database.upgrade(url)
    with _opened(url) as engine:
        before = _schema(engine)
    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way()
    with _opened(url) as engine:
        assert _schema(engine) == before


def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    file = tmp_path / "registry.db"
    file.write_bytes(b"this is not a database at all" * 100)
    with pytest.raises(Unavailable, match="registry database is unavailable: file is not a database"):
        database.upgrade(f"sqlite:///{file}")


@pytest.mark.parametrize("url", ["", "registry.db", "mysql://host/database", "oracle://host"])
def test_a_url_of_no_supported_database_is_refused_with_the_allowed_ones(url: str) -> None:
    with pytest.raises(InvalidSettings) as refused:
        database.engine(url)
    assert "sqlite:///<path> or postgresql" in refused.value.hint


def test_a_password_never_stands_in_an_error() -> None:
    with pytest.raises((InvalidSettings, Unavailable)) as refused:
        database.revision_status("postgresql+psycopg://user:hunter2@127.0.0.1:1/database")
    assert "hunter2" not in str(refused.value)


def test_a_sqlite_registry_keeps_readers_going_and_enforces_foreign_keys(url: str) -> None:
    database.upgrade(url)
    with _opened(url) as engine, engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == database.BUSY_TIMEOUT_MS


def test_the_comparison_notices_a_missing_column(url: str, tmp_path: Path) -> None:
    database.upgrade(url)
    plain = create_engine(url)
    with plain.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE bundles DROP COLUMN metrics")
    plain.dispose()
    with _opened(url) as migrated, _opened(f"sqlite:///{tmp_path / 'declared.db'}") as declared:
        Base.metadata.create_all(declared)
        assert _schema(migrated) != _schema(declared)
