"""Rows of a request too large to be held whole: chunk by chunk, as they arrive, and each read on its own.

body pieces → lines → chunks of at most BATCH_CHUNK_ROWS rows → a `PredictRequest` each
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from skewless.dtypes import Column
from skewless.errors import InvalidRequest, LimitExceeded
from skewless.limits import BATCH_CHUNK_BYTES_MAX, BATCH_CHUNK_ROWS, BATCH_LINE_BYTES_MAX
from skewless.serving.compiled_request import RequestDecoder
from skewless.serving.json_body import parse_json

_DECODER = msgspec.json.Decoder()


class Rows(Protocol):
    """Some rows of a batch body, not checked yet. Row 0 is the first of these, wherever it stands in the body."""

    def __len__(self) -> int: ...

    def part(self, start: int, stop: int) -> "Rows":
        """Rows `start` to `stop`, over the same memory."""
        ...

    def columns(self, decoder: RequestDecoder) -> Mapping[str, Column]:
        """A Column (rows,) per field of the decoder's bundle. Raises InvalidRequest at the first wrong place."""
        ...


class JsonRows:
    """Rows as lines of JSON, one object each."""

    __slots__ = ("_lines",)

    def __init__(self, lines: Sequence[bytes]) -> None:
        self._lines = lines

    def __len__(self) -> int:
        return len(self._lines)

    def part(self, start: int, stop: int) -> "JsonRows":
        """See `Rows.part`."""
        return JsonRows(self._lines[start:stop])

    def columns(self, decoder: RequestDecoder) -> Mapping[str, Column]:
        """See `Rows.columns`."""
        read = decoder.lines(b"\n".join(self._lines))
        # A row of each line, or the decoder took something else for rows than lines.
        if read is not None and read[1] == len(self._lines):
            return read[0]
        return decoder.validator.columns(self._decoded())[0]

    def _decoded(self) -> list[object]:
        try:
            return [_DECODER.decode(line) for line in self._lines]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return [_parsed(line, index) for index, line in enumerate(self._lines)]


def _parsed(line: bytes, index: int) -> object:
    try:
        return parse_json(line)
    except InvalidRequest as error:
        raise InvalidRequest(
            error.message.replace("the body", "the row", 1),
            path=f"$.instances[{index}]",
            allowed="one JSON object on a line of its own",
            hint=error.hint,
            code=error.code,
        ) from error


class JsonChunks:
    """Cuts NDJSON into chunks of rows as its pieces arrive. Lines without anything on them count for nothing."""

    def __init__(self) -> None:
        self._open: list[bytes] = []
        """Pieces of a line whose end has not come."""
        self._open_bytes = 0
        self._lines: list[bytes] = []
        self._line_bytes = 0
        self._rows = 0
        """Rows before those of `_lines`."""

    def feed(self, piece: bytes) -> list[JsonRows]:
        """Chunks that `piece` completes. Raises LimitExceeded for a line without an end in sight."""
        head, *rest = piece.split(b"\n")
        self._extend(head)
        chunks = []
        for start in rest:
            self._end_line()
            if len(self._lines) == BATCH_CHUNK_ROWS or self._line_bytes >= BATCH_CHUNK_BYTES_MAX:
                chunks.append(self._cut())
            self._extend(start)
        return chunks

    def finish(self) -> list[JsonRows]:
        """What is left when the body has ended: one chunk, or none."""
        self._end_line()
        return [self._cut()] if self._lines else []

    def _extend(self, part: bytes) -> None:
        if not part:
            return
        self._open.append(part)
        self._open_bytes += len(part)
        if self._open_bytes > BATCH_LINE_BYTES_MAX:
            row = self._rows + len(self._lines)
            raise LimitExceeded(
                f"row {row} has more than {BATCH_LINE_BYTES_MAX} bytes",
                path=f"$.instances[{row}]",
                allowed=f"at most {BATCH_LINE_BYTES_MAX} bytes on a line",
                hint="end every instance with a line feed, and write none inside it",
            )

    def _end_line(self) -> None:
        line = self._open[0] if len(self._open) == 1 else b"".join(self._open)
        self._open.clear()
        self._open_bytes = 0
        if not line.isspace() and line:
            self._lines.append(line)
            self._line_bytes += len(line)

    def _cut(self) -> JsonRows:
        chunk = JsonRows(self._lines)
        self._rows += len(self._lines)
        self._lines, self._line_bytes = [], 0
        return chunk
