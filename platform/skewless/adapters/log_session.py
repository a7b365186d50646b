"""One look at a prediction log through DuckDB: a private database in memory, whose views are the log at one moment."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import duckdb
import pyarrow as pa

from skewless.adapters.artifact_address import BucketAddress
from skewless.adapters.log_sources import Source, Wanted, log_sources
from skewless.adapters.log_store import LogStore
from skewless.adapters.log_tables import OUTCOMES, PREDICTIONS, TALLIES
from skewless.adapters.log_views import FINAL_SQL, JOINED_SQL, TOLD_SQL, Scan, classed_sql, records_sql, targets_sql
from skewless.adapters.spool import PART
from skewless.errors import InvalidRequest, Unavailable
from skewless.features.point_in_time import literal
from skewless.limits import LOG_READ_MEMORY_BYTES, MIB
from skewless.serving.outcome_terms import OutcomeTerms

_GONE = ("no such file", "no files found")
"""What DuckDB says of a file that was there a moment ago."""
_NAMED_MAX = 100
"""Segments that a condition names one by one; of more it asks a table."""


class FilesGone(Exception):
    """A file that was listed is no longer there: compaction or deletion has replaced it."""


class LogSession:
    """Views over what is wanted of a log, as it was when the session was made. To be used as a context."""

    def __init__(
        self, folder: Path | None, store: LogStore | None, wanted: Wanted, *, bucket: BucketAddress | None = None
    ) -> None:
        """`bucket` is where the store lies, where it is no folder."""
        self._scratch = Path(tempfile.mkdtemp(prefix="skewless-log-"))
        self._connection: duckdb.DuckDBPyConnection | None = None
        try:
            sources = log_sources(folder, store, wanted, spill=self._scratch)
            self._database = self._connection = _connect(self._scratch)
            if bucket is not None:
                from skewless.adapters.s3_parquet import BucketFiles

                self._database.register_filesystem(BucketFiles(bucket))
            self._unseen = self._without(sources.seen)
            self._scans = [self._scan(number, each) for number, each in enumerate(sources.sources)]
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of everything. Closing twice is allowed."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        shutil.rmtree(self._scratch, ignore_errors=True)

    def scans(self, kind: str) -> list[Scan]:
        """What there is of one kind, a scan for each set of columns."""
        return [each for each in self._scans if each.source.kind == kind]

    def view(self, name: str, sql: str) -> None:
        """Call a query by a name."""
        with _translated():
            self._database.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {sql}")

    def table(self, name: str, sql: str) -> None:
        """Keep the rows of a query under a name, in memory or the temporary folder."""
        with _translated():
            self._database.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {sql}")

    def register(self, name: str, table: Any) -> None:
        """Call an Arrow table by a name."""
        self._database.register(name, table)

    def outcome_views(self, terms: Mapping[str, OutcomeTerms]) -> None:
        """The views of outcomes; see `log_views.py`."""
        predictions = self.scans(PREDICTIONS)
        self.view("outcomes", records_sql(self.scans(OUTCOMES), OUTCOMES))
        self.view("every_prediction", records_sql(predictions, PREDICTIONS, only=("prediction_id", "endpoint")))
        self.view("outcome_targets", targets_sql(predictions, terms))
        self.view("outcomes_told", TOLD_SQL)
        self.view("outcomes_classed", classed_sql(terms))
        self.view("outcomes_final", FINAL_SQL)

    def all_views(self, terms: Mapping[str, OutcomeTerms], *, endpoint: str | None, within: str) -> None:
        """Every view. `predictions` has those of an endpoint (None: all), for which the condition `within` holds."""
        own = [each for each in self.scans(PREDICTIONS) if endpoint in (None, each.source.endpoint)]
        self.outcome_views(terms)
        self.view(PREDICTIONS, records_sql(own, PREDICTIONS, where=within))
        self.view("predictions_with_outcomes", JOINED_SQL)
        self.view(TALLIES, records_sql(self.scans(TALLIES), TALLIES))

    def lock(self) -> None:
        """From now on queries reach the log's files and nothing else, and change no setting."""
        sources = [scan.source for scan in self._scans]
        files = [path for source in sources for path in (*source.stored, *source.spilled)]
        with _translated():
            self._database.execute(f"SET allowed_paths = [{', '.join(map(literal, files))}]")
            self._database.execute("SET enable_external_access = false")
            self._database.execute("SET lock_configuration = true")

    def arrow(self, sql: str, parameters: Sequence[object] = ()) -> Any:
        """The rows of a query as an Arrow table."""
        with _translated():
            return self._database.sql(sql, params=list(parameters)).to_arrow_table()

    def batches(self, sql: str, *, rows: int) -> Iterator[Any]:
        """The rows of a query as Arrow RecordBatches, one at a time; nothing else can be asked until the last."""
        with _translated():
            yield from self._database.sql(sql).to_arrow_reader(rows)

    def stream(self, sql: str, parameters: Sequence[object] = (), *, rows: int, foreign: bool = False) -> Any:
        """The rows of a query as an Arrow RecordBatchReader, which closes the session at its end.

        Where the query is `foreign`, what DuckDB refuses is InvalidRequest.
        """
        with _translated(foreign=foreign):
            reader = self._database.sql(sql, params=list(parameters)).to_arrow_reader(rows)
        return pa.RecordBatchReader.from_batches(reader.schema, self._batches(reader, foreign=foreign))

    def _batches(self, reader: Any, *, foreign: bool) -> Iterator[Any]:
        try:
            with _translated(foreign=foreign):
                yield from reader
        except FilesGone as error:
            raise moving(error) from error
        finally:
            self.close()

    def _scan(self, number: int, source: Source) -> Scan:
        relations = []
        for part, files in (("stored", source.stored), ("spilled", source.spilled)):
            if files:
                listed = ", ".join(map(literal, files))
                unseen = self._unseen if part == "stored" else ""
                relations.append(f"{part}_{number}")
                self.view(
                    relations[-1],
                    f"SELECT * FROM read_parquet([{listed}], hive_partitioning = false){unseen}",
                )
        if source.held:
            relations.append(f"held_{number}")
            # One table of all segments: a relation for each would cost a query more than its rows do.
            self.register(relations[-1], pa.concat_tables(source.held))
        return Scan(source, tuple(relations))

    def _without(self, seen: Sequence[str]) -> str:
        """The condition that a stored row is of none of these segments."""
        if not seen:
            return ""
        if len(seen) <= _NAMED_MAX:
            return f" WHERE segment NOT IN ({', '.join(map(literal, seen))})"
        self.register("seen_segments", pa.table({"segment": pa.array(seen, pa.string())}))
        return " WHERE segment NOT IN (SELECT segment FROM seen_segments)"


