"""The job `quality`: tells what the last batch of each view came to, out of the registry database.

It judges nothing: gates run where rows are materialized. It reads a few rows per view, and holds those of one look.
"""

import threading
from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from skewless.monitor_limits import QUALITY_INTERVAL_S
from skewless.monitor_settings import MonitorSettings
from skewless.registry.database import engine
from skewless.registry.quality_results import QualityResults, ViewQuality
from skewless_monitor.quality_collector import families


class QualityJob:
    """See the module; `skewless_monitor.jobs.Job`."""

    name = "quality"
    interval_s = QUALITY_INTERVAL_S

    def __init__(self, settings: MonitorSettings) -> None:
        self._results = QualityResults(engine(settings.database_url))
        self._standing: tuple[ViewQuality, ...] = ()

    @property
    def lag_s(self) -> float | None:
        """Not known: nobody tells when the next batch is due."""
        return None

    def run_once(self, stop: threading.Event) -> bool:  # noqa: ARG002  # one look takes milliseconds
        """Look once. Raises Unavailable while the database does not answer."""
        self._standing = self._results.standing()
        return False

    def collect(self) -> Iterator[Metric]:
        """The families of the last look."""
        return families(self._standing)

    def close(self) -> None:
        """Give back the database's connections."""
        self._results.close()


def open_job(settings: MonitorSettings) -> QualityJob:
    """The job of a monitor."""
    return QualityJob(settings)
