"""What is handed to the prediction log, made into frames: once per flush, on the log's own thread.

entries → groups    what came within a flush, sorted by bundle and layout              `groups`
group   → block     the arrays of its batches end to end                               `block`
block   → frame     one MessagePack document; names of columns stand in it once        `encode`
frame   → block     bit for bit, also from frames of an older gateway                  `decode`
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from skewless.canonical_json import Digest
from skewless.column_table import ColumnLayout, ColumnTable, layout_of
from skewless.dtypes import ELEMENTS, TABLE, Column, Dtype, array_of
from skewless.errors import InvalidDefinition
from skewless.features.frame import FeatureFrame, Lines
from skewless.limits import LOG_BLOCK_ROWS_ALONE, LOG_BLOCK_ROWS_MAX
from skewless.serving.answered_block import NO_PRIVACY, AnsweredBlock, LoggedRequest
from skewless.serving.log_privacy import LogPrivacy
from skewless.serving.log_sampling import NO_SAMPLING, LogSampling
from skewless.serving.records import AnsweredBatch, LogEntry, Outcome, TallyBatch

__all__ = [
    "AnsweredBlock", "LaterFormat", "LoggedEntry", "LoggedRequest", "block", "blocks", "decode", "encode", "groups",
    "logged_rows",
]  # fmt: skip
FORMAT = 5
FORMATS = (1, 2, 3, 4, FORMAT)
"""Formats 1 to 3 had a document per request: 1 knew no arms, twins and tallies, 1 and 2 kept column by column what 3
kept in tables of one dtype, none knew callers. Format 4 did not know
what was sampled. Spool files of an older gateway are still read."""

LoggedEntry = AnsweredBlock | tuple[Outcome, ...] | TallyBatch
"""What one frame of the log holds."""


class LaterFormat(InvalidDefinition):
    """A frame is of a later version than this one: it is whole, and who is upgraded can read it."""


def groups(entries: Sequence[LogEntry]) -> list[list[LogEntry]]:
    """The entries sorted into those that make one frame each, in order of their first.

    Batches of one bundle and layout come together, up to LOG_BLOCK_ROWS_MAX rows; large ones, and anything else, are
    by themselves.
    """
    found: list[list[LogEntry]] = []
    growing: dict[object, _Group] = {}
    for entry in entries:
        if not isinstance(entry, AnsweredBatch) or entry.rows >= LOG_BLOCK_ROWS_ALONE:
            found.append([entry])
            continue
        key = _layout_of(entry)
        group = growing.get(key)
        if group is None or not group.takes(entry):
            group = growing[key] = _Group(entry, [], 0)
            found.append(group.entries)
        group.entries.append(entry)
        group.rows += entry.rows
    return found


def block(
    group: Sequence[LogEntry], privacy: LogPrivacy = NO_PRIVACY, sampling: LogSampling = NO_SAMPLING
) -> LoggedEntry:
    """What the frame of one of `groups` holds."""
    batches = [entry for entry in group if isinstance(entry, AnsweredBatch)]
    if batches:
        return AnsweredBlock.of(batches, privacy, sampling)
    (entry,) = group
    assert not isinstance(entry, AnsweredBatch), "batches are grouped with batches"
    return entry


def blocks(
    entries: Sequence[LogEntry], privacy: LogPrivacy = NO_PRIVACY, sampling: LogSampling = NO_SAMPLING
) -> list[LoggedEntry]:
    """What came within one flush, as it is kept."""
    return [block(group, privacy, sampling) for group in groups(entries)]


def logged_rows(entry: LoggedEntry) -> int:
    """How many records a frame holds."""
    if isinstance(entry, AnsweredBlock):
        return entry.rows
    return len(entry.documents) if isinstance(entry, TallyBatch) else len(entry)


def encode(entry: LoggedEntry) -> bytes:
    """One self-contained MessagePack document."""
    if isinstance(entry, AnsweredBlock):
        return _ENCODER.encode(_Document(FORMAT, block=_plain_block(entry)))
    if isinstance(entry, TallyBatch):
        return _ENCODER.encode(_Document(FORMAT, tallies=list(entry.documents)))
    return _ENCODER.encode(_Document(FORMAT, outcomes=[_plain_outcome(each) for each in entry]))


def decode(frame: bytes) -> LoggedEntry:
    """The inverse of `encode`; a frame of an older format becomes a block of one request.

    Raises LaterFormat for what a later version wrote, and InvalidDefinition for what is no such document.
    """
    try:
        document = _DECODER.decode(frame)
        _refuse_unknown(document.format)
        if document.block is not None:
            return _block(document.block)
        if document.batch is not None:
            return AnsweredBlock.of([_old_batch(document.batch)])
        if document.tallies is not None:
            return TallyBatch(tuple(document.tallies))
        if document.outcomes is not None:
            return tuple(Outcome(*row) for row in document.outcomes)
    except (msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
        # Asked only now, and of the number alone: a later version may have changed the shape of all else.
        _refuse_unknown(_format_of(frame))
        raise InvalidDefinition(f"this is not a log entry: {error!r}") from error
    raise InvalidDefinition("this is not a log entry: it has no rows of any kind")


def _refuse_unknown(format_: int) -> None:
    if format_ in FORMATS:
        return
    raise (LaterFormat if format_ > FORMAT else InvalidDefinition)(
        f"log entries of format {format_} cannot be read; known: {', '.join(map(str, FORMATS))}",
        hint="read the log with the version of skewless that its gateways run",
    )


def _format_of(frame: bytes) -> int:
    """What a frame says of itself; this version's own where it says nothing."""
    try:
        return _STAMP_DECODER.decode(frame).format
    except (msgspec.DecodeError, ValueError):
        return FORMAT


