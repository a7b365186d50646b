"""How many series a monitor tells: what docs/monitoring.md says of each job, held to with 500 features."""

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric

from skewless.adapters.drift_snapshot import DriftShown, EndpointShown, KeyShown
from skewless.canonical_json import Digest
from skewless.drift.season import Grade
from skewless.drift.shown import SPANS, Distance, FeatureShown, ViewShown
from skewless.limits import MONITOR_SERIES_MAX
from skewless.model_metrics.records import MetricRecord
from skewless.monitor_limits import DRIFT_SHOWN_KEYS_MAX
from skewless.quality.verdict import Decision
from skewless.registry.drift_records import DriftKey, DriftProgress, DriftRecount, DriftStanding, DriftWindow
from skewless.registry.quality_results import ResultRecord, RunRecord, ViewQuality
from skewless.serving.monitoring_policy import DriftPolicy
from skewless.timestamps import DAY_US, HOUR_US, Micros
from skewless_monitor import drift_collector, metrics_collector, quality_collector

FEATURES, VIEWS = 500, 60
GUIDE = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text()
TABLE = {
    (job, unit): int(series)
    for job, unit, series in re.findall(
        r"^\| (drift|metrics|parity|quality) \| ([^|]+) \| (\d+) \|", GUIDE, re.MULTILINE
    )
}
"""Series at most, by job and by what there is one more of."""
NOT_OF_PROMETHEUS = {"job", "instance"}
NOT_A_LABEL = {"entity", "word", "request", "request_id", "prediction_id", "caller"}


def series(families: Iterable[Metric]) -> int:
    """How many there are; and none has a label that is not ours to give, or that callers could fill."""
    found = 0
    for family in families:
        labels = {label for sample in family.samples for label in sample.labels}
        assert not labels & (NOT_OF_PROMETHEUS | NOT_A_LABEL), family.name
        told = {(sample.name, *sorted(sample.labels.items())) for sample in family.samples}
        assert len(told) == len(family.samples), f"{family.name} tells a series twice"
        found += len(family.samples)
    return found


def drift(*, endpoints: int = 1, keys: int = 1, features: int = 0, views: int = 0, words: int = 0) -> int:
    """Series of so many endpoints, bundles in a role of each, features and views of each of those."""
    some = {span: Distance(0.1, 0.01) for span in SPANS}
    told = tuple(
        FeatureShown(f"feature_{number}", 10, 0.1, 0.1, 0.1, 0.1, 0.1, 1.5, 0.5, some) for number in range(features)
    )
    ages = tuple(ViewShown(f"view_{number}", 1.0, 2.0) for number in range(views))
    shown_keys, shown_endpoints = [], []
    for number in range(endpoints):
        name = f"endpoint-{number}"
        own = [DriftKey(name, Digest(f"{place:064x}"[::-1]), "live") for place in range(keys)]
        for key in own:
            standing = DriftStanding(
                key, HOUR_US, (), 0, Grade.HOUR_OF_WEEK, 4.0, 30.0, 10, 1.0, 0, DAY_US, {}, None, 0
            )
            breaks = ({"rule": "nulls", "part": "column", "name": "x", "share": 0.5, "usual": 0.1},)
            window = DriftWindow(key, 0, HOUR_US, 10, 0.5, "x", False, Grade.HOUR_OF_WEEK, breaks)
            shown_keys.append(KeyShown(standing, window, True, told, ages))
        recounts = tuple(DriftRecount(key, 0, DAY_US, DAY_US, 10) for key in own)
        progress = DriftProgress(name, HOUR_US, 0, True, 10, 1, 0, None, 0)
        known = {f"feature_{place}": 100 for place in range(words)}
        shown_endpoints.append(EndpointShown(progress, DriftPolicy(), known, None, recounts))
    return series(drift_collector.families(DriftShown(tuple(shown_endpoints), tuple(shown_keys), 1, 2)))


