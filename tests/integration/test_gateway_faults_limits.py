"""A real gateway under load that runs out of file descriptors, and one whose disk takes no more of its log."""

import json
import resource
import socket
import time
from collections import Counter
from collections.abc import Iterator

import psutil
import pytest

from bench.load_http import request_bytes, status_of
from harness.bundles import BuiltBundle, instance
from harness.fault_load import FaultLoad
from harness.faults import short_of
from harness.machines import AS_OF, Machine, running_machine
from harness.servers import wait_until
from skewless.adapters.log_reader import open_log

ENDPOINT = "flight-delay"
NEWCOMERS = 20


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, BuiltBundle]]:
    with running_machine(tmp_path_factory.mktemp("limits"), tritons=0, TRITON="in-process") as running:
        yield running, running.serve(0)


def newcomer(machine: Machine) -> socket.socket:
    """A connection with a right request on it, whether or not the gateway has taken it yet."""
    host, _, port = machine.url.removeprefix("http://").partition(":")
    body = json.dumps({"instances": [instance()], "options": {"as_of": AS_OF, "deadline_ms": 10_000}}).encode()
    connection = socket.create_connection((host, int(port)), timeout=60)
    connection.sendall(request_bytes(f"/v1/endpoints/{ENDPOINT}/predict", body, host=f"{host}:{port}"))
    return connection


def failures(machine: Machine) -> float:
    """Accepts that failed, as the gateway counts them."""
    lines = machine.metrics().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("skewless_accept_failures_total"))


def test_without_descriptors_callers_that_are_there_are_answered_and_newcomers_wait(
    served: tuple[Machine, BuiltBundle],
) -> None:
    machine, built = served
    pid = machine.processes["gateway"].pid
    with FaultLoad(machine, built).running() as load:
        begun_s = time.monotonic()
        before = failures(machine)
        with short_of(pid, resource.RLIMIT_NOFILE, psutil.Process(pid).num_fds()):
            waiting = [newcomer(machine) for _ in range(NEWCOMERS)]
            settled_s = time.monotonic()
            wait_until(lambda: len(load.since(settled_s)) > 200, "callers that are there are answered")
        for connection in waiting:
            assert status_of(connection.recv(1 << 16)) == 200, "who waited is answered in the end"
            connection.close()
        wait_until(lambda: failures(machine) > before, "it is counted")
    assert not load.wrong(), load.wrong()[:5]
    assert not load.errors(since_s=begun_s), load.errors()


def test_while_the_log_cannot_be_written_nothing_is_answered_that_is_not_in_it(
    served: tuple[Machine, BuiltBundle],
) -> None:
    machine, built = served
    pid = machine.processes["gateway"].pid
    with FaultLoad(machine, built).running() as load:
        begun_s = time.monotonic()
        with short_of(pid, resource.RLIMIT_FSIZE, 1):
            wait_until(lambda: any(each.status == 503 for each in load.since(begun_s)), "predictions are refused")
            settled_s = time.monotonic()
            wait_until(lambda: len(load.since(settled_s)) > 20, "they are refused quickly")
            assert {each.status for each in load.since(settled_s)} == {503}, load.told(settled_s)
        ended_s = time.monotonic()
        load.until_rung("normal", since_s=ended_s)
        answered = [machine.predict() for _ in range(10)]
    assert not load.wrong(), load.wrong()[:5]
    assert set(load.errors()) == {"503 unavailable"}, load.errors()
    ids = [response.json()["prediction_ids"][0] for response in answered]
    assert machine.stop("gateway") == 0
    machine.start("gateway")
    machine.wait_until_ready()
    logged = Counter(open_log(machine.log).predictions(ENDPOINT).column("prediction_id").to_pylist())
    assert [logged[each] for each in ids] == [1] * len(ids)
    ok = sum(each.status == 200 for each in load.seen)
    assert logged.total() >= ok, "every answer is in the log"
    assert set(logged.values()) == {1}, "and once"
