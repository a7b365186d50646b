"""What Prometheus is told of drift: bounded by DRIFT_SHOWN_KEYS_MAX bundles in roles, each of at most

12 samples for each feature and score, 2 for each view, and some ten more
"""

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from skewless.adapters.drift_snapshot import DriftShown, EndpointShown, KeyShown
from skewless.drift.contract_breaks import Rule
from skewless.drift.shown import SPANS, FeatureShown
from skewless.registry.drift_records import DriftWindow
from skewless.timestamps import SECOND_US

_SHORT = 12
_KEY = ["endpoint", "bundle", "role"]
_OF_FEATURE: tuple[tuple[str, str, Callable[[FeatureShown], float | None]], ...] = (
    ("skewless_drift_feature_rows", "Values of a column, or of the score, over the last hour.", lambda each: each.rows),
    ("skewless_drift_feature_null_ratio", "Share of null values.", lambda each: each.null),
    (
        "skewless_drift_feature_missing_ratio",
        "Share of values that the online store did not have.",
        lambda each: each.missing,
    ),
    (
        "skewless_drift_feature_stale_ratio",
        "Share of values that were older than their view's ttl.",
        lambda each: each.stale,
    ),
    ("skewless_drift_feature_default_ratio", "Share of values that a default stood in for.", lambda each: each.default),
    ("skewless_drift_feature_unseen_ratio", "Share of values that training never saw.", lambda each: each.unseen),
    ("skewless_drift_feature_mean", "Mean of the finite numbers.", lambda each: each.mean),
    (
        "skewless_drift_feature_level",
        "How high it stands in heights of an alarm; 1 raises one.",
        lambda each: each.level,
    ),
)
_OF_KEY: tuple[tuple[str, str, Callable[[KeyShown], float | None]], ...] = (
    ("skewless_drift_alarm_open", "Whether an alarm is open.", lambda each: _window(each, lambda w: float(w.is_open))),
    (
        "skewless_drift_alarm_level",
        "The highest level of all variables; an alarm opens at 1.",
        lambda each: _window(each, lambda w: w.level),
    ),
    (
        "skewless_drift_calibrated",
        "Whether alarms come at a promised rate.",
        lambda each: float(each.standing.calibrated),
    ),
    (
        "skewless_drift_window_end_timestamp_seconds",
        "Event time at which the newest scored window ended.",
        lambda each: each.standing.next_start_us / SECOND_US,
    ),
    ("skewless_drift_window_rows", "Rows of the newest scored window.", lambda each: _window(each, lambda w: w.rows)),
    ("skewless_drift_alarm_height", "How high a sum must climb; calibrated.", lambda each: each.standing.height),
)
_OF_ENDPOINT: tuple[tuple[str, str, Callable[[EndpointShown], float]], ...] = (
    (
        "skewless_drift_newest_timestamp_seconds",
        "Event time of the newest counted prediction.",
        lambda each: each.progress.newest_us / SECOND_US,
    ),
    ("skewless_drift_window_length_seconds", "Length of a window.", lambda each: each.policy.window_us / SECOND_US),
    (
        "skewless_drift_lateness_seconds",
        "How long rows of a window are waited for.",
        lambda each: each.policy.lateness_us / SECOND_US,
    ),
    (
        "skewless_drift_unsliced",
        "Whether a column of the policy makes no slices.",
        lambda each: float(each.slice_problem is not None),
    ),
)
_COUNTERS: tuple[tuple[str, str, Callable[[EndpointShown], int]], ...] = (
    ("skewless_drift_rows_total", "Predictions counted.", lambda each: each.progress.rows),
    (
        "skewless_drift_late_rows_total",
        "Predictions that came when their window was sealed.",
        lambda each: each.progress.late_rows,
    ),
    (
        "skewless_drift_uncounted_rows_total",
        "Predictions of bundles that cannot be read any more, or as of a moment to come.",
        lambda each: each.progress.uncounted_rows,
    ),
)


def families(shown: DriftShown) -> Iterator[Metric]:
    """The metric families of all endpoints."""
    yield from _of_endpoints(shown)
    yield from _of_keys(shown)
    yield from _of_features(shown)
    yield from _of_views(shown)


