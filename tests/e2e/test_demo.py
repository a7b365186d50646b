"""`skewless demo` as a newcomer runs it, on one replayed day, hurt in the middle and asked about afterwards."""

import http.client
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.command_forks import CommandForks
from harness.servers import wait_until
from skewless.cli.main import EXIT_INTERRUPTED
from skewless.settings import Home
from skewless.stack import control
from skewless.stack.ports import is_free
from skewless.stack.state import StackState

ROOT = Path(__file__).parents[2]
UNTIL = "2013-05-02"
FLIGHTS = 957
"""Flights scheduled from 2013-05-01T00:00Z up to UNTIL, counted in the package's own file."""
DEMO_TIMEOUT_S = 400
COMMAND_TIMEOUT_S = 120


@dataclass(frozen=True)
class FinishedDemo:
    """A demo that was run to its end in `home`, with Triton and Valkey killed during its replay."""

    forks: CommandForks
    home: Home
    environment: dict[str, str]
    summary: dict[str, Any]
    output: str


def _environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SKEWLESS_")}
    return {**kept, "SKEWLESS_HOME": str(home), "SKEWLESS_STACK_GATEWAY_PORT": "0"}


def _running(home: Home) -> StackState:
    state = control.read_state(home)
    assert state is not None, "the stack is not running"
    return state


def _answered(home: Home) -> float:
    """Predictions answered so far, from the gateway's own metrics; 0 while it does not answer."""
    state = control.read_state(home)
    if state is None:
        return 0
    connection = http.client.HTTPConnection(state.gateway_admin_url.removeprefix("http://"), timeout=5)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()
    found = re.search(r'^skewless_rows_total\{endpoint="flight-delay"\} (\S+)$', text, re.MULTILINE)
    return float(found.group(1)) if found else 0


def _kill(home: Home, name: str) -> None:
    (pid,) = (each.pid for each in _running(home).processes if each.name == name)
    os.kill(pid, signal.SIGKILL)


def _listeners(state: StackState) -> list[int]:
    addresses = (state.gateway_url, state.valkey_url, state.triton_grpc, state.triton_http, state.triton_metrics)
    return [int(address.rsplit(":", 1)[1]) for address in addresses]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, command_forks: CommandForks) -> Iterator[FinishedDemo]:
    folder = tmp_path_factory.mktemp("demo")
    home, report = Home(folder / "home"), folder / "summary.json"
    environment = _environment(home.root)
    log = folder / "output.txt"
    words = ("demo", "--until", UNTIL, "--json", str(report))
    try:
        with (
            log.open("wb") as output,
            command_forks.started(
                *words, environment=environment, folder=ROOT, stdout=output.fileno(), stderr=output.fileno()
            ) as demo,
        ):
            for name, answered in (("triton", 100), ("valkey", 400)):
                wait_until(
                    lambda answered=answered: demo.poll() is not None or _answered(home) >= answered,  # type: ignore[misc]
                    f"{answered} predictions are answered",
                    timeout_s=DEMO_TIMEOUT_S,
                )
                assert demo.poll() is None, log.read_text()
                _kill(home, name)
            assert demo.wait(DEMO_TIMEOUT_S) == 0, log.read_text()
        summary = json.loads(report.read_text())
        yield FinishedDemo(command_forks, home, environment, summary, log.read_text())
    finally:
        control.stop(home)


def _run(finished: FinishedDemo, *words: str) -> subprocess.CompletedProcess[str]:
    return finished.forks.run(*words, environment=finished.environment, folder=ROOT, timeout_s=COMMAND_TIMEOUT_S)


def test_every_live_prediction_equals_offline_scoring_bit_for_bit(finished: FinishedDemo) -> None:
    parity = finished.summary["parity"]
    assert finished.summary["predictions"] == parity["rows"] == FLIGHTS
    assert parity["predictions_bit_equal"] == parity["tensors_bit_equal"] == parity["features_bit_equal"] == FLIGHTS
    assert parity["differences"] == []


def test_every_live_prediction_is_recomputed_from_its_record_bit_for_bit(finished: FinishedDemo) -> None:
    assert finished.summary["replays_bit_equal"] == FLIGHTS
    done = _run(finished, "replay", "--all", "--json")
    assert done.returncode == 0, done.stderr
    # Those asked again, because a part was killed before they had their answer, may be in the log twice.
    assert json.loads(done.stdout)["verdicts"]["exact"] >= FLIGHTS


def test_killing_triton_and_valkey_costs_no_answer(finished: FinishedDemo) -> None:
    restarts = {each.name: each.restarts for each in _running(finished.home).processes}
    assert restarts == {"valkey": 1, "triton": 1, "shipper": 0, "gateway": 0, "monitor": 0}
    # Refused ones were asked again; with a model kept ready in the gateway there may be none.
    assert finished.summary["predictions"] == FLIGHTS


def test_live_quality_is_known_from_outcomes_and_near_the_held_out_one(finished: FinishedDemo) -> None:
    live, held_out = finished.summary["live"], finished.summary["held_out"]
    assert live["rows"] == finished.summary["outcomes"] > 0.95 * FLIGHTS
    assert held_out["auroc"] > 0.7
    assert live["auroc"] > 0.55  # a calm day: some hundred late flights of nearly a thousand
    assert 0.05 < live["brier"] < 0.25


