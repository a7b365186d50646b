"""What the prediction log costs: the gateway beside one that logs nothing, the shipper beside it, bytes, and questions.

A gateway cannot be told to log nothing; one that does is made in a process of the benchmark (`bench/log_nothing.py`).
All gateways answer the same requests from the same Valkey and Triton, in turns: A B, then B A.
"""

from collections.abc import Iterator, Mapping

from bench.gateway_goals import load_of
from bench.gateway_stack import HTTP, IN_PROCESS, GatewayStack, Served, gateway_stack
from bench.load_loops import Aim, ClosedLoop
from bench.load_timing import SERVED, Generator, LoadJob, load_generator
from bench.log_queries import query_cases, query_goals
from bench.log_shipping import SHIPPER, Beside, shipped_case, stopped_shipper
from bench.measure import cpu_ratio, ratio_of
from bench.report import Case, Goal, Options, SuiteResult

NOTHING, LOGGED = "logs nothing", "as shipped"
LOG = "logged"
"""What the gateway as shipped is called where its log lies."""
FSYNCED, FLUSHED, DURABLE = "fsync of each flush", "flush before each answer", "flush and fsync before each answer"
SETTINGS: dict[str, dict[str, str]] = {
    LOGGED: {},
    FSYNCED: {"LOG_FSYNC": "true"},
    FLUSHED: {"LOG_FLUSH_MS": "0"},
    DURABLE: {"LOG_FLUSH_MS": "0", "LOG_FSYNC": "true"},
}
"""What differs from the gateway as shipped, by candidate."""
CALLERS = 32
PER_S_MIN, CPU_MAX = 0.97, 1.03
"""Logging is wanted to cost no more than 3 % of the throughput, and is seen more exactly in processor time."""
SHIPPED = "shipper beside"
SHIPPED_S = 12.0
"""Longer than a segment is old when it is sealed, so that each turn has rounds of the shipper in it."""
NOTES = (
    "Every gateway validates, counts and writes receipts; `logs nothing` does all of that too, and forgets the record.",
    "The shipper runs only in the turns of its own candidate, and ships there what that candidate's turns left.",
    "`served` is the gateway's processor time for one answer, `shipper` the shipper's.",
)


def run(options: Options) -> SuiteResult:
    """Measure. The full suite takes about twenty minutes, the quick one about two on a quiet machine."""
    with gateway_stack(options.scratch, options.progress) as stack, load_generator() as generator:
        cases = list(_gateway_cases(stack, generator, options))
    cases += query_cases(options)
    return SuiteResult(
        suite="log", cases=tuple(cases), goals=(*_goals(cases), *query_goals(cases)), floor=NOTHING, notes=NOTES
    )


def _gateway_cases(stack: GatewayStack, generator: Generator, options: Options) -> Iterator[Case]:
    served = {NOTHING: stack.gateway("nothing", HTTP, program="bench.log_nothing")}
    for name, settings in SETTINGS.items():
        served[name] = stack.gateway(LOG if name == LOGGED else name.replace(" ", "-"), HTTP, source=None, **settings)
    seconds = 0.6 if options.quick else 1.5
    jobs: dict[str, LoadJob] = {name: _block(stack, each, seconds) for name, each in served.items()}
    with stopped_shipper(stack.log_of(LOG), stack.folder, stack.start) as shipper:
        pair = {name: jobs[name] for name in (NOTHING, LOGGED)}
        yield _case("1 row, 32 callers", pair, generator, options, repetitions=5 if options.quick else 31)
        yield _case("1 row, 32 callers, settings", jobs, generator, options, repetitions=3 if options.quick else 9)
        options.progress("shipping and compacting")
        yield shipped_case(shipper)
        seconds = 4.0 if options.quick else SHIPPED_S
        beside = Beside(_block(stack, served[LOGGED], seconds, **{SHIPPER: shipper.pid}), shipper.pid)
        pair = {NOTHING: _block(stack, served[NOTHING], seconds), SHIPPED: beside}
        yield _case("1 row, 32 callers, shipping", pair, generator, options, repetitions=1 if options.quick else 7)
    if not options.quick:
        near = {
            NOTHING: stack.gateway("near-nothing", IN_PROCESS, program="bench.log_nothing"),
            LOGGED: stack.gateway("near", IN_PROCESS),
        }
        pair = {name: _block(stack, each, 1.5) for name, each in near.items()}
        yield _case("1 row, 32 callers, model in process", pair, generator, options, repetitions=15)


def _block(stack: GatewayStack, served: Served, seconds: float, **watched: int) -> ClosedLoop:
    requests = tuple(served.request(body) for body in stack.bodies(1))
    aim = Aim(served.host, served.port, requests, {SERVED: served.pid, **stack.pids, **watched})
    return ClosedLoop(aim, CALLERS, seconds / 4, seconds)


def _case(name: str, jobs: Mapping[str, LoadJob], generator: Generator, options: Options, *, repetitions: int) -> Case:
    options.progress(name)
    return Case(name, {"rows": 1, "callers": CALLERS}, generator.compare(jobs, repetitions))


def _goals(cases: list[Case]) -> Iterator[Goal]:
    for case in cases:
        for name in (LOGGED, SHIPPED):
            if {name, NOTHING} <= case.timings.keys():
                ours, theirs = case.timings[name], case.timings[NOTHING]
                told = f"{case.name}: {name} / {NOTHING}"
                per_s = ratio_of(load_of(ours).per_s, load_of(theirs).per_s)
                yield Goal(f"{told}, answers per second", per_s, PER_S_MIN)
                yield Goal(f"{told}, processor time", cpu_ratio(ours, theirs), CPU_MAX, at_most=True)
