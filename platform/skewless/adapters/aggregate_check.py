"""Compares what a stream's entities have in the online store with what their events give, feature by feature."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from skewless.adapters.aggregate_backfill import needed_since, rows_until, taken
from skewless.adapters.aggregate_lane_rows import event_batch, source_table
from skewless.adapters.aggregate_lane_step import OpenedStream
from skewless.adapters.feature_rows_arrow import feature_rows
from skewless.adapters.online_rows import OnlineRows
from skewless.aggregates.history import newest
from skewless.errors import Unavailable
from skewless.features.feature_rows import FeatureRows
from skewless.features.redis_layout import feature_field, stored_key, timestamp_field
from skewless.features.value_encoding import stored_event_time, stored_values
from skewless.ingest_limits import AGGREGATE_FINDINGS_MAX

_PART = 1_000
"""Entities that are read together."""


@dataclass(frozen=True, slots=True)
class Differing:
    """An entity whose stored row is not the one that its events give; `features` are those that differ."""

    entity: dict[str, str]
    features: tuple[str, ...]


@dataclass(slots=True)
class CheckFindings:
    """What was compared, as of the moment `known` (µs) that the stream has come to."""

    known: int
    entities: int = 0
    equal: int = 0
    missing: int = 0
    """Nothing is stored of the entity."""
    newer: int = 0
    """The stored row came meanwhile, or one is due and will come."""
    differing: int = 0
    examples: list[Differing] = field(default_factory=list)


def check(stream: OpenedStream) -> CheckFindings:
    """Compare every entity whose windows can hold an event by now. Raises Unavailable; a stream may go on meanwhile."""
    record = stream.states.lane()
    if record is None:
        raise Unavailable(
            f"stream `{stream.compiled.declaration.name}`",
            "the online store knows nothing of it",
            hint="start the ingestion service, or run `skewless aggregates rebuild`",
        )
    findings = CheckFindings(record.known)
    due = {key for _, timers in stream.states.due(record.known) for key, _ in timers}
    for table in stream.stored_events.counted(since=needed_since(stream, record.known), until=record.known):
        keys, rows = rows_until(stream, event_batch(stream.compiled, stream.template, table), record.known)
        last = taken(rows, newest(rows))
        for start in range(0, len(last.entities), _PART):
            some = taken(last, np.arange(start, min(start + _PART, len(last.entities))))
            listed = [keys[number] for number in some.entities.tolist()]
            times = (some.event_times, some.created_times)
            expected = source_table(stream.compiled, stream.source, listed, some.columns, times)
            _compare(stream, listed, feature_rows(expected, stream.view, stream.source), findings, due)
    return findings


def _compare(
    stream: OpenedStream, keys: list[bytes], expected: FeatureRows, findings: CheckFindings, due: AbstractSet[bytes]
) -> None:
    view = stream.view
    stored = OnlineRows(stream.store, stream.project, view).read(expected.keys, expected.rows, findings.known)
    names = [each.name for each in view.features]
    fields = [feature_field(view.field_name, name) for name in names]
    columns = [stored_values(expected.values[each.name], each.feast_type) for each in view.features]
    moments = [stored_event_time(each) for each in expected.event_times.tolist()]
    event_times = stored.frame.event_times[view.name].tolist()
    rows = zip(keys, stored.held, moments, event_times, zip(*columns, strict=True), strict=True)
    for place, (key, held, moment, event_time, values) in enumerate(rows):
        findings.entities += 1
        time = None if held is None else held[timestamp_field(view.field_name)]
        if held is None or time is None:
            findings.missing += 1
        elif key in due or (time != moment and event_time > int(expected.event_times[place])):
            findings.newer += 1
        else:
            pairs = zip(names, fields, values, strict=True)
            unlike = tuple(name for name, each, value in pairs if held[each] != value)
            _note(findings, key, unlike if time == moment else ("event_time", *unlike))


def _note(findings: CheckFindings, key: bytes, unlike: tuple[Any, ...]) -> None:
    if not unlike:
        findings.equal += 1
        return
    findings.differing += 1
    if len(findings.examples) < AGGREGATE_FINDINGS_MAX:
        told = stored_key(key)
        findings.examples.append(Differing({} if told is None else told.told, unlike))
