"""The registry when its database fails: every fault is a typed error in bounded time, and nothing tells a password."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, event, make_url, select, text

from harness.postgres import PostgresServer
from harness.proxies import Proxy, proxied
from harness.servers import wait_until
from skewless.canonical_json import digest
from skewless.errors import InvalidSettings, Unavailable
from skewless.registry import database
from skewless.registry.postgresql import SILENCE_MS, postgresql_engine
from skewless.registry.records import BundleRecord
from skewless.registry.repository import Registry
from skewless.registry.tables import EndpointRow
from skewless.registry.transactions import Transactions
from skewless.timestamps import Micros

LOCK_TIMEOUT_MS, STATEMENT_TIMEOUT_MS = 150, 400
SECRET = "hunter2"  # what must never be told
FIRST, SECOND = digest("first"), digest("second")


@pytest.fixture
def url(postgres_server: PostgresServer) -> str:
    """The URL of a PostgreSQL registry with an endpoint `one`, reached without a proxy."""
    made = postgres_server.empty_database()
    with _registry(made) as registry:
        for own in (FIRST, SECOND):
            registry.register_bundle(BundleRecord(own, "b", Micros(1), own, own, own, {}))
        registry.create_endpoint("one", description="", bundle=FIRST, actor="ann", reason="start")
    return made


@pytest.fixture
def proxy(postgres_server: PostgresServer) -> Iterator[Proxy]:
    with proxied(postgres_server.port) as made:
        yield made


@contextmanager
def _engine(url: str, proxy: Proxy | None = None) -> Iterator[Engine]:
    """An engine with short timeouts, through the proxy where there is one."""
    parsed = make_url(url)
    if proxy is not None:
        parsed = parsed.set(port=proxy.port)
    made = postgresql_engine(parsed, lock_timeout_ms=LOCK_TIMEOUT_MS, statement_timeout_ms=STATEMENT_TIMEOUT_MS)
    try:
        yield made
    finally:
        made.dispose()


@contextmanager
def _plain(url: str) -> Iterator[Connection]:
    """A connection with the timeouts of production, in one transaction."""
    made = database.engine(url)
    try:
        with made.begin() as connection:
            yield connection
    finally:
        made.dispose()


@contextmanager
def _registry(url: str) -> Iterator[Registry]:
    registry = Registry(database.engine(url))
    try:
        yield registry
    finally:
        registry.close()


def _promote(registry: Registry) -> None:
    registry.set_live("one", SECOND, actor="ann", reason="better")


def _live(url: str) -> str:
    with _registry(url) as registry:
        return registry.endpoint("one").route.live


def _before(engine: Engine, beginning: str, act: Callable[[], None]) -> None:
    """Do something just before the first statement that begins so."""
    done: list[str] = []

    def look(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if statement.startswith(beginning) and not done:
            done.append(statement)
            act()

    event.listen(engine, "before_cursor_execute", look)


def test_a_connection_that_was_lost_while_nobody_used_it_is_replaced_unnoticed(url: str, proxy: Proxy) -> None:
    with _engine(url, proxy) as engine:
        registry = Registry(engine)
        registry.routes()
        proxy.cut_all()
        wait_until(lambda: not proxy.open_connections, "the connections are cut")
        assert registry.endpoint("one").route.live == FIRST
        assert proxy.connections == 2


def test_a_connection_that_is_lost_in_the_middle_of_a_change_is_unavailable_and_changes_nothing(
    url: str, proxy: Proxy
) -> None:
    def cut() -> None:
        proxy.cut_all()
        wait_until(lambda: not proxy.open_connections, "the connections are cut")

    with _engine(url, proxy) as engine:
        registry = Registry(engine)
        _before(engine, "INSERT INTO audit_events", cut)
        with pytest.raises(Unavailable, match="registry database is unavailable"):
            _promote(registry)
        assert _live(url) == FIRST
        _promote(registry)
    assert _live(url) == SECOND


def test_a_commit_whose_answer_is_lost_says_that_its_outcome_is_not_known(url: str, proxy: Proxy) -> None:
    def cut_when_committed() -> None:
        wait_until(lambda: _live(url) == SECOND, "the server has committed")
        proxy.cut_all()

    with _engine(url, proxy) as engine:
        registry = Registry(engine)
        cutter = threading.Thread(target=cut_when_committed)

        @event.listens_for(engine, "commit", once=True)
        def _hold(_connection: object) -> None:
            proxy.holding = True
            cutter.start()

        with pytest.raises(Unavailable, match="whether the change was made is not known"):
            _promote(registry)
        cutter.join()
        proxy.holding = False
        assert registry.endpoint("one").route.version == 2


def test_a_server_that_does_not_answer_any_more_is_given_up(url: str, proxy: Proxy) -> None:
    with _engine(url, proxy) as engine:
        registry = Registry(engine)
        registry.routes()
        proxy.holding = True
        started = time.monotonic()
        with pytest.raises(Unavailable) as refused:
            registry.routes()
        bound_s = (STATEMENT_TIMEOUT_MS + SILENCE_MS) / 1_000
        # The pool's question, and then the new connection, whose own bound is 5 s.
        assert bound_s <= time.monotonic() - started < bound_s + 60
        assert SECRET not in str(refused.value)
        proxy.holding = False
        assert registry.endpoint("one").route.live == FIRST


def test_a_lock_is_waited_for_only_so_long(url: str) -> None:
    with _engine(url) as engine, _plain(url) as other:
        other.execute(select(EndpointRow.name).with_for_update())
        started = time.monotonic()
        with pytest.raises(Unavailable, match="lock timeout"):
            _promote(Registry(engine))
        assert time.monotonic() - started < 90
    assert _live(url) == FIRST


def test_a_statement_is_worked_on_only_so_long(url: str) -> None:
    with _engine(url) as engine:
        transactions = Transactions(engine, conflict_hint="")
        with pytest.raises(Unavailable, match="statement timeout"), transactions.read() as session:
            session.execute(text("SELECT pg_sleep(60)"))


def test_every_wait_of_a_connection_has_its_bound_and_inner_ones_end_first(url: str) -> None:
    with _plain(url) as connection:
        shown = {
            name: connection.execute(text(f"SHOW {name}")).scalar()
            for name in ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout", "application_name")
        }
    assert shown == {
        "lock_timeout": "5s",
        "statement_timeout": "10s",
        "idle_in_transaction_session_timeout": "10s",
        "application_name": "skewless",
    }


def test_a_registry_whose_server_was_away_goes_on_when_it_is_back(url: str, postgres_server: PostgresServer) -> None:
    with _registry(url) as registry:
        assert registry.endpoint("one").route.live == FIRST
        postgres_server.stop()
        try:
            with pytest.raises(Unavailable) as refused:
                registry.routes()
        finally:
            postgres_server.start()
        assert postgres_server.password not in str(refused.value)
        assert "skewless up" in refused.value.hint
        _promote(registry)
        assert registry.endpoint("one").route.live == SECOND


def test_a_read_sees_one_moment(registry_url: str) -> None:
    engine = database.engine(registry_url)
    registry = Registry(engine)
    registry.register_bundle(BundleRecord(FIRST, "b", Micros(1), FIRST, FIRST, FIRST, {}))
    with Transactions(engine, conflict_hint="").read() as session:
        assert session.scalar(text("SELECT count(*) FROM bundles")) == 1
        registry.register_bundle(BundleRecord(SECOND, "b", Micros(1), SECOND, SECOND, SECOND, {}))
        assert session.scalar(text("SELECT count(*) FROM audit_events")) == 1
    assert len(registry.bundles()) == 2
    registry.close()


def test_a_password_with_any_character_is_written_percent_encoded(postgres_server: PostgresServer, url: str) -> None:
    password, encoded = "p@ss:w/rd%#?", "p%40ss%3Aw%2Frd%25%23%3F"
    with _plain(url) as connection:
        connection.exec_driver_sql("DROP ROLE IF EXISTS odd")
        connection.exec_driver_sql(f"CREATE ROLE odd LOGIN SUPERUSER PASSWORD '{password.replace('%', '%%')}'")
    name = make_url(url).database
    with _registry(f"postgresql://odd:{encoded}@127.0.0.1:{postgres_server.port}/{name}") as registry:
        assert [each.name for each in registry.endpoints()] == ["one"]


@pytest.mark.parametrize(
    "broken",
    [
        f"postgresql+psycopg://user:{SECRET}@127.0.0.1:1/database",
        f"postgresql://user:{SECRET}@127.0.0.1:1/database",
        f"postgresql://user@127.0.0.1:1/database?password={SECRET}",
        f"postgresql://user:a@{SECRET}@127.0.0.1/database",
        f"postgresql://user:{SECRET}@127.0.0.1:port{SECRET}/database",
        f"postgresql+psycopg2://user:{SECRET}@127.0.0.1/database",
        f"postgresql+{SECRET}",
        f"mysql://user:{SECRET}@host/database",
        f"postgresql:/user:{SECRET}@host",
        f"postgresql://user:{SECRET}@127.0.0.1:1/database?sslmode=nonsense",
        f"postgresql://user:{SECRET}@127.0.0.1:1/database?no_such_option={'x'}",
    ],
)
def test_a_password_never_stands_in_an_error(broken: str) -> None:
    with pytest.raises((InvalidSettings, Unavailable)) as refused, _registry(broken) as registry:
        registry.routes()
    told: BaseException | None = refused.value
    assert SECRET not in str(told)
    if isinstance(told, InvalidSettings):
        assert told.hint
        assert told.__suppress_context__ or told.__context__ is None, "a traceback would tell it"


def test_a_wrong_password_is_unavailable_and_not_told(postgres_server: PostgresServer, url: str) -> None:
    wrong = url.replace(postgres_server.password, SECRET)
    with _registry(wrong) as registry, pytest.raises(Unavailable, match="password authentication failed") as refused:
        registry.routes()
    assert SECRET not in str(refused.value)
    assert SECRET not in repr(refused.value.__cause__)


def test_a_registry_without_the_schema_is_unavailable_and_says_what_to_do(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    (tmp_path / "empty.db").touch()
    for empty in (f"sqlite:///{tmp_path / 'empty.db'}", postgres_server.new_database(migrated=False)):
        with _registry(empty) as registry, pytest.raises(Unavailable, match=r"no such table|does not exist") as refused:
            registry.routes()
        assert "skewless up" in refused.value.hint
        assert database.revision_status(empty)[0] is None


def test_a_sqlite_database_that_is_away_is_unavailable(tmp_path: Path) -> None:
    away = f"sqlite:///{tmp_path / 'nowhere' / 'registry.db'}"
    with _registry(away) as registry, pytest.raises(Unavailable, match="unable to open database file"):
        registry.routes()


def test_a_sqlite_file_that_was_taken_away_is_not_made_anew_and_is_found_when_it_is_back(
    sqlite_registry: Path, tmp_path: Path
) -> None:
    folder, aside, file = tmp_path / "registry", tmp_path / "aside", tmp_path / "registry" / "registry.db"
    folder.mkdir()
    shutil.copy(sqlite_registry, file)
    with _registry(f"sqlite:///{file}") as registry:
        registry.register_bundle(BundleRecord(FIRST, "b", Micros(1), FIRST, FIRST, FIRST, {}))
        folder.rename(aside)
        folder.mkdir()
        with pytest.raises(Unavailable, match="unable to open database file"):
            registry.bundles()
        assert not file.exists()
        shutil.copy(sqlite_registry, file)
        assert registry.bundles() == (), "it is another file"
        shutil.rmtree(folder)
        aside.rename(folder)
        assert [bundle.digest for bundle in registry.bundles()] == [FIRST]
