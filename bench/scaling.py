"""How the gateway grows: with features, rows, endpoints and loaded bundles; how soon it starts, and swaps a bundle.

Models run inside the gateway, so that only its own costs grow: a model server's memory and threads are its own matter.
"""

import contextlib
import itertools
import json
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import redis

from bench.environment import pss_mib
from bench.gateway_stack import ENDPOINT, HTTP, IN_PROCESS, GatewayStack, Served, gateway_stack
from bench.load_http import Connection, body_of, status_of
from bench.load_loops import Aim, ClosedLoop
from bench.load_timing import SERVED, Generator, load_generator
from bench.measure import cpu_ratio, ratio
from bench.report import Case, Goal, Options, SuiteResult, single
from bench.scaling_plots import scaling_plots
from skewless.canonical_json import Digest
from skewless.errors import StackFailed
from skewless.rollout import changes
from skewless.rollout.history import RouteAction
from skewless.rollout.routes import Route

FEATURES = (1, 10, 40, 100, 500)
ROWS = (1, 10, 100, 1_000)
ENDPOINTS = (1, 10, 50)
BUNDLES = (1, 5, 20)
STARTS = 5
SWAPS = 6
SWAP_S_MAX = 2.0
"""What is promised of a change of routes, from its commit to the first answer of the new bundle."""
PATIENCE_S = 60.0
HASHES_SAMPLED = 500
PER_ENDPOINT_MAX = 1.1
NOTES = (
    "In a case with one candidate there is nothing to form a ratio to: compare lines.",
    "start: from the process's start to the first answered prediction, with its bundle verified and its model loaded; "
    "the copies of bundles that it keeps on disk are there, but for the first start.",
    "swap: from the commit of the route to the first answer of the new bundle, which the gateway has not loaded "
    "before, while eight callers go on asking; every answer but 200 counts as failed.",
)


def run(options: Options) -> SuiteResult:
    """Measure. The full suite takes about a quarter of an hour, the quick one three minutes on a quiet machine."""
    cases: list[Case] = []
    with load_generator() as generator:
        for features in (1, 40) if options.quick else FEATURES:
            folder = options.scratch / f"features-{features}"
            folder.mkdir()
            with gateway_stack(folder, options.progress, features=features) as stack:
                cases += _sizes(stack, generator, features, options)
                if features == 40:
                    cases += _at_forty(stack, generator, options)
    return SuiteResult("scaling", tuple(cases), tuple(_goals(cases)), None, NOTES, scaling_plots(cases))


def _sizes(stack: GatewayStack, generator: Generator, features: int, options: Options) -> Iterator[Case]:
    served = {"gateway": stack.gateway("gateway", HTTP), "gateway, in process": stack.gateway("near", IN_PROCESS)}
    for rows in ROWS if features == 40 and not options.quick else (1, 100):
        title = f"{features} feature{'s' * (features > 1)}, {rows} row{'s' * (rows > 1)}"
        options.progress(title)
        jobs = {
            name: _block(stack, each, [each.request(body) for body in stack.bodies(rows)], 1, options)
            for name, each in served.items()
        }
        timings = generator.compare(jobs, _repetitions(options))
        facts = {"bytes of a hash": _hash_bytes(stack), "hashes of a row": 3.0} if rows == 1 else {}
        yield Case(title, {"features": features, "rows": rows}, timings, facts=facts)
    for each in served.values():
        stack.stop(each.pid)


def _hash_bytes(stack: GatewayStack) -> float:
    """Memory of one entity's hash in Valkey, on average: its features of all views, and what a key costs."""
    with contextlib.closing(redis.Redis(port=stack.valkey_port)) as store:
        keys = list(itertools.islice(store.scan_iter(count=500), HASHES_SAMPLED))
        return statistics.mean(int(store.memory_usage(key) or 0) for key in keys)  # type: ignore[arg-type]  # a plain client


def _at_forty(stack: GatewayStack, generator: Generator, options: Options) -> Iterator[Case]:
    yield _starts(stack, options)
    counts = BUNDLES[:2] if options.quick else BUNDLES
    digests = [stack.trained.bundle.digest, *(stack.add_variant(number) for number in range(1, counts[-1]))]
    yield from _bundles(stack, generator, digests, counts, options)
    yield _swaps(stack, [stack.add_variant(counts[-1] + each) for each in range(2)], options)
    yield from _endpoints(stack, generator, counts[-1], options)


def _starts(stack: GatewayStack, options: Options) -> Case:
    """One gateway after another, each with the copies on disk of the one before."""
    options.progress("starts")
    seconds: list[float] = []
    for _ in range(2 if options.quick else STARTS):
        began = time.monotonic()
        served = stack.gateway("start", IN_PROCESS)
        seconds.append(time.monotonic() - began)
        stack.stop(served.pid)
    facts = {"first start, s": seconds[0], "start, s": statistics.median(seconds[1:])}
    return Case("start", {"endpoints": 1}, {}, facts=facts)


def _bundles(
    stack: GatewayStack, generator: Generator, digests: Sequence[Digest], counts: Sequence[int], options: Options
) -> Iterator[Case]:
    """One endpoint for each bundle, and the first of them asked: what do the others cost?"""
    done = 1
    for count in counts:
        for number in range(done, count):
            stack.add_endpoint(f"bundle-{number}", digests[number])
        done = count
        options.progress(f"{count} bundles")
        served = stack.gateway(f"bundles-{count}", IN_PROCESS)
        for number in range(1, count):
            _await_answer(replace(served, path=f"/v1/endpoints/bundle-{number}/predict"), stack.bodies(1)[0])
        requests = [served.request(body) for body in stack.bodies(1)]
        job = _block(stack, served, requests, 32, options)
        timings = generator.compare({"gateway, in process": job}, _repetitions(options))
        yield Case(f"{count} bundles", {"bundles": count}, timings, facts={"memory, MiB": pss_mib(served.pid)})
        stack.stop(served.pid)


