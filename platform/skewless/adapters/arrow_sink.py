"""A file that Arrow writes to and whose bytes are taken away as they come."""

from typing import Any


class ArrowSink:
    """Keeps what is written until it is taken."""

    closed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def taken(self) -> bytes:
        """What was written since it was last taken."""
        data = b"".join(self._parts)
        self._parts.clear()
        return data

    def write(self, data: Any) -> int:
        """Keep a copy: Arrow's buffers live no longer than the call."""
        part = bytes(data)
        self._parts.append(part)
        return len(part)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """What was not taken stays."""

    def readable(self) -> bool:
        """It is not."""
        return False

    def writable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is not."""
        return False
