"""Chunks of work done by several processes, their results in the order of the chunks.

Processes are spawned, since a fork of one in which libraries have threads may hang. Each makes its own worker once,
from something that can be pickled, and is then given chunks; how many wait is bounded, so memory is that of a few.
"""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, TypeVar

from skewless.errors import BundleRefused, InvalidDefinition, SkewlessError
from skewless.limits import REPLAY_CHUNKS_AHEAD, REPLAY_PROCESSES_MAX, REPLAY_ROWS_PER_PROCESS

_Chunk = TypeVar("_Chunk")
_Result = TypeVar("_Result")
_KINDS: dict[str, type[SkewlessError]] = {each.__name__: each for each in (BundleRefused, InvalidDefinition)}


@dataclass(frozen=True, slots=True)
class _Failure:
    """An error of ours from another process: our classes take arguments that pickling them would lose."""

    kind: str
    message: str
    hint: str

    def error(self) -> SkewlessError:
        return _KINDS.get(self.kind, SkewlessError)(self.message, hint=self.hint)


def processes_for(rows: int) -> int:
    """How many processes are worth their start: one for REPLAY_ROWS_PER_PROCESS rows, up to one per processor."""
    usable = min(len(os.sched_getaffinity(0)), REPLAY_PROCESSES_MAX)
    return max(1, min(usable, rows // REPLAY_ROWS_PER_PROCESS))


def in_order(
    make: Callable[[], Callable[[_Chunk], _Result]], chunks: Iterable[_Chunk], *, processes: int
) -> Iterator[_Result]:
    """The result of every chunk, in order. A single chunk, or a single process, is worked on in this one.

    Raises what the worker raises for the first chunk for which it does, an error of ours of a class that only requests
    have as SkewlessError.
    """
    begun = iter(chunks)
    first = list(islice(begun, 2))
    if processes == 1 or len(first) < 2:
        work = make()
        for chunk in chain(first, begun):
            yield work(chunk)
        return
    yield from _in_processes(make, chain(first, begun), processes)


def _in_processes(
    make: Callable[[], Callable[[_Chunk], _Result]], chunks: Iterable[_Chunk], processes: int
) -> Iterator[_Result]:
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_begin, initargs=(make,))
    waiting: deque[Future[Any]] = deque()
    try:
        for chunk in chunks:
            waiting.append(pool.submit(_work, chunk))
            if len(waiting) > processes * REPLAY_CHUNKS_AHEAD:
                yield _result(waiting.popleft())
        while waiting:
            yield _result(waiting.popleft())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _result(future: "Future[Any]") -> Any:
    result = future.result()
    if isinstance(result, _Failure):
        raise result.error()
    return result


class _Worker:
    """What this process does; made by `_begin`, since a pool gives its processes nothing else to keep."""

    make: Callable[[], Callable[[Any], Any]]
    work: Callable[[Any], Any] | None = None


def _begin(make: Callable[[], Callable[[Any], Any]]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the command's to hear, which then ends its processes
    _Worker.make = make


def _work(chunk: Any) -> Any:
    try:
        if _Worker.work is None:
            _Worker.work = _Worker.make()
        return _Worker.work(chunk)
    except SkewlessError as error:
        return _Failure(type(error).__name__, error.message, error.hint)