def _of_endpoints(shown: DriftShown) -> Iterator[Metric]:
    for name, meaning, of in _OF_ENDPOINT:
        gauge = GaugeMetricFamily(name, meaning, labels=["endpoint"])
        for each in shown.endpoints:
            gauge.add_metric([each.progress.endpoint], of(each))
        yield gauge
    for name, meaning, count in _COUNTERS:
        counter = CounterMetricFamily(name, meaning, labels=["endpoint"])
        for each in shown.endpoints:
            counter.add_metric([each.progress.endpoint], count(each))
        yield counter
    words = GaugeMetricFamily(
        "skewless_drift_unseen_words", "Unseen words that are known by name.", labels=["endpoint", "feature"]
    )
    for each in shown.endpoints:
        for feature, known in each.words.items():
            words.add_metric([each.progress.endpoint, feature], known)
    yield words
    days = GaugeMetricFamily(
        "skewless_drift_recount_days", "Days of earlier rows that are still to be counted.", labels=_KEY
    )
    for each in shown.endpoints:
        for recount in each.recounts:
            left_us = max(recount.next_us - recount.since_us, 0)
            key = recount.key
            days.add_metric([key.endpoint, key.bundle[:_SHORT], key.role], left_us / SECOND_US / 86_400)
    yield days
    yield GaugeMetricFamily(
        "skewless_drift_files_waiting", "Files of the log store that wait to be counted.", value=shown.files_waiting
    )
    yield GaugeMetricFamily(
        "skewless_drift_keys_left_out", "Bundles in roles that are too many to be shown.", value=shown.keys_left_out
    )


def _of_keys(shown: DriftShown) -> Iterator[Metric]:
    active = [each for each in shown.keys if each.is_active]
    for name, meaning, of in _OF_KEY:
        gauge = GaugeMetricFamily(name, meaning, labels=_KEY)
        for each in active:
            if (value := of(each)) is not None:
                gauge.add_metric(_labels(each), value)
        yield gauge
    broken = GaugeMetricFamily(
        "skewless_drift_breaks", "Broken contracts in the newest scored window.", labels=[*_KEY, "rule"]
    )
    for each in active:
        if each.window is not None:
            rules = [found["rule"] for found in each.window.breaks]
            for rule in Rule:
                broken.add_metric([*_labels(each), rule.value.replace(" ", "_")], rules.count(rule.value))
    yield broken


def _of_features(shown: DriftShown) -> Iterator[Metric]:
    for name, meaning, of in _OF_FEATURE:
        gauge = GaugeMetricFamily(name, meaning, labels=[*_KEY, "feature"])
        for each in shown.keys:
            for feature in each.features:
                if (value := of(feature)) is not None:
                    gauge.add_metric([*_labels(each), feature.name], value)
        yield gauge
    psi, floor = (
        GaugeMetricFamily(name, meaning, labels=[*_KEY, "feature", "span"])
        for name, meaning in (
            ("skewless_drift_feature_psi", "Population stability index beside training."),
            ("skewless_drift_feature_psi_floor", "What chance alone makes of it on average."),
        )
    )
    for each in shown.keys:
        for feature in each.features:
            for span in SPANS:
                distance, labels = feature.distances[span], [*_labels(each), feature.name, span]
                if distance.psi is not None and distance.floor is not None:
                    psi.add_metric(labels, distance.psi)
                    floor.add_metric(labels, distance.floor)
    yield psi
    yield floor


def _of_views(shown: DriftShown) -> Iterator[Metric]:
    now, training = (
        GaugeMetricFamily(name, meaning, labels=[*_KEY, "view"])
        for name, meaning in (
            ("skewless_drift_age_median_seconds", "Median age of a view's rows over the last hour."),
            ("skewless_drift_age_training_median_seconds", "Median age of a view's rows in training."),
        )
    )
    for each in shown.keys:
        for view in each.views:
            if view.median_s is not None:
                now.add_metric([*_labels(each), view.name], view.median_s)
            if view.training_median_s is not None:
                training.add_metric([*_labels(each), view.name], view.training_median_s)
    yield now
    yield training


def _labels(shown: KeyShown) -> list[str]:
    key = shown.standing.key
    return [key.endpoint, key.bundle[:_SHORT], key.role]


def _window(shown: KeyShown, of: Callable[[DriftWindow], float]) -> float | None:
    return None if shown.window is None else of(shown.window)