# --- which batches make one block ------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Group:
    first: AnsweredBatch
    entries: list[LogEntry]
    rows: int

    def takes(self, batch: AnsweredBatch) -> bool:
        """Whether a batch of the same layout belongs here too. Lines are no part of what is looked up, because those of
        one read plan are one object, and are told by that."""
        mine, other = self.first.frame, batch.frame
        return (
            self.rows + batch.rows <= LOG_BLOCK_ROWS_MAX
            and _same_names(mine.statuses, other.statuses)
            and _same_names(mine.event_times, other.event_times)
        )


def _layout_of(batch: AnsweredBatch) -> object:
    """What batches of one block have in common, to be looked up."""
    return (
        batch.endpoint,
        batch.bundle,
        batch.tensor.shape[1],
        tuple([(name, values.shape[1]) for name, values in batch.outputs.items()]),
        tuple(batch.key_names),
        layout_of(batch.given),
        layout_of(batch.frame.columns),
        batch.marks,
    )


def _same_names(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    if isinstance(one, Lines) and isinstance(other, Lines) and one.line is other.line:
        return True
    return list(one) == list(other)


# --- documents -------------------------------------------------------------------------------------------------------


class _PlainTable(msgspec.Struct, frozen=True, array_like=True):
    """Columns of one dtype: numbers as their little-endian bytes, all else as a list, line after line."""

    dtype: Dtype
    names: tuple[str, ...]
    values: bytes | list[Any]
    valid: bytes


class _PlainLines(msgspec.Struct, frozen=True, array_like=True):
    names: list[str]
    data: bytes


class _PlainBlock(msgspec.Struct, frozen=True, array_like=True):
    endpoint: str
    bundle: str
    key_names: list[str]
    requests: list[LoggedRequest]
    prediction_ids: list[str]
    positions: bytes
    twins: list[str]
    given: list[_PlainTable]
    columns: list[_PlainTable]
    statuses: _PlainLines
    event_times: _PlainLines
    tensor: bytes | None
    tensor_digests: list[str]
    outputs: dict[str, bytes]
    labels: list[str]
    probabilities: bytes
    sampled: bytes = b""
    """A code per row; empty where no row is sampled, and before format 5."""


class _Document(msgspec.Struct, frozen=True, omit_defaults=True):
    format: int
    block: _PlainBlock | None = None
    outcomes: list[list[Any]] | None = None
    tallies: list[Mapping[str, Any]] | None = None
    batch: dict[str, Any] | None = None
    """One request, of formats 1 to 3."""


class _Stamp(msgspec.Struct, frozen=True):
    """What documents of every format have."""

    format: int


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(_Document)
_STAMP_DECODER = msgspec.msgpack.Decoder(_Stamp)


def _plain_outcome(outcome: Outcome) -> list[Any]:
    return [
        outcome.prediction_id,
        outcome.label,
        outcome.outcome_time,
        outcome.received_time,
        outcome.outcome_id,
        outcome.endpoint,
        outcome.entity,
        outcome.at,
        outcome.caller,
    ]


def _plain_block(entry: AnsweredBlock) -> _PlainBlock:
    return _PlainBlock(
        endpoint=entry.endpoint,
        bundle=entry.bundle,
        key_names=list(entry.key_names),
        requests=list(entry.requests),
        prediction_ids=list(entry.prediction_ids),
        positions=entry.positions.astype("<i4", copy=False).tobytes(),
        twins=list(entry.twins) if any(entry.twins) else [],
        given=_plain_tables(entry.given, entry.rows),
        columns=_plain_tables(entry.frame.columns, entry.rows),
        statuses=_plain_lines(entry.frame.statuses, "u1"),
        event_times=_plain_lines(entry.frame.event_times, "<i8"),
        tensor=None if entry.tensor is None else _plain_matrix(entry.tensor),
        tensor_digests=list(entry.kept_digests),
        outputs={name: _plain_matrix(values) for name, values in entry.outputs.items()},
        labels=list(entry.labels),
        probabilities=_plain_matrix(entry.probabilities),
        sampled=b"" if entry.sampled is None else entry.sampled.tobytes(),
    )


def _block(plain: _PlainBlock) -> AnsweredBlock:
    rows = len(plain.prediction_ids)
    told = [rows, len(plain.labels), sum([each.rows for each in plain.requests])]
    told += [len(plain.twins)] if plain.twins else []
    told += [len(plain.tensor_digests)] if plain.tensor is None else []
    told += [len(plain.sampled)] if plain.sampled else []
    if set(told) != {rows} or not rows:
        raise ValueError(f"its parts are not of the same {rows} predictions")
    frame = FeatureFrame(
        rows,
        _table(plain.columns, rows),
        _lines(plain.statuses.names, plain.statuses.data, "u1", rows),
        _lines(plain.event_times.names, plain.event_times.data, "<i8", rows),
    )
    return AnsweredBlock(
        endpoint=plain.endpoint,
        bundle=Digest(plain.bundle),
        key_names=plain.key_names,
        requests=plain.requests,
        prediction_ids=plain.prediction_ids,
        positions=np.frombuffer(plain.positions, dtype="<i4").reshape(rows),
        twins=plain.twins or [""] * rows,
        given=_table(plain.given, rows),
        frame=frame,
        tensor=None if plain.tensor is None else _matrix(plain.tensor, rows),
        outputs={name: _matrix(data, rows) for name, data in plain.outputs.items()},
        labels=plain.labels,
        probabilities=np.frombuffer(plain.probabilities, dtype="<f4").reshape(rows),
        kept_digests=plain.tensor_digests,
        sampled=np.frombuffer(plain.sampled, dtype=np.uint8) if plain.sampled else None,
    )


def _plain_tables(columns: Mapping[str, Column], rows: int) -> list[_PlainTable]:
    table = columns if isinstance(columns, ColumnTable) else ColumnTable.from_columns(columns, rows)
    return [
        _PlainTable(
            dtype, names, values.ravel().tolist() if values.dtype.hasobject else values.tobytes(), valid.tobytes()
        )
        for (dtype, names), values, valid in zip(
            table.layout.blocks, table.value_blocks, table.valid_blocks, strict=True
        )
    ]


def _table(plain: Sequence[_PlainTable], rows: int) -> ColumnTable:
    shapes = [(len(each.names), rows) for each in plain]
    return ColumnTable(
        ColumnLayout(tuple([(each.dtype, each.names) for each in plain])),
        [_values(each.dtype, each.values, shape) for each, shape in zip(plain, shapes, strict=True)],
        [_valid(each.valid, shape) for each, shape in zip(plain, shapes, strict=True)],
        rows,
    )


def _values(dtype: Dtype, given: Any, shape: tuple[int, ...]) -> NDArray[np.generic]:
    numpy_dtype = TABLE[dtype].numpy
    if not numpy_dtype.hasobject:
        return np.frombuffer(given, dtype=numpy_dtype).reshape(shape)
    return array_of(dtype, [tuple(item) for item in given] if dtype in ELEMENTS else given).reshape(shape)


def _valid(given: bytes, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    return np.frombuffer(given, dtype=np.bool_).reshape(shape)


def _plain_lines(lines: Mapping[str, NDArray[Any]], dtype: str) -> _PlainLines:
    """All lines one after the other."""
    if isinstance(lines, Lines) and len(lines.line) == len(lines.matrix):
        return _PlainLines(list(lines.line), lines.matrix.astype(dtype, copy=False).tobytes())
    return _PlainLines(list(lines), b"".join(line.astype(dtype, copy=False).tobytes() for line in lines.values()))


def _lines(names: Sequence[str], data: bytes, dtype: str, rows: int) -> Lines:
    matrix = np.frombuffer(data, dtype=dtype).reshape(len(names), rows)
    return Lines({name: line for line, name in enumerate(names)}, matrix)


def _plain_matrix(matrix: NDArray[np.float32]) -> bytes:
    return matrix.astype("<f4", copy=False).tobytes()


def _matrix(data: bytes, rows: int) -> NDArray[np.float32]:
    return np.frombuffer(data, dtype="<f4").reshape(rows, -1)


# --- documents of an older gateway -----------------------------------------------------------------------------------


def _old_batch(plain: dict[str, Any]) -> AnsweredBatch:
    """The request of a document of format 1 to 3."""
    rows = len(plain["prediction_ids"])
    positions = plain.get("positions")
    frame = FeatureFrame(
        rows,
        _old_columns(plain["columns"], rows),
        _old_lines(plain["statuses"], "u1", rows),
        _old_lines(plain["event_times"], "<i8", rows),
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
        given=_old_columns(plain["given"], rows),
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


def _old_columns(plain: Any, rows: int) -> Mapping[str, Column]:
    """Format 3 kept tables, formats 1 and 2 a dictionary of columns."""
    if isinstance(plain, dict):
        return {
            name: Column(Dtype(dtype), _values(Dtype(dtype), values, (rows,)), _valid(valid, (rows,)))
            for name, (dtype, values, valid) in plain.items()
        }
    return _table([_PlainTable(Dtype(dtype), tuple(names), *rest) for dtype, names, *rest in plain], rows)


def _old_lines(plain: Any, dtype: str, rows: int) -> Mapping[str, NDArray[Any]]:
    """Format 3 kept a matrix, formats 1 and 2 a dictionary of lines."""
    if isinstance(plain, dict):
        return {name: np.frombuffer(line, dtype=dtype) for name, line in plain.items()}
    names, data = plain
    return _lines(names, data, dtype, rows)
