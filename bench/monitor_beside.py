"""What the monitor costs the gateway whose predictions it counts: both beside a shipper, one with a monitor as well.

Each of the two gateways has a log of its own, so that the monitor counts what was answered in its own turns and nothing
else; shippers and monitor run in their gateway's turns only.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass

from bench.gateway_goals import load_of
from bench.gateway_stack import HTTP, GatewayStack, Served
from bench.load_block import LoadBlock
from bench.load_loops import Aim, ClosedLoop
from bench.load_timing import SERVED, Generator
from bench.log_shipping import ROUND_S, SHIPPER
from bench.measure import cpu_ratio, ratio_of
from bench.report import Case, Goal, Options
from skewless.settings import log_store_of
from skewless.stack.monitor import NAME as MONITOR
from skewless.stack.monitor import monitor_spec
from skewless.stack.ports import LOOPBACK, free_ports
from skewless.stack.shipper import shipper_spec

SHIPPED, MONITORED = "shipper beside", "shipper and monitor beside"
CALLERS = 32
PER_S_MIN, CPU_MAX = 0.98, 1.02
"""Counting all traffic is wanted to cost no more than 2 % of the throughput, and of the gateway's processor time."""
TURN_S = 12.0
"""Longer than a segment is old when it is sealed, so that each turn has rounds, and windows that are counted, in it."""
NAME = "1 row, 32 callers, monitored"


@dataclass(frozen=True, slots=True)
class BesideAll:
    """A block of load during which stopped processes run; it is pickled, and run in the generator's process."""

    block: ClosedLoop
    pids: tuple[int, ...]

    def run(self) -> LoadBlock:
        """Run the block. The processes are stopped again afterwards."""
        self._tell(signal.SIGCONT)
        try:
            return self.block.run()
        finally:
            self._tell(signal.SIGSTOP)

    def _tell(self, number: signal.Signals) -> None:
        for pid in self.pids:
            os.kill(pid, number)


def beside_case(stack: GatewayStack, generator: Generator, options: Options) -> Case:
    """The comparison; four minutes in full."""
    seconds = 4.0 if options.quick else TURN_S
    with contextlib.ExitStack() as stopped:
        shipped, monitored = (stack.gateway(name, HTTP) for name in ("shipped", "monitored"))
        plain = {SHIPPER: _shipper(stack, "shipped")}
        watched = {SHIPPER: _shipper(stack, "monitored"), MONITOR: _monitor(stack, "monitored")}
        for pid in (*plain.values(), *watched.values()):
            stopped.callback(os.kill, pid, signal.SIGCONT)  # a stopped process would be asked in vain to end
            os.kill(pid, signal.SIGSTOP)
        jobs = {
            SHIPPED: _block(stack, shipped, seconds, plain),
            MONITORED: _block(stack, monitored, seconds, watched),
        }
        options.progress(NAME)
        timings = generator.compare(jobs, 1 if options.quick else 9)
    return Case(NAME, {"rows": 1, "callers": CALLERS}, timings)


def beside_goals(case: Case) -> Iterator[Goal]:
    """What the monitor may cost."""
    ours, theirs = case.timings[MONITORED], case.timings[SHIPPED]
    told = f"{case.name}: {MONITORED} / {SHIPPED}"
    yield Goal(f"{told}, answers per second", ratio_of(load_of(ours).per_s, load_of(theirs).per_s), PER_S_MIN)
    yield Goal(f"{told}, the gateway's processor time", cpu_ratio(ours, theirs), CPU_MAX, at_most=True)


def _block(stack: GatewayStack, served: Served, seconds: float, beside: dict[str, int]) -> BesideAll:
    requests = tuple(served.request(body) for body in stack.bodies(1))
    aim = Aim(served.host, served.port, requests, {SERVED: served.pid, **stack.pids, **beside})
    return BesideAll(ClosedLoop(aim, CALLERS, seconds / 4, seconds), tuple(beside.values()))


def _shipper(stack: GatewayStack, name: str) -> int:
    settings = {"PREDICTION_LOG": str(stack.log_of(name)), "ROUND_S": str(ROUND_S)}
    return stack.start(shipper_spec(port=free_ports(1)[0], environment=settings, logs=stack.folder / "logs" / name))


def _monitor(stack: GatewayStack, name: str) -> int:
    """A monitor of all that needs no offline store."""
    log = stack.log_of(name)
    settings = {
        "DATABASE_URL": f"sqlite:///{stack.folder}/registry.db",
        "ARTIFACTS": str(stack.folder / "artifacts"),
        "PREDICTION_LOG": str(log),
        "LOG_STORE": str(log_store_of(log)),
        "ONLINE_STORE": f"redis://{LOOPBACK}:{stack.valkey_port}",
        "HOME": str(stack.folder / "monitor"),
        "JOBS": "drift,metrics,quality",
    }
    return stack.start(monitor_spec(port=free_ports(1)[0], environment=settings, logs=stack.folder / "logs" / name))
