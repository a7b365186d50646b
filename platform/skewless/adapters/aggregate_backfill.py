"""States and rows of a stream out of its table of events: after the online store was emptied, and for a stream's past.

Everything here is computed of events, as `aggregates/history.py` does it; whoever calls holds the stream's lane.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from skewless.adapters.aggregate_lane_rows import EventBatch, event_batch, events_table, source_table
from skewless.adapters.aggregate_lane_step import HISTORY_WRITER, ROWS_WRITER, OpenedStream, changed, write_online
from skewless.adapters.aggregate_state import LaneRecord, StoredState
from skewless.adapters.duckdb_aggregates import GivenEvents
from skewless.aggregates.declaration import StreamAggregates
from skewless.aggregates.entity_state import NEVER, built
from skewless.aggregates.history import HistoryRows, history, newest, rows_at, verdicts_of
from skewless.canonical_json import digest
from skewless.dtypes import Column
from skewless.errors import Conflict
from skewless.ingest_limits import AGGREGATE_REPLAY_ROWS

_NO_STATE = StoredState(None, None)
Progress = Callable[[float], None]
"""Told the share of the work that is done."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """How much was made anew, as of the moment `known` (µs)."""

    known: int
    entities: int
    events: int


@dataclass(frozen=True, slots=True)
class Backfilled:
    """Events of a stream's past by what became of them, the rows that they make, and what was made online."""

    events: int
    rows: int
    rebuilt: Rebuilt


def rebuild(stream: OpenedStream) -> Rebuilt:
    """Make all states anew, and the newest rows online, as of the last step whose rows are in the view's table.

    What became known later is left to the lane, which takes it up from the table of events. Cut off anywhere, it is
    begun anew. Rows that are online already stay as they are. Raises Unavailable.
    """
    stream.states.drop_lane()
    known = stream.rows_done()

    def tell(_part: int, batch: EventBatch) -> None:
        keys, rows = rows_until(stream, batch, known)
        if len(last := newest(rows)):
            write_online(stream, _table(stream, keys, taken(rows, last)))

    return _made_anew(stream, known, known, tell)


def redeclare(stream: OpenedStream, now: int) -> Rebuilt:
    """Make all states anew by another declaration than the one they were made by, and tell every entity's row by it.

    Each row is told at a new K, in both stores: what was served before stays what it was. Cut off anywhere, it is begun
    anew, since the lane's note of the old declaration is the last thing to go. Raises Unavailable.
    """
    done, span = stream.rows_done(), stream.stored_events.span()
    parts = span.events // AGGREGATE_REPLAY_ROWS + 1
    last_known = NEVER if span.last_known is None else span.last_known
    known = max(now, done + parts, last_known + parts)  # each part of the rows has a number of its own

    def tell(part: int, batch: EventBatch) -> None:
        keys, events = batch.arrays()
        rows = history(stream.compiled, events)
        untold = taken(rows, np.flatnonzero((rows.created_times > done) & (rows.created_times <= known)))
        # At `known` itself, since the old declaration's last rows may have a later T than any event.
        moments = np.full(len(keys), known, dtype=np.int64)
        again = rows_at(stream.compiled, events.sorted(), np.arange(len(keys), dtype=np.int64), moments, moments)
        tables = [_table(stream, keys, each) for each in (untold, again)]
        write_online(stream, tables[1])
        stream.rows.append(pa.concat_tables(tables), writer=ROWS_WRITER, number=known - parts + 1 + part)

    return _made_anew(stream, done, known, tell)


def _made_anew(stream: OpenedStream, done: int, known: int, tell: Callable[[int, EventBatch], None]) -> Rebuilt:
    """States as of `known` in the place of all that are there; `tell` is given the events, whole entities in a part.

    They are those that rows after `done` can depend on.
    """
    states, declaration = stream.states, stream.compiled.declaration
    for stored in states.stored_keys():
        states.forget(stored)
    entities = events = 0
    for part, table in enumerate(stream.stored_events.counted(since=needed_since(stream, done), until=known)):
        batch = event_batch(stream.compiled, stream.template, table)
        tell(part, batch)
        entities += _build_states(stream, batch, known)
        events += len(batch.keys)
    states.set_lane(LaneRecord(known, declaration.digest))
    return Rebuilt(known, entities, events)


