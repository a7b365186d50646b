"""What is kept of one entity's events, and how it goes on: the online half of the aggregates.

Time has two hands here. An event *happened* at its event time T and became *known* at K, when its batch was taken.
State goes from one moment of knowledge to the next, never back:

    panes      what events before `sealed` add up to, by pane and slot
    recent     events from `sealed` on, one by one, in order: they may be joined by late ones, and some happen yet
    sealed     events before it are refused as late; it follows `known` at the distance of the lateness

A *row* (T, K) says what the windows at T held by what was known at K. Rows are made wherever that can be another than
before: at an event, and at an edge where a pane leaves a window (or, complete, comes in). When an event is late, so are
the rows from its T on to the last edge that it changes; they are made again, under the later K. So of all rows the one
with the latest T up to a moment, then the latest K up to it, is what the windows hold at that moment (`docs/adr/0050`).
"""

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from skewless.aggregates.accumulators import Accumulator, Order
from skewless.aggregates.compiled import CompiledAggregates, Output
from skewless.ingest_limits import AGGREGATE_FUTURE_S, AGGREGATE_RECENT_EVENTS_MAX
from skewless.timestamps import SECOND_US

Pane = list[Accumulator | None]
"""Per slot of its series."""
NEVER = -1
"""Before any moment."""


class Verdict(StrEnum):
    """What became of an event."""

    COUNTED = "counted"
    LATE = "late"
    """It happened longer ago than the lateness."""
    DUPLICATE = "duplicate"
    """One with its id is known."""
    FUTURE = "future"
    """It says that it happens later than clocks can differ."""


@dataclass(frozen=True, slots=True, order=True)
class Event:
    """One event of the entity; ordered as rows are, by when it happened, then by when it was known."""

    order: Order
    identity: int = field(compare=False)
    """Hash of its id; 0 where events have none."""
    values: tuple[Any, ...] = field(compare=False)
    """Per input, None where it contributes none."""

    @property
    def event_time(self) -> int:
        """When it happened (µs)."""
        return self.order[0]


@dataclass(frozen=True, slots=True)
class Row:
    """A feature row: when (T), known when (K), and a value per output, None where null."""

    event_time: int
    created_time: int
    values: tuple[Any, ...]


@dataclass(slots=True)
class EntityState:
    """See the module. `panes` has a dict per series, from the pane's number."""

    panes: list[dict[int, Pane]]
    recent: list[Event]
    known: int = NEVER
    sealed: int = NEVER

    @classmethod
    def empty(cls, compiled: CompiledAggregates) -> "EntityState":
        """The state of an entity that nothing is known of."""
        return cls([{} for _ in compiled.series], [])

    @property
    def is_empty(self) -> bool:
        """Whether it may be forgotten: nothing that is to come depends on it."""
        return not self.recent and not any(self.panes)


def advance(
    compiled: CompiledAggregates, state: EntityState, known: int, events: Sequence[Event] = ()
) -> tuple[list[Row], list[Verdict]]:
    """Take a state on to the moment `known` (µs), at which `events` become known; returns new rows and verdicts.

    Rows are in order of K, then T; verdicts in the order of the events, whose own K must be `known`. The state is
    changed in place. Raises AssertionError where time would go back.
    """
    assert known >= state.known, "knowledge only grows"
    rows = [Row(due, due, _values_at(compiled, state, due)) for due in _due_between(compiled, state, known)]
    verdicts = _taken(compiled, state, known, events)
    counted = [event for event, verdict in zip(events, verdicts, strict=True) if verdict is Verdict.COUNTED]
    times = _times_to_tell(compiled, state, known, counted)
    if times:
        told = _Windows(compiled, state)
        rows += [Row(moment, known, told.at(moment)) for moment in times]
    state.known = known
    _seal(compiled, state)
    return rows, verdicts


def built(compiled: CompiledAggregates, events: Sequence[Event], known: int) -> EntityState:
    """The state of an entity at the moment `known` (µs), of the events that counted and were known by then.

    It is the one that `advance` comes to step by step, but for events that would be late because of a crowd.
    """
    state = EntityState([{} for _ in compiled.series], sorted(events), known)
    _seal(compiled, state)
    return state


def next_due(compiled: CompiledAggregates, state: EntityState) -> int | None:
    """When (µs) a row is to be made or the state can be forgotten if no event comes; None for an empty state."""
    moments = [edge for edge in _edges(compiled, state) if edge > state.known]
    moments += [event.event_time for event in _pending(state)]
    if moments:
        return min(moments)
    return None if state.is_empty else _forgotten_at(compiled, state)


def _forgotten_at(compiled: CompiledAggregates, state: EntityState) -> int:
    return max(_edges(compiled, state)) + compiled.declaration.lateness_us + 1


def _pending(state: EntityState) -> list[Event]:
    """Events that are known and happen yet."""
    return state.recent[bisect_left(state.recent, state.known + 1, key=_event_time) :]


def _event_time(event: Event) -> int:
    return event.order[0]


