"""Predictions, receipts, records, outcomes, readiness and metrics of the real application over fakes."""

import hashlib
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from harness.bundles import FEATURES, build_bundle, instance
from harness.fakes import MemoryPredictionLog
from harness.gateways import ENDPOINT, NOW, GatewayOverFakes, route_to
from harness.servers import wait_until
from skewless.dtypes import column_of, to_python
from skewless.errors import Unavailable
from skewless.rollout.routes import RoutingTable
from skewless.serving.log_blocks import blocks, decode, encode
from skewless.timestamps import HOUR_US, format_timestamp
from skewless_gateway.routes_copy import RoutesCopy


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayOverFakes]:
    with GatewayOverFakes.build(tmp_path).running() as running:
        yield running


def test_an_answer_has_the_models_exact_probability_and_its_label(gateway: GatewayOverFakes) -> None:
    answer = gateway.predict(instance(), instance(distance=8000.0), receipt="none").json()
    batch = gateway.log.batches[0]
    expected = gateway.built.outputs(batch.tensor)["probabilities"][:, 1]
    assert [np.float32(each["probability"]) for each in answer["predictions"]] == list(expected)
    assert [each["label"] for each in answer["predictions"]] == ["on_time", "late"]
    assert answer.keys() == {"predictions", "prediction_ids"}


def test_the_tensor_is_the_transform_of_what_was_given_and_what_was_stored(gateway: GatewayOverFakes) -> None:
    gateway.predict(instance())
    batch = gateway.log.batches[0]
    columns = {
        name: column_of(column.dtype, to_python(column))
        for name, column in {**batch.given, **batch.frame.columns}.items()
    }
    again = gateway.built.bundle.transform.prepare().apply(columns, 1)
    assert again.tobytes() == batch.tensor.tobytes()
    assert batch.tensor[0].tolist() == [21.5, 0.0, 270.0, 180.0, 0.5, 1089.5, 1.0, 2.0]


def test_rows_of_one_request_equal_the_same_rows_asked_alone(gateway: GatewayOverFakes) -> None:
    rows = [
        instance(origin=origin, tailnum=tail) for origin in ("JFK", "LGA", "NOWHERE") for tail in ("N1", "N2", None)
    ]
    together = gateway.predict(*rows).json()["predictions"]
    assert [gateway.predict(row).json()["predictions"][0] for row in rows] == together


def test_equal_entities_of_a_request_are_read_once(gateway: GatewayOverFakes) -> None:
    gateway.predict(*[instance() for _ in range(50)], instance(origin="LGA"))
    assert len(gateway.store.reads) == 1
    assert len(set(gateway.store.reads[0])) == len(gateway.store.reads[0]) == 4


def test_prediction_ids_are_uuids_of_version_7_in_order(gateway: GatewayOverFakes) -> None:
    ids = gateway.predict(*[instance()] * 20).json()["prediction_ids"]
    assert {uuid.UUID(each).version for each in ids} == {7}
    assert len(set(ids)) == 20
    assert ids == sorted(ids)


def test_a_summary_receipt_names_what_was_not_ok_and_its_age(gateway: GatewayOverFakes) -> None:
    receipt = gateway.predict(instance(), instance(origin="LGA", tailnum=None)).json()["receipt"]
    assert receipt["bundle"] == gateway.built.digest
    assert receipt["endpoint"] == ENDPOINT
    assert receipt["as_of"] == format_timestamp(NOW)
    assert receipt["rung"] == "normal"
    assert receipt["statuses"] == {"ok": 5, "missing": 1, "stale": 2}
    assert {entry["column"]: (entry["statuses"], entry["worst_age_s"]) for entry in receipt["not_ok"]} == {
        "weather__temp": ({"stale": 1}, 5 * 3600.0),
        "weather__wind_dir": ({"stale": 1}, 5 * 3600.0),
        "aircraft__seats": ({"missing": 1}, None),
    }
    assert list(receipt["timings_ms"]) == ["validate", "features", "transform", "model", "log", "total"]
    assert "instances" not in receipt


def test_a_full_receipt_tells_every_value_and_the_tensors_digest(gateway: GatewayOverFakes) -> None:
    told = gateway.predict(instance(), instance(origin="LGA"), receipt="full").json()["receipt"]["instances"]
    assert [set(each["features"]) for each in told] == [set(FEATURES)] * 2
    assert told[0]["features"]["weather__temp"] == {"status": "ok", "age_s": 3600.0, "value": 21.5}
    assert told[1]["features"]["weather__temp"] == {"status": "stale", "age_s": 5 * 3600.0, "value": None}
    row = gateway.log.batches[0].tensor[1]
    assert told[1]["tensor_digest"] == hashlib.sha256(row.tobytes()).hexdigest()


