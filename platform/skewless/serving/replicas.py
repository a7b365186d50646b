"""One model backend out of several replicas of it: the least loaded answers, a sick one is left alone until it is well.

    call ──▶ the replica with the fewest rows under way, of those that have the model and that nothing speaks against
               │ no answer within what nearly all calls take ──▶ the same call to another one; the first answer counts
               └ no answer, or a wrong one ──▶ the next replica, while time is left

Inference has no effects, so asking twice is safe; how often a call is doubled is bounded by a budget. What speaks
against a replica: it did not answer when it was looked at (away), its last calls failed (circuit), or it does much
worse than the others (ejected). One that came back loads the models that it should have, and answers for each once it
gives the golden outputs again. One that is well but refuses every call of a model, such as a Triton that lost the
process of it, unloads and loads that model. One server is a pool of one: it is looked after in the same way.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from skewless.errors import BundleRefused, DeadlineExceeded, Overloaded, SkewlessError, Unavailable
from skewless.limits import RETRY_AFTER_S
from skewless.serving.circuit import Circuit, CircuitState
from skewless.serving.model_outputs import CallRefused, WrongOutputs
from skewless.serving.model_refusals import ModelRefusals
from skewless.serving.ports import ModelBackend, ModelSignature
from skewless.serving.replica_health import ReplicaHealth, worst

PART = "model backend"
HEALTH_EVERY_S = 0.5
"""Between two looks at a replica. Calls notice a failure themselves; the looks notice that it is over."""
LOOK_S = 0.5
"""How long a look waits for its answer."""
MISSES_MAX = 2
"""Looks and calls in a row that got no answer in time, before a replica is taken for away: a machine that is busy for a
moment misses one. One that refuses connections is away at once."""
HEDGE_QUANTILE = 0.95
HEDGE_SHARE_MAX = 0.05
"""Of all calls, at most so many are doubled: a backend that is slow for everybody must not be asked twice as much."""
HEDGES_SAVED_MAX = 8.0
"""So many doubled calls may be saved up, so that hours without any allow no burst of them."""
HEDGE_AFTER_MIN_S = 0.002
EJECTED_MIN_S = 2.0
EJECTED_MAX_S = 60.0
"""How long a replica is left alone that does worse than the others: longer each time in a row."""
_JUDGED_EVERY = 16
_LATENCIES_KEPT = 256
_LATENCIES_MIN = 32
_QUANTILE_EVERY = 32
_SLOW_FACTOR = 10.0
_SLOW_MIN_S = 0.02
"""A call that got so many times the usual time and no answer speaks against its replica; a shorter one does not."""
_RECENT_S = 1.0
"""Whoever answered a call within this time lives, whatever its circuit says."""

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
    ejections: int = 0
    reloads: int = 0
    """Models unloaded and loaded because a replica refused every call of them."""


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """One replica as it is now."""

    name: str
    away: bool
    """Whether it does not answer."""
    circuit: CircuitState
    openings: int
    """How often its circuit has opened."""
    ejected: bool
    """Whether it is left alone because it does worse than others."""
    rows: int
    """Under way."""
    models: frozenset[str]
    """Ready."""
    reason: str
    """Why it was last not available; empty when it is."""

    @property
    def answers(self) -> bool:
        """Whether it is asked in its turn."""
        return not self.away and not self.ejected and self.circuit is CircuitState.CLOSED


@dataclass(slots=True, eq=False)
class _Replica:
    name: str
    backend: ModelBackend
    circuit: Circuit = field(default_factory=Circuit)
    health: ReplicaHealth = field(default_factory=ReplicaHealth)
    away: bool = False
    misses: int = 0
    """Looks and calls in a row without an answer in time."""
    rows: int = 0
    models: set[str] = field(default_factory=set)
    """Ready."""
    refused: set[str] = field(default_factory=set)
    """Models that it could not load, or of which it gave other outputs than the golden ones."""
    refusals: ModelRefusals = field(default_factory=ModelRefusals)
    """Of calls."""
    turns: dict[str, asyncio.Lock] = field(default_factory=dict)
    """By model: it is made ready by one at a time."""
    doubted: bool = False
    """Whether it may have lost models, and is to be asked which it still has."""
    answered_s: float = -_RECENT_S
    """When it last answered a call."""
    ejected_until_s: float = 0.0
    ejected_times: int = 0
    reason: str = ""
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    """Set to have it looked at now."""

    def forget(self, model: str) -> None:
        """Remember nothing of what a model did here."""
        self.refusals.forget(model)
        self.turns.pop(model, None)


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
        self._hedges_saved = 0.0
        self._usual_s = 0.0
        self._reloading = asyncio.Lock()
        """One replica at a time loads a model anew, so that the others go on answering."""
        self.counts = PoolCounts()

    def states(self) -> tuple[ReplicaState, ...]:
        """Every replica, in the order given."""
        now_s = _now_s()
        return tuple(
            ReplicaState(
                each.name,
                each.away,
                each.circuit.state(now_s),
                each.circuit.openings,
                now_s < each.ejected_until_s,
                each.rows,
                frozenset(each.models),
                each.reason,
            )
            for each in self._replicas
        )

    async def infer(
        self, model: str, signature: ModelSignature, tensor: NDArray[np.float32], *, timeout_s: float
    ) -> _Outputs:
        """See `ModelBackend.infer`."""
        self.counts.calls += 1
        self._hedges_saved = min(HEDGES_SAVED_MAX, self._hedges_saved + HEDGE_SHARE_MAX)
        deadline_s = _now_s() + timeout_s
        tried: list[_Replica] = []
        refusers: list[_Replica] = []
        last: Unavailable | BundleRefused | None = None
        while (left_s := deadline_s - _now_s()) > 0:
            replica = self._choose(model, tried)
            if replica is None:
                break
            self.counts.retries += bool(tried)
            tried.append(replica)
            try:
                outputs = await self._ask(replica, tried, model, signature, tensor, left_s)
            except Unavailable as error:
                last = error
            except BundleRefused as error:
                last = error
                refusers.append(replica)
            else:
                for each in refusers:  # another one can answer the same call, so it is not the call's fault
                    self._failed(each, "it refuses what another replica answers")
                return outputs
        raise last or self._nobody(model)

    async def ping(self) -> None:
        """Return when some replica answers. Raises Unavailable."""
        failures = await asyncio.gather(*(self._look_at(replica) for replica in self._replicas))
        if all(failures):
            told = "; ".join(f"{each.name}: {failure}" for each, failure in zip(self._replicas, failures, strict=True))
            raise Unavailable(PART, told, retry_after_s=RETRY_AFTER_S)

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
            replica.forget(model)
            with contextlib.suppress(Unavailable):
                await replica.backend.unload(model)

    def forget(self, model: str) -> None:
        """Load a model no more on replicas that come back. Where it is loaded it stays, for others."""
        self._wanted.discard(model)
        for replica in self._replicas:
            replica.forget(model)

    async def is_ready(self, model: str) -> bool:
        """Whether some replica would answer now."""
        ready = await asyncio.gather(*(self._is_ready(replica, model) for replica in self._replicas))
        return any(ready)

    async def run(self) -> None:
        """Look after the replicas until cancelled: who is away, who is back, and has its models."""
        async with asyncio.TaskGroup() as group:
            for replica in self._replicas:
                group.create_task(self._tend(replica))

    async def close(self) -> None:
        """Close every replica."""
        for replica in self._replicas:
            await replica.backend.close()

    def _choose(self, model: str, tried: list[_Replica]) -> _Replica | None:
        """The replica with the fewest rows under way that may be asked; None where there is none.

        One whose circuit is half open goes first: it is asked once, so that it can come back. Where nobody else is
        left, one that is ejected or whose circuit is open is asked all the same if it answered a moment ago: it lives.
        """
        now_s = _now_s()
        usable = [each for each in self._replicas if each not in tried and model in each.models and not each.away]
        for replica in usable:
            if replica.circuit.state(now_s) is CircuitState.HALF_OPEN and replica.circuit.admits(now_s):
                return replica
        closed = [each for each in usable if each.circuit.state(now_s) is CircuitState.CLOSED]
        best = [each for each in closed if now_s >= each.ejected_until_s] or closed
        alive = best or [each for each in usable if now_s - each.answered_s < _RECENT_S]
        return min(alive, key=lambda each: each.rows, default=None)

    async def _ask(
        self,
        replica: _Replica,
        tried: list[_Replica],
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
            if first.done() or self._hedges_saved < 1.0:
                return await first
            other = self._choose(model, tried)
            if other is None:
                return await first
        except asyncio.CancelledError:
            first.cancel()
            raise
        tried.append(other)
        self.counts.hedges += 1
        self._hedges_saved -= 1.0
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
            except Overloaded:
                raise  # it has as much to do as it can bear, which is no sickness
            except DeadlineExceeded as error:
                if timeout_s >= max(_SLOW_MIN_S, _SLOW_FACTOR * self._usual_s):
                    replica.misses += 1
                    self._failed(replica, error.message)
                    replica.refusals.refused(model)  # a Triton without the model's process takes a second to say so
                raise
            except Unavailable as error:
                replica.doubted = True
                self._failed(replica, error.message)
                raise
            except CallRefused as error:
                self._refused(replica, model, error)
                raise
        if replica.refusals.in_a_row:
            replica.refusals.in_a_row.pop(model, None)
        self._answered(replica, _now_s() - started_s)
        return outputs

    def _answered(self, replica: _Replica, took_s: float) -> None:
        replica.answered_s = _now_s()
        replica.misses = 0
        if replica.circuit.failures:
            replica.circuit.succeeded()
            replica.reason = ""
        replica.health.answered(took_s)
        self._latencies_s.append(took_s)
        calls = self.counts.calls
        if len(self._latencies_s) >= _LATENCIES_MIN and calls % _QUANTILE_EVERY == 0:
            ordered = sorted(self._latencies_s)
            self._usual_s = ordered[len(ordered) // 2]
            self._hedge_after_s = max(HEDGE_AFTER_MIN_S, ordered[int(HEDGE_QUANTILE * len(ordered))])
        if len(self._replicas) > 1 and calls % _JUDGED_EVERY == 0:
            self._judge()

    def _failed(self, replica: _Replica, reason: str) -> None:
        replica.circuit.failed(_now_s())
        replica.health.failed()
        replica.reason = reason
        replica.wake.set()

    def _refused(self, replica: _Replica, model: str, error: CallRefused) -> None:
        if isinstance(error, WrongOutputs):  # which no call can be to blame for
            replica.doubted = True
            self._failed(replica, error.message)
        if replica.refusals.refused(model):
            replica.wake.set()

    def _judge(self) -> None:
        """Leave the replica alone for a while that does much worse than the others; at most half of them at a time."""
        now_s = _now_s()
        present = [each for each in self._replicas if not each.away and now_s >= each.ejected_until_s]
        if 2 * (len(self._replicas) - len(present) + 1) > len(self._replicas):
            return
        found = worst([each.health for each in present])
        if found is None:
            return
        place, reason = found
        replica = present[place]
        replica.ejected_until_s = now_s + min(EJECTED_MAX_S, EJECTED_MIN_S * 2**replica.ejected_times)
        replica.ejected_times = min(replica.ejected_times + 1, 10)
        replica.reason = f"left alone for a while: {reason}"
        for each in present:
            each.health.forget()
        self.counts.ejections += 1

    async def _look_at(self, replica: _Replica) -> str:
        """Why a replica is away; empty where it is not, or has answered a call since the look began."""
        began_s = _now_s()
        try:
            async with asyncio.timeout(LOOK_S):
                await replica.backend.ping()
        except (SkewlessError, TimeoutError) as error:
            if replica.answered_s >= began_s:
                return ""
            replica.misses += 1
            is_slow = isinstance(error, TimeoutError | DeadlineExceeded)
            if is_slow and replica.misses < MISSES_MAX:
                return ""
            replica.away = True
            replica.reason = "it does not answer in time" if is_slow else str(error)
            return replica.reason
        replica.misses = 0
        return ""

    async def _is_ready(self, replica: _Replica, model: str) -> bool:
        ready = await replica.backend.is_ready(model)
        if not ready and model in replica.models:
            # It may be busy, away, or have lost the model: whoever tends it finds out.
            replica.doubted = True
            replica.wake.set()
        return ready and model in replica.models

    async def _prepare(self, replica: _Replica, model: str) -> None:
        async with replica.turns.setdefault(model, asyncio.Lock()):
            try:
                await self._admit_or_reload(replica, model)
            except Unavailable as error:
                replica.reason = error.message
                raise
            replica.models.add(model)
            replica.refused.discard(model)
            replica.refusals.in_a_row.pop(model, None)
            self._back_if_whole(replica)

    async def _admit_or_reload(self, replica: _Replica, model: str) -> None:
        """Admit a model; one that was there already and refuses the golden rows too is loaded anew, once in a while."""
        was_there = await replica.backend.is_ready(model)
        try:
            await self._admit(replica.backend, model)
        except CallRefused as error:
            if not was_there or not replica.refusals.may_reload(model, _now_s()):
                raise
            replica.models.discard(model)  # nobody asks for it here meanwhile
            replica.reason = f"loads model `{model}` anew, of which it refused every call: {error.message}"
        else:
            return
        async with self._reloading:
            replica.refusals.tried(model, _now_s())
            self.counts.reloads += 1
            await replica.backend.unload(model)
            await self._admit(replica.backend, model)
        replica.circuit.succeeded()  # it was the model's process that was gone
        replica.reason = ""

    def _back_if_whole(self, replica: _Replica) -> None:
        """Ask a replica again that was away, once it has every model: here and now, not at the next look."""
        if replica.away and self._wanted <= replica.models | replica.refused and not replica.doubted:
            replica.away, replica.misses, replica.reason = False, 0, ""
            replica.circuit.succeeded()
            replica.health.forget()

    async def _tend(self, replica: _Replica) -> None:
        while True:
            replica.wake.clear()
            await self._recover(replica)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEALTH_EVERY_S):
                    await replica.wake.wait()

    async def _recover(self, replica: _Replica) -> None:
        """Bring one replica up to the models that it should have; one that was away is then asked again."""
        if await self._look_at(replica):
            replica.doubted = True  # it may come back as another process, with nothing loaded
            return
        if replica.misses:
            return
        if replica.doubted and not await self._found_out(replica):
            return
        await self._try_refused(replica)
        for model in sorted(self._wanted - replica.models):
            try:
                await self._prepare(replica, model)
            except BundleRefused as error:  # which must not keep it from answering for its other models
                replica.refused.add(model)
                replica.reason = error.message
            except Unavailable as error:
                replica.reason = error.message
                return
        self._back_if_whole(replica)

    async def _try_refused(self, replica: _Replica) -> None:
        """See whether a replica still runs the models of which it answers no call, or have it load them anew.

        The golden rows tell: where it takes them, the fault is the callers'. Where it does not answer in time, nobody
        asks it any more until it does, so that what waits in it comes to an end and it can say what is wrong.
        """
        for model in replica.refusals.due(_now_s()):
            if model not in replica.models:
                continue  # it is made ready again in any case
            try:
                await self._prepare(replica, model)
            except BundleRefused as error:
                replica.models.discard(model)
                replica.reason = error.message
            except Unavailable:
                return
            else:
                replica.refusals.tried(model, _now_s())

    async def _found_out(self, replica: _Replica) -> bool:
        """Ask a replica which of its models it still has; False where it does not say."""
        lost = {model for model in replica.models if not await replica.backend.is_ready(model)}
        if lost and (await self._look_at(replica) or replica.misses):
            return False
        replica.doubted = False
        if lost:
            replica.models -= lost
            replica.circuit.succeeded()  # it was the models that were gone, and they are loaded again
        return True

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
