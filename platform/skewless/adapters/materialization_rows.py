"""The rows that a materialization takes, out of DuckDB: how many there are, and each entity's newest in batches."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

import pyarrow as pa

from skewless.adapters.duckdb_connection import connected, reading_sources
from skewless.adapters.feature_rows_arrow import stored_rows
from skewless.adapters.offline_sources import opened
from skewless.features.contract import ViewRead
from skewless.features.feature_rows import FeatureRows
from skewless.features.materialization import Taking, newest_sql, sample_sql, taken_summary_sql
from skewless.features.point_in_time import OfflineSource
from skewless.ingest_limits import MATERIALIZATION_BATCH_ROWS, MATERIALIZATION_MEMORY


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run takes: source rows, entities (an estimate within some percent), and the newest times (µs).

    Times are None where there are no rows.
    """

    rows: int
    entities: int
    newest_event_time: int | None
    newest_created_time: int | None


class TakenRows:
    """Rows of one view within a run's bounds. A context manager; one thread at a time.

    Memory is bounded by MATERIALIZATION_MEMORY and one batch. Raises Unavailable where the source cannot be read.
    """

    def __init__(self, view: ViewRead, source: OfflineSource, taking: Taking) -> None:
        self._view = view
        self._source = opened(source)
        self._taking = taking
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        self._connection = self._exit.enter_context(connected(MATERIALIZATION_MEMORY))
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    @reading_sources()
    def summary(self) -> Summary:
        """One pass over keys and times."""
        sql = taken_summary_sql(self._view, self._source, self._taking)
        ((rows, entities, event_time, created_time),) = self._connection.sql(sql).fetchall()
        return Summary(rows, min(entities, rows), event_time, created_time)

    def part(self, number: int, parts: int) -> Iterator[FeatureRows]:
        """The newest row of each entity of one of `parts` parts of the entities, in batches."""
        sql = newest_sql(self._view, self._source, self._taking, part=number, parts=parts)
        with reading_sources():
            answer: Any = self._connection.sql(sql)
            waiting: list[pa.RecordBatch] = []  # DuckDB gives what one of its threads has found, which may be little
            rows = 0
            for batch in answer.to_arrow_reader(MATERIALIZATION_BATCH_ROWS):
                waiting.append(batch)
                rows += batch.num_rows
                if rows >= MATERIALIZATION_BATCH_ROWS:
                    yield self._rows(pa.Table.from_batches(waiting))
                    waiting, rows = [], 0
            if rows:
                yield self._rows(pa.Table.from_batches(waiting))

    def _rows(self, table: pa.Table) -> FeatureRows:
        return stored_rows(table, self._view, has_created_time=bool(self._source.created_time))

    @reading_sources()
    def sample(self, entities_max: int, *, entities: int, parts: range, seed: int) -> FeatureRows:
        """The newest row of at most `entities_max` entities, each as likely as any other of those of some parts.

        `entities` is about how many there are of all parts; `parts` goes up to the number of parts.
        """
        sql = sample_sql(
            self._view, self._source, self._taking, sampled=entities_max, entities=entities, parts=parts, seed=seed
        )
        return self._rows(self._connection.sql(sql).to_arrow_table())
