"""One model backend out of several replicas of it: the least loaded answers, a sick one is left alone until it is well.

    call ──▶ the replica with the fewest rows under way, of those whose circuit is closed and that have the model
               │ no answer within what nearly all calls take ──▶ the same call to another one; the first answer counts
               └ Unavailable ──▶ the next replica, while time is left

Inference has no effects, so asking twice is safe; how often a call is doubled is bounded by a budget. A replica that
came back loads the models that it should have, and answers for each once that is done.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from skewless.errors import BundleRefused, DeadlineExceeded, SkewlessError, Unavailable
from skewless.limits import RETRY_AFTER_S
from skewless.serving.circuit import Circuit, CircuitState
from skewless.serving.ports import ModelBackend, ModelSignature

PART = "model backend"
HEALTH_EVERY_S = 0.5
"""Between two looks at a replica. Calls notice a failure themselves; the looks notice that it is over."""
HEDGE_QUANTILE = 0.95
HEDGE_SHARE_MAX = 0.05
"""Of all calls, at most so many are doubled: a backend that is slow for everybody must not be asked twice as much."""
HEDGE_AFTER_MIN_S = 0.002
_LATENCIES_KEPT = 256
_LATENCIES_MIN = 32
_QUANTILE_EVERY = 32
_SLOW_FACTOR = 10.0
"""A call that got so many times the usual time and no answer speaks against its replica; a shorter one does not."""

_Outputs = dict[str, NDArray[np.float32]]
Admit = Callable[[ModelBackend, str], Awaitable[None]]
"""Makes a replica ready for a model: loads and tries it. Raises BundleRefused, or Unavailable."""


@dataclass(slots=True)
class PoolCounts:
    """What the pool did since its start."""

    calls: int = 0
    retries: int = 0
    hedges: int = 0
    hedges_won: int = 0
    """Doubled calls of which the second was the first to answer."""


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """One replica as it is now."""

    name: str
    away: bool
    """Whether it did not answer when it was last looked at."""
    circuit: CircuitState
    rows: int
    """Under way."""
    models: frozenset[str]
    """Ready."""
    reason: str
    """Why it was last not available; empty when it is."""


@dataclass(slots=True, eq=False)
class _Replica:
    name: str
    backend: ModelBackend
    circuit: Circuit = field(default_factory=Circuit)
    away: bool = False
    """Whether it did not answer when it was last looked at."""
    rows: int = 0
    models: set[str] = field(default_factory=set)
    reason: str = ""


class ReplicaPool:
    """Implements `ModelBackend` over replicas, by name. Belongs to one event loop; `run` looks after them."""

    def __init__(self, replicas: Mapping[str, ModelBackend], *, admit: Admit | None = None) -> None:
        """`admit` makes a replica ready for a model; None loads it and no more."""
        assert replicas, "a pool has a replica"
        self._replicas = [_Replica(name, backend) for name, backend in replicas.items()]
        self._admit: Admit = admit or _load
        self._wanted: set[str] = set()
        self._latencies_s: deque[float] = deque(maxlen=_LATENCIES_KEPT)
        self._hedge_after_s: float | None = None
        self._usual_s = 0.0
        self.counts = PoolCounts()

    def states(self) -> tuple[ReplicaState, ...]:
        """Every replica, in the order given."""
        now_s = _now_s()
        return tuple(
            ReplicaState(
                each.name, each.away, each.circuit.state(now_s), each.rows, frozenset(each.models), each.reason
            )
            for each in self._replicas
        )

    async def infer(
        self, model: str, signature: ModelSignature, tensor: NDArray[np.float32], *, timeout_s: float
    ) -> _Outputs:
        """See `ModelBackend.infer`."""
        self.counts.calls += 1
        deadline_s = _now_s() + timeout_s
        tried: set[_Replica] = set()
        last: Unavailable | None = None
        while (left_s := deadline_s - _now_s()) > 0:
            replica = self._choose(model, tried)
            if replica is None:
                break
            if tried:
                self.counts.retries += 1
            tried.add(replica)
            try:
                return await self._ask(replica, tried, model, signature, tensor, left_s)
            except Unavailable as error:
                last = error
        raise last or self._nobody(model)

    async def ping(self) -> None:
        """Return when some replica answers. Raises Unavailable."""
        failures = await asyncio.gather(*(self._look_at(replica) for replica in self._replicas))
        if all(failures):
            raise Unavailable(PART, "; ".join(failures), retry_after_s=RETRY_AFTER_S)

    async def load(self, model: str) -> None:
        """Have every replica that answers load the model; the others do when they are back.

        Raises Unavailable where none answers, BundleRefused where one refuses it.
        """
        self._wanted.add(model)
        outcomes = await asyncio.gather(
            *(self._prepare(replica, model) for replica in self._replicas), return_exceptions=True
        )
        refusals = [each for each in outcomes if isinstance(each, BaseException)]
        unexpected = [each for each in refusals if not isinstance(each, Unavailable)]
        if unexpected:
            self._wanted.discard(model)
            raise unexpected[0]
        if len(refusals) == len(outcomes):
            raise refusals[0]

    async def unload(self, model: str) -> None:
        """Forget a model on every replica that answers."""
        self._wanted.discard(model)
        for replica in self._replicas:
            replica.models.discard(model)
            with contextlib.suppress(Unavailable):
                await replica.backend.unload(model)

    async def is_ready(self, model: str) -> bool:
        """Whether some replica would answer now."""
        ready = await asyncio.gather(*(self._is_ready(replica, model) for replica in self._replicas))
        return any(ready)

    async def run(self) -> None:
        """Look after the replicas until cancelled: who is back, and has its models."""
        while True:
            await asyncio.gather(*(self._recover(replica) for replica in self._replicas))
            await asyncio.sleep(HEALTH_EVERY_S)

    async def close(self) -> None:
        """Close every replica."""
        for replica in self._replicas:
            await replica.backend.close()

    def _choose(self, model: str, tried: set[_Replica]) -> _Replica | None:
        """The replica with the fewest rows under way that may be asked; None where there is none.

        One whose circuit is half open goes first: it is asked once, so that it can come back. Where no circuit is
        closed any is asked that answered when it was last looked at: it may fail, and refusing would surely.
        """
        now_s = _now_s()
        usable = [each for each in self._replicas if each not in tried and model in each.models and not each.away]
        for replica in usable:
            if replica.circuit.state(now_s) is CircuitState.HALF_OPEN and replica.circuit.admits(now_s):
                return replica
        healthy = [each for each in usable if each.circuit.state(now_s) is CircuitState.CLOSED]
        return min(healthy or usable, key=lambda each: each.rows, default=None)

    async def _ask(
        self,
        replica: _Replica,
        tried: set[_Replica],
        model: str,
        signature: ModelSignature,
        tensor: NDArray[np.float32],
        timeout_s: float,
    ) -> _Outputs:
        """One replica's answer, or that of a second one where the first takes unusually long."""
        if len(self._replicas) == 1 or self._hedge_after_s is None or self._hedge_after_s >= timeout_s:
            return await self._call(replica, model, signature, tensor, timeout_s)
        first = asyncio.ensure_future(self._call(replica, model, signature, tensor, timeout_s))
        try:
            await asyncio.wait({first}, timeout=self._hedge_after_s)
            if first.done() or self.counts.hedges >= HEDGE_SHARE_MAX * self.counts.calls:
                return await first
            other = self._choose(model, tried)
            if other is None:
                return await first
        except asyncio.CancelledError:
            first.cancel()
            raise
        tried.add(other)
        self.counts.hedges += 1
        second = asyncio.ensure_future(
            self._call(other, model, signature, tensor, timeout_s - (self._hedge_after_s or 0.0))
        )
        return await self._first_answer(first, second)

    async def _first_answer(self, first: "asyncio.Future[_Outputs]", second: "asyncio.Future[_Outputs]") -> _Outputs:
        try:
            done, _ = await asyncio.wait({first, second}, return_when=asyncio.FIRST_COMPLETED)
            winner = first if first in done else second
            if winner.exception() is not None:
                winner = second if winner is first else first
            outputs = await winner
        finally:
            for each in (first, second):
                each.cancel()
            # The loser's end is awaited by nobody, and its error is of no interest.
            await asyncio.gather(first, second, return_exceptions=True)
        if winner is second:
            self.counts.hedges_won += 1
        return outputs

    async def _call(
        self,
        replica: _Replica,
        model: str,
        signature: ModelSignature,
        tensor: NDArray[np.float32],
        timeout_s: float,
    ) -> _Outputs:
        started_s = _now_s()
        with _under_way(replica, len(tensor)):
            try:
                outputs = await replica.backend.infer(model, signature, tensor, timeout_s=timeout_s)
            except DeadlineExceeded as error:
                if timeout_s >= _SLOW_FACTOR * self._usual_s:
                    self._failed(replica, error)
                raise
            except Unavailable as error:
                if not await self._still_has(replica, model):
                    replica.models.discard(model)
                self._failed(replica, error)
                raise
        replica.circuit.succeeded()
        replica.reason = ""
        self._took(_now_s() - started_s)
        return outputs

    async def _still_has(self, replica: _Replica, model: str) -> bool:
        """Whether a replica that could not answer says that it has the model; one that says nothing may have it."""
        try:
            await replica.backend.ping()
        except Unavailable:
            return True
        return await replica.backend.is_ready(model)

    def _failed(self, replica: _Replica, error: SkewlessError) -> None:
        replica.circuit.failed(_now_s())
        replica.reason = error.message

    def _took(self, seconds: float) -> None:
        self._latencies_s.append(seconds)
        if len(self._latencies_s) >= _LATENCIES_MIN and self.counts.calls % _QUANTILE_EVERY == 0:
            ordered = sorted(self._latencies_s)
            self._usual_s = ordered[len(ordered) // 2]
            self._hedge_after_s = max(HEDGE_AFTER_MIN_S, ordered[int(HEDGE_QUANTILE * len(ordered))])

    async def _look_at(self, replica: _Replica) -> str:
        """Why a replica does not answer; empty when it does."""
        try:
            await replica.backend.ping()
        except SkewlessError as error:
            replica.away, replica.reason = True, error.message
            return f"{replica.name}: {error.message}"
        return ""

    async def _is_ready(self, replica: _Replica, model: str) -> bool:
        ready = await replica.backend.is_ready(model)
        if not ready:
            replica.models.discard(model)
        return ready and model in replica.models

    async def _prepare(self, replica: _Replica, model: str) -> None:
        try:
            await self._admit(replica.backend, model)
        except Unavailable as error:
            replica.away, replica.reason = True, error.message
            raise
        replica.models.add(model)

    async def _recover(self, replica: _Replica) -> None:
        """Bring one replica up to the models that it should have; one that was away is then asked again."""
        if await self._look_at(replica):
            return
        if replica.away:
            # It may be another process than before, with nothing loaded.
            replica.models = {model for model in replica.models if await replica.backend.is_ready(model)}
        for model in sorted(self._wanted - replica.models):
            try:
                await self._prepare(replica, model)
            except (BundleRefused, Unavailable) as error:
                replica.reason = error.message
                return
        if replica.away:
            replica.away, replica.reason = False, ""
            replica.circuit.succeeded()

    def _nobody(self, model: str) -> Unavailable:
        now_s = _now_s()
        told = "; ".join(
            f"{each.name}: {each.reason or ('no such model' if model not in each.models else 'left alone')}"
            for each in self._replicas
        )
        waits = [each.circuit.retry_after_s(now_s) for each in self._replicas]
        return Unavailable(PART, f"no replica can answer ({told})", retry_after_s=max(RETRY_AFTER_S, min(waits)))


async def _load(backend: ModelBackend, model: str) -> None:
    await backend.load(model)


@contextlib.contextmanager
def _under_way(replica: _Replica, rows: int) -> Iterator[None]:
    replica.rows += rows
    try:
        yield
    finally:
        replica.rows -= rows


def _now_s() -> float:
    return asyncio.get_running_loop().time()
