"""Canaries, experiments and shadows of the real application over fakes: who answers, and what trials cost callers."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.bundles import BuiltBundle, build_bundle, content, contract, instance, sample_columns
from harness.gateways import ENDPOINT, GatewayOverFakes, route_to
from harness.servers import wait_until
from skewless.bundles.bundle import load_bundle, write_bundle
from skewless.bundles.model_repository import model_name
from skewless.dtypes import Dtype, column_of
from skewless.errors import Unavailable
from skewless.features.contract import RequestField
from skewless.rollout.assignment import assign
from skewless.rollout.routes import Arm, Canary, Experiment, ExperimentKind, Role, Route, RoutingTable, Shadow
from skewless.serving.log_blocks import blocks, decode, encode
from skewless.serving.records import AnsweredBatch, TallyBatch

TAILS = [f"N{number}" for number in range(200)]


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayOverFakes]:
    with GatewayOverFakes.build(tmp_path).running() as running:
        yield running


def _publish(gateway: GatewayOverFakes, *, scale: float, reject_missing_weather: bool = False) -> BuiltBundle:
    """Another bundle, its model in the backend's repository."""
    built = build_bundle(gateway.artifacts, scale=scale, reject_missing_weather=reject_missing_weather)
    gateway.deploy(built)
    return built


def _follow(gateway: GatewayOverFakes, route: Route) -> None:
    """Have the gateway serve a route, everything beside live included."""
    gateway.registry.table = RoutingTable((route,))
    wanted = {"canary", "shadow", "experiment"} & {
        part for part in ("canary", "shadow", "experiment") if getattr(route, part) is not None
    }

    def is_served() -> bool:
        shown = gateway.client.get(f"/v1/endpoints/{ENDPOINT}").json()
        return bool(shown["route_version"] == route.version and shown["roles"].keys() >= wanted)

    wait_until(is_served, f"version {route.version} is served", timeout_s=20)


def _canary(gateway: GatewayOverFakes, candidate: BuiltBundle, *, share: float = 0.5, version: int = 2) -> Route:
    return replace(route_to(gateway.built), canary=Canary(candidate.digest, share), version=version)


def _experiment(gateway: GatewayOverFakes, other: BuiltBundle, *, traffic: float = 1.0) -> Route:
    arms = (Arm("control", gateway.built.digest, 0.5), Arm("larger", other.digest, 0.5))
    trial = Experiment("size", ExperimentKind.AB, arms, traffic=traffic, success="late")
    return replace(route_to(gateway.built), experiment=trial, version=2)


def _many(gateway: GatewayOverFakes, *, receipt: str = "summary") -> dict[str, Any]:
    response = gateway.predict(*(instance(tailnum=tail) for tail in TAILS), receipt=receipt)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def _answered(answer: dict[str, Any]) -> NDArray[np.float32]:
    return np.array([each["probability"] for each in answer["predictions"]], np.float32)


def _check_no_mixture(answer: dict[str, Any], batches: list[AnsweredBatch], *bundles: BuiltBundle) -> None:
    """Every answer is what its own bundle computes of the logged tensor, in the place of its row."""
    by_digest = {built.digest: built for built in bundles}
    answered, seen = _answered(answer), np.zeros(len(answer["predictions"]), int)
    for batch in batches:
        rows = np.arange(batch.rows) if batch.positions is None else batch.positions
        expected = by_digest[batch.bundle].outputs(batch.tensor)["probabilities"][:, 1]
        assert answered[rows].tobytes() == expected.tobytes()
        assert [answer["prediction_ids"][row] for row in rows] == list(batch.prediction_ids)
        seen[rows] += 1
    assert seen.tolist() == [1] * len(seen), "every row is answered once"


