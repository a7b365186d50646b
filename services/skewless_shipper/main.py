"""The shipper's entry: reads settings and ships until SIGTERM or SIGINT."""

import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

from skewless.adapters.json_log import log_json_lines
from skewless.adapters.without_pandas import leave_pandas_out
from skewless.errors import Conflict, SkewlessError
from skewless.settings import ShipperSettings, describe, load_settings
from skewless_shipper.service import ShippingService

EXIT_FAILED = 2
EXIT_CONFLICT = 5
"""Another process ships the folder; the same code as the command line's."""
_NICENESS = 10
"""Gateways on the same machine answer somebody; segments can wait for a moment."""
_LOGGER = logging.getLogger(__name__)


def run() -> None:
    """Run a shipper until SIGTERM or SIGINT; what is sealed by then is shipped before it ends."""
    log_json_lines()
    leave_pandas_out()
    os.nice(_NICENESS)
    try:
        settings = load_settings(ShipperSettings)
        _LOGGER.info("starting with %s", describe(settings).replace("\n", " "))
        service = ShippingService(settings)
        stop_by_signal(service.stop)
        service.run()
    except Conflict as error:
        _LOGGER.error("%s", error)  # noqa: TRY400  # explained by its message, not by a trace
        sys.exit(EXIT_CONFLICT)
    except SkewlessError as error:
        _LOGGER.error("%s", error)  # noqa: TRY400  # as above
        sys.exit(EXIT_FAILED)


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
