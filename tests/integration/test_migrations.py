"""The schema, on SQLite and PostgreSQL: migrations and tables agree, go up and down with data inside, many at once."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, inspect, text

from harness.materialization_rows import fill_materializations
from harness.monitor_rows import fill_monitors
from harness.postgres import PostgresServer
from skewless.canonical_json import digest
from skewless.errors import InvalidSettings, Unavailable
from skewless.features.chosen_entities import ChosenEntities
from skewless.features.compiled_registry import CompiledRegistry
from skewless.features.definition_metadata import DefinitionSet
from skewless.ingestion.batches import BatchKind, IncomingRequest
from skewless.registry import database
from skewless.registry.api_scopes import ApiScope
from skewless.registry.consumed_segments import ConsumedSegments, DeliveredRows
from skewless.registry.definitions import Definitions
from skewless.registry.entity_deletions import DeletionRequest, Deletions
from skewless.registry.ingest_batches import Bounds, IngestBatches, PackedBatch
from skewless.registry.lineage_events import LineagePosition, LineagePositions
from skewless.registry.records import BundleRecord, DatasetRecord, EvaluationRecord
from skewless.registry.repository import Registry
from skewless.registry.schema import Base
from skewless.registry.snapshots import FeatureSnapshots
from skewless.rollout import changes
from skewless.rollout.counts import ArmCounts
from skewless.rollout.history import RouteAction
from skewless.rollout.routes import Arm, Experiment, ExperimentKind, Role, Route
from skewless.timestamps import Micros

REPOSITORY = Path(__file__).parents[2]
UPGRADERS = 4
OLDER = {"0001": ("bundles", "endpoints", "routes", "audit_events"), "0002": ("feature_snapshots",)}


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without any table."""
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        return server.new_database(migrated=False)
    (tmp_path / "folder").mkdir()
    return f"sqlite:///{tmp_path / 'folder' / 'registry.db'}"


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'folder' / 'registry.db'}"


@contextmanager
def _opened(url: str) -> Iterator[Engine]:
    engine = database.engine(url)
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def _writing(url: str) -> Iterator[Any]:
    with _opened(url) as engine, engine.execution_options(**{database.WRITES: True}).begin() as connection:
        yield connection


def _schema(engine: Engine) -> dict[str, Any]:
    """All that a database says of its tables, whatever the order in which it came about."""
    inspector = inspect(engine)
    return {
        table: {
            "columns": {
                column["name"]: (column["type"].compile(engine.dialect), column["nullable"], column["default"])
                for column in inspector.get_columns(table)
            },
            "primary key": inspector.get_pk_constraint(table),
            "foreign keys": _by_name(inspector.get_foreign_keys(table)),
            "unique": _by_name(inspector.get_unique_constraints(table)),
            "checks": _by_name(inspector.get_check_constraints(table)),
            "indexes": _by_name(inspector.get_indexes(table)),
        }
        for table in inspector.get_table_names()
        if table != "alembic_version"
    }


def _by_name(items: Any) -> dict[str, str]:
    return {str(item["name"]): json.dumps(item, sort_keys=True, default=str) for item in items}


def _declared(url: str, tmp_path: Path, server: PostgresServer | None) -> str:
    """The URL of a database whose tables were made from the code, on the same kind of database."""
    (tmp_path / "declared.db").touch()
    other = f"sqlite:///{tmp_path / 'declared.db'}" if server is None else server.new_database(migrated=False)
    with _opened(other) as engine:
        Base.metadata.create_all(engine)
    return other


def _server(request: pytest.FixtureRequest, url: str) -> PostgresServer | None:
    return request.getfixturevalue("postgres_server") if url.startswith("postgresql") else None


def _move(url: str, revision: str) -> None:
    """Up or down to a revision."""
    current, _newest = database.revision_status(url)
    down = current is not None and (revision == "base" or revision < current)
    with database.migrating(url) as connection:
        config = Config()
        config.set_main_option("script_location", str(database.migrations_folder()))
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        (command.downgrade if down else command.upgrade)(config, revision)


def _bundle(name: str) -> BundleRecord:
    made = digest(name)
    metrics = {"auroc": 0.75, "odd": [1e22, -0.0], "z": 1, "a": 2}
    return BundleRecord(made, name, Micros(1), made, made, made, {"input": {"columns": 1}}, metrics)


