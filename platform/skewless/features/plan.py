"""A feature contract compiled into reads: what to ask Redis for, and how to turn the answers into columns.

Per request only values are looked at: keys are built from templates, fields and decoders are resolved here once.

    keys:     {join key: Column (rows,)}
    reads:    one HashRead per distinct entity and join-key group  (views that share an entity share a read)
    answers:  per read, raw bytes per field
    frame:    {view__feature: Column (rows,)} with a status and an event time for each value
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import Column, column_of, to_python
from skewless.errors import InvalidDefinition, Rejected
from skewless.features.contract import (
    Action,
    FeatureContract,
    FeatureField,
    JoinKey,
    ViewRead,
    column_name,
)
from skewless.features.frame import NO_EVENT_TIME, STATUS_CODE, FeatureFrame
from skewless.features.policies import policy_for, stand_in
from skewless.features.redis_layout import HashRead, KeyTemplate, feature_field, timestamp_field
from skewless.features.value_codec import Decoder, decode_timestamp, decoder
from skewless.features.visibility import Status, status_of


@dataclass(frozen=True, slots=True)
class _PlannedFeature:
    field: FeatureField
    column: str
    decode: Decoder
    position: int
    """Where its bytes are in the answer to the group's read."""


@dataclass(frozen=True, slots=True)
class _PlannedView:
    view: ViewRead
    timestamp_position: int
    features: tuple[_PlannedFeature, ...]


@dataclass(frozen=True, slots=True)
class _Group:
    """Views that share join keys, so that one hash holds them all."""

    join_keys: tuple[JoinKey, ...]
    template: KeyTemplate
    fields: tuple[bytes, ...]
    views: tuple[_PlannedView, ...]


@dataclass(frozen=True, slots=True)
class PreparedRead:
    """The reads of one request. `reads` are distinct; `decode` needs their answers in the same order."""

    rows: int
    reads: tuple[HashRead, ...]
    _groups: tuple[_Group, ...]
    _read_of_row: tuple[tuple[int | None, ...], ...]
    """Per group and row: the index into `reads`, None where the row has no such entity."""

    def decode(self, answers: Sequence[Sequence[bytes | None]], as_of: int) -> FeatureFrame:
        """Columns, statuses and event times at `as_of` (µs).

        Raises Rejected where a policy is `reject`, InvalidDefinition where a stored value has another type.
        """
        columns: dict[str, Column] = {}
        statuses: dict[str, NDArray[np.uint8]] = {}
        event_times: dict[str, NDArray[np.int64]] = {}
        for group, read_of_row in zip(self._groups, self._read_of_row, strict=True):
            rows = [None if index is None else answers[index] for index in read_of_row]
            for planned in group.views:
                times = [_event_time(answer, planned.timestamp_position) for answer in rows]
                event_times[planned.view.view] = np.array(
                    [NO_EVENT_TIME if time is None else time for time in times], dtype=np.int64
                )
                for feature in planned.features:
                    values, codes = _decode_feature(feature, rows, times, as_of, planned.view.ttl_us)
                    columns[feature.column] = column_of(feature.field.dtype, values)
                    statuses[feature.column] = codes
        return FeatureFrame(self.rows, columns, statuses, event_times)


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """A contract's reads, compiled once per bundle."""

    _groups: tuple[_Group, ...]

    @classmethod
    def compile(cls, contract: FeatureContract) -> "ReadPlan":
        """Raises InvalidDefinition where two features would share a hash field or a key has no serialization."""
        by_keys: dict[tuple[JoinKey, ...], list[ViewRead]] = {}
        for view in contract.views:
            by_keys.setdefault(view.join_keys, []).append(view)
        return cls(tuple(_group(keys, views, contract.project) for keys, views in by_keys.items()))

    def prepare(self, keys: Mapping[str, Column], rows: int) -> PreparedRead:
        """The reads for `rows` entities given as columns by join-key name, each entity asked for once."""
        reads: dict[tuple[int, bytes], int] = {}
        hash_reads: list[HashRead] = []
        read_of_row: list[tuple[int | None, ...]] = []
        for number, group in enumerate(self._groups):
            indexes: list[int | None] = []
            for values in _entity_values(group, keys, rows):
                if values is None:
                    indexes.append(None)
                    continue
                key = group.template.key(values)
                index = reads.get((number, key))
                if index is None:
                    index = reads[number, key] = len(hash_reads)
                    hash_reads.append(HashRead(key, group.fields))
                indexes.append(index)
            read_of_row.append(tuple(indexes))
        return PreparedRead(rows, tuple(hash_reads), self._groups, tuple(read_of_row))


def _group(join_keys: tuple[JoinKey, ...], views: list[ViewRead], project: str) -> _Group:
    fields: list[bytes] = []
    owners: dict[bytes, str] = {}
    planned: list[_PlannedView] = []
    for view in views:
        timestamp_position = len(fields)
        fields.append(timestamp_field(view.view))
        features = []
        for feature in view.features:
            name = f"{view.view}:{feature.name}"
            field = feature_field(view.view, feature.name)
            if field in owners:
                raise InvalidDefinition(
                    f"features `{owners[field]}` and `{name}` share the Redis hash field {field.hex()}; "
                    "one would overwrite the other",
                    hint="rename one of them",
                )
            owners[field] = name
            features.append(
                _PlannedFeature(
                    feature,
                    column_name(view.view, feature.name),
                    decoder(feature.dtype, where=f"feature `{name}`"),
                    len(fields),
                )
            )
            fields.append(field)
        planned.append(_PlannedView(view, timestamp_position, tuple(features)))
    return _Group(join_keys, KeyTemplate.compile(join_keys, project), tuple(fields), tuple(planned))


def _entity_values(group: _Group, keys: Mapping[str, Column], rows: int) -> list[tuple[object, ...] | None]:
    """Join-key values of each row in the template's order; None where one of them is null."""
    if not group.template.names:
        return [()] * rows
    columns = [to_python(keys[name]) for name in group.template.names]
    return [None if None in values else values for values in zip(*columns, strict=True)]


def _event_time(answer: Sequence[bytes | None] | None, position: int) -> int | None:
    stored = None if answer is None else answer[position]
    return None if stored is None else decode_timestamp(stored)


def _decode_feature(
    feature: _PlannedFeature,
    rows: Sequence[Sequence[bytes | None] | None],
    times: Sequence[int | None],
    as_of: int,
    ttl_us: int,
) -> tuple[list[object], NDArray[np.uint8]]:
    values: list[object] = []
    codes = np.empty(len(rows), dtype=np.uint8)
    for row, (answer, event_time) in enumerate(zip(rows, times, strict=True)):
        stored = None if answer is None else answer[feature.position]
        status = status_of(
            stored=stored is not None, null=stored == b"", event_time=event_time, as_of=as_of, ttl_us=ttl_us
        )
        if status is Status.OK:
            assert stored is not None, "status_of says ok only for a stored value"
            value = feature.decode(stored)
            if value is None:  # a null time is stored as a number
                status = Status.NULL
        else:
            if policy_for(feature.field, status).action is Action.REJECT:
                raise Rejected(
                    f"feature `{feature.column}` is {status} and its policy is `reject`",
                    path=f"$.instances[{row}]",
                    hint="ask for an entity the feature store knows, or ship a bundle whose policy allows it",
                )
            value, status = stand_in(feature.field, status)
        values.append(value)
        codes[row] = STATUS_CODE[status]
    return values, codes
