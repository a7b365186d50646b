"""Streams of random events, and the aggregates said as plainly as possible: the twin that both halves must match."""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from hypothesis import strategies as st

from skewless.aggregates.aggregation import Aggregate, Kind, count, distinct, last, maximum, mean, minimum, total
from skewless.aggregates.compiled import CompiledAggregates
from skewless.aggregates.contributions import by_event, contributed, event_ids
from skewless.aggregates.declaration import StreamAggregates
from skewless.aggregates.distinct_values import value_hash
from skewless.aggregates.entity_state import EntityState, Event, Row, Verdict, advance, next_due
from skewless.aggregates.state_form import packed, unpacked
from skewless.aggregates.windows import sliding, tumbling
from skewless.dtypes import Dtype, column_of
from skewless.timestamps import SECOND_US
from skewless.transforms import column

ENTITIES = ("a", "ü")
SCHEMA = {"delay": Dtype.FLOAT64, "passengers": Dtype.INT64, "dest": Dtype.STRING, "id": Dtype.INT64}
REALS = [None, 0.0, -0.0, 0.1, 0.2, -0.3, 1e16, 1.0, -1e16, 1.7e308, 5e-324, math.nan, math.inf, -math.inf]
WHOLES = [None, 0, 1, -7, 2**53 + 1, 2**62, -(2**63)]
WORDS = [None, "JFK", "LGA", "", "süd"]
LATENESS_S = 7


def declared(lateness: str = f"{LATENESS_S}s", event_id: str = "id") -> StreamAggregates:
    """Every kind of aggregate and window, at a scale of seconds."""
    short, long = sliding("6s", every="2s"), sliding("12s", every="3s")
    late = column("delay", Dtype.FLOAT64) > 0.15
    aggregates = [
        count(short),
        count(tumbling("5s", complete=True)),
        count(long, where=late, name="late"),
        count(short, "delay"),
        total("delay", short),
        total("passengers", long),
        mean("delay", tumbling("5s")),
        mean("passengers", sliding("6s", every="2s", complete=True), dtype=None),
        minimum("delay", long),
        maximum("delay", short, where=late, name="high"),
        maximum("passengers", long),
        distinct("dest", long, exact=2),
        last("dest", short),
        last("delay", sliding("12s", every="3s", complete=True)),
        mean("delay", short, dtype=Dtype.FLOAT32, name="rounded"),
    ]
    return StreamAggregates(
        name="movements",
        view="activity",
        keys={"tail": Dtype.STRING},
        fields=SCHEMA,
        aggregates=aggregates,
        event_id=event_id,
        lateness=lateness,
    )


@dataclass
class Sent:
    """One event on its way: what happened when (µs), and where it lies within its batch."""

    entity: str
    event_time: int
    fields: dict[str, Any]
    known: int = 0
    row: int = 0
    verdict: Verdict = Verdict.COUNTED


Batches = list[tuple[int, list[Sent]]]
"""(known, events) in order; a batch without events is a tick of the clock."""


def batches(step_us: int = SECOND_US // 2, longest: int = 25) -> st.SearchStrategy[Batches]:
    """Random batches at growing moments: events out of order, late, yet to happen, on edges, twice, and ticks."""
    fields = st.fixed_dictionaries(
        {
            "delay": st.sampled_from(REALS),
            "passengers": st.sampled_from(WHOLES),
            "dest": st.sampled_from(WORDS),
            "id": st.integers(0, 40),
        }
    )
    ages = st.one_of(st.integers(-3, 16), st.integers(0, 2))
    event = st.tuples(st.sampled_from(ENTITIES), ages, fields)
    batch = st.tuples(st.integers(1, 9), st.lists(event, max_size=4))

    def placed(drawn: list[tuple[int, list[tuple[str, int, dict[str, Any]]]]]) -> Batches:
        now, placed_batches = 40 * step_us, []
        for passes, events in drawn:
            now += passes * step_us
            sent = [Sent(entity, now - age * step_us, dict(given)) for entity, age, given in events]
            placed_batches.append((now, sent))
        return placed_batches

    return st.lists(batch, min_size=3, max_size=longest).map(placed)


@dataclass
class PlainLane:
    """The online half driven by hand: states are packed and read back between any two steps, as by restarts."""

    compiled: CompiledAggregates
    states: dict[str, bytes] = field(default_factory=dict)
    rows: list[tuple[str, Row]] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)

    def take(self, known: int, sent: Sequence[Sent]) -> None:
        """A batch that becomes known; a tick where it is empty."""
        made = events_of(self.compiled, known, sent)
        self.sent += sent
        for entity in dict.fromkeys([*self.states, *(each.entity for each in sent)]):
            places = [place for place, each in enumerate(sent) if each.entity == entity]
            if not places and not self._is_due(entity, known):
                continue
            state = self.state(entity)
            rows, verdicts = advance(self.compiled, state, known, [made[place] for place in places])
            for place, verdict in zip(places, verdicts, strict=True):
                sent[place].verdict = verdict
            self.rows += [(entity, row) for row in rows]
            if state.is_empty:
                self.states.pop(entity, None)
            else:
                self.states[entity] = packed(self.compiled, state)

    def state(self, entity: str) -> EntityState:
        """What is kept of an entity."""
        held = self.states.get(entity)
        return EntityState.empty(self.compiled) if held is None else unpacked(self.compiled, held)

    def _is_due(self, entity: str, known: int) -> bool:
        due = next_due(self.compiled, self.state(entity))
        return due is not None and due <= known


