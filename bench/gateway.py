"""The gateway as shipped beside the floor and a textbook service: callers, rates, rows, stages, and what it costs.

All candidates answer from the same Valkey, and from the same model in the same Triton but for `gateway, in process`.
The gateways validate, log every answer, count, and write receipts; each caller has an API key. Requests and answers of
all candidates are the same, and are compared before the clock starts. The load generator, the gateways, Valkey, Triton
and the textbook share the machine's cores; those that are not asked are idle meanwhile.
"""

import contextlib
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bench.gateway_floor import Floor, FloorLoop, FloorRequest
from bench.gateway_goals import FLOOR, GATEWAY, IN_PROCESS_GATEWAY, TEXTBOOK, goals
from bench.gateway_plots import gateway_plots
from bench.gateway_stack import GRPC, HTTP, IN_PROCESS, SHARED_MEMORY, GatewayStack, Served, gateway_stack
from bench.load_http import Connection, body_of
from bench.load_loops import Aim, ClosedLoop, OpenLoop
from bench.load_timing import SERVED, Generator, LoadJob, load_generator
from bench.report import Case, Options, SuiteResult
from skewless.stack.ports import LOOPBACK

TWO_WORKERS, TWO_WORKERS_TEXTBOOK = "gateway, 2 workers", "textbook, 2 workers"
HTTP_FLOOR = "floor over HTTP"
GRPC_GATEWAY, SHARED_MEMORY_GATEWAY = "gateway, gRPC", "gateway, shared memory"
DURABLE_GATEWAY = "gateway, log flushed before each answer"
VARIANTS = frozenset({GRPC_GATEWAY, SHARED_MEMORY_GATEWAY, DURABLE_GATEWAY})
"""They differ in one thing from the gateway, and are only asked where that shows."""
CALLERS = (1, 8, 32, 64, 128, 256)
VARIANT_CALLERS = (1, 32)
WORKER_CALLERS = (32, 128)
ROWS = (10, 100, 500)
RATES = (50, 100, 200, 400, 800, 1_200, 1_600, 2_000)
"""Requests per second of the open loop."""
RATE_SHARE_MAX, CALLERS_REACHED = 0.85, 32
"""A candidate is asked no faster than this share of what it gave so many callers."""
CONNECTIONS = 256
"""Of the open loop; more requests than these at once wait in the generator, and their wait counts."""
TEXTBOOK_LONGER = 3
"""Who answers so slowly gets longer blocks, so that there are answers enough for a percentile."""
WAVES_MIN = 2.5
"""Blocks are long enough to answer all callers that often, so that they hold more than the wave that all begin with."""
CROWD, CROWD_REPETITIONS = 128, 3
"""From so many callers on, blocks are long and take fewer turns."""
COMPARED = 8
"""Requests of each size whose answers are compared; the first answers of a service are its slowest."""
TEXTBOOK_ERROR_MAX = 1e-6
"""scikit-learn standardises in float64 and rounds once; the trees' scores differ where a sum of leaves rounds."""
STAGE_ANSWERS = 300
NOTES = (
    "Every candidate answered the same requests with the same labels before it was timed. Probabilities of the floor "
    "and of all gateways are equal bit for bit; the textbook's by 1e-6, as its transform rounds otherwise.",
    "floor: one hiredis pipeline of the gateway's own commands, undecoded, then one call of tritonclient's synchronous "
    "gRPC client with a tensor computed beforehand; one caller, no HTTP before it. floor over HTTP: its HTTP client.",
    "gateway: reaches Triton over HTTP, as the embedded stack has it.",
    "textbook: FastAPI, pydantic, Feast's SDK, scikit-learn and tritonclient; one uvicorn worker, as of every gateway.",
    "Closed loop: callers ask again as soon as they have an answer. Open loop: requests are due at random moments, and "
    "latencies count from then on.",
    "`served` is the processor time of the candidate's own processes, `generator` that of the load generator.",
)


