"""Connections to PostgreSQL on which nothing waits for ever: the only importer of its driver, loaded only where used.

Each wait has a bound, and inner ones end first: a lock, a statement, then the connection itself, whose server may have
stopped without a word. An engine's pool asks a connection whether it still lives before it hands it out.
"""

import time
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from sqlalchemy import URL, Engine, create_engine, event

CONNECT_TIMEOUT_S = 5
POOL_CONNECTIONS_MAX = 5
IDLE_TIMEOUT_MS = 10_000
"""How long a writer that stopped in the middle of a transaction may hold its locks; the server then ends it."""
SILENCE_MS = 2_000
"""How much longer than a statement may take the client waits for word of it: then the server is stuck."""
_ARGUMENTS = {
    "connect_timeout": CONNECT_TIMEOUT_S,
    "application_name": "skewless",
    # The other machine may be gone without a word: what is sent must be acknowledged.
    "keepalives_idle": 5,
    "keepalives_interval": 3,
    "keepalives_count": 3,
}

_Result = TypeVar("_Result")


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that is closed when the server owes an answer for longer than `answer_timeout_s`.

    libpq waits without an end, and a server whose disk hangs runs no timeout of its own.
    """

    answer_timeout_s: float

    def wait(self, gen: PQGen[_Result], *arguments: Any, **named: Any) -> _Result:
        """What the driver waits by; see there. Raises OperationalError when it takes too long."""
        return super().wait(self._bounded(gen), *arguments, **named)

    def _bounded(self, gen: PQGen[_Result]) -> Generator[Any, Any, _Result]:
        deadline = time.monotonic() + self.answer_timeout_s
        try:
            wanted = next(gen)
            while True:
                # The driver sends 0 when nothing has come for a tenth of a second.
                ready = yield wanted
                if not ready and time.monotonic() > deadline:
                    self.close()
                    raise psycopg.OperationalError(f"the server has not answered for {self.answer_timeout_s:g} s")
                wanted = gen.send(ready)
        except StopIteration as ended:
            result: _Result = ended.value
            return result


def postgresql_engine(url: URL, *, lock_timeout_ms: int, statement_timeout_ms: int) -> Engine:
    """A pooled engine; connects when first used. A lock is waited for, and a statement worked on, for so long."""
    assert lock_timeout_ms < statement_timeout_ms, "an inner wait ends first"
    answer_timeout_ms = statement_timeout_ms + SILENCE_MS
    database = create_engine(
        url,
        pool_size=POOL_CONNECTIONS_MAX,
        max_overflow=0,
        pool_timeout=CONNECT_TIMEOUT_S,
        pool_pre_ping=True,
        connect_args={**_ARGUMENTS, "tcp_user_timeout": answer_timeout_ms},
    )

    @event.listens_for(database, "do_connect")
    def _connect(_dialect: object, _record: object, arguments: list[Any], named: dict[str, Any]) -> BoundedConnection:
        connection = BoundedConnection.connect(*arguments, **named)
        connection.answer_timeout_s = answer_timeout_ms / 1_000
        return connection

    @event.listens_for(database, "connect")
    def _prepare(connection: BoundedConnection, _record: object) -> None:
        # By statements and not by options of the connection, which poolers refuse.
        connection.autocommit = True
        connection.execute(
            f"SET lock_timeout = {lock_timeout_ms:d}; SET statement_timeout = {statement_timeout_ms:d}; "
            f"SET idle_in_transaction_session_timeout = {IDLE_TIMEOUT_MS:d}".encode()
        )
        connection.autocommit = False

    return database
