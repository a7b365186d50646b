"""The gateway as a process of its own, over a real Valkey, Triton and registry, through what happens to them."""

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from harness import http_calls
from harness.bundles import BuiltBundle, build_bundle, flights_at
from harness.gateways import ENDPOINT
from harness.machines import NOW, Machine, running_machine
from harness.servers import wait_until
from skewless.adapters.log_reader import open_log
from skewless.adapters.spool import SEALED, SPOOL, SpoolFile, open_segments
from skewless.stack.process import ProcessSpec, start


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, BuiltBundle]]:
    # Without a standby: what a bundle's degrade ladder makes of the same outages is in test_degrading.py.
    with running_machine(tmp_path_factory.mktemp("machine"), STANDBY="false") as running:
        yield running, running.serve(0)


Running = tuple[Machine, BuiltBundle]


def test_live_predictions_equal_the_model_on_the_logged_tensor_bit_for_bit(machine: Running) -> None:
    running, built = machine
    answers = [running.predict(distance=float(each)).json() for each in range(20)]
    table = open_log(running.log).predictions(ENDPOINT)
    rows = {row["prediction_id"]: row for row in table.to_pylist()}
    for answer in answers:
        row = rows[answer["prediction_ids"][0]]
        tensor = np.frombuffer(row["tensor"], np.float32).reshape(1, -1)
        expected = built.outputs(tensor)["probabilities"]
        assert np.float32(answer["predictions"][0]["probability"]).tobytes() == expected[0, 1].tobytes()
        assert np.array(row["output.probabilities"], np.float32).tobytes() == expected[0].tobytes()


def test_a_killed_triton_gives_503s_and_serving_goes_on_when_it_is_back(machine: Running) -> None:
    running, _ = machine
    running.stop("triton", kill=True)
    refused = running.predict()
    assert refused.status_code == 503, refused.text
    assert refused.headers["retry-after"]
    assert "model backend" in refused.json()["detail"]
    assert http_calls.get(f"{running.url}/readyz", timeout=10).status_code == 503
    running.start("triton")
    wait_until(lambda: running.predict().status_code == 200, "predictions come again", timeout_s=30)


def test_a_triton_that_came_back_without_the_model_gets_it_loaded_again(machine: Running) -> None:
    running, _ = machine
    running.stop("triton", kill=True)
    spec = running.specs["triton"]
    without = tuple(each for each in spec.command if each != "--load-model=*")
    assert len(without) == len(spec.command) - 1
    bare = ProcessSpec(
        name=spec.name,
        command=without,
        log_file=spec.log_file,
        probe=spec.probe,
        environment=spec.environment,
        clean_up=spec.clean_up,
    )
    running.processes["triton"] = start(bare)
    wait_until(lambda: running.predict().status_code == 200, "predictions come again", timeout_s=30)


def test_a_killed_valkey_gives_503s_and_serving_goes_on_when_it_is_back(machine: Running) -> None:
    running, _ = machine
    running.stop("valkey", kill=True)
    refused = running.predict()
    assert refused.status_code == 503, refused.text
    assert refused.headers["retry-after"]
    assert "online store" in refused.json()["detail"]
    running.start("valkey")
    running.fill(flights_at(NOW))
    wait_until(lambda: running.predict().status_code == 200, "predictions come again", timeout_s=30)
    assert running.predict().json()["receipt"]["statuses"] == {"ok": 4}


def test_a_promoted_bundle_answers_soon_and_no_request_fails_meanwhile(machine: Running) -> None:
    running, _ = machine
    newer = build_bundle(running.folder / "artifacts", scale=2.0**-13)
    running.publish(newer)
    running.registry.set_live(ENDPOINT, newer.digest, actor="test", reason="test")
    statuses: list[int] = []

    def is_swapped() -> bool:
        response = running.predict()
        statuses.append(response.status_code)
        assert response.status_code == 200, response.text
        return bool(response.json()["receipt"]["bundle"] == newer.digest)

    wait_until(is_swapped, "the new bundle answers", timeout_s=30)
    assert set(statuses) == {200}


def test_outcomes_and_predictions_survive_a_kill_of_the_gateway(machine: Running) -> None:
    running, _ = machine
    answered = [running.predict().json()["prediction_ids"][0] for _ in range(10)]
    outcomes = [{"prediction_id": each, "label": "late"} for each in answered]
    assert http_calls.post(f"{running.url}/v1/outcomes", json={"outcomes": outcomes}).json() == {"accepted": 10}
    running.stop("gateway", kill=True)
    running.start("gateway")
    running.wait_until_ready()
    kept = open_log(running.log).predictions(ENDPOINT).column("prediction_id").to_pylist()
    assert set(answered) <= set(kept)
    assert len(kept) == len(set(kept))
    told = open_log(running.log).outcomes().column("prediction_id").to_pylist()
    assert [told.count(each) for each in answered] == [1] * 10


def test_a_polite_stop_seals_the_log_and_exits_with_0(machine: Running) -> None:
    running, _ = machine
    for path in open_segments(running.log / SPOOL):
        left_behind = SpoolFile.take_over(path)  # by a gateway that was killed: no shipper runs here
        assert left_behind is None or left_behind.seal()
    wait_until(lambda: running.predict().status_code == 200, "the endpoint answers")
    assert running.stop("gateway") == 0
    assert {path.suffix for path in (running.log / SPOOL).iterdir()} == {SEALED}
    running.start("gateway")
    running.wait_until_ready()


def test_a_wrong_setting_refuses_to_start_and_names_the_variable() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "skewless_gateway"],
        env={"SKEWLESS_GATEWAY_PORT": "eighty"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "SKEWLESS_GATEWAY_PORT" in done.stderr
    assert "SKEWLESS_GATEWAY_TRITON" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_gateway_imports_no_library_of_training() -> None:
    code = "import sys, skewless_gateway.main; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    ).stdout.split()
    assert not {"feast", "duckdb", "sklearn", "pandas", "skl2onnx", "onnx", "onnxruntime", "ibis"} & set(loaded)