def test_each_row_of_a_split_request_is_answered_by_the_bundle_it_is_assigned_to(gateway: GatewayOverFakes) -> None:
    candidate = _publish(gateway, scale=2.0**-13)
    route = _canary(gateway, candidate)
    _follow(gateway, route)
    answer = _many(gateway)
    batches = gateway.log.batches
    _check_no_mixture(answer, batches, gateway.built, candidate)
    keys = {name: np.concatenate([b.given[name].values for b in batches]) for name in ("origin", "tailnum", "station")}
    assert {batch.role for batch in batches} == {Role.LIVE, Role.CANARY}
    assert len(keys["tailnum"]) == len(TAILS)
    for batch in batches:
        (own,) = assign(route, {name: batch.given[name] for name in keys}, batch.rows)
        assert (own.role, own.bundle) == (batch.role, batch.bundle), "logged rows are assigned to who answered them"


def test_a_receipt_tells_part_by_part_who_answered_which_rows(gateway: GatewayOverFakes) -> None:
    candidate = _publish(gateway, scale=2.0**-13)
    _follow(gateway, _canary(gateway, candidate))
    receipt = _many(gateway, receipt="full")["receipt"]
    parts = {part["role"]: part for part in receipt["parts"]}
    assert {role: part["bundle"] for role, part in parts.items()} == {
        "live": gateway.built.digest,
        "canary": candidate.digest,
    }
    assert sorted(parts["live"]["rows"] + parts["canary"]["rows"]) == list(range(len(TAILS)))
    assert all(len(part["instances"]) == len(part["rows"]) for part in parts.values())
    assert list(receipt["timings_ms"]) == ["validate", "features", "transform", "model", "log", "total"]
    alone = gateway.predict(instance(tailnum=TAILS[parts["canary"]["rows"][0]])).json()["receipt"]
    assert (alone["bundle"], alone["role"]) == (candidate.digest, "canary")


def test_an_entity_stays_with_its_bundle_alone_and_in_a_batch_and_as_the_share_grows(
    gateway: GatewayOverFakes,
) -> None:
    candidate = _publish(gateway, scale=2.0**-13)
    _follow(gateway, _canary(gateway, candidate, share=0.2))
    together = _answered(_many(gateway))
    alone = np.concatenate([_answered(gateway.predict(instance(tailnum=tail)).json()) for tail in TAILS[:40]])
    assert alone.tobytes() == together[:40].tobytes()
    first = {tail for batch in gateway.log.batches if batch.role == "canary" for tail in batch.given["tailnum"].values}
    gateway.log.entries.clear()
    _follow(gateway, _canary(gateway, candidate, share=0.6, version=3))
    _many(gateway)
    later = {tail for batch in gateway.log.batches if batch.role == "canary" for tail in batch.given["tailnum"].values}
    assert first < later


def test_features_of_a_split_request_are_read_once_where_bundles_read_the_same(gateway: GatewayOverFakes) -> None:
    _follow(gateway, _canary(gateway, _publish(gateway, scale=2.0**-13)))
    gateway.store.reads.clear()
    _many(gateway)
    assert len(gateway.store.reads) == 1
    assert len(set(gateway.store.reads[0])) == len(gateway.store.reads[0])


def test_bundles_that_read_otherwise_answer_side_by_side(gateway: GatewayOverFakes) -> None:
    candidate = _publish(gateway, scale=2.0**-13, reject_missing_weather=True)
    _follow(gateway, _canary(gateway, candidate))
    answer = _many(gateway)
    _check_no_mixture(answer, gateway.log.batches, gateway.built, candidate)
    assert {batch.role for batch in gateway.log.batches} == {"live", "canary"}


