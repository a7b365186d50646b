"""Real servers killed and stopped under a real gateway: which rung answers, how soon, and how soon all is normal again.

Times are bounded generously, because other tests use the machine too; what they bound is that nobody waits for a part
that is known to be away.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.bundles import flights_at
from harness.faults import killed, stopped
from harness.ladders import built_bundle, cheap_bundle, ladder_bundle
from harness.machines import NOW, Machine, running_machine
from harness.servers import wait_until
from skewless.adapters.log_reader import open_log
from skewless.bundles.degrade_ladder import DegradeLadder

ENDPOINT = "flight-delay"
ALL = DegradeLadder(defaults=True, constant=0.25)
AWAY_WITHIN_S = 10.0
"""Until nobody waits for a part that is away any more; about 1.5 s on an idle machine."""
BACK_WITHIN_S = 30.0
SOON_MS = 500.0
"""An answer that waited for nobody; a few milliseconds on an idle machine."""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A gateway whose live bundle allows every rung, with one prediction answered on the normal one."""
    folder = tmp_path_factory.mktemp("machine")
    with running_machine(folder) as running:
        cheap = cheap_bundle(folder / "artifacts")
        running.publish(cheap)
        live = ladder_bundle(folder / "artifacts", ALL, fallback=cheap.digest)
        running.publish(live)
        running.registry.create_endpoint(ENDPOINT, description="", bundle=live.digest, actor="test", reason="test")
        running.fill(flights_at(NOW))
        running.wait_until_ready()
        wait_until(lambda: rung(running) == "normal", "the endpoint answers", timeout_s=60)
        yield running


def asked(machine: Machine, **changes: Any) -> dict[str, Any]:
    """An answer; fails the test where there is none."""
    response = machine.predict(**changes)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def rung(machine: Machine, **changes: Any) -> str:
    """The rung of an answer; empty where there is none."""
    response = machine.predict(**changes)
    return str(response.json()["receipt"]["rung"]) if response.status_code == 200 else ""


def until_quick(machine: Machine, wanted: str, within_s: float) -> None:
    """Ask until an answer is on the wanted rung and came at once; every answer until then is one, however late."""

    def is_quick() -> bool:
        started = time.monotonic()
        found = asked(machine)["receipt"]["rung"]
        return found == wanted and (time.monotonic() - started) * 1_000 < SOON_MS

    wait_until(is_quick, f"answers at once on the rung `{wanted}`", timeout_s=within_s)


