"""Bad input: a problem document that names the place, never a 500, and nothing reaches the store or the model."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from harness.bundles import instance
from harness.gateways import ENDPOINT, GatewayOverFakes
from skewless.limits import BODY_BYTES_MAX, DEADLINE_MS_MAX, OUTCOMES_MAX, ROWS_MAX

PATH = f"/v1/endpoints/{ENDPOINT}/predict"
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayOverFakes]:
    with GatewayOverFakes.build(tmp_path_factory.mktemp("gateway")).running() as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_behind_the_gateway_is_called(gateway: GatewayOverFakes) -> Iterator[None]:
    before = (len(gateway.store.reads), gateway.backend.calls, len(gateway.log.entries))
    yield
    assert (len(gateway.store.reads), gateway.backend.calls, len(gateway.log.entries)) == before


def refused(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem document of a refusal, checked for what every one of them must have."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["status"] == status
    assert problem["code"] == code, problem
    assert problem["type"].endswith(code)
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"] == response.headers["x-request-id"]
    return problem


def post(gateway: GatewayOverFakes, body: bytes | object) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return gateway.client.post(PATH, content=content, headers=JSON)


@pytest.mark.parametrize(
    ("changes", "code", "path", "said"),
    [
        ({"origin": 7}, "mistyped_field", "$.instances[1].origin", "is a number: 7"),
        ({"origin": None}, "mistyped_field", "$.instances[1].origin", "is null"),
        ({"origin": "x" * 1025}, "mistyped_field", "$.instances[1].origin", "1025 UTF-8 bytes"),
        ({"origin": "ä" * 600}, "mistyped_field", "$.instances[1].origin", "1200 UTF-8 bytes"),
        ({"tailnum": ["N1"]}, "mistyped_field", "$.instances[1].tailnum", "is an array"),
        ({"station": "7"}, "mistyped_field", "$.instances[1].station", "is a string"),
        ({"station": True}, "mistyped_field", "$.instances[1].station", "is a boolean"),
        ({"station": 7.0}, "mistyped_field", "$.instances[1].station", "fraction or exponent"),
        ({"station": 1 << 63}, "mistyped_field", "$.instances[1].station", "too large"),
        ({"station": 10**30}, "mistyped_field", "$.instances[1].station", "too large"),
        ({"party": 1 << 31}, "mistyped_field", "$.instances[1].party", "too large"),
        ({"party": None}, "mistyped_field", "$.instances[1].party", "is null"),
        ({"distance": "100"}, "mistyped_field", "$.instances[1].distance", "is a string"),
        ({"distance": False}, "mistyped_field", "$.instances[1].distance", "is a boolean"),
        ({"distance": 1e39}, "mistyped_field", "$.instances[1].distance", "too large"),
        ({"is_holiday": 0}, "mistyped_field", "$.instances[1].is_holiday", "is a number"),
        ({"scheduled_departure": 5}, "mistyped_field", "$.instances[1].scheduled_departure", "is a number"),
        ({"scheduled_departure": "soon"}, "mistyped_field", "$.instances[1].scheduled_departure", "no timestamp"),
        (
            {"scheduled_departure": "2013-05-01T10:00:00"},
            "mistyped_field",
            "$.instances[1].scheduled_departure",
            "no time zone",
        ),
        (
            {"scheduled_departure": "9999-12-31T23:59:59-12:00"},
            "mistyped_field",
            "$.instances[1].scheduled_departure",
            "no timestamp",
        ),
        ({"orign": "JFK"}, "unknown_field", "$.instances[1].orign", "unknown field"),
    ],
)
def test_a_wrong_field_is_refused_with_its_path(
    gateway: GatewayOverFakes, changes: dict[str, object], code: str, path: str, said: str
) -> None:
    problem = refused(gateway.predict(instance(), instance(**changes)), 400, code)
    assert problem["path"] == path
    assert said in problem["detail"]
    assert problem["allowed"]


def test_an_unknown_field_gets_the_closest_name_as_a_hint(gateway: GatewayOverFakes) -> None:
    assert "`origin`" in refused(gateway.predict(instance(orign="JFK")), 400, "unknown_field")["hint"]


@pytest.mark.parametrize("name", ["origin", "tailnum", "station", "distance"])
def test_every_field_must_be_given_even_where_it_may_be_null(gateway: GatewayOverFakes, name: str) -> None:
    given = instance()
    del given[name]
    problem = refused(gateway.predict(given), 400, "missing_field")
    assert problem["path"] == f"$.instances[0].{name}"


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ([], "$"),
        ("instances", "$"),
        (None, "$"),
        ({}, "$.instances"),
        ({"instances": []}, "$.instances"),
        ({"instances": {}}, "$.instances"),
        ({"instances": None}, "$.instances"),
        ({"instances": [7]}, "$.instances[0]"),
        ({"instances": [instance(), None]}, "$.instances[1]"),
        ({"instances": [instance()], "instance": []}, "$.instance"),
        ({"instances": [instance()], "options": []}, "$.options"),
        ({"instances": [instance()], "options": None}, "$.options"),
        ({"instances": [instance()], "options": {"deadline": 5}}, "$.options.deadline"),
        ({"instances": [instance()], "options": {"deadline_ms": 0}}, "$.options.deadline_ms"),
        ({"instances": [instance()], "options": {"deadline_ms": DEADLINE_MS_MAX + 1}}, "$.options.deadline_ms"),
        ({"instances": [instance()], "options": {"deadline_ms": 1.5}}, "$.options.deadline_ms"),
        ({"instances": [instance()], "options": {"deadline_ms": True}}, "$.options.deadline_ms"),
        ({"instances": [instance()], "options": {"deadline_ms": "50"}}, "$.options.deadline_ms"),
        ({"instances": [instance()], "options": {"receipt": "all"}}, "$.options.receipt"),
        ({"instances": [instance()], "options": {"receipt": ["full"]}}, "$.options.receipt"),
        ({"instances": [instance()], "options": {"as_of": "2013-05-01T00:00:00Z"}}, "$.options.as_of"),
    ],
)
def test_a_wrong_shape_is_refused_with_its_path(gateway: GatewayOverFakes, body: object, path: str) -> None:
    response = post(gateway, body)
    assert response.status_code == 400, response.text
    assert response.json()["path"] == path
    assert response.json()["allowed"]


def test_as_of_is_refused_with_the_setting_that_would_allow_it(gateway: GatewayOverFakes) -> None:
    problem = refused(gateway.predict(instance(), as_of="2013-05-01T00:00:00Z"), 400, "as_of_not_allowed")
    assert "SKEWLESS_GATEWAY_ALLOW_AS_OF" in problem["hint"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "empty"),
        (b"  ", "empty"),
        (b"{", "not JSON"),
        (b'{"instances": [}', "not JSON"),
        (b'{"instances": []} trailing', "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b'{"instances": "\xff"}', "not UTF-8"),
        (b'{"instances": ["\\ud800"]}', "not JSON"),
        (b'{"instances": [{"distance": NaN}]}', "holds NaN"),
        (b'{"instances": [{"distance": Infinity}]}', "holds Infinity"),
        (b'{"instances": [{"distance": -Infinity}]}', "holds -Infinity"),
        (b'{"instances": [{"distance": 1e999}]}', "no field can hold"),
        (b'{"instances": [' + b"9" * 5000 + b"]}", "no field can hold"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
    ],
)
def test_a_body_that_is_no_json_is_refused(gateway: GatewayOverFakes, body: bytes, said: str) -> None:
    problem = refused(post(gateway, body), 400, "malformed_json")
    assert said in problem["detail"]
    assert problem["hint"]


def test_a_non_number_gets_a_hint_to_send_null(gateway: GatewayOverFakes) -> None:
    assert "null" in refused(post(gateway, b'{"instances": [NaN]}'), 400, "malformed_json")["hint"]


def test_more_rows_than_the_limit_are_refused(gateway: GatewayOverFakes) -> None:
    problem = refused(gateway.predict(*[instance()] * (ROWS_MAX + 1)), 413, "limit_exceeded")
    assert problem["path"] == "$.instances"
    assert str(ROWS_MAX) in problem["allowed"]


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1", ""]
)
def test_another_content_type_is_refused(gateway: GatewayOverFakes, content_type: str) -> None:
    body = json.dumps({"instances": [instance()]}).encode()
    response = gateway.client.post(PATH, content=body, headers={"Content-Type": content_type} if content_type else {})
    assert "application/json" in refused(response, 415, "unsupported_media_type")["hint"]


def test_a_compressed_body_is_refused(gateway: GatewayOverFakes) -> None:
    response = gateway.client.post(PATH, content=b"\x1f\x8b", headers={**JSON, "Content-Encoding": "gzip"})
    assert "gzip" in refused(response, 415, "unsupported_media_type")["detail"]


def test_a_body_that_announces_too_much_is_refused_before_it_is_sent(gateway: GatewayOverFakes) -> None:
    with socket.create_connection((gateway.client.base_url.host, gateway.client.base_url.port or 0), timeout=20) as raw:
        head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        raw.sendall(f"{head}Content-Length: {BODY_BYTES_MAX + 1}\r\n\r\n".encode())
        assert raw.recv(64).startswith(b"HTTP/1.1 413 ")


def test_a_chunked_body_is_read_no_further_than_the_limit(gateway: GatewayOverFakes) -> None:
    chunk = b" " * 65_536
    with socket.create_connection((gateway.client.base_url.host, gateway.client.base_url.port or 0), timeout=20) as raw:
        raw.sendall(f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\n".encode())
        raw.sendall(b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(BODY_BYTES_MAX // len(chunk) + 1):
            raw.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        # The body never ends, and the answer comes all the same.
        assert raw.recv(64).startswith(b"HTTP/1.1 413 ")


def test_an_unknown_endpoint_lists_the_known_ones(gateway: GatewayOverFakes) -> None:
    problem = refused(gateway.predict(instance(), endpoint="flight-dely"), 404, "not_found")
    assert ENDPOINT in problem["allowed"]
    assert refused(gateway.client.get("/v1/endpoints/nope"), 404, "not_found")["detail"]


@pytest.mark.parametrize("endpoint", ["%ff%fe", "a%2Fb", "%00", "ä" * 300, "..%2f..%2fhealthz"])
def test_a_strange_endpoint_name_is_just_unknown(gateway: GatewayOverFakes, endpoint: str) -> None:
    assert gateway.client.post(f"/v1/endpoints/{endpoint}/predict", json={}).status_code == 404


def test_unknown_paths_and_methods_are_problem_documents(gateway: GatewayOverFakes) -> None:
    assert (
        PATH.replace(ENDPOINT, "{endpoint}") in refused(gateway.client.get("/nope"), 404, "path_not_found")["allowed"]
    )
    assert refused(gateway.client.get("/healthz/"), 404, "path_not_found")["hint"]
    response = gateway.client.get(PATH)
    refused(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ([], "$"),
        ({"outcomes": {}}, "$.outcomes"),
        ({"outcomes": []}, "$.outcomes"),
        ({"outcomes": [7]}, "$.outcomes[0]"),
        ({"outcomes": [{"label": "late"}]}, "$.outcomes[0].prediction_id"),
        ({"outcomes": [{"prediction_id": "x", "label": "late"}]}, "$.outcomes[0].prediction_id"),
        ({"outcomes": [{"prediction_id": "0" * 36}]}, "$.outcomes[0].label"),
        (
            {"outcomes": [{"prediction_id": "0196a1c4-7d1a-7c1e-8f10-2b7f0e6a9d01", "label": None}]},
            "$.outcomes[0].label",
        ),
        ({"outcomes": [{"prediction_id": "0196a1c4-7d1a-7c1e-8f10-2b7f0e6a9d01", "label": ""}]}, "$.outcomes[0].label"),
        (
            {"outcomes": [{"prediction_id": "0196a1c4-7d1a-7c1e-8f10-2b7f0e6a9d01", "label": 1, "outcome_time": 5}]},
            "$.outcomes[0].outcome_time",
        ),
        ({"outcomes": [{"prediction_id": "x", "label": 1, "lable": 2}]}, "$.outcomes[0].lable"),
    ],
)
def test_malformed_outcomes_are_refused_as_a_whole(gateway: GatewayOverFakes, body: object, path: str) -> None:
    response = gateway.client.post("/v1/outcomes", json=body)
    assert response.status_code == 400, response.text
    assert response.json()["path"] == path


def test_more_outcomes_than_the_limit_are_refused(gateway: GatewayOverFakes) -> None:
    response = gateway.client.post("/v1/outcomes", json={"outcomes": [0] * (OUTCOMES_MAX + 1)})
    refused(response, 413, "limit_exceeded")


@pytest.mark.parametrize(
    "place", [b'{"instances": %s}', b'{"instances": [{"origin": %s}]}', b'{"options": %s, "instances": 1}']
)
def test_nesting_of_any_depth_is_refused_and_breaks_nothing(gateway: GatewayOverFakes, place: bytes) -> None:
    """Some depths are read and cannot be shown."""
    for depth in (*range(5, 900, 100), *range(940, 1_030)):
        response = post(gateway, place % (b"[" * depth + b"]" * depth))
        assert response.status_code == 400, f"{depth}: {response.text}"
