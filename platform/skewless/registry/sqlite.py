"""Connections to a SQLite file: explicit transactions, enforced foreign keys, and always the file that is there now."""

import sqlite3
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import InvalidatePoolError

WRITES = "skewless_writes"
"""Execution option of connections whose transactions write; SQLite then takes its write lock at once."""
_INODE = "inode"
_SWITCH_AGAIN_S = 0.01


def sqlite_file(url: URL) -> Path | None:
    """The file of a SQLite database; None for one in memory and for other databases."""
    if url.get_backend_name() != "sqlite" or url.database in {None, "", ":memory:"}:
        return None
    return Path(str(url.database))


def sqlite_engine(url: URL, *, busy_timeout_ms: int, foreign_keys: bool, creates: bool) -> Engine:
    """A pooled engine; connects when first used. `creates` makes the file where there is none.

    Python's driver begins a transaction only before it writes, which would let a row change between the read
    and the write of one transaction; so it is told to begin none (`isolation_level` None), and BEGIN is sent
    here. A transaction that writes takes the write lock at its start: upgrading a read lock later fails at
    once with `database is locked` when another writer came between, whatever the busy timeout.
    """
    database = create_engine(url, connect_args={"timeout": busy_timeout_ms / 1_000})
    file = sqlite_file(url)
    if file is not None and not creates:
        _open_what_is_there(database, file)

    @event.listens_for(database, "connect")
    def _prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {busy_timeout_ms:d}")
        connection.execute(f"PRAGMA foreign_keys = {'ON' if foreign_keys else 'OFF'}")

    @event.listens_for(database, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return database


def connect(file: Path, **named: Any) -> sqlite3.Connection:
    """A connection to a file that exists. Raises sqlite3.OperationalError where there is none, and creates none."""
    made: sqlite3.Connection = sqlite3.connect(f"file:{quote(str(file.absolute()))}?mode=rw", uri=True, **named)
    return made


def use_write_ahead_log(database: Engine, *, give_up_after_s: float) -> None:
    """Have each new connection switch its file to write-ahead logging, however many processes do so at once.

    Two that switch a new file together are in each other's way, and SQLite then refuses at once, whatever the
    busy timeout (74 of 150 new files, six processes each; SQLite 3.40.1, 2 cores, 2026-11-21). So the switch is
    tried again until the timeout is over.
    """

    @event.listens_for(database, "connect")
    def _switch(connection: Any, _record: object) -> None:
        give_up = time.monotonic() + give_up_after_s
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                    raise
                time.sleep(_SWITCH_AGAIN_S)
            else:
                return


def _open_what_is_there(database: Engine, file: Path) -> None:
    """Create no file, and leave one that was moved away or replaced.

    SQLite would make an empty file where the registry's is missing, and a pooled connection would go on reading a
    file that was deleted long ago.
    """

    @event.listens_for(database, "do_connect")
    def _connect(_dialect: object, record: Any, _arguments: object, named: dict[str, Any]) -> sqlite3.Connection:
        connection = connect(file, **named)
        record.info[_INODE] = file.stat().st_ino
        return connection

    @event.listens_for(database, "checkout")
    def _check(_connection: object, record: Any, _proxy: object) -> None:
        if record.info.get(_INODE) != _inode(file):
            raise InvalidatePoolError(f"{file} is not the file that was opened")


def _inode(file: Path) -> int | None:
    try:
        return file.stat().st_ino
    except FileNotFoundError:
        return None
