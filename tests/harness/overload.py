"""Servers with a known capacity, and callers of them, for the real admission in virtual time."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client import CollectorRegistry

from harness.virtual_time import virtual_clock
from skewless.errors import Overloaded, SkewlessError
from skewless.serving.deadline import Deadline
from skewless.timestamps import Micros
from skewless_gateway.admission import Admission
from skewless_gateway.admission_metrics import AdmissionMetrics

WALL_US = Micros(1_700_000_000_000_000)


class Server(Protocol):
    async def answer(self, rows: int) -> None: ...


class SharedCallServer:
    """A model that is called for all who wait at once, `calls` at a time. A call takes a fixed time and some per row.

    It can do calls / per_row rows a second and never quite does, since the fixed time is shared by what waits.
    """

    def __init__(self, *, fixed_s: float, per_row_s: float, noise: random.Random, calls: int = 1) -> None:
        self.fixed_s = fixed_s
        self.per_row_s = per_row_s
        self.rows_max = 1_024
        self._noise = noise
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._calls_left = calls
        self._tasks: set[asyncio.Task[None]] = set()
        self.paused = asyncio.Event()
        self.paused.set()

    async def answer(self, rows: int) -> None:
        done = asyncio.get_running_loop().create_future()
        self._waiting.append((rows, done))
        self._start()
        await done

    def _start(self) -> None:
        while self._calls_left and self._waiting:
            self._calls_left -= 1
            call = asyncio.ensure_future(self._call())
            self._tasks.add(call)
            call.add_done_callback(self._tasks.discard)

    async def _call(self) -> None:
        taken, self._waiting = self._waiting[: self.rows_max], self._waiting[self.rows_max :]
        rows = sum(each for each, done in taken if not done.done())
        await self.paused.wait()
        if rows:
            await asyncio.sleep(_noisy(self.fixed_s + self.per_row_s * rows, self._noise))
        self._calls_left += 1
        self._start()
        for _, done in taken:
            if not done.done():
                done.set_result(None)


class PlacesServer:
    """So many at once, each in a time of its own; one more waits."""

    def __init__(self, *, places: int, each_s: float, noise: random.Random) -> None:
        self.places = places
        self.each_s = each_s
        self._noise = noise
        self._busy = 0
        self._waiting: list[asyncio.Future[None]] = []

    async def answer(self, rows: int) -> None:
        del rows
        while self._busy >= self.places:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn
        self._busy += 1
        try:
            await asyncio.sleep(_noisy(self.each_s, self._noise))
        finally:
            self._busy -= 1
            while self._waiting:
                turn = self._waiting.pop(0)
                if not turn.done():
                    turn.set_result(None)
                    break


def _noisy(seconds: float, noise: random.Random) -> float:
    """Mostly near what was planned, and now and then a pause, as on a machine that others use too."""
    return seconds * noise.lognormvariate(0.0, 0.15) + (0.1 if noise.random() < 0.005 else 0.0)


@dataclass
class Seen:
    """What became of the requests of one endpoint, and when (s since the start)."""

    good: list[tuple[float, float]] = field(default_factory=list)
    """(when answered, seconds it took since it was sent), within the deadline."""
    late: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    refusals: list[SkewlessError] = field(default_factory=list)

    def per_s(self, since_s: float, until_s: float) -> float:
        return sum(since_s <= when < until_s for when, _ in self.good) / (until_s - since_s)

    def took_s(self, quantile: float, since_s: float = 0.0) -> float:
        ordered = sorted(took for when, took in self.good if when >= since_s)
        return ordered[min(len(ordered) - 1, int(quantile * len(ordered)))]


@dataclass
class Gate:
    """The real admission over a simulated server."""

    admission: Admission
    noise: random.Random
    started_s: float

    @classmethod
    def open(cls, seed: int, **settings: int) -> "Gate":
        noise = random.Random(seed)
        loop = asyncio.get_running_loop()
        admission = Admission(
            clock=virtual_clock,
            now=lambda: Micros(WALL_US + round(loop.time() * 1e6)),
            random=noise.random,
            metrics=AdmissionMetrics(CollectorRegistry()),
            **settings,
        )
        return cls(admission, noise, loop.time())

    def now_s(self) -> float:
        return asyncio.get_running_loop().time() - self.started_s

    async def ask(self, server: Server, seen: Seen, endpoint: str, *, deadline_ms: int, rows: int = 1) -> None:
        """One request, as the gateway would answer it."""
        sent_s = self.now_s()
        deadline = Deadline(virtual_clock, started_ns=virtual_clock(), deadline_ms=deadline_ms)
        try:
            self.admission.refuse_if_full(endpoint)
            async with self.admission.admitted(endpoint, deadline, rows=rows):
                left_s = deadline.allowance_s("model", at_most_s=60.0)
                try:
                    await asyncio.wait_for(server.answer(rows), left_s)
                except TimeoutError:
                    raise deadline.exceeded("model") from None
        except Overloaded as error:
            seen.refusals.append(error)
        except SkewlessError:
            seen.late += 1
        else:
            seen.good.append((self.now_s(), self.now_s() - sent_s))

    async def flood(
        self,
        server: Server,
        seen: Seen,
        endpoint: str = "e",
        *,
        per_s: float,
        until_s: float,
        deadline_ms: int = 1_000,
        rows: int = 1,
    ) -> None:
        """Requests at random moments, whatever becomes of them, until a moment; returns when the last is answered."""
        async with asyncio.TaskGroup() as group:
            async for _ in self._arrivals(per_s, until_s):
                group.create_task(self.ask(server, seen, endpoint, deadline_ms=deadline_ms, rows=rows))

    async def _arrivals(self, per_s: float, until_s: float) -> AsyncIterator[None]:
        due_s = self.now_s()
        while due_s < until_s:
            await asyncio.sleep(max(0.0, due_s - self.now_s()))
            yield
            due_s += self.noise.expovariate(per_s)