def model_processes(machine: Machine) -> list[int]:
    """The processes in which Triton's python backend runs the models of this machine's repository."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (folder / "cmdline").read_bytes().split(b"\0")
            if command[0].endswith(b"triton_python_backend_stub") and str(machine.folder).encode() in b" ".join(
                command
            ):
                found.append(int(folder.name))
    assert found, "models run in processes of their own"
    return found


def reloads(machine: Machine) -> float:
    """How often the gateway had a model loaded anew."""
    name = "skewless_model_reloads_total "
    return float(next(line for line in machine.metrics().splitlines() if line.startswith(name)).removeprefix(name))


Fault = Callable[[Machine, str], Any]
FAULTS = pytest.mark.parametrize("fault", [killed, stopped])


@FAULTS
def test_while_triton_is_away_the_gateway_runs_the_model_itself_and_gives_the_same_bits(
    machine: Machine, fault: Fault
) -> None:
    until_quick(machine, "normal", BACK_WITHIN_S)
    normal = asked(machine)
    with fault(machine, "triton"):
        until_quick(machine, "in_process", AWAY_WITHIN_S)
        degraded = asked(machine)
        assert degraded["predictions"] == normal["predictions"]
        assert degraded["receipt"]["bundle"] == normal["receipt"]["bundle"]
        assert any("model backend" in reason for reason in degraded["receipt"]["reasons"])
        machine.wait_until_ready()
        assert 'skewless_rungs_total{endpoint="flight-delay",rung="in_process"}' in machine.metrics()
    until_quick(machine, "normal", BACK_WITHIN_S + 30)
    assert asked(machine)["predictions"] == normal["predictions"]


@FAULTS
def test_while_valkey_is_away_last_known_features_answer_and_unknown_ones_count_as_missing(
    machine: Machine, fault: Fault
) -> None:
    until_quick(machine, "normal", BACK_WITHIN_S)
    normal = asked(machine)
    with fault(machine, "valkey"):
        until_quick(machine, "last_known", AWAY_WITHIN_S)
        degraded = asked(machine)
        assert degraded["predictions"] == normal["predictions"]
        assert degraded["receipt"]["features_age_s"] > 0
        unknown = asked(machine, origin="EWR", tailnum="N9", station=8)
        assert unknown["receipt"]["rung"] == "defaults"
        assert unknown["receipt"]["statuses"]["missing"] > 0
        metrics = machine.metrics()
        assert 'skewless_circuit_open{part="online_store"} 1.0' in metrics
        machine.wait_until_ready()
    if fault is killed:
        machine.fill(flights_at(NOW))
    until_quick(machine, "normal", BACK_WITHIN_S)
    assert asked(machine)["predictions"] == normal["predictions"]


def test_with_both_away_both_are_stood_in_for(machine: Machine) -> None:
    until_quick(machine, "normal", BACK_WITHIN_S)
    normal = asked(machine)
    with stopped(machine, "valkey"), stopped(machine, "triton"):
        until_quick(machine, "last_known+in_process", 2 * AWAY_WITHIN_S)
        assert asked(machine)["predictions"] == normal["predictions"]
    until_quick(machine, "normal", 2 * BACK_WITHIN_S)


def test_a_gateway_that_starts_while_triton_is_away_answers_and_is_normal_once_it_is_there(machine: Machine) -> None:
    until_quick(machine, "normal", BACK_WITHIN_S)
    with killed(machine, "triton"):
        machine.stop("gateway")
        machine.start("gateway")
        machine.wait_until_ready()
        wait_until(lambda: rung(machine) == "in_process", "it answers by itself", timeout_s=BACK_WITHIN_S)
    wait_until(lambda: rung(machine) == "normal", "Triton answers again", timeout_s=60)


def test_a_model_whose_process_dies_in_a_triton_that_says_it_is_ready_is_loaded_anew(machine: Machine) -> None:
    until_quick(machine, "normal", BACK_WITHIN_S)
    normal = asked(machine)
    assert reloads(machine) == 0.0
    for process in model_processes(machine):
        os.kill(process, signal.SIGKILL)
    rungs = set()

    def is_loaded_anew() -> bool:
        rungs.add(asked(machine)["receipt"]["rung"])
        return reloads(machine) == 1.0

    wait_until(is_loaded_anew, "the model is loaded anew", timeout_s=60)
    assert "in_process" in rungs
    until_quick(machine, "normal", BACK_WITHIN_S)
    assert asked(machine)["predictions"] == normal["predictions"]
    assert machine.processes["triton"].exit_status() is None, "the server itself went on"


def test_everything_that_was_answered_is_in_the_log_with_its_rung_and_the_bits_of_its_model(machine: Machine) -> None:
    """Runs last: what all tests of this module asked."""
    rows = open_log(machine.log).predictions(ENDPOINT).to_pylist()
    assert {"normal", "in_process", "last_known", "defaults", "last_known+in_process"} <= {row["rung"] for row in rows}
    live = machine.registry.endpoint(ENDPOINT).route.live
    built = built_bundle(machine.folder / "artifacts" / live)
    mine = [row for row in rows if row["bundle_digest"] == live and row["rung"] != "constant"]
    tensors = np.array([np.frombuffer(row["tensor"], np.float32) for row in mine])
    outputs = np.array([row["output.probabilities"] for row in mine], np.float32)
    assert outputs.tobytes() == built.outputs(tensors)["probabilities"].tobytes()
