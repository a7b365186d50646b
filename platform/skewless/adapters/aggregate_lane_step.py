"""One step of a stream: states of some entities taken on to a moment K, and their new rows brought to both stores.

What is computed depends on the states, the events and K alone; `finish` may be done any number of times.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from skewless.adapters.aggregate_lane_rows import EventBatch, newest_places, rows_table
from skewless.adapters.aggregate_state import AggregateStates, LaneRecord, StateChange, StoredState
from skewless.adapters.duckdb_aggregates import StoredEvents
from skewless.adapters.feature_rows_arrow import feature_rows
from skewless.adapters.offline_tables import OfflineTable
from skewless.adapters.online_writer import OnlineWriter
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.aggregates.compiled import CompiledAggregates
from skewless.aggregates.declaration import StreamAggregates
from skewless.aggregates.entity_state import NEVER, EntityState, Row, Verdict, advance, next_due
from skewless.aggregates.state_form import packed, unpacked
from skewless.errors import InvalidDefinition
from skewless.features.contract import ViewRead
from skewless.features.point_in_time import OfflineSource
from skewless.features.redis_layout import KeyTemplate

ROWS_WRITER = "skewless-aggregates"
"""Who appends the rows of steps to the view's table; numbers are the steps' K."""
HISTORY_WRITER = "skewless-history"
"""Who appended rows of events from before the stream began, by K as well."""


class StreamSource(Protocol):
    """A stream as it is defined now."""

    @property
    def project(self) -> str:
        """Feast's project."""
        ...

    @property
    def declaration(self) -> StreamAggregates:
        """What is computed."""
        ...

    @property
    def read(self) -> ViewRead:
        """The view that it feeds: own keys, all features."""
        ...

    @property
    def source(self) -> OfflineSource:
        """The Delta table of that view, with the columns of both times."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class OpenedStream:
    """A stream with the stores that it is kept in."""

    compiled: CompiledAggregates
    view: ViewRead
    """The view that it feeds, with its own keys and all of its features, as the online store calls it."""
    source: OfflineSource
    project: str
    store: BlockingRedisOnlineStore
    template: KeyTemplate
    states: AggregateStates
    writer: OnlineWriter
    rows: OfflineTable
    events: OfflineTable
    stored_events: StoredEvents

    @classmethod
    def of(
        cls,
        defined: StreamSource,
        store: BlockingRedisOnlineStore,
        *,
        lifetime_s: int = 0,
    ) -> Self:
        """Open a stream as it is defined; nothing is connected yet.

        Raises InvalidDefinition for a source that rows cannot be added to, or that does not say when they became known.
        """
        declaration, view, source = defined.declaration, defined.read, defined.source
        if source.created_time is None:
            raise InvalidDefinition(
                f"the source of view `{declaration.view}` has no created time, which stream `{declaration.name}` needs",
                hint="declare `timestamp_field` and `created_timestamp_column`, as feast_aggregates.feature_view does",
            )
        stored = StoredEvents.of(declaration, source)
        return cls(
            CompiledAggregates.of(declaration),
            view,
            source,
            defined.project,
            store,
            KeyTemplate.compile(view.join_keys, defined.project),
            AggregateStates(store, defined.project, declaration),
            OnlineWriter(store, defined.project, view, lifetime_s=lifetime_s, has_created_time=True),
            OfflineTable.of(source),
            OfflineTable(Path(stored.folder)),
            stored,
        )

    def rows_done(self) -> int:
        """Up to which K the view's table has all rows that were made."""
        done = (self.rows.done(writer) for writer in (ROWS_WRITER, HISTORY_WRITER))
        return max((each for each in done if each is not None), default=NEVER)

    def state(self, read: StoredState) -> EntityState:
        """An entity's state as it was read, empty where there is none."""
        return EntityState.empty(self.compiled) if read.data is None else unpacked(self.compiled, read.data)


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What comes of a step: rows in order of each entity's K and T, changes of states, a verdict per event."""

    known: int
    rows: Sequence[tuple[bytes, Row]]
    changes: Sequence[StateChange]
    verdicts: Sequence[Verdict]


def stepped(stream: OpenedStream, known: int, keys: Sequence[bytes], batch: EventBatch | None = None) -> Step:
    """Take the states of distinct entities on to `known` (µs); `batch` has the events that become known then.

    States that stand there already are left out, and their events taken for late, which nobody asks about any more.
    """
    compiled = stream.compiled
    events = [] if batch is None else batch.events()
    places: Mapping[bytes, Sequence[int]] = {} if batch is None else batch.places()
    verdicts = [Verdict.LATE] * len(events)
    rows: list[tuple[bytes, Row]] = []
    changes = []
    for key, read in zip(keys, stream.states.read(keys), strict=True):
        if read.known is not None and int(read.known) >= known:
            continue
        its = places.get(key, ())
        state = stream.state(read)
        new, judged = advance(compiled, state, known, [events[place] for place in its])
        rows += [(key, row) for row in new]
        for place, verdict in zip(its, judged, strict=True):
            verdicts[place] = verdict
        if not (read.data is None and state.is_empty):
            changes.append(changed(stream, key, read, state))
    return Step(known, rows, changes, verdicts)


def changed(stream: OpenedStream, key: bytes, read: StoredState, state: EntityState) -> StateChange:
    """The change of an entity's state from what was read to what it is now."""
    due = next_due(stream.compiled, state)
    if due is None:
        return StateChange(key, read, state.known, None, 0)
    return StateChange(key, read, state.known, packed(stream.compiled, state), due)


def finish(stream: OpenedStream, step: Step) -> None:
    """Bring a step's rows to both stores, change its states, and note that all is done up to its K.

    Raises Unavailable, and Conflict where somebody else changed a state; then it is to be computed and done again.
    """
    if step.rows:
        table = rows_table(stream.compiled, stream.source, step.rows)
        write_online(stream, table.take(newest_places(step.rows)))
        stream.rows.append(table, writer=ROWS_WRITER, number=step.known)
    stream.states.change(step.changes)
    stream.states.set_lane(LaneRecord(step.known, stream.compiled.declaration.digest))


def write_online(stream: OpenedStream, table: Any) -> None:
    """Write rows, an Arrow table as the view's source has them, into the online store."""
    stream.writer.write(feature_rows(table, stream.view, stream.source))
