"""What Prometheus is told of freshness. Series of one view: five standings, ten numbers, five quantiles, a problem."""

from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from skewless.adapters.freshness_look import FreshnessFound
from skewless.features.freshness import Standing, ViewFreshness
from skewless.timestamps import SECOND_US


def _s(span_us: float | None) -> float | None:
    return None if span_us is None else span_us / SECOND_US


_NUMBERS: tuple[tuple[str, str, Callable[[ViewFreshness], float | None]], ...] = (
    (
        "skewless_freshness_target_seconds",
        "How old the view's newest row may be; none where nobody said.",
        lambda each: _s(each.target_us),
    ),
    (
        "skewless_freshness_target_missed",
        "1 where the view's newest row is older than its target; none where that is not known.",
        lambda each: None if each.misses_target is None else float(each.misses_target),
    ),
    (
        "skewless_freshness_source_age_seconds",
        "How long ago the newest event of the view's source happened.",
        lambda each: _s(each.source_age_us),
    ),
    (
        "skewless_freshness_arrival_age_seconds",
        "How long ago the newest row of the view's source became known.",
        lambda each: _s(each.arrival_age_us),
    ),
    (
        "skewless_freshness_online_age_seconds",
        "How long ago the newest event of the view in the online store happened.",
        lambda each: _s(each.online_age_us),
    ),
    (
        "skewless_freshness_found_ratio",
        "Share of sampled entities of the source that have a row in the online store.",
        lambda each: each.online.found / each.online.asked if each.online.asked else None,
    ),
    (
        "skewless_freshness_missing_arrivals",
        "Arrivals that usually come in a time as long as the source has been silent.",
        lambda each: None if each.source.cadence is None else each.source.cadence.missing,
    ),
    (
        "skewless_freshness_missing_arrivals_allowed",
        "As many may be missing before the source counts as stopped.",
        lambda each: None if each.source.cadence is None else each.source.cadence.allowed,
    ),
    (
        "skewless_freshness_cadence_seconds",
        "Median time between two arrivals of the source.",
        lambda each: None if each.source.cadence is None else _s(each.source.cadence.typical_us),
    ),
    (
        "skewless_freshness_as_of_timestamp_seconds",
        "The moment that the view's ages are told at: now, or that of traffic which replays a past.",
        lambda each: _s(each.as_of),
    ),
)


def families(found: FreshnessFound) -> Iterator[Metric]:
    """The metric families of all views."""
    for name, meaning, value_of in _NUMBERS:
        family = GaugeMetricFamily(name, meaning, labels=["view"])
        for each in found.views:
            if (value := value_of(each)) is not None:
                family.add_metric([each.view], value)
        yield family
    standing = GaugeMetricFamily(
        "skewless_freshness_standing", "1 for how the view stands.", labels=["view", "standing"]
    )
    problem = GaugeMetricFamily(
        "skewless_freshness_unreadable",
        "1 where the view's source, or the online store, could not be looked at.",
        labels=["view", "part"],
    )
    for each in found.views:
        for kind in Standing:
            standing.add_metric([each.view, kind.value], float(each.standing is kind))
        problem.add_metric([each.view, "source"], float(bool(each.source.problem)))
        problem.add_metric([each.view, "online"], float(bool(each.online.problem)))
    yield from (standing, problem, *_quantiles(found))
    yield GaugeMetricFamily(
        "skewless_freshness_look_duration_seconds", "How long the last look at all views took.", value=found.took_s
    )


def _quantiles(found: FreshnessFound) -> Iterator[Metric]:
    entities = GaugeMetricFamily(
        "skewless_freshness_entity_age_seconds",
        "Ages of the rows of sampled entities in the online store, by quantile.",
        labels=["view", "quantile"],
    )
    served = GaugeMetricFamily(
        "skewless_freshness_served_age_seconds",
        "Ages that callers got in the last hour of traffic, by quantile.",
        labels=["view", "quantile"],
    )
    for each in found.views:
        for share, age_us in (each.online.ages_us or {}).items():
            entities.add_metric([each.view, f"{share:g}"], age_us / SECOND_US)
        if each.served is not None:
            served.add_metric([each.view, "0.5"], each.served.median_us / SECOND_US)
            served.add_metric([each.view, "0.99"], each.served.p99_us / SECOND_US)
    yield from (entities, served)
