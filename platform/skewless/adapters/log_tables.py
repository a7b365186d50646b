"""Segments of the prediction log as Arrow tables: one schema per kind of record, documented in docs/prediction-log.md.

A segment's entries become one table per endpoint and set of columns, one of outcomes and one of tallies. Bundles with
the same contract share a set of columns, so that what is stored under one name has one schema for ever. In memory a
column that repeats itself is dictionary-encoded, which is cheap to make and to write; what is stored, and what `plain`
gives, are plain strings.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from skewless.adapters.arrow_columns import column_to_arrow
from skewless.column_table import ColumnTable, layout_of
from skewless.dtypes import Column
from skewless.features.frame import NO_EVENT_TIME, STATUS_CODES, FeatureFrame
from skewless.serving.log_blocks import AnsweredBlock, LoggedEntry
from skewless.serving.log_sampling import SAMPLES
from skewless.serving.records import Outcome, TallyBatch
from skewless.timestamps import DAY_US, format_timestamp

SCHEMA_VERSION = 1
"""Of the columns below; a stored table says which it was written with."""
PREDICTIONS = "predictions"
OUTCOMES = "outcomes"
TALLIES = "tallies"
KINDS = (PREDICTIONS, OUTCOMES, TALLIES)
TIMESTAMP = pa.timestamp("us", tz="UTC")
COLUMNS_CHARACTERS = 12
SAMPLED = "sampled"
"""The column that says in which samples a prediction is; null in none, and where an older gateway wrote it."""
_TEXT = pa.string()

PREDICTION_SCHEMA = pa.schema(
    [
        ("prediction_id", _TEXT),
        ("as_of", TIMESTAMP),
        ("endpoint", _TEXT),
        ("bundle_digest", _TEXT),
        ("role", _TEXT),
        ("experiment", _TEXT),
        ("arm", _TEXT),
        ("live_prediction_id", _TEXT),
        ("rung", _TEXT),
        ("request_id", _TEXT),
        ("caller", _TEXT),
        (SAMPLED, _TEXT),
        ("row", pa.int32()),
        ("label", _TEXT),
        ("probability", pa.float32()),
        ("tensor", pa.binary()),
        ("tensor_digest", _TEXT),
        ("stage_ms", pa.map_(_TEXT, pa.float64())),
        ("segment", _TEXT),
        ("day", _TEXT),
    ]
)
"""What every prediction has; after these come the columns of its contract (`key.`, `request.`, `feature.`, …)."""
OUTCOME_SCHEMA = pa.schema(
    [
        ("outcome_id", _TEXT),
        ("prediction_id", _TEXT),
        ("endpoint", _TEXT),
        ("entity", _TEXT),
        ("at", TIMESTAMP),
        ("label", _TEXT),
        ("outcome_time", TIMESTAMP),
        ("received_time", TIMESTAMP),
        ("caller", _TEXT),
        ("segment", _TEXT),
        ("day", _TEXT),
    ]
)
TALLY_SCHEMA = pa.schema(
    [
        ("endpoint", _TEXT),
        ("role", _TEXT),
        ("bundle_digest", _TEXT),
        ("start", TIMESTAMP),
        ("end", TIMESTAMP),
        ("tally", _TEXT),
        ("segment", _TEXT),
        ("day", _TEXT),
    ]
)


@dataclass(frozen=True, slots=True)
class LogTable:
    """Records of one kind out of one segment. `endpoint` is empty but for predictions; `columns` names the schema."""

    kind: str
    endpoint: str
    columns: str
    table: Any


def segment_tables(segment: str, entries: Iterable[LoggedEntry]) -> list[LogTable]:
    """Everything that the entries of a segment hold, each table in their order."""
    blocks: dict[object, list[AnsweredBlock]] = {}
    outcomes: list[Outcome] = []
    tallies: list[Mapping[str, Any]] = []
    for entry in entries:
        if isinstance(entry, AnsweredBlock):
            blocks.setdefault(_layout_of(entry), []).append(entry)
        elif isinstance(entry, TallyBatch):
            tallies += entry.documents
        else:
            outcomes += entry
    predictions: dict[tuple[str, str], list[Any]] = {}
    for alike in blocks.values():
        table = block_table(segment, _end_to_end(alike))
        predictions.setdefault((alike[0].endpoint, columns_of(table.schema)), []).append(table)
    found = [
        LogTable(PREDICTIONS, endpoint, columns, joined(tables)) for (endpoint, columns), tables in predictions.items()
    ]
    if outcomes:
        found.append(LogTable(OUTCOMES, "", columns_of(OUTCOME_SCHEMA), outcome_table(segment, outcomes)))
    if tallies:
        found.append(LogTable(TALLIES, "", columns_of(TALLY_SCHEMA), tally_table(segment, tallies)))
    return found


def joined(tables: Sequence[Any]) -> Any:
    """Tables of one set of columns end to end, with one dictionary for each column that has any."""
    return tables[0] if len(tables) == 1 else pa.concat_tables(tables).unify_dictionaries()


def plain(table: Any) -> Any:
    """A table with the types that are stored: plain strings where they are dictionary-encoded in memory."""
    return table.cast(stored_schema(table.schema))


def stored_schema(schema: Any) -> Any:
    """The types of a schema as they are stored."""
    return pa.schema([(field.name, _stored_type(field.type)) for field in schema])


def columns_of(schema: Any) -> str:
    """What a set of columns is called: the first digits of a digest over their names and types, in order."""
    named = [[field.name, str(_stored_type(field.type))] for field in schema]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()[:COLUMNS_CHARACTERS]


def day_of(moment: int) -> str:
    """The UTC day of microseconds since 1970.

    >>> day_of(0)
    '1970-01-01'
    """
    return format_timestamp(moment)[:10]


def block_table(segment: str, block: AnsweredBlock) -> Any:
    """One row per prediction of a block, in order."""
    requests = block.requests
    rows = len(block.prediction_ids)
    # Which request a row belongs to; what a request says is looked up through it, once per request.
    of_request = np.repeat(np.arange(len(requests), dtype=np.int32), [each.rows for each in requests])
    as_of = np.array([each.as_of for each in requests], dtype=np.int64)

    def told(values: Sequence[str | None]) -> Any:
        return _repeating(values, of_request)

    columns: dict[str, Any] = {
        "prediction_id": pa.array(block.prediction_ids, _TEXT),
        "as_of": pa.array(as_of[of_request]).cast(TIMESTAMP),
        "endpoint": _constant(block.endpoint, rows),
        "bundle_digest": _constant(block.bundle, rows),
        "role": told([str(each.role) for each in requests]),
        "experiment": told([each.experiment or None for each in requests]),
        "arm": told([each.arm or None for each in requests]),
        "live_prediction_id": _known(block.twins, rows),
        "rung": told([each.rung for each in requests]),
        "request_id": told([each.request_id for each in requests]),
        "caller": told([each.caller for each in requests]),
        SAMPLED: _samples(block.sampled, rows),
        "row": pa.array(np.asarray(block.positions).astype(np.int32)),
        "label": pa.array(block.labels, _TEXT),
        "probability": pa.array(block.probabilities.astype(np.float32, copy=False), from_pandas=False),
        "tensor": pa.nulls(rows, pa.binary()) if block.tensor is None else _bytes_of_rows(block.tensor),
        "tensor_digest": pa.array(block.tensor_digests, _TEXT),
        "stage_ms": _maps([each.stage_ms for each in requests], of_request),
        "segment": _constant(segment, rows),
        "day": _days(as_of[of_request]),
    }
    return pa.table(columns | _contract_columns(block))


def outcome_table(segment: str, outcomes: Sequence[Outcome]) -> Any:
    """One row per outcome."""
    told = [name for name in OUTCOME_SCHEMA.names if name not in ("segment", "day")]
    columns: dict[str, Any] = {
        name: pa.array([getattr(each, name) for each in outcomes], OUTCOME_SCHEMA.field(name).type) for name in told
    }
    received = np.array([each.received_time for each in outcomes], dtype=np.int64)
    return pa.table({**columns, "segment": _constant(segment, len(outcomes)), "day": _days(received)})


def tally_table(segment: str, tallies: Sequence[Mapping[str, Any]]) -> Any:
    """One row per tally."""
    names = {"endpoint": "endpoint", "role": "role", "bundle_digest": "bundle", "start": "start", "end": "end"}
    columns: dict[str, Any] = {
        name: pa.array([each[key] for each in tallies], TALLY_SCHEMA.field(name).type) for name, key in names.items()
    }
    columns["tally"] = pa.array([json.dumps(each) for each in tallies], _TEXT)
    ends = np.array([each["end"] for each in tallies], dtype=np.int64)
    return pa.table({**columns, "segment": _constant(segment, len(tallies)), "day": _days(ends)})


def _layout_of(block: AnsweredBlock) -> object:
    """What blocks have in common that can be put end to end, to be looked up."""
    return (
        block.endpoint,
        block.bundle,
        tuple(block.key_names),
        layout_of(block.given),
        layout_of(block.frame.columns),
        tuple(block.frame.statuses),
        tuple(block.frame.event_times),
        tuple((name, values.shape[1:]) for name, values in block.outputs.items()),
        None if block.tensor is None else block.tensor.shape[1],
    )


def _end_to_end(blocks: Sequence[AnsweredBlock]) -> AnsweredBlock:
    """Blocks of one layout as one: a call for each column of a hundred blocks costs more than copying their arrays."""
    if len(blocks) == 1:
        return blocks[0]
    first = blocks[0]
    rows = sum(each.rows for each in blocks)
    frame = FeatureFrame(
        rows,
        _joined_columns([each.frame.columns for each in blocks]),
        _joined_lines([each.frame.statuses for each in blocks]),
        _joined_lines([each.frame.event_times for each in blocks]),
    )
    return AnsweredBlock(
        endpoint=first.endpoint,
        bundle=first.bundle,
        key_names=first.key_names,
        requests=list(chain.from_iterable(each.requests for each in blocks)),
        prediction_ids=list(chain.from_iterable(each.prediction_ids for each in blocks)),
        positions=np.concatenate([each.positions for each in blocks]),
        twins=list(chain.from_iterable(each.twins for each in blocks)),
        given=_joined_columns([each.given for each in blocks]),
        frame=frame,
        tensor=None
        if first.tensor is None
        else np.concatenate([each.tensor for each in blocks if each.tensor is not None]),
        outputs={name: np.concatenate([each.outputs[name] for each in blocks]) for name in first.outputs},
        labels=list(chain.from_iterable(each.labels for each in blocks)),
        probabilities=np.concatenate([each.probabilities for each in blocks]),
        kept_digests=list(chain.from_iterable(each.kept_digests for each in blocks)),
        sampled=_joined_samples(blocks),
    )


def _joined_samples(blocks: Sequence[AnsweredBlock]) -> NDArray[np.uint8] | None:
    if all(each.sampled is None for each in blocks):
        return None
    return np.concatenate(
        [np.zeros(each.rows, dtype=np.uint8) if each.sampled is None else each.sampled for each in blocks]
    )


def _joined_columns(parts: Sequence[Mapping[str, Column]]) -> Mapping[str, Column]:
    tables = [part for part in parts if isinstance(part, ColumnTable)]
    if len(tables) < len(parts):
        return {
            name: Column(
                column.dtype,
                np.concatenate([part[name].values for part in parts]),
                np.concatenate([part[name].valid for part in parts]),
            )
            for name, column in parts[0].items()
        }
    layout = tables[0].layout
    return ColumnTable(
        layout,
        [np.concatenate([each.value_blocks[place] for each in tables], axis=1) for place in range(len(layout.blocks))],
        [np.concatenate([each.valid_blocks[place] for each in tables], axis=1) for place in range(len(layout.blocks))],
        sum(each.rows for each in tables),
    )


def _joined_lines(parts: Sequence[Mapping[str, NDArray[Any]]]) -> Mapping[str, NDArray[Any]]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _contract_columns(block: AnsweredBlock) -> dict[str, Any]:
    """Columns whose names come from the bundle's contract."""
    rows = len(block.prediction_ids)
    columns: dict[str, Any] = {}
    for name, column in block.given.items():
        prefix = "key" if name in block.key_names else "request"
        columns[f"{prefix}.{name}"] = column_to_arrow(column)
    names = pa.array([str(status) for status in STATUS_CODES], _TEXT)
    for name, column in block.frame.columns.items():
        columns[f"feature.{name}"] = column_to_arrow(column)
        codes = pa.array(block.frame.statuses[name].astype(np.int8))
        columns[f"status.{name}"] = pa.DictionaryArray.from_arrays(codes, names, safe=False)
    for view, times in block.frame.event_times.items():
        columns[f"event_time.{view}"] = pa.array(times, mask=times == NO_EVENT_TIME).cast(TIMESTAMP)
    for name, values in block.outputs.items():
        width = values.shape[1] if values.ndim == 2 else 1
        flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).ravel(), from_pandas=False)
        columns[f"output.{name}"] = pa.ListArray.from_arrays(_offsets(rows, width), flat)
    return columns


