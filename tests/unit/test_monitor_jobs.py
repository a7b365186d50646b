"""How a monitor runs its jobs: at their interval, again after a failure, anew after several, and to their end."""

import importlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from harness.polling import SOON_S
from harness.servers import wait_until
from skewless.errors import Unavailable
from skewless.limits import MONITOR_JOB_STUCK_S, MONITOR_REOPEN_FAILURES, MONITOR_RETRY_S_MAX
from skewless.monitor_settings import MONITOR_JOBS, MonitorSettings
from skewless_monitor.jobs import opener
from skewless_monitor.running_job import RunningJob, retry_s
from skewless_monitor.service import MonitorService

FOR_EVER_S = 3_600.0


@dataclass
class ScriptedJob:
    """Does what its script says at each run, and from then on says that nothing is left to do."""

    script: list[Callable[[], bool]] = field(default_factory=list)
    interval_s: float = FOR_EVER_S
    name: str = "drift"
    lag_s: float | None = None
    runs: int = 0
    closed: int = 0
    found: int = 0
    """What its metrics tell: the runs that ended well."""

    def run_once(self, stop: threading.Event) -> bool:  # noqa: ARG002  # the port's form
        self.runs += 1
        more = self.script.pop(0)() if self.script else False
        self.found += 1
        return more

    def collect(self) -> Iterator[Metric]:
        if self.found:
            yield GaugeMetricFamily("found", "Runs that ended well.", value=self.found)

    def close(self) -> None:
        self.closed += 1


def fails(error: Exception) -> Callable[[], bool]:
    def fail() -> bool:
        raise error

    return fail


def more() -> bool:
    return True


def told(job: RunningJob) -> float | None:
    """What a job's own gauge says; None where it tells nothing."""
    families = list(job.collect())
    return families[0].samples[0].value if families else None


@pytest.fixture
def stop() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def started(open_job: Callable[[], ScriptedJob], stop: threading.Event, wait_s: float = 0.0) -> RunningJob:
    running = RunningJob("drift", open_job, stop, wait_s=lambda _: wait_s)
    running.start()
    return running


def test_a_job_runs_again_at_once_while_there_is_more_and_then_waits(stop: threading.Event) -> None:
    job = ScriptedJob([more, more])
    running = started(lambda: job, stop)
    wait_until(lambda: running.state.runs == 3, "it has done everything")
    stop.set()
    assert running.ended_within(SOON_S), "it does not wait for its interval"
    assert (job.runs, job.closed, running.state.failures) == (3, 1, 0)
    assert running.state.interval_s == FOR_EVER_S
    assert running.state.last_success_s == pytest.approx(time.time(), abs=600)


def test_an_interval_counts_from_the_begin_of_a_run(stop: threading.Event) -> None:
    def takes_a_while() -> bool:
        return stop.wait(0.05)

    job = ScriptedJob([more, takes_a_while])
    running = RunningJob("drift", lambda: job, stop)
    assert running._turn() == 0.0, "there is more"
    assert 0.0 < running._turn() <= FOR_EVER_S - 0.05
    job.script, job.interval_s = [takes_a_while], 0.01
    assert running._turn() == 0.0, "a run that takes longer than the interval is followed by the next"


