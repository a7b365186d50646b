"""Changes of Feast's SQL registry as one transaction: Feast itself commits each object by itself.

Feast's registry takes every connection from `write_engine.begin()` or `read_engine.begin()`. While a transaction is
open, both are a stand-in that hands out the transaction's own connection, each time within a savepoint, so that what
Feast rolls back by itself (a version's number that is taken) stays as small as it was.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from skewless.errors import Unavailable
from skewless.registry.feast_tables import FEAST_REGISTRY

_LOCK = 0x536B_6577_4465_6673
"""PostgreSQL advisory lock of whoever changes definitions: the bytes of `SkewDefs`."""


class _Shared:
    """An engine's stand-in: every `begin` is a savepoint of one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """The connection, within a savepoint that is released when the block ends, or undone by an error."""
        with self._connection.begin_nested():
            yield self._connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection.engine, name)


@contextmanager
def one_transaction(registry: Any) -> Iterator[None]:
    """What the block changes in a Feast registry is committed as a whole when it ends, or, on an error, not at all.

    Whoever else changes definitions through here waits meanwhile. A registry that is no database (a file) is left as
    it is: Feast writes it whole at its own commit. Raises Unavailable where the database does not answer.
    """
    engine: Engine | None = getattr(registry, "write_engine", None)
    if engine is None:
        yield
        return
    readers = registry.read_engine
    try:
        with engine.connect() as connection:
            _begin(connection)
            registry.write_engine = registry.read_engine = _Shared(connection)
            try:
                yield
                connection.commit()
            finally:
                # Without a commit, leaving `connect` rolls back.
                registry.write_engine, registry.read_engine = engine, readers
    except DBAPIError as error:
        where = engine.url.render_as_string(hide_password=True)
        raise Unavailable(
            FEAST_REGISTRY, f"{str(error.orig).strip()} ({where})", hint="nothing was registered; try again"
        ) from error


def _begin(connection: Connection) -> None:
    """Take the right to write at once: a transaction that has read first could lose it to another."""
    if connection.dialect.name == "sqlite":
        # The driver would begin at the first change only, and a savepoint before that would be the transaction.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    elif connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
