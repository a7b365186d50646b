"""Segments cut into parts that a broker takes, and parts as bytes: a head in JSON, and rows as Arrow IPC under zstd.

    head = {"format": 1, "schema": 1, "segment": …, "source": …, "sequence": …, "segment_rows": …, "part": …,
            "parts": …, "kind": …, "endpoint": …, "columns": …, "bundle": …, "first": …, "rows": …, "raw_bytes": …,
            "checksum": …}
    data = zstd(Arrow IPC stream of one record batch)

The stream is compressed as a whole, and not each buffer by itself as Arrow would: most segments are small, and a table
of a hundred columns has more bytes of schema than of rows. One row takes 2.5 KB so, and 15.8 KB by buffers; 600 rows
take 274 KB and 320 KB (44 features, 2026-11-21).
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from skewless.adapters.log_tables import SCHEMA_VERSION, LogTable, plain
from skewless.errors import InvalidDefinition
from skewless.limits import (
    STREAM_HEAD_BYTES_MAX,
    STREAM_PART_BYTES_MAX,
    STREAM_PART_RAW_BYTES_MAX,
    STREAM_ROW_BYTES_MAX,
)

FORMAT = 1
"""Of head and data. A consumer that meets a newer one stops: what it cannot read must not pass for read."""
_CODEC = pa.Codec("zstd")
_BUNDLE = "bundle_digest"
_FILLED = 0.75
"""Parts are cut to be filled so far, so that rows which compress a little worse than the average still fit."""


class DamagedPart(Exception):
    """What came is no part of a segment, or was damaged on the way; the message says how."""


class PartHead(msgspec.Struct, frozen=True, kw_only=True):
    """What a part says of itself. Rows `first` to `first + rows` of one table of a segment of `segment_rows` in all.

    `source` published the segment as its `sequence`-th. `bundle` is the digest of all its rows, empty where they have
    several or none. `raw_bytes` is the size of the data decompressed, `checksum` the CRC-32 of the data.
    """

    format: int
    schema: int
    segment: str
    source: str
    sequence: int
    segment_rows: int
    part: int
    parts: int
    kind: str
    endpoint: str
    columns: str
    bundle: str
    first: int
    rows: int
    raw_bytes: int
    checksum: int

    @property
    def table(self) -> str:
        """Which table of its segment the rows are of."""
        return f"{self.kind}/{self.endpoint}/{self.columns}"


@dataclass(frozen=True, slots=True)
class SegmentPart:
    """One part: what it says of itself, and its rows as bytes."""

    head: PartHead
    data: bytes

    def head_bytes(self) -> bytes:
        """The head as JSON."""
        return _ENCODER.encode(self.head)


@dataclass(frozen=True, slots=True)
class CutSegment:
    """The parts of a segment in order. `rows_left_out` were larger than any stream takes; their places stay free."""

    parts: tuple[SegmentPart, ...]
    rows_left_out: int


@dataclass(frozen=True, slots=True)
class _Piece:
    table: LogTable
    first: int
    rows: int
    raw_bytes: int
    data: bytes


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(PartHead)
_FORMAT_DECODER = msgspec.json.Decoder(dict[str, Any])


def cut_segment(segment: str, tables: Sequence[LogTable], *, source: str, sequence: int) -> CutSegment:
    """The parts of a segment's tables: rows in order, each part within STREAM_PART_BYTES_MAX.

    A row that does not fit is a part by itself up to STREAM_ROW_BYTES_MAX, and is left out beyond.
    """
    segment_rows = sum(len(each.table) for each in tables)
    pieces = [piece for each in tables for piece in _pieces(each)]
    sent = sum(piece.rows for piece in pieces)
    parts = tuple(
        SegmentPart(
            PartHead(
                format=FORMAT,
                schema=SCHEMA_VERSION,
                segment=segment,
                source=source,
                sequence=sequence,
                segment_rows=segment_rows,
                part=number,
                parts=len(pieces),
                kind=piece.table.kind,
                endpoint=piece.table.endpoint,
                columns=piece.table.columns,
                bundle=_bundle_of(piece.table.table.slice(piece.first, piece.rows)),
                first=piece.first,
                rows=piece.rows,
                raw_bytes=piece.raw_bytes,
                checksum=zlib.crc32(piece.data),
            ),
            piece.data,
        )
        for number, piece in enumerate(pieces)
    )
    return CutSegment(parts, segment_rows - sent)


def read_part(head: bytes, data: bytes) -> SegmentPart:
    """A part from its bytes, its rows unread. Raises DamagedPart for what is none or was damaged on the way.

    Raises InvalidDefinition for a part of a newer format.
    """
    if len(head) > STREAM_HEAD_BYTES_MAX or len(data) > STREAM_ROW_BYTES_MAX:
        raise DamagedPart(f"it has {len(head)} bytes of head and {len(data)} of data")
    try:
        version = _FORMAT_DECODER.decode(head).get("format")
        if type(version) is int and version > FORMAT:
            raise InvalidDefinition(
                f"the stream holds parts of format {version}, and this consumer reads formats up to {FORMAT}",
                hint="bring the consumer to the version of Skewless that publishes the segments",
            )
        said = _DECODER.decode(head)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedPart(f"its head cannot be read: {error}") from error
    if said.format != FORMAT or said.first < 0 or said.rows < 1 or said.sequence < 1 or not said.segment:
        raise DamagedPart(f"its head says impossible things: {said}")
    if said.first + said.rows > said.segment_rows or not 0 < said.raw_bytes <= STREAM_PART_RAW_BYTES_MAX:
        raise DamagedPart(f"its head says impossible sizes: {said}")
    if zlib.crc32(data) != said.checksum:
        raise DamagedPart("its data is not what was published")
    return SegmentPart(said, data)


def rows_of(part: SegmentPart) -> Any:
    """The rows of a part as an Arrow table. Raises DamagedPart where the data is not what the head says."""
    try:
        raw = _CODEC.decompress(part.data, decompressed_size=part.head.raw_bytes)
        with pa.ipc.open_stream(raw) as stream:
            table = stream.read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedPart(f"its rows cannot be read: {error}") from error
    if len(table) != part.head.rows:
        raise DamagedPart(f"it says {part.head.rows} rows and has {len(table)}")
    return table


def _pieces(table: LogTable) -> Iterator[_Piece]:
    stored = plain(table.table)
    # Rows still to be cut, as (first, rows), the next one last.
    waiting = [(0, len(stored))] if len(stored) else []
    while waiting:
        first, rows = waiting.pop()
        raw = _ipc(stored.slice(first, rows))
        data = _CODEC.compress(raw, asbytes=True) if len(raw) <= STREAM_PART_RAW_BYTES_MAX else b""
        if data and len(data) <= (STREAM_PART_BYTES_MAX if rows > 1 else STREAM_ROW_BYTES_MAX):
            yield _Piece(table, first, rows, len(raw), data)
        elif rows > 1:
            filled = max(len(data) / STREAM_PART_BYTES_MAX, len(raw) / STREAM_PART_RAW_BYTES_MAX) / _FILLED
            size = max(1, min(rows // 2, int(rows / filled)))
            starts = range(first, first + rows, size)
            waiting += [(start, min(size, first + rows - start)) for start in reversed(starts)]


def _ipc(table: Any) -> Any:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return sink.getvalue()


def _bundle_of(table: Any) -> str:
    """The digest that all rows share, empty where there is none."""
    if _BUNDLE not in table.schema.names:
        return ""
    digests = pc.unique(table.column(_BUNDLE))
    return digests[0].as_py() or "" if len(digests) == 1 else ""
