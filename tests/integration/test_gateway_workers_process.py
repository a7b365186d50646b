"""Two real workers over real Valkey and Triton: one log, one port, no lost request and no orphan."""

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from harness import http_calls
from harness.bundles import instance
from harness.gateways import ENDPOINT
from harness.machines import AS_OF, Machine, running_machine
from harness.servers import wait_until
from skewless.adapters.log_reader import open_log
from skewless.limits import DEADLINE_MS_MAX

PAUSE_S = 0.015
"""Between an answer and the caller's next question: of four callers some request is nearly always on its way, and
workers that start have some of the processor."""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """Two workers that share a Triton."""
    with running_machine(tmp_path, WORKERS="2", WORKER_SILENCE_S="5") as running:
        yield served(running)


@pytest.fixture
def machine_alone(tmp_path: Path) -> Iterator[Machine]:
    """Two workers that run models themselves."""
    own = {"WORKERS": "2", "WORKER_SILENCE_S": "5"}
    with running_machine(tmp_path, tritons=0, TRITON="in-process", **own) as running:
        yield served(running)


def served(running: Machine) -> Machine:
    """The machine once both workers serve the endpoint: each loads its bundle for itself, when it has heard of it."""
    running.serve(1)
    wait_until(lambda: running.metrics().count("skewless_bundle_live{") == 2, "both workers serve the endpoint")
    return running


def workers(machine: Machine) -> list[dict[str, Any]]:
    said: list[dict[str, Any]] = http_calls.get(f"{machine.admin_url}/workers", timeout=10).json()["workers"]
    return [{"listening": False, **each} for each in said]


@dataclass
class Load:
    """Callers, each on a connection of its own, that ask until they are told to end."""

    machine: Machine
    answered: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    is_over: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> "Load":
        self.threads = [threading.Thread(target=self._ask) for _ in range(4)]
        for thread in self.threads:
            thread.start()
        wait_until(lambda: len(self.answered) > 50, "predictions are answered")
        return self

    def __exit__(self, *_: object) -> None:
        self.is_over.set()
        for thread in self.threads:
            thread.join(30)

    def _ask(self) -> None:
        body = {"instances": [instance()], "options": {"as_of": AS_OF, "deadline_ms": DEADLINE_MS_MAX}}
        with http_calls.client(base_url=self.machine.url, timeout=30) as client:
            while not self.is_over.wait(PAUSE_S):
                try:
                    response = client.post(f"/v1/endpoints/{ENDPOINT}/predict", json=body)
                except httpx.ConnectError:
                    return  # nobody listens any more: nothing was taken, so nothing is lost
                except httpx.TransportError as error:
                    self.failed.append(repr(error))
                    continue
                if response.status_code == 200:
                    self.answered.extend(response.json()["prediction_ids"])
                else:
                    self.failed.append(response.text)


def test_workers_are_replaced_and_stopped_under_load_and_each_prediction_is_logged_once(machine: Machine) -> None:
    before = {each["pid"] for each in workers(machine)}
    with Load(machine) as load:
        os.kill(machine.processes["gateway"].pid, signal.SIGHUP)
        replaced = lambda: all(  # noqa: E731  # said once, here
            each["listening"] and each["pid"] not in before for each in workers(machine)
        )
        wait_until(replaced, "both workers are replaced")
        wait_until(lambda: not any(psutil.pid_exists(pid) for pid in before), "those before have drained")
        assert machine.stop("gateway") == 0
    assert not load.failed, load.failed[:3]
    logged = Counter(open_log(machine.log).predictions(ENDPOINT).column("prediction_id").to_pylist())
    assert set(load.answered) <= set(logged)
    assert set(logged.values()) == {1}


def test_metrics_of_both_workers_are_on_one_page_and_none_of_them_on_the_public_port(machine_alone: Machine) -> None:
    machine = machine_alone
    for _ in range(20):
        assert machine.predict().status_code == 200
    page = machine.metrics()
    assert 'skewless_connections{worker="0"}' in page
    assert 'skewless_connections{worker="1"}' in page
    assert page.count("# TYPE skewless_connections gauge") == 1
    assert 'process_resident_memory_bytes{worker="1"}' in page
    assert 'skewless_worker_up{worker="1"} 1.0' in page
    assert http_calls.get(f"{machine.url}/metrics", timeout=10).status_code == 404
    assert http_calls.get(f"{machine.admin_url}/readyz", timeout=10).json()["ready"]
    assert "answer_questions" in http_calls.get(f"{machine.admin_url}/debug/stacks", timeout=10).text


def test_a_killed_worker_loses_no_logged_prediction_and_a_killed_parent_leaves_no_orphan(
    machine_alone: Machine,
) -> None:
    machine = machine_alone
    answered = [machine.predict().json()["prediction_ids"][0] for _ in range(20)]
    victim = workers(machine)[0]["pid"]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: workers(machine)[0].get("pid") not in (None, victim), "the killed worker is replaced")
    left = [each["pid"] for each in workers(machine)]
    machine.stop("gateway", kill=True)
    wait_until(lambda: not any(map(psutil.pid_exists, left)), "no worker outlives its parent")
    machine.start("gateway")
    machine.wait_until_ready()
    logged = Counter(open_log(machine.log).predictions(ENDPOINT).column("prediction_id").to_pylist())
    assert [logged[each] for each in answered] == [1] * len(answered)
