"""A real gateway under load while its Valkey is killed, hangs, or hands over to a replica.

The bundle keeps its views near and allows defaults, so that outages of the store are answered on lower rungs; every
answer is compared with one that was computed alone for the rung it names.
"""

import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from harness.bundles import BuiltBundle, flights_at
from harness.fault_load import FaultLoad
from harness.faults import killed, stopped
from harness.ladders import ladder_bundle
from harness.machines import NOW, Machine, running_machine
from harness.redis_topologies import running_sentinels
from harness.servers import wait_until
from skewless.bundles.degrade_ladder import DegradeLadder

ENDPOINT = "flight-delay"
AWAY_WITHIN_S = 20.0
BACK_WITHIN_S = 60.0
LOWER = ("last_known", "defaults")


def serve_near(machine: Machine) -> BuiltBundle:
    """A bundle live that stands in for an absent store, once it answers."""
    built = ladder_bundle(machine.folder / "artifacts", DegradeLadder(defaults=True))
    machine.publish(built)
    machine.registry.create_endpoint(ENDPOINT, description="", bundle=built.digest, actor="test", reason="test")
    machine.fill(flights_at(NOW))
    machine.wait_until_ready()
    wait_until(lambda: machine.predict().status_code == 200, "the endpoint answers", timeout_s=60)
    return built


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, BuiltBundle]]:
    folder = tmp_path_factory.mktemp("valkey_faults")
    with running_machine(folder, tritons=0, TRITON="in-process") as running:
        yield running, serve_near(running)


@pytest.mark.parametrize("fault", [killed, stopped])
def test_under_load_what_is_known_stands_in_for_valkey_until_it_is_back(
    served: tuple[Machine, BuiltBundle], fault: Callable[[Machine, str], Any]
) -> None:
    machine, built = served
    with FaultLoad(machine, built).running() as load:
        load.until_rung("normal", since_s=0.0, within_s=BACK_WITHIN_S)
        begun_s = time.monotonic()
        with fault(machine, "valkey"):
            load.until_rung(*LOWER, since_s=begun_s, within_s=AWAY_WITHIN_S)
            settled_s = time.monotonic()
            load.until_rung(*LOWER, since_s=settled_s)
            assert not load.errors(since_s=settled_s)
        ended_s = time.monotonic()
        if fault is killed:
            machine.fill(flights_at(NOW))
        load.until_rung("normal", since_s=ended_s, within_s=BACK_WITHIN_S)
    load.check()
    assert load.errors().total() <= 2 * load.callers, load.errors()


def test_under_load_a_replica_takes_over_from_a_master_that_is_gone(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("failover")
    with (
        running_sentinels(folder) as sentinels,
        running_machine(folder, tritons=0, TRITON="in-process", ONLINE_STORE=sentinels.url) as machine,
    ):
        machine.valkey_port = sentinels.master.port
        built = serve_near(machine)
        sentinels.wait_until_copied()
        with FaultLoad(machine, built).running() as load:
            load.until_rung("normal", since_s=0.0, within_s=BACK_WITHIN_S)
            begun_s = time.monotonic()
            sentinels.master.process.signal_group(signal.SIGKILL)
            wait_until(lambda: sentinels.master_port() == sentinels.replica.port, "the replica is master")
            load.until_rung("normal", since_s=time.monotonic(), within_s=BACK_WITHIN_S)
        load.check()
        assert load.errors(since_s=begun_s).total() <= 2 * load.callers, load.errors()
        lower = {each.rung for each in load.since(begun_s) if each.status == 200} - {"normal"}
        assert lower <= set(LOWER), lower
