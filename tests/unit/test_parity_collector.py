"""The metrics of parity: what they say of stored results, and how many series they are."""

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from skewless.canonical_json import Digest
from skewless.parity.causes import Cause
from skewless.parity.schedule import Pass
from skewless.parity.tally import Count, Level, Stratum
from skewless.registry.parity_history import ParityResult, added_up
from skewless.timestamps import HOUR_US, SECOND_US, parse_timestamp
from skewless_monitor.parity_collector import ParitySnapshot, families

NOW = parse_timestamp("2026-05-01T10:00:00Z")
STATE = {
    "now": NOW,
    "backlog": 12,
    "waiting": 3,
    "oldest": NOW - 90 * SECOND_US,
    "verdict_s": 42.5,
    "quiet_us": 900 * SECOND_US,
    "passed": {"weather": NOW - 30 * SECOND_US, "leg": NOW + SECOND_US},
}


def a_result(level: Level, view: str = "", cause: str = "", *, units: int = 100, mismatches: int = 0) -> ParityResult:
    return ParityResult(
        "flight-delay", NOW - HOUR_US, Pass.THEN, Digest("1" * 64), Stratum.ENTITY, level, view, cause,
        units, mismatches, 1, mismatches / units, 0.0, 1.0, Count(units, mismatches),
    )  # fmt: skip


def page(results: list[ParityResult], states: dict[str, dict[str, object]]) -> dict[str, float]:
    snapshot = ParitySnapshot(states, added_up(results))

    class Told(Collector):
        def collect(self):  # type: ignore[no-untyped-def]  # the library's own form
            return families(snapshot, worker_bytes=7)

    registry = CollectorRegistry()
    registry.register(Told())
    lines = generate_latest(registry).decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def test_rates_levels_and_what_waits_are_told() -> None:
    told = page(
        [
            a_result(Level.VIEWS, "weather", mismatches=5),
            a_result(Level.CAUSES, "weather", "coercion", mismatches=5),
            a_result(Level.VALUES, units=400, mismatches=10),
            a_result(Level.VIEWS, "(prediction)"),
            a_result(Level.UNCHECKED, units=3, mismatches=3),
            a_result(Level.PENDING, units=400, mismatches=4),
        ],
        {"flight-delay": STATE},
    )
    labels = 'endpoint="flight-delay",stratum="entity"'
    which = 'bound="value",cause="coercion",endpoint="flight-delay",kind="fault",stratum="entity",view="weather"'
    rate = f"skewless_parity_rate{{{which}}}"
    assert told[rate] == 0.05
    assert told[rate.replace("coercion", "any").replace("fault", "any")] == 0.05
    assert told['skewless_parity_equal_ratio{endpoint="flight-delay",level="values",stratum="entity"}'] == 0.975
    assert told[f"skewless_parity_predictions{{{labels}}}"] == 100
    assert told['skewless_parity_unchecked_predictions{endpoint="flight-delay"}'] == 3
    assert told['skewless_parity_pending_values{endpoint="flight-delay"}'] == 4
    assert told['skewless_parity_backlog_predictions{endpoint="flight-delay"}'] == 12
    assert told['skewless_parity_oldest_open_seconds{endpoint="flight-delay"}'] == 90
    assert told['skewless_parity_quiet_seconds{endpoint="flight-delay"}'] == 900
    assert told['skewless_parity_verdict_seconds{endpoint="flight-delay"}'] == 42.5
    assert told['skewless_parity_source_behind_seconds{endpoint="flight-delay",view="weather"}'] == 30
    assert told['skewless_parity_source_behind_seconds{endpoint="flight-delay",view="leg"}'] == 0
    assert told["skewless_parity_worker_resident_bytes"] == 7


def test_series_are_bounded_by_views_and_causes_whatever_the_bundles_and_hours() -> None:
    results = []
    for view in [f"view {number}" for number in range(10)] * 4:  # once for each of four hours
        results.append(a_result(Level.VIEWS, view, mismatches=1))
        results += [a_result(Level.CAUSES, view, cause.value, mismatches=1) for cause in Cause]
    series = page(results, {"flight-delay": STATE})
    rates = [name for name in series if name.startswith("skewless_parity_rate{")]
    assert len(rates) == 10 * (1 + len(Cause)) * 3
    assert len(series) - len(rates) < 20


def test_an_endpoint_that_waits_for_nothing_has_no_lag_and_no_age() -> None:
    idle = {**STATE, "oldest": None, "verdict_s": None, "backlog": 0}
    snapshot = ParitySnapshot({"flight-delay": idle}, {})
    assert snapshot.lag_s == 0.0
    told = page([], {"flight-delay": idle})
    assert told['skewless_parity_oldest_open_seconds{endpoint="flight-delay"}'] == 0
    assert not any(name.startswith("skewless_parity_verdict_seconds") for name in told)
