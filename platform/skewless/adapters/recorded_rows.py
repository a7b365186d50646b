"""Rows of the prediction log as what a replay recomputes and tells, and as bytes that go from process to process."""

import base64
import math
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from skewless.adapters.arrow_columns import column_from_arrow
from skewless.bundles.bundle import Bundle
from skewless.canonical_json import Digest
from skewless.features.contract import FeatureContract, LogMark
from skewless.features.frame import NO_EVENT_TIME, STATUS_CODE
from skewless.features.visibility import Status
from skewless.replays.account import OutcomeTold, RecordedFacts, RecordedValue
from skewless.replays.recorded import RecordedRows
from skewless.serving.log_privacy import log_marks
from skewless.timestamps import format_timestamp, to_micros

_FACTS = (
    "prediction_id",
    "endpoint",
    "bundle_digest",
    "role",
    "experiment",
    "arm",
    "live_prediction_id",
    "rung",
    "caller",
    "request_id",
    "row",
    "label",
    "probability",
    "tensor",
    "tensor_digest",
    "stage_ms",
)
_KINDS = {"key": "join key", "request": "request field", "feature": "feature"}
_ABSENT = "the log has no such column"
_MARKED = {LogMark.HASH: "it is hashed in the log", LogMark.OMIT: "it is left out of the log"}


def to_bytes(table: Any) -> bytes:
    """A log table as an Arrow stream. Slices take along what is theirs alone."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    written: bytes = sink.getvalue().to_pybytes()
    return written


def from_bytes(data: bytes) -> Any:
    """The inverse of `to_bytes`."""
    with pa.ipc.open_stream(data) as reader:
        return reader.read_all()


def bundles_of(table: Any) -> list[Digest]:
    """The bundles that answered the rows of a log table, in order of first use."""
    return [Digest(each) for each in table.column("bundle_digest").unique().to_pylist()]


def by_bundle(table: Any) -> Iterator[tuple[Digest, NDArray[np.intp], Any]]:
    """(bundle, places of its rows in the table (rows,), table of them) for each bundle that answered rows."""
    digests = table.column("bundle_digest")
    for digest in bundles_of(table):
        mask = pc.equal(digests, digest)
        yield digest, np.flatnonzero(mask.to_numpy()), table.filter(mask)


def not_kept(contract: FeatureContract) -> dict[str, str]:
    """Columns of a contract that the log does not hold as they were, and why."""
    return {name: _MARKED[mark] for name, mark in log_marks(contract).items()}


def recorded_rows(table: Any, bundle: Bundle, wanted: Iterable[str]) -> RecordedRows:
    """Rows that one bundle answered; of its contract's columns those in `wanted`, as far as the log keeps them."""
    contract = bundle.contract
    lost = not_kept(contract)
    columns, statuses, event_times = {}, {}, {}
    wanted = set(wanted)
    log_names = log_names_of(contract)
    views = contract.view_of_column
    for name, dtype in contract.columns:
        if name not in wanted:
            continue
        if log_names[name] not in table.column_names:
            lost.setdefault(name, _ABSENT)
        if name in lost:
            continue
        columns[name] = column_from_arrow(table.column(log_names[name]), dtype)
        if name in views:
            statuses[name] = _status_codes(table.column(f"status.{name}"))
            event_times[views[name]] = _micros(table.column(f"event_time.{views[name]}"))
    return RecordedRows(
        bundle=bundle.digest,
        prediction_ids=table.column("prediction_id").to_pylist(),
        as_of=_micros(table.column("as_of")),
        roles=table.column("role").to_pylist(),
        rungs=table.column("rung").to_pylist(),
        columns=columns,
        statuses=statuses,
        event_times=event_times,
        tensors=table.column("tensor").to_pylist(),
        tensor_digests=table.column("tensor_digest").to_pylist(),
        outputs={name: _matrix(table, name, width) for name, width in bundle.signature.outputs},
        labels=table.column("label").to_pylist(),
        probabilities=table.column("probability").to_numpy().astype(np.float32),
        not_kept=lost,
    )


def log_names_of(contract: FeatureContract) -> dict[str, str]:
    """What each column of a contract is called in the log."""
    keys = {key.name for key in contract.join_keys}
    fields = {field.name for field in contract.request_fields}
    return {
        name: f"{'key' if name in keys else 'request' if name in fields else 'feature'}.{name}"
        for name, _ in contract.columns
    }


