"""Whatever protocol asks, the same instances get the same answer, bit for bit, and leave the same record."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.bundles import build_bundle, instance
from harness.gateways import ENDPOINT, GatewayOverFakes, route_to
from harness.protocols import OIP, PROTOCOLS, GatewayOfEveryProtocol, by_rest, by_vertex, json_tensors
from harness.servers import wait_until
from skewless.dtypes import to_python
from skewless.rollout.routes import Canary, RoutingTable
from skewless.serving.records import AnsweredBatch

INSTANCES = (
    instance(),
    instance(origin="LGA", tailnum=None, distance=None),
    instance(origin="Zürich", tailnum="", station=-7, distance=0.1, is_holiday=True),
    instance(party=2_147_483_647, scheduled_departure="1969-12-31T23:59:59.999999+00:00", distance=-0.0),
)
OF_ONE_REQUEST = {"prediction_ids", "request_id", "stage_ms", "caller", "frame"}
"""Fields of a record that differ from request to request, and the frame, which is compared by its columns."""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayOverFakes]:
    folder: Path = tmp_path_factory.mktemp("gateway")
    with GatewayOfEveryProtocol.build(folder).running() as running:
        yield running


@pytest.mark.parametrize("ask", PROTOCOLS, ids=lambda each: each.__name__)
def test_the_answer_and_its_record_are_those_of_the_rest_api(gateway: GatewayOverFakes, ask: object) -> None:
    assert callable(ask)
    expected = by_rest(gateway.client, INSTANCES)
    expected_batch = gateway.log.batches[-1]
    found = ask(gateway.client, INSTANCES)
    batch = gateway.log.batches[-1]
    assert found.labels == expected.labels
    assert found.probabilities.tobytes() == expected.probabilities.tobytes()
    assert found.prediction_ids == list(batch.prediction_ids)
    assert found.prediction_ids != expected.prediction_ids
    assert plain(batch) == plain(expected_batch)
    assert batch.caller == ("vertex" if ask is by_vertex else "anonymous")


def test_answers_are_counted_by_whichever_protocol(gateway: GatewayOverFakes) -> None:
    counted = gateway.metrics.registry.get_sample_value
    name, labels = "skewless_rows_total", {"endpoint": ENDPOINT}
    for ask in PROTOCOLS:
        before = counted(name, labels) or 0
        ask(gateway.client, INSTANCES)
        assert counted(name, labels) == before + len(INSTANCES), ask.__name__


def test_rows_that_two_bundles_answer_come_back_in_the_order_of_the_request(tmp_path: Path) -> None:
    rows = [instance(tailnum=f"N{number}", distance=number + 0.5) for number in range(60)]
    with GatewayOfEveryProtocol.build(tmp_path).running() as gateway:
        other = build_bundle(gateway.artifacts, scale=2.0**-14)
        gateway.deploy(other)
        split = replace(route_to(gateway.built), canary=Canary(other.digest, 0.5), version=2)
        gateway.registry.table = RoutingTable((split,))
        path, body = f"{OIP}/infer", {"inputs": json_tensors(rows)}

        def bundles() -> set[str]:
            return set(gateway.client.post(path, json=body).json()["parameters"]["bundle"].split(","))

        wait_until(lambda: bundles() == {gateway.built.digest, other.digest}, "both bundles answer", timeout_s=30)
        expected = by_rest(gateway.client, rows)
        for ask in PROTOCOLS:
            found = ask(gateway.client, rows)
            assert found.probabilities.tobytes() == expected.probabilities.tobytes(), ask.__name__
            assert found.labels == expected.labels


def plain(batch: AnsweredBatch) -> dict[str, object]:
    """What a record says, to be compared."""
    told: dict[str, object] = {
        name: getattr(batch, name) for name in AnsweredBatch.__slots__ if name not in OF_ONE_REQUEST
    }
    told["given"] = {name: (column.dtype, to_python(column)) for name, column in batch.given.items()}
    told["frame"] = {name: (column.dtype, to_python(column)) for name, column in batch.frame.columns.items()}
    told["tensor"] = batch.tensor.tobytes()
    told["outputs"] = {name: output.tobytes() for name, output in batch.outputs.items()}
    told["probabilities"] = np.asarray(batch.probabilities).tobytes()
    return told