@dataclass(frozen=True, slots=True)
class _Bench:
    """Everything that runs, and how long it is asked. `floor_requests` come by rows, as `bodies` do."""

    stack: GatewayStack
    generator: Generator
    served: Mapping[str, Served]
    bodies: Mapping[int, tuple[bytes, ...]]
    floor_requests: Mapping[int, tuple[FloorRequest, ...]]
    seconds: float
    repetitions: int
    alone: Mapping[str, float]
    """Answers per second that each candidate gives one caller; empty until that is measured."""

    def closed(self, name: str, rows: int, callers: int) -> LoadJob:
        """A block of callers that ask a candidate again and again."""
        if name in (FLOOR, HTTP_FLOOR):
            stack = self.stack
            return FloorLoop(
                LOOPBACK,
                stack.valkey_port,
                stack.triton_grpc if name == FLOOR else f"http://{stack.triton_http}",
                stack.model,
                self.floor_requests[rows],
                self.seconds / 4,
                self.seconds,
                stack.pids,
            )
        seconds = self.seconds * (TEXTBOOK_LONGER if name in (TEXTBOOK, TWO_WORKERS_TEXTBOOK) else 1)
        if name in self.alone:
            seconds = max(seconds, WAVES_MIN * callers / self.alone[name])
        return ClosedLoop(self.aim(name, rows), callers, seconds / 4, seconds)

    def open(self, name: str, per_s: float) -> LoadJob:
        """A block of requests for one row that are due at random moments."""
        return OpenLoop(self.aim(name, 1), per_s, CONNECTIONS, self.seconds / 2, 2 * self.seconds)

    def aim(self, name: str, rows: int) -> Aim:
        """A candidate with requests of so many rows."""
        served = self.served[name]
        requests = tuple(served.request(body) for body in self.bodies[rows])
        return Aim(served.host, served.port, requests, {SERVED: served.pid, **self.stack.pids})


def run(options: Options) -> SuiteResult:
    """Measure. The full suite takes about a quarter of an hour, the quick one about a minute on a quiet machine."""
    with gateway_stack(options.scratch, options.progress) as stack, load_generator() as generator:
        bench = _opened(stack, generator, options)
        for rows in bench.bodies:
            _compare_answers(bench, rows)
        cases = list(_cases(bench, options))
    return SuiteResult(
        suite="gateway",
        cases=tuple(cases),
        goals=tuple(goals(cases)),
        floor=FLOOR,
        notes=NOTES,
        plots={} if options.quick else gateway_plots(cases),
    )


def _opened(stack: GatewayStack, generator: Generator, options: Options) -> _Bench:
    served = {
        GATEWAY: stack.gateway("gateway", HTTP),
        IN_PROCESS_GATEWAY: stack.gateway("gateway-in-process", IN_PROCESS),
    }
    if not options.quick:
        served[GRPC_GATEWAY] = stack.gateway("gateway-grpc", GRPC)
        served[SHARED_MEMORY_GATEWAY] = stack.gateway("gateway-shared-memory", SHARED_MEMORY)
        served[DURABLE_GATEWAY] = stack.gateway("gateway-durable", HTTP, LOG_FLUSH_MS="0")
    served[TEXTBOOK] = stack.textbook()
    sizes = (1, 100) if options.quick else (1, *ROWS)
    return _Bench(
        stack,
        generator,
        served,
        {rows: stack.bodies(rows) for rows in sizes},
        {rows: stack.floor_requests(rows) for rows in sizes},
        seconds=0.5 if options.quick else 1.0,
        repetitions=3 if options.quick else 7,
        alone={},
    )


def _cases(bench: _Bench, options: Options) -> Iterator[Case]:
    everybody = (FLOOR, HTTP_FLOOR, *bench.served)
    for callers in (1, 32) if options.quick else CALLERS:
        names = everybody if callers == 1 else tuple(bench.served)
        case = _closed_case(bench, names, 1, callers, options)
        yield _with_stages(bench, case) if callers == 1 else case
        if callers == 1:
            bench = replace(bench, alone={name: statistics.median(_per_s(case, name)) for name in names})
        if callers == CALLERS_REACHED:
            reached = {name: statistics.median(_per_s(case, name)) for name in names}
    for rows in (100,) if options.quick else ROWS:
        yield _closed_case(bench, everybody, rows, 1, options)
    if not options.quick:
        yield from _open_cases(bench, reached, options)
        yield from _worker_cases(bench, options)


