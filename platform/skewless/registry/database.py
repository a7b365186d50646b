"""Connections to the registry database, and its schema kept at the newest migration."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import URL, Connection, Engine, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from skewless.errors import InvalidSettings, Unavailable
from skewless.registry.sqlite import WRITES as WRITES  # what reads and writes here imports it from here
from skewless.registry.sqlite import sqlite_engine, sqlite_file, use_write_ahead_log

if TYPE_CHECKING:
    # Loaded only by what migrates: a gateway, which never does, starts 0.1 s earlier and 11 MB smaller without it.
    from alembic.config import Config

REGISTRY_DATABASE = "registry database"
BUSY_TIMEOUT_MS = 5_000
"""How long a writer waits for another; a registry transaction takes milliseconds."""
MIGRATION_BUSY_TIMEOUT_MS = 60_000
"""How long a migration waits for another process's migration."""
CHANGES_CHANNEL = "skewless_changes"
"""PostgreSQL's NOTIFY channel: one message for each audited change, when it is committed."""
_MIGRATION_LOCK = 0x536B_6577_6C65_7373
"""PostgreSQL advisory lock of migrations: the bytes of `Skewless`."""
_ALEMBIC = threading.Lock()
"""Alembic runs `env.py` through module globals: one migration at a time in a process, whatever the database."""
_ALLOWED = "sqlite:///<path> or postgresql+psycopg://<user>:<password>@<host>/<database>"
_ENCODED = "write `@`, `:` and `/` inside a password as %40, %3A and %2F"


def engine(url: str) -> Engine:
    """A pooled engine on the registry database; connects when first used. Dispose of it when done.

    Never creates a SQLite file: without one it does not answer, and answers once there is one, or another one.
    Raises InvalidSettings for a URL that names no supported database or one whose driver is not installed.
    """
    return _engine(parse_url(url), busy_timeout_ms=BUSY_TIMEOUT_MS, migrates=False)


def upgrade(url: str) -> None:
    """Bring the schema to the newest migration: all of it or nothing, and one process after another.

    Creates a SQLite file, with its folder, where there is none. Raises Unavailable when the database does not
    answer, or when another process's migration takes longer than a minute.
    """
    from alembic import command

    parsed = parse_url(url)
    if (file := sqlite_file(parsed)) is not None:
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

    parsed = parse_url(url)
    newest = ScriptDirectory.from_config(_config()).get_current_head()
    assert newest is not None, "the project ships at least one migration"
    file = sqlite_file(parsed)
    if file is not None and not file.exists():
        return None, newest
    database = engine(url)
    if file is not None:
        use_write_ahead_log(database, give_up_after_s=MIGRATION_BUSY_TIMEOUT_MS / 1_000)
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
    parsed = parse_url(url)
    database = _engine(parsed, busy_timeout_ms=MIGRATION_BUSY_TIMEOUT_MS, migrates=True)
    if parsed.get_backend_name() == "sqlite":
        use_write_ahead_log(database, give_up_after_s=MIGRATION_BUSY_TIMEOUT_MS / 1_000)
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


def unavailable(url: URL, error: DBAPIError | PoolTimeoutError, *, lost: str = "") -> Unavailable:
    """What a failed statement means to a caller: the registry at `url` cannot answer now.

    `lost` is what the caller does not know because of that.
    """
    reason = (str(error.orig) if isinstance(error, DBAPIError) else str(error)).strip() or type(error).__name__
    return Unavailable(
        REGISTRY_DATABASE,
        f"{reason} ({_shown(url)}){lost and f'; {lost}'}",
        hint="check that it is up and reachable; `skewless up` creates it and brings its schema to the newest "
        "migration, `skewless doctor` says where it stands",
    )


def parse_url(url: str) -> URL:
    """The parts of a registry database's URL. Raises InvalidSettings for one that names no supported database."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # Neither the text nor the error, which quotes it, is told: it may hold a password.
        raise InvalidSettings(
            "the registry database's URL cannot be read", hint=f"allowed: {_ALLOWED}; {_ENCODED}"
        ) from None
    if parsed.get_backend_name() not in {"sqlite", "postgresql"}:
        raise InvalidSettings(f"the registry database cannot be `{parsed.drivername}`", hint=f"allowed: {_ALLOWED}")
    if "@" in (parsed.host or ""):
        raise InvalidSettings("the host of the registry database's URL holds an `@`", hint=_ENCODED)
    if parsed.get_backend_name() == "postgresql":
        return _with_driver(parsed)
    return parsed


def _with_driver(url: URL) -> URL:
    """The same database by the one driver that is supported, which need not be named."""
    driver = url.drivername.partition("+")[2]
    if driver not in {"", "psycopg"}:
        raise InvalidSettings(
            f"the registry database cannot be reached by the driver `{driver}`", hint=f"allowed: {_ALLOWED}"
        )
    return url.set(drivername="postgresql+psycopg")


def _shown(url: URL) -> str:
    """A URL without the secrets that may stand in it."""
    query = {name: "***" if "pass" in name.lower() else value for name, value in url.query.items()}
    return url.set(query=query).render_as_string(hide_password=True)


def _engine(url: URL, *, busy_timeout_ms: int, migrates: bool) -> Engine:
    """`migrates`: it may create a SQLite file, and its foreign keys are checked by the migration itself."""
    if url.get_backend_name() == "sqlite":
        return sqlite_engine(url, busy_timeout_ms=busy_timeout_ms, foreign_keys=not migrates, creates=migrates)
    try:
        from skewless.registry.postgresql import postgresql_engine

        return postgresql_engine(url, lock_timeout_ms=busy_timeout_ms, statement_timeout_ms=2 * busy_timeout_ms)
    except ImportError as error:
        raise InvalidSettings(
            f"the driver of `{url.drivername}` is not installed: {error}",
            hint="install Skewless with its `postgres` extra",
        ) from error


def _config() -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
