"""The job `metrics`: keeps the metrics of every endpoint's models up with the outcomes in the prediction log.

It holds one look at one endpoint's log at a time: DuckDB with up to 2 GiB for what is large, and 250,000 rows of one
bundle and period as arrays, some 20 MB; afterwards only what a scrape tells, and how many rows each stored file has.
"""

import threading
from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from skewless.adapters.artifact_opening import open_artifact_store
from skewless.adapters.log_reader import open_log
from skewless.adapters.model_metrics_files import CountedFiles
from skewless.adapters.model_metrics_log import Counted
from skewless.adapters.model_metrics_run import BundleLabels, Kept, ListedSlices, keep_endpoint_up
from skewless.model_metrics.history import PAST_PERIODS
from skewless.monitor_limits import MODEL_METRICS_INTERVAL_S
from skewless.monitor_settings import MonitorSettings
from skewless.registry.database import engine
from skewless.registry.model_metrics import ModelMetrics
from skewless.registry.records import EndpointRecord
from skewless.registry.repository import Registry, system_clock
from skewless.settings import Home
from skewless.timestamps import HOUR_US, SECOND_US
from skewless_monitor.metrics_collector import EndpointShown, families

_LOOKS_A_PERIOD = 24
"""A period that fills, or whose outcomes trickle in, is computed so often while it lasts, or once an hour."""


class MetricsJob:
    """See the module; `skewless_monitor.jobs.Job`."""

    name = "metrics"
    interval_s = MODEL_METRICS_INTERVAL_S

    def __init__(self, settings: MonitorSettings) -> None:
        self._settings = settings
        self._registry = Registry(engine(settings.database_url))
        self._store = ModelMetrics(engine(settings.database_url))
        artifacts = open_artifact_store(settings.artifacts, cache=Home(settings.home).artifact_cache)
        self._labels = BundleLabels(artifacts)
        self._listed = ListedSlices(artifacts)
        self._shown: dict[str, EndpointShown] = {}
        self._kept: dict[str, Kept] = {}
        self._counted: dict[str, Counted] = {}
        self._outcomes = CountedFiles()

    @property
    def lag_s(self) -> float | None:
        """By how much the outcomes of periods that wait are behind; 0 where none waits, None before a run."""
        shown = self._shown
        if not shown:
            return None
        now = system_clock()
        behind = [now - each.last_outcome for each in shown.values() if each.waiting and each.last_outcome is not None]
        return max(behind, default=0) / SECOND_US

    def run_once(self, stop: threading.Event) -> bool:
        """Compute some periods of each endpoint. One that fails does not keep the others from their turn.

        Raises the first of the endpoints' errors once all have had it.
        """
        failed: Exception | None = None
        shown: dict[str, EndpointShown] = {}
        for record in self._registry.endpoints():
            if stop.is_set():
                return False
            try:
                shown[record.name] = self._keep_up(record, stop)
            except Exception as error:  # noqa: BLE001  # a task's boundary: told below, after the others' turn
                failed = failed or error
                if record.name in self._shown:
                    shown[record.name] = self._shown[record.name]
        self._shown = shown
        if failed is not None:
            raise failed
        return any(each.waiting for each in shown.values())

    def collect(self) -> Iterator[Metric]:
        """The families of the last run."""
        return families(self._shown)

    def close(self) -> None:
        """Let go of the database."""
        self._registry.close()
        self._store.close()

    def _keep_up(self, record: EndpointRecord, stop: threading.Event) -> EndpointShown:
        terms = {record.name: record.terms}
        with open_log(self._settings.prediction_log, self._settings.log_store, terms=terms) as log:
            before = self._kept.get(record.name)
            counted = self._counted.setdefault(record.name, Counted(outcomes=self._outcomes))
            kept = keep_endpoint_up(
                record,
                log,
                self._store,
                self._labels,
                now=system_clock(),
                rest_us=min(record.monitoring.metrics.period_us // _LOOKS_A_PERIOD, HOUR_US),
                before=before,
                counted=counted,
                stopped=stop.is_set,
            )
        self._kept[record.name] = kept
        newest = self._store.newest_periods(record.name)
        period_us = record.monitoring.metrics.period_us
        since = newest[0] - PAST_PERIODS * period_us if newest else 0
        records = tuple(
            each
            for start in newest
            for each in self._store.metrics(record.name, start=start, end=start + 1, slice_called=None)
        )
        slices = record.monitoring.metrics.slices
        return EndpointShown(
            waiting=kept.waiting,
            last_prediction=kept.last_prediction,
            last_outcome=kept.last_outcome,
            newest=records,
            listed={bundle: self._listed(bundle, slices) for bundle in sorted({each.bundle for each in records})},
            past=self._store.metrics(record.name, start=since),
            references={digest: self._registry.bundle(digest).metrics for digest in sorted(record.names)},
        )


def open_job(settings: MonitorSettings) -> MetricsJob:
    """The job of these settings. Raises InvalidSettings where an address cannot be used."""
    return MetricsJob(settings)
