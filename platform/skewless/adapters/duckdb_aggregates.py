"""Events of a stream out of its table, by DuckDB: those after a moment, batch by batch, or all of some entities.

Tables come in order of K, then of their rows within the batch, with the columns of the events in their declared types.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from skewless.adapters.duckdb_connection import connected, reading_sources
from skewless.adapters.offline_sources import DELTA_LOG, opened
from skewless.aggregates.declaration import BATCH_ROW, CREATED_TIME, VERDICT, StreamAggregates, events_path
from skewless.aggregates.entity_state import Verdict
from skewless.dtypes import TABLE, Dtype
from skewless.errors import InvalidRequest
from skewless.features.point_in_time import OfflineSource, SourceForm, identifier, literal
from skewless.ingest_limits import AGGREGATE_REPLAY_ROWS

_MICROS = "epoch_us({})"


@dataclass(frozen=True, slots=True)
class EventSpan:
    """How many events a table has, and the first and last K of them (µs); both None without events."""

    events: int
    first_known: int | None
    last_known: int | None


class StoredEvents:
    """The table of a stream's events, as it is when it is asked. Every method raises Unavailable."""

    def __init__(self, declaration: StreamAggregates, path: str) -> None:
        """Of a Delta table, which need not be there yet."""
        self._declaration = declaration
        self._source = OfflineSource(
            declaration.view, path, declaration.event_time, CREATED_TIME, form=SourceForm.DELTA
        )

    @classmethod
    def of(cls, declaration: StreamAggregates, source: OfflineSource) -> "StoredEvents":
        """The one beside the table of the view's rows."""
        return cls(declaration, events_path(source.path))

    @property
    def folder(self) -> Path:
        """Where the table lies."""
        return Path(self._source.path)

    def span(self) -> EventSpan:
        """What it holds."""
        relation = self._relation()
        if relation is None:
            return EventSpan(0, None, None)
        known = _MICROS.format(identifier(CREATED_TIME))
        count, first, last = self._rows(f"SELECT count(*), min({known}), max({known}) FROM {relation}")[0]
        return EventSpan(count, first, last)

    def batches_after(self, known: int) -> Iterator[tuple[int, Any]]:
        """The batches that became known after a moment (µs), each with its K and all of its events, late ones too."""
        table = self._table(f"{_MICROS.format(identifier(CREATED_TIME))} > {known}")
        if table is None:
            return
        for moment in pc.unique(table.column(CREATED_TIME)).cast("int64").to_pylist():
            is_its = pc.equal(table.column(CREATED_TIME).cast("int64"), moment)
            yield moment, table.filter(is_its)

    def counted(self, *, since: int, until: int, entities: Sequence[Any] | None = None) -> Iterator[Any]:
        """Events that count with T from `since` on and K up to `until` (µs), whole entities at a time.

        `entities` is an Arrow table of join keys to keep to. Parts have about AGGREGATE_REPLAY_ROWS rows at most, more
        where one entity has more.
        """
        moment, known = (
            _MICROS.format(identifier(self._declaration.event_time)),
            _MICROS.format(identifier(CREATED_TIME)),
        )
        chosen = f"{moment} >= {since} AND {known} <= {until} AND {identifier(VERDICT)} = {literal(Verdict.COUNTED)}"
        relation = self._relation()
        if relation is None:
            return
        ((count,),) = self._rows(f"SELECT count(*) FROM {relation} WHERE {chosen}")
        keys = ", ".join(identifier(name) for name, _ in self._declaration.keys)
        parts = count // AGGREGATE_REPLAY_ROWS + 1
        for part in range(parts):
            table = self._table(f"{chosen} AND hash({keys}) % {parts} = {part}", entities)
            if table is not None and table.num_rows:
                yield table

    def _table(self, condition: str, entities: Any | None = None) -> Any | None:
        relation = self._relation()
        if relation is None:
            return None
        columns = [(name, dtype) for name, dtype, _ in self._declaration.event_columns]
        columns += [(CREATED_TIME, Dtype.TIMESTAMP), (BATCH_ROW, Dtype.INT64), (VERDICT, Dtype.STRING)]
        selected = ", ".join(
            f"CAST({identifier(name)} AS {TABLE[dtype].duckdb}) AS {identifier(name)}" for name, dtype in columns
        )
        keys = ", ".join(identifier(name) for name, _ in self._declaration.keys)
        among = "" if entities is None else f" SEMI JOIN entities USING ({keys})"
        ordered = f"ORDER BY {identifier(CREATED_TIME)}, {identifier(BATCH_ROW)}"
        with connected() as connection, reading_sources():
            if entities is not None:
                connection.register("entities", entities)
            sql = f"SELECT * FROM (SELECT {selected} FROM {relation} WHERE {condition}){among} {ordered}"
            return connection.sql(sql).to_arrow_table()

    def _rows(self, sql: str) -> list[tuple[Any, ...]]:
        with connected() as connection, reading_sources():
            return connection.sql(sql).fetchall()

    def _relation(self) -> str | None:
        files = opened(self._source).files
        if files is None or not files.paths:
            return None
        missing = ", ".join(literal(path) for path in files.paths)
        return f"read_parquet([{missing}], union_by_name = true)"