def _fill(url: str) -> None:
    """A row in every table."""
    with _opened(url) as engine:
        registry = Registry(engine)
        for name in "abcd":
            registry.register_bundle(_bundle(name))
        registry.create_endpoint("one", description="first", bundle=digest("a"), actor="ann", reason="start")
        registry.set_live("one", digest("b"), actor="ann", reason="better")
        arms = (Arm("old", digest("a"), 0.25), Arm("new", digest("d"), 0.75))
        experiment = Experiment("wording", ExperimentKind.AB, arms, 0.2, "late")
        registry.change_route(
            "one",
            lambda route: replace(
                changes.start_shadow(changes.start_experiment(route, experiment), digest("d"), 0.5),
                canary=changes.start_canary(route, digest("c"), 0.1).canary,
                version=route.version + 1,
                sticky_by=("tailnum",),
            ),
            action=RouteAction.START_CANARY,
            actor="ann",
            reason="try",
            progress={"step": 1},
        )
        registry.add_counts("one", "wording", "segment-1", {"old": ArmCounts(10, 3)})
        registry.add_dataset(DatasetRecord(digest("rows"), "hold-out", 5, Micros(1), None, "SELECT 1", Micros(2)))
        registry.add_evaluation(EvaluationRecord(digest("a"), digest("rows"), {"auroc": 0.7}, {}, Micros(3)))
        registry.add_api_key("shop", [ApiScope(("one",))], actor="ann")
        with ConsumedSegments(engine).taking("tests", DeliveredRows("segment-1", "shipper", 1, 2, "outcomes", 0, 1)):
            pass
        snapshots = FeatureSnapshots(engine)
        empty = CompiledRegistry("demo", {}, {}, {})
        snapshots.store(empty, findings=(), source=digest("source"), actor="ann", reason="apply")
        Definitions(engine).begin(DefinitionSet("demo"), plan={}, before=digest("source"), actor="ann", reason="apply")
        LineagePositions(engine).told("catalogue", LineagePosition(3, 4))
        request = IncomingRequest("ann", "key", digest("rows"), 1, {"rows": 1})
        batch = PackedBatch(BatchKind.ROWS, "clicks", b"rows", 1, 5, (request,), Micros(1), "", 4)
        IngestBatches(engine).accept(batch, Bounds(10, 10))
        fill_materializations(engine)
        Deletions(engine).begin(DeletionRequest(ChosenEntities({"tail": "N1"})))
        fill_monitors(engine)


def _rows(url: str, tables: tuple[str, ...], *, without: tuple[str, ...] = ()) -> dict[str, list[dict[str, Any]]]:
    """Every row of the tables; JSON columns as their parsed text."""
    found: dict[str, list[dict[str, Any]]] = {}
    with _opened(url) as engine, engine.connect() as connection:
        for table in tables:
            rows = connection.execute(text(f"SELECT * FROM {table}")).mappings()
            plain = [{name: _plain(value) for name, value in row.items() if name not in without} for row in rows]
            found[table] = sorted(plain, key=lambda row: json.dumps(row, sort_keys=True))
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    return json.loads(value) if isinstance(value, str) and value[:1] in {"{", "["} else value


def test_migrations_build_exactly_the_tables_of_the_code(
    url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    database.upgrade(url)
    declared = _declared(url, tmp_path, _server(request, url))
    with _opened(url) as migrated, _opened(declared) as from_code:
        assert _schema(migrated) == _schema(from_code)
        assert set(_schema(migrated)) == set(Base.metadata.tables)
        with migrated.connect() as connection:
            options = {"compare_type": True, "compare_server_default": True}
            assert compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata) == []


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE bundles DROP COLUMN metrics",
        "DROP INDEX uq_experiments_running",
        "ALTER TABLE evaluations RENAME COLUMN slices TO parts",
        "CREATE TABLE other (id INTEGER)",
    ],
)
def test_the_comparison_notices(url: str, change: str) -> None:
    database.upgrade(url)
    with _opened(url) as engine:
        before = _schema(engine)
    with _writing(url) as connection:
        connection.execute(text(change))
    with _opened(url) as engine:
        assert _schema(engine) != before


def test_the_migrations_printed_for_a_database_administrator_do_the_same(postgres_server: PostgresServer) -> None:
    asked = [sys.executable, "-m", "alembic", "-c", "migrations/alembic.ini"]
    asked += ["-x", "url=postgresql+psycopg://user@host/database", "upgrade", "head", "--sql"]
    done = subprocess.run(asked, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True)
    printed, migrated = postgres_server.new_database(migrated=False), postgres_server.new_database()
    with _opened(printed) as engine, engine.connect() as connection:
        connection.connection.driver_connection.execute(done.stdout)  # type: ignore[union-attr]  # it is connected
    with _opened(printed) as engine, _opened(migrated) as other:
        assert _schema(engine) == _schema(other)
    assert database.revision_status(printed) == database.revision_status(migrated)