def test_an_entity_the_store_does_not_know_is_served_by_the_missing_policy(gateway: GatewayOverFakes) -> None:
    told = gateway.predict(instance(origin="NOWHERE"), receipt="full").json()["receipt"]["instances"][0]["features"]
    assert told["weather__temp"] == {"status": "missing", "age_s": None, "value": None}
    assert told["weather__wind_dir"] == {"status": "default", "age_s": None, "value": 90}


def test_a_rejecting_policy_answers_422_with_the_instance(tmp_path: Path) -> None:
    with GatewayOverFakes.build(tmp_path, reject_missing_weather=True).running() as gateway:
        response = gateway.predict(instance(), instance(origin="NOWHERE"))
        assert response.status_code == 422
        assert response.json()["code"] == "feature_rejected"
        assert response.json()["path"] == "$.instances[1]"
        assert gateway.log.batches == []


def test_a_record_holds_everything_about_the_prediction_and_survives_encoding(gateway: GatewayOverFakes) -> None:
    answer = gateway.client.post(
        f"/v1/endpoints/{ENDPOINT}/predict",
        json={"instances": [instance(tailnum=None), instance(distance=None)]},
        headers={"X-Request-Id": "call-7"},
    )
    assert answer.headers["x-request-id"] == "call-7"
    batch = gateway.log.batches[0]
    assert list(batch.prediction_ids) == answer.json()["prediction_ids"]
    assert (batch.endpoint, batch.bundle, batch.role, batch.rung) == (ENDPOINT, gateway.built.digest, "live", "normal")
    assert (batch.request_id, batch.as_of) == ("call-7", NOW)
    assert set(batch.key_names) == {"origin", "tailnum", "station"}
    assert batch.frame.event_times["aircraft"].tolist() == [-1, NOW - 100 * HOUR_US]
    (block,) = blocks([batch])
    assert encode(decode(encode(block))) == encode(block)


def test_an_as_of_is_taken_where_the_server_allows_it(tmp_path: Path) -> None:
    gateway = GatewayOverFakes.build(tmp_path)
    gateway.allow_as_of = True
    with gateway.running():
        receipt = gateway.predict(instance(), as_of=format_timestamp(NOW + 10 * HOUR_US)).json()["receipt"]
        assert receipt["as_of"] == format_timestamp(NOW + 10 * HOUR_US)
        assert receipt["statuses"]["stale"] == 2
        assert gateway.predict(instance(), as_of="1960-01-01").json()["path"] == "$.options.as_of"


@pytest.mark.parametrize("given", ["", "a b", "x" * 101, "né"])
def test_a_request_id_that_is_not_plain_is_replaced(gateway: GatewayOverFakes, given: str) -> None:
    response = gateway.client.get("/healthz", headers=[(b"X-Request-Id", given.encode())])
    assert len(response.headers["x-request-id"]) == 32


def test_an_away_store_is_a_503_that_says_when_to_come_back(gateway: GatewayOverFakes) -> None:
    gateway.store.failure = Unavailable("online store", "gone")
    response = gateway.predict(instance())
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert response.json()["code"] == "unavailable"
    assert gateway.client.get("/readyz").json()["parts"]["online_store"] == {
        "ok": False,
        "detail": f"online store is unavailable: gone; without it nothing answers {ENDPOINT}",
    }
    gateway.store.failure = None
    assert gateway.predict(instance()).status_code == 200


def test_a_deadline_that_a_part_would_miss_is_a_504(gateway: GatewayOverFakes) -> None:
    gateway.backend.slow_s = 0.2
    response = gateway.predict(instance(), deadline_ms=100)
    assert response.status_code == 504
    assert response.json()["code"] == "deadline_exceeded"
    assert gateway.predict(instance(), deadline_ms=5_000).status_code == 200


def test_a_log_that_cannot_keep_the_record_refuses_the_answer(gateway: GatewayOverFakes) -> None:
    gateway.log.failure = Unavailable("prediction log", "disk full")
    assert gateway.predict(instance()).status_code == 503


def test_our_own_fault_tells_only_an_id(gateway: GatewayOverFakes, caplog: pytest.LogCaptureFixture) -> None:
    gateway.backend.failure = RuntimeError("secret")  # type: ignore[assignment]  # a bug raises what no port allows
    response = gateway.predict(instance())
    gateway.backend.failure = None
    assert response.status_code == 500
    assert "secret" not in response.text
    assert response.json()["request_id"] in caplog.text


