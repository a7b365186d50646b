"""Blocks of load of several candidates, taken by turns in a process of their own, as the timings that tables show."""

import multiprocessing
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Protocol

import numpy as np

from bench.load_block import GENERATOR, Load, LoadBlock
from bench.measure import Timing

SERVED = "served"
"""The candidate's own processes among those that are watched."""
RUN_S_MAX = 180.0
"""No block takes that long, its answers waited for."""


class LoadJob(Protocol):
    """One block of load; it is pickled, and run in the generator's process."""

    def run(self) -> LoadBlock:
        """Ask, and say what came back."""
        ...


class Generator:
    """A process that makes load and does nothing else."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def run(self, job: LoadJob) -> LoadBlock:
        """Run one block. Raises what the block raises, TimeoutError after RUN_S_MAX."""
        return self._pool.submit(job.run).result(RUN_S_MAX)

    def compare(self, jobs: Mapping[str, LoadJob], repetitions: int) -> dict[str, Timing]:
        """Timings by name of candidates that took turns: A B C, then C B A."""
        blocks: dict[str, list[LoadBlock]] = {name: [] for name in jobs}
        for repetition in range(repetitions):
            for name in jobs if repetition % 2 == 0 else reversed(list(jobs)):
                blocks[name].append(self.run(jobs[name]))
        return {name: timing_of_load(each) for name, each in blocks.items()}


@contextmanager
def load_generator() -> Iterator[Generator]:
    """A generator in a fresh process, which ends on leaving."""
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield Generator(pool)


def timing_of_load(blocks: Sequence[LoadBlock]) -> Timing:
    """The timing of a candidate from its blocks, one per repetition.

    Its processor time is that of its own processes; of one that has none, such as a floor, the generator's. Raises
    ValueError where a block has no answer at all.
    """
    if any(not len(block.latencies_ns) for block in blocks):
        raise ValueError(f"a block of load got no answer: {[dict(block.errors) for block in blocks]}")
    medians = tuple(block.percentile_us(50) for block in blocks)
    owner = SERVED if SERVED in blocks[0].cpu_s else GENERATOR
    cpus = tuple(block.cpu_us(owner) for block in blocks)
    every = np.concatenate([block.latencies_ns for block in blocks]) / 1_000
    late = np.concatenate([block.late_ns for block in blocks]) / 1_000
    return Timing(
        calls=len(every),
        p50_us=statistics.median(medians),
        p50_low_us=min(medians),
        p50_high_us=max(medians),
        p99_us=round(float(np.percentile(every, 99)), 3),
        cpu_us=statistics.median(cpus),
        full_collections=0,
        p50s_us=medians,
        cpus_us=cpus,
        load=Load(
            per_s=tuple(round(block.per_s, 3) for block in blocks),
            p99s_us=tuple(block.percentile_us(99) for block in blocks),
            p999_us=round(float(np.percentile(every, 99.9)), 3),
            failed=sum(block.failed for block in blocks),
            cpu_us=_medians(blocks, lambda block: {name: block.cpu_us(name) for name in block.cpu_s}),
            late_us_p99=round(float(np.percentile(late, 99)), 3) if len(late) else 0.0,
        ),
    )


def _medians(blocks: Sequence[LoadBlock], told: Callable[[LoadBlock], Mapping[str, float]]) -> dict[str, float]:
    each = [told(block) for block in blocks]
    return {name: statistics.median(one[name] for one in each) for name in each[0]}
