"""The Open Inference Protocol over HTTP: bodies, outputs, versions and refusals."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.bundles import instance
from harness.gateways import ENDPOINT, GatewayOverFakes, route_to
from harness.protocols import (
    JSON_LENGTH,
    OIP,
    GatewayOfEveryProtocol,
    binary_tensors,
    by_rest,
    json_tensors,
    post_binary,
)
from harness.servers import wait_until
from skewless.canonical_json import Digest
from skewless.errors import Unavailable
from skewless.limits import BODY_BYTES_MAX, ROWS_MAX
from skewless.rollout.routes import Route, RoutingTable

ROWS = (instance(), instance(origin="LGA", tailnum=None))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayOverFakes]:
    with GatewayOfEveryProtocol.build(tmp_path_factory.mktemp("gateway")).running() as running:
        yield running


def infer(gateway: GatewayOverFakes, *, path: str = OIP, **members: object) -> Any:
    """The decoded answer to the rows as tensors, with members of the body changed."""
    return gateway.client.post(f"{path}/infer", json={"inputs": json_tensors(ROWS), **members}).json()


def refused(response: Any, code: str, path: str = "") -> dict[str, Any]:
    """Assert that a response is a refusal in the protocol's form, and give it."""
    body: dict[str, Any] = response if isinstance(response, dict) else response.json()
    assert (body.get("code"), body.get("path", "")) == (code, path), body
    assert path in body["error"], "clients show the text alone"
    return body


def test_outputs_come_in_the_order_in_which_they_are_asked_for(gateway: GatewayOverFakes) -> None:
    wanted = [{"name": "prediction_id"}, {"name": "probability"}]
    outputs = infer(gateway, outputs=wanted)["outputs"]
    assert [each["name"] for each in outputs] == ["prediction_id", "probability"]
    assert outputs[1]["shape"] == [2, 1]
    assert outputs[1]["datatype"] == "FP32"


def test_some_outputs_can_be_bytes_and_others_json(gateway: GatewayOverFakes) -> None:
    wanted = [{"name": "label"}, {"name": "probability", "parameters": {"binary_data": True}}]
    response = gateway.client.post(f"{OIP}/infer", json={"inputs": json_tensors(ROWS), "outputs": wanted})
    length = int(response.headers[JSON_LENGTH])
    label, probability = json.loads(response.content[:length])["outputs"]
    assert response.headers["content-type"] == "application/octet-stream"
    assert label["data"] == by_rest(gateway.client, ROWS).labels
    assert probability == {
        "name": "probability",
        "datatype": "FP32",
        "shape": [2, 1],
        "parameters": {"binary_data_size": 8},
    }
    assert response.content[length:] == by_rest(gateway.client, ROWS).probabilities.tobytes()


def test_an_answer_says_its_version_its_bundle_and_how_it_was_come_by(gateway: GatewayOverFakes) -> None:
    answer = infer(gateway, id="abc")
    del answer["outputs"]
    assert answer == {
        "model_name": ENDPOINT,
        "model_version": "1",
        "id": "abc",
        "parameters": {"rung": "normal", "bundle": gateway.built.digest},
    }
    assert "id" not in infer(gateway)


def test_the_version_is_the_routes_and_no_other_answers(tmp_path: Path) -> None:
    with GatewayOverFakes.build(tmp_path).running() as gateway:
        assert infer(gateway, path=f"{OIP}/versions/1")["model_version"] == "1"
        gateway.registry.table = RoutingTable((route_to(gateway.built, version=2),))
        wait_until(lambda: infer(gateway).get("model_version") == "2", "the route is followed", timeout_s=30)
        told = refused(infer(gateway, path=f"{OIP}/versions/1"), "not_found")
        assert told["allowed"] == "2"
        assert gateway.client.get(f"{OIP}/versions/2").json()["versions"] == ["2"]


def test_raw_models_are_there_only_where_the_server_allows_them(tmp_path: Path) -> None:
    with GatewayOverFakes.build(tmp_path).running() as gateway:
        refused(gateway.client.get(f"{OIP}.raw"), "not_found")
        index = gateway.client.post("/v2/repository/index").json()
        assert [each["name"] for each in index] == [ENDPOINT]


