"""The gateway's entry: reads settings, opens the port, and answers in this process or in workers of it."""

import logging
import os
import sys

import uvloop

from skewless.errors import SkewlessError
from skewless.settings import describe
from skewless_gateway.settings import GatewaySettings, load_gateway_settings
from skewless_http.listening import open_listener
from skewless_http.logs import configure_logging

_LOGGER = logging.getLogger(__name__)
EXIT_USAGE = 2
_MULTIPROCESS_MODE = ("PROMETHEUS_MULTIPROC_DIR", "PROMETHEUS_MULTIPROCESS_DIR")


def run() -> None:
    """Run a gateway until SIGTERM or SIGINT; requests in flight are answered and the log is flushed."""
    leave_multiprocess_mode()
    configure_logging()
    try:
        settings = load_gateway_settings()
        configure_logging(settings.log_format)
        _LOGGER.info("starting with %s", describe(settings).replace("\n", " "))
        sys.exit(_serve(settings))
    except SkewlessError as error:
        _LOGGER.error("%s", error)  # noqa: TRY400  # a wrong setting is explained by its message, not by a trace
        sys.exit(EXIT_USAGE)


def leave_multiprocess_mode() -> None:
    """Forget what Feast puts into the environment of whoever imports it, and so of every process that it starts.

    With it, prometheus_client writes metrics into files, at more than twice the cost and without custom collectors; it
    looks once, when it is imported, which nothing of this module does before.
    """
    for name in _MULTIPROCESS_MODE:
        os.environ.pop(name, None)


def _serve(settings: GatewaySettings) -> int:
    """The exit status. A parent imports nothing of what its workers answer with, and stays small."""
    listener = open_listener(settings.host, settings.port, variable="SKEWLESS_GATEWAY_PORT")
    if settings.worker_count == 1:
        from skewless_gateway.worker import run_alone

        return int(uvloop.run(run_alone(settings, listener)))
    from skewless_gateway.workers import run_workers

    return int(uvloop.run(run_workers(settings, listener)))
