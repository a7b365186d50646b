"""Between Arrow tables and the states of entities: events in, feature rows out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from skewless.adapters.arrow_columns import ARROW_TYPES, column_from_arrow, column_to_arrow
from skewless.aggregates.compiled import CompiledAggregates
from skewless.aggregates.contributions import by_event, contributed, event_ids
from skewless.aggregates.declaration import BATCH_ROW, CREATED_TIME, VERDICT
from skewless.aggregates.entity_state import Event, Row, Verdict
from skewless.aggregates.history import Events, output_column
from skewless.dtypes import Column, Dtype, column_of
from skewless.features.point_in_time import OfflineSource
from skewless.features.redis_layout import KeyTemplate, stored_key

_MICROS = ARROW_TYPES[Dtype.TIMESTAMP]


@dataclass(frozen=True, slots=True, eq=False)
class EventBatch:
    """Events of some entities, in the order they came in: per event its entity's key and what it contributes.

    `columns` are the events' own; `known` (µs) and `batch_rows` say when each became known and where in its batch.
    """

    columns: Mapping[str, Column]
    keys: Sequence[bytes]
    event_times: Sequence[int]
    known: Sequence[int]
    batch_rows: Sequence[int]
    values: Sequence[Sequence[Any]]
    """Per input, of all events."""
    identities: Sequence[int]

    def events(self) -> list[Event]:
        """Each as its entity's state takes it."""
        values = by_event(self.values, len(self.keys))
        orders = zip(self.event_times, self.known, self.batch_rows, strict=True)
        return [
            Event(order, identity, value)
            for order, identity, value in zip(orders, self.identities, values, strict=True)
        ]

    def places(self) -> dict[bytes, list[int]]:
        """Which of the events are each entity's, in their order."""
        places: dict[bytes, list[int]] = {}
        for place, key in enumerate(self.keys):
            places.setdefault(key, []).append(place)
        return places

    def counted(self, verdicts: Sequence[Verdict]) -> "EventBatch":
        """Those that count."""
        kept = np.array([verdict is Verdict.COUNTED for verdict in verdicts], dtype=np.bool_)
        places: list[int] = np.flatnonzero(kept).tolist()
        return EventBatch(
            {name: Column(each.dtype, each.values[kept], each.valid[kept]) for name, each in self.columns.items()},
            [self.keys[place] for place in places],
            [self.event_times[place] for place in places],
            [self.known[place] for place in places],
            [self.batch_rows[place] for place in places],
            [[each[place] for place in places] for each in self.values],
            [self.identities[place] for place in places],
        )

    def arrays(self) -> tuple[list[bytes], Events]:
        """Distinct keys, and the events with the numbers of theirs, as the offline half takes them."""
        numbers = {key: number for number, key in enumerate(dict.fromkeys(self.keys))}
        entities = np.array([numbers[key] for key in self.keys], dtype=np.int64)
        moments, known, rows = (
            np.array(each, dtype=np.int64) for each in (self.event_times, self.known, self.batch_rows)
        )
        return list(numbers), Events(entities, moments, known, rows, self.values)


def event_batch(
    compiled: CompiledAggregates, template: KeyTemplate, table: Any, known: int | None = None
) -> EventBatch:
    """Events of an Arrow table with the stream's columns; all became known at `known`, or as the table says."""
    stream, rows = compiled.declaration, table.num_rows
    columns = {name: column_from_arrow(table.column(name), dtype) for name, dtype, _ in stream.event_columns}
    keys = [columns[name].values.tolist() for name in template.names]
    entities = keys[0] if len(keys) == 1 else list(zip(*keys, strict=True))
    stated = _integers(table, CREATED_TIME) if known is None else [known] * rows
    return EventBatch(
        columns,
        template.keys(entities),
        columns[stream.event_time].values.tolist(),
        stated,
        _integers(table, BATCH_ROW) if known is None else list(range(rows)),
        contributed(compiled, columns, rows),
        event_ids(columns.get(stream.event_id), rows),
    )


def events_table(batch: EventBatch, verdicts: Sequence[Verdict]) -> Any:
    """Events as they are kept: their own columns, when they became known, their place, what became of them."""
    columns = {name: column_to_arrow(column) for name, column in batch.columns.items()}
    columns[CREATED_TIME] = pa.array(batch.known, pa.int64()).cast(_MICROS)
    columns[BATCH_ROW] = pa.array(batch.batch_rows, pa.int64())
    columns[VERDICT] = pa.array([str(verdict) for verdict in verdicts], pa.string())
    return pa.table(columns)


def rows_table(compiled: CompiledAggregates, source: OfflineSource, rows: Sequence[tuple[bytes, Row]]) -> Any:
    """Feature rows of entities as the view's source has them."""
    values = list(zip(*(row.values for _, row in rows), strict=True)) or [()] * len(compiled.outputs)
    columns = [output_column(output, list(told)) for output, told in zip(compiled.outputs, values, strict=True)]
    times = [np.array([row.event_time for _, row in rows], dtype=np.int64)]
    times.append(np.array([row.created_time for _, row in rows], dtype=np.int64))
    return source_table(compiled, source, [key for key, _ in rows], columns, times)


def source_table(
    compiled: CompiledAggregates,
    source: OfflineSource,
    keys: Sequence[bytes],
    columns: Sequence[Column],
    times: Sequence[Any],
) -> Any:
    """The same of columns per output and of both times (rows,)."""
    assert source.created_time is not None, "a stream's view has a source with created times"
    join_keys = compiled.declaration.join_keys
    entities = {key: _entity(key, join_keys) for key in dict.fromkeys(keys)}
    arrays = {
        source.column(each.key_name): column_to_arrow(column_of(each.dtype, [entities[key][each.name] for key in keys]))
        for each in join_keys
    }
    for output, column in zip(compiled.outputs, columns, strict=True):
        arrays[source.column(output.name)] = column_to_arrow(column)
    for name, moments in zip((source.event_time, source.created_time), times, strict=True):
        arrays[name] = pa.array(moments, pa.int64()).cast(_MICROS)
    return pa.table(arrays)


def newest_places(rows: Sequence[tuple[bytes, Row]]) -> list[int]:
    """Of each entity the place of the row that wins: the latest T, then the latest K."""
    newest: dict[bytes, int] = {}
    for place, (key, row) in enumerate(rows):
        held = newest.get(key)
        if held is None or _order(rows[held][1]) <= _order(row):
            newest[key] = place
    return list(newest.values())


def _order(row: Row) -> tuple[int, int]:
    return row.event_time, row.created_time


def _entity(key: bytes, join_keys: Any) -> dict[str, object]:
    told = stored_key(key)
    assert told is not None, "made by a template of the same keys"
    return told.entity(join_keys)


def _integers(table: Any, name: str) -> list[int]:
    listed: list[int] = table.column(name).cast(pa.int64()).to_pylist()
    return listed
