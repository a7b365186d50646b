"""The monitor as a whole: its jobs, each in a thread, and its listener, until it is told to stop."""

import logging
import threading
import time
from collections.abc import Callable, Sequence

from skewless.adapters.status_listener import listening
from skewless.limits import MONITOR_REQUEST_S, MONITOR_STOP_S
from skewless.monitor_settings import MonitorSettings
from skewless.settings import variable_name
from skewless_monitor.jobs import Job, opener
from skewless_monitor.listener import answers
from skewless_monitor.monitor_collector import MonitorCollector
from skewless_monitor.running_job import RunningJob

_LOGGER = logging.getLogger(__name__)


class MonitorService:
    """Runs the jobs that the settings name, or those that are `given`, by name."""

    def __init__(self, settings: MonitorSettings, given: dict[str, Callable[[], Job]] | None = None) -> None:
        self._settings = settings
        self._stop = threading.Event()
        found = {name: opener(name, settings) for name in settings.job_names} if given is None else given
        self.jobs = tuple(RunningJob(name, open_job, self._stop) for name, open_job in found.items())
        self._collector = MonitorCollector(self.jobs)

    def run(self, until_told: Callable[[], object]) -> bool:
        """Run until `until_told` returns; whether every job ended by itself then, within MONITOR_STOP_S.

        Raises InvalidSettings where the port cannot be listened on. A job that is cut off has lost nothing: what it
        had not committed is done again.
        """
        settings = self._settings
        if not settings.port:
            return self._run(until_told)
        setting = variable_name(MonitorSettings, "port")
        paths = answers(self.jobs, self._collector)
        with listening(settings.host, settings.port, paths, setting=setting, request_s=MONITOR_REQUEST_S) as port:
            _LOGGER.info("metrics are on %s:%d", settings.host, port)
            return self._run(until_told)

    def _run(self, until_told: Callable[[], object]) -> bool:
        for job in self.jobs:
            job.start()
        try:
            until_told()
        finally:
            self._stop.set()
            cut_off = _not_ended(self.jobs)
        for name in cut_off:
            _LOGGER.warning("job %s is cut off: it did not end within %g s", name, MONITOR_STOP_S)
        _LOGGER.info("ended")
        return not cut_off


def _not_ended(jobs: Sequence[RunningJob]) -> list[str]:
    """The names of those that are still at work when the time of all together is over."""
    deadline_s = time.monotonic() + MONITOR_STOP_S
    return [job.name for job in jobs if not job.ended_within(max(0.0, deadline_s - time.monotonic()))]
