"""What Prometheus is told of models: the newest mature period of each bundle and role, and estimates of the newest.

Series of one bundle and role: all of its metrics over all rows (22 and its counters, three numbers each), and of up to
MODEL_METRIC_SLICES_EXPORTED slices those of SLICED, so at most 3 * (22 + 16) + 3 * 3 * 32 = 402, and some ten more.
Slices are those that training's data names: what callers send would make series without end, and may name a person.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from skewless.canonical_json import Digest
from skewless.model_metrics.history import estimate_errors
from skewless.model_metrics.judged import ALL
from skewless.model_metrics.records import MetricRecord
from skewless.monitor_limits import MODEL_METRIC_SLICES_EXPORTED
from skewless.timestamps import SECOND_US, Micros

SLICED = frozenset({"accuracy", "auroc", "brier"})
"""Metrics that Prometheus is told of for slices."""
REFERENCES = frozenset({"auroc", "average_precision", "brier", "ece", "log_loss"})
"""Metrics of a bundle's hold-out that live ones are held against."""
_SHORT = 12
Key = tuple[Digest, str]


@dataclass(frozen=True, slots=True)
class EndpointShown:
    """What a run left of one endpoint. `newest` has every slice of the newest and the newest mature periods, `past`
    all rows of some periods, `references` the hold-out metrics of the bundles that its route names, `listed` the slices
    that each bundle of `newest` has names for."""

    waiting: int
    last_prediction: Micros | None
    last_outcome: Micros | None
    newest: tuple[MetricRecord, ...]
    listed: Mapping[Digest, frozenset[str]]
    past: tuple[MetricRecord, ...]
    references: Mapping[Digest, Mapping[str, Any]]


def families(shown: Mapping[str, EndpointShown]) -> Iterator[Metric]:
    """The metric families of all endpoints."""
    yield from _values(shown)
    yield from _estimates(shown)
    yield from _shares(shown)
    yield from _of_endpoints(shown)


def _values(shown: Mapping[str, EndpointShown]) -> Iterator[Metric]:
    labels = ["endpoint", "bundle", "role", "slice", "metric"]
    parts: tuple[tuple[str, str, Callable[[MetricRecord], float | None]], ...] = (
        ("skewless_model_metric", "Of the newest mature period.", lambda each: each.value),
        ("skewless_model_metric_low", "Its lower bound.", lambda each: each.low),
        ("skewless_model_metric_high", "Its upper bound.", lambda each: each.high),
    )
    told = {endpoint: tuple(_told(each)) for endpoint, each in shown.items()}
    for name, meaning, of in parts:
        family = GaugeMetricFamily(name, meaning, labels=labels)
        for endpoint, records in told.items():
            for each in records:
                if (value := of(each)) is not None:
                    family.add_metric([endpoint, each.bundle[:_SHORT], each.role, each.slice, each.metric], value)
        yield family
    ends = GaugeMetricFamily(
        "skewless_model_period_end_timestamp_seconds",
        "End of the period that the metrics of a bundle and role are of.",
        labels=["endpoint", "bundle", "role"],
    )
    for endpoint, records in told.items():
        for key, end in {(each.bundle, each.role): each.period_end for each in records}.items():
            ends.add_metric([endpoint, key[0][:_SHORT], key[1]], end / SECOND_US)
    yield ends
    references = GaugeMetricFamily(
        "skewless_model_reference",
        "What a bundle reached on its own hold-out.",
        labels=["endpoint", "bundle", "metric"],
    )
    for endpoint, each_shown in shown.items():
        for bundle, metrics in each_shown.references.items():
            for metric in sorted(REFERENCES & metrics.keys()):
                if isinstance(value := metrics[metric], int | float):
                    references.add_metric([endpoint, bundle[:_SHORT], metric], float(value))
    yield references


