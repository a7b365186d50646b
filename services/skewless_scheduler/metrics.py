"""What a scheduler tells about itself and about the views that are scheduled: what its last look saw.

Every scheduler tells how all views stand, which is in the database; its own are the counters.
"""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from skewless.features.schedule import Outcome
from skewless.timestamps import SECOND_US
from skewless_scheduler.scheduler import Scheduler, ViewShown, seconds

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_NUMBERS: tuple[tuple[str, str, Callable[[ViewShown], float | None]], ...] = (
    (
        "skewless_scheduler_next_due_timestamp_seconds",
        "When the view is due next; none where it never is.",
        lambda each: seconds(each.next_due),
    ),
    (
        "skewless_scheduler_last_success_timestamp_seconds",
        "When a scheduled run of the view last ended well; none before the first.",
        lambda each: seconds(each.state.last_success),
    ),
    (
        "skewless_scheduler_late_seconds",
        "For how long the oldest due time without a run that ended well has been waiting; 0 where none is.",
        lambda each: each.late_us / SECOND_US,
    ),
    (
        "skewless_scheduler_running",
        "1 while a scheduled run of the view is under way.",
        lambda each: float(each.state.outcome is Outcome.RUNNING),
    ),
    (
        "skewless_scheduler_failing",
        "Runs for the view's last due time that did not end well; 0 once one did.",
        lambda each: float(failed_attempts(each)),
    ),
    (
        "skewless_scheduler_missed_due_times",
        "Due times before the last one that its run made up for.",
        lambda each: float(each.state.missed),
    ),
)


def failed_attempts(each: ViewShown) -> int:
    """How many runs of the view's last due time did not end well."""
    state = each.state
    if state.outcome in (None, Outcome.DONE):
        return 0
    return state.attempts - (state.outcome is Outcome.RUNNING)


class SchedulerMetrics(Collector):
    """The page of one scheduler. A scrape asks no database."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.failures = 0
        """Looks that failed."""
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def page(self) -> bytes:
        """The metrics in Prometheus's text form."""
        return generate_latest(self._registry)

    def describe(self) -> Iterator[Metric]:
        """Nothing: what is told depends on what is scheduled."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """The families."""
        shown, counts = self._scheduler.shown, self._scheduler.counts
        for name, meaning, value_of in _NUMBERS:
            family = GaugeMetricFamily(name, meaning, labels=["view"])
            for each in shown:
                if (value := value_of(each)) is not None:
                    family.add_metric([each.state.view], value)
            yield family
        runs = CounterMetricFamily("skewless_scheduler_runs_total", "Runs that ended.", labels=["view", "outcome"])
        for (view, outcome), count in list(counts.runs.items()):
            runs.add_metric([view, outcome.value], count)
        took = GaugeMetricFamily(
            "skewless_scheduler_run_duration_seconds", "How long the view's last run took.", labels=["view"]
        )
        for view, took_s in list(counts.run_s.items()):
            took.add_metric([view], took_s)
        yield from (runs, took)
        yield GaugeMetricFamily("skewless_scheduler_runs", "Runs under way here.", value=self._scheduler.running)
        yield GaugeMetricFamily("skewless_scheduler_views", "Views that are scheduled.", value=len(shown))
        yield GaugeMetricFamily(
            "skewless_scheduler_views_refused",
            "Views whose cron expression is wrong.",
            value=len(self._scheduler.refused),
        )
        yield CounterMetricFamily("skewless_scheduler_looks_total", "Looks at what is due.", value=counts.looks)
        yield CounterMetricFamily("skewless_scheduler_look_failures_total", "Looks that failed.", value=self.failures)
        yield CounterMetricFamily(
            "skewless_scheduler_overtaken_total",
            "Due times that another scheduler took first.",
            value=counts.overtaken,
        )