def test_a_raw_call_leaves_no_record(gateway: GatewayOverFakes) -> None:
    before = len(gateway.log.entries)
    features = {"name": "features", "datatype": "FP32", "shape": [2, 8], "data": [[0.5] * 8, [1] * 8]}
    answer = infer(gateway, path=f"{OIP}.raw", inputs=[features])
    assert np.array(answer["outputs"][0]["data"]).reshape(answer["outputs"][0]["shape"]).sum(axis=1).tolist() == [1, 1]
    assert len(gateway.log.entries) == before


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"name": "feature"}, "$.inputs.feature"),
        ({"datatype": "FP64"}, "$.inputs[0].datatype"),
        ({"shape": [1, 7]}, "$.inputs[0].shape"),
        ({"shape": [8]}, "$.inputs[0].shape"),
        ({"shape": [0, 8]}, "$.inputs[0].shape"),
        ({"shape": [2, 8]}, "$.inputs[0].data"),
        ({"data": [[1.0] * 7]}, "$.inputs[0].data[0]"),
        ({"data": [1.0] * 7 + ["1"]}, "$.inputs[0].data[7]"),
        ({"data": [1.0] * 7 + [1e39]}, "$.inputs[0].data[7]"),
        ({"data": [1.0] * 7 + [10**400]}, "$.inputs[0].data[7]"),
        ({"shape": [ROWS_MAX + 1, 8]}, "$.inputs[0].shape"),
    ],
)
def test_a_raw_tensor_that_does_not_fit_is_refused(
    gateway: GatewayOverFakes, change: dict[str, Any], path: str
) -> None:
    calls = gateway.backend.calls
    features = {"name": "features", "datatype": "FP32", "shape": [1, 8], "data": [1.0] * 8, **change}
    answer = infer(gateway, path=f"{OIP}.raw", inputs=[features])
    assert answer["path"] == path, answer
    assert gateway.backend.calls == calls


def test_deadlines_are_parameters_and_reach_the_data_plane(tmp_path: Path) -> None:
    with GatewayOverFakes.build(tmp_path).running() as gateway:
        gateway.store.slow_s = 0.2
        for parameters in ({"deadline_ms": 100}, {"timeout": 100_000}):
            assert refused(infer(gateway, parameters=parameters), "deadline_exceeded")["request_id"]
        assert "outputs" in infer(gateway, parameters={"timeout": 5_000_000})


@pytest.mark.parametrize(
    ("parameters", "path"),
    [
        ({"timeout": 999}, "$.parameters.timeout"),
        ({"timeout": "5000"}, "$.parameters.timeout"),
        ({"timeout": 5_000, "deadline_ms": 5}, "$.parameters.timeout"),
        ({"deadline_ms": 0}, "$.parameters.deadline_ms"),
        ({"binary_data_output": 1}, "$.parameters.binary_data_output"),
        ({"priority": 1}, "$.parameters.priority"),
        ({"as_of": "2013-05-01T00:00:00Z"}, "$.parameters.as_of"),
    ],
)
def test_parameters_that_would_be_ignored_are_refused(
    gateway: GatewayOverFakes, parameters: dict[str, Any], path: str
) -> None:
    assert infer(gateway, parameters=parameters)["path"] == path


@pytest.mark.parametrize(
    ("members", "code", "path"),
    [
        ({"inputs": None}, "invalid_request", "$.inputs"),
        ({"inputs": [7]}, "invalid_request", "$.inputs[0]"),
        ({"inputs": []}, "missing_field", "$.inputs.origin"),
        ({"inputs": [{}]}, "invalid_tensor", "$.inputs[0]"),
        ({"inputs": [{"data": []}]}, "missing_field", "$.inputs[0].name"),
        ({"inputs": [{"name": "origin", "datatype": 7, "data": []}]}, "mistyped_field", "$.inputs[0].datatype"),
        ({"inputs": [{"name": "origin", "date": []}]}, "unknown_field", "$.inputs[0].date"),
        ({"input": []}, "unknown_field", "$.input"),
        ({"parameters": []}, "invalid_request", "$.parameters"),
        ({"id": 7}, "invalid_request", "$.id"),
        ({"outputs": [{"name": "score"}]}, "unknown_output", "$.outputs.score"),
        ({"outputs": [{"name": "label"}, {"name": "label"}]}, "invalid_tensor", "$.outputs[1].name"),
        (
            {"outputs": [{"name": "label", "parameters": {"classification": 2}}]},
            "unknown_parameter",
            "$.outputs[0].parameters.classification",
        ),
    ],
)
def test_bodies_of_another_form_are_refused_with_the_place(
    gateway: GatewayOverFakes, members: dict[str, Any], code: str, path: str
) -> None:
    reads = len(gateway.store.reads)
    refused(infer(gateway, **members), code, path)
    assert len(gateway.store.reads) == reads, "nothing wrong reaches the store"


