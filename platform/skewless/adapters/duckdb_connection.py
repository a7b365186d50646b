"""DuckDB connections as the offline store uses them: private, in memory, bounded, and never looking at a network."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from skewless.errors import Unavailable
from skewless.limits import POINT_IN_TIME_MEMORY

DUCKDB_VERSION = str(duckdb.__version__)
"""Of the library: its `hash` may be another one in another version."""
OFFLINE_STORE = "offline store"
"""The part that is unavailable where a source cannot be read."""


@contextmanager
def reading_sources() -> Iterator[None]:
    """Raises Unavailable for what DuckDB raises: a source that is gone, half written, or has lost a column."""
    try:
        yield
    except duckdb.Error as error:
        raise Unavailable(
            OFFLINE_STORE,
            f"a source cannot be read: {error}",
            hint="see that the job that writes this source has finished",
        ) from error


@contextmanager
def connected(memory_limit: str = POINT_IN_TIME_MEMORY) -> Iterator[duckdb.DuckDBPyConnection]:
    """A private DuckDB with bounded memory that never looks for extensions on a network.

    What does not fit into memory goes into a temporary folder, which is removed in the end.
    """
    with tempfile.TemporaryDirectory(prefix="skewless-duckdb-") as spill:
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": memory_limit,
            "autoinstall_known_extensions": False,
            "temp_directory": spill,
        }
        with duckdb.connect(config=config) as connection:
            # In a process without a main file, such as a pool's, DuckDB takes itself for interactive and draws bars.
            connection.execute("SET enable_progress_bar = false")
            yield connection
