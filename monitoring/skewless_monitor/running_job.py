"""One job while its monitor runs: opened, run at its interval, tried again where it fails, and closed.

::

    opening ──▶ running ──done──▶ waiting for its interval ──▶ running …
       ▲           │ more to do: again at once
       └───────────┴──failed──▶ waiting, longer each time; after MONITOR_REOPEN_FAILURES in a row opened anew
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from prometheus_client.metrics_core import Metric

from skewless.errors import SkewlessError
from skewless.limits import MONITOR_JOB_STUCK_S, MONITOR_REOPEN_FAILURES, MONITOR_RETRY_S, MONITOR_RETRY_S_MAX
from skewless_monitor.jobs import Job

_LOGGER = logging.getLogger(__name__)
_EXPONENT_MAX = 10
"""Doublings after which any wait is at its bound."""


@dataclass(frozen=True, slots=True)
class JobState:
    """How a job is doing. Replaced as a whole by the job's thread, so that others read one moment of it."""

    runs: int = 0
    """Runs that ended well."""
    failures: int = 0
    failures_in_a_row: int = 0
    busy_s: float = 0.0
    """Seconds spent in runs, also in those that failed."""
    interval_s: float | None = None
    """None until it was opened."""
    last_success_s: float | None = None
    """When a run last ended well, in seconds since 1970; None where none did."""
    last_failure: str = ""
    """Why the last run that failed did; it stays after a success."""
    running_since_s: float | None = None
    """On the monotonic clock; None while it waits."""


class RunningJob:
    """A job and its thread. `state`, `problem`, `collect` and `lag_s` may be asked by any thread."""

    def __init__(
        self,
        name: str,
        open_job: Callable[[], Job],
        stop: threading.Event,
        *,
        wait_s: Callable[[int], float] | None = None,
    ) -> None:
        """`wait_s` says how long to wait after so many failures in a row; `retry_s` where not given."""
        self.name = name
        self._wait_s = wait_s or retry_s
        self.state = JobState()
        self._open_job = open_job
        self._stop = stop
        self._job: Job | None = None
        self._told: Job | None = None
        """Whose metrics are told: the one before, until one that was opened anew has done something."""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread, which ends once `stop` is set and the run under way is over."""
        self._thread.start()

    def ended_within(self, timeout_s: float) -> bool:
        """Wait for the thread to end; whether it did."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def running_s(self) -> float:
        """For how long the run under way has been going; 0 where none is."""
        since_s = self.state.running_since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    def problem(self) -> str:
        """What only a new process can put right: a run that does not end, or a thread that did; nothing otherwise."""
        if not self._thread.is_alive() and not self._stop.is_set():
            return f"the thread of job {self.name} has ended"
        running_s = self.running_s()
        return f"job {self.name} has been running for {running_s:.0f} s" if running_s > MONITOR_JOB_STUCK_S else ""

    @property
    def lag_s(self) -> float | None:
        """What the job says of itself; None before it was opened."""
        return None if self._told is None else self._told.lag_s

    def collect(self) -> Iterator[Metric]:
        """The job's own metrics."""
        if self._told is not None:
            yield from self._told.collect()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._stop.wait(self._turn())
        self._close()

    def _turn(self) -> float:
        """Run once; the seconds to wait before the next run."""
        began_s = time.monotonic()
        self.state = replace(self.state, running_since_s=began_s)
        try:
            job = self._opened()
            more = job.run_once(self._stop)
        except Exception as error:  # noqa: BLE001  # a task's boundary: the other jobs go on, and this one tries again
            return self._failed(error, took_s=time.monotonic() - began_s)
        took_s = time.monotonic() - began_s
        before, self._told = self.state, job
        self.state = replace(
            before,
            runs=before.runs + 1,
            failures_in_a_row=0,
            busy_s=before.busy_s + took_s,
            interval_s=job.interval_s,
            last_success_s=time.time(),
            running_since_s=None,
        )
        if before.failures_in_a_row:
            _LOGGER.info("job %s does well again after %d failures", self.name, before.failures_in_a_row)
        return 0.0 if more else max(0.0, job.interval_s - took_s)

    def _opened(self) -> Job:
        if self._job is None:
            self._job = self._open_job()
            self._told = self._told or self._job
            self.state = replace(self.state, interval_s=self._job.interval_s)
        return self._job

    def _failed(self, error: Exception, *, took_s: float) -> float:
        before = self.state
        in_a_row = before.failures_in_a_row + 1
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        # Expected kinds are explained by their message; of others one trace is enough.
        explained = isinstance(error, SkewlessError | OSError) or (
            before.failures_in_a_row and reason == before.last_failure
        )
        _LOGGER.error(
            "job %s failed (%d in a row), and is tried again: %s",
            self.name,
            in_a_row,
            error if explained else reason,
            exc_info=None if explained else error,
        )
        self.state = replace(
            before,
            failures=before.failures + 1,
            failures_in_a_row=in_a_row,
            busy_s=before.busy_s + took_s,
            last_failure=reason,
            running_since_s=None,
        )
        if in_a_row % MONITOR_REOPEN_FAILURES == 0:
            self._close()
        return self._wait_s(in_a_row)

    def _close(self) -> None:
        job, self._job = self._job, None
        if job is None:
            return
        try:
            job.close()
        except Exception:  # a task's boundary: it is given up, and what it held goes with the process at the latest
            _LOGGER.exception("job %s could not be closed", self.name)


def retry_s(failures_in_a_row: int) -> float:
    """Seconds to wait after so many failures in a row.

    >>> [retry_s(count) for count in (1, 2, 3, 7, 1000)]
    [1.0, 2.0, 4.0, 60.0, 60.0]
    """
    doublings = min(failures_in_a_row - 1, _EXPONENT_MAX)
    return min(MONITOR_RETRY_S * 2.0**doublings, MONITOR_RETRY_S_MAX)
