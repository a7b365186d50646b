"""Every example of docs/protocols.md is sent to a gateway, and answered in the documented form."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from harness.bundles import BuiltBundle, content
from harness.fakes import FakeModelBackend, FakeOnlineStore
from harness.gateways import FakeRegistry, GatewayOverFakes, route_to
from harness.protocols import GatewayOfEveryProtocol
from skewless.adapters.onnx_runtime import OnnxModel
from skewless.bundles.bundle import load_bundle, write_bundle
from skewless.bundles.model_repository import model_name
from skewless.canonical_json import digest
from skewless.dtypes import Dtype, column_of
from skewless.features.contract import FeatureContract, FeatureField, JoinKey, RequestField, ViewRead
from skewless.rollout.routes import RoutingTable
from skewless.transforms import Transform, column

GUIDE = (Path(__file__).parents[2] / "docs" / "protocols.md").read_text()
ADDRESS = "127.0.0.1:8100"
KEYS = ("origin", "carrier", "route", "tailnum")
VERTEX_ROUTE = "/predict"


def examples() -> list[tuple[str, str]]:
    """Each request of the guide with its answer."""
    return re.findall(r"```http\n(.*?)```\s+```json\n(.*?)```", GUIDE, re.DOTALL)


def build(artifacts: Path) -> BuiltBundle:
    """A bundle that takes the instances of the shipped example, which the guide shows."""
    views = tuple(
        ViewRead(
            f"of_{key}",
            (JoinKey(key, Dtype.STRING, nullable=key == "tailnum"),),
            0,
            (FeatureField("x", Dtype.FLOAT32),),
        )
        for key in KEYS
    )
    fields = (RequestField("scheduled_departure", Dtype.TIMESTAMP),)
    names = [f"of_{key}__x" for key in KEYS]
    columns = {
        **{key: column_of(Dtype.STRING, ["a", "b"]) for key in KEYS},
        "scheduled_departure": column_of(Dtype.TIMESTAMP, [0, 1]),
        **{name: column_of(Dtype.FLOAT32, [0.5, None]) for name in names},
    }
    fitted = Transform({name: column(name, Dtype.FLOAT32).impute(1.0) for name in names}).fit(columns, 2)
    given = FeatureContract("demo", views, fields, digest("definitions of the guide"))
    made = content(name="flight-delay", given=given, fitted=fitted, columns=columns)
    incoming = artifacts / "incoming"
    kept = artifacts / write_bundle(made, incoming)
    incoming.rename(kept)
    return BuiltBundle(load_bundle(kept), OnnxModel(made.model.files[made.model.entry]))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayOverFakes]:
    artifacts = tmp_path_factory.mktemp("gateway") / "artifacts"
    artifacts.mkdir()
    built = build(artifacts)
    over_fakes = GatewayOfEveryProtocol(
        artifacts,
        built,
        FakeOnlineStore({}),
        FakeModelBackend({model_name(built.digest): built.outputs}),
        FakeRegistry(RoutingTable((route_to(built),))),
    )
    over_fakes.vertex = replace(over_fakes.vertex, predict_route=VERTEX_ROUTE)
    with over_fakes.running() as running:
        yield running


def test_the_guide_shows_every_protocol_over_http() -> None:
    paths = [request.split(maxsplit=2)[1] for request, _ in examples()]
    assert {path.split("/")[1] for path in paths} == {"v1", "v2", "predict"}
    assert len(paths) >= 5


@pytest.mark.parametrize("example", examples(), ids=lambda example: example[0].splitlines()[0].split()[1])
def test_a_documented_request_is_answered_in_the_documented_form(
    gateway: GatewayOverFakes, example: tuple[str, str]
) -> None:
    request, answer = example
    head, _, body = request.partition("\n\n")
    method, path = head.splitlines()[0].split()
    headers = dict(line.split(": ", 1) for line in head.splitlines()[1:])
    response: httpx.Response = gateway.client.request(method, path, headers=headers, content=body.encode())
    assert response.status_code == 200, response.text
    assert form(response.json()) == form(json.loads(answer))


def test_the_documented_program_gets_a_probability_per_row(gateway: GatewayOverFakes) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    base = gateway.client.base_url
    assert ADDRESS in program
    names: dict[str, Any] = {}
    exec(compile(program.replace(ADDRESS, f"{base.host}:{base.port}"), "docs/protocols.md", "exec"), names)  # noqa: S102  # the guide's own program
    assert names["probabilities"].shape == (2, 1)
    assert names["probabilities"].dtype == np.float32
    assert gateway.log.batches[-1].given["tailnum"].valid.tolist() == [True, False]


def form(value: object) -> object:
    """What a JSON value looks like, without its words and numbers; names of members and lengths stay."""
    if isinstance(value, dict):
        return {name: form(each) for name, each in value.items()}
    return [form(each) for each in value] if isinstance(value, list) else type(value)
