"""What `skewless top` shows: rates, latencies and states out of two looks at processes' metrics. Pure arithmetic."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from skewless.adapters.metrics_pages import MetricsPage

_BUCKETS = "skewless_stage_seconds_bucket"
_TOTAL = "total"
_EMPTY = MetricsPage({})


@dataclass(frozen=True, slots=True)
class Look:
    """All pages as they were at one moment (seconds of a monotonic clock); None for a process that does not answer."""

    moment_s: float
    pages: Mapping[str, MetricsPage | None]

    def page(self, process: str) -> MetricsPage:
        """A process' page; one without samples where it does not answer."""
        return self.pages.get(process) or _EMPTY


@dataclass(frozen=True, slots=True)
class EndpointLine:
    """One endpoint. Shares are of the time between two looks, None where nothing was counted then."""

    name: str
    bundle: str
    """The first digits of the live one's digest, empty where none is known."""
    requests_per_s: float
    rows_per_s: float
    failed: float | None
    """Share of requests that ended in a 5xx."""
    refused_per_s: float
    degraded: float | None
    """Share of answers on another rung than `normal`."""
    not_ok: float | None
    """Share of served values that were missing, stale or stood in for."""
    computed: int
    waiting: int
    places: int
    drift_level: float | None
    """In heights of an alarm."""
    is_alarmed: bool
    equal: float | None
    """Share of sampled predictions whose values were equal to the offline store's, of the last day."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What is shown at once. Latencies in ms, None where nothing was answered."""

    seconds: float
    silent: Sequence[str]
    """Processes that do not answer."""
    p50_ms: float | None
    p99_ms: float | None
    stages_ms: Mapping[str, float]
    """p99 of each stage that was gone through."""
    endpoints: Sequence[EndpointLine]
    circuits: Sequence[str]
    """Parts that gateways leave alone."""
    notes: Sequence[str]
    """What somebody should look at, in words."""


def frame_of(before: Look, now: Look) -> Frame:
    """What happened between two looks."""
    gateway, earlier = now.page("gateway"), before.page("gateway")
    seconds = max(now.moment_s - before.moment_s, 1e-9)
    stages = {told["stage"] for told, _ in gateway.matching(_BUCKETS)}
    quantiles = {stage: _quantile(0.99, _counts(earlier, gateway, stage)) for stage in sorted(stages)}
    stages_ms = {stage: value * 1_000 for stage, value in quantiles.items() if value is not None and stage != _TOTAL}
    totals = _counts(earlier, gateway, _TOTAL)
    p50, p99 = (_quantile(each, totals) for each in (0.5, 0.99))
    names = sorted(
        {*gateway.by("endpoint", "skewless_rows_total"), *gateway.by("endpoint", "skewless_bundle_live")} - {""}
    )
    return Frame(
        seconds=seconds,
        silent=tuple(name for name, page in now.pages.items() if page is None),
        p50_ms=None if p50 is None else p50 * 1_000,
        p99_ms=None if p99 is None else p99 * 1_000,
        stages_ms=stages_ms,
        endpoints=tuple(_line(name, earlier, gateway, now.page("monitor"), seconds) for name in names),
        circuits=tuple(
            sorted(part for part, is_open in gateway.by("part", "skewless_circuit_open").items() if is_open)
        ),
        notes=tuple(_notes(earlier, gateway, now)),
    )


