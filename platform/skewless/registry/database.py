"""Connections to the registry database, and its schema kept at the newest migration."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from skewless.errors import InvalidSettings, Unavailable

if TYPE_CHECKING:
    # Loaded only by what migrates: a gateway, which never does, starts 0.1 s earlier and 11 MB smaller without it.
    from alembic.config import Config

REGISTRY_DATABASE = "registry database"
BUSY_TIMEOUT_MS = 5_000
"""How long a SQLite writer waits for another; a registry transaction takes milliseconds."""
MIGRATION_BUSY_TIMEOUT_MS = 60_000
"""How long a migration waits for another process's migration."""
CONNECT_TIMEOUT_S = 5
POOL_CONNECTIONS_MAX = 5
WRITES = "skewless_writes"
"""Execution option of connections whose transactions write; SQLite then takes its write lock at once."""
_MIGRATION_LOCK = 0x536B_6577_6C65_7373
"""PostgreSQL advisory lock of migrations: the bytes of `Skewless`."""
_SWITCH_AGAIN_S = 0.01
_ALEMBIC = threading.Lock()
"""Alembic runs `env.py` through module globals: one migration at a time in a process, whatever the database."""
_ALLOWED = "sqlite:///<path> or postgresql+psycopg://<user>:<password>@<host>/<database>"


def engine(url: str) -> Engine:
    """A pooled engine on the registry database; connects when first used. Dispose of it when done.

    Raises InvalidSettings for a URL that names no supported database or one whose driver is not installed.
    """
    return _engine(_parse(url), busy_timeout_ms=BUSY_TIMEOUT_MS, foreign_keys=True)


def upgrade(url: str) -> None:
    """Bring the schema to the newest migration: all of it or nothing, and one process after another.

    Creates a SQLite file, with its folder, where there is none. Raises Unavailable when the database does not
    answer, or when another process's migration takes longer than a minute.
    """
    from alembic import command

    parsed = _parse(url)
    if (file := _sqlite_file(parsed)) is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    with migrating(url) as connection:
        config = _config()
        config.attributes["connection"] = connection
        with _ALEMBIC:
            command.upgrade(config, "head")


def revision_status(url: str) -> tuple[str | None, str]:
    """The database's migration and the newest one; (None, newest) where it was never migrated.

    Never creates a SQLite file. Raises Unavailable when the database does not answer.
    """
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    parsed = _parse(url)
    newest = ScriptDirectory.from_config(_config()).get_current_head()
    assert newest is not None, "the project ships at least one migration"
    file = _sqlite_file(parsed)
    if file is not None and not file.exists():
        return None, newest
    database = engine(url)
    if parsed.get_backend_name() == "sqlite":
        event.listen(database, "connect", _use_write_ahead_log)
    try:
        with translated(parsed), database.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision(), newest
    finally:
        database.dispose()


@contextmanager
def migrating(url: str) -> Iterator[Connection]:
    """A connection in one transaction that excludes every other migration of the same database.

    SQLite rebuilds a table to alter it, which foreign keys would forbid; they are checked before the commit.
    Its file is set to write-ahead logging, which stays with it, so that readers go on while one writes.
    """
    parsed = _parse(url)
    database = _engine(parsed, busy_timeout_ms=MIGRATION_BUSY_TIMEOUT_MS, foreign_keys=False)
    if parsed.get_backend_name() == "sqlite":
        event.listen(database, "connect", _use_write_ahead_log)
    try:
        with translated(parsed), database.execution_options(**{WRITES: True}).begin() as connection:
            if parsed.get_backend_name() == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            yield connection
            if parsed.get_backend_name() == "sqlite":
                broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
                assert not broken, f"a migration broke foreign keys: {broken}"
    finally:
        database.dispose()


