"""The job `drift`: counts every logged prediction, watches what changes, and raises alarms at a promised rate.

It holds the baselines of bundles in service, a detector for each bundle and role (some ten MiB), one portion of rows,
and one day of counts; while it calibrates, the weeks of one slice, some 100 MiB for forty features in five minutes.
Reports about alarms are made one after the other in processes of their own.
"""

import logging
import queue
import threading
from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from skewless.adapters.artifact_opening import open_artifact_store
from skewless.adapters.drift_engine import DriftEngine
from skewless.adapters.drift_report_process import report_in_child
from skewless.adapters.drift_scoring import Scored
from skewless.adapters.log_store import open_log_store
from skewless.adapters.segment_stream import SegmentStream
from skewless.adapters.stream_opening import open_segment_stream
from skewless.drift.alarms import Alarm
from skewless.errors import SkewlessError
from skewless.limits import STREAM_BYTES_MIN
from skewless.monitor_limits import DRIFT_INTERVAL_S, DRIFT_REPORTS_WAITING_MAX
from skewless.monitor_settings import MonitorSettings
from skewless.registry.database import engine
from skewless.registry.drift_records import DriftKey, DriftRecords
from skewless.registry.drift_scores import alarm_id
from skewless.registry.repository import system_clock
from skewless.timestamps import SECOND_US, format_timestamp
from skewless_monitor.drift_collector import families

_LOGGER = logging.getLogger(__name__)
_CACHE = "artifacts"
"""Folder in the monitor's home for the files of bundles that lie in a bucket."""
_SCRATCH = "drift-scratch"
"""Folder in the monitor's home for files of a log store that lies in a bucket, on their way."""


class DriftJob:
    """See the module; `skewless_monitor.jobs.Job`."""

    name = "drift"
    interval_s = DRIFT_INTERVAL_S

    def __init__(self, settings: MonitorSettings) -> None:
        self._engine = DriftEngine(
            settings.database_url,
            open_artifact_store(settings.artifacts, cache=settings.home / _CACHE),
            open_log_store(settings.log_store_address, scratch=settings.home / _SCRATCH),
            stream=None if settings.stream is None else lambda: _stream(settings),
            on_scored=self._tell,
            on_problem=lambda problem: _LOGGER.warning("drift: %s", problem),
        )
        self._reports = Reports(settings)

    @property
    def lag_s(self) -> float | None:
        """How long ago the oldest file came that is not counted yet; 0 where none waits."""
        since_s = self._engine.shown.waiting_since_s
        return 0.0 if since_s is None else max(system_clock() / SECOND_US - since_s, 0.0)

    def run_once(self, stop: threading.Event) -> bool:
        """Count, score and keep for some seconds; whether there is more."""
        return self._engine.run_once(stop)

    def collect(self) -> Iterator[Metric]:
        """The families of the last run."""
        return families(self._engine.shown)

    def close(self) -> None:
        """Let go of the database; a report under way ends by itself."""
        self._reports.close()
        self._engine.close()

    def _tell(self, scored: Scored) -> None:
        key = scored.key
        if scored.calibrated:
            _LOGGER.info("drift: %s of %s (%s) was calibrated", key.role, key.endpoint, key.bundle[:12])
        for alarm in scored.opened:
            names = ", ".join(each.stream.name for each in alarm.named[:5])
            _LOGGER.warning(
                "drift: %s of %s (%s) changed at about %s: %s%s",
                key.role,
                key.endpoint,
                key.bundle[:12],
                format_timestamp(alarm.since_us),
                names,
                "" if alarm.calibrated else " (uncalibrated)",
            )
            if alarm.calibrated:
                self._reports.ask(key, alarm)


class Reports:
    """Makes reports about alarms, one after the other, in a thread that begins with the first."""

    def __init__(self, settings: MonitorSettings) -> None:
        self._settings = settings
        self._waiting: queue.Queue[tuple[DriftKey, str]] = queue.Queue(DRIFT_REPORTS_WAITING_MAX)
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def ask(self, key: DriftKey, alarm: Alarm) -> None:
        """Have a report made about an alarm; where too many wait it is left to whoever asks for it."""
        try:
            self._waiting.put_nowait((key, alarm_id(key, alarm.opened_us)))
        except queue.Full:
            _LOGGER.info("drift: no report is made about an alarm of %s: others wait", key.endpoint)
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="drift-reports", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Begin no more."""
        self._closed.set()

    def _run(self) -> None:
        records = DriftRecords(engine(self._settings.database_url))
        try:
            while not self._closed.is_set():
                try:
                    key, alarm = self._waiting.get(timeout=1.0)
                except queue.Empty:
                    continue
                self._make(records, key, alarm)
        finally:
            records.close()

    def _make(self, records: DriftRecords, key: DriftKey, alarm: str) -> None:
        try:
            folder = report_in_child(key.endpoint, alarm, report_environment(self._settings))
            records.set_report(alarm, str(folder))
        except (SkewlessError, OSError) as error:
            _LOGGER.warning("drift: no report about alarm %s of %s: %s", alarm, key.endpoint, error)


def report_environment(settings: MonitorSettings) -> dict[str, str]:
    """The variables of the library's settings under which a report is made: those that say where everything is, and
    which packages the bundles of this place may call."""
    return {
        "SKEWLESS_HOME": str(settings.home),
        "SKEWLESS_DATABASE_URL": settings.database_url,
        "SKEWLESS_ARTIFACTS": settings.artifacts,
        "SKEWLESS_LOG_STORE": settings.log_store_address,
        "SKEWLESS_STEP_PACKAGES": settings.step_packages,
    }


def open_job(settings: MonitorSettings) -> DriftJob:
    """The job of these settings. Raises InvalidSettings where an address cannot be used."""
    return DriftJob(settings)


def _stream(settings: MonitorSettings) -> SegmentStream:
    assert settings.stream is not None
    return open_segment_stream(
        settings.stream.get_secret_value(),
        name=settings.stream_name,
        bytes_max=STREAM_BYTES_MIN,  # nothing is published from here, so that the bound does not matter
        options=settings.stream_options,
    )
