"""What a monitor tells Prometheus: how its jobs are doing, and what each of them found.

A custom collector over snapshots, and no metric objects: a scrape takes what the jobs' last runs left, and nothing
here grows with traffic. A job's own metrics cannot take the page down: where they fail they are left out and counted,
where they are too many the rest is.
"""

from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from skewless.limits import MONITOR_SERIES_MAX
from skewless_monitor.running_job import RunningJob

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LABEL = "monitor_job"
"""Not `job`, which Prometheus gives to what it scrapes, and would rename."""


class MonitorCollector(Collector):
    """The page of one monitor. Asked by one thread at a time, the listener's."""

    def __init__(self, jobs: Sequence[RunningJob], *, series_max: int = MONITOR_SERIES_MAX) -> None:
        self._jobs = jobs
        self._series_max = series_max
        self._collect_failures = dict.fromkeys((job.name for job in jobs), 0)
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def page(self) -> bytes:
        """The metrics in Prometheus' text form."""
        return generate_latest(self._registry)

    def describe(self) -> Iterator[Metric]:
        """Nothing: what is told depends on what was found."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """The families of the jobs, then those about the jobs."""
        told = GaugeMetricFamily("skewless_monitor_series", "Series that the job tells.", labels=[LABEL])
        left_out = GaugeMetricFamily(
            "skewless_monitor_series_left_out", "Series of the job that were one too many.", labels=[LABEL]
        )
        for job in self._jobs:
            families, count, beyond = self._of_job(job)
            yield from families
            told.add_metric([job.name], count)
            left_out.add_metric([job.name], beyond)
        yield from (told, left_out)
        yield from _of_states(self._jobs)
        failures = CounterMetricFamily(
            "skewless_monitor_collect_failures_total",
            "Scrapes that went without the job's own metrics because making them failed.",
            labels=[LABEL],
        )
        for name, times in self._collect_failures.items():
            failures.add_metric([name], times)
        yield failures

    def _of_job(self, job: RunningJob) -> tuple[list[Metric], int, int]:
        """What a job tells, in how many series, and how many beyond its bound are left out with their families."""
        families: list[Metric] = []
        count = beyond = 0
        try:
            for family in job.collect():
                series = len(family.samples)
                if count + series > self._series_max:
                    beyond += series
                else:
                    families.append(family)
                    count += series
        except Exception:  # noqa: BLE001  # a task's boundary: the others' metrics are told; counted, and alerted on
            self._collect_failures[job.name] += 1
            return [], 0, 0
        return families, count, beyond


def _of_states(jobs: Sequence[RunningJob]) -> Iterator[Metric]:
    yield _counter(
        "skewless_monitor_job_runs_total", "Runs of the job that ended well.", jobs, lambda job: job.state.runs
    )
    yield _counter(
        "skewless_monitor_job_failures_total", "Runs of the job that failed.", jobs, lambda job: job.state.failures
    )
    yield _counter(
        "skewless_monitor_job_busy_seconds_total",
        "Time that the job spent in runs.",
        jobs,
        lambda job: job.state.busy_s,
    )
    yield _gauge(
        "skewless_monitor_job_failing",
        "1 while the job's last run failed.",
        jobs,
        lambda job: float(job.state.failures_in_a_row > 0),
    )
    yield _gauge(
        "skewless_monitor_job_running_seconds",
        "For how long the run under way has been going.",
        jobs,
        RunningJob.running_s,
    )
    yield _gauge(
        "skewless_monitor_job_interval_seconds",
        "Time from the begin of a run to that of the next.",
        jobs,
        lambda job: job.state.interval_s,
    )
    yield _gauge(
        "skewless_monitor_job_last_success_timestamp_seconds",
        "When a run of the job last ended well; none before the first.",
        jobs,
        lambda job: job.state.last_success_s,
    )
    yield _gauge(
        "skewless_monitor_job_lag_seconds",
        "By how much what the job takes into account is behind the newest record.",
        jobs,
        lambda job: job.lag_s,
    )


def _gauge(
    name: str, meaning: str, jobs: Sequence[RunningJob], value_of: Callable[[RunningJob], float | None]
) -> Metric:
    family = GaugeMetricFamily(name, meaning, labels=[LABEL])
    for job in jobs:
        value = value_of(job)
        if value is not None:
            family.add_metric([job.name], value)
    return family


def _counter(name: str, meaning: str, jobs: Sequence[RunningJob], value_of: Callable[[RunningJob], float]) -> Metric:
    family = CounterMetricFamily(name, meaning, labels=[LABEL])
    for job in jobs:
        family.add_metric([job.name], value_of(job))
    return family
