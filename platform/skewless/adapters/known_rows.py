"""The rows of a view's source that are known at a moment, part by part, as they lie in the source."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from operator import and_, or_
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from skewless.adapters.offline_sources import arrow_dataset
from skewless.errors import InvalidDefinition
from skewless.features.materialization import EVERYTHING, Bounds
from skewless.features.point_in_time import OfflineSource
from skewless.monitor_limits import QUALITY_BATCH_ROWS_MAX
from skewless.timestamps import from_micros

_READ_ROWS = 1 << 16


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of a source, and which ones they are."""

    rows: pa.Table
    label: str


class KnownRows:
    """Rows whose created time is not after `as_of` (µs), or that have none; within bounds, whatever their event time.

    A row that is known and happens later is one that somebody dated wrongly, so it is judged as well. Raises
    InvalidDefinition for a source that cannot be read. A Delta table that nobody wrote to yet has no rows or columns.
    """

    def __init__(
        self,
        source: OfflineSource,
        as_of: int,
        *,
        bounds: Bounds = EVERYTHING,
        part_rows_max: int = QUALITY_BATCH_ROWS_MAX,
    ) -> None:
        self._path = source.path
        self._part_rows_max = part_rows_max
        try:
            self._dataset = arrow_dataset(source)
        except (pa.ArrowInvalid, OSError) as error:
            raise InvalidDefinition(
                f"the source `{source.path}` of view `{source.view}` cannot be read: {error}"[:500],
                hint="write the table again, or correct the source's path in the feature definitions",
            ) from error
        known, within = (
            _known_by(self._dataset.schema, source.created_time, as_of),
            _within(self._dataset.schema, source, bounds),
        )
        conditions = [each for each in (known, within) if each is not None]
        self._filter = reduce(and_, conditions) if conditions else None

    @property
    def schema(self) -> Any:
        """The Arrow schema of the source."""
        return self._dataset.schema

    @property
    def is_absent(self) -> bool:
        """Whether it is a Delta table that nobody wrote to yet, of which not even columns are known."""
        return not self._dataset.schema.names

    @property
    def count(self) -> int:
        """How many rows there are."""
        return int(self._dataset.count_rows(filter=self._filter))

    def parts(self) -> Iterator[Part]:
        """All rows in parts of nearly equal size, of which none has more than `part_rows_max`; at least one part."""
        try:
            rows = self.count
            parts = max(-(-rows // self._part_rows_max), 1)
            yield from self._cut(rows, -(-rows // parts))
        except (pa.ArrowInvalid, OSError) as error:
            raise InvalidDefinition(f"`{self._path}` cannot be read as Parquet: {error}"[:500]) from error

    def sampled(self, rows_max: int) -> pa.Table:
        """All rows, or of more than `rows_max` every so many-th of each part."""
        every = max(-(-self.count // rows_max), 1)
        parts = [part.rows.take(pa.array(range(0, part.rows.num_rows, every), pa.int64())) for part in self.parts()]
        return pa.concat_tables(parts)

    def _cut(self, rows: int, part_rows: int) -> Iterator[Part]:
        waiting: list[Any] = []
        count = done = 0
        scanned = self._dataset.to_batches(
            filter=self._filter, batch_size=_READ_ROWS, batch_readahead=1, fragment_readahead=1, use_threads=False
        )
        for read in scanned:
            batch = read
            while count + batch.num_rows > part_rows:
                waiting.append(batch.slice(0, part_rows - count))
                batch = batch.slice(part_rows - count)
                yield self._part(waiting, done, rows)
                done, waiting, count = done + part_rows, [], 0
            waiting.append(batch)
            count += batch.num_rows
        if count or not done:
            yield self._part(waiting, done, rows)

    def _part(self, batches: list[Any], done: int, rows: int) -> Part:
        table = pa.Table.from_batches(batches, schema=self.schema)
        whole = not done and table.num_rows == rows
        return Part(table, f"{rows:,} rows" if whole else f"rows {done:,} to {done + table.num_rows - 1:,} of {rows:,}")


def _known_by(schema: Any, created_time: str | None, as_of: int) -> Any:
    """What a row must be to be known; None where its columns do not say, which the gate then refuses."""
    moment = _moment(schema, created_time, as_of)
    return None if moment is None else ds.field(created_time).is_null() | (ds.field(created_time) <= moment)


def _within(schema: Any, source: OfflineSource, bounds: Bounds) -> Any:
    """What a row must be to lie within bounds, as in `materialization.taken_sql`; None where its columns do not say.

    A row without an event time lies within all of them: the gate is to see it.
    """
    event, name = ds.field(source.event_time), source.created_time or source.event_time
    created = pc.coalesce(ds.field(name), event) if name in schema.names else event
    since = [
        column > moment
        for column, of, time in (
            (created, name, bounds.since_created_time),
            (event, source.event_time, bounds.since_event_time),
        )
        if time is not None and (moment := _moment(schema, of, time)) is not None
    ]
    first, last = (
        None if time is None else _moment(schema, source.event_time, time)
        for time in (bounds.from_time, bounds.to_time)
    )
    conditions = [reduce(or_, since)] if since else []
    conditions += [] if first is None else [event >= first]
    conditions += [] if last is None else [event < last]
    return event.is_null() | reduce(and_, conditions) if conditions else None


def _moment(schema: Any, column: str | None, time: int) -> Any:
    """A moment as a value of a column's type; None where the column is missing or no time."""
    if column is None or column not in schema.names:
        return None
    kind = schema.field(column).type
    if not pa.types.is_timestamp(kind):
        return None
    moment = from_micros(time)
    return pa.scalar(moment if kind.tz else moment.replace(tzinfo=None), type=kind)