def test_one_request_too_many_is_refused_at_once(tmp_path: Path) -> None:
    gateway = GatewayOverFakes.build(tmp_path)
    gateway.in_flight_max, gateway.queue_ms = 1, 0
    with gateway.running(), ThreadPoolExecutor(1) as pool:
        gateway.backend.is_held = True
        first = pool.submit(gateway.predict, instance())
        wait_until(lambda: bool(gateway.store.reads), "the first request is being answered")
        refused = gateway.predict(instance())
        gateway.backend.is_held = False
        assert first.result().status_code == 200
    assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    assert len(gateway.store.reads) == 1


def test_concurrent_requests_each_get_their_own_answer(gateway: GatewayOverFakes) -> None:
    distances = [float(each) for each in range(40)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda each: gateway.predict(instance(distance=each)).json(), distances))
    given = [answer["predictions"][0]["probability"] for answer in answers]
    assert given == sorted(given)
    assert len(set(given)) == len(distances)


def test_endpoints_are_listed_and_described_with_a_schema_that_holds(gateway: GatewayOverFakes) -> None:
    listed = gateway.client.get("/v1/endpoints").json()["endpoints"]
    assert listed == [{"endpoint": ENDPOINT, "description": "Late by 15 minutes?", "bundle": gateway.built.digest}]
    shown = gateway.client.get(f"/v1/endpoints/{ENDPOINT}").json()
    jsonschema.Draft202012Validator.check_schema(shown["instance_schema"])
    validator = jsonschema.Draft202012Validator(shown["instance_schema"])
    assert validator.is_valid(instance(tailnum=None, distance=None))
    assert not validator.is_valid(instance(station="7"))
    assert not validator.is_valid(instance(orign="JFK"))
    prediction = gateway.predict(instance()).json()["predictions"][0]
    jsonschema.validate(prediction, shown["prediction_schema"])
    assert shown["bundle"] == gateway.built.digest


def test_the_openapi_document_has_every_route_with_examples(gateway: GatewayOverFakes) -> None:
    document = gateway.client.get("/openapi.json").json()
    predict = document["paths"]["/v1/endpoints/{endpoint}/predict"]["post"]
    assert predict["requestBody"]["content"]["application/json"]["example"]["instances"]
    assert {"200", "400", "404", "413", "415", "422", "503", "504"} <= predict["responses"].keys()
    assert {"/v1/outcomes", "/v1/endpoints", "/healthz", "/readyz", "/metrics"} <= document["paths"].keys()
    assert {each["name"] for each in predict["parameters"]} == {"endpoint", "X-Request-Timeout-Ms"}
    assert {"bearer", "apiKey"} <= document["components"]["securitySchemes"].keys()
    assert gateway.client.get("/docs").status_code == 200


