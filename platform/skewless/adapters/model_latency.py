"""How long a call of a model takes in this process, several models in one run so that their numbers compare.

What is timed is ONNX Runtime with its graph optimisations, one thread, as the embedded server runs it; a server adds
its transport and queue, which do not differ between models. Calls of the models take turns, so that a slow moment of
the machine meets all of them.
"""

import time
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from skewless.errors import InvalidDefinition
from skewless.training.facts import Latency
from skewless.training.learner import Scorer

CALLS = 400
WARM_UP_CALLS = 20
TIME_MAX_S = 10.0
"""Fewer calls are made of models that take longer; a quantile needs some all the same."""
CALLS_MIN = 50


def measure_latency(
    models: Mapping[str, tuple[Scorer, NDArray[np.float32]]], rows: int, *, calls: int = CALLS
) -> dict[str, Latency]:
    """The latency of each model by name. A model comes with rows of its own (any number of at least one, columns).

    Each call has `rows` rows, other ones each time. Raises InvalidDefinition where a model comes without a row.
    """
    batches = {name: _batches(name, tensor, rows) for name, (_, tensor) in models.items()}
    for name, (scorer, _) in models.items():
        for call in range(WARM_UP_CALLS):
            scorer(batches[name][call % len(batches[name])])
    taken_ms: dict[str, list[float]] = {name: [] for name in models}
    give_up = time.perf_counter() + TIME_MAX_S
    for call in range(calls):
        for name, (scorer, _) in models.items():
            batch = batches[name][call % len(batches[name])]
            begun = time.perf_counter()
            scorer(batch)
            taken_ms[name].append((time.perf_counter() - begun) * 1_000.0)
        if call >= CALLS_MIN and time.perf_counter() > give_up:
            break
    return {name: _latency(rows, taken) for name, taken in taken_ms.items()}


def _batches(name: str, tensor: NDArray[np.float32], rows: int) -> list[NDArray[np.float32]]:
    if not len(tensor):
        raise InvalidDefinition(f"{name} has no golden row to measure its latency with")
    shuffled = np.random.default_rng(rows).permuted(np.resize(np.arange(len(tensor)), (8, rows)), axis=1)
    return [np.ascontiguousarray(tensor[chosen]) for chosen in shuffled]


def _latency(rows: int, taken_ms: list[float]) -> Latency:
    p50, p99 = np.quantile(taken_ms, [0.5, 0.99])
    return Latency(rows=rows, p50_ms=float(p50), p99_ms=float(p99), calls=len(taken_ms))