def _told(shown: EndpointShown) -> Iterator[MetricRecord]:
    """Of each bundle and role the newest mature period: all rows, and of its listed slices those with the most rows."""
    newest: dict[Key, Micros] = {}
    sizes: dict[Key, dict[str, int]] = {}
    for each in shown.newest:
        if each.slice == ALL and each.mature:
            key = (each.bundle, each.role)
            newest[key] = max(newest.get(key, each.period_start), each.period_start)
    for each in shown.newest:
        key = (each.bundle, each.role)
        if each.slice in shown.listed.get(each.bundle, ()) and newest.get(key) == each.period_start:
            sizes.setdefault(key, {})[each.slice] = each.rows
    kept = {
        key: set(sorted(found, key=lambda name: (-found[name], name))[:MODEL_METRIC_SLICES_EXPORTED])
        for key, found in sizes.items()
    }
    for each in shown.newest:
        key = (each.bundle, each.role)
        if newest.get(key) != each.period_start or each.is_estimate or not each.mature:
            continue
        if each.slice == ALL or (each.metric in SLICED and each.slice in kept.get(key, set())):
            yield each


def _newest(shown: EndpointShown) -> dict[Key, list[MetricRecord]]:
    """The records over all rows of each bundle's and role's newest period, mature or not."""
    found: dict[Key, list[MetricRecord]] = {}
    for each in shown.newest:
        if each.slice == ALL:
            known = found.setdefault((each.bundle, each.role), [])
            if known and each.period_start > known[0].period_start:
                known.clear()
            if not known or each.period_start == known[0].period_start:
                known.append(each)
    return found


def _estimates(shown: Mapping[str, EndpointShown]) -> Iterator[Metric]:
    labels = ["endpoint", "bundle", "role", "metric"]
    values = GaugeMetricFamily(
        "skewless_model_estimate", "Expected metric of the newest period, before its outcomes.", labels=labels
    )
    errors = GaugeMetricFamily(
        "skewless_model_estimate_error", "Mean distance of past estimates and what came.", labels=labels
    )
    for endpoint, each_shown in shown.items():
        for (bundle, role), records in _newest(each_shown).items():
            for each in records:
                if each.is_estimate and each.value is not None:
                    values.add_metric([endpoint, bundle[:_SHORT], role, each.metric], each.value)
        for (bundle, role, metric), error in estimate_errors(each_shown.past).items():
            errors.add_metric([endpoint, bundle[:_SHORT], role, metric], error)
    yield from (values, errors)


def _shares(shown: Mapping[str, EndpointShown]) -> Iterator[Metric]:
    labels = ["endpoint", "bundle", "role"]
    share = GaugeMetricFamily(
        "skewless_model_outcome_share", "Share of the newest period's predictions with an outcome.", labels=labels
    )
    expected = GaugeMetricFamily(
        "skewless_model_outcome_share_expected", "What that share usually is at that age.", labels=labels
    )
    for endpoint, each_shown in shown.items():
        for (bundle, role), records in _newest(each_shown).items():
            share.add_metric([endpoint, bundle[:_SHORT], role], records[0].maturity)
            if records[0].expected is not None:
                expected.add_metric([endpoint, bundle[:_SHORT], role], records[0].expected)
    yield from (share, expected)


def _of_endpoints(shown: Mapping[str, EndpointShown]) -> Iterator[Metric]:
    waiting = GaugeMetricFamily(
        "skewless_model_periods_waiting", "Periods that wait to be computed.", labels=["endpoint"]
    )
    made = GaugeMetricFamily(
        "skewless_model_last_prediction_timestamp_seconds", "When the last prediction was made.", labels=["endpoint"]
    )
    told = GaugeMetricFamily(
        "skewless_model_last_outcome_timestamp_seconds", "When the last outcome was received.", labels=["endpoint"]
    )
    for endpoint, each in shown.items():
        waiting.add_metric([endpoint], each.waiting)
        if each.last_prediction is not None:
            made.add_metric([endpoint], each.last_prediction / SECOND_US)
        if each.last_outcome is not None:
            told.add_metric([endpoint], each.last_outcome / SECOND_US)
    yield from (waiting, made, told)
