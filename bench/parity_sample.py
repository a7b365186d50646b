"""What marking a sample of the predictions costs: a gateway as shipped, 1 % of entities, beside one that marks none."""

from collections.abc import Iterator, Mapping

from bench.gateway_goals import load_of
from bench.gateway_stack import HTTP, GatewayStack, Served
from bench.load_loops import Aim, ClosedLoop
from bench.load_timing import SERVED, Generator, LoadJob
from bench.measure import cpu_ratio, ratio_of
from bench.report import Case, Goal, Options

NOTHING, SAMPLED = "samples nothing", "samples 1 %"
NAME = "1 row, 32 callers, parity sample"
CALLERS = 32
PER_S_MIN, CPU_MAX = 0.99, 1.01
"""A sample of 1 % is wanted to cost no more than 1 % of the throughput, and is seen more exactly in processor time."""


def sample_case(stack: GatewayStack, generator: Generator, options: Options) -> Case:
    """Both gateways in turns: A B, then B A."""
    options.progress(NAME)
    seconds = 0.6 if options.quick else 1.5
    jobs: Mapping[str, LoadJob] = {
        NOTHING: _block(stack, stack.gateway("samples-nothing", HTTP, program="bench.unsampled"), seconds),
        SAMPLED: _block(stack, stack.gateway("samples", HTTP, source=None), seconds),
    }
    repetitions = 5 if options.quick else 41
    return Case(NAME, {"rows": 1, "callers": CALLERS}, generator.compare(jobs, repetitions))


def sample_goals(case: Case) -> Iterator[Goal]:
    """At most 1 % of answers per second, and of processor time."""
    ours, theirs = case.timings[SAMPLED], case.timings[NOTHING]
    told = f"{NAME}: {SAMPLED} / {NOTHING}"
    yield Goal(f"{told}, answers per second", ratio_of(load_of(ours).per_s, load_of(theirs).per_s), PER_S_MIN)
    yield Goal(f"{told}, processor time", cpu_ratio(ours, theirs), CPU_MAX, at_most=True)


def _block(stack: GatewayStack, served: Served, seconds: float) -> ClosedLoop:
    requests = tuple(served.request(body) for body in stack.bodies(1))
    aim = Aim(served.host, served.port, requests, {SERVED: served.pid, **stack.pids})
    return ClosedLoop(aim, CALLERS, seconds / 4, seconds)
