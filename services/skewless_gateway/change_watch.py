"""Wakes the followers when the registry says that it changed; without that they look every second."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from skewless.errors import SkewlessError
from skewless.limits import ROUTE_POLL_S
from skewless.registry.change_signal import ChangeSignal

_LOGGER = logging.getLogger(__name__)
_JOIN_TIMEOUT_S = 2.0


@contextmanager
def watching(open_signal: Callable[[], ChangeSignal], wake: Callable[[], None]) -> Iterator[None]:
    """Inside, `wake` is called in the running event loop soon after each change.

    Where no signal can be had, that is logged and the followers' polling has to do.
    """
    loop = asyncio.get_running_loop()
    try:
        signal = open_signal()
    except SkewlessError as error:
        _LOGGER.warning("changes of the registry are found by polling alone: %s", error.message)
        yield
        return
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            if signal.wait(ROUTE_POLL_S) and not stop.is_set():
                loop.call_soon_threadsafe(wake)

    thread = threading.Thread(target=watch, name="registry-changes", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        signal.close()
        thread.join(_JOIN_TIMEOUT_S)