def facts_of(table: Any) -> RecordedFacts:
    """How the prediction of a log table's first row came about."""
    told = {name: table.column(name)[0].as_py() for name in _FACTS if name in table.column_names}
    return RecordedFacts(
        prediction_id=told["prediction_id"],
        as_of=int(_micros(table.column("as_of"))[0]),
        endpoint=told["endpoint"],
        bundle=told["bundle_digest"],
        role=told["role"],
        experiment=told.get("experiment"),
        arm=told.get("arm"),
        live_prediction_id=told.get("live_prediction_id"),
        rung=told["rung"],
        caller=told.get("caller") or None,
        request_id=told["request_id"],
        row=told["row"],
        label=told["label"],
        probability=told["probability"],
        tensor_digest=told["tensor_digest"],
        tensor_kept=told["tensor"] is not None,
        stage_ms=dict(told["stage_ms"] or ()),
    )


def values_of(table: Any) -> list[RecordedValue]:
    """What the prediction of a log table's first row was made of, as JSON can hold it, in the order of the log."""
    found = []
    for column in table.column_names:
        prefix, _, name = column.partition(".")
        if prefix not in _KINDS:
            continue
        status, event_time = "", None
        if prefix == "feature":
            if (status := table.column(f"status.{name}")[0].as_py()) is None:
                continue  # a column of another bundle
            event_time = _event_time(table, name)
        found.append(RecordedValue(_KINDS[prefix], name, _plain(table.column(column)[0].as_py()), status, event_time))
    return found


def outcomes_of(table: Any) -> dict[str, OutcomeTold]:
    """Final outcomes by prediction id."""
    columns = [table.column(name).to_pylist() for name in ("prediction_id", "label")]
    times = [table.column(name).cast(pa.int64()).to_pylist() for name in ("outcome_time", "received_time")]
    return {
        prediction_id: OutcomeTold(
            label, None if happened is None else format_timestamp(happened), format_timestamp(told)
        )
        for prediction_id, label, happened, told in zip(*columns, *times, strict=True)
    }


def outputs_of(table: Any) -> dict[str, list[float]]:
    """The model outputs of a log table's first row."""
    names = [each for each in table.column_names if each.startswith("output.")]
    listed = {name.removeprefix("output."): table.column(name)[0].as_py() for name in names}
    return {name: values for name, values in listed.items() if values is not None}


def _event_time(table: Any, feature: str) -> int | None:
    """Of the view whose name the column begins with; the longest such name, since views may contain `__`."""
    views = [each.removeprefix("event_time.") for each in table.column_names if each.startswith("event_time.")]
    own = max((view for view in views if feature.startswith(f"{view}__")), key=len, default=None)
    if own is None:
        return None
    moment = int(_micros(table.column(f"event_time.{own}"))[0])
    return None if moment == NO_EVENT_TIME else moment


def _plain(value: object) -> object:
    """A value of Arrow's as JSON can hold it: RFC 3339 for times, base64 for bytes, words for what is not finite."""
    if isinstance(value, datetime):
        return format_timestamp(to_micros(value))
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _micros(column: Any) -> NDArray[np.int64]:
    found: NDArray[np.int64] = column.cast(pa.int64()).fill_null(NO_EVENT_TIME).to_numpy().astype(np.int64)
    return found


def _status_codes(column: Any) -> NDArray[np.uint8]:
    encoded = _one_array(column.cast(pa.string())).dictionary_encode()
    codes = np.array([STATUS_CODE[Status(text)] for text in encoded.dictionary.to_pylist()], dtype=np.uint8)
    found: NDArray[np.uint8] = codes[encoded.indices.to_numpy()]
    return found


def _matrix(table: Any, output: str, width: int) -> NDArray[np.float32]:
    """A model output (rows, width); NaN in a row that has another width than the bundle's model gives."""
    column = _one_array(table.column(f"output.{output}"))
    if pc.all(pc.equal(pc.list_value_length(column).fill_null(-1), width)).as_py():
        flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
        return np.ascontiguousarray(flat.reshape(len(column), width))
    matrix = np.full((len(column), width), np.nan, dtype=np.float32)
    for row, values in enumerate(column.to_pylist()):
        if values is not None and len(values) == width:
            matrix[row] = values
    return matrix


def _one_array(column: Any) -> Any:
    """A chunked array as one; where it has no chunk, an empty array."""
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