def test_outcomes_are_counted_and_kept(gateway: GatewayOverFakes) -> None:
    ids = gateway.predict(instance(), instance()).json()["prediction_ids"]
    outcomes = [
        {"prediction_id": ids[0], "label": "late", "outcome_time": "2013-05-01T20:00:00Z"},
        {"prediction_id": ids[1], "label": True},
    ]
    assert gateway.client.post("/v1/outcomes", json={"outcomes": outcomes}).json() == {"accepted": 2}
    kept = gateway.log.outcomes
    assert [(each.prediction_id, each.label) for each in kept] == [(ids[0], "late"), (ids[1], "true")]
    assert [each.outcome_time for each in kept] == [NOW + 7 * HOUR_US + HOUR_US // 2, None]
    assert decode(encode(tuple(kept))) == tuple(kept)


def test_metrics_count_requests_rows_statuses_and_stages(gateway: GatewayOverFakes) -> None:
    gateway.predict(instance(), instance(origin="LGA"))
    gateway.predict(instance(origin=7))
    gateway.predict(instance(), endpoint="nope")
    # A request is counted once its answer has left, so the last one may be counted after it is read here.
    counted = 'skewless_requests_total{code="404",endpoint=""} 1.0'
    wait_until(lambda: counted in gateway.client.get("/metrics").text, "the last request is counted")
    text = gateway.client.get("/metrics").text
    assert f'skewless_requests_total{{code="200",endpoint="{ENDPOINT}"}} 1.0' in text
    assert f'skewless_requests_total{{code="400",endpoint="{ENDPOINT}"}} 1.0' in text
    assert f'skewless_rows_total{{endpoint="{ENDPOINT}"}} 2.0' in text
    assert f'skewless_feature_statuses_total{{endpoint="{ENDPOINT}",status="stale"}} 2.0' in text
    assert 'skewless_stage_seconds_count{stage="total"} 1.0' in text
    assert f'skewless_admission_in_flight{{endpoint="{ENDPOINT}"}} 0.0' in text


def test_a_new_live_bundle_is_swapped_in_without_a_failed_request(gateway: GatewayOverFakes) -> None:
    newer = build_bundle(gateway.artifacts, scale=2.0**-13)
    gateway.deploy(newer)
    gateway.registry.table = RoutingTable((route_to(newer, version=2),))
    statuses: list[int] = []

    def is_swapped() -> bool:
        response = gateway.predict(instance())
        statuses.append(response.status_code)
        return bool(response.json()["receipt"]["bundle"] == newer.digest)

    wait_until(is_swapped, "the new bundle answers")
    assert set(statuses) == {200}


def test_a_bundle_whose_model_answers_otherwise_never_goes_live(gateway: GatewayOverFakes) -> None:
    wrong = build_bundle(gateway.artifacts, wrong_golden=True)
    gateway.deploy(wrong)
    gateway.registry.table = RoutingTable((route_to(wrong, version=2),))
    wait_until(lambda: "golden" in gateway.client.get("/readyz").text, "the refusal is told")
    ready = gateway.client.get("/readyz")
    assert ready.status_code == 200, "the last good bundle still answers"
    assert gateway.predict(instance()).json()["receipt"]["bundle"] == gateway.built.digest


def test_an_endpoint_without_any_bundle_is_unavailable_and_not_ready(tmp_path: Path) -> None:
    gateway = GatewayOverFakes.build(tmp_path)
    gateway.backend.repository.clear()
    with gateway.running(ready=False):
        wait_until(lambda: "not in the repository" in gateway.client.get("/readyz").text, "the failure is told")
        assert gateway.client.get("/readyz").status_code == 503
        response = gateway.predict(instance())
        assert response.status_code == 503
        assert "cannot be loaded" in response.json()["detail"]
        gateway.deploy(gateway.built)
        wait_until(lambda: gateway.predict(instance()).status_code == 200, "it recovers by itself")


def test_an_away_registry_does_not_stop_serving(gateway: GatewayOverFakes) -> None:
    gateway.registry.failure = Unavailable("registry database", "gone")
    wait_until(lambda: "last good routes" in gateway.client.get("/readyz").text, "the outage is told")
    assert gateway.client.get("/readyz").status_code == 200
    assert gateway.predict(instance()).status_code == 200


def test_before_the_registry_was_ever_read_requests_are_refused_with_503(tmp_path: Path) -> None:
    gateway = GatewayOverFakes.build(tmp_path)
    gateway.registry.failure = Unavailable("registry database", "gone")
    with gateway.running(ready=False):
        assert gateway.predict(instance()).status_code == 503
        assert gateway.client.get("/healthz").status_code == 200
        gateway.registry.failure = None
        wait_until(lambda: gateway.predict(instance()).status_code == 200, "it recovers by itself")


def test_a_gateway_that_starts_while_the_registry_is_away_serves_from_its_copy_of_the_routes(tmp_path: Path) -> None:
    gateway = GatewayOverFakes.build(tmp_path)
    with gateway.running():
        assert gateway.predict(instance()).status_code == 200
    gateway.registry.failure = Unavailable("registry database", "gone")
    gateway.log = MemoryPredictionLog()
    with gateway.running():
        assert gateway.predict(instance()).status_code == 200
        assert "gone" in gateway.client.get("/readyz").text


@pytest.mark.parametrize("content", ["", "{", '{"format": 99}', '{"format": 1, "routes": [{}]}'])
def test_a_copy_of_the_routes_that_cannot_be_read_is_as_good_as_none(content: str, tmp_path: Path) -> None:
    (tmp_path / "routes.json").write_text(content)
    assert RoutesCopy(tmp_path).load() is None


def test_models_that_the_backend_lost_are_loaded_again(gateway: GatewayOverFakes) -> None:
    gateway.backend.loaded.clear()
    assert gateway.predict(instance()).status_code in (200, 503)
    wait_until(lambda: gateway.predict(instance()).status_code == 200, "the model is loaded again")


def test_a_deleted_endpoint_becomes_unknown(gateway: GatewayOverFakes) -> None:
    gateway.registry.table = RoutingTable()
    wait_until(lambda: gateway.predict(instance()).status_code == 404, "the endpoint is gone")


def test_stopping_closes_the_log(tmp_path: Path) -> None:
    with GatewayOverFakes.build(tmp_path).running() as gateway:
        gateway.predict(instance())
    assert gateway.log.closed