def test_rows_that_only_the_candidates_policy_rejects_are_answered_by_live(gateway: GatewayOverFakes) -> None:
    candidate = _publish(gateway, scale=2.0**-13, reject_missing_weather=True)
    _follow(gateway, _canary(gateway, candidate, share=1.0))
    answer = gateway.predict(instance(origin="NOWHERE"))
    assert answer.status_code == 200
    assert answer.json()["receipt"]["role"] == "live"


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_where_a_candidate_fails_live_answers_its_rows(gateway: GatewayOverFakes, share: float) -> None:
    candidate = _publish(gateway, scale=2.0**-13)
    _follow(gateway, _canary(gateway, candidate, share=share))

    def broken(_tensor: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        raise ValueError("a bug of the candidate's")

    gateway.backend.repository[model_name(candidate.digest)] = broken
    answer = _many(gateway)
    _check_no_mixture(answer, gateway.log.batches, gateway.built)
    assert {batch.role for batch in gateway.log.batches} == {"live"}
    text = gateway.client.get("/metrics").text
    assert f'skewless_role_errors_total{{bundle="{candidate.digest[:12]}",endpoint="{ENDPOINT}",role="canary"}}' in text


def test_a_live_bundle_that_fails_still_fails_the_request(gateway: GatewayOverFakes) -> None:
    _follow(gateway, _canary(gateway, _publish(gateway, scale=2.0**-13)))
    gateway.backend.failure = Unavailable("model backend", "gone")
    assert gateway.predict(*(instance(tailnum=tail) for tail in TAILS)).status_code == 503


def test_arms_of_an_experiment_are_logged_by_name_and_may_have_the_live_bundle(gateway: GatewayOverFakes) -> None:
    other = _publish(gateway, scale=2.0**-13)
    _follow(gateway, _experiment(gateway, other, traffic=0.8))
    answer = _many(gateway)
    _check_no_mixture(answer, gateway.log.batches, gateway.built, other)
    seen = {(batch.role, batch.experiment, batch.arm, batch.bundle) for batch in gateway.log.batches}
    assert seen == {
        ("live", "", "", gateway.built.digest),
        ("arm", "size", "control", gateway.built.digest),
        ("arm", "size", "larger", other.digest),
    }
    for block in blocks(gateway.log.batches):
        assert encode(decode(encode(block))) == encode(block)


def test_a_candidate_that_callers_cannot_ask_is_not_in_service_and_told(gateway: GatewayOverFakes) -> None:
    asked = contract()
    more = replace(asked, request_fields=(*asked.request_fields, RequestField("luggage", Dtype.INT32)))
    folder = gateway.artifacts / "incoming"
    columns = {**sample_columns(), "luggage": column_of(Dtype.INT32, [1, 2, 3, 4])}
    digest = write_bundle(content(given=more, columns=columns), folder)
    folder.rename(gateway.artifacts / digest)
    other = BuiltBundle(load_bundle(gateway.artifacts / digest), gateway.built.model)
    gateway.deploy(other)
    gateway.registry.table = RoutingTable((_canary(gateway, other, share=1.0),))
    wait_until(lambda: "luggage" in gateway.client.get("/readyz").text, "the misfit is told", timeout_s=20)
    assert gateway.client.get("/readyz").status_code == 200
    assert gateway.predict(instance()).json()["receipt"]["role"] == "live"


def test_a_shadow_scores_what_live_answers_with_the_same_features_and_answers_nobody(
    gateway: GatewayOverFakes,
) -> None:
    shadow = _publish(gateway, scale=2.0**-13)
    _follow(gateway, replace(route_to(gateway.built), shadow=Shadow(shadow.digest), version=2))
    gateway.store.reads.clear()
    answer = _many(gateway)
    wait_until(lambda: len(gateway.log.batches) == 2, "the shadow has scored")
    live, mirrored = gateway.log.batches
    assert (live.role, mirrored.role, mirrored.bundle) == ("live", "shadow", shadow.digest)
    assert list(mirrored.twins) == answer["prediction_ids"] == list(live.prediction_ids)
    assert mirrored.tensor.tobytes() == live.tensor.tobytes(), "one snapshot of features for both"
    assert len(gateway.store.reads) == 1
    assert mirrored.as_of == live.as_of
    assert _answered(answer).tobytes() == gateway.built.outputs(live.tensor)["probabilities"][:, 1].tobytes()
    assert not set(mirrored.prediction_ids) & set(live.prediction_ids)
    (block,) = blocks([mirrored])
    assert encode(decode(encode(block))) == encode(block)


def test_a_shadow_that_reads_other_features_reads_them_at_the_same_moment(gateway: GatewayOverFakes) -> None:
    shadow = _publish(gateway, scale=2.0**-13, reject_missing_weather=True)
    _follow(gateway, replace(route_to(gateway.built), shadow=Shadow(shadow.digest), version=2))
    gateway.predict(instance())
    wait_until(lambda: len(gateway.log.batches) == 2, "the shadow has scored")
    live, mirrored = gateway.log.batches
    assert mirrored.as_of == live.as_of
    assert mirrored.outputs["probabilities"].tobytes() == shadow.outputs(mirrored.tensor)["probabilities"].tobytes()


def test_a_shadow_that_fails_or_cannot_keep_up_costs_no_caller_anything(gateway: GatewayOverFakes) -> None:
    shadow = _publish(gateway, scale=2.0**-13)
    _follow(gateway, replace(route_to(gateway.built), shadow=Shadow(shadow.digest), version=2))

    def broken(_tensor: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        raise ValueError("a bug of the shadow's")

    gateway.backend.repository[model_name(shadow.digest)] = broken
    for _ in range(5):
        assert gateway.predict(instance()).status_code == 200
    text = f'skewless_role_errors_total{{bundle="{shadow.digest[:12]}",endpoint="{ENDPOINT}",role="shadow"}} 5.0'
    wait_until(lambda: text in gateway.client.get("/metrics").text, "its failures are counted")
    assert [batch.role for batch in gateway.log.batches] == ["live"] * 5


def test_a_shadow_sees_its_share_of_live_answers_and_none_of_a_canarys(gateway: GatewayOverFakes) -> None:
    shadow, candidate = _publish(gateway, scale=2.0**-13), _publish(gateway, scale=2.0**-14)
    _follow(gateway, replace(_canary(gateway, candidate), shadow=Shadow(shadow.digest, 0.5)))
    _many(gateway)
    wait_until(lambda: len(gateway.log.batches) == 3, "the shadow has scored")
    by_role = {batch.role: batch for batch in gateway.log.batches}
    assert set(by_role["shadow"].twins) < set(by_role["live"].prediction_ids)
    places = {role: batch.positions for role, batch in by_role.items()}
    assert places["shadow"] is not None
    assert places["live"] is not None
    assert set(places["shadow"].tolist()) < set(places["live"].tolist())


def test_roles_are_tallied_for_the_log_and_series_of_bundles_out_of_service_go_away(
    gateway: GatewayOverFakes,
) -> None:
    candidate = _publish(gateway, scale=2.0**-13)
    _follow(gateway, _canary(gateway, candidate))
    _many(gateway)

    def tallies() -> dict[str, int]:
        entries = [each for each in gateway.log.entries if isinstance(each, TallyBatch)]
        return {each["role"]: each["rows"] for entry in entries for each in entry.documents}

    wait_until(lambda: sum(tallies().values()) == len(TAILS), "the tallies are written", timeout_s=20)
    entry = next(each for each in gateway.log.entries if isinstance(each, TallyBatch))
    assert decode(encode(entry)) == entry
    assert f'bundle="{candidate.digest[:12]}"' in gateway.client.get("/metrics").text
    _follow(gateway, replace(route_to(gateway.built), version=3))
    assert f'bundle="{candidate.digest[:12]}"' not in gateway.client.get("/metrics").text


def test_a_route_with_live_alone_counts_no_roles(gateway: GatewayOverFakes) -> None:
    gateway.predict(instance())
    assert "skewless_role_rows_total{" not in gateway.client.get("/metrics").text
    assert gateway.client.get(f"/v1/endpoints/{ENDPOINT}").json()["roles"] == {}
