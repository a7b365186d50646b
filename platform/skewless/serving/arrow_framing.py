"""The messages of an Arrow IPC stream as they arrive, each bounded before it is held. Decodes no column.

stream:   message, message, …, end of stream
message:  0xFFFFFFFF, length of the metadata (int32), metadata (a flatbuffer, padded), body (its length is in there)

Arrow's own reader wants a file that blocks, and takes whatever length a message announces. This one is fed, and refuses
by the announced lengths. Only the five fields that say so are read of the metadata; Arrow verifies the rest.
Source: the Arrow columnar format, "IPC streaming format", and Message.fbs of version 1.5.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

from skewless.errors import InvalidRequest, LimitExceeded
from skewless.limits import (
    ARROW_DICTIONARY_BYTES_MAX,
    ARROW_MESSAGE_BYTES_MAX,
    ARROW_MESSAGE_ROWS_MAX,
    ARROW_METADATA_BYTES_MAX,
)

MALFORMED_ARROW = "malformed_arrow"
_PREFIX = struct.Struct("<Ii")
_CONTINUATION = 0xFFFFFFFF
_HINT = "write the stream with an Arrow library of version 0.15 or newer, for example pyarrow.ipc.new_stream"


class MessageKind(IntEnum):
    """What a message holds, by Arrow's numbers."""

    SCHEMA = 1
    DICTIONARY = 2
    RECORD_BATCH = 3


_KINDS = frozenset(MessageKind)


@dataclass(frozen=True, slots=True)
class ArrowMessage:
    """One whole message, as bytes. `rows` counts those of a record batch or dictionary, 0 for a schema."""

    kind: MessageKind
    rows: int
    data: bytes


@dataclass(frozen=True, slots=True)
class _Header:
    kind: MessageKind
    rows: int
    body_bytes: int


