"""What Prometheus is told of quality gates: the last batch of each view, and what waits in quarantine.

Series of one view: seven numbers, four decisions twice, three severities, and at most QUALITY_FEATURES_EXPORTED shares
of features that are not as expected: 18 and those.
"""

from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from skewless.monitor_limits import QUALITY_FEATURES_EXPORTED
from skewless.quality.suite import Severity
from skewless.quality.verdict import Decision
from skewless.registry.quality_results import RunRecord, ViewQuality
from skewless.timestamps import SECOND_US

_NUMBERS: tuple[tuple[str, str, Callable[[ViewQuality], float | None]], ...] = (
    (
        "skewless_quality_last_run_timestamp_seconds",
        "When the view's last batch was judged.",
        lambda each: each.run.time / SECOND_US,
    ),
    (
        "skewless_quality_run_duration_seconds",
        "How long judging the last batch took.",
        lambda each: each.run.duration_us / SECOND_US,
    ),
    ("skewless_quality_rows", "Rows of the last batch.", lambda each: each.run.rows),
    ("skewless_quality_set_aside_rows", "Rows of the last batch that were set aside.", lambda each: each.run.set_aside),
    ("skewless_quality_quarantined_rows", "Rows of the view that wait in quarantine.", lambda each: each.held_rows),
    (
        "skewless_quality_quarantined_batches",
        "Batches of such rows.",
        lambda each: each.held_batches,
    ),
    (
        "skewless_quality_quarantine_oldest_timestamp_seconds",
        "Since when the oldest of them waits.",
        lambda each: None if each.oldest_held_time is None else each.oldest_held_time / SECOND_US,
    ),
)


def families(standing: Sequence[ViewQuality]) -> Iterator[Metric]:
    """The metric families of all views."""
    for name, meaning, value_of in _NUMBERS:
        family = GaugeMetricFamily(name, meaning, labels=["view"])
        for each in standing:
            if (value := value_of(each)) is not None:
                family.add_metric([each.run.view], value)
        yield family
    decision = GaugeMetricFamily(
        "skewless_quality_decision", "1 for what became of the last batch.", labels=["view", "decision"]
    )
    runs = GaugeMetricFamily("skewless_quality_runs", "Runs that are kept.", labels=["view", "decision"])
    failed = GaugeMetricFamily(
        "skewless_quality_failed_expectations",
        "Expectations that the last batch does not meet.",
        labels=["view", "severity"],
    )
    share = GaugeMetricFamily(
        "skewless_quality_unexpected_share",
        "Of the last batch's rows, those that do not meet the expectation of a feature that fares worst.",
        labels=["view", "feature"],
    )
    for each in standing:
        view = each.run.view
        for kind in Decision:
            decision.add_metric([view, kind.value], float(each.run.decision is kind))
            runs.add_metric([view, kind.value], each.runs.get(kind.value, 0))
        for severity in Severity:
            failed.add_metric([view, severity.value], _failed(each.run, severity))
        for feature, worst in _shares(each.run):
            share.add_metric([view, feature], worst)
    yield from (decision, runs, failed, share)


def _failed(run: RunRecord, severity: Severity) -> int:
    return sum(not each.success and each.severity == severity.value for each in run.results)


def _shares(run: RunRecord) -> list[tuple[str, float]]:
    """The worst share of each feature that something is wrong with; the worst features where those are too many."""
    worst: dict[str, float] = {}
    for each in run.results:
        feature = each.kwargs.get("column", each.kwargs.get("column_A"))
        if not each.success and feature is not None and each.unexpected_share is not None:
            worst[feature] = max(worst.get(feature, 0.0), each.unexpected_share)
    return sorted(worst.items(), key=lambda item: (-item[1], item[0]))[:QUALITY_FEATURES_EXPORTED]
