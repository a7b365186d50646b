"""Files of instances as batch bodies, answers as files: NDJSON, CSV, Parquet and Arrow streams, never held whole."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Self

import msgspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from skewless.adapters.arrow_answers import ANSWER_SCHEMA, SUMMARY_KEY
from skewless.adapters.arrow_messages import ArrowBatches
from skewless.adapters.arrow_sink import ArrowSink
from skewless.adapters.batch_client import ARROW, NDJSON
from skewless.errors import InvalidRequest
from skewless.serving.arrow_framing import ArrowMessages

_BATCH_ROWS = 8_192
"""Rows that are read, and sent, as one record batch: a megabyte or so."""
_PIECE_BYTES = 1 << 18
_NDJSON_SUFFIXES = (".ndjson", ".jsonl")
_ARROW_SUFFIXES = (".arrow", ".arrows")
SUFFIXES = (*_NDJSON_SUFFIXES, ".csv", ".parquet", *_ARROW_SUFFIXES)


def media_type_of(path: Path) -> str:
    """In which form a file's rows travel. Raises InvalidRequest for a suffix that says none."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InvalidRequest(
            f"`{path.name}` ends in `{suffix}`", path="FILE", allowed=f"a file that ends in {', '.join(SUFFIXES)}"
        )
    return NDJSON if suffix in _NDJSON_SUFFIXES else ARROW


def body_pieces(path: Path, instance_schema: Mapping[str, Any]) -> Iterator[bytes]:
    """The body of a batch with the file's rows, piece by piece.

    Of a table the columns that instances have are sent, as the endpoint's `instance_schema` (JSON Schema) says them;
    NDJSON and Arrow streams are sent as they are. Raises InvalidRequest for a file that cannot be read.
    """
    suffix = path.suffix.lower()
    try:
        if suffix in (*_NDJSON_SUFFIXES, *_ARROW_SUFFIXES):
            yield from _as_it_is(path)
        else:
            batches = _csv_batches if suffix == ".csv" else _parquet_batches
            yield from _stream(batches(path, instance_schema["properties"]))
    except (OSError, pa.ArrowException) as error:
        raise InvalidRequest(
            f"`{path}` cannot be read: {error}"[:500], path="FILE", allowed="a file of one instance per row"
        ) from error


def _as_it_is(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


def _stream(batches: Iterator[Any]) -> Iterator[bytes]:
    first = next(batches, None)
    if first is None:
        return
    sink = ArrowSink()
    with pa.ipc.new_stream(sink, first.schema) as writer:
        writer.write_batch(first)
        yield sink.taken()
        for batch in batches:
            writer.write_batch(batch)
            yield sink.taken()
    yield sink.taken()


def _parquet_batches(path: Path, properties: Mapping[str, Any]) -> Iterator[Any]:
    with pa.parquet.ParquetFile(path) as file:
        names = _chosen(file.schema_arrow.names, properties)
        yield from file.iter_batches(batch_size=_BATCH_ROWS, columns=names)


def _csv_batches(path: Path, properties: Mapping[str, Any]) -> Iterator[Any]:
    """A CSV file has no types, so they are those of the endpoint; an empty cell is null."""
    with pa.csv.open_csv(path) as file:
        names = _chosen(file.schema.names, properties)
    convert = pa.csv.ConvertOptions(
        column_types={name: _arrow_type(properties[name]) for name in names},
        include_columns=names,
        null_values=[""],
        strings_can_be_null=True,
    )
    with pa.csv.open_csv(path, convert_options=convert) as file:
        for batch in file:
            for start in range(0, batch.num_rows, _BATCH_ROWS):
                yield batch.slice(start, _BATCH_ROWS)


def _chosen(names: Sequence[str], properties: Mapping[str, Any]) -> list[str]:
    missing = next((name for name in properties if name not in names), None)
    if missing is not None:
        raise InvalidRequest(
            f"the file has no column `{missing}`",
            path=f"$.columns.{missing}",
            allowed=f"columns {', '.join(f'`{name}`' for name in properties)}",
            hint="columns of other names are left out",
            code="missing_field",
        )
    return list(properties)


def _arrow_type(schema: Mapping[str, Any]) -> Any:
    """The widest Arrow type of what JSON Schema says; the gateway refuses what the field cannot hold."""
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if "string" not in kinds:
        return {"boolean": pa.bool_(), "integer": pa.int64(), "number": pa.float64()}[kinds[0]]
    if schema.get("format") == "date-time":
        return pa.timestamp("us", tz="UTC")
    if schema.get("contentEncoding") == "base64":
        raise InvalidRequest(
            "a CSV file cannot hold bytes", path="FILE", allowed="NDJSON with base64, Parquet or an Arrow stream"
        )
    return pa.string()


class AnswerFile(Protocol):
    """Takes an answer's body as it arrives."""

    accept: str
    """The media type in which it wants the answer."""

    summary: Mapping[str, Any] | None
    """There once all of the answer was taken; None where it was cut."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def take(self, piece: bytes) -> None: ...

    def finish(self) -> None:
        """Write what is left."""
        ...


class NdjsonAnswers:
    """Writes the lines as they come, without the summary."""

    accept = NDJSON

    def __init__(self, file: BinaryIO, *, closes: bool) -> None:
        self._file = file
        self._closes = closes
        self._rest = b""
        self.summary: Mapping[str, Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.flush()
        if self._closes:
            self._file.close()

    def take(self, piece: bytes) -> None:
        """See `AnswerFile.take`."""
        head, found, rest = (self._rest + piece).rpartition(b"\n")
        self._rest = rest
        if not found:
            return
        before, _, last = head.rpartition(b"\n")
        if last.startswith(b'{"summary":'):
            self.summary = msgspec.json.decode(last)["summary"]
            head = before
        if head:
            self._file.write(head + b"\n")

    def finish(self) -> None:
        """See `AnswerFile.finish`."""


class TableAnswers:
    """Writes record batches as CSV, Parquet or an Arrow file of one stream."""

    accept = ARROW

    def __init__(self, path: Path) -> None:
        suffix = path.suffix.lower()
        if suffix == ".csv":
            self._writer = pa.csv.CSVWriter(path, ANSWER_SCHEMA)
        elif suffix == ".parquet":
            self._writer = pa.parquet.ParquetWriter(path, ANSWER_SCHEMA)
        else:
            self._writer = pa.ipc.new_stream(path, ANSWER_SCHEMA)
        self._messages, self._batches = ArrowMessages(), ArrowBatches()
        self.summary: Mapping[str, Any] | None = None
        self._waiting: list[Any] = []
        self._waiting_rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def take(self, piece: bytes) -> None:
        """See `AnswerFile.take`. Small batches are written together, since each is a row group of its own."""
        for message in self._messages.feed(piece):
            batch = self._batches.read(message)
            if batch is not None:
                self._waiting.append(batch)
                self._waiting_rows += batch.num_rows
                if self._batches.metadata is not None:
                    self.summary = msgspec.json.decode(self._batches.metadata[SUMMARY_KEY])
        if self._waiting_rows >= _BATCH_ROWS:
            self.finish()

    def finish(self) -> None:
        """See `AnswerFile.finish`."""
        if self._waiting:
            self._writer.write_table(pa.Table.from_batches(self._waiting, ANSWER_SCHEMA))
            self._waiting, self._waiting_rows = [], 0
