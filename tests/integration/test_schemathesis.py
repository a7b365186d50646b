"""Every documented operation asked with generated requests, right and wrong, over a real socket.

What comes back is what the OpenAPI document says can come back, by status, content type and schema, and no fault of
ours is among it.

`SKEWLESS_TEST_SCHEMATHESIS` says how many requests of each kind an operation gets.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.core.result import Err, Ok
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.transport.serialization import Binary

from harness.gateways import ENDPOINT, GatewayOverFakes
from harness.protocols import GatewayOfEveryProtocol
from harness.servers import wait_until

EXAMPLES = int(os.environ.get("SKEWLESS_TEST_SCHEMATHESIS", "6"))
SEED = 6
CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
IN_SERVICE: dict[str, Any] = {"endpoint": ENDPOINT, "version": "1"}
OPERATIONS_MIN = 20


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayOverFakes]:
    with GatewayOfEveryProtocol.build(tmp_path_factory.mktemp("gateway")).running() as running:
        yield running


def _lines(_context: Any, value: Any) -> bytes:
    """NDJSON of a generated body; an Arrow stream is never generated, and what stands for one must be refused well."""
    if isinstance(value, Binary):
        data: bytes = value.data
        return data
    return b"\n".join(json.dumps(each).encode() for each in (value if isinstance(value, list) else [value]))


schemathesis.serializer("application/x-ndjson")(_lines)
schemathesis.serializer("application/vnd.apache.arrow.stream")(_lines)


def operations(gateway: GatewayOverFakes) -> list[Any]:
    """Every documented operation."""
    schema = schemathesis.openapi.from_dict(gateway.client.get("/openapi.json").json())
    found = list(schema.get_all_operations())
    wrong = [each for each in found if isinstance(each, Err)]
    assert not wrong, wrong
    return [each.ok() for each in found if isinstance(each, Ok)]


def parameters_of(operation: Any) -> dict[str, Any]:
    """Path parameters that name what is in service."""
    return {name: value for name, value in IN_SERVICE.items() if f"{{{name}}}" in operation.path}


def ask(gateway: GatewayOverFakes, operation: Any, mode: GenerationMode, *, in_service: bool) -> Counter[int]:
    """Statuses of generated requests, each checked against the document. Raises where one does not conform."""
    statuses: Counter[int] = Counter()
    given_parameters = {"path_parameters": parameters_of(operation)} if in_service else {}

    @seed(SEED)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(mode, **given_parameters))
    def check(case: Any) -> None:
        response = case.call(base_url=str(gateway.client.base_url))
        statuses[response.status_code] += 1
        assert response.headers.get("x-request-id"), "every answer carries an id"
        if response.status_code >= 500:
            assert response.status_code in (503, 504), response.text
        case.validate_response(response, checks=CHECKS)

    check()
    return statuses


def test_every_operation_answers_as_documented_whatever_it_is_asked(gateway: GatewayOverFakes) -> None:
    listed = operations(gateway)
    assert len(listed) >= OPERATIONS_MIN, [operation.label for operation in listed]
    failed: list[str] = []
    seen: dict[str, Counter[int]] = {}
    for operation in listed:
        seen[operation.label] = Counter()
        # Without a body there is nothing that can be wrong but the path.
        modes = [GenerationMode.POSITIVE] + [GenerationMode.NEGATIVE] * bool(list(operation.body))
        for mode in modes:
            for in_service in (True, False):
                try:
                    seen[operation.label] += ask(gateway, operation, mode, in_service=in_service)
                except Exception as error:  # noqa: BLE001  # whatever its checks raise: all operations are told of at once
                    failed.append(f"{operation.label} {mode.value} {in_service}: {error!s:.700}")
    assert not failed, "\n".join(failed)
    assert all(seen.values()), f"every operation was asked: {seen}"
    wait_until(lambda: gateway.client.get("/readyz").status_code == 200, "it is still ready")


def test_the_document_is_served_and_names_no_operation_twice(gateway: GatewayOverFakes) -> None:
    response = gateway.client.get("/openapi.json")
    assert response.status_code == httpx.codes.OK
    names = [
        operation["operationId"]
        for path in response.json()["paths"].values()
        for operation in path.values()
        if "operationId" in operation
    ]
    assert len(names) == len(set(names))