def test_data_stays_through_an_upgrade_that_has_nothing_to_do(url: str) -> None:
    database.upgrade(url)
    _fill(url)
    before = _rows(url, tuple(Base.metadata.tables))
    assert all(before.values()), "every table has rows"
    database.upgrade(url)
    assert _rows(url, tuple(Base.metadata.tables)) == before


def test_the_schema_goes_down_and_up_again_step_by_step_with_data_in_its_tables(url: str) -> None:
    database.upgrade(url)
    _fill(url)
    with _opened(url) as engine:
        newest = _schema(engine)
    older, new_columns = (
        (*OLDER["0001"], *OLDER["0002"]),
        ("retired_time", "sticky_by", "label_horizon_us", "outcome_window_us", "monitoring"),
    )
    before = _rows(url, older, without=new_columns)
    _move(url, "0002")
    kept = _rows(url, older)
    before["routes"] = [row for row in before["routes"] if row["role"] != "previous"]
    assert kept == before
    database.upgrade(url)
    with _opened(url) as engine:
        assert _schema(engine) == newest
        route = Registry(engine).endpoint("one").route
        assert (route.live, route.previous, route.experiment) == (digest("b"), None, None)
        assert route.canary is not None
        assert Registry(engine).rollback_target("one") == digest("a")
    assert _rows(url, older, without=new_columns) == before
    _move(url, "base")
    assert database.revision_status(url)[0] is None
    with _opened(url) as engine:
        assert _schema(engine) == {}
    database.upgrade(url)
    with _opened(url) as engine:
        assert _schema(engine) == newest
        assert Registry(engine).bundles() == ()


def test_each_migration_can_be_taken_back_and_made_again(url: str) -> None:
    schemas: list[dict[str, Any]] = [{}]
    revisions = ["base", *(f"{number:04}" for number in range(1, 16))]
    for revision in revisions[1:]:
        _move(url, revision)
        with _opened(url) as engine:
            schemas.append(_schema(engine))
    assert database.revision_status(url) == (revisions[-1], revisions[-1]), "add the newest migration above"
    for revision, schema in zip(reversed(revisions[:-1]), reversed(schemas[:-1]), strict=True):
        _move(url, revision)
        with _opened(url) as engine:
            assert _schema(engine) == schema, f"down to {revision}"


def test_a_database_from_before_rollout_keeps_its_endpoints_and_their_history(url: str) -> None:
    _move(url, "0002")
    first, second = digest("a"), digest("b")
    with _writing(url) as connection:
        for made, name in ((first, "a"), (second, "b")):
            values = [made, name, 1, *[made] * 3, "{}", '{"auroc": 0.75}', "{}"]
            connection.exec_driver_sql(f"INSERT INTO bundles VALUES ({', '.join(map(repr, values))})")
        connection.execute(text("INSERT INTO endpoints VALUES ('one', 'first', 1, 2)"))
        connection.execute(text(f"INSERT INTO routes VALUES ('one', 'live', '{second}', 1.0, 5)"))
        for number, (action, before, after) in enumerate((("create", None, first), ("promote", first, second)), 1):
            detail = json.dumps({"role": "live", "from": before, "to": after, "version": number})
            connection.execute(
                text(
                    "INSERT INTO audit_events (time, actor, action, subject, reason, detail) "
                    "VALUES (:number, 'ann', :action, 'endpoint/one', '', :detail)"
                ),
                {"number": number, "action": action, "detail": detail},
            )
    database.upgrade(url)
    with _opened(url) as engine:
        registry = Registry(engine)
        assert registry.endpoint("one").route == Route("one", "first", second, version=2)
        assert registry.endpoint("one").live_since == 5
        assert [bundle.metrics for bundle in registry.bundles()] == [{"auroc": 0.75}] * 2
        assert registry.referenced_bundles() == {first, second}
        assert registry.rollback("one", actor="ann", reason="undo").route.live == first
        assert {role.value for role in Role} >= {row["role"] for row in _rows(url, ("routes",))["routes"]}


def test_a_database_that_was_never_migrated_says_so_and_is_not_created(sqlite_url: str, tmp_path: Path) -> None:
    current, newest = database.revision_status(sqlite_url)
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
    said = [process.communicate(timeout=120)[0] for process in running]
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


def test_a_sqlite_registry_keeps_readers_going_and_enforces_foreign_keys(sqlite_url: str) -> None:
    database.upgrade(sqlite_url)
    with _opened(sqlite_url) as engine, engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == database.BUSY_TIMEOUT_MS
