"""Measures candidates side by side, so that what disturbs one of them disturbs all.

A candidate is something that can be called again and again. The candidates of one comparison take turns in blocks of
ten or twenty milliseconds: A B C, then C B A, over several repetitions. A machine that is slow for a second is slow for
all of them, and a ratio is formed within a repetition before the median over repetitions is taken.

    blocks:  per candidate and repetition, the wall time of each call in ns, and the process time of the block
    timing:  per candidate, medians over repetitions with the smallest and largest
    ratio:   per pair of candidates, the median of the repetitions' ratios with the smallest and largest

Objects that exist before a comparison are kept out of garbage collection (`gc.freeze`), as a server does after its
start; what a candidate allocates is collected as usual, and full collections are counted.
"""

import asyncio
import contextlib
import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bench.load_block import Load

CALLS_MAX = 200_000
"""Calls of one block, so that a candidate of no cost cannot fill the memory with its times."""
WARM_UP_SHARE = 0.25
"""Of a block's time, spent calling a candidate before the first repetition."""


@dataclass(frozen=True, slots=True)
class Block:
    """What one block of calls took: `wall_ns` per call, `cpu_ns` of this process for the whole block."""

    wall_ns: tuple[int, ...]
    cpu_ns: int


class Candidate(Protocol):
    """Something that can be called for a while."""

    def run(self, min_time_s: float) -> Block:
        """Call until `min_time_s` has passed, and at least once."""
        ...


@dataclass(frozen=True, slots=True)
class Calls:
    """A function, called in a row. Reading the clock adds about 0.1 µs to each call."""

    function: Callable[[], object]

    def run(self, min_time_s: float) -> Block:
        """See `Candidate.run`."""
        function, clock = self.function, time.perf_counter_ns
        times: list[int] = []
        cpu = time.process_time_ns()
        before = clock()
        end = before + int(min_time_s * 1e9)
        while (before < end and len(times) < CALLS_MAX) or not times:
            function()
            after = clock()
            times.append(after - before)
            before = after
        return Block(tuple(times), time.process_time_ns() - cpu)


@dataclass(frozen=True, slots=True)
class AwaitedCalls:
    """A coroutine function, awaited in a row inside one event loop, which the caller owns."""

    loop: asyncio.AbstractEventLoop
    function: Callable[[], Awaitable[object]]

    def run(self, min_time_s: float) -> Block:
        """See `Candidate.run`."""
        return self.loop.run_until_complete(self._run(min_time_s))

    async def _run(self, min_time_s: float) -> Block:
        function, clock = self.function, time.perf_counter_ns
        times: list[int] = []
        cpu = time.process_time_ns()
        before = clock()
        end = before + int(min_time_s * 1e9)
        while (before < end and len(times) < CALLS_MAX) or not times:
            await function()
            after = clock()
            times.append(after - before)
            before = after
        return Block(tuple(times), time.process_time_ns() - cpu)


@dataclass(frozen=True, slots=True)
class Timing:
    """What one call of a candidate takes, in microseconds."""

    calls: int
    """Calls timed, over all repetitions."""
    p50_us: float
    """Median over the repetitions of each one's median."""
    p50_low_us: float
    p50_high_us: float
    """The smallest and the largest median of a repetition."""
    p99_us: float
    """99th percentile of all calls together; of fewer than 100 calls it is about their largest."""
    cpu_us: float
    """Process time per call (user and system, all threads), median over the repetitions."""
    full_collections: int
    """Full garbage collections that fell into the timed blocks."""
    p50s_us: tuple[float, ...]
    """The median of each repetition, in order."""
    cpus_us: tuple[float, ...]
    """Process time per call of each repetition, in order."""
    load: Load | None = None
    """What else is known where a load generator asked; None where a candidate was called."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times one candidate's time is another's: the median over repetitions, the smallest, the largest."""

    median: float
    low: float
    high: float


def compare(
    candidates: Mapping[str, Callable[[], object] | Candidate],
    *,
    repetitions: int = 11,
    min_time_s: float = 0.02,
    warm_up: bool = True,
) -> dict[str, Timing]:
    """Timings by name, of functions or Candidates that took turns, each called for a while before the first turn.

    Without `warm_up` nothing is called beforehand: for work of seconds, with `min_time_s` 0 for one call a turn.

    Takes about `repetitions * len(candidates) * min_time_s`, longer where single calls take longer than that.
    """
    runs = {name: each if hasattr(each, "run") else Calls(each) for name, each in candidates.items()}
    blocks: dict[str, list[Block]] = {name: [] for name in runs}
    collections = dict.fromkeys(runs, 0)
    with _settled():
        for run in runs.values() if warm_up else ():
            run.run(WARM_UP_SHARE * min_time_s)
        for repetition in range(repetitions):
            names = list(runs) if repetition % 2 == 0 else list(reversed(runs))
            for name in names:
                gc.collect()
                before = _full_collections()
                blocks[name].append(runs[name].run(min_time_s))
                collections[name] += _full_collections() - before
    return {name: timing_of(each, full_collections=collections[name]) for name, each in blocks.items()}


def timing_of(blocks: list[Block], *, full_collections: int = 0) -> Timing:
    """The timing of a candidate from its blocks, one per repetition."""
    medians = tuple(round(statistics.median(block.wall_ns) / 1_000, 3) for block in blocks)
    cpus = tuple(round(block.cpu_ns / len(block.wall_ns) / 1_000, 3) for block in blocks)
    every_call = np.concatenate([np.array(block.wall_ns) for block in blocks])
    return Timing(
        calls=len(every_call),
        p50_us=statistics.median(medians),
        p50_low_us=min(medians),
        p50_high_us=max(medians),
        p99_us=round(float(np.percentile(every_call, 99)) / 1_000, 3),
        cpu_us=statistics.median(cpus),
        full_collections=full_collections,
        p50s_us=medians,
        cpus_us=cpus,
    )


def ratio(of: Timing, to: Timing) -> Ratio:
    """How many times `to`'s median time `of` takes, from two timings of one comparison.

    >>> def timing(*medians): return timing_of([Block((round(each * 1_000),), 0) for each in medians])
    >>> ratio(timing(20, 30, 80), timing(10, 10, 20))
    Ratio(median=3.0, low=2.0, high=4.0)
    """
    return ratio_of(of.p50s_us, to.p50s_us)


def cpu_ratio(of: Timing, to: Timing) -> Ratio:
    """How many times `to`'s process time `of` takes, from two timings of one comparison."""
    return ratio_of(of.cpus_us, to.cpus_us)


def ratio_of(of: tuple[float, ...], to: tuple[float, ...]) -> Ratio:
    """The ratios within each repetition, from numbers of the same repetitions.

    >>> ratio_of((2.0, 3.0, 8.0), (1.0, 1.0, 2.0))
    Ratio(median=3.0, low=2.0, high=4.0)
    """
    each = [a / b for a, b in zip(of, to, strict=True)]
    return Ratio(statistics.median(each), min(each), max(each))


@contextlib.contextmanager
def _settled() -> Iterator[None]:
    """Inside, what exists now is not looked at by the garbage collector."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _full_collections() -> int:
    return int(gc.get_stats()[-1]["collections"])
