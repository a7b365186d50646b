"""What a source holds and how it arrives, out of Parquet footers, and of few row groups where those do not say.

    footers          the greatest times of each row group, kept by file until it changes
    newest           from footers alone, unless rows lie in the future of `as_of`: then row groups from the newest on,
                     until none that is left can be newer
    arrivals         every row group's times, once; kept as the five minutes in which something came
    entities         some rows of a few row groups, evenly over all, and of the newest one

A look at a source that has not changed reads nothing but the names of its files.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from skewless.adapters.arrow_columns import column_from_arrow
from skewless.adapters.offline_sources import opened
from skewless.errors import InvalidDefinition, Unavailable
from skewless.features.arrivals import HISTORY_US, arrivals_of, cadence_of
from skewless.features.contract import JoinKey
from skewless.features.freshness import SourceAges, newest
from skewless.features.point_in_time import OfflineSource
from skewless.ingest_limits import (
    FRESHNESS_NEWEST_ENTITIES,
    FRESHNESS_SAMPLE_ENTITIES,
    FRESHNESS_SAMPLE_PARTS,
    FRESHNESS_SAMPLE_ROWS,
    FRESHNESS_SCAN_ROWS_MAX,
)

_BATCH_ROWS = 65_536
_NEWEST_GROUPS = 2
_SPARK = "INT96"
"""What Spark wrote times as; such a column has no statistics."""
_UNIT_US = {"milliseconds": (1_000, 1), "microseconds": (1, 1), "nanoseconds": (1, 1_000)}
"""How a Parquet unit becomes microseconds: times the first, divided by the second."""
_REASON_CHARACTERS = 300
_EARLIEST, _LATEST = np.iinfo(np.int64).min, np.iinfo(np.int64).max
_MICROSECONDS = pa.timestamp("us")


@dataclass(frozen=True, slots=True)
class Span:
    """The smallest and greatest of some moments (µs); the widest there is where a footer does not say."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class RowGroup:
    """One row group of one file. `created` is None where the source has no created time."""

    file: Path
    index: int
    rows: int
    event: Span
    created: Span | None

    @property
    def known(self) -> Span:
        """When its rows became known."""
        return self.event if self.created is None else self.created


