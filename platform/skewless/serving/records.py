"""What the prediction log keeps: one record per answered prediction, one per outcome.

The data plane hands over a whole request at once, as the arrays it already has (`AnsweredBatch`), so that
logging costs a request one append. Bytes are made by `encode` on the log's own thread; `decode` is its inverse,
bit for bit. At rest a batch becomes one Parquet row per prediction, with these columns:

    prediction_id string, as_of timestamp, endpoint string, bundle_digest string, role string,
    experiment string, arm string (null where the role is no arm), live_prediction_id string (of a shadow: whose twin
    it is; null otherwise), rung string, request_id string, row int32 (position in its request), label string,
    probability float,
    tensor binary (the row's float32 values, little-endian), tensor_digest string (SHA-256 of `tensor`),
    stage_ms map<string, double>,
    key.<join key>, request.<field>, feature.<view__feature>: the dtype's Arrow type, after policies
    status.<view__feature> string, event_time.<view> timestamp (null: no row of the view),
    output.<output> list<float>

Outcomes: prediction_id string, label string, outcome_time timestamp (null: not told), received_time timestamp.

Tallies, while an endpoint's traffic is split or mirrored (`serving/role_tally.py`): endpoint string, role string,
bundle_digest string, start timestamp, end timestamp, tally string (JSON).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from skewless.canonical_json import Digest
from skewless.column_table import ColumnLayout, ColumnTable
from skewless.dtypes import ELEMENTS, TABLE, Column, Dtype, array_of
from skewless.errors import InvalidDefinition
from skewless.features.frame import FeatureFrame, Lines
from skewless.serving.role_tally import RoleTally

NORMAL_RUNG = "normal"
_FORMAT = 3
_FORMATS = (1, 2, _FORMAT)
"""Format 1 knew no arms, twins and tallies, formats 1 and 2 kept column by column what is now kept in blocks of one
dtype, which takes a fifth of the time. Spool files of an older gateway are still read."""


@dataclass(slots=True)
class AnsweredBatch:
    """Everything about the rows of one request that one bundle scored. Arrays are shared and never written again.

    Not frozen, because making it would take three times as long, and one is made for every request.

    `given` has a Column (rows,) per join key and request field; `key_names` says which of them are join keys.
    `tensor` is (rows, features); `outputs` has (rows, columns) per model output. `as_of` is in µs.
    """

    endpoint: str
    bundle: Digest
    role: str
    rung: str
    request_id: str
    as_of: int
    prediction_ids: Sequence[str]
    key_names: Sequence[str]
    given: Mapping[str, Column]
    frame: FeatureFrame
    tensor: NDArray[np.float32]
    outputs: Mapping[str, NDArray[np.float32]]
    labels: Sequence[str]
    probabilities: NDArray[np.float32]
    stage_ms: Mapping[str, float]
    experiment: str = ""
    """Empty where the role is no arm of one."""
    arm: str = ""
    """Of the experiment."""
    positions: NDArray[np.intp] | None = None
    """Which rows of the request these are, ascending; None: all of them."""
    twins: Sequence[str] = ()
    """Of a shadow: per row the id of the live prediction that it stands beside."""
    reasons: Sequence[str] = ()
    """Why it was not answered on the normal rung; for the receipt, and not kept in the log."""
    known_age_s: float | None = None
    """How long ago the oldest of the features was read that stand in; None where none do. Not kept in the log."""

    @property
    def rows(self) -> int:
        """Predictions in the batch."""
        return len(self.prediction_ids)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What turned out for one prediction. Times in µs; `outcome_time` is None where the caller did not say."""

    prediction_id: str
    label: str
    outcome_time: int | None
    received_time: int


@dataclass(frozen=True, slots=True)
class TallyBatch:
    """Tallies that one gateway wrote at once, as documents: another version's must not stop a segment's reading."""

    documents: tuple[Mapping[str, Any], ...]

    @classmethod
    def of(cls, tallies: Sequence[RoleTally]) -> "TallyBatch":
        """Tallies as they are kept."""
        return cls(tuple(each.to_json() for each in tallies))


LogEntry = AnsweredBatch | tuple[Outcome, ...] | TallyBatch
"""One unit of the log: a bundle's part of a request, outcomes that came together, or tallies."""


def entry_rows(entry: LogEntry) -> int:
    """How many records an entry holds."""
    if isinstance(entry, AnsweredBatch):
        return entry.rows
    return len(entry.documents) if isinstance(entry, TallyBatch) else len(entry)


def tensor_digest(row: NDArray[np.float32]) -> str:
    """SHA-256 of one row of model input, over its little-endian float32 bytes."""
    return hashlib.sha256(row.astype("<f4", copy=False).tobytes()).hexdigest()


def encode(entry: LogEntry) -> bytes:
    """One self-contained MessagePack document."""
    if isinstance(entry, tuple):
        rows = [[each.prediction_id, each.label, each.outcome_time, each.received_time] for each in entry]
        return msgspec.msgpack.encode({"format": _FORMAT, "outcomes": rows})
    if isinstance(entry, TallyBatch):
        return msgspec.msgpack.encode({"format": _FORMAT, "tallies": list(entry.documents)})
    return msgspec.msgpack.encode({"format": _FORMAT, "batch": _plain_batch(entry)})