def test_a_second_demo_uses_what_is_there(finished: FinishedDemo, tmp_path: Path) -> None:
    report = tmp_path / "summary.json"
    again = _run(finished, "demo", "--until", UNTIL, "--json", str(report))
    assert again.returncode == 0, again.stderr
    assert "Training" not in again.stderr
    assert "Replaying" not in again.stderr
    assert json.loads(report.read_text())["parity"] == finished.summary["parity"]


def test_the_readmes_curl_answers_with_what_the_readme_shows(finished: FinishedDemo) -> None:
    readme = (ROOT / "README.md").read_text()
    (command,) = re.findall(r"```bash\n(curl .*?)```", readme, re.DOTALL)
    (shown,) = re.findall(r"```json\n(.*?)```", readme, re.DOTALL)
    url = _running(finished.home).gateway_url
    answered = subprocess.run(
        ["bash", "-c", command.replace("http://127.0.0.1:8100", url)],
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=True,
    )
    answer, expected = json.loads(answered.stdout), json.loads(shown)
    assert answer.keys() == expected.keys()
    assert answer["receipt"].keys() == expected["receipt"].keys()
    assert answer["receipt"]["timings_ms"].keys() == expected["receipt"]["timings_ms"].keys()
    assert answer["predictions"][0].keys() == expected["predictions"][0].keys()
    assert answer["receipt"]["as_of"] == expected["receipt"]["as_of"]
    assert sum(answer["receipt"]["statuses"].values()) == sum(expected["receipt"]["statuses"].values())


def test_an_unknown_aircraft_is_served_by_the_missing_policy_and_the_receipt_says_so(finished: FinishedDemo) -> None:
    instance = {**finished.summary["sample_request"]["instances"][0], "tailnum": "N0NSUCH"}
    as_of = finished.summary["sample_request"]["options"]["as_of"]
    asked = _run(finished, "predict", "flight-delay", json.dumps(instance), "--as-of", as_of)
    assert asked.returncode == 0, asked.stderr
    not_ok = {each["column"]: each["statuses"] for each in json.loads(asked.stdout)["receipt"]["not_ok"]}
    assert not_ok["aircraft__seats"] == {"missing": 1}
    assert not_ok["aircraft_previous_leg__prev_arr_delay"] == {"missing": 1}


def test_a_logged_prediction_is_recomputed_bit_for_bit(finished: FinishedDemo) -> None:
    asked = _run(finished, "predict", "flight-delay", json.dumps(finished.summary["sample_request"]["instances"][0]))
    assert asked.returncode == 0, asked.stderr
    (prediction_id,) = json.loads(asked.stdout)["prediction_ids"]
    wait_until(lambda: _run(finished, "replay", prediction_id).returncode != 2, "the prediction is in the log")
    replayed = _run(finished, "replay", prediction_id, "--json")
    assert replayed.returncode == 0, replayed.stderr
    assert json.loads(replayed.stdout)["equal"] is True


def test_doctor_finds_nothing_wrong(finished: FinishedDemo) -> None:
    examined = _run(finished, "doctor")
    assert examined.returncode == 0, examined.stdout
    assert "endpoint flight-delay" in examined.stdout


def test_top_shows_what_the_demo_left(finished: FinishedDemo) -> None:
    shown = _run(finished, "top", "--once", "--json", "--every", "0.5")
    assert shown.returncode == 0, shown.stderr
    frame = json.loads(shown.stdout)
    (line,) = frame["endpoints"]
    assert (line["name"], line["computed"], line["waiting"], frame["silent"]) == ("flight-delay", 0, 0, [])
    assert re.fullmatch("[0-9a-f]{12}", line["bundle"])


def test_features_can_go_back_in_time_only_by_reset(finished: FinishedDemo) -> None:
    back = _run(finished, "materialize", "--as-of", "2013-04-20", "--reset", "--json")
    assert back.returncode == 0, back.stderr
    told = json.loads(back.stdout)
    assert told["entities_removed"] > 1_000
    assert len(told["views"]) == 8
    instance = finished.summary["sample_request"]["instances"][0]
    asked = _run(finished, "predict", "flight-delay", json.dumps(instance), "--as-of", "2013-04-20")
    assert json.loads(asked.stdout)["receipt"]["statuses"]["ok"] >= 35


def test_exit_stops_the_stack_and_leaves_no_process_and_no_port(finished: FinishedDemo) -> None:
    state = _running(finished.home)
    processes = [psutil.Process(each.pid) for each in state.processes]
    ended = _run(finished, "demo", "--until", UNTIL, "--exit")
    assert ended.returncode == 0, ended.stderr
    assert control.read_state(finished.home) is None
    assert not any(process.is_running() for process in processes)
    assert all(is_free(port) for port in _listeners(state))


def test_an_interrupted_demo_stops_its_stack(tmp_path: Path, command_forks: CommandForks) -> None:
    home, log = Home(tmp_path / "home"), tmp_path / "output.txt"
    environment = _environment(home.root)
    try:
        with (
            log.open("wb") as output,
            command_forks.started(
                "demo", environment=environment, folder=ROOT, stdout=output.fileno(), stderr=output.fileno()
            ) as demo,
        ):
            wait_until(lambda: (home.data / "origin_weather.parquet").exists(), "the demo is building source tables")
            ports = _listeners(_running(home))
            demo.send_signal(signal.SIGINT)
            assert demo.wait(COMMAND_TIMEOUT_S) == EXIT_INTERRUPTED, log.read_text()
        assert control.read_state(home) is None
        assert all(is_free(port) for port in ports)
    finally:
        control.stop(home)
