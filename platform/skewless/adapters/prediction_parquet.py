"""The prediction log at rest: Parquet files by day and endpoint, in the columns that `serving/records.py` names.

    <folder>/predictions/day=2013-05-01/endpoint=flight-delay/<segment>-<bundle>.parquet
    <folder>/outcomes/day=2013-05-01/<segment>.parquet                        (day: when the outcome was received)
    <folder>/tallies/day=2026-11-21/<segment>.parquet                         (day: when the tally ends)

File names follow from the segment alone, so writing a segment again after a crash replaces and never duplicates.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from skewless.adapters.arrow_columns import column_to_arrow
from skewless.dtypes import Column
from skewless.durability import sync
from skewless.features.frame import NO_EVENT_TIME, STATUS_CODES
from skewless.serving.records import AnsweredBatch, LogEntry, Outcome, TallyBatch, tensor_digest
from skewless.timestamps import format_timestamp

PREDICTIONS = "predictions"
OUTCOMES = "outcomes"
TALLIES = "tallies"
TIMESTAMP = pa.timestamp("us", tz="UTC")
_BUNDLE_CHARACTERS = 12

OUTCOME_SCHEMA = pa.schema(
    [
        ("prediction_id", pa.string()),
        ("label", pa.string()),
        ("outcome_time", TIMESTAMP),
        ("received_time", TIMESTAMP),
    ]
)
TALLY_SCHEMA = pa.schema(
    [
        ("endpoint", pa.string()),
        ("role", pa.string()),
        ("bundle_digest", pa.string()),
        ("start", TIMESTAMP),
        ("end", TIMESTAMP),
        ("tally", pa.string()),
    ]
)


def write_segment(folder: Path, segment: str, entries: Iterable[LogEntry]) -> None:
    """Write everything of one segment, each file renamed into place once it is on the disk. Raises OSError."""
    batches: dict[tuple[str, str, str], list[AnsweredBatch]] = {}
    outcomes: dict[str, list[Outcome]] = {}
    tallies: dict[str, list[Mapping[str, Any]]] = {}
    for entry in entries:
        if isinstance(entry, AnsweredBatch):
            batches.setdefault((day_of(entry.as_of), entry.endpoint, entry.bundle), []).append(entry)
        elif isinstance(entry, TallyBatch):
            for tally in entry.documents:
                tallies.setdefault(day_of(tally["end"]), []).append(tally)
        else:
            for outcome in entry:
                outcomes.setdefault(day_of(outcome.received_time), []).append(outcome)
    for (day, endpoint, bundle), of_bundle in batches.items():
        name = f"{segment}-{bundle[:_BUNDLE_CHARACTERS]}.parquet"
        _write(prediction_table(of_bundle), folder / PREDICTIONS / f"day={day}" / f"endpoint={endpoint}" / name)
    for day, of_day in outcomes.items():
        _write(outcome_table(of_day), folder / OUTCOMES / f"day={day}" / f"{segment}.parquet")
    for day, tallied in tallies.items():
        _write(tally_table(tallied), folder / TALLIES / f"day={day}" / f"{segment}.parquet")


def day_of(moment: int) -> str:
    """The UTC day of microseconds since 1970.

    >>> day_of(0)
    '1970-01-01'
    """
    return format_timestamp(moment)[:10]


def segment_of(path: Path) -> str:
    """The segment that a Parquet file belongs to."""
    return path.stem.split("-", 1)[0]


def bundle_of(path: Path) -> str:
    """The first digits of the digest of the bundle whose predictions a Parquet file has."""
    return path.stem.split("-", 1)[1]


def prediction_table(batches: Sequence[AnsweredBatch]) -> Any:
    """One row per prediction, of batches of one bundle."""
    first = batches[0]
    tensor = np.concatenate([batch.tensor for batch in batches]).astype("<f4", copy=False)
    columns: dict[str, Any] = {
        "prediction_id": pa.array([each for batch in batches for each in batch.prediction_ids], pa.string()),
        "as_of": pa.array(_per_row(batches, [batch.as_of for batch in batches]), TIMESTAMP),
        "endpoint": pa.array(_per_row(batches, [batch.endpoint for batch in batches]), pa.string()),
        "bundle_digest": pa.array(_per_row(batches, [batch.bundle for batch in batches]), pa.string()),
        "role": pa.array(_per_row(batches, [str(batch.role) for batch in batches]), pa.string()),
        "experiment": pa.array(_per_row(batches, [batch.experiment or None for batch in batches]), pa.string()),
        "arm": pa.array(_per_row(batches, [batch.arm or None for batch in batches]), pa.string()),
        "live_prediction_id": pa.array([twin for batch in batches for twin in _twins(batch)], pa.string()),
        "rung": pa.array(_per_row(batches, [batch.rung for batch in batches]), pa.string()),
        "request_id": pa.array(_per_row(batches, [batch.request_id for batch in batches]), pa.string()),
        "row": pa.array(np.concatenate([_positions(batch) for batch in batches])),
        "label": pa.array([label for batch in batches for label in batch.labels], pa.string()),
        "probability": pa.array(np.concatenate([batch.probabilities for batch in batches])),
        "tensor": pa.array([row.tobytes() for row in tensor], pa.binary()),
        "tensor_digest": pa.array([tensor_digest(row) for row in tensor], pa.string()),
        "stage_ms": pa.array(
            _per_row(batches, [list(batch.stage_ms.items()) for batch in batches]), pa.map_(pa.string(), pa.float64())
        ),
    }
    for name in first.given:
        prefix = "key" if name in first.key_names else "request"
        columns[f"{prefix}.{name}"] = _arrow_column([batch.given[name] for batch in batches])
    for name in first.frame.columns:
        columns[f"feature.{name}"] = _arrow_column([batch.frame.columns[name] for batch in batches])
        columns[f"status.{name}"] = _statuses([batch.frame.statuses[name] for batch in batches])
    for view in first.frame.event_times:
        times = np.concatenate([batch.frame.event_times[view] for batch in batches])
        columns[f"event_time.{view}"] = pa.array(times, mask=times == NO_EVENT_TIME).cast(TIMESTAMP)
    for name in first.outputs:
        columns[f"output.{name}"] = pa.array(
            list(np.concatenate([batch.outputs[name] for batch in batches])), pa.list_(pa.float32())
        )
    return pa.table(columns)


def outcome_table(outcomes: Sequence[Outcome]) -> Any:
    """One row per outcome."""
    rows: Mapping[str, list[object]] = {
        name: [getattr(each, name) for each in outcomes] for name in OUTCOME_SCHEMA.names
    }
    return pa.table(dict(rows), schema=OUTCOME_SCHEMA)


def tally_table(tallies: Sequence[Mapping[str, Any]]) -> Any:
    """One row per tally."""
    rows = [
        {
            "endpoint": each["endpoint"],
            "role": each["role"],
            "bundle_digest": each["bundle"],
            "start": each["start"],
            "end": each["end"],
            "tally": json.dumps(each),
        }
        for each in tallies
    ]
    return pa.Table.from_pylist(rows, schema=TALLY_SCHEMA)


def _positions(batch: AnsweredBatch) -> NDArray[np.int32]:
    return (np.arange(batch.rows) if batch.positions is None else batch.positions).astype(np.int32)


def _twins(batch: AnsweredBatch) -> Sequence[str | None]:
    return batch.twins or [None] * batch.rows


def read_table(path: Path, columns: Sequence[str] | None = None) -> Any:
    """One file as it was written, or some of its columns; partition names in its path add none."""
    with pq.ParquetFile(path) as file:
        return file.read(columns=columns)


def _per_row(batches: Sequence[AnsweredBatch], values: Sequence[object]) -> list[object]:
    """Each batch's value once per row of it."""
    return [value for batch, value in zip(batches, values, strict=True) for _ in range(batch.rows)]


def _arrow_column(columns: Sequence[Column]) -> Any:
    """Columns of one dtype end to end, nulls as Arrow nulls and NaN as NaN."""
    values = np.concatenate([column.values for column in columns])
    valid = np.concatenate([column.valid for column in columns])
    return column_to_arrow(Column(columns[0].dtype, values, valid))


def _statuses(codes: Sequence[NDArray[np.uint8]]) -> Any:
    """Dictionary-encoded status names, read back as plain strings by engines that know no dictionaries."""
    names = pa.array([str(status) for status in STATUS_CODES], pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(np.concatenate(codes).astype(np.int8)), names)


def _write(table: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    incoming = path.with_name(f".{path.name}.incoming")
    pq.write_table(table, incoming, compression="zstd")
    sync(incoming)
    incoming.replace(path)
    sync(path.parent)
