"""Keeps the features of one stream up to date: every event has its effect once, wherever a process is killed.

A step is a batch of events, or timers of some entities that are due. Each has a moment K of its own, later than that of
any step before, and does this, in this order:

    events    appended to the stream's table of events with their K        (a batch alone) the log that all follows from
    online    newest row of each entity                                    by the order of rows
    offline   all rows, appended to the view's table                       under the number K
    states    changed, each where it is the one that was read              with their timers
    lane      everything is done up to K

What was cut off is done again from the table of events, or for timers from what the lane noted before it began: from
the same states, at the same K, so that all of it comes out the same and is found done as far as it was. States that
were changed already stand at K, and are left out. The online store may be emptied: states are then made anew.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from skewless.adapters.aggregate_backfill import rebuild, redeclare
from skewless.adapters.aggregate_lane_rows import event_batch, events_table
from skewless.adapters.aggregate_lane_step import OpenedStream, Step, StreamSource, finish, stepped
from skewless.adapters.aggregate_state import LaneRecord, TimerStep
from skewless.adapters.arrow_columns import column_from_arrow
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.aggregates.entity_state import NEVER
from skewless.dtypes import Dtype
from skewless.errors import Conflict, Unavailable
from skewless.features.kept_out import KeptOut
from skewless.ingestion.batches import Delivered, StoredBatch
from skewless.registry.transactions import system_clock


@dataclass(slots=True)
class AggregateTotals:
    """What a lane has done since its process began; numbers that only grow."""

    events: Counter[str] = field(default_factory=Counter)
    """By what became of them (`Verdict`)."""
    rows: int = 0
    timers: int = 0
    """Entities whose timers were answered."""
    rebuilds: int = 0


class AggregateLane:
    """Implements `TickingHandler` for one stream. One thread at a time, and one process, under the lane's lease."""

    def __init__(
        self,
        name: str,
        streams: Callable[[str], StreamSource],
        open_store: Callable[[], BlockingRedisOnlineStore],
        deletions: KeptOut | None,
        *,
        clock: Callable[[], int] = system_clock,
        lifetime_s: int = 0,
    ) -> None:
        """`streams` gives a stream as it is defined now; `clock` is what timers go by (µs), a simulated one in replays.

        `lifetime_s`: how long a hash of the online store lives after a write, 0 for ever.
        """
        self.totals = AggregateTotals()
        self._name = name
        self._streams = streams
        self._store = open_store()
        self._deletions = deletions
        self._clock = clock
        self._lifetime_s = lifetime_s
        self._defined: StreamSource | None = None
        self._stream: OpenedStream | None = None
        self._known: int | None = None
        """Up to where this lane knows everything to be done; None: it has to look."""
        self._floor = NEVER
        """No step may have a K up to here: the view's table has it, whatever the online store says."""

    def deliver(self, batch: StoredBatch) -> Delivered:
        """See `LaneHandler`. Events are known from `accepted_time` on, or from when timers up to now were answered."""
        with self._ready() as stream:
            done = stream.events.done(batch.lane)
            if done is None or done < batch.number:
                table = self._kept(stream, batch)
                if table.num_rows:
                    self._take(stream, batch, table)
        return Delivered(is_whole=True)

    def settle(self, batches: Sequence[StoredBatch]) -> None:
        """See `LaneHandler`: nothing is left to do."""

    def tick(self) -> bool:
        """Answer timers that are due, and return whether more may be. Raises Unavailable."""
        with self._ready() as stream:
            now = self._clock()
            due = stream.states.due(now)
            if not due:
                return False
            bucket, timers = due[0]
            last_key, last_due = timers[-1]
            step = TimerStep(self._next(now), bucket, last_due, last_key)
            assert self._known is not None, "the lane is ready"
            stream.states.set_lane(LaneRecord(self._known, stream.compiled.declaration.digest, step))
            self._answer(stream, step, [key for key, _ in timers])
            return True

    def close(self) -> None:
        """Close its connection to the online store."""
        self._store.close()

    @contextmanager
    def _ready(self) -> Iterator[OpenedStream]:
        """The stream as it is defined now, with all done that was begun. After an error it is looked at anew.

        A table, a state or a hash that somebody else has changed or taken is no fault of the batch that is being
        delivered: what was begun is in the table of events, and must be done before any other.
        """
        try:
            stream = self._opened()
            self._resume(stream)
            yield stream
        except Conflict as error:
            self._known = None
            raise Unavailable(f"stream `{self._name}`", error.message, hint=error.hint) from error
        except BaseException:
            self._known = None
            raise

    def _opened(self) -> OpenedStream:
        defined = self._streams(self._name)
        if self._stream is None or defined != self._defined:
            self._stream = OpenedStream.of(defined, self._store, lifetime_s=self._lifetime_s)
            self._defined, self._known = defined, None
        return self._stream

    def _resume(self, stream: OpenedStream) -> None:
        """Do what was begun and not finished, by whatever process; make states anew where they are not there."""
        record = stream.states.lane()
        if record is not None and record.known == self._known and record.step is None:
            return
        self._floor = stream.rows_done()
        waiting = [] if record is None else list(stream.stored_events.batches_after(record.known))
        if record is None or not self._goes_on(stream, record, [known for known, _ in waiting]):
            if record is not None and record.digest != stream.compiled.declaration.digest:
                redeclare(stream, self._clock())
            else:
                rebuild(stream)
            self.totals.rebuilds += 1
            record = stream.states.lane()
            assert record is not None, "it has just been noted"
            waiting = list(stream.stored_events.batches_after(record.known))
        self._known = record.known
        if record.step is not None:
            last = (record.step.last_due, record.step.last_key)
            found = dict(stream.states.due(record.step.last_due)).get(record.step.bucket, [])
            self._answer(stream, record.step, [key for key, due in found if (due, key) <= last])
        for known, table in waiting:
            events = event_batch(stream.compiled, stream.template, table)
            self._finish(stream, stepped(stream, known, list(events.places()), events))

    def _goes_on(self, stream: OpenedStream, record: LaneRecord, waiting: Sequence[int]) -> bool:
        """Whether the states are those that the next step follows: at most one was begun since, at K `waiting`.

        Otherwise they were computed by other rules, or the online store has lost what it had written.
        """
        begun = record.step.known if record.step is not None else next(iter(waiting), NEVER)
        is_up_to_date = self._floor <= record.known or self._floor == begun
        return record.digest == stream.compiled.declaration.digest and is_up_to_date

    def _take(self, stream: OpenedStream, batch: StoredBatch, table: Any) -> None:
        known = self._next(batch.accepted_time)
        events = event_batch(stream.compiled, stream.template, table, known)
        step = stepped(stream, known, list(events.places()), events)
        stream.events.append(events_table(events, step.verdicts), writer=batch.lane, number=batch.number)
        self._finish(stream, step)
        self.totals.events.update(map(str, step.verdicts))

    def _answer(self, stream: OpenedStream, step: TimerStep, keys: Sequence[bytes]) -> None:
        self._finish(stream, stepped(stream, step.known, keys))
        self.totals.timers += len(keys)

    def _finish(self, stream: OpenedStream, step: Step) -> None:
        finish(stream, step)
        self._known = self._floor = step.known
        self.totals.rows += len(step.rows)

    def _next(self, at_least: int) -> int:
        """The K of a new step."""
        assert self._known is not None, "the lane is ready"
        return max(at_least, self._known + 1, self._floor + 1)

    def _kept(self, stream: OpenedStream, batch: StoredBatch) -> Any:
        """The events of a batch without those of deleted entities."""
        if self._deletions is None:
            return batch.rows
        declaration, table = stream.compiled.declaration, batch.rows
        keys = {name: column_from_arrow(table.column(name), dtype) for name, dtype in declaration.keys}
        moments = column_from_arrow(table.column(declaration.event_time), Dtype.TIMESTAMP).values.astype(np.int64)
        known = np.full(table.num_rows, batch.accepted_time, dtype=np.int64)
        kept_out = self._deletions.kept_out(stream.view.field_name, keys, known, moments)
        return table.filter(~kept_out) if kept_out.any() else table


def open_aggregate_lane(
    stream: StreamSource,
    open_store: Callable[[], BlockingRedisOnlineStore],
    deletions: KeptOut | None,
    *,
    lifetime_s: int = 0,
) -> AggregateLane:
    """A lane of a stream whose definition stays as it is for as long as the lane lives."""
    return AggregateLane(stream.declaration.name, lambda _: stream, open_store, deletions, lifetime_s=lifetime_s)
