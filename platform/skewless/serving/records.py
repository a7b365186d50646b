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
from skewless.dtypes import ELEMENTS, TABLE, Column, Dtype, array_of
from skewless.errors import InvalidDefinition
from skewless.features.frame import FeatureFrame
from skewless.serving.role_tally import RoleTally

NORMAL_RUNG = "normal"
_FORMAT = 2
_FORMATS = (1, _FORMAT)
"""Format 1 knew no arms, twins and tallies; spool files of an older gateway are still read."""


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
        "given": {name: _plain_column(column) for name, column in batch.given.items()},
        "columns": {name: _plain_column(column) for name, column in frame.columns.items()},
        "statuses": {name: codes.tobytes() for name, codes in frame.statuses.items()},
        "event_times": {view: times.astype("<i8", copy=False).tobytes() for view, times in frame.event_times.items()},
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
        {name: _column(column) for name, column in plain["columns"].items()},
        {name: np.frombuffer(codes, dtype=np.uint8) for name, codes in plain["statuses"].items()},
        {view: np.frombuffer(times, dtype="<i8") for view, times in plain["event_times"].items()},
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
        given={name: _column(column) for name, column in plain["given"].items()},
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


def _plain_column(column: Column) -> list[Any]:
    """[dtype, values, valid]: numbers as their bytes, strings and bytes as a list."""
    is_object = column.values.dtype.hasobject
    values: object = column.values.tolist() if is_object else column.values.tobytes()
    return [column.dtype.value, values, column.valid.tobytes()]


def _column(plain: list[Any]) -> Column:
    dtype = Dtype(plain[0])
    numpy_dtype = TABLE[dtype].numpy
    if numpy_dtype.hasobject:
        listed = [tuple(item) for item in plain[1]] if dtype in ELEMENTS else plain[1]
        values = array_of(dtype, listed)
    else:
        values = np.frombuffer(plain[1], dtype=numpy_dtype)
    return Column(dtype, values, np.frombuffer(plain[2], dtype=np.bool_))


def _plain_matrix(matrix: NDArray[np.float32]) -> bytes:
    return matrix.astype("<f4", copy=False).tobytes()


def _matrix(data: bytes, rows: int) -> NDArray[np.float32]:
    return np.frombuffer(data, dtype="<f4").reshape(rows, -1)