def test_shared_memory_is_refused(gateway: GatewayOverFakes) -> None:
    tensors = json_tensors(ROWS)
    tensors[0] = {**tensors[0], "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 8}}
    told = infer(gateway, inputs=tensors)
    refused(told, "unknown_parameter", "$.inputs[0].parameters.shared_memory_region")


@pytest.mark.parametrize("length", ["0", "-1", "abc", "99999999", "", "9" * 5_000])
def test_a_length_of_json_that_is_none_is_refused(gateway: GatewayOverFakes, length: str) -> None:
    response = gateway.client.post(f"{OIP}/infer", content=b"{}", headers={JSON_LENGTH: length})
    assert response.status_code == 400
    refused(response, "invalid_tensor", "$")


def test_bytes_that_are_more_or_fewer_than_announced_are_refused(gateway: GatewayOverFakes) -> None:
    tensors = binary_tensors(ROWS)
    head, content = tensors[-1]
    refused(post_binary(gateway.client, [*tensors[:-1], (head, content + b"x")]), "invalid_tensor", "$.inputs")
    refused(post_binary(gateway.client, [*tensors[:-1], (head, content[:-1])]), "invalid_tensor", "$.inputs")
    size = {"parameters": {"binary_data_size": -1}}
    told = post_binary(gateway.client, [*tensors[:-1], ({**head, **size}, content)])
    assert told.json()["path"].endswith("parameters.binary_data_size")
    both = {"data": [1, 2]}
    refused(
        post_binary(gateway.client, [*tensors[:-1], ({**head, **both}, content)]),
        "invalid_tensor",
        f"$.inputs[{len(tensors) - 1}]",
    )


def test_other_media_types_and_compression_are_refused(gateway: GatewayOverFakes) -> None:
    body = json.dumps({"inputs": json_tensors(ROWS)}).encode()
    for headers in ({"content-type": "text/csv"}, {"content-encoding": "gzip"}):
        response = gateway.client.post(f"{OIP}/infer", content=body, headers=headers)
        assert response.status_code == 415
        refused(response, "unsupported_media_type", "$")
    assert gateway.client.post(f"{OIP}/infer", content=body).status_code == 200, "Triton's clients send no type"


def test_a_body_beyond_the_limit_is_refused_before_it_is_read(gateway: GatewayOverFakes) -> None:
    response = gateway.client.post(f"{OIP}/infer", content=b" " * (BODY_BYTES_MAX + 1))
    assert response.status_code == 413
    refused(response, "limit_exceeded", "$")


def test_routes_that_only_triton_has_are_refused_in_the_protocols_form(gateway: GatewayOverFakes) -> None:
    for method, path in (
        ("GET", "/v2/systemsharedmemory/status"),
        ("POST", f"/v2/repository/models/{ENDPOINT}/load"),
        ("GET", f"{OIP}/stats"),
        ("GET", f"{OIP}/infer"),
    ):
        response = gateway.client.request(method, path)
        assert response.status_code == 404
        assert refused(response, "not_found")["error"]


def test_a_model_whose_backend_is_away_is_not_ready(tmp_path: Path) -> None:
    with GatewayOverFakes.build(tmp_path).running() as gateway:
        gateway.backend.failure = Unavailable("model backend", "it is gone")
        for path in (f"{OIP}/ready", "/v2/health/ready"):
            response = gateway.client.get(path)
            assert (response.status_code, response.json()["ready"]) == (503, False)
        assert gateway.client.get("/v2/health/live").status_code == 200


def test_the_index_tells_what_is_not_in_service_and_why(tmp_path: Path) -> None:
    gateway = GatewayOverFakes.build(tmp_path)
    away = Route("another", "", Digest("0" * 64), version=1)
    gateway.registry.table = RoutingTable((route_to(gateway.built), away))

    def index(**body: object) -> dict[str, dict[str, Any]]:
        return {each["name"]: each for each in gateway.client.post("/v2/repository/index", json=body).json()}

    with gateway.running(ready=False):
        wait_until(lambda: index(ready=True).keys() == {ENDPOINT}, "the endpoint is in service", timeout_s=30)
        wait_until(lambda: "0" * 12 in index()["another"]["reason"], "the other one is refused", timeout_s=30)
        assert index()["another"]["state"] == "UNAVAILABLE"
        assert index()[ENDPOINT] == {"name": ENDPOINT, "version": "1", "state": "READY", "reason": ""}
        refused(gateway.client.post("/v2/repository/index", json=[1]), "invalid_request", "$")
