"""A signal that the registry may have changed, so that whoever follows it need not wait for the next poll.

It only shortens the wait: a signal may come for a change that does not matter, and one may be lost while the database
is away, so a follower polls all the same. PostgreSQL tells by NOTIFY, which a pooler in transaction mode swallows;
SQLite counts commits in its file, which is looked at often because a look costs so little.
"""

import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from skewless.registry.database import CHANGES_CHANNEL, engine, parse_url
from skewless.registry.sqlite import connect, sqlite_file

LOOK_S = 0.05
"""How often a SQLite file is looked at; a look takes some 15 µs."""
_SLICE_S = 0.5
"""How long the listener waits for the server at a time; it ends within this when it is closed."""
_JOIN_S = 10.0
"""How long closing waits for a listener that is connecting; it is a daemon and holds up no exit."""
_RETRY_FIRST_S = 0.1
_RETRY_MAX_S = 5.0


class ChangeSignal(Protocol):
    """Tells when something may have changed. One thread waits at a time; any may close it."""

    def wait(self, timeout_s: float) -> bool:
        """True once something may have changed since the last True, False when the time is over or it was closed.

        Never takes longer than `timeout_s`, and raises nothing while the database is away.
        """
        ...

    def close(self) -> None:
        """End whoever waits, and let go of the database."""
        ...


def open_change_signal(url: str) -> ChangeSignal:
    """The signal of the registry database at `url`. Raises InvalidSettings as `database.engine` does."""
    parsed = parse_url(url)
    if parsed.get_backend_name() == "postgresql":
        return PostgresChangeSignal(engine(url))
    return SqliteChangeSignal(sqlite_file(parsed))


class SqliteChangeSignal:
    """Looks at how many transactions other connections, also of other processes, have committed to a SQLite file."""

    def __init__(self, file: Path | None) -> None:
        """`file` None: a database in memory, which nobody else can change. A file that is not there may still come."""
        self._file = file
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._seen = self._look()

    def wait(self, timeout_s: float) -> bool:
        """See `ChangeSignal`."""
        deadline = time.monotonic() + timeout_s
        while not self._closed.is_set():
            now = self._look()
            if now is not None and now != self._seen:
                self._seen = now
                return True
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            self._closed.wait(min(LOOK_S, left_s))
        return False

    def close(self) -> None:
        """See `ChangeSignal`."""
        self._closed.set()
        with self._lock:
            self._disconnect()

    def _look(self) -> tuple[int, int] | None:
        """Which file it is and how often it was committed to; None while it cannot be read."""
        with self._lock:
            if self._file is None or self._closed.is_set():
                return None
            try:
                inode = self._file.stat().st_ino
                if self._connection is None or inode != self._inode:
                    self._connect(self._file, inode)
                assert self._connection is not None
                return inode, self._connection.execute("PRAGMA data_version").fetchone()[0]
            except (OSError, sqlite3.Error):
                self._disconnect()
                return None

    def _connect(self, file: Path, inode: int) -> None:
        self._disconnect()
        self._connection = connect(file, isolation_level=None, check_same_thread=False)
        self._inode = inode

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class PostgresChangeSignal:
    """Listens on a connection of its own, in a thread, and connects again when it is lost."""

    def __init__(self, database: Engine) -> None:
        """`database` is its own: it is disposed of on closing."""
        self._database = database
        self._changed = threading.Event()
        self._closed = threading.Event()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, name="registry changes", daemon=True)
        self._thread.start()

    @property
    def listening(self) -> bool:
        """Whether it is connected now, so that a change will be told."""
        return self._listening.is_set()

    def wait(self, timeout_s: float) -> bool:
        """See `ChangeSignal`."""
        if not self._changed.wait(timeout_s) or self._closed.is_set():
            return False
        self._changed.clear()
        return True

    def close(self) -> None:
        """See `ChangeSignal`."""
        self._closed.set()
        self._changed.set()
        self._thread.join(_JOIN_S)
        self._database.dispose()

    def _run(self) -> None:
        pause_s = _RETRY_FIRST_S
        while not self._closed.is_set():
            try:
                self._listen()
            except (DBAPIError, self._database.dialect.loaded_dbapi.Error):
                pause_s = _RETRY_FIRST_S if self._listening.is_set() else min(2 * pause_s, _RETRY_MAX_S)
                self._listening.clear()
                self._closed.wait(pause_s)

    def _listen(self) -> None:
        """Tell of each notification until closed. Raises what the driver does when the connection is lost."""
        pooled = self._database.raw_connection()
        connection: Any = pooled.driver_connection
        pooled.detach()
        with closing(connection):
            connection.autocommit = True
            connection.execute(f"LISTEN {CHANGES_CHANNEL}")
            self._listening.set()
            # What changed before somebody listened was told to nobody.
            self._changed.set()
            while not self._closed.is_set():
                for _ in connection.notifies(timeout=_SLICE_S, stop_after=1):
                    self._changed.set()
