"""The job `freshness`: tells how old every view's features are, where on their way they age, and which sources stopped.

It holds what footers of the sources say and when their rows arrived, some KiB for each row group, and the bins of
bundles that answer. Nothing is kept in the database: all of it is read again after a restart.
"""

import logging
import threading
from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from skewless.adapters.artifact_opening import open_artifact_store
from skewless.adapters.freshness_look import FreshnessFound, FreshnessLook
from skewless.features.freshness import Standing
from skewless.ingest_limits import FRESHNESS_LOOK_S
from skewless.monitor_settings import MonitorSettings
from skewless_monitor.freshness_collector import families

_LOGGER = logging.getLogger(__name__)
_CACHE = "artifacts"
"""Folder in the monitor's home for the files of bundles that lie in a bucket."""


class FreshnessJob:
    """See the module; `skewless_monitor.jobs.Job`."""

    name = "freshness"
    interval_s = FRESHNESS_LOOK_S

    def __init__(self, look: FreshnessLook) -> None:
        self._look = look
        self._found: FreshnessFound | None = None
        self._standing: dict[str, Standing] = {}

    @property
    def lag_s(self) -> float | None:
        """Not known: what it tells is how far others are behind."""
        return None

    def run_once(self, stop: threading.Event) -> bool:  # noqa: ARG002  # a look is bounded by view and ends soon
        """Look once. Raises Unavailable while the database does not answer."""
        found = self._look.look()
        self._tell(found)
        self._found = found
        return False

    def collect(self) -> Iterator[Metric]:
        """The families of the last look."""
        return iter(()) if self._found is None else families(self._found)

    def close(self) -> None:
        """Give back connections."""
        self._look.close()

    def _tell(self, found: FreshnessFound) -> None:
        """Log what has changed since the last look."""
        for each in found.views:
            before, now = self._standing.get(each.view), each.standing
            if before is now:
                continue
            self._standing[each.view] = now
            if now in (Standing.LATE, Standing.STOPPED):
                _LOGGER.warning("freshness: %s is %s: %s", each.view, now, each.advice)
            elif before in (Standing.LATE, Standing.STOPPED):
                _LOGGER.info("freshness: %s is %s again", each.view, now)


def open_job(settings: MonitorSettings) -> FreshnessJob:
    """The job of these settings. Raises InvalidSettings where an address cannot be used."""
    store = settings.online_store
    return FreshnessJob(
        FreshnessLook(
            settings.database_url,
            open_artifact_store(settings.artifacts, cache=settings.home / _CACHE),
            online_store=None if store is None else store.get_secret_value(),
        )
    )