def _line(name: str, earlier: MetricsPage, gateway: MetricsPage, monitor: MetricsPage, seconds: float) -> EndpointLine:
    codes = _grown(earlier, gateway, "code", "skewless_requests_total", name)
    rungs = _grown(earlier, gateway, "rung", "skewless_rungs_total", name)
    statuses = _grown(earlier, gateway, "status", "skewless_feature_statuses_total", name)
    rows = _grown(earlier, gateway, "endpoint", "skewless_rows_total", name)
    refused = _grown(earlier, gateway, "reason", "skewless_admission_refused_total", name)
    bundles = [told["bundle"] for told, value in gateway.matching("skewless_bundle_live", endpoint=name) if value]
    levels = [value for _, value in monitor.matching("skewless_drift_alarm_level", endpoint=name, role="live")]
    equal = [
        value
        for _, value in monitor.matching("skewless_parity_equal_ratio", endpoint=name, stratum="entity", level="values")
    ]
    return EndpointLine(
        name=name,
        bundle=bundles[0] if bundles else "",
        requests_per_s=sum(codes.values()) / seconds,
        rows_per_s=sum(rows.values()) / seconds,
        failed=_share(codes, [code for code in codes if code.startswith("5")]),
        refused_per_s=sum(refused.values()) / seconds,
        degraded=_share(rungs, [rung for rung in rungs if rung != "normal"]),
        not_ok=_share(statuses, [status for status in statuses if status not in ("ok", "null", "override")]),
        computed=int(gateway.sum("skewless_admission_in_flight", endpoint=name)),
        waiting=int(gateway.sum("skewless_admission_queued", endpoint=name)),
        places=int(gateway.sum("skewless_admission_limit", endpoint=name)),
        drift_level=max(levels, default=None),
        is_alarmed=bool(monitor.sum("skewless_drift_alarm_open", endpoint=name, role="live")),
        equal=min(equal, default=None),
    )


def _notes(earlier: MetricsPage, gateway: MetricsPage, now: Look) -> list[str]:
    """What is wrong beyond single endpoints."""
    notes = []
    if gateway.samples and not gateway.sum("skewless_registry_up"):
        notes.append("the registry is away: the last good routes are served; run `skewless doctor`")
    if gateway.sum("skewless_prediction_log_failing"):
        notes.append("the prediction log cannot be written: look at its disk")
    dropped = _grown(earlier, gateway, "reason", "skewless_prediction_log_dropped_rows_total")
    if any(dropped.values()):
        notes.append(f"{sum(dropped.values()):,.0f} records are missing from the prediction log")
    failing = now.page("monitor").by("monitor_job", "skewless_monitor_job_failing")
    notes += [f"the monitor's job `{name}` fails; its log says why" for name, value in failing.items() if value]
    sinks = now.page("shipper").by("sink", "skewless_shipper_sink_up")
    notes += [f"the log's sink `{name}` takes nothing" for name, value in sinks.items() if not value]
    return notes


def _grown(
    earlier: MetricsPage, now: MetricsPage, label: str, name: str, endpoint: str | None = None
) -> dict[str, float]:
    """By how much counters grew, by a label; one that is smaller than before has started anew."""
    labels = {} if endpoint is None else {"endpoint": endpoint}
    before, later = earlier.by(label, name, **labels), now.by(label, name, **labels)
    return {key: value - held if value >= (held := before.get(key, 0.0)) else value for key, value in later.items()}


def _share(counts: Mapping[str, float], some: Sequence[str]) -> float | None:
    total = sum(counts.values())
    return sum(counts[each] for each in some) / total if total else None


def _counts(earlier: MetricsPage, now: MetricsPage, stage: str) -> list[tuple[float, float]]:
    """(upper bound in seconds, observations up to it) of a stage between two looks, ascending."""
    grown = {}
    before = earlier.by("le", _BUCKETS, stage=stage)
    later = now.by("le", _BUCKETS, stage=stage)
    has_restarted = any(later[bound] < before.get(bound, 0.0) for bound in later)
    for bound, value in later.items():
        grown[float(bound)] = value - (0.0 if has_restarted else before.get(bound, 0.0))
    return sorted(grown.items())


def _quantile(share: float, counts: Sequence[tuple[float, float]]) -> float | None:
    """As Prometheus' histogram_quantile: linear inside a bucket; the last finite bound for what lies beyond it.

    >>> _quantile(0.5, [(1.0, 50.0), (2.0, 100.0), (float("inf"), 100.0)])
    1.0
    """
    if not counts or not counts[-1][1]:
        return None
    wanted = share * counts[-1][1]
    for (low, under), (high, upto) in pairwise([(0.0, 0.0), *counts]):
        if upto >= wanted and upto > under:
            return low if high == float("inf") else low + (high - low) * (wanted - under) / (upto - under)
    return None