def test_drift_tells_no_more_of_five_hundred_features_than_the_guide_says() -> None:
    empty = drift(keys=0)
    assert drift(endpoints=3, keys=0) - empty <= 2 * TABLE["drift", "endpoint"]
    assert drift(endpoints=0, keys=0) <= TABLE["drift", "process"]
    one = drift()
    assert one - empty <= TABLE["drift", "bundle in a role"]
    assert drift(features=FEATURES) - one == FEATURES * TABLE["drift", "feature of a bundle in a role"]
    assert drift(views=VIEWS) - one == VIEWS * TABLE["drift", "view of a bundle in a role"]
    assert drift(words=FEATURES) - one == FEATURES * TABLE["drift", "feature of an endpoint"]
    assert TABLE["drift", "feature of a bundle in a role"] <= 12


def test_a_hundred_features_of_as_many_bundles_as_are_shown_fit_into_the_page() -> None:
    of_one = 100 * (TABLE["drift", "feature of a bundle in a role"] + TABLE["drift", "feature of an endpoint"])
    assert DRIFT_SHOWN_KEYS_MAX * (of_one + TABLE["drift", "bundle in a role"]) < MONITOR_SERIES_MAX


def metric_records(bundle: Digest, *, slices: int) -> list[MetricRecord]:
    """Every metric that there is, of all rows and of slices, and an estimate of each."""
    names = sorted(metrics_collector.SLICED | metrics_collector.REFERENCES)
    names += [f"other_{number}" for number in range(22 - len(names))] + [f"counter_{number}" for number in range(16)]
    template = MetricRecord(
        endpoint="flight-delay",
        bundle=bundle,
        role="live",
        slice="",
        period_start=Micros(0),
        period_us=DAY_US,
        metric="",
        is_estimate=False,
        value=0.5,
        low=0.4,
        high=0.6,
        bounds="always",
        reason=None,
        rows=100,
        labelled=90,
        effective=None,
        expected=0.9,
        mature=True,
        computed_time=Micros(0),
    )
    return [
        replace(template, slice=part, metric=name, is_estimate=is_estimate)
        for part in ("", *(f"origin={number}" for number in range(slices)))
        for name in names
        for is_estimate in (False, True)
    ]


def metrics(*, bundles: int, slices: int) -> int:
    """Series of one endpoint."""
    digests = [Digest(f"{number:064x}"[::-1]) for number in range(bundles)]
    records = tuple(each for digest in digests for each in metric_records(digest, slices=slices))
    references = {digest: dict.fromkeys(metrics_collector.REFERENCES, 0.7) for digest in digests}
    listed = {digest: frozenset(f"origin={number}" for number in range(slices)) for digest in digests}
    shown = metrics_collector.EndpointShown(2, Micros(1), Micros(2), records, listed, records, references)
    return series(metrics_collector.families({"flight-delay": shown}))


@pytest.mark.parametrize("slices", [0, 20, FEATURES])
def test_model_metrics_tell_no_more_however_many_slices_there_are(slices: int) -> None:
    endpoint = metrics(bundles=0, slices=0)
    assert endpoint <= TABLE["metrics", "endpoint"]
    assert metrics(bundles=3, slices=slices) - endpoint <= 3 * TABLE["metrics", "bundle in a role"]


def quality(*, views: int, features: int) -> int:
    """Series of so many views, of whose last batch every feature is wrong."""
    results = tuple(
        ResultRecord(
            position=number,
            type="expect_column_values_to_be_between",
            kwargs={"column": f"feature_{number}"},
            severity="critical",
            follows="stop",
            success=False,
            unexpected=50,
            unexpected_share=0.5,
            observed=None,
            told="",
            hint="",
        )
        for number in range(features)
    )
    found = []
    for number in range(views):
        run = RunRecord(
            "run", f"view_{number}", "suite", "digest", "origin", "batch", 0, 0, 5, 100, 50, Decision.STOP, results
        )
        found.append(ViewQuality(run, {each.value: 1 for each in Decision}, 50, 1, 0))
    return series(quality_collector.families(found))


def test_quality_tells_no_more_of_five_hundred_features_that_are_all_wrong() -> None:
    assert quality(views=0, features=0) == 0
    assert quality(views=VIEWS, features=FEATURES) <= VIEWS * TABLE["quality", "view"]


def test_every_job_is_in_the_table() -> None:
    assert {job for job, _ in TABLE} == {"drift", "metrics", "parity", "quality"}