class ArrowMessages:
    """Cuts an Arrow stream into messages. `has_ended` once its end was seen."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._wanted = _PREFIX.size
        """Bytes of the message at hand that must be there before it can be looked at again."""
        self._header: _Header | None = None
        self._dictionary_bytes = 0
        self._seen = 0
        self.has_ended = False

    def feed(self, piece: bytes) -> list[ArrowMessage]:
        """Messages that `piece` completes. Raises InvalidRequest; LimitExceeded before it holds what is too large."""
        if self.has_ended and piece:
            raise malformed("there is more after the end of the stream")
        self._held += piece
        messages = []
        while not self.has_ended and len(self._held) >= self._wanted:
            if (message := self._advance()) is not None:
                messages.append(message)
        return messages

    def finish(self) -> None:
        """Say that the body has ended. Raises InvalidRequest where that is in the middle of a message."""
        if self._held and not self.has_ended:
            raise malformed(f"the body ends inside message {self._seen}", hint="the stream was cut; send all of it")
        if not self._seen:
            raise malformed("the body is empty", hint="an Arrow stream begins with a schema")

    def _advance(self) -> ArrowMessage | None:
        """Look at what is held; it is as much as was wanted."""
        if self._wanted == _PREFIX.size:
            self._read_prefix()
            return None
        if self._header is None:
            self._header = _header(bytes(self._held[_PREFIX.size : self._wanted]))
            self._bound(self._header)
            self._wanted += self._header.body_bytes
            return None
        with memoryview(self._held) as view:
            message = ArrowMessage(self._header.kind, self._header.rows, bytes(view[: self._wanted]))
        del self._held[: self._wanted]
        self._header, self._wanted = None, _PREFIX.size
        self._seen += 1
        return message

    def _read_prefix(self) -> None:
        continuation, metadata_bytes = _PREFIX.unpack_from(self._held)
        if continuation != _CONTINUATION:
            raise malformed("the body is no Arrow IPC stream: a message begins otherwise", hint=_HINT)
        if metadata_bytes == 0:
            self.has_ended = True
            if len(self._held) > _PREFIX.size:
                raise malformed("there is more after the end of the stream")
            return
        if not 0 < metadata_bytes <= ARROW_METADATA_BYTES_MAX:
            raise _too_large(f"announces {metadata_bytes} bytes of metadata", f"{ARROW_METADATA_BYTES_MAX} bytes")
        self._wanted += metadata_bytes

    def _bound(self, header: _Header) -> None:
        if (header.kind is MessageKind.SCHEMA) != (self._seen == 0):
            raise malformed("a stream has one schema, and begins with it")
        if not 0 <= header.body_bytes <= ARROW_MESSAGE_BYTES_MAX:
            raise _too_large(f"announces a body of {header.body_bytes} bytes", f"{ARROW_MESSAGE_BYTES_MAX} bytes")
        if not 0 <= header.rows <= ARROW_MESSAGE_ROWS_MAX:
            raise _too_large(f"announces {header.rows} rows", f"{ARROW_MESSAGE_ROWS_MAX} rows")
        if header.kind is MessageKind.DICTIONARY:
            self._dictionary_bytes += header.body_bytes
            if self._dictionary_bytes > ARROW_DICTIONARY_BYTES_MAX:
                raise _too_large(
                    f"brings the dictionaries to {self._dictionary_bytes} bytes", f"{ARROW_DICTIONARY_BYTES_MAX} bytes"
                )


def malformed(what: str, *, hint: str = "") -> InvalidRequest:
    """The refusal of a body that is no Arrow stream, or none that is taken here."""
    return InvalidRequest(what, path="$", allowed="one Arrow IPC stream", hint=hint or _HINT, code=MALFORMED_ARROW)


def _too_large(what: str, allowed: str) -> LimitExceeded:
    return LimitExceeded(
        f"a message of the Arrow stream {what}",
        path="$",
        allowed=f"at most {allowed}",
        hint="write smaller record batches, for example write_table(table, max_chunksize=10_000)",
    )


def _header(metadata: bytes) -> _Header:
    """What the flatbuffer of a message says about its body. Raises InvalidRequest."""
    try:
        message = _Table(metadata, _uint32(metadata, 0))
        number = message.uint8(1)
        if number not in _KINDS:
            raise malformed(f"a message of kind {number} has no rows", hint="send record batches of plain columns")
        kind = MessageKind(number)
        body_bytes = message.int64(3)
        if kind is MessageKind.SCHEMA:
            return _Header(kind, 0, body_bytes)
        batch = message.table(2) if kind is MessageKind.RECORD_BATCH else message.table(2).table(1)
        if batch.has(3):
            raise malformed(
                "the buffers are compressed, and how large they become is not known before",
                hint="write the stream without compression; a proxy in front may compress transport",
            )
        return _Header(kind, batch.int64(0), body_bytes)
    except (struct.error, IndexError) as error:
        raise malformed("the metadata of a message cannot be read") from error


class _Table:
    """A table of a flatbuffer: a signed offset back to its vtable, which says where each field is; 0 is absent."""

    def __init__(self, data: bytes, position: int) -> None:
        (back,) = struct.unpack_from("<i", data, position)
        vtable = position - back
        if vtable < 0:
            raise struct.error("the vtable lies before the buffer")
        (length,) = struct.unpack_from("<H", data, vtable)
        self._data = data
        self._position = position
        self._fields = struct.unpack_from(f"<{max(0, length - 4) // 2}H", data, vtable + 4)

    def has(self, field: int) -> bool:
        return field < len(self._fields) and self._fields[field] != 0

    def uint8(self, field: int) -> int:
        return self._data[self._position + self._fields[field]] if self.has(field) else 0

    def int64(self, field: int) -> int:
        if not self.has(field):
            return 0
        (value,) = struct.unpack_from("<q", self._data, self._position + self._fields[field])
        return int(value)

    def table(self, field: int) -> "_Table":
        if not self.has(field):
            raise struct.error("a table is absent")
        position = self._position + self._fields[field]
        return _Table(self._data, position + _uint32(self._data, position))


def _uint32(data: bytes, position: int) -> int:
    (value,) = struct.unpack_from("<I", data, position)
    return int(value)
