"""How much may be under way at once: bytes of bodies and requests of one process, of which no caller takes all."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from skewless.errors import Overloaded
from skewless.ingest_limits import INGEST_CALLER_SHARE, INGEST_HELD_BYTES_MAX, INGEST_REQUESTS_WAITING_MAX
from skewless.limits import RETRY_AFTER_S

_PART = "ingestion"


class IngestRoom:
    """Counts what is being received, decoded, judged and kept. Threads share it."""

    def __init__(
        self, *, bytes_max: int = INGEST_HELD_BYTES_MAX, requests_max: int = INGEST_REQUESTS_WAITING_MAX
    ) -> None:
        self._bytes_max = bytes_max
        self._requests_max = requests_max
        self._lock = threading.Lock()
        self._callers: dict[str, tuple[int, int]] = {}
        """Bytes and requests of each caller that has any."""
        self.bytes = 0
        self.requests = 0

    @contextmanager
    def taken(self, caller: str, size: int) -> Iterator["Place"]:
        """Room for one request of `size` bytes while the block runs, and while work does that its place was told of.

        Raises Overloaded where there is none.
        """
        self._take(caller, size)
        place = Place(lambda: self._give_back(caller, size))
        try:
            yield place
        finally:
            place.leave()

    def _take(self, caller: str, size: int) -> None:
        with self._lock:
            held, requests = self._callers.get(caller, (0, 0))
            if self.bytes + size > self._bytes_max or self.requests >= self._requests_max:
                raise _full(f"{self.requests:,} requests of {self.bytes:,} bytes are under way, as many as one takes")
            share = INGEST_CALLER_SHARE
            if held + size > self._bytes_max * share or requests + 1 > max(1, self._requests_max * share):
                raise _full(
                    f"`{caller}` has {requests:,} requests of {held:,} bytes under way, as many as one caller may have"
                )
            self._callers[caller] = held + size, requests + 1
            self.bytes += size
            self.requests += 1

    def _give_back(self, caller: str, size: int) -> None:
        with self._lock:
            held, requests = self._callers.pop(caller)
            if requests > 1:
                self._callers[caller] = held - size, requests - 1
            self.bytes -= size
            self.requests -= 1


class Place:
    """One request's room. It is given back once by the last to leave: the block, or work that goes on behind it.

    Who hangs up, or has waited long enough, ends the block; the rows are held until they are decoded and kept.
    """

    def __init__(self, give_back: Callable[[], None]) -> None:
        self._give_back = give_back
        self._lock = threading.Lock()
        self._inside = 1

    def stay_until(self, work: "Future[Any]") -> None:
        """Keep the room until the work is done or cancelled, whatever becomes of who waits for it."""
        with self._lock:
            self._inside += 1
        work.add_done_callback(lambda _done: self.leave())

    def leave(self) -> None:
        """One of those inside goes."""
        with self._lock:
            self._inside -= 1
            is_last = not self._inside
        if is_last:
            self._give_back()


def _full(reason: str) -> Overloaded:
    return Overloaded(
        _PART, reason, retry_after_s=RETRY_AFTER_S, hint="retry after a pause, and send fewer requests at once"
    )