def events_of(compiled: CompiledAggregates, known: int, sent: Sequence[Sent]) -> list[Event]:
    """What the entity's state takes of events, whose place in the batch and K are noted in them."""
    stream, rows = compiled.declaration, len(sent)
    columns = {name: column_of(dtype, [each.fields[name] for each in sent]) for name, dtype in stream.fields}
    columns["tail"] = column_of(Dtype.STRING, [each.entity for each in sent])
    values = by_event(contributed(compiled, columns, rows), rows)
    identities = event_ids(columns.get(stream.event_id), rows)
    for row, each in enumerate(sent):
        each.known, each.row = known, row
    return [
        Event((each.event_time, known, row), identity, value)
        for row, (each, identity, value) in enumerate(zip(sent, identities, values, strict=True))
    ]


def naive(stream: StreamAggregates, events: Sequence[Sent], as_of: int, known: int) -> tuple[Any, ...]:
    """What each aggregate is at a moment, by what was known at another: the definition, word for word."""
    seen = sorted(
        (each for each in events if each.event_time <= as_of and each.known <= known),
        key=lambda each: (each.event_time, each.known, each.row),
    )
    return tuple(_plain(aggregate, seen, as_of) for aggregate in stream.aggregates)


def _plain(aggregate: Aggregate, seen: Sequence[Sent], as_of: int) -> Any:
    window = aggregate.window
    end = as_of - as_of % window.every_us + (0 if window.is_complete else window.every_us)
    chosen = [each for each in seen if end - window.size_us <= each.event_time < end]
    if aggregate.where is not None:  # the one condition of `declared`
        chosen = [each for each in chosen if each.fields["delay"] is not None and each.fields["delay"] > 0.15]
    values = [each.fields[aggregate.column] if aggregate.column else 1 for each in chosen]
    values = [0.0 if isinstance(value, float) and value == 0 else value for value in values if value is not None]
    if aggregate.kind is Kind.COUNT:
        return len(values)
    if aggregate.kind is Kind.DISTINCT:
        hashes = sorted({value_hash(value) for value in values})
        return len(hashes) if len(hashes) <= aggregate.exact else aggregate.exact * 2**64 // hashes[aggregate.exact]
    if aggregate.kind is Kind.SUM or not values:
        told = _plain_sum(values) if aggregate.kind is Kind.SUM else None
        is_wide = isinstance(told, int) and not -(2**63) <= told < 2**63
        return None if is_wide else told
    if aggregate.kind is Kind.LAST:
        return values[-1]
    if aggregate.kind is Kind.MEAN:
        mean_of = float(_plain_sum(values)) / len(values)
        return mean_of if aggregate.dtype is None else _as_float32(mean_of)
    if any(value != value for value in values):
        return math.nan
    return min(values) if aggregate.kind is Kind.MIN else max(values)


def _plain_sum(values: Sequence[Any]) -> Any:
    if not all(math.isfinite(value) for value in values):
        told = sum(value for value in values if not math.isfinite(value))
        return math.nan if told != told else told  # there are NaNs of either sign
    exact = sum(map(Fraction, values), Fraction(0))
    if all(isinstance(value, int) for value in values):
        return int(exact)
    try:
        return float(exact)
    except OverflowError:
        return math.inf if exact > 0 else -math.inf


def _as_float32(value: float) -> float:
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)


def bits(value: Any) -> Any:
    """A value so that equal means equal in every bit."""
    return struct.pack("<d", value) if isinstance(value, float) else value
