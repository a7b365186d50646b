"""TensorFlow Serving's REST API and Vertex AI's container contract: bodies, versions, bytes and refusals."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.bundles import instance
from harness.gateways import ENDPOINT, GatewayOverFakes
from harness.protocols import FIELDS, TENSORFLOW, VERTEX, GatewayOfEveryProtocol
from skewless.canonical_json import digest
from skewless.dtypes import Dtype, to_python
from skewless.errors import InvalidRequest, Unavailable
from skewless.features.contract import FeatureContract, RequestField
from skewless.serving.instances import InstanceValidator
from skewless_gateway.edges.encoded_bytes import with_encoded_bytes

TEXTS = InstanceValidator.compile(
    FeatureContract(
        "demo",
        (),
        (RequestField("text", Dtype.STRING, nullable=True), RequestField("data", Dtype.BYTES)),
        digest("definitions"),
    )
)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayOverFakes]:
    with GatewayOfEveryProtocol.build(tmp_path_factory.mktemp("gateway")).running() as running:
        yield running


def ask(gateway: GatewayOverFakes, body: object, *, path: str = f"{TENSORFLOW}:predict") -> Any:
    return gateway.client.post(path, json=body).json()


def columns_of(*instances: dict[str, object]) -> dict[str, list[object]]:
    return {field.name: [each[field.name] for each in instances] for field in FIELDS}


def refused(gateway: GatewayOverFakes, body: object, path: str, *, code: str = "", at: str = "") -> None:
    reads = len(gateway.store.reads)
    told = ask(gateway, body, **({"path": at} if at else {}))
    assert told["path"] == path, told
    assert not code or told["code"] == code
    assert path in told["error"], "clients show the text alone"
    assert len(gateway.store.reads) == reads, "nothing wrong reaches the store"


def test_rows_and_columns_are_answered_in_kind(gateway: GatewayOverFakes) -> None:
    rows = instance(), instance(distance=8000.0)
    by_rows = ask(gateway, {"signature_name": "serving_default", "instances": rows})
    assert by_rows.keys() == {"predictions"}
    assert [each["label"] for each in by_rows["predictions"]] == ["on_time", "late"]
    assert {each["rung"] for each in by_rows["predictions"]} == {"normal"}
    by_columns = ask(gateway, {"inputs": columns_of(*rows)})
    assert by_columns.keys() == {"outputs"}
    for name in ("label", "probability", "rung"):
        assert by_columns["outputs"][name] == [each[name] for each in by_rows["predictions"]]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ([], "$"),
        ({}, "$"),
        ({"instances": [instance()], "inputs": {}}, "$"),
        ({"instances": [instance()], "signature": "x"}, "$.signature"),
        ({"instances": [instance()], "signature_name": "regress"}, "$.signature_name"),
        ({"instances": instance()}, "$.instances"),
        ({"instances": [[1]]}, "$.instances[0]"),
        ({"instances": [instance(station="7")]}, "$.instances[0].station"),
        ({"instances": [instance(origin={"b64": "?"})]}, "$.instances[0].origin"),
        ({"instances": [instance(origin={"b64": "QQ==", "x": 1})]}, "$.instances[0].origin"),
        ({"inputs": [1]}, "$.inputs"),
        ({"inputs": {**columns_of(instance()), "orign": ["JFK"]}}, "$.inputs.orign"),
        ({"inputs": {**columns_of(instance()), "origin": "JFK"}}, "$.inputs.origin"),
        ({"inputs": {**columns_of(instance()), "origin": ["JFK", "LGA"]}}, "$.inputs"),
        ({"inputs": {"origin": ["JFK"]}}, "$.inputs.tailnum"),
        ({"inputs": columns_of()}, "$.inputs"),
        ({"inputs": columns_of(instance(), instance(station="7"))}, "$.inputs.station[1]"),
        ({"inputs": columns_of(instance(), instance(origin={"b64": "?"}))}, "$.inputs.origin[1]"),
    ],
)
def test_what_is_wrong_is_named_where_the_caller_wrote_it(gateway: GatewayOverFakes, body: object, path: str) -> None:
    refused(gateway, body, path)


def test_bytes_may_be_said_in_base64() -> None:
    encoded = base64.b64encode("Zürich".encode()).decode()
    rows = [
        {"text": {"b64": encoded}, "data": {"b64": base64.b64encode(b"\xff\x00").decode()}},
        {"text": None, "data": "Zürich"},
        {"text": "plain", "data": ""},
    ]
    columns, _ = TEXTS.columns(with_encoded_bytes(rows, TEXTS))
    assert to_python(columns["text"]) == ["Zürich", None, "plain"]
    assert to_python(columns["data"]) == [b"\xff\x00", "Zürich".encode(), b""]
    assert rows[1] == {"text": None, "data": "Zürich"}, "what a caller gave stays as it was"


@pytest.mark.parametrize("encoded", ["?", base64.b64encode(b"\xff").decode()])
def test_base64_that_is_no_text_is_refused_in_a_text_field(encoded: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        with_encoded_bytes([{"text": {"b64": encoded}, "data": ""}], TEXTS)
    assert caught.value.path == "$.instances[0].text"


def test_status_and_metadata_tell_the_version_in_service(gateway: GatewayOverFakes) -> None:
    status = gateway.client.get(TENSORFLOW).json()
    (version,) = status["model_version_status"]
    assert (version["version"], version["state"], version["status"]["error_code"]) == ("1", "AVAILABLE", "OK")
    assert gateway.client.get(f"{TENSORFLOW}/versions/1").json() == status
    metadata = gateway.client.get(f"{TENSORFLOW}/metadata").json()
    assert metadata["model_spec"] == {"name": ENDPOINT, "signature_name": "", "version": "1"}
    signature = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert {name: each["dtype"] for name, each in signature["inputs"].items()} == {
        "origin": "DT_STRING",
        "tailnum": "DT_STRING",
        "station": "DT_INT64",
        "scheduled_departure": "DT_STRING",
        "distance": "DT_FLOAT",
        "is_holiday": "DT_BOOL",
        "party": "DT_INT32",
    }
    answered = ask(gateway, {"inputs": columns_of(instance())})["outputs"]
    assert signature["outputs"].keys() == answered.keys()


def test_another_version_or_model_does_not_answer(tmp_path: Path) -> None:
    with GatewayOverFakes.build(tmp_path).running() as gateway:
        body = {"instances": [instance()]}
        assert "predictions" in ask(gateway, body, path=f"{TENSORFLOW}/versions/1:predict")
        for path in (f"{TENSORFLOW}/versions/2:predict", "/v1/models/nowhere:predict"):
            assert ask(gateway, body, path=path)["code"] == "not_found"


def test_a_part_that_is_away_is_told_with_when_to_try_again(tmp_path: Path) -> None:
    with GatewayOfEveryProtocol.build(tmp_path).running() as gateway:
        gateway.log.failure = Unavailable("prediction log", "the disk is full", retry_after_s=3)
        for path in (f"{TENSORFLOW}:predict", VERTEX.predict_route):
            response = gateway.client.post(path, json={"instances": [instance()]})
            assert (response.status_code, response.headers["retry-after"]) == (503, "3")
            assert response.json()["error"].startswith("prediction log is unavailable")


def test_vertex_reads_parameters_and_answers_the_one_endpoint(gateway: GatewayOverFakes) -> None:
    body = {"instances": [instance()], "parameters": {"deadline_ms": 2_000}}
    (answer,) = ask(gateway, body, path=VERTEX.predict_route)["predictions"]
    assert answer.keys() == {"label", "probability", "prediction_id", "rung"}
    assert gateway.log.batches[-1].endpoint == ENDPOINT
    assert gateway.client.get(VERTEX.health_route).json() == {"ready": True}


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ([], "$"),
        ({}, "$.instances"),
        ({"instances": [instance()], "options": {}}, "$.options"),
        ({"instances": [instance()], "parameters": []}, "$.parameters"),
        ({"instances": [instance()], "parameters": {"deadline_ms": 0}}, "$.parameters.deadline_ms"),
        ({"instances": [instance()], "parameters": {"receipt": "full"}}, "$.parameters.receipt"),
        ({"instances": [instance(station="7")]}, "$.instances[0].station"),
    ],
)
def test_vertex_is_told_what_is_wrong_and_where(gateway: GatewayOverFakes, body: object, path: str) -> None:
    refused(gateway, body, path, at=VERTEX.predict_route)


def test_vertex_has_no_routes_where_no_endpoint_is_named(tmp_path: Path) -> None:
    with GatewayOverFakes.build(tmp_path).running() as gateway:
        assert gateway.client.post(VERTEX.predict_route, json={}).json()["code"] == "path_not_found"


def test_vertex_is_told_that_a_gateway_is_not_ready(tmp_path: Path) -> None:
    with GatewayOfEveryProtocol.build(tmp_path).running() as gateway:
        gateway.backend.failure = Unavailable("model backend", "it is gone")
        assert gateway.client.get(VERTEX.health_route).status_code == 503
