"""The ingestion service's entry: reads settings, then takes rows until SIGTERM or SIGINT."""

import logging
import sys

import uvloop

from skewless.adapters.without_pandas import leave_pandas_out
from skewless.errors import SkewlessError
from skewless.settings import describe, load_settings
from skewless_http.lifecycle import Lifecycle
from skewless_http.logs import configure_logging
from skewless_ingest.settings import IngestSettings

_LOGGER = logging.getLogger(__name__)
EXIT_USAGE = 2
_SWITCH_S = 0.001
"""How long one thread keeps the interpreter from others: the event loop must not wait for whoever decodes a body."""


def run() -> None:
    """Run the service; requests in flight are answered, and what was accepted stays accepted."""
    configure_logging()
    leave_pandas_out()
    sys.setswitchinterval(_SWITCH_S)
    try:
        settings = load_settings(IngestSettings)
        configure_logging(settings.log_format)
        _LOGGER.info("starting with %s", describe(settings).replace("\n", " "))
        sys.exit(uvloop.run(_serve(settings)))
    except SkewlessError as error:
        _LOGGER.error("%s", error)  # noqa: TRY400  # a wrong setting is explained by its message, not by a trace
        sys.exit(EXIT_USAGE)


async def _serve(settings: IngestSettings) -> int:
    from skewless_ingest.process import IngestProcess

    return await IngestProcess(settings, Lifecycle()).run()
