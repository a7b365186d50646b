"""Calls that arrive while one is under way share the next: fewer and larger calls, and no timer that anyone waits for.

    submit ──nothing under way──▶ flush([item])          in the caller's own task, as if this module were not there
       └────flushes_max under way──▶ queue ──one of them ends──▶ flush([item, item, …])

A flush takes what waits in order of arrival, up to a weight (rows). Each caller has a deadline of its own: one that
gives up, or is cancelled, is left out where its flush has not begun, and its result is dropped where it has.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Generic, TypeVar

from skewless.errors import DeadlineExceeded, Unavailable

Item = TypeVar("Item")
Result = TypeVar("Result")

ASKERS: ContextVar[tuple[object, ...]] = ContextVar("askers", default=())
"""On whose behalf a call is made, for whoever wants to say so; a shared flush has those of all that it is for."""

Flush = Callable[[Sequence[Item], float], Awaitable[Sequence[Result | Exception]]]
"""Given items and the seconds it may take, returns one result per item, in order, or the error of that item alone.

What it raises is the error of all of them. It must end by itself within the time it is given.
"""


@dataclass(slots=True, eq=False)
class _Waiter(Generic[Item, Result]):
    item: Item
    weight: int
    deadline: float
    """In seconds of the event loop's clock."""
    result: "asyncio.Future[Result]"
    askers: tuple[object, ...]


class Coalescer(Generic[Item, Result]):
    """Merges concurrent calls into flushes. Belongs to one event loop."""

    def __init__(
        self,
        flush: Flush[Item, Result],
        *,
        part: str,
        weight_max: int,
        flushes_max: int,
        waiting_max: int,
    ) -> None:
        """`part` is what errors call the thing behind `flush`.

        A flush of several items weighs at most `weight_max`; a heavier item goes alone. Items that wait weigh at most
        `waiting_max` together.
        """
        assert weight_max > 0, "a flush holds something"
        assert flushes_max > 0, "or nothing would ever be flushed"
        self._flush = flush
        self._part = part
        self._weight_max = weight_max
        self._flushes_max = flushes_max
        self._waiting_max = waiting_max
        self._waiting: OrderedDict[_Waiter[Item, Result], None] = OrderedDict()
        self._waiting_weight = 0
        self._under_way = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def submit(self, item: Item, *, weight: int, timeout_s: float) -> Result:
        """The result of one item.

        Raises the item's own error, what its flush raised, DeadlineExceeded after `timeout_s`, and Unavailable at
        once where too much waits already.
        """
        if self._under_way < self._flushes_max and not self._waiting and not self._closed:
            return await self._alone(item, timeout_s)
        waiter = self._enqueue(item, weight, timeout_s)
        timer = waiter.result.get_loop().call_at(waiter.deadline, self._expire, waiter, timeout_s)
        try:
            return await waiter.result
        except asyncio.CancelledError:
            if not waiter.result.cancelled():
                waiter.result.exception()  # seen, or asyncio would report an error that nobody asked for
            raise
        finally:
            timer.cancel()
            self._dequeue(waiter)

    async def close(self) -> None:
        """Refuse whoever waits and whoever comes, and cancel the flushes under way. Closing twice is allowed."""
        self._closed = True
        for waiter in list(self._waiting):
            _settle(waiter, self._refusal("it is closing"))
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _alone(self, item: Item, timeout_s: float) -> Result:
        """A flush for one caller needs no task and no future; when the caller is cancelled, so is the flush."""
        self._under_way += 1
        try:
            (outcome,) = await self._flush((item,), timeout_s)
        finally:
            self._under_way -= 1
            if self._waiting:
                self._start_flushes()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _enqueue(self, item: Item, weight: int, timeout_s: float) -> _Waiter[Item, Result]:
        if self._closed:
            raise self._refusal("it is closing")
        if self._waiting_weight + weight > self._waiting_max:
            raise self._refusal(f"{self._waiting_weight} rows wait for it already, and at most {self._waiting_max} may")
        loop = asyncio.get_running_loop()
        waiter: _Waiter[Item, Result] = _Waiter(
            item, weight, loop.time() + timeout_s, loop.create_future(), ASKERS.get()
        )
        self._waiting[waiter] = None
        self._waiting_weight += weight
        return waiter

    def _dequeue(self, waiter: _Waiter[Item, Result]) -> None:
        """Take a waiter out of the queue, if it is still there."""
        if waiter in self._waiting:
            del self._waiting[waiter]
            self._waiting_weight -= waiter.weight

    def _expire(self, waiter: _Waiter[Item, Result], timeout_s: float) -> None:
        _settle(waiter, DeadlineExceeded(self._part, f"no answer within {timeout_s * 1_000:.0f} ms"))

    def _refusal(self, reason: str) -> Unavailable:
        return Unavailable(self._part, reason, hint="try again, or spread the load over more processes")

    def _start_flushes(self) -> None:
        while self._under_way < self._flushes_max and not self._closed and (batch := self._next_batch()):
            self._under_way += 1
            task = asyncio.get_running_loop().create_task(self._run(batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _next_batch(self) -> list[_Waiter[Item, Result]]:
        batch: list[_Waiter[Item, Result]] = []
        weight = 0
        while self._waiting:
            waiter = next(iter(self._waiting))
            if batch and weight + waiter.weight > self._weight_max:
                break
            self._dequeue(waiter)
            if not waiter.result.done():
                batch.append(waiter)
                weight += waiter.weight
        return batch

    async def _run(self, batch: list[_Waiter[Item, Result]]) -> None:
        """One flush of several callers, which goes on as long as the most patient of them."""
        timeout_s = max(waiter.deadline for waiter in batch) - asyncio.get_running_loop().time()
        # The task was begun by whoever's flush ended, which is none of these.
        ASKERS.set(tuple([asker for waiter in batch for asker in waiter.askers]))
        outcomes: Sequence[Result | Exception]
        try:
            outcomes = await self._flush([waiter.item for waiter in batch], timeout_s)
            assert len(outcomes) == len(batch), "a flush has one result per item"
        except Exception as error:  # noqa: BLE001  # a task's boundary: whatever it is, those who wait must hear of it
            outcomes = [error] * len(batch)
        except BaseException:
            outcomes = [self._refusal("it is closing")] * len(batch)
            raise
        finally:
            self._under_way -= 1
            # The next flush is on its way before these callers go on with their own work.
            self._start_flushes()
            for waiter, outcome in zip(batch, outcomes, strict=True):
                _settle(waiter, outcome)


def _settle(waiter: _Waiter[Item, Result], outcome: Result | Exception) -> None:
    """Hand a waiter its outcome, unless it has given up."""
    if waiter.result.done():
        return
    if isinstance(outcome, Exception):
        waiter.result.set_exception(outcome)
    else:
        waiter.result.set_result(outcome)