def _stored_type(arrow_type: Any) -> Any:
    return arrow_type.value_type if pa.types.is_dictionary(arrow_type) else arrow_type


def _constant(value: str, rows: int) -> Any:
    return _repeating([value], np.zeros(rows, dtype=np.int32))


def _repeating(values: Sequence[str | None], of_request: NDArray[np.int32]) -> Any:
    """The value of each row's request, dictionary-encoded."""
    return pa.array(values, _TEXT).dictionary_encode().take(pa.array(of_request))


def _samples(codes: NDArray[np.uint8] | None, rows: int) -> Any:
    """Which samples each row is in, by name; of one type also where no row is in any, as blocks are put together."""
    if codes is None:
        return pa.nulls(rows, pa.dictionary(pa.int32(), _TEXT))
    names = pa.array(SAMPLES, _TEXT).dictionary_encode()
    return names.take(pa.array(np.minimum(codes, len(SAMPLES) - 1).astype(np.int32)))


def _known(texts: Sequence[str], rows: int) -> Any:
    """Texts as a column, null where one is empty."""
    return pa.array([each or None for each in texts], _TEXT) if any(texts) else pa.nulls(rows, _TEXT)


def _days(moments: NDArray[np.int64]) -> Any:
    days, codes = np.unique(moments // DAY_US, return_inverse=True)
    names = pa.array([day_of(int(day) * DAY_US) for day in days], _TEXT)
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32).ravel()), names, safe=False)


def _bytes_of_rows(tensor: NDArray[np.float32]) -> Any:
    """Each row's little-endian bytes, over the memory of the tensor."""
    data = np.ascontiguousarray(tensor, dtype="<f4")
    offsets = _offsets(len(data), data.shape[1] * data.itemsize)
    return pa.Array.from_buffers(pa.binary(), len(data), [None, offsets.buffers()[1], pa.py_buffer(data)])


def _offsets(rows: int, width: int) -> Any:
    return pa.array(np.arange(rows + 1, dtype=np.int32) * np.int32(width))


def _maps(maps: Sequence[Mapping[str, float]], of_request: NDArray[np.int32]) -> Any:
    """The map of each row's request."""
    sizes = np.array([0, *map(len, maps)], dtype=np.int32).cumsum(dtype=np.int32)
    keys = pa.array(list(chain.from_iterable(maps)), _TEXT)
    items = pa.array(list(chain.from_iterable(each.values() for each in maps)), pa.float64())
    of_requests = pa.MapArray.from_arrays(pa.array(sizes), keys, items)
    return of_requests if len(of_request) == len(maps) else of_requests.take(pa.array(of_request))
