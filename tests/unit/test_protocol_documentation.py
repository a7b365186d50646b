"""What OpenAPI says about the other protocols: every route that is there, and examples that are of its own schema."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from harness.gateways import GatewayOverFakes
from skewless_gateway.edges.oip_documentation import ROUTES
from skewless_gateway.edges.oip_rest import oip_routes
from skewless_gateway.edges.tensorflow import tensorflow_routes


async def test_every_route_is_documented_and_every_documented_one_is_there(tmp_path: Path) -> None:
    async with GatewayOverFakes.build(tmp_path).opened() as gateway:
        routes = (*oip_routes(gateway), *tensorflow_routes(gateway))
    answered = {
        (method, route.pattern) for route in routes for method in route.methods if "{rest}" not in route.pattern
    }
    assert {(method, path) for method, path, *_ in ROUTES} == answered


def test_names_of_operations_are_unique() -> None:
    names = [name for _, _, name, *_ in ROUTES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("operation", [each[-1] for each in ROUTES if "requestBody" in each[-1]])
def test_the_example_of_a_body_is_of_its_schema(operation: dict[str, Any]) -> None:
    content = operation["requestBody"]["content"]["application/json"]
    jsonschema.Draft202012Validator.check_schema(content["schema"])
    jsonschema.validate(content["example"], content["schema"], cls=jsonschema.Draft202012Validator)
