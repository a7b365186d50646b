"""KServe's gRPC client, unchanged, against the gateway."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from harness.bundles import instance
from harness.gateways import ENDPOINT, GatewayOverFakes
from harness.polling import until
from harness.protocols import json_tensors
from skewless_gateway.grpc_server import serving_grpc

KSERVE_PYTHON = Path(__file__).parents[2] / ".kserve" / "bin" / "python"
INSTANCES = [instance(), instance(origin="LGA", party=7), instance(distance=2.5)]
SCRIPT = """
import asyncio, json, sys
from kserve import InferInput, InferRequest
from kserve.inference_client import InferenceGRPCClient

async def ask(address, tensors):
    client = InferenceGRPCClient(address)
    told = {
        "live": await client.is_server_live(),
        "ready": await client.is_server_ready(),
        "model_ready": await client.is_model_ready("flight-delay"),
    }
    made = [InferInput(each["name"], each["shape"], each["datatype"], each["data"]) for each in tensors]
    answer = await client.infer(InferRequest("flight-delay", made, request_id="mine"))
    told["id"] = answer.id
    outputs = {each.name: each.as_numpy() for each in answer.outputs}
    told["probability"] = outputs["probability"].ravel().tolist()
    await client.close()
    print(json.dumps(told))

asyncio.run(ask(sys.argv[1], json.loads(sys.stdin.read())))
"""


@pytest.fixture
async def address(tmp_path: Path) -> AsyncIterator[tuple[GatewayOverFakes, str]]:
    fakes = GatewayOverFakes.build(tmp_path)
    async with fakes.opened() as gateway:
        await until(lambda: ENDPOINT in gateway.follower.state.endpoints)
        async with serving_grpc(gateway, gateway.metrics.grpc, address="127.0.0.1:0", drain_s=1.0) as port:
            yield fakes, f"127.0.0.1:{port}"


@pytest.mark.skipif(not KSERVE_PYTHON.exists(), reason="`make kserve-client` builds the environment of KServe's client")
async def test_kserve_s_client_gets_the_answers_that_are_logged(address: tuple[GatewayOverFakes, str]) -> None:
    fakes, where = address
    asking = await asyncio.create_subprocess_exec(
        str(KSERVE_PYTHON), "-c", SCRIPT, where,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip
    async with asyncio.timeout(120):
        told, complaints = await asking.communicate(json.dumps(json_tensors(INSTANCES)).encode())
    assert asking.returncode == 0, complaints.decode()
    answer = json.loads(told)
    assert [answer[each] for each in ("live", "ready", "model_ready", "id")] == [True, True, True, "mine"]
    (batch,) = fakes.log.batches
    assert answer["probability"] == batch.probabilities.tolist()