class GivenEvents:
    """Events of a stream's past: a Parquet file, a folder or glob of them, or a Delta table, with the stream's columns.

    A column `created_time` says when each became known; without it, that is when it happened. Every method raises
    Unavailable, and InvalidRequest for columns that are missing or hold nulls where the stream has none.
    """

    def __init__(self, declaration: StreamAggregates, path: Path) -> None:
        """Nothing is read yet."""
        self.path = str(path)
        self._declaration = declaration
        form = SourceForm.DELTA if (path / DELTA_LOG).is_dir() else SourceForm.PARQUET
        self._source = OfflineSource(declaration.view, self.path, declaration.event_time, None, form=form)

    def span(self) -> EventSpan:
        """What they are."""
        known = f"epoch_us({identifier(CREATED_TIME)})"
        with connected() as connection, reading_sources():
            sql = f"SELECT count(*), min({known}), max({known}) FROM ({self._sql(connection)})"
            ((count, first, last),) = connection.sql(sql).fetchall()
        return EventSpan(count, first, last)

    @staticmethod
    def parts(events: int) -> int:
        """In how many parts so many events are taken."""
        return events // AGGREGATE_REPLAY_ROWS + 1

    def part(self, part: int, parts: int) -> Any:
        """A part, whole entities: the stream's columns, CREATED_TIME and BATCH_ROW, in order of the last two."""
        keys = ", ".join(identifier(name) for name, _ in self._declaration.keys)
        order = f"{identifier(CREATED_TIME)}, {identifier(BATCH_ROW)}"
        with connected() as connection, reading_sources():
            sql = f"SELECT * FROM ({self._sql(connection)}) WHERE hash({keys}) % {parts} = {part} ORDER BY {order}"
            return connection.sql(sql).to_arrow_table()

    def _sql(self, connection: Any) -> str:
        files = opened(self._source).files
        paths = (self.path,) if files is None else files.paths
        listed = ", ".join(literal(path) for path in paths)
        relation = f"read_parquet([{listed}], union_by_name = true, file_row_number = true, filename = true)"
        there = {row[0] for row in connection.sql(f"DESCRIBE SELECT * FROM {relation}").fetchall()}
        self._refuse_missing(there, connection, relation)
        known = CREATED_TIME if CREATED_TIME in there else self._declaration.event_time
        columns = [(name, name, dtype) for name, dtype, _ in self._declaration.event_columns]
        selected = [
            f"CAST({identifier(given)} AS {TABLE[dtype].duckdb}) AS {identifier(name)}"
            for name, given, dtype in [*columns, (CREATED_TIME, known, Dtype.TIMESTAMP)]
        ]
        place = BATCH_ROW if BATCH_ROW in there else "row_number() OVER (ORDER BY filename, file_row_number) - 1"
        selected.append(f"CAST({place} AS BIGINT) AS {identifier(BATCH_ROW)}")
        return f"SELECT {', '.join(selected)} FROM {relation}"

    def _refuse_missing(self, there: set[str], connection: Any, relation: str) -> None:
        wanted = self._declaration.event_columns
        missing = [name for name, *_ in wanted if name not in there]
        if missing:
            raise InvalidRequest(
                f"`{self.path}` has no column {', '.join(missing)}, which stream `{self._declaration.name}` has",
                path=missing[0],
                allowed=f"columns that are there: {', '.join(sorted(there - {'filename', 'file_row_number'}))}",
                hint="rename or add columns; one without values is null",
            )
        needed = [name for name, _, nullable in wanted if not nullable]
        counts = ", ".join(f"count(*) - count({identifier(name)})" for name in needed)
        (nulls,) = connection.sql(f"SELECT {counts} FROM {relation}").fetchall()
        for name, count in zip(needed, nulls, strict=True):
            if count:
                raise InvalidRequest(
                    f"column `{name}` of `{self.path}` is null in {count} rows", path=name, hint="leave those out"
                )
