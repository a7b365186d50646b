"""Triton's own HTTP clients, and KServe's, against the gateway as they are."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from harness.bundles import instance
from harness.gateways import ENDPOINT, GatewayOverFakes
from harness.protocols import GatewayOfEveryProtocol, by_rest, json_tensors, tensor_values

ROOT = Path(__file__).parents[2]
KSERVE_PYTHON = ROOT / ".kserve" / "bin" / "python"
"""KServe pins older versions of what is locked here, so its client lives in an environment of its own."""
INSTANCES = (instance(), instance(origin="LGA", tailnum=None, distance=None), instance(origin="Zürich", distance=0.1))
NUMPY = {"BOOL": np.bool_, "INT32": np.int32, "INT64": np.int64, "FP32": np.float32, "BYTES": np.object_}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayOverFakes]:
    with GatewayOfEveryProtocol.build(tmp_path_factory.mktemp("gateway")).running() as running:
        yield running


@pytest.fixture
def address(gateway: GatewayOverFakes) -> str:
    return f"{gateway.client.base_url.host}:{gateway.client.base_url.port}"


@pytest.fixture
def client(address: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(address) as opened:
        yield opened


def inputs(*, binary: bool, package: Any = triton) -> list[Any]:
    """The instances as Triton's clients take them."""
    made = []
    for name, (datatype, values) in tensor_values(INSTANCES).items():
        columns = {name: (datatype, values)}
        if None in values:
            columns[f"{name}__valid"] = "BOOL", [each is not None for each in values]
        for each, (kind, elements) in columns.items():
            stand_in = "" if kind == "BYTES" else 0
            array: NDArray[Any] = np.array(
                [[stand_in if value is None else value] for value in elements], dtype=NUMPY[kind]
            )
            tensor = package.InferInput(each, list(array.shape), kind)
            made.append(tensor.set_data_from_numpy(array, binary_data=binary))
    return made


def probabilities(result: Any) -> NDArray[np.float32]:
    found: NDArray[np.float32] = result.as_numpy("probability")
    assert found.shape == (len(INSTANCES), 1)
    assert found.dtype == np.float32
    return found[:, 0]


