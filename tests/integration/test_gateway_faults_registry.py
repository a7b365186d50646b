"""A real gateway under load while the registry's database is gone: it goes on, starts again, and catches up."""

import time
from collections.abc import Iterator

import pytest

from harness import http_calls
from harness.fault_load import FaultLoad
from harness.machines import Machine, running_machine
from harness.postgres import PostgresServer, running_postgres
from harness.servers import wait_until

ENDPOINT = "flight-delay"
CAUGHT_UP_S = 60.0


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """A database server of this module's own, because it is stopped."""
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("registry_faults")
    with running_machine(folder, database_url=postgres.empty_database(), tritons=0, TRITON="in-process") as running:
        yield running


def routes_detail(machine: Machine) -> str:
    """What the gateway says about its routes."""
    parts = http_calls.get(f"{machine.admin_url}/readyz", timeout=10).json()["parts"]
    return str(parts["routes"]["detail"])


def test_under_load_nobody_notices_that_the_database_is_gone_and_changes_arrive_once_it_is_back(
    machine: Machine, postgres: PostgresServer
) -> None:
    built = machine.serve(0)
    other = machine.build(1)
    with FaultLoad(machine, built).running() as load:
        begun_s = time.monotonic()
        postgres.stop()
        try:
            wait_until(lambda: "last good" in routes_detail(machine), "it is told", timeout_s=60)
            load.until_rung("normal", since_s=time.monotonic())
            assert not load.errors(since_s=begun_s), load.errors(since_s=begun_s)
            machine.stop("gateway")
            machine.start("gateway")
            machine.wait_until_ready()
            restarted_s = time.monotonic()
            load.until_rung("normal", since_s=restarted_s)
            answering_s = time.monotonic()
            load.until_rung("normal", since_s=answering_s)
        finally:
            postgres.start()
        wait_until(lambda: not routes_detail(machine), "the database is read again", timeout_s=60)
        assert not load.errors(since_s=answering_s), load.errors(since_s=answering_s)
    assert not load.wrong(), load.wrong()[:5]
    machine.registry.set_live(ENDPOINT, other.digest, actor="test", reason="test")
    wait_until(lambda: machine.endpoint().get("bundle") == other.digest, "it follows", timeout_s=CAUGHT_UP_S)
