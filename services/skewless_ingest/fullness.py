"""How full the outbox is, looked at often enough that callers are refused before their rows are judged."""

import logging
import threading
import time
from collections.abc import Callable

from skewless.errors import Overloaded, SkewlessError
from skewless.ingest_limits import INGEST_OUTBOX_LOOK_S
from skewless.ingestion.batches import LaneState
from skewless.limits import RETRY_AFTER_S

_LOGGER = logging.getLogger(__name__)


class Fullness:
    """The lanes of the outbox as of the last look, made by a thread of its own between `start` and `stop`."""

    def __init__(
        self, read: Callable[[], tuple[LaneState, ...]], *, bytes_max: int, batches_max: int, look: Callable[[], None]
    ) -> None:
        """`look` is done with every look, such as following the definitions."""
        self._read = read
        self._look = look
        self._bytes_max = bytes_max
        self._batches_max = batches_max
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="outbox-looks", daemon=True)
        self.lanes: tuple[LaneState, ...] = ()
        self.problem = "the outbox has not been looked at yet"
        """Why no row can be taken; empty where some can."""
        self.look_problem = ""
        """What went wrong with `look`; it keeps nobody from bringing rows."""
        self.looked_s = time.monotonic()

    def start(self) -> None:
        """Look now, and from now on."""
        self.refresh()
        self._thread.start()

    def stop(self) -> None:
        """End looking."""
        self._stopped.set()
        self._thread.join()

    def refuse_if_full(self) -> None:
        """Raises Overloaded where rows would not be taken, so that nobody sends a body for nothing."""
        if self.problem:
            raise Overloaded(
                "ingest outbox",
                self.problem,
                retry_after_s=RETRY_AFTER_S,
                hint="rows wait for the stores: see `/readyz` of the service; retry after a pause",
            )

    def refresh(self) -> None:
        """Look once. Whatever goes wrong is told, and looked at again the next time: its thread must go on."""
        try:
            self._look()
            self.look_problem = ""
        except Exception as error:  # noqa: BLE001  # a task's boundary
            self.look_problem = _told(error)
        try:
            self.lanes = self._read()
        except Exception as error:  # noqa: BLE001  # a task's boundary
            self.problem = _told(error)
            return
        finally:
            self.looked_s = time.monotonic()
        held = sum(lane.waiting_bytes + lane.failed_bytes for lane in self.lanes)
        batches = sum(lane.waiting_batches + lane.failed_batches for lane in self.lanes)
        is_full = held >= self._bytes_max or batches >= self._batches_max
        self.problem = (
            f"{batches:,} batches of {held:,} bytes wait to be delivered, or to be retried or dropped"
            if is_full
            else ""
        )

    def _run(self) -> None:
        while not self._stopped.wait(INGEST_OUTBOX_LOOK_S):
            self.refresh()


def _told(error: Exception) -> str:
    if isinstance(error, SkewlessError):
        return error.message
    _LOGGER.error("looking at the outbox and at the definitions failed", exc_info=error)
    return f"{type(error).__name__}: {error}"