def _edges(compiled: CompiledAggregates, state: EntityState) -> Iterator[int]:
    """Every edge of the panes that hold an event, in no order, some several times."""
    for series, panes in zip(compiled.series, state.panes, strict=True):
        every_us = series.every_us
        held = {*panes, *(event.order[0] // every_us for event in state.recent)}
        for pane in held:
            for edge in series.edges:
                yield (pane + edge) * every_us


def _due_between(compiled: CompiledAggregates, state: EntityState, known: int) -> list[int]:
    """Moments after the last one known and before `known` at which a row is due, in order."""
    if state.is_empty:
        return []
    moments = {edge for edge in _edges(compiled, state) if state.known < edge < known}
    moments.update(event.event_time for event in _pending(state) if event.event_time < known)
    return sorted(moments)


def _taken(compiled: CompiledAggregates, state: EntityState, known: int, events: Sequence[Event]) -> list[Verdict]:
    """Say of each event what becomes of it, and put those that count among the recent ones."""
    earliest = max(known - compiled.declaration.lateness_us, state.sealed)
    latest = known + AGGREGATE_FUTURE_S * SECOND_US
    identities = {event.identity for event in state.recent} if events else set()
    verdicts = []
    for event in events:
        if event.event_time < earliest:
            verdicts.append(Verdict.LATE)
        elif event.event_time > latest:
            verdicts.append(Verdict.FUTURE)
        elif event.identity and event.identity in identities:
            verdicts.append(Verdict.DUPLICATE)
        else:
            verdicts.append(Verdict.COUNTED)
            identities.add(event.identity)
            insort(state.recent, event)
    return verdicts


def _times_to_tell(compiled: CompiledAggregates, state: EntityState, known: int, counted: Sequence[Event]) -> list[int]:
    """Moments T up to `known` at which what is told has changed by it, in order."""
    past = [event for event in counted if event.event_time <= known]
    moments: set[int] = set()
    if past:
        first = min(event.event_time for event in past)
        spans = sorted({(event.event_time, compiled.last_leave(event.event_time)) for event in past})
        start = bisect_left(state.recent, first, key=_event_time)
        known_times = [event.event_time for event in state.recent[start:] if event.event_time <= known]
        moments = {each for each in known_times if _in_some(spans, each)}
        moments.update(each for each in _edges(compiled, state) if first <= each <= known and _in_some(spans, each))
    if state.known < known:
        moments.update(edge for edge in _edges(compiled, state) if edge == known)
        moments.update(event.event_time for event in _pending(state) if event.event_time == known)
    return sorted(moments)


def _in_some(spans: Sequence[tuple[int, int]], moment: int) -> bool:
    return any(first <= moment <= last for first, last in spans)


def _values_at(compiled: CompiledAggregates, state: EntityState, moment: int) -> tuple[Any, ...]:
    return _Windows(compiled, state).at(moment)


class _Windows:
    """What the windows hold at moments that are asked for in order."""

    def __init__(self, compiled: CompiledAggregates, state: EntityState) -> None:
        self._compiled = compiled
        self._panes = [{pane: list(held) for pane, held in panes.items()} for panes in state.panes]
        self._recent = state.recent
        self._taken = 0
        self._closed: dict[int, tuple[int, Accumulator | None]] = {}
        """Per output the last pane of its window, and what the panes before that one hold together."""

    def at(self, moment: int) -> tuple[Any, ...]:
        """A value per output; no moment may be before one that was asked for."""
        while self._taken < len(self._recent) and self._recent[self._taken].order[0] <= moment:
            add_event(self._compiled, self._panes, self._recent[self._taken])
            self._taken += 1
        ranges = [window.pane_range(moment) for window in self._compiled.windows]
        return tuple(
            output.result(self._held(number, output, ranges[output.place]))
            for number, output in enumerate(self._compiled.outputs)
        )

    def _held(self, number: int, output: Output, panes_range: tuple[int, int]) -> Accumulator | None:
        first, last = panes_range
        panes, slot = self._panes[output.series], output.slot
        merge = self._compiled.series[output.series].slots[slot].merge
        kept = self._closed.get(number)
        if kept is None or kept[0] != last:
            # Events come in order here, so that panes before the last one stay as they are while it is the last.
            before = [held[slot] for pane, held in panes.items() if first <= pane < last]
            together: Accumulator | None = None
            for each in before:
                if each is not None:
                    together = each if together is None else merge(together, each)
            kept = self._closed[number] = (last, together)
        held = panes.get(last)
        newest = None if held is None else held[slot]
        return newest if kept[1] is None else kept[1] if newest is None else merge(kept[1], newest)


def add_event(compiled: CompiledAggregates, panes: Sequence[dict[int, Pane]], event: Event) -> None:
    """Add what an event contributes to its pane of each series."""
    order, values = event.order, event.values
    for series, held in zip(compiled.series, panes, strict=True):
        pane = held.setdefault(order[0] // series.every_us, [None] * len(series.slots))
        for number, slot in enumerate(series.slots):
            value = values[slot.input]
            if value is not None:
                pane[number] = slot.add(pane[number], value, order)


def _seal(compiled: CompiledAggregates, state: EntityState) -> None:
    """Put recent events that nothing can come before any more into their panes, and drop panes that are over."""
    lateness_us = compiled.declaration.lateness_us
    sealed = max(state.sealed, state.known - lateness_us)
    crowded = len(state.recent) - AGGREGATE_RECENT_EVENTS_MAX
    if crowded > 0:
        sealed = max(sealed, min(state.recent[crowded - 1].event_time, state.known) + 1)
    over = bisect_left(state.recent, sealed, key=_event_time)
    for event in state.recent[:over]:
        add_event(compiled, state.panes, event)
    del state.recent[:over]
    state.sealed = sealed
    for series, panes in zip(compiled.series, state.panes, strict=True):
        for pane in [each for each in panes if (each + series.last_edge) * series.every_us + lateness_us < state.known]:
            del panes[pane]
