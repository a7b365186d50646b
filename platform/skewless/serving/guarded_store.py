"""An online store that costs nobody a wait while it is away: reads are refused at once until it answers again.

    read ──circuit closed──▶ store ──fails three times in a row──▶ circuit open: Unavailable at once
                                                                     └──a PING is answered──▶ closed

It is the guard's own PING that finds out that an outage is over, every PROBE_EVERY_S, so that no request has to.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from skewless.errors import DeadlineExceeded, SkewlessError, Unavailable
from skewless.features.online_store import Invalidate, OnlineStore, Reply, TrackedStore
from skewless.limits import RETRY_AFTER_S
from skewless.serving.circuit import Circuit, CircuitState

PART = "online store"
PROBE_EVERY_S = 0.2
SLOW_MIN_S = 0.02
SLOW_FACTOR = 10.0
"""A read that got so many times the usual time, and SLOW_MIN_S, speaks against the store where it got no answer. One
that its caller gave less says nothing, so that nobody in a hurry can have the store taken for dead."""
_USUAL_WEIGHT = 0.05
"""Of a new measurement in the usual time of a read."""


class _Store(OnlineStore, TrackedStore, Protocol):
    """What is guarded; reads that are tracked only where somebody subscribes."""


class GuardedStore:
    """Implements `OnlineStore` and `TrackedStore` over another one. Belongs to one event loop; `run` ends outages.

    Where nobody runs it, a read that comes after the circuit's pause is let through as the probe.
    """

    def __init__(self, store: _Store, *, clock: Callable[[], float]) -> None:
        """`clock` gives seconds that never go back."""
        self._store = store
        self._clock = clock
        self._circuit = Circuit()
        self._usual_s = 0.0
        self._reason = ""
        self._opened = asyncio.Event()
        self._probed = False

    @property
    def state(self) -> CircuitState:
        """What would happen to a read now."""
        return self._circuit.state(self._clock())

    @property
    def openings(self) -> int:
        """How often the store was given up so far."""
        return self._circuit.openings

    async def read(self, keys: Sequence[bytes], commands: Sequence[bytes], *, timeout_s: float) -> list[Reply]:
        """See `OnlineStore.read`. Raises Unavailable at once while the circuit is open."""
        self._refuse_if_open()
        return await self._answered(self._store.read(keys, commands, timeout_s=timeout_s), timeout_s)

    async def read_tracked(self, keys: Sequence[bytes], commands: Sequence[bytes], *, timeout_s: float) -> list[Reply]:
        """See `TrackedStore.read_tracked`. Raises Unavailable at once while the circuit is open."""
        self._refuse_if_open()
        return await self._answered(self._store.read_tracked(keys, commands, timeout_s=timeout_s), timeout_s)

    def subscribe(self, invalidate: Invalidate) -> None:
        """See `TrackedStore.subscribe`."""
        self._store.subscribe(invalidate)

    async def ping(self) -> None:
        """Ask the store, whatever the circuit says. Raises Unavailable."""
        await self._store.ping()

    async def close(self) -> None:
        """Close the store."""
        await self._store.close()

    async def run(self) -> None:
        """Find out when an outage is over, until cancelled."""
        self._probed = True
        try:
            while True:
                await self._opened.wait()
                if await self._is_back():
                    self._close_circuit()
                else:
                    await asyncio.sleep(PROBE_EVERY_S)
        finally:
            self._probed = False

    def _refuse_if_open(self) -> None:
        circuit = self._circuit
        if not circuit.failures:
            return
        now_s = self._clock()
        if circuit.state(now_s) is CircuitState.CLOSED or (not self._probed and circuit.admits(now_s)):
            return
        raise Unavailable(
            PART,
            f"it is left alone until it answers again ({self._reason})",
            retry_after_s=RETRY_AFTER_S,
            hint="check that Redis or Valkey is up and answers; the gateway tries it several times a second",
        )

    async def _answered(self, call: Awaitable[list[Reply]], timeout_s: float) -> list[Reply]:
        started_s = self._clock()
        try:
            replies = await call
        except DeadlineExceeded as error:
            if timeout_s >= max(SLOW_MIN_S, SLOW_FACTOR * self._usual_s):
                self._failed(error)
            raise
        except Unavailable as error:
            self._failed(error)
            raise
        self._usual_s += _USUAL_WEIGHT * (self._clock() - started_s - self._usual_s)
        if self._circuit.failures:
            self._close_circuit()
        return replies

    def _failed(self, error: SkewlessError) -> None:
        self._circuit.failed(self._clock())
        self._reason = error.message
        if self._circuit.state(self._clock()) is not CircuitState.CLOSED:
            self._opened.set()

    def _close_circuit(self) -> None:
        self._circuit.succeeded()
        self._opened.clear()
        self._reason = ""

    async def _is_back(self) -> bool:
        try:
            await self._store.ping()
        except Unavailable:
            return False
        return True