def backfill(stream: OpenedStream, past: GivenEvents, *, progress: Progress = lambda _: None) -> Backfilled:
    """Take in the events of a stream's past, and make all rows that it would have made of them.

    An event is known when `past` says so, else when it happened. Only for a stream that has not begun: Conflict where
    it has. Cut off anywhere, doing it again with the same events does the rest. Raises Unavailable.
    """
    declaration, events = stream.compiled.declaration, stream.events
    span = past.span()
    writer = f"{HISTORY_WRITER}-{digest([past.path, span.events, span.first_known, span.last_known])[:16]}"
    _refuse_begun(stream, declaration, writer)
    if span.last_known is None:
        return Backfilled(0, 0, rebuild(stream))
    parts = past.parts(span.events)
    until = span.last_known + parts - 1  # each part of the rows has a number of its own
    taken_in = rows_made = 0
    for part in range(parts):
        table = past.part(part, parts)
        batch = event_batch(stream.compiled, stream.template, table)
        verdicts = verdicts_of(stream.compiled, batch.keys, batch.events())
        kept = events_table(batch, verdicts)
        taken_in += events.append(kept, writer=writer, number=part)
        counted = batch.counted(verdicts)
        keys, rows = rows_until(stream, counted, until)
        made = _table(stream, keys, rows)
        rows_made += stream.rows.append(made, writer=HISTORY_WRITER, number=span.last_known + part)
        progress((part + 1) / parts)
    return Backfilled(taken_in, rows_made, rebuild(stream))


def needed_since(stream: OpenedStream, known: int) -> int:
    """From which T (µs) on events decide over each entity's newest row at `known`, and over all rows after it.

    An event of within the retention makes a row whose windows reach back once more as long.
    """
    return known - 2 * stream.compiled.declaration.retention_us


def rows_until(stream: OpenedStream, batch: EventBatch, known: int) -> tuple[list[bytes], HistoryRows]:
    """All rows of events that count, with K up to a moment (µs), and the keys that their entities' numbers mean."""
    keys, events = batch.arrays()
    rows = history(stream.compiled, events)
    return keys, taken(rows, np.flatnonzero(rows.created_times <= known))


def taken(rows: HistoryRows, places: Any) -> HistoryRows:
    """The rows at some places."""
    return HistoryRows(
        rows.entities[places],
        rows.event_times[places],
        rows.created_times[places],
        tuple(Column(each.dtype, each.values[places], each.valid[places]) for each in rows.columns),
    )


def _build_states(stream: OpenedStream, batch: EventBatch, known: int) -> int:
    events = batch.events()
    changes = []
    for key, places in batch.places().items():
        state = built(stream.compiled, [events[place] for place in places], known)
        if not state.is_empty:
            changes.append(changed(stream, key, _NO_STATE, state))
    stream.states.change(changes)
    return len(changes)


def _table(stream: OpenedStream, keys: Sequence[bytes], rows: HistoryRows) -> Any:
    listed = [keys[number] for number in rows.entities.tolist()]
    return source_table(stream.compiled, stream.source, listed, rows.columns, (rows.event_times, rows.created_times))


def _refuse_begun(stream: OpenedStream, declaration: StreamAggregates, writer: str) -> None:
    if stream.stored_events.span().events and stream.events.done(writer) is None:
        raise Conflict(
            f"stream `{declaration.name}` has begun, and its past cannot be put before it any more",
            hint="declare it under another name with another view, and give the new one the past with this stream's "
            f"own events: `skewless aggregates backfill NEW {stream.stored_events.folder.name}`",
        )
