"""The gateway beside the frameworks that people use: the same features, model, requests and cores, two at a time.

Each peer fetches features with Feast's SDK, transforms with scikit-learn, and runs the model in ONNX Runtime inside its
own process, with its own batching switched on. It validates less, keeps no log and writes no receipt; the gateway does
all of that. `feast serve` reads the same features and stops there: no transform, no model. The gateway and one peer
take turns while the others do not run, since some of them never rest.
"""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.environment import pss_mib
from bench.gateway_goals import GATEWAY, IN_PROCESS_GATEWAY, TEXTBOOK, load_of
from bench.gateway_model import entities_of
from bench.gateway_stack import HTTP, IN_PROCESS, PREPARED, GatewayStack, Served, gateway_stack
from bench.load_http import Connection, body_of, status_of
from bench.load_loops import Aim, ClosedLoop
from bench.load_timing import SERVED, Generator, load_generator
from bench.measure import Timing, ratio, ratio_of
from bench.peers.environments import NotInstalled
from bench.peers.services import FEAST_SERVE, PEERS, Peer, StartedPeer, start_feast_serve, start_peer
from bench.report import Case, Goal, Options, SuiteResult
from skewless.errors import StackFailed

CASES = ((1, 1), (1, 32), (100, 1))
"""Rows of a request, and callers."""
PROBABILITY_ERROR_MAX = 1e-6
COMPARED = 4
SLOW_S = 3.0
"""Length of a peer's block, as a multiple of the gateway's: it answers so much more slowly."""
WAVES_MIN = 2.5
NOTES = (
    "Each peer runs in an environment of its own with the versions of bench/peers/requirements, as one worker or "
    "replica with its own batching on. Labels are equal and probabilities within 1e-6 before the clock starts.",
    "gateway: as shipped (validation, API key, receipt, log, metrics), over HTTP to Triton. gateway, in process: with "
    "the model in ONNX Runtime inside it, as the peers have it.",
    "feast serve: Feast's own feature server; it reads the features of the same requests and does nothing else.",
    "start: from the process's start to its first healthy answer, so with its imports; memory: PSS of all its "
    "processes after the load.",
)


@dataclass(frozen=True, slots=True)
class _Asked:
    """One service with its prepared requests by rows."""

    served: Served
    requests: Mapping[int, tuple[bytes, ...]]


def run(options: Options) -> SuiteResult:
    """Measure. Takes about ten minutes after the environments are installed, which takes as long again once."""
    cases: list[Case] = []
    notes = list(NOTES)
    with gateway_stack(options.scratch, options.progress) as stack, load_generator() as generator:
        ours = {
            GATEWAY: _of_gateway(stack, stack.gateway("gateway", HTTP)),
            IN_PROCESS_GATEWAY: _of_gateway(stack, stack.gateway("gateway-in-process", IN_PROCESS)),
        }
        expected = {rows: _probabilities(ours[GATEWAY], rows, _of_gateway_answer) for rows in (1, 100)}
        for name, theirs, started_s in _others(stack, expected, notes, options):
            cases += _compared(stack, generator, {**ours, name: theirs}, name, started_s, options)
            stack.stop(theirs.served.pid)
    return SuiteResult("peers", tuple(cases), tuple(_goals(cases)), GATEWAY, tuple(notes))


def _others(
    stack: GatewayStack, expected: Mapping[int, Sequence[Any]], notes: list[str], options: Options
) -> Iterator[tuple[str, _Asked, float]]:
    """Every service to compare with, one running at a time: its name, requests, and how long its start took."""
    began = time.monotonic()
    textbook = stack.textbook()
    yield TEXTBOOK, _of_gateway(stack, textbook), time.monotonic() - began
    for peer in PEERS:
        try:
            started = start_peer(stack, peer, options.progress)
        except (NotInstalled, StackFailed) as error:
            notes.append(f"{peer.name} is not measured, it could not be installed or started: {error}"[:800])
            options.progress(notes[-1])
            continue
        asked = _of_peer(stack, started)
        for rows in (1, 100):
            _check_equal(peer, expected[rows], _probabilities(asked, rows, peer.positive), rows)
        yield peer.name, asked, started.started_s
    feast = start_feast_serve(stack, options.progress)
    yield FEAST_SERVE, _of_peer(stack, feast), feast.started_s


