"""What a monitor does, as its process sees it: jobs that it opens, runs again and again, and asks for metrics."""

import importlib
import threading
from collections.abc import Callable, Iterator
from typing import Protocol

from prometheus_client.metrics_core import Metric

from skewless.monitor_settings import MonitorSettings


class Job(Protocol):
    """One kind of work, in a thread of its own. Whatever it has done is kept in transactions: it may end anywhere.

    `collect` and `lag_s` are asked by the scrape's thread while the job runs, also after a failure, and after `close`.
    They read what the last run left in one attribute: no lock, no database, no file.
    """

    @property
    def name(self) -> str:
        """One of `skewless.monitor_settings.MONITOR_JOBS`."""

    @property
    def interval_s(self) -> float:
        """Seconds from the begin of a run to that of the next where there is nothing more to do."""

    @property
    def lag_s(self) -> float | None:
        """By how many seconds what is taken into account is behind the newest record; None where that is not known."""

    def run_once(self, stop: threading.Event) -> bool:
        """Do a bounded portion; whether there is more to do at once.

        Ends within MONITOR_JOB_STUCK_S, and soon where `stop` is set. Whatever it raises is told, counted, and tried
        again: what it had begun must then be undone or go on.
        """

    def collect(self) -> Iterator[Metric]:
        """Metric families of the last finished run; nothing before one."""

    def close(self) -> None:
        """Give back connections and child processes; called once, by the job's own thread."""


_IMPORTING = threading.Lock()
"""Held while a job's module is imported: of two threads in one circle of imports, one sees a module half made."""


def opener(name: str, settings: MonitorSettings) -> Callable[[], Job]:
    """What opens the job of a name. Its module is imported by that call: a job that is not asked for costs nothing."""

    def open_job() -> Job:
        with _IMPORTING:
            module = importlib.import_module(f"skewless_monitor.{name}_job")
        job: Job = module.open_job(settings)
        return job

    return open_job