@dataclass(slots=True)
class _File:
    """What is remembered of one file while its size and time of change stay."""

    stamp: tuple[int, int]
    groups: tuple[RowGroup, ...]
    arrivals: dict[int, NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Entities:
    """Join-key values of some rows, a tuple each: evenly over the source, and those of its newest rows."""

    evenly: tuple[tuple[object, ...], ...] = ()
    newest: tuple[tuple[object, ...], ...] = ()


class SourceReader:
    """Looks at one view's source again and again. Not for threads."""

    def __init__(self, source: OfflineSource, join_keys: Sequence[JoinKey]) -> None:
        """Nothing is read yet."""
        self._source = source
        self._join_keys = tuple(join_keys)
        self._files: dict[Path, _File] = {}
        self._taken = Entities()
        self._taken_from: tuple[tuple[Path, tuple[int, int]], ...] | None = None

    def look(self, as_of: int) -> SourceAges:
        """What the source holds of what was known at `as_of` (µs). What keeps it from being read is told in it."""
        try:
            groups = self._groups()
            found = self._ages(groups, as_of)
        except (InvalidDefinition, Unavailable) as error:
            return SourceAges(problem=error.message)
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            return SourceAges(problem=_unreadable(self._source, error))
        return found

    def entities(self, as_of: int) -> Entities:
        """Entities of rows that were known at `as_of`; none where the source cannot be read or lacks the keys."""
        try:
            groups = [each for each in self._groups() if each.rows and each.known.low <= as_of]
            if not groups or not self._has_keys(groups[0]):
                return Entities()
            # Of a source without a future the entities stay the same until its files change.
            is_past = all(max(each.known.high, each.event.high) <= as_of for each in groups)
            stamps = tuple((path, each.stamp) for path, each in self._files.items()) if is_past else None
            if stamps is None or stamps != self._taken_from:
                self._taken = Entities(self._spread(groups, as_of), self._latest(groups, as_of))
                self._taken_from = stamps
        except (InvalidDefinition, Unavailable, pa.ArrowException, OSError, KeyError, ValueError):
            return Entities()  # `look` tells why
        return self._taken

    def _groups(self) -> list[RowGroup]:
        """All row groups, of files as they are now; those of files that are gone are forgotten."""
        if "://" in self._source.path:
            raise InvalidDefinition(f"the source `{self._source.path}` lies in a bucket, where nobody looks at its age")
        files = opened(self._source).files
        paths = [Path(self._source.path)] if files is None else [Path(each) for each in files.paths]
        before, self._files = self._files, {}
        for path in paths:
            stat = path.stat()
            stamp = (stat.st_size, stat.st_mtime_ns)
            kept = before.get(path)
            self._files[path] = kept if kept and kept.stamp == stamp else _File(stamp, self._footer(path), {})
        return [group for each in self._files.values() for group in each.groups]

    def _footer(self, path: Path) -> tuple[RowGroup, ...]:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            metadata = file.metadata
            names = {metadata.schema.column(place).path: place for place in range(metadata.num_columns)}
            event = _place(names, self._source.event_time, path)
            created = None if self._source.created_time is None else _place(names, self._source.created_time, path)
            found = []
            for index in range(metadata.num_row_groups):
                group = metadata.row_group(index)
                spans = [None if place is None else _span(metadata, group, place) for place in (event, created)]
                assert spans[0] is not None, "every source has event times"
                found.append(RowGroup(path, index, group.num_rows, spans[0], spans[1]))
        return tuple(found)

    def _ages(self, groups: Sequence[RowGroup], as_of: int) -> SourceAges:
        if not groups:
            return SourceAges(rows=0)
        newest_event = self._newest(groups, as_of, of_events=True)
        has_created = self._source.created_time is not None
        newest_created = self._newest(groups, as_of, of_events=False) if has_created else newest_event
        arrivals, left_out = self._arrivals(groups, newest_created, as_of)
        return SourceAges(
            newest_event,
            newest_created,
            rows=sum(each.rows for each in groups),
            cadence=cadence_of(arrivals, as_of),
            note=f"{left_out:,} rows of its history were too many to look at" if left_out else "",
        )

    def _newest(self, groups: Sequence[RowGroup], as_of: int, *, of_events: bool) -> int | None:
        """The latest event time, or created time, of a row that was known and had happened at `as_of`."""

        def span(group: RowGroup) -> Span:
            return group.event if of_events else group.known

        best: int | None = None
        for group in sorted(groups, key=lambda each: -min(span(each).high, as_of)):
            if best is not None and best >= min(span(group).high, as_of):
                break
            if span(group).low > as_of or not group.rows:
                continue
            if span(group).high <= as_of and group.known.high <= as_of:
                best = newest([best, span(group).high])
                continue
            for events, created in self._times(group):
                seen = (created <= as_of) & ((events <= as_of) if of_events else True)
                moments = (events if of_events else created)[seen]
                moments = moments[moments != _EARLIEST]  # known ever since, so not when
                if len(moments):
                    best = newest([best, int(moments.max())])
        return best

    def _arrivals(self, groups: Sequence[RowGroup], last: int | None, as_of: int) -> tuple[NDArray[np.int64], int]:
        """The arrivals (sorted, µs) of the history up to `last`, and how many rows were left out."""
        if last is None:
            return np.empty(0, dtype=np.int64), 0
        wanted = [each for each in groups if each.known.high >= last - HISTORY_US and each.known.low <= as_of]
        parts: list[NDArray[np.int64]] = []
        rows = left_out = 0
        for group in sorted(wanted, key=lambda each: -each.known.high):
            kept = self._files[group.file].arrivals
            if group.index not in kept:
                rows += group.rows
                if rows > FRESHNESS_SCAN_ROWS_MAX:
                    left_out += group.rows
                    continue
                kept[group.index] = self._arrived(group)
            parts.append(kept[group.index])
        together = np.unique(np.concatenate(parts)) if parts else np.empty(0, dtype=np.int64)
        return together[together <= last], left_out

    def _arrived(self, group: RowGroup) -> NDArray[np.int64]:
        if group.known.low == group.known.high:
            return arrivals_of(np.array([group.known.low]))
        parts = [arrivals_of(created[created != _EARLIEST]) for _, created in self._times(group)]
        return np.unique(np.concatenate(parts)) if parts else np.empty(0, dtype=np.int64)

    def _times(self, group: RowGroup) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Event and created times (rows,) of parts of a row group, µs. A row without an event time never happens; one
        without a created time was known ever since."""
        for batch in self._batches(group, ()):
            yield self._times_of(batch)

    def _times_of(self, batch: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        events = _micros(batch.column(self._source.event_time), null=_LATEST)
        if self._source.created_time is None:
            return events, events
        return events, _micros(batch.column(self._source.created_time), null=_EARLIEST)

    def _batches(self, group: RowGroup, columns: Sequence[str]) -> Iterator[Any]:
        times = [self._source.event_time, *filter(None, [self._source.created_time])]
        with pq.ParquetFile(group.file, pre_buffer=False) as file:
            yield from file.iter_batches(
                _BATCH_ROWS, row_groups=[group.index], columns=[*columns, *times], use_threads=False
            )

    @property
    def _key_columns(self) -> list[str]:
        return [self._source.column(each.key_name) for each in self._join_keys]

    def _has_keys(self, group: RowGroup) -> bool:
        """Whether the files have the join keys; a partitioned table has them in the names of folders."""
        with pq.ParquetFile(group.file, pre_buffer=False) as file:
            return set(self._key_columns) <= set(file.schema_arrow.names)

    def _spread(self, groups: Sequence[RowGroup], as_of: int) -> tuple[tuple[object, ...], ...]:
        """Distinct entities of rows of some row groups that lie evenly over all of them."""
        places = np.unique(np.linspace(0, len(groups) - 1, FRESHNESS_SAMPLE_PARTS).round().astype(int))
        rows_each = FRESHNESS_SAMPLE_ROWS // len(places)
        found: dict[tuple[object, ...], None] = {}
        for place in places:
            left = rows_each
            for batch in self._batches(groups[place], self._key_columns):
                part = batch.slice(0, left)
                left -= part.num_rows
                _, created = self._times_of(part)
                rows = np.flatnonzero(created <= as_of)
                for key in self._keys(part, rows[:: max(1, len(rows) // FRESHNESS_SAMPLE_ENTITIES)]):
                    found.setdefault(key)
                if left <= 0:
                    break
        every = max(1, len(found) // FRESHNESS_SAMPLE_ENTITIES)
        return tuple(list(found)[::every][:FRESHNESS_SAMPLE_ENTITIES])

    def _latest(self, groups: Sequence[RowGroup], as_of: int) -> tuple[tuple[object, ...], ...]:
        """Entities of the newest rows of the two row groups with the newest ones; the newest may hold but one row."""
        newest_groups = sorted(groups, key=lambda each: -min(each.event.high, as_of))[:_NEWEST_GROUPS]
        found: list[tuple[int, tuple[object, ...]]] = []
        for batch in (each for group in newest_groups for each in self._batches(group, self._key_columns)):
            events, created = self._times_of(batch)
            rows = np.flatnonzero((created <= as_of) & (events <= as_of))
            if len(rows) > FRESHNESS_NEWEST_ENTITIES:
                rows = rows[np.argpartition(events[rows], -FRESHNESS_NEWEST_ENTITIES)[-FRESHNESS_NEWEST_ENTITIES:]]
            found += zip(events[rows].tolist(), self._keys(batch, rows, keep_nulls=True), strict=True)
            found = sorted(found, key=lambda each: -each[0])[:FRESHNESS_NEWEST_ENTITIES]
        return tuple(dict.fromkeys(key for _, key in found if None not in key))

    def _keys(self, batch: Any, rows: NDArray[np.intp], *, keep_nulls: bool = False) -> list[tuple[object, ...]]:
        """The join-key values of some rows, in order of the keys; without those that lack one."""
        taken = batch.take(pa.array(rows, pa.int64()))
        columns = []
        for key, name in zip(self._join_keys, self._key_columns, strict=True):
            column = column_from_arrow(taken.column(name), key.dtype)
            values = column.values.tolist() if hasattr(column.values, "tolist") else list(column.values)
            columns.append([value if valid else None for value, valid in zip(values, column.valid, strict=True)])
        found = list(zip(*columns, strict=True)) if columns else [()] * taken.num_rows
        return found if keep_nulls else [each for each in found if None not in each]


def _place(names: dict[str, int], name: str, path: Path) -> int:
    if name not in names:
        raise InvalidDefinition(
            f"`{path.name}` has no column `{name}`. Columns: {', '.join(names)}"[:_REASON_CHARACTERS],
            hint="correct the time columns of the view's source",
        )
    return names[name]


def _span(metadata: Any, group: Any, place: int) -> Span:
    """What a row group's statistics say of a column of times; the widest span where they say nothing."""
    statistics = group.column(place).statistics
    column = metadata.schema.column(place)
    if column.physical_type == _SPARK:
        return Span(_EARLIEST, _LATEST)
    told = json.loads(column.logical_type.to_json())
    unit = _UNIT_US.get(told.get("timeUnit", ""))
    if told.get("Type") != "Timestamp" or unit is None:
        raise InvalidDefinition(
            f"column `{column.path}` is no timestamp but {told.get('Type', 'untyped')}",
            hint="write times as timestamps",
        )
    if statistics is None or not statistics.has_min_max:
        return Span(_EARLIEST, _LATEST)
    times, divided = unit
    return Span(statistics.min_raw * times // divided, statistics.max_raw * times // divided)


def _micros(array: Any, *, null: int) -> NDArray[np.int64]:
    """Moments (rows,) in µs, with another in place of nulls."""
    if not pa.types.is_timestamp(array.type):
        raise InvalidDefinition(f"a column of times has type {array.type}", hint="write times as timestamps")
    numbers = array.cast(pa.timestamp("us", array.type.tz), safe=False).cast(pa.int64()).fill_null(null)
    found: NDArray[np.int64] = numbers.to_numpy(zero_copy_only=False)
    return found


def _unreadable(source: OfflineSource, error: Exception) -> str:
    name = Path(source.path).name
    if isinstance(error, FileNotFoundError):
        return f"the source `{source.path}` is not there"
    return f"the source `{name}` cannot be read: {error}"[:_REASON_CHARACTERS]
