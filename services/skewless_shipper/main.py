"""The shipper's entry: reads settings and ships until SIGTERM or SIGINT."""

import logging
import os
import sys

from skewless.adapters.json_log import log_json_lines
from skewless.adapters.stop_signals import stop_by_signal
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