def decode(data: bytes) -> LogEntry:
    """The inverse of `encode`. Raises InvalidDefinition for a document of another format."""
    try:
        document = msgspec.msgpack.decode(data)
        if document["format"] not in _FORMATS:
            raise InvalidDefinition(
                f"log entries of format {document['format']} cannot be read; known: {', '.join(map(str, _FORMATS))}"
            )
        if "outcomes" in document:
            return tuple(Outcome(*row) for row in document["outcomes"])
        if "tallies" in document:
            return TallyBatch(tuple(document["tallies"]))
        return _batch(document["batch"])
    except (msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
        raise InvalidDefinition(f"this is not a log entry: {error!r}") from error


def _plain_batch(batch: AnsweredBatch) -> dict[str, Any]:
    frame = batch.frame
    return {
        "endpoint": batch.endpoint,
        "bundle": batch.bundle,
        "role": str(batch.role),
        "rung": batch.rung,
        "request_id": batch.request_id,
        "as_of": batch.as_of,
        "prediction_ids": list(batch.prediction_ids),
        "key_names": list(batch.key_names),
        "given": _plain_table(batch.given, batch.rows),
        "columns": _plain_table(frame.columns, batch.rows),
        "statuses": _plain_lines(frame.statuses, "u1"),
        "event_times": _plain_lines(frame.event_times, "<i8"),
        "tensor": _plain_matrix(batch.tensor),
        "outputs": {name: _plain_matrix(values) for name, values in batch.outputs.items()},
        "labels": list(batch.labels),
        "probabilities": batch.probabilities.astype("<f4", copy=False).tobytes(),
        "stage_ms": dict(batch.stage_ms),
        "experiment": batch.experiment,
        "arm": batch.arm,
        "positions": None if batch.positions is None else batch.positions.astype("<i8", copy=False).tobytes(),
        "twins": list(batch.twins),
    }


def _batch(plain: dict[str, Any]) -> AnsweredBatch:
    rows = len(plain["prediction_ids"])
    positions = plain.get("positions")
    frame = FeatureFrame(
        rows,
        _columns(plain["columns"], rows),
        _lines(plain["statuses"], "u1", rows),
        _lines(plain["event_times"], "<i8", rows),
    )
    return AnsweredBatch(
        endpoint=plain["endpoint"],
        bundle=Digest(plain["bundle"]),
        role=plain["role"],
        rung=plain["rung"],
        request_id=plain["request_id"],
        as_of=plain["as_of"],
        prediction_ids=plain["prediction_ids"],
        key_names=plain["key_names"],
        given=_columns(plain["given"], rows),
        frame=frame,
        tensor=_matrix(plain["tensor"], rows),
        outputs={name: _matrix(data, rows) for name, data in plain["outputs"].items()},
        labels=plain["labels"],
        probabilities=np.frombuffer(plain["probabilities"], dtype="<f4"),
        stage_ms=plain["stage_ms"],
        experiment=plain.get("experiment", ""),
        arm=plain.get("arm", ""),
        positions=None if positions is None else np.frombuffer(positions, dtype="<i8").astype(np.intp, copy=False),
        twins=plain.get("twins", ()),
    )


def _plain_table(columns: Mapping[str, Column], rows: int) -> list[Any]:
    """Per block [dtype, names, values, valid]: numbers as their bytes, strings and bytes as a list, line after line."""
    table = columns if isinstance(columns, ColumnTable) else ColumnTable.from_columns(columns, rows)
    return [
        [dtype.value, names, values.ravel().tolist() if values.dtype.hasobject else values.tobytes(), valid.tobytes()]
        for (dtype, names), values, valid in zip(
            table.layout.blocks, table.value_blocks, table.valid_blocks, strict=True
        )
    ]


def _columns(plain: Any, rows: int) -> Mapping[str, Column]:
    """The inverse of `_plain_table`; formats 1 and 2 kept a dictionary of columns."""
    if isinstance(plain, dict):
        return {name: Column(*_arrays(*column, shape=(rows,))) for name, column in plain.items()}
    blocks = [_arrays(dtype, values, valid, shape=(len(names), rows)) for dtype, names, values, valid in plain]
    layout = ColumnLayout(
        tuple((dtype, tuple(names)) for (dtype, _, _), (_, names, _, _) in zip(blocks, plain, strict=True))
    )
    return ColumnTable(layout, [values for _, values, _ in blocks], [valid for _, _, valid in blocks], rows)


def _arrays(
    named: str, given: Any, known: bytes, *, shape: tuple[int, ...]
) -> tuple[Dtype, NDArray[np.generic], NDArray[np.bool_]]:
    """Dtype, values and validity of a column or block."""
    dtype = Dtype(named)
    numpy_dtype = TABLE[dtype].numpy
    if numpy_dtype.hasobject:
        values = array_of(dtype, [tuple(item) for item in given] if dtype in ELEMENTS else given)
    else:
        values = np.frombuffer(given, dtype=numpy_dtype)
    return dtype, values.reshape(shape), np.frombuffer(known, dtype=np.bool_).reshape(shape)


def _plain_lines(lines: Mapping[str, NDArray[Any]], dtype: str) -> list[Any]:
    """[names, the bytes of all lines one after the other]."""
    if isinstance(lines, Lines) and len(lines) == len(lines.matrix):
        return [list(lines), lines.matrix.astype(dtype, copy=False).tobytes()]
    return [list(lines), b"".join(line.astype(dtype, copy=False).tobytes() for line in lines.values())]


def _lines(plain: Any, dtype: str, rows: int) -> Mapping[str, NDArray[Any]]:
    """The inverse of `_plain_lines`; formats 1 and 2 kept a dictionary of lines."""
    if isinstance(plain, dict):
        return {name: np.frombuffer(line, dtype=dtype) for name, line in plain.items()}
    names, data = plain
    return Lines(
        {name: line for line, name in enumerate(names)}, np.frombuffer(data, dtype=dtype).reshape(len(names), rows)
    )


def _plain_matrix(matrix: NDArray[np.float32]) -> bytes:
    return matrix.astype("<f4", copy=False).tobytes()


def _matrix(data: bytes, rows: int) -> NDArray[np.float32]:
    return np.frombuffer(data, dtype="<f4").reshape(rows, -1)
