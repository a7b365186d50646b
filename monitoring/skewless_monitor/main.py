"""The monitor's entry: reads settings and runs its jobs until SIGTERM or SIGINT."""

import logging
import os
import queue
import signal
import sys
from types import FrameType

from skewless.adapters.json_log import log_json_lines
from skewless.adapters.without_pandas import leave_pandas_out
from skewless.errors import SkewlessError
from skewless.monitor_settings import MonitorSettings
from skewless.settings import describe, load_settings

# Brings prometheus_client before any job comes: Feast has one that is imported after it keep its values in files.
from skewless_monitor.service import MonitorService

EXIT_CUT_OFF = 1
EXIT_FAILED = 2
_NICENESS = 10
"""Gateways on the same machine answer somebody; what is watched is minutes old anyway."""
_LOGGER = logging.getLogger(__name__)


def run() -> None:
    """Run a monitor until SIGTERM or SIGINT. Exits with 1 where a job had to be cut off, with 2 for a wrong setting."""
    log_json_lines()
    leave_pandas_out()
    os.nice(_NICENESS)
    # A queue, because its put may interrupt its own get: an event's lock would wait for the very thread it stopped.
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()

    def stop(number: int, _frame: FrameType | None) -> None:
        signals.put(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        settings = load_settings(MonitorSettings)
        _LOGGER.info("starting with %s", describe(settings).replace("\n", " "))
        ended = MonitorService(settings).run(signals.get)
    except SkewlessError as error:
        _LOGGER.error("%s", error)  # noqa: TRY400  # explained by its message, not by a trace
        sys.exit(EXIT_FAILED)
    if not ended:
        # A thread that does not end would keep the interpreter from ending, or be stopped in the middle of C code.
        logging.shutdown()
        os._exit(EXIT_CUT_OFF)
