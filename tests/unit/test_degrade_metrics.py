"""What is away, and what was answered all the same, as people on call see it: metrics and readiness."""

from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from harness.bundles import instance
from harness.fakes import FakeModelBackend
from harness.ladders import LadderPlane, ladder_plane
from skewless.bundles.degrade_ladder import DegradeLadder
from skewless.bundles.serving_profile import Place
from skewless.errors import Unavailable
from skewless.serving.circuit import FAILURES_MAX, CircuitState
from skewless.serving.replicas import ReplicaPool
from skewless_gateway.degrade_metrics import PartMetrics, RungMetrics, Watched
from skewless_gateway.degraded_parts import model_backend_state, online_store_state

GONE = Unavailable("model backend", "gone")


def told(registry: CollectorRegistry) -> dict[str, float]:
    """Values by series."""
    lines = [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


async def test_answers_and_their_rows_are_counted_by_rung(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    metrics = RungMetrics(registry)
    plane = ladder_plane(tmp_path, DegradeLadder())
    for failure in (None, GONE, GONE):
        plane.backend.failure = failure
        answer = await plane.ask(*[instance()] * 3)
        metrics.answered([batch for batch, _ in answer.parts])
    seen = told(registry)
    assert seen['skewless_rungs_total{endpoint="flight-delay",rung="normal"}'] == 1
    assert seen['skewless_rungs_total{endpoint="flight-delay",rung="in_process"}'] == 2
    assert seen['skewless_rung_rows_total{endpoint="flight-delay",rung="in_process"}'] == 6


async def test_circuits_and_replicas_are_told_as_they_are_now() -> None:
    registry = CollectorRegistry()
    metrics = PartMetrics(registry)
    assert told(registry)["skewless_models_in_process"] == 0
    well, sick = FakeModelBackend({"m": lambda tensor: {"o": tensor}}), FakeModelBackend({})
    pool = ReplicaPool({"a:1": well, "b:2": sick})
    pool._replicas[0].models.add("m")
    for _ in range(FAILURES_MAX):
        pool._failed(pool._replicas[1], "gone")
    pool.counts.retries = 7
    metrics.watch(Watched(lambda: (CircuitState.HALF_OPEN, 4), pool.states, lambda: pool.counts, lambda: 2))
    seen = told(registry)
    assert {name: value for name, value in seen.items() if name.startswith("skewless_circuit")} == {
        'skewless_circuit_open{part="online_store"}': 1,
        'skewless_circuit_open{part="a:1"}': 0,
        'skewless_circuit_open{part="b:2"}': 1,
        'skewless_circuit_openings_total{part="online_store"}': 4,
        'skewless_circuit_openings_total{part="a:1"}': 0,
        'skewless_circuit_openings_total{part="b:2"}': 1,
    }
    assert (seen['skewless_replica_up{replica="a:1"}'], seen['skewless_replica_up{replica="b:2"}']) == (1, 0)
    assert seen['skewless_replica_models{replica="a:1"}'] == 1
    assert (seen["skewless_model_retries_total"], seen["skewless_models_in_process"]) == (7, 2)


@pytest.mark.parametrize(
    ("degrade", "fallback", "ok"),
    [
        (DegradeLadder(), False, False),
        (DegradeLadder(defaults=True), False, True),
        (DegradeLadder(constant=0.5), False, True),
        (DegradeLadder(), True, True),
    ],
    ids=["last known alone", "defaults", "constant", "a fallback that reads nothing"],
)
async def test_a_store_that_is_away_leaves_a_gateway_ready_where_every_request_can_be_answered(
    tmp_path: Path, degrade: DegradeLadder, fallback: bool, ok: bool
) -> None:
    plane = ladder_plane(tmp_path, degrade, fallback=fallback)
    served = {"flight-delay": plane.live}
    assert await online_store_state(plane.store, served) == (True, "")
    plane.store.failure = Unavailable("online store", "gone")
    verdict, detail = await online_store_state(plane.store, served)
    assert verdict is ok
    assert "online store is unavailable: gone" in detail
    assert ("nothing answers flight-delay" in detail) is not ok
    assert await online_store_state(plane.store, {}) == (False, "online store is unavailable: gone")


async def test_servers_that_are_away_or_lack_a_model_leave_it_ready_where_somebody_stands_in(tmp_path: Path) -> None:
    plane = ladder_plane(tmp_path, DegradeLadder())
    alone = replace(plane.live, stands_by=False)
    assert await _state(plane) == (True, "")
    plane.backend.loaded.clear()
    lost = f"not loaded: {plane.live.model}"
    assert await _state(plane) == (True, lost)
    assert await model_backend_state(plane.backend, {"e": alone}) == (False, lost)
    plane.backend.failure = GONE
    assert (await _state(plane))[0]
    assert not (await model_backend_state(plane.backend, {"e": alone}))[0]
    assert (await model_backend_state(plane.backend, {"e": replace(alone, place=Place.GATEWAY)}))[0]


async def _state(plane: LadderPlane) -> tuple[bool, str]:
    return await model_backend_state(plane.backend, {"flight-delay": plane.live})
