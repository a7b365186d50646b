"""Parity as Prometheus metrics: rates of the last day by view and cause with their bounds, and what waits.

Counts of every status of 100 % of the traffic (missing, stale, default …) are not here: they are the drift job's.
Series of an endpoint: at most 6 per view and cause that was found, 6 per view, 8 for levels, and 9 more.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from skewless.monitor_limits import PARITY_METRICS_S
from skewless.parity.causes import ACCOUNTS, Cause
from skewless.parity.schedule import period_of
from skewless.parity.tally import LEVELS, Level, Stratum
from skewless.registry.parity_history import ParityHistory, ParityResult, added_up
from skewless.timestamps import SECOND_US

ANY = "any"
"""The label `cause` of all causes together."""
_METRICS_US = int(PARITY_METRICS_S * SECOND_US)
_MODEL_VIEWS = ("(model input)", "(prediction)")
Sums = Mapping[tuple[str, Stratum, Level, str, str], ParityResult]


@dataclass(frozen=True, slots=True)
class ParitySnapshot:
    """What the last run left: by endpoint its state, and the sums of its last day."""

    states: Mapping[str, Mapping[str, Any]]
    sums: Sums

    @property
    def lag_s(self) -> float:
        """Age of the oldest prediction that waits, of all endpoints."""
        return max((_open_s(state) for state in self.states.values()), default=0.0)


def snapshot(history: ParityHistory) -> ParitySnapshot:
    """Read what there is. Raises Unavailable."""
    states = {each.endpoint: each.state for each in history.states()}
    found = [
        each
        for endpoint, state in states.items()
        for each in history.results(endpoint, since=period_of(int(state["now"]) - _METRICS_US))
    ]
    return ParitySnapshot(states, added_up(found))


def families(found: ParitySnapshot, *, worker_bytes: int) -> Iterator[Metric]:
    """The metric families of a snapshot."""
    yield _rates(found.sums)
    yield from _sums(found.sums)
    yield from _states(found.states)
    yield GaugeMetricFamily(
        "skewless_parity_worker_resident_bytes", "Memory of the comparing process; 0 without one.", worker_bytes
    )


def _rates(sums: Sums) -> Metric:
    rates = GaugeMetricFamily(
        "skewless_parity_rate",
        "Share of sampled predictions of the last day that differ from the offline store, with its 95 % bounds.",
        labels=["endpoint", "stratum", "view", "cause", "kind", "bound"],
    )
    for (endpoint, stratum, level, view, cause), each in sums.items():
        if level is Level.VIEWS:
            labels = [endpoint, stratum.value, view, ANY, ANY]
        elif level is Level.CAUSES:
            labels = [endpoint, stratum.value, view, cause, ACCOUNTS[Cause(cause)].kind.value]
        else:
            continue
        for bound, value in (("value", each.rate), ("low", each.low), ("high", each.high)):
            rates.add_metric([*labels, bound], value)
    return rates


def _sums(sums: Sums) -> Iterator[Metric]:
    equal = GaugeMetricFamily(
        "skewless_parity_equal_ratio",
        "Share of what was compared in the last day that was equal, by level.",
        labels=["endpoint", "stratum", "level"],
    )
    units = GaugeMetricFamily(
        "skewless_parity_predictions",
        "Sampled predictions that were compared in the last day.",
        labels=["endpoint", "stratum"],
    )
    singles = {
        Level.PENDING: GaugeMetricFamily(
            "skewless_parity_pending_values",
            "Values of the last day that wait for their row to reach the source.",
            labels=["endpoint"],
        ),
        Level.UNCHECKED: GaugeMetricFamily(
            "skewless_parity_unchecked_predictions",
            "Sampled predictions of the last day whose bundle cannot be computed again.",
            labels=["endpoint"],
        ),
        Level.NOT_COMPARABLE: GaugeMetricFamily(
            "skewless_parity_not_comparable_values",
            "Values of the last day of which the log keeps nothing to compare.",
            labels=["endpoint"],
        ),
    }
    for (endpoint, stratum, level, view, _), each in sums.items():
        if level in LEVELS and each.units:
            equal.add_metric([endpoint, stratum.value, level.value], 1.0 - each.rate)
        if level is Level.VIEWS and view == _MODEL_VIEWS[1]:
            units.add_metric([endpoint, stratum.value], each.units)
        if level in singles and stratum is Stratum.ENTITY:
            singles[level].add_metric([endpoint], each.mismatches)
    yield from (equal, units, *singles.values())


def _states(states: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
    backlog = GaugeMetricFamily(
        "skewless_parity_backlog_predictions",
        "Sampled predictions that are not compared yet, also those that wait for their source.",
        labels=["endpoint"],
    )
    oldest = GaugeMetricFamily(
        "skewless_parity_oldest_open_seconds", "Age of the oldest of those; 0 without one.", labels=["endpoint"]
    )
    quiet = GaugeMetricFamily(
        "skewless_parity_quiet_seconds",
        "For how long predictions wait for a source that says nothing, as the endpoint's policy has it.",
        labels=["endpoint"],
    )
    verdict = GaugeMetricFamily(
        "skewless_parity_verdict_seconds",
        "Age of the oldest prediction of the last comparison when it was compared.",
        labels=["endpoint"],
    )
    behind = GaugeMetricFamily(
        "skewless_parity_source_behind_seconds",
        "How far the source and the materializations of a view are behind the endpoint's time, when last looked at.",
        labels=["endpoint", "view"],
    )
    for endpoint, state in states.items():
        backlog.add_metric([endpoint], state["backlog"])
        oldest.add_metric([endpoint], _open_s(state))
        quiet.add_metric([endpoint], state["quiet_us"] / SECOND_US)
        if state["verdict_s"] is not None:
            verdict.add_metric([endpoint], state["verdict_s"])
        for view, passed in state["passed"].items():
            behind.add_metric([endpoint, view], max(0.0, (state["now"] - passed) / SECOND_US))
    yield from (backlog, oldest, quiet, verdict, behind)


def _open_s(state: Mapping[str, Any]) -> float:
    return 0.0 if state["oldest"] is None else max(0.0, (state["now"] - state["oldest"]) / SECOND_US)