def test_triton_s_client_sees_a_server_and_its_models(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(ENDPOINT)
    assert client.is_model_ready(ENDPOINT, "1")
    assert client.get_server_metadata()["name"] == "skewless"
    metadata = client.get_model_metadata(ENDPOINT)
    assert {"name": "station", "datatype": "INT64", "shape": [-1, 1]} in metadata["inputs"]
    assert [each["name"] for each in metadata["outputs"]] == ["label", "probability", "prediction_id"]
    assert client.get_model_config(ENDPOINT)["max_batch_size"] == 1_000
    index = {each["name"]: each["state"] for each in client.get_model_repository_index()}
    assert index == {ENDPOINT: "READY", f"{ENDPOINT}.raw": "READY"}


def test_triton_s_client_is_told_that_a_model_is_not_there(client: triton.InferenceServerClient) -> None:
    assert not client.is_model_ready("nowhere")
    assert not client.is_model_ready(ENDPOINT, "7")
    with pytest.raises(InferenceServerException, match="`nowhere` does not exist"):
        client.get_model_metadata("nowhere")
    with pytest.raises(InferenceServerException, match="does not exist"):
        client.load_model(ENDPOINT)


@pytest.mark.parametrize("binary_inputs", [True, False])
@pytest.mark.parametrize("binary_outputs", [True, False, None])
def test_triton_s_client_gets_the_answers_of_the_rest_api(
    gateway: GatewayOverFakes,
    client: triton.InferenceServerClient,
    *,
    binary_inputs: bool,
    binary_outputs: bool | None,
) -> None:
    wanted = None
    if binary_outputs is not None:
        names = ("prediction_id", "probability", "label")
        wanted = [triton.InferRequestedOutput(name, binary_data=binary_outputs) for name in names]
    result = client.infer(ENDPOINT, inputs(binary=binary_inputs), outputs=wanted, request_id="r-1", timeout=900_000)
    expected = by_rest(gateway.client, INSTANCES)
    assert probabilities(result).tobytes() == expected.probabilities.tobytes()
    labels = result.as_numpy("label").ravel().tolist()
    assert [each.decode() if isinstance(each, bytes) else each for each in labels] == expected.labels
    response = result.get_response()
    assert (response["id"], response["model_name"], response["model_version"]) == ("r-1", ENDPOINT, "1")
    assert response["parameters"] == {"rung": "normal", "bundle": gateway.built.digest}


def test_triton_s_client_raises_what_is_wrong_and_where(client: triton.InferenceServerClient) -> None:
    given = inputs(binary=True)
    with pytest.raises(
        InferenceServerException, match=r"no input for join key `origin`.*at: \$\.inputs\.origin"
    ) as told:
        client.infer(ENDPOINT, given[1:])
    assert told.value.status() == "400"
    classes = [triton.InferRequestedOutput("label", class_count=2)]
    with pytest.raises(InferenceServerException, match="unknown parameter 'classification'"):
        client.infer(ENDPOINT, given, outputs=classes)
    with pytest.raises(InferenceServerException, match="sequence_id"):
        client.infer(ENDPOINT, given, sequence_id=3)


async def test_triton_s_asyncio_client_gets_the_same(gateway: GatewayOverFakes, address: str) -> None:
    expected = by_rest(gateway.client, INSTANCES)
    async with triton_aio.InferenceServerClient(address) as client:
        assert await client.is_server_ready()
        assert await client.is_model_ready(ENDPOINT)
        for binary in (True, False):
            result = await client.infer(ENDPOINT, inputs(binary=binary, package=triton_aio))
            assert probabilities(result).tobytes() == expected.probabilities.tobytes()


def test_triton_s_client_gets_the_outputs_of_a_raw_model(
    gateway: GatewayOverFakes, client: triton.InferenceServerClient
) -> None:
    by_rest(gateway.client, INSTANCES)
    batch = gateway.log.batches[-1]
    name = f"{ENDPOINT}.raw"
    assert client.get_model_metadata(name)["inputs"] == [{"name": "features", "datatype": "FP32", "shape": [-1, 8]}]
    for binary in (True, False):
        tensor = triton.InferInput("features", list(batch.tensor.shape), "FP32")
        tensor.set_data_from_numpy(batch.tensor, binary_data=binary)
        given = client.infer(name, [tensor]).as_numpy("probabilities")
        assert given.tobytes() == batch.outputs["probabilities"].tobytes()


def kserve_body(**changes: object) -> dict[str, Any]:
    """What KServe's client makes of an InferRequest: an id of its own, and the model's name repeated."""
    return {
        "id": "5f4dcc3b-5aa7-4d61-8327-deb882cf99aa",
        "model_name": ENDPOINT,
        "inputs": [{**each, "parameters": {"content_type": "np"}} for each in json_tensors(INSTANCES)],
        **changes,
    }


def test_the_bodies_of_kserve_s_client_are_understood(gateway: GatewayOverFakes) -> None:
    response = gateway.client.post(f"/v2/models/{ENDPOINT}/infer", json=kserve_body())
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.json()["id"] == kserve_body()["id"]
    told = gateway.client.post(f"/v2/models/{ENDPOINT}/infer", json=kserve_body(model_name="another")).json()
    assert told["path"] == "$.model_name"


KSERVE_SCRIPT = """
import asyncio, json, sys
from kserve import InferInput, InferRequest, InferenceRESTClient
from kserve.inference_client import RESTConfig

async def ask(url, tensors, rows):
    told = {}
    for protocol in ("v2", "v1"):
        client = InferenceRESTClient(RESTConfig(protocol=protocol))
        told[protocol + "_ready"] = await client.is_model_ready(url, "flight-delay")
        told[protocol + "_live"] = await client.is_server_live(url)
        if protocol == "v2":
            told["server_ready"] = await client.is_server_ready(url)
            made = [InferInput(each["name"], each["shape"], each["datatype"], each["data"]) for each in tensors]
            answer = await client.infer(url, InferRequest("flight-delay", made), model_name="flight-delay")
            told["v2"] = next(each.data for each in answer.outputs if each.name == "probability")
        else:
            answer = await client.infer(url, {"instances": rows}, model_name="flight-delay")
            told["v1"] = [each["probability"] for each in answer["predictions"]]
        await client.close()
    print(json.dumps(told))

asyncio.run(ask(sys.argv[1], *json.loads(sys.stdin.read())))
"""


@pytest.mark.skipif(not KSERVE_PYTHON.exists(), reason="`make kserve-client` builds the environment of KServe's client")
def test_kserve_s_client_gets_the_answers_of_the_rest_api(gateway: GatewayOverFakes) -> None:
    expected = by_rest(gateway.client, INSTANCES)
    done = subprocess.run(
        [str(KSERVE_PYTHON), "-c", KSERVE_SCRIPT, str(gateway.client.base_url).rstrip("/")],
        input=json.dumps([json_tensors(INSTANCES), INSTANCES]),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["v2"] == told["v1"] == expected.probabilities.tolist()
    assert [told[name] for name in ("v1_ready", "v2_ready", "server_ready", "v1_live", "v2_live")] == [True] * 5


def test_health_says_what_kserve_s_client_reads(gateway: GatewayOverFakes) -> None:
    get = gateway.client.get
    assert get("/v2/health/live").json() == {"live": True}
    assert get("/v2/health/ready").json() == {"ready": True}
    assert get(f"/v2/models/{ENDPOINT}/ready").json() == {"name": ENDPOINT, "ready": True}
    assert get(f"/v1/models/{ENDPOINT}").json()["ready"] is True
    assert get("/").json() == {"status": "alive"}
