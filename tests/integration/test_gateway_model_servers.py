"""A gateway in front of several Tritons, and one that runs models itself."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import numpy as np

from harness.bundles import BuiltBundle
from harness.gateways import ENDPOINT
from harness.machines import Machine, running_machine
from harness.servers import wait_until
from skewless.adapters.log_reader import open_log
from skewless.limits import DEADLINE_MS_MAX

PAUSE_S = 0.01
"""Between an answer and the caller's next question: some request of six callers is always on its way."""


def check_log(running: Machine, built: BuiltBundle, count: int) -> None:
    """Every logged answer is what the model gives for the logged tensor."""
    rows = open_log(running.log).predictions(ENDPOINT).to_pylist()
    assert len(rows) >= count
    tensors = np.array([np.frombuffer(row["tensor"], np.float32) for row in rows])
    expected = built.outputs(tensors)["probabilities"]
    assert np.array([row["output.probabilities"] for row in rows], np.float32).tobytes() == expected.tobytes()


def during(running: Machine, happening: Callable[[], None], *, callers: int = 6) -> list[int]:
    """Statuses of all that callers, each with other instances, were answered while something happens."""
    over = Event()

    def call(caller: int) -> list[int]:
        statuses: list[int] = []
        while not over.wait(PAUSE_S):
            distance = float(100 * caller + len(statuses) % 100)
            statuses.append(running.predict(deadline_ms=DEADLINE_MS_MAX, distance=distance).status_code)
        return statuses

    with ThreadPoolExecutor(callers) as threads:
        asked = [threads.submit(call, caller) for caller in range(callers)]
        try:
            happening()
        finally:
            over.set()
        return [status for each in asked for status in each.result()]


def test_a_gateway_that_runs_models_itself_answers_without_a_server(tmp_path: Path) -> None:
    with running_machine(tmp_path, tritons=0, TRITON="in-process") as running:
        built = running.serve(0)

        def fifty_more() -> None:
            answered = [
                running.predict(deadline_ms=DEADLINE_MS_MAX, distance=float(each)).status_code for each in range(50)
            ]
            assert set(answered) == {200}

        statuses = during(running, fifty_more)
        assert set(statuses) == {200}
        check_log(running, built, 50 + len(statuses))
        metrics = running.metrics()
        assert "skewless_model_call_rows_count" in metrics


def test_of_two_tritons_one_may_die_at_a_time_without_a_failed_request(tmp_path: Path) -> None:
    # Without a standby, or the gateway itself would answer and hide what becomes of the servers.
    with running_machine(tmp_path, tritons=2, STANDBY="false") as running:
        built = running.serve(0)
        wait_until(lambda: all(_is_asked(running, name) for name in ("triton", "triton2")), "both answer")

        def one_after_the_other() -> None:
            for dying in ("triton", "triton2"):
                running.stop(dying, kill=True)
                assert {running.predict(deadline_ms=DEADLINE_MS_MAX).status_code for _ in range(20)} == {200}
                running.start(dying)
                wait_until(lambda: _is_asked(running, dying), f"{dying} has its model again", timeout_s=60)  # noqa: B023

        statuses = during(running, one_after_the_other)
        assert set(statuses) == {200}, f"{len(statuses)} answers"
        check_log(running, built, len(statuses))


def _is_asked(running: Machine, name: str) -> bool:
    """Whether the gateway asks a Triton in its turn: it answers, and has the model."""
    address = next(each for each in running.specs[name].command if each.startswith("--http-port="))
    replica = f'{{replica="http://127.0.0.1:{address.partition("=")[2]}"}}'
    metrics = running.metrics()
    return f"skewless_replica_up{replica} 1.0" in metrics and f"skewless_replica_models{replica} 1.0" in metrics