def moving(error: FilesGone) -> Unavailable:
    """What is told where looking again did not help, or is too late."""
    return Unavailable(
        PART,
        f"its files were replaced by others while it was read: {error}",
        hint="ask again; compaction and deletion take files away",
    )


def one_query(text: str) -> None:
    """Return where a text is one statement that reads. Raises InvalidRequest."""
    allowed = (
        "one SELECT over predictions, outcomes, outcomes_classed, outcomes_final, predictions_with_outcomes, tallies"
    )
    try:
        statements = duckdb.extract_statements(text)
    except duckdb.Error as error:
        raise InvalidRequest(str(error), path="SQL", allowed=allowed) from error
    kinds = [str(each.type).rpartition(".")[2] for each in statements]
    if len(kinds) != 1 or kinds[0] not in ("SELECT", "EXPLAIN"):
        seen = f"{len(kinds)} statements" if len(kinds) != 1 else f"a statement of the kind {kinds[0]}"
        raise InvalidRequest(f"this is {seen}", path="SQL", allowed=allowed)


def _connect(scratch: Path) -> duckdb.DuckDBPyConnection:
    """A database in bounded memory that fetches no extensions and takes no variable of Python's for a table."""
    connection = duckdb.connect(
        config={
            "memory_limit": f"{LOG_READ_MEMORY_BYTES // MIB}MiB",
            "temp_directory": str(scratch),
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            # Order is asked for where it matters; keeping that of files would keep more in memory.
            "preserve_insertion_order": False,
            "python_enable_replacements": False,
        }
    )
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET enable_progress_bar = false")
    return connection


@contextmanager
def _translated(*, foreign: bool = False) -> Iterator[None]:
    """What DuckDB raises, as an error of ours."""
    try:
        yield
    except (duckdb.IOException, OSError) as error:
        if isinstance(error, FileNotFoundError) or any(words in str(error).lower() for words in _GONE):
            raise FilesGone(str(error).splitlines()[0]) from error
        raise Unavailable(
            PART, f"its files cannot be read: {error}", hint="check the disk and SKEWLESS_LOG_STORE"
        ) from error
    except duckdb.OutOfMemoryException as error:
        raise Unavailable(
            PART,
            f"the question needs more memory than a reader has: {error}",
            hint="ask about less at once: fewer columns, a shorter time, or one endpoint",
        ) from error
    except duckdb.Error as error:
        if not foreign:
            raise
        raise InvalidRequest(str(error), path="SQL", hint="`DESCRIBE predictions` lists its columns") from error
