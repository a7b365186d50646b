"""The monitor's job `parity`: has sampled predictions compared by a process of its own, and tells what was found.

anything new?   the log's folders, or the time that the last run named      here, at the cost of a few file names
compare         look, wait for sources, compare, note                       `parity_worker.py`, a process
tell            counts of the last day                                      `parity_collector.py`
"""

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.metrics_core import Metric

from skewless.adapters.artifact_address import BucketAddress, parse_artifacts_url
from skewless.adapters.spool import SPOOL
from skewless.monitor_limits import PARITY_FULL_LOOK_S, PARITY_LOOK_S
from skewless.monitor_settings import MonitorSettings
from skewless.registry.database import engine
from skewless.registry.parity_history import ParityHistory
from skewless_monitor.parity_collector import ParitySnapshot, families, snapshot
from skewless_monitor.parity_process import ParityProcess

_LOGGER = logging.getLogger(__name__)
Stamp = tuple[tuple[str, int], ...]


class ParityJob:
    """See the module; implements `Job`."""

    name = "parity"
    interval_s = PARITY_LOOK_S

    def __init__(self, settings: MonitorSettings, history: ParityHistory, process: ParityProcess) -> None:
        self._settings = settings
        self._history = history
        self._process = process
        self._snapshot: ParitySnapshot | None = None
        self._stamp: Stamp | None = None
        self._due_s = 0.0
        self._is_told = False
        self._failed: dict[str, str] = {}

    @property
    def lag_s(self) -> float | None:
        """Age of the oldest prediction that waits for its comparison, of all endpoints; 0 where none does."""
        found = self._snapshot
        return None if found is None else found.lag_s

    def run_once(self, stop: threading.Event) -> bool:
        """Compare what is ready, where there may be anything. Raises Unavailable where no endpoint can be compared.

        One that fails alone is told in the log and by what it leaves waiting, so that the metrics of all others go on.
        """
        if self._settings.repo is None:
            self._tell_once()
            return False
        stamp, now_s = log_stamp(self._settings), time.monotonic()
        if stamp == ():  # nothing was ever logged
            return False
        if self._snapshot is not None and stamp is not None and stamp == self._stamp and now_s < self._due_s:
            self._process.replace_if_due()
            return False
        found = self._process.ask(stop)
        self._stamp = stamp
        self._due_s = now_s + min(PARITY_FULL_LOOK_S, found["next_s"] or PARITY_FULL_LOOK_S)
        self._snapshot = snapshot(self._history)
        self._tell_failed(found["failed"])
        self._process.replace_if_due()
        return bool(found["more"])

    def collect(self) -> Iterator[Metric]:
        """What the last run left."""
        found = self._snapshot
        return iter(()) if found is None else families(found, worker_bytes=self._process.bytes)

    def close(self) -> None:
        """End the process that compares."""
        self._process.close()
        self._history.close()

    def _tell_failed(self, failed: dict[str, str]) -> None:
        """Log what was not so before."""
        for endpoint, reason in failed.items():
            if self._failed.get(endpoint) != reason:
                _LOGGER.warning("endpoint %s is not compared, and tried again: %s", endpoint, reason)
        for endpoint in self._failed.keys() - failed.keys():
            _LOGGER.info("endpoint %s is compared again", endpoint)
        self._failed = failed

    def _tell_once(self) -> None:
        if not self._is_told:
            _LOGGER.warning("nothing is compared with the offline store: SKEWLESS_MONITOR_REPO is not set")
            self._is_told = True


def log_stamp(settings: MonitorSettings) -> Stamp | None:
    """What changes whenever something is logged; None where only reading the log tells, as in a bucket."""
    address = settings.log_store_address
    if isinstance(parse_artifacts_url(address), BucketAddress):
        return None
    folders = [Path(address)] if settings.prediction_log is None else [Path(address), settings.prediction_log / SPOOL]
    return tuple(each for folder in folders for each in _newest(folder))


def _newest(folder: Path) -> Iterator[tuple[str, int]]:
    """Segments of a spool, or the newest commit of each table of a store: names and sizes."""
    if folder.name == SPOOL:
        for each in sorted(folder.glob("*")):
            try:
                yield each.name, each.stat().st_size
            except FileNotFoundError:  # shipped this moment
                yield each.name, -1
        return
    for commits in sorted(folder.rglob("_delta_log")):
        yield str(commits), max((int(each.stem) for each in commits.glob("*.json") if each.stem.isdigit()), default=-1)


def open_job(settings: MonitorSettings) -> ParityJob:
    """The job of a monitor. Raises Unavailable where the database is away."""
    return ParityJob(settings, ParityHistory(engine(settings.database_url)), ParityProcess())
