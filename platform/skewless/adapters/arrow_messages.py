"""Record batches out of the messages of an Arrow IPC stream, as they arrive."""

from typing import Any

import pyarrow as pa

from skewless.serving.arrow_framing import ArrowMessage, MessageKind, malformed


class ArrowBatches:
    """Decodes the messages of one stream into checked record batches, in order."""

    def __init__(self) -> None:
        self._file = _FedFile()
        self._reader: Any = None
        self.metadata: Any = None
        """What the last record batch says of itself: its custom metadata, None where it has none."""

    def read(self, message: ArrowMessage) -> Any:
        """The record batch that the message completes, every offset and text of it checked; None where it is none.

        Works without waiting. Raises InvalidRequest.
        """
        self._file.add(message.data)
        try:
            if message.kind is MessageKind.SCHEMA:
                self._reader = pa.ipc.open_stream(self._file)
                _require_text(self._reader.schema)
            if message.kind is not MessageKind.RECORD_BATCH:
                return None
            batch, self.metadata = self._reader.read_next_batch_with_custom_metadata()
            batch.validate(full=True)  # or an offset out of bounds would be read
        except (pa.ArrowException, OSError, StopIteration, UnicodeDecodeError) as error:
            raise malformed(f"a message of the Arrow stream cannot be read: {error}"[:300]) from error
        return batch


def _require_text(schema: Any) -> None:
    """Meet names and time zones that are no UTF-8 now. Raises UnicodeDecodeError."""
    for field in schema:
        _ = field.name, getattr(field.type, "tz", None)


class _FedFile:
    """What Arrow reads from: exactly the messages that were added, each read once and to its end."""

    closed = False

    def __init__(self) -> None:
        self._held = b""
        self._position = 0

    def add(self, data: bytes) -> None:
        left = self._held[self._position :]
        self._held, self._position = left + data if left else data, 0

    def read(self, size: int = -1) -> bytes:
        stop = len(self._held) if size < 0 else self._position + size
        data = self._held[self._position : stop]
        self._position += len(data)
        return data

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def writable(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing to close."""
