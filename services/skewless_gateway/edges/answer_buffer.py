"""What lies between answers being made and being taken: bounded in bytes, and in how long either side waits."""

import asyncio
from collections import deque


class AnswerBuffer:
    """Bytes of one answer, in order, from one task to another. Iterating ends after `close`.

    Callers that send all of a body before they read any of the answer find it here, as far as it fits.
    """

    def __init__(self, *, bytes_max: int, stall_s: float) -> None:
        self._bytes_max = bytes_max
        self._stall_s = stall_s
        self._parts: deque[bytes] = deque()
        self._bytes = 0
        self._closed = False
        self._changed = asyncio.Event()

    async def put(self, part: bytes) -> None:
        """Add a part once there is room. Raises TimeoutError where nothing was taken for `stall_s`."""
        while self._bytes >= self._bytes_max:
            await self._change(self._stall_s)
        if part:
            self._parts.append(part)
            self._bytes += len(part)
            self._changed.set()

    def close(self) -> None:
        """Say that there is no more."""
        self._closed = True
        self._changed.set()

    async def take(self) -> bytes:
        """Everything that is there, at least a byte; empty once there is no more."""
        while not self._parts and not self._closed:
            await self._change(None)
        data = b"".join(self._parts)
        self._parts.clear()
        self._bytes = 0
        self._changed.set()
        return data

    async def _change(self, timeout_s: float | None) -> None:
        self._changed.clear()
        async with asyncio.timeout(timeout_s):
            await self._changed.wait()
