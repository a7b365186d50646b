"""What a running gateway says about registry snapshots: of an endpoint, when asked for readiness, as metrics."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.bundles import build_bundle, contract, instance
from harness.fakes import FakeModelBackend
from harness.gateways import ENDPOINT, NOW, POLL_S, GatewayOverFakes, route_to
from harness.servers import wait_until
from skewless.bundles.bundle import load_bundle
from skewless.bundles.model_repository import model_name
from skewless.canonical_json import digest
from skewless.errors import Unavailable
from skewless.features.compiled_registry import CompiledRegistry
from skewless.features.contract import FeatureContract
from skewless.registry.snapshot_heads import SnapshotHead
from skewless.registry.snapshots import FeatureSnapshot
from skewless.rollout.routes import RoutingTable
from skewless.timestamps import HOUR_US, SECOND_US, Micros
from skewless_gateway.loaded_bundles import LoadedBundles
from skewless_gateway.route_follower import RouteFollower


def snapshot_of(registered: FeatureContract, *, version: int = 1) -> FeatureSnapshot:
    registry = CompiledRegistry("demo", {"delays": registered}, {}, {("origin",): 3})
    checked = Micros(NOW - 90 * SECOND_US)
    head = SnapshotHead("demo", version, digest(""), digest("source"), checked, checked)
    made = FeatureSnapshot(head, registry)
    return replace(made, head=replace(head, digest=digest(made.document())))


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayOverFakes]:
    over = GatewayOverFakes.build(tmp_path)
    over.snapshots.snapshots["demo"] = snapshot_of(contract())
    with over.running() as running:
        wait_until(lambda: _definitions(running)["state"] == "current", "the snapshot is followed")
        yield running


def _definitions(gateway: GatewayOverFakes) -> dict[str, str]:
    told: dict[str, str] = gateway.client.get(f"/v1/endpoints/{ENDPOINT}").json()["definitions"]
    return told


def _part(gateway: GatewayOverFakes) -> dict[str, object]:
    answer = gateway.client.get("/readyz")
    assert answer.status_code == 200, "what is registered elsewhere takes no gateway out of service"
    part: dict[str, object] = answer.json()["parts"]["feature_registry"]
    return part


def test_an_endpoint_whose_definitions_are_registered_says_so(gateway: GatewayOverFakes) -> None:
    assert _definitions(gateway) == {"state": "current", "detail": ""}
    assert _part(gateway) == {"ok": True, "detail": ""}


def test_changed_definitions_are_told_and_stop_no_prediction(gateway: GatewayOverFakes) -> None:
    weather, *others = contract().views
    changed = replace(
        contract(), views=(replace(weather, ttl_us=HOUR_US), *others), definitions_digest=digest("others")
    )
    gateway.snapshots.snapshots["demo"] = snapshot_of(changed, version=2)
    wait_until(lambda: _definitions(gateway)["state"] == "changed", "the change is noticed")
    assert "ttl of view `weather` was 14400 s, is 3600 s" in _definitions(gateway)["detail"]
    assert f"endpoint {ENDPOINT}, definitions changed: " in str(_part(gateway)["detail"])
    assert gateway.predict(instance()).status_code == 200
    gateway.snapshots.snapshots["demo"] = snapshot_of(contract(), version=3)
    wait_until(lambda: _definitions(gateway)["state"] == "current", "the definitions are back")


def test_without_a_snapshot_it_is_said_how_to_get_one(tmp_path: Path) -> None:
    with GatewayOverFakes.build(tmp_path).running() as gateway:
        assert _definitions(gateway)["state"] == "unknown"
        assert "skewless apply" in str(_part(gateway)["detail"])


def test_a_registry_that_is_away_is_told_and_its_age_grows(gateway: GatewayOverFakes) -> None:
    gateway.snapshots.failure = Unavailable("registry database", "no route to host")
    wait_until(lambda: "no route to host" in str(_part(gateway)["detail"]), "the outage is told")
    assert _definitions(gateway)["state"] == "current"
    metrics = gateway.client.get("/metrics").text
    assert 'skewless_registry_snapshot_age_seconds{project="demo"} 90.0' in metrics.splitlines()


async def test_a_bundle_is_prepared_with_the_hash_sizes_of_its_own_project(tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    built = build_bundle(tmp_path / "artifacts")
    asked: list[str] = []

    def sizes(project: str) -> dict[tuple[str, ...], int]:
        asked.append(project)
        return {("origin",): 3}

    bundles = LoadedBundles(
        lambda digest: load_bundle(tmp_path / "artifacts" / digest, digest),
        FakeModelBackend({model_name(built.digest): built.outputs}),
        hash_sizes=sizes,
    )
    follower = RouteFollower(lambda: RoutingTable((route_to(built),)), bundles, poll_s=POLL_S)
    await follower.refresh()
    await follower.refresh()
    assert follower.endpoint(ENDPOINT).contract == contract()
    assert asked == [contract().project]
