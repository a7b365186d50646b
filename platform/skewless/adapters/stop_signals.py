"""Ending a process in good order when SIGTERM or SIGINT comes."""

import queue
import signal
import threading
from collections.abc import Callable
from types import FrameType


def stop_by_signal(stop: Callable[[], None]) -> None:
    """Call `stop` once SIGTERM or SIGINT comes, whatever the main thread does then; in another thread.

    A handler interrupts the main thread anywhere, also where that holds the lock of an event it begins to wait for. To
    set the event there would wait for the very thread that was interrupted; a queue's put may interrupt its own get.
    """
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()

    def tell(number: int, _frame: FrameType | None) -> None:
        signals.put(number)

    def wait() -> None:
        signals.get()
        stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, tell)
    threading.Thread(target=wait, name="signals", daemon=True).start()
