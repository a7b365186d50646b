"""Who may ask what is the same over every protocol; Vertex AI alone, which checks it itself, needs no credential."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.bundles import instance
from harness.gateways import ENDPOINT, route_to
from harness.protocols import OIP, TENSORFLOW, VERTEX, GatewayOfEveryProtocol, by_rest, by_vertex, json_tensors
from harness.servers import wait_until
from skewless.registry.api_scopes import ApiScope
from skewless.rollout.routes import RoutingTable
from skewless_http.security.callers import Caller

OPEN = ("/", "/v2/health/live", "/v2/health/ready", VERTEX.health_route)
CLOSED = (
    ("GET", "/v2"),
    ("GET", "/v2/models"),
    ("GET", OIP),
    ("GET", f"{OIP}/ready"),
    ("GET", f"{OIP}/config"),
    ("GET", "/v2/anything"),
    ("POST", f"{OIP}/infer"),
    ("POST", "/v2/repository/index"),
    ("GET", TENSORFLOW),
    ("GET", f"{TENSORFLOW}/metadata"),
    ("POST", f"{TENSORFLOW}:predict"),
)
FEATURES = {"name": "features", "datatype": "FP32", "shape": [1, 8], "data": [1.0] * 8}


def test_without_a_credential_only_health_is_told(tmp_path: Path) -> None:
    gateway = GatewayOfEveryProtocol.build(tmp_path)
    gateway.anonymous = None
    with gateway.running():
        for path in OPEN:
            assert gateway.client.get(path).status_code == 200, path
        for method, path in CLOSED:
            response = gateway.client.request(method, path)
            assert (response.status_code, response.json()["code"]) == (401, "unauthenticated"), path
            assert response.json()["error"]
            assert response.headers["www-authenticate"]
        assert not gateway.store.reads


def test_vertex_needs_no_credential_and_gets_no_other_endpoint(tmp_path: Path) -> None:
    gateway = GatewayOfEveryProtocol.build(tmp_path)
    gateway.anonymous = None
    gateway.registry.table = RoutingTable((route_to(gateway.built), route_to(gateway.built, endpoint="another")))
    with gateway.running():
        by_vertex(gateway.client, [instance()])
        assert gateway.log.batches[-1].endpoint == ENDPOINT
        labels = {"endpoint": ENDPOINT, "code": "200"}
        count = gateway.metrics.registry.get_sample_value
        wait_until(lambda: count("skewless_requests_total", labels) == 1, "the request is counted", timeout_s=30)


def test_a_caller_sees_and_asks_the_models_of_its_scopes(tmp_path: Path) -> None:
    gateway = GatewayOfEveryProtocol.build(tmp_path)
    gateway.registry.table = RoutingTable((route_to(gateway.built), route_to(gateway.built, endpoint="another")))
    gateway.anonymous = Caller("key:test", (ApiScope(("another",)),))
    with gateway.running():
        assert gateway.client.get("/v2/models").json() == {"models": ["another", "another.raw"]}
        for method, path in CLOSED:
            if ENDPOINT in path:
                response = gateway.client.request(method, path)
                assert (response.status_code, response.json()["code"]) == (403, "forbidden"), path
        raw = gateway.client.post(f"{OIP}.raw/infer", json={"inputs": [FEATURES]})
        assert raw.status_code == 403
        assert gateway.client.get("/v2/models/another").status_code == 200


@pytest.mark.parametrize("path", [f"{OIP}/infer", f"{TENSORFLOW}:predict"])
def test_an_entity_outside_the_scopes_is_refused_before_anything_is_read(tmp_path: Path, path: str) -> None:
    gateway = GatewayOfEveryProtocol.build(tmp_path)
    gateway.anonymous = Caller("key:test", (ApiScope((ENDPOINT,), {"origin": ("JF",)}),))
    with gateway.running():
        rows = [instance(), instance(origin="LGA")]
        response = gateway.client.post(
            path, json={"inputs": json_tensors(rows)} if path == f"{OIP}/infer" else {"instances": rows}
        )
        assert (response.status_code, response.json()["path"]) == (403, "$.instances[1].origin")
        assert not gateway.store.reads
        assert by_rest(gateway.client, [instance()]).labels


def test_whoever_may_ask_about_some_entities_may_ask_no_raw_model(tmp_path: Path) -> None:
    gateway = GatewayOfEveryProtocol.build(tmp_path)
    gateway.anonymous = Caller("key:test", (ApiScope((ENDPOINT,), {"origin": ("JF",)}),))
    with gateway.running():
        calls = gateway.backend.calls
        response = gateway.client.post(f"{OIP}.raw/infer", json={"inputs": [FEATURES]})
        assert (response.status_code, response.json()["code"]) == (403, "forbidden")
        assert gateway.backend.calls == calls


def test_a_full_endpoint_refuses_every_protocol_alike(tmp_path: Path) -> None:
    gateway = GatewayOfEveryProtocol.build(tmp_path)
    gateway.in_flight_max, gateway.queue_ms = 1, 0
    rows = [instance()]
    with gateway.running(), ThreadPoolExecutor(1) as others:
        gateway.backend.is_held, calls = True, gateway.backend.calls
        held = others.submit(by_rest, gateway.client, rows)
        try:
            wait_until(lambda: gateway.backend.calls > calls, "one request is being answered", timeout_s=30)
            for path, body in (
                (f"{OIP}/infer", {"inputs": json_tensors(rows)}),
                (f"{TENSORFLOW}:predict", {"instances": rows}),
                (VERTEX.predict_route, {"instances": rows}),
            ):
                response = gateway.client.post(path, json=body)
                assert (response.status_code, response.json()["code"]) == (503, "overloaded"), path
                assert int(response.headers["retry-after"]) >= 1
                assert response.json()["error"]
        finally:
            gateway.backend.is_held = False
        assert held.result(timeout=30).labels