def _compared(
    stack: GatewayStack,
    generator: Generator,
    asked: Mapping[str, _Asked],
    name: str,
    started_s: float,
    options: Options,
) -> Iterator[Case]:
    seconds, repetitions = (0.5, 3) if options.quick else (1.0, 5)
    alone_s = 0.0
    for rows, callers in CASES:
        title = f"{rows} row{'s' * (rows > 1)}, {callers} caller{'s' * (callers > 1)}, beside {name}"
        options.progress(title)
        jobs = {
            each: ClosedLoop(
                Aim(one.served.host, one.served.port, one.requests[rows], {SERVED: one.served.pid, **stack.pids}),
                callers,
                length / 4,
                length,
            )
            for each, one in asked.items()
            for length in (max(SLOW_S * seconds, WAVES_MIN * callers * alone_s) if each == name else seconds,)
        }
        timings = generator.compare(jobs, repetitions)
        if callers == rows == 1:
            alone_s = timings[name].p50_us / 1e6
        facts = {"start, s": started_s, "memory, MiB": pss_mib(asked[name].served.pid)} if rows > 1 else {}
        yield Case(title, {"rows": rows, "callers": callers, "beside": name}, timings, facts=facts)


def _goals(cases: Sequence[Case]) -> Iterator[Goal]:
    """Ahead of every peer on every row of the table: answers per second, and the time of an answer."""
    for case in cases:
        peer = str(case.parameters["beside"])
        ours, theirs = case.timings[GATEWAY], case.timings[peer]
        found = ratio_of(load_of(ours).per_s, load_of(theirs).per_s)
        yield Goal(f"{case.name}: gateway / {peer}, answers per second", found, 1.0)
        yield Goal(f"{case.name}: gateway / {peer}, p50", ratio(ours, theirs), 1.0, at_most=True)
        yield Goal(f"{case.name}: gateway / {peer}, p99", _p99(ours, theirs), 1.0, at_most=True)


def _p99(ours: Timing, theirs: Timing) -> Any:
    return ratio_of(load_of(ours).p99s_us, load_of(theirs).p99s_us)


def _of_gateway(stack: GatewayStack, served: Served) -> _Asked:
    return _Asked(served, {rows: tuple(served.request(body) for body in stack.bodies(rows)) for rows in (1, 100)})


def _of_peer(stack: GatewayStack, started: StartedPeer) -> _Asked:
    requests = {}
    for rows in (1, 100):
        entities = [entities_of(stack.store, rows, draw) for draw in range(PREPARED[rows])]
        requests[rows] = tuple(started.served.request(body) for body in started.bodies(entities))
    return _Asked(started.served, requests)


def _probabilities(asked: _Asked, rows: int, positive: Any) -> list[Any]:
    """Probabilities (rows,) of the first requests."""
    found = []
    with contextlib.closing(Connection(asked.served.host, asked.served.port)) as connection:
        for request in asked.requests[rows][:COMPARED]:
            reply = connection.ask(request)
            if status_of(reply) != 200:
                raise StackFailed(f"{asked.served.path} answered {status_of(reply)}: {body_of(reply)[:500]!r}")
            found.append(np.array(positive(json.loads(body_of(reply))), dtype=np.float64))
    return found


def _of_gateway_answer(answer: Any) -> list[float]:
    return [each["probability"] for each in answer["predictions"]]


def _check_equal(peer: Peer, expected: Sequence[Any], found: Sequence[Any], rows: int) -> None:
    for ours, theirs in zip(expected, found, strict=True):
        error = float(np.abs(ours - theirs).max())
        if error > PROBABILITY_ERROR_MAX:
            raise ValueError(f"{peer.name} answers {rows} rows with probabilities that are off by {error:.3g}")
