"""Streaming aggregates: what goes on event by event, what is computed of all events at once, and the definition, agree.

Every comparison is bit for bit, over random events that come out of order, late, early, twice, on edges and with
nulls, in random batches, with ticks of the clock between them and every state written down and read back.
"""

import os
from collections import defaultdict
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings

from harness.aggregate_world import ENTITIES, Batches, PlainLane, Sent, batches, bits, declared, events_of, naive
from skewless.aggregates.compiled import CompiledAggregates
from skewless.aggregates.entity_state import Row, Verdict
from skewless.aggregates.history import Events, HistoryRows, history, output_column
from skewless.dtypes import to_python
from skewless.timestamps import SECOND_US

COMPILED = CompiledAggregates.of(declared())
STEP_US = SECOND_US // 2
Told = dict[tuple[str, int, int], tuple[Any, ...]]
# Without shrinking: a history is small already.
EXAMPLES = int(os.environ.get("SKEWLESS_TEST_AGGREGATE_EXAMPLES", "40"))
relaxed = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), phases=(Phase.reuse, Phase.generate)
)


def _run(given_batches: Batches) -> tuple[PlainLane, list[Sent]]:
    lane, sent = PlainLane(COMPILED), []
    for known, events in given_batches:
        lane.take(known, events)
        sent += events
    return lane, sent


def _values(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Values as their columns hold them, in every bit."""
    columns = [
        to_python(output_column(output, list(column)))
        for output, column in zip(COMPILED.outputs, zip(*rows, strict=True), strict=True)
    ]
    return [tuple(map(bits, row)) for row in zip(*columns, strict=True)]


def _online(rows: list[tuple[str, Row]]) -> Told:
    told = _values([row.values for _, row in rows]) if rows else []
    keys = [(entity, row.event_time, row.created_time) for entity, row in rows]
    assert len(set(keys)) == len(keys), "no row is told twice"
    return dict(zip(keys, told, strict=True))


def _events(sent: list[Sent]) -> Events:
    counted = [each for each in sent if each.verdict is Verdict.COUNTED]
    numbers = {entity: number for number, entity in enumerate(ENTITIES)}
    by_known = defaultdict(list)
    for each in sent:
        by_known[each.known].append(each)
    made = {known: events_of(COMPILED, known, some) for known, some in by_known.items()}
    values = [made[each.known][each.row].values for each in counted]
    return Events(
        np.array([numbers[each.entity] for each in counted], dtype=np.int64),
        np.array([each.event_time for each in counted], dtype=np.int64),
        np.array([each.known for each in counted], dtype=np.int64),
        np.array([each.row for each in counted], dtype=np.int64),
        [list(column) for column in zip(*values, strict=True)] or [[] for _ in COMPILED.inputs],
    )


def _offline(rows: HistoryRows, known_until: int) -> Told:
    columns = [to_python(column) for column in rows.columns]
    told = zip(rows.entities.tolist(), rows.event_times.tolist(), rows.created_times.tolist(), *columns, strict=True)
    return {
        (ENTITIES[entity], moment, known): tuple(map(bits, values))
        for entity, moment, known, *values in told
        if known <= known_until
    }


def _as_of(rows: Told, entity: str, as_of: int, known: int) -> tuple[Any, ...] | None:
    """The row that a point-in-time read takes."""
    seen = [key for key in rows if key[0] == entity and key[1] <= as_of and key[2] <= known]
    return rows[max(seen)] if seen else None


@relaxed
@given(batches())
def test_rows_made_event_by_event_are_those_computed_of_all_events(given_batches: Batches) -> None:
    lane, sent = _run(given_batches)
    end = given_batches[-1][0]
    for moment in range(end + 1, end + 40 * SECOND_US, 7 * STEP_US):
        lane.take(moment, [])
    assert not lane.states, "what is quiet is forgotten"
    assert _online(lane.rows) == _offline(history(COMPILED, _events(sent)), 10**18)


@settings(relaxed, max_examples=1 + EXAMPLES // 4)
@given(batches(longest=12))
def test_a_plain_point_in_time_read_of_the_rows_is_the_definition_at_every_moment(given_batches: Batches) -> None:
    lane, sent = _run(given_batches)
    first, end = given_batches[0][0], given_batches[-1][0]
    rows = _online(lane.rows)
    for entity in ENTITIES:
        events = [each for each in sent if each.entity == entity and each.verdict is Verdict.COUNTED]
        moments = [
            *range(first, end + 1, STEP_US),
            *(edge + odd for edge in range(first, end, STEP_US) for odd in (-1, 1)),
        ]
        for moment in moments:
            for known in (moment, end):  # as known then, as finally known
                found = _as_of(rows, entity, moment, known)
                expected = _values([naive(COMPILED.declaration, events, moment, known)])[0]
                nothing = _values([naive(COMPILED.declaration, [], moment, known)])[0]
                assert (nothing if found is None else found) == expected, (entity, moment, known)