def _closed_case(bench: _Bench, names: Sequence[str], rows: int, callers: int, options: Options) -> Case:
    title = f"{rows} row{'s' * (rows > 1)}, {callers} caller{'s' * (callers > 1)}"
    options.progress(title)
    kept = [name for name in names if name not in VARIANTS or callers in VARIANT_CALLERS]
    jobs = {name: bench.closed(name, rows, callers) for name in kept}
    repetitions = CROWD_REPETITIONS if callers >= CROWD else bench.repetitions
    return Case(title, {"rows": rows, "callers": callers}, bench.generator.compare(jobs, repetitions))


def _open_cases(bench: _Bench, reached: Mapping[str, float], options: Options) -> Iterator[Case]:
    for per_s in RATES:
        asked = [name for name in bench.served if name not in VARIANTS]
        names = [name for name in asked if per_s <= RATE_SHARE_MAX * reached[name]]
        if not names:
            return
        options.progress(f"{per_s} requests/s")
        jobs = {name: bench.open(name, per_s) for name in names}
        timings = bench.generator.compare(jobs, max(3, bench.repetitions // 2))
        yield Case(f"1 row, open loop, {per_s} /s", {"rows": 1, "per_s": per_s}, timings)


def _worker_cases(bench: _Bench, options: Options) -> Iterator[Case]:
    """Two workers of each, which are only started now, so that they never stood beside the others."""
    stack = bench.stack
    served = {
        GATEWAY: bench.served[GATEWAY],
        TWO_WORKERS: stack.gateway("gateway-workers", HTTP, WORKERS="2"),
        TEXTBOOK: bench.served[TEXTBOOK],
        TWO_WORKERS_TEXTBOOK: stack.textbook(workers=2),
    }
    # A worker alone answers at least as fast as two on the same cores do each.
    alone = {**bench.alone, TWO_WORKERS: bench.alone[GATEWAY], TWO_WORKERS_TEXTBOOK: bench.alone[TEXTBOOK]}
    bench = replace(bench, served=served, alone=alone)
    _compare_answers(bench, 1)
    for callers in WORKER_CALLERS:
        case = _closed_case(bench, tuple(served), 1, callers, options)
        yield replace(case, name=f"{case.name}, workers", parameters={**case.parameters, "workers": 2})


def _compare_answers(bench: _Bench, rows: int) -> None:
    """Raise ValueError unless all candidates answer the same."""
    stack = bench.stack
    with contextlib.closing(Floor(LOOPBACK, stack.valkey_port, stack.triton_grpc, stack.model)) as floor:
        for body, asked in list(zip(bench.bodies[rows], bench.floor_requests[rows], strict=True))[:COMPARED]:
            expected = floor.ask(asked)[:, 1]
            for name, served in bench.served.items():
                predictions = served.ask(body)["predictions"]
                found = np.array([each["probability"] for each in predictions], dtype=np.float32)
                error = np.abs(found.astype(np.float64) - expected).max()
                if error > (TEXTBOOK_ERROR_MAX if name == TEXTBOOK else 0.0):
                    raise ValueError(f"{name} answers {rows} rows with probabilities that are off by {error:.3g}")
                labels = ["yes" if probability >= 0.5 else "no" for probability in expected]
                if [each["label"] for each in predictions] != labels:
                    raise ValueError(f"{name} answers {rows} rows with other labels")


def _with_stages(bench: _Bench, case: Case) -> Case:
    """The case with the median time of each of the gateway's stages, as its receipts tell them."""
    served = bench.served[GATEWAY]
    requests = bench.aim(GATEWAY, 1).requests
    stages: dict[str, list[float]] = {}
    with contextlib.closing(Connection(served.host, served.port)) as connection:
        for number in range(STAGE_ANSWERS):
            answer = json.loads(body_of(connection.ask(requests[number % len(requests)])))
            for stage, taken in answer["receipt"]["timings_ms"].items():
                stages.setdefault(stage, []).append(taken)
    facts = {f"{stage}, µs": statistics.median(taken) * 1_000 for stage, taken in stages.items()}
    return Case(case.name, case.parameters, case.timings, facts=facts)


def _per_s(case: Case, name: str) -> tuple[float, ...]:
    load = case.timings[name].load
    assert load is not None, "a load generator asked"
    return load.per_s
