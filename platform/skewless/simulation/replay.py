"""Replays history against a running gateway: features move forward, questions are asked, outcomes follow.

At each simulated moment, in this order: feature rows that have become visible by then are written to the online
store, the questions of that moment are asked concurrently, and outcomes that have become known are reported. So a
prediction can only have seen what was known when it was asked.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import to_python
from skewless.errors import Unavailable
from skewless.training.examples import NO_OUTCOME, Examples

CONCURRENCY = 8
"""Questions of one simulated moment that are in flight together."""
PATIENCE_S = 180.0
"""How long one step is tried again while a part is away, before the replay gives up."""
OUTCOMES_PER_CALL = 500
_PROGRESS_EVERY_S = 0.5

T = TypeVar("T")
Instance = dict[str, object]


class FeatureFeed(Protocol):
    """Moves the online store forward."""

    def advance(self, to: int) -> int:
        """Write every row visible by `to` (µs) that was not yet; rows written. Raises Unavailable; may be repeated."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """One answered question."""

    prediction_id: str
    probability: float
    latency_s: float


class PredictionClient(Protocol):
    """Asks a gateway. Both calls raise Unavailable when they should be tried again."""

    async def predict(self, instance: Instance, *, as_of: int) -> Answer: ...

    async def report(self, outcomes: Sequence[tuple[str, bool, int]]) -> None:
        """Report (prediction id, label, outcome time in µs)."""
        ...


@dataclass(frozen=True, slots=True)
class Replay:
    """What came back, row by row of the examples asked.

    `latency_s` is of the attempt that was answered, as the caller saw it. `refusals` counts attempts that were
    turned away or found nobody, each tried again until it was answered.
    """

    prediction_ids: tuple[str, ...]
    probabilities: NDArray[np.float32]
    latency_s: NDArray[np.float64]
    outcomes: int
    feature_rows: int
    refusals: int
    wall_s: float


class _Patience:
    """Tries a step again while a part is away, for a bounded time, and counts the refusals."""

    def __init__(self) -> None:
        self.refusals = 0

    async def until_done(self, step: Callable[[], Awaitable[T]]) -> T:
        give_up = time.monotonic() + PATIENCE_S
        while True:
            try:
                return await step()
            except Unavailable as refusal:
                self.refusals += 1
                if time.monotonic() + refusal.retry_after_s > give_up:
                    raise
                await asyncio.sleep(refusal.retry_after_s)


async def replay(
    examples: Examples, feed: FeatureFeed, client: PredictionClient, progress: Callable[[int, int], None]
) -> Replay:
    """Ask every example once, in the order of the clock; `progress(asked, rows)` is called now and then.

    Raises Unavailable when a part stays away longer than `PATIENCE_S`.
    """
    started = time.monotonic()
    patience = _Patience()
    instances = instances_of(examples)
    answers: list[Answer] = []
    pending = _outcomes_in_order(examples)
    reported = feature_rows = 0
    progress_due = 0.0
    gate = asyncio.Semaphore(CONCURRENCY)

    async def ask(row: int) -> Answer:
        async with gate:
            return await patience.until_done(partial(client.predict, instances[row], as_of=int(examples.as_of[row])))

    for moment, rows in _moments(examples):
        feature_rows += await patience.until_done(partial(asyncio.to_thread, feed.advance, moment))
        answers += await asyncio.gather(*(ask(row) for row in rows))
        due = _take_due(pending, moment)
        reported += await _report(due, answers, examples, client, patience)
        if time.monotonic() >= progress_due:
            progress(len(answers), examples.rows)
            progress_due = time.monotonic() + _PROGRESS_EVERY_S
    reported += await _report(_take_due(pending, math.inf), answers, examples, client, patience)
    progress(len(answers), examples.rows)
    return Replay(
        prediction_ids=tuple(answer.prediction_id for answer in answers),
        probabilities=np.array([answer.probability for answer in answers], dtype=np.float32),
        latency_s=np.array([answer.latency_s for answer in answers]),
        outcomes=reported,
        feature_rows=feature_rows,
        refusals=patience.refusals,
        wall_s=time.monotonic() - started,
    )


def instances_of(examples: Examples) -> list[Instance]:
    """Each row's join keys and request fields as Python values by name; timestamps stay microseconds."""
    columns = [to_python(column) for column in examples.keys.values()]
    return [dict(zip(examples.keys, values, strict=True)) for values in zip(*columns, strict=True)]


def _moments(examples: Examples) -> Iterator[tuple[int, list[int]]]:
    """Each distinct `as_of` with its rows; the examples are ordered by it."""
    as_of = examples.as_of.tolist()
    for moment, rows in groupby(range(examples.rows), key=as_of.__getitem__):
        yield moment, list(rows)


def _outcomes_in_order(examples: Examples) -> list[tuple[int, int]]:
    """(moment to report, row) of every row that gets an outcome, latest first, so that the next one is popped.

    An outcome is reported when it is known, but not before its question has been asked.
    """
    rows = np.flatnonzero(examples.labelled & (examples.outcome_time != NO_OUTCOME)).tolist()
    return sorted(((int(max(examples.outcome_time[row], examples.as_of[row])), row) for row in rows), reverse=True)


def _take_due(pending: list[tuple[int, int]], moment: float) -> list[int]:
    """Rows whose outcome is to be reported by `moment`; removes them from `pending`."""
    due = []
    while pending and pending[-1][0] <= moment:
        due.append(pending.pop()[1])
    return due


async def _report(
    rows: list[int], answers: Sequence[Answer], examples: Examples, client: PredictionClient, patience: _Patience
) -> int:
    for start in range(0, len(rows), OUTCOMES_PER_CALL):
        outcomes = [
            (answers[row].prediction_id, bool(examples.labels[row]), int(examples.outcome_time[row]))
            for row in rows[start : start + OUTCOMES_PER_CALL]
        ]
        await patience.until_done(partial(client.report, outcomes))
    return len(rows)
