"""The scheduler's entry: reads settings and schedules until SIGTERM or SIGINT."""

import logging
import os
import sys

from skewless.adapters.json_log import log_json_lines
from skewless.adapters.stop_signals import stop_by_signal
from skewless.errors import SkewlessError
from skewless.settings import Settings, describe, load_settings
from skewless_scheduler.service import SchedulingService
from skewless_scheduler.settings import SchedulerSettings

EXIT_FAILED = 2
_NICENESS = 10
"""Gateways on the same machine answer somebody; runs, which inherit it, can wait for a moment."""
_LOGGER = logging.getLogger(__name__)


def run() -> None:
    """Run a scheduler until SIGTERM or SIGINT; runs under way are ended then. Exits with 2 for a wrong setting."""
    log_json_lines()
    os.nice(_NICENESS)
    try:
        settings, scheduling = load_settings(Settings), load_settings(SchedulerSettings)
        _LOGGER.info("starting with %s", f"{describe(settings)} {describe(scheduling)}".replace("\n", " "))
        service = SchedulingService(settings, scheduling)
        stop_by_signal(service.stop)
        service.run()
    except SkewlessError as error:
        _LOGGER.error("%s", error)  # noqa: TRY400  # explained by its message, not by a trace
        sys.exit(EXIT_FAILED)