def migrations_folder() -> Path:
    """The folder of Alembic's `env.py` and `versions/`: packaged in a wheel, else the repository's own."""
    packaged = Path(__file__).with_name("migrations")
    if (packaged / "env.py").is_file():
        return packaged
    repository = Path(__file__).parents[3] / "migrations"
    if (repository / "env.py").is_file():
        return repository
    raise InvalidSettings(
        f"the registry's migrations are neither in `{packaged}` nor in `{repository}`",
        hint="install Skewless from its wheel, or run it from a complete clone",
    )


@contextmanager
def translated(url: URL) -> Iterator[None]:
    """Inside, a database that does not answer raises Unavailable, with the URL's password left out."""
    try:
        yield
    except (DBAPIError, PoolTimeoutError) as error:
        raise unavailable(url, error) from error


def unavailable(url: URL, error: DBAPIError | PoolTimeoutError) -> Unavailable:
    """What a failed statement means to a caller: the registry at `url` cannot answer now."""
    reason = str(error.orig) if isinstance(error, DBAPIError) else str(error)
    return Unavailable(
        REGISTRY_DATABASE,
        f"{reason.strip() or type(error).__name__} ({url.render_as_string(hide_password=True)})",
        hint="check that it is up and reachable; `skewless up` creates it and brings its schema to the newest "
        "migration, `skewless doctor` says where it stands",
    )


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        # The text itself stays out of the message: it may hold a password.
        raise InvalidSettings("the registry database's URL cannot be read", hint=f"allowed: {_ALLOWED}") from error
    if parsed.get_backend_name() not in {"sqlite", "postgresql"}:
        raise InvalidSettings(f"the registry database cannot be `{parsed.drivername}`", hint=f"allowed: {_ALLOWED}")
    return parsed


def _engine(url: URL, *, busy_timeout_ms: int, foreign_keys: bool) -> Engine:
    if url.get_backend_name() == "sqlite":
        database = create_engine(url, connect_args={"timeout": busy_timeout_ms / 1_000})
        _configure_sqlite(database, busy_timeout_ms=busy_timeout_ms, foreign_keys=foreign_keys)
        return database
    try:
        return create_engine(
            url,
            pool_size=POOL_CONNECTIONS_MAX,
            max_overflow=0,
            pool_timeout=CONNECT_TIMEOUT_S,
            pool_pre_ping=True,
            connect_args={"connect_timeout": CONNECT_TIMEOUT_S},
        )
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise InvalidSettings(
            f"the driver of `{url.drivername}` is not installed: {error}",
            hint="install Skewless with its `postgres` extra, and write postgresql+psycopg:// in the URL",
        ) from error


def _configure_sqlite(database: Engine, *, busy_timeout_ms: int, foreign_keys: bool) -> None:
    """Enforce foreign keys, wait for other writers, and begin transactions explicitly.

    Python's driver begins a transaction only before it writes, which would let a row change between the read
    and the write of one transaction; so it is told to begin none (`isolation_level` None), and BEGIN is sent
    here. A transaction that writes takes the write lock at its start: upgrading a read lock later fails at
    once with `database is locked` when another writer came between, whatever the busy timeout.
    """

    @event.listens_for(database, "connect")
    def _prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {busy_timeout_ms:d}")
        connection.execute(f"PRAGMA foreign_keys = {'ON' if foreign_keys else 'OFF'}")

    @event.listens_for(database, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _use_write_ahead_log(connection: Any, _record: object) -> None:
    """Switch a SQLite file to write-ahead logging, however many processes do so at once.

    Two that switch a new file together are in each other's way, and SQLite then refuses at once, whatever the
    busy timeout (74 of 150 new files, six processes each; SQLite 3.40.1, 2 cores, 2026-11-21). So the switch is
    tried again until the timeout is over.
    """
    give_up = time.monotonic() + MIGRATION_BUSY_TIMEOUT_MS / 1_000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
            time.sleep(_SWITCH_AGAIN_S)
        else:
            return


def _config() -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _sqlite_file(url: URL) -> Path | None:
    if url.get_backend_name() != "sqlite" or url.database in {None, "", ":memory:"}:
        return None
    return Path(str(url.database))