def test_a_failure_is_told_counted_and_tried_again_and_the_others_go_on(
    stop: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    away = Unavailable("registry", "nobody listens")
    one, other = ScriptedJob([fails(away), fails(KeyError("row"))]), ScriptedJob([more] * 5)
    with caplog.at_level(logging.INFO, "skewless_monitor"):
        failing, well = started(lambda: one, stop), started(lambda: other, stop)
        wait_until(lambda: failing.state.runs == 1 and well.state.runs == 6, "both have done everything")
    assert (failing.state.failures, failing.state.failures_in_a_row, well.state.failures) == (2, 0, 0)
    assert failing.state.last_failure == "KeyError: 'row'", "it stays after a success"
    first, second = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert "nobody listens" in first.getMessage()
    assert first.exc_info is None, "what is expected is explained by its message"
    assert second.exc_info is not None
    assert "does well again after 2 failures" in caplog.text


def test_one_trace_of_a_failure_that_goes_on_is_enough(stop: threading.Event, caplog: pytest.LogCaptureFixture) -> None:
    job = ScriptedJob([fails(KeyError("row")) for _ in range(3)])
    with caplog.at_level(logging.INFO, "skewless_monitor"):
        running = started(lambda: job, stop)
        wait_until(lambda: running.state.runs == 1, "it does well again")
    traced = [record.exc_info is not None for record in caplog.records if record.levelno == logging.ERROR]
    assert traced == [True, False, False]


def test_what_cannot_be_opened_is_tried_again(stop: threading.Event) -> None:
    job = ScriptedJob()
    problems = iter([Unavailable("registry", "away"), ImportError("no deltalake")])

    def open_job() -> ScriptedJob:
        for problem in problems:
            raise problem
        return job

    running = started(open_job, stop)
    wait_until(lambda: running.state.runs == 1, "it runs in the end")
    assert running.state.failures == 2


def test_a_job_that_keeps_failing_is_opened_anew_and_its_metrics_stay_until_the_new_one_has_some(
    stop: threading.Event,
) -> None:
    broken = ScriptedJob([more, *(fails(OSError("gone")) for _ in range(MONITOR_REOPEN_FAILURES))], lag_s=5.0)
    seen: list[float | None] = []

    def look() -> bool:
        seen.append(told(running))
        return False

    new = ScriptedJob([look])
    jobs = iter([broken, new])
    running = RunningJob("drift", lambda: next(jobs), stop, wait_s=lambda _: 0.0)
    running.start()
    wait_until(lambda: new.found == 1 and running.state.running_since_s is None, "the new one has run")
    assert broken.closed == 1
    assert seen == [1], "while the new one has nothing yet, what the old one found is told"
    assert told(running) == 1
    assert running.lag_s is None, "from its first success on, the new one is asked"


def test_a_job_that_cannot_even_be_closed_ends_all_the_same(
    stop: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    job = ScriptedJob()
    job.close = fails(OSError("a socket"))  # type: ignore[method-assign,assignment]
    running = started(lambda: job, stop)
    wait_until(lambda: running.state.runs == 1, "it has run")
    stop.set()
    assert running.ended_within(SOON_S)
    assert "could not be closed" in caplog.text


def test_a_run_that_does_not_end_is_a_problem_and_one_that_waits_is_none(
    stop: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go = threading.Event()
    job = ScriptedJob([lambda: let_go.wait(SOON_S)])
    running = started(lambda: job, stop)
    wait_until(lambda: running.state.running_since_s is not None, "it has begun")
    assert running.problem() == ""
    began_s = running.state.running_since_s
    assert began_s is not None
    with monkeypatch.context() as patched:
        patched.setattr(time, "monotonic", lambda: began_s + MONITOR_JOB_STUCK_S + 1)
        assert running.running_s() == pytest.approx(MONITOR_JOB_STUCK_S + 1)
        assert running.problem() == "job drift has been running for 901 s"
    stop.set()
    let_go.set()
    assert running.ended_within(SOON_S)
    assert running.problem() == "", "a monitor that stops has no thread to miss"


def test_a_thread_that_ended_by_itself_is_a_problem(stop: threading.Event) -> None:
    class Broken(BaseException):
        """What no boundary catches."""

    def break_it() -> bool:
        raise Broken

    hook, threading.excepthook = threading.excepthook, lambda _: None
    try:
        running = started(lambda: ScriptedJob([break_it]), stop)
        assert running.ended_within(SOON_S)
    finally:
        threading.excepthook = hook
    assert running.problem() == "the thread of job drift has ended"


def test_waits_after_failures_grow_to_a_bound() -> None:
    waits = [retry_s(count) for count in range(1, 40)]
    assert waits == sorted(waits)
    assert waits[-1] == MONITOR_RETRY_S_MAX


def service(**jobs: ScriptedJob) -> MonitorService:
    settings = MonitorSettings(database_url="sqlite://", artifacts="a", log_store="s", port=0)
    return MonitorService(settings, {name: lambda job=job: job for name, job in jobs.items()})  # type: ignore[misc]


def test_a_service_runs_until_it_is_told_and_closes_every_job() -> None:
    drift, parity = ScriptedJob([more]), ScriptedJob(name="parity")
    made = service(drift=drift, parity=parity)
    done = made.run(lambda: wait_until(lambda: (drift.runs, parity.runs) == (2, 1), "both have run"))
    assert done
    assert (drift.closed, parity.closed) == (1, 1)


def test_a_job_that_does_not_end_is_cut_off_and_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("skewless_monitor.service.MONITOR_STOP_S", 0.05)
    let_go = threading.Event()
    stuck, well = ScriptedJob([lambda: let_go.wait(SOON_S)]), ScriptedJob(name="parity")
    made = service(drift=stuck, parity=well)
    assert not made.run(lambda: wait_until(lambda: stuck.runs == well.runs == 1, "both have begun"))
    assert "job drift is cut off" in caplog.text
    assert "job parity is cut off" not in caplog.text
    let_go.set()
    assert made.jobs[0].ended_within(SOON_S)


@pytest.mark.parametrize("name", MONITOR_JOBS)
def test_every_job_that_can_be_named_has_a_module_that_opens_it(name: str) -> None:
    settings = MonitorSettings(database_url="sqlite://", artifacts="a", log_store="s")
    assert callable(opener(name, settings))
    assert callable(importlib.import_module(f"skewless_monitor.{name}_job").open_job)