def _endpoints(stack: GatewayStack, generator: Generator, bundles: int, options: Options) -> Iterator[Case]:
    """Requests to endpoints by turns that all serve one bundle, beside requests to one of them."""
    digest = stack.trained.bundle.digest
    names = [ENDPOINT, *(f"endpoint-{number}" for number in range(1, ENDPOINTS[-1]))]
    for name in names[1:]:
        stack.add_endpoint(name, digest)
    served = stack.gateway("endpoints", IN_PROCESS)
    ways = [replace(served, path=f"/v1/endpoints/{name}/predict") for name in names]
    for each in ways:
        _await_answer(each, stack.bodies(1)[0])
    bodies = stack.bodies(1)
    jobs = {
        f"{count} endpoint{'s' * (count > 1)}": _block(
            stack, served, [ways[place % count].request(body) for place, body in enumerate(bodies)], 32, options
        )
        for count in ENDPOINTS
    }
    options.progress("endpoints")
    timings = generator.compare(jobs, _repetitions(options))
    facts = {"memory, MiB": pss_mib(served.pid), "other bundles loaded": float(bundles)}
    yield Case("endpoints by turns", {"callers": 32}, timings, facts=facts)
    stack.stop(served.pid)


@dataclass
class _Swapped:
    """What callers saw during swaps: when the first answer of each bundle came, and what failed."""

    seen: dict[str, float] = field(default_factory=dict)
    statuses: Counter[int] = field(default_factory=Counter)
    stop: threading.Event = field(default_factory=threading.Event)


def _swaps(stack: GatewayStack, digests: Sequence[Digest], options: Options) -> Case:
    """Promote one bundle after another while callers ask."""
    options.progress("swaps")
    served = stack.gateway("swaps", IN_PROCESS)
    seen = _Swapped()
    callers = [threading.Thread(target=_ask_on, args=(served, stack.bodies(1), seen)) for _ in range(8)]
    for each in callers:
        each.start()
    seconds = []
    for number in range(2 if options.quick else SWAPS):
        digest = digests[number % len(digests)]
        seen.seen.pop(digest, None)
        with contextlib.closing(stack.registry()) as registry:
            registry.change_route(
                ENDPOINT, _promoting(digest), action=RouteAction.PROMOTE, actor="bench", reason="to measure"
            )
        committed = time.monotonic()
        while digest not in seen.seen and time.monotonic() < committed + PATIENCE_S:
            time.sleep(0.005)
        seconds.append(seen.seen[digest] - committed)
    seen.stop.set()
    for each in callers:
        each.join()
    stack.stop(served.pid)
    failed = sum(count for status, count in seen.statuses.items() if status != 200)
    facts = {
        "first swap, s": seconds[0],
        "swap, s": statistics.median(seconds),
        "longest swap, s": max(seconds),
        "answers": float(seen.statuses[200]),
        "failed": float(failed),
    }
    return Case("swap under load", {"callers": 8}, {}, facts=facts)


def _promoting(digest: Digest) -> Callable[[Route], Route]:
    return lambda route: changes.promote(route, digest)


def _ask_on(served: Served, bodies: Sequence[bytes], seen: _Swapped) -> None:
    with contextlib.closing(Connection(served.host, served.port)) as connection:
        for number in range(1 << 30):
            if seen.stop.is_set():
                return
            reply = connection.ask(served.request(bodies[number % len(bodies)]))
            seen.statuses[status_of(reply)] += 1
            if status_of(reply) == 200:
                seen.seen.setdefault(json.loads(body_of(reply))["receipt"]["bundle"], time.monotonic())


def _await_answer(served: Served, body: bytes) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while True:
        try:
            served.ask(body)
        except StackFailed:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.05)
        else:
            return


def _block(
    stack: GatewayStack, served: Served, requests: Sequence[bytes], callers: int, options: Options
) -> ClosedLoop:
    seconds = 0.5 if options.quick else 1.0
    aim = Aim(served.host, served.port, tuple(requests), {SERVED: served.pid, **stack.pids})
    return ClosedLoop(aim, callers, seconds / 4, seconds)


def _repetitions(options: Options) -> int:
    return 3 if options.quick else 5


def _goals(cases: Sequence[Case]) -> Iterator[Goal]:
    for case in cases:
        if "longest swap, s" in case.facts:
            yield Goal("longest swap", single(case.facts["longest swap, s"]), SWAP_S_MAX, unit="s", at_most=True)
            yield Goal("failed during swaps", single(case.facts["failed"]), 0.0, unit="requests", at_most=True)
        one, many = (case.timings.get(f"{count} endpoint{'s' * (count > 1)}") for count in ENDPOINTS[::2])
        if one is not None and many is not None:
            name = f"{ENDPOINTS[-1]} endpoints / 1"
            yield Goal(f"{name}, p50", ratio(many, one), PER_ENDPOINT_MAX, at_most=True)
            yield Goal(f"{name}, processor time", cpu_ratio(many, one), PER_ENDPOINT_MAX, at_most=True)
