"""What a load generator saw in one block of time."""

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import psutil
from numpy.typing import NDArray

GENERATOR = "generator"


@dataclass(frozen=True, slots=True)
class Load:
    """What a candidate's timing says besides its medians where several callers asked it at once."""

    per_s: tuple[float, ...]
    """Answers per second of each repetition, in order."""
    p99s_us: tuple[float, ...]
    """99th percentile of each repetition, in order."""
    p999_us: float
    """99.9th percentile of all answers together."""
    failed: int
    """Requests that got no answer, or another one than 200."""
    cpu_us: Mapping[str, float]
    """Processor time for one answer by who took it, median over the repetitions."""
    late_us_p99: float = 0.0
    """In an open loop, by how much the generator itself was late."""


@dataclass(frozen=True, slots=True)
class LoadBlock:
    """Answers of one block, after its warm-up."""

    latencies_ns: NDArray[np.int64]
    """Of each request that was due in the block and got a 200, from when it was due."""
    answers: int
    """Answers that arrived within the block, with a 200."""
    seconds: float
    """Length of the block."""
    errors: Mapping[str, int] = field(default_factory=dict)
    """How often what else happened: other statuses as `503`, lost connections by the error's name."""
    cpu_s: Mapping[str, float] = field(default_factory=dict)
    """Processor time of each watched tree of processes and of the generator, warm-up included."""
    cpu_answers: int = 0
    """All answers of that time."""
    late_ns: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """By how much the generator itself was late to send, of each request for which a connection was free."""

    @property
    def per_s(self) -> float:
        """Answers per second."""
        return self.answers / self.seconds

    @property
    def failed(self) -> int:
        """Requests that got no 200."""
        return sum(self.errors.values())

    def percentile_us(self, percent: float) -> float:
        """A percentile of the latencies in microseconds; NaN where nothing was answered."""
        if not len(self.latencies_ns):
            return float("nan")
        return round(float(np.percentile(self.latencies_ns, percent)) / 1_000, 3)

    def cpu_us(self, name: str) -> float:
        """Processor time of a watched tree for one answer, in microseconds."""
        return round(self.cpu_s.get(name, 0.0) / max(1, self.cpu_answers) * 1e6, 3)


class ProcessorTimes:
    """Processor time of trees of processes by name, from the making of this object on.

    Finding a tree's processes takes milliseconds, so this process's own time is looked at last before and first after.
    """

    def __init__(self, watched: Mapping[str, int]) -> None:
        self._roots = {name: psutil.Process(pid) for name, pid in watched.items()}
        self._before = self._trees()
        self._own_before_ns = time.process_time_ns()

    def passed(self) -> dict[str, float]:
        """Seconds of each tree since then, and of this process."""
        own = (time.process_time_ns() - self._own_before_ns) / 1e9
        now = self._trees()
        return {name: max(0.0, now[name] - self._before[name]) for name in now} | {GENERATOR: own}

    def _trees(self) -> dict[str, float]:
        return {name: _tree_s(root) for name, root in self._roots.items()}


def _tree_s(root: psutil.Process) -> float:
    """Of every process of a tree, and of those that ended and whose parents are still in it."""
    total = 0.0
    for process in (root, *root.children(recursive=True)):
        with contextlib.suppress(OSError, psutil.NoSuchProcess):  # it ends just now
            ended = process.cpu_times()
            total += time.clock_gettime_ns(_processor_clock(process.pid)) / 1e9
            total += ended.children_user + ended.children_system
    return total


def _processor_clock(pid: int) -> int:
    """Linux's clock of all threads' processor time of another process: what `clock_getcpuclockid` gives in C.

    It has nanoseconds, where the times in /proc have hundredths of a second, a whole block of a quick candidate.
    """
    return (~pid << 3) | 2
