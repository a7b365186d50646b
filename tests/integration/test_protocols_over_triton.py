"""Other protocols in front of a real gateway process, Valkey and Triton."""

from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton

from harness import http_calls
from harness.bundles import BuiltBundle, instance
from harness.gateways import ENDPOINT
from harness.machines import AS_OF, Machine, running_machine
from harness.protocols import json_tensors
from skewless.bundles.model_repository import model_name

Running = tuple[Machine, BuiltBundle]
VERTEX_PREDICT = "/v1/endpoints/7/deployedModels/9:predict"
VERTEX_HEALTH = "/v1/endpoints/7/deployedModels/9"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("machine")
    with running_machine(
        folder,
        RAW_MODELS="true",
        VERTEX_ENDPOINT=ENDPOINT,
        VERTEX_PREDICT_ROUTE=VERTEX_PREDICT,
        VERTEX_HEALTH_ROUTE=VERTEX_HEALTH,
    ) as running:
        yield running, running.serve(0)


def test_every_protocol_gives_the_answer_of_the_rest_api(machine: Running) -> None:
    running, _ = machine
    rows = [instance()]
    expected = running.predict().json()["predictions"][0]["probability"]
    with http_calls.client(base_url=running.url, timeout=30) as client:
        oip = client.post(
            f"/v2/models/{ENDPOINT}/infer", json={"inputs": json_tensors(rows), "parameters": {"as_of": AS_OF}}
        ).json()
        vertex = client.post(VERTEX_PREDICT, json={"instances": rows, "parameters": {"as_of": AS_OF}}).json()
        assert client.get(VERTEX_HEALTH).json() == {"ready": True}
    outputs = {each["name"]: each["data"] for each in oip["outputs"]}
    assert outputs["probability"] == [expected]
    assert vertex["predictions"][0]["probability"] == expected


def test_a_raw_model_answers_as_triton_itself_does_bit_for_bit(machine: Running) -> None:
    running, built = machine
    # Eighths, which the model adds exactly wherever it runs.
    tensor = np.random.default_rng(6).integers(-800, 8_000, size=(64, 8)).astype(np.float32) * np.float32(0.125)
    given = triton.InferInput("features", [64, 8], "FP32").set_data_from_numpy(tensor)
    with triton.InferenceServerClient(running.url.removeprefix("http://")) as client:
        through = client.infer(f"{ENDPOINT}.raw", [given]).as_numpy("probabilities")
    with triton_grpc.InferenceServerClient(f"127.0.0.1:{triton_port(running)}") as client:
        direct_input = triton_grpc.InferInput("features", [64, 8], "FP32").set_data_from_numpy(tensor)
        direct = client.infer(model_name(built.digest), [direct_input]).as_numpy("probabilities")
    assert through.tobytes() == direct.tobytes()
    assert direct.tobytes() == built.outputs(tensor)["probabilities"].tobytes()


def triton_port(running: Machine) -> int:
    """The gRPC port of the machine's Triton."""
    (option,) = (each for each in running.specs["triton"].command if each.startswith("--grpc-port="))
    return int(option.partition("=")[2])
