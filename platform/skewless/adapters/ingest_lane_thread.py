"""The thread of one lane: takes the lane's lease, works under it in turns, and ends when there is nothing to do."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

from skewless.adapters.ingest_lane import DeliveryFailure, IngestLane, LaneListeners
from skewless.errors import Conflict, SkewlessError, Unavailable
from skewless.ingest_limits import (
    LANE_COMPACT_S,
    LANE_IDLE_S,
    LANE_LEASE_S,
    LANE_POLL_S,
    LANE_RETRY_S_MAX,
    LANE_SETTLE_S,
    LANE_TICK_S,
    LANE_TURN_PAUSE_S,
    LANE_TURN_S,
)
from skewless.ingestion.batches import BatchKind, BatchState, LaneHandler, TickingHandler
from skewless.registry.ingest_batches import IngestBatches
from skewless.registry.leases import Lease, Leases, owner_text


def lane_lease(kind: BatchKind, name: str) -> str:
    """The name of the lease that whoever delivers a lane's batches holds.

    >>> lane_lease(BatchKind.ROWS, "clicks")
    'lane:rows:clicks'
    """
    return f"lane:{kind.value}:{name}"


@dataclass(frozen=True, slots=True)
class DeliveryTimes:
    """How long things take; tests shorten them. All in seconds."""

    lease_s: float = LANE_LEASE_S
    turn_s: float = LANE_TURN_S
    idle_s: float = LANE_IDLE_S
    settle_s: float = LANE_SETTLE_S
    compact_s: float = LANE_COMPACT_S


@dataclass(frozen=True, slots=True)
class LaneParts:
    """What all lanes of a process work with. `stop` ends them."""

    batches: IngestBatches
    leases: Leases
    handlers: Callable[[BatchKind, str], LaneHandler]
    listeners: LaneListeners
    times: DeliveryTimes
    stop: threading.Event


class LaneThread:
    """One lane that has work, or stands by for it."""

    def __init__(self, kind: BatchKind, name: str, parts: LaneParts) -> None:
        """Nothing runs before `start`."""
        self._kind = kind
        self._name = name
        self._parts = parts
        self._awake = threading.Event()
        self._renew_at = 0.0
        self._lease: Lease | None = None
        self._thread = threading.Thread(target=self._run, name=lane_lease(kind, name))

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._thread.is_alive()

    @property
    def is_holding(self) -> bool:
        """Whether it has the lane's lease, as far as it knows."""
        return self._lease is not None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait for its end."""
        self._thread.join(timeout_s)

    def wake(self) -> None:
        """Say that there is something to do."""
        self._awake.set()

    def renew(self) -> None:
        """Renew the lease where a third of its time is over; called by another thread. Raises Unavailable.

        One that was lost is left to the next mark, which finds that out for certain.
        """
        lease, lease_s = self._lease, self._parts.times.lease_s
        if lease is None or time.monotonic() < self._renew_at:
            return
        with suppress(Conflict):
            self._parts.leases.renew(lease, lease_s=lease_s)
        self._renew_at = time.monotonic() + lease_s / 3

    def _run(self) -> None:
        parts = self._parts
        try:
            handler = parts.handlers(self._kind, self._name)
            try:
                self._work(handler)
            finally:
                if (close := getattr(handler, "close", None)) is not None:
                    close()
        except SkewlessError as error:
            self._tell(str(error), None)
            parts.stop.wait(LANE_RETRY_S_MAX)  # it is started again while it has work
        except Exception as error:  # noqa: BLE001  # the thread's boundary: whoever runs the lanes must hear of it
            self._tell(f"{type(error).__name__}: {error}", error)
            parts.stop.wait(LANE_RETRY_S_MAX)

    def _work(self, handler: LaneHandler) -> None:
        parts = self._parts
        lane = IngestLane(
            self._kind,
            self._name,
            handler,
            parts.batches,
            listeners=parts.listeners,
            settle_s=parts.times.settle_s,
        )
        heard_at = time.monotonic()
        while not parts.stop.is_set():
            try:
                if not self._turn(lane, handler):
                    return
                heard_at = time.monotonic()
                parts.stop.wait(LANE_TURN_PAUSE_S)
            except Conflict:  # another process works on this lane, or does now
                if time.monotonic() - heard_at >= parts.times.idle_s:
                    return
                parts.stop.wait(LANE_POLL_S)
            except Unavailable as error:
                self._tell(str(error), None)
                parts.stop.wait(LANE_POLL_S)

    def _turn(self, lane: IngestLane, handler: LaneHandler) -> bool:
        """Work under the lease for as long as a turn is; False where there was nothing to do for some time."""
        parts = self._parts
        lease = parts.leases.take(lane_lease(self._kind, self._name), owner_text(), lease_s=parts.times.lease_s)
        self._renew_at = time.monotonic() + parts.times.lease_s / 3
        self._lease = lease
        try:
            return self._steps(lane, lease, handler)
        finally:
            self._lease = None
            with suppress(SkewlessError):  # it ends by itself
                parts.leases.release(lease)

    def _steps(self, lane: IngestLane, lease: Lease, handler: LaneHandler) -> bool:
        stop, times = self._parts.stop, self._parts.times
        ticks = hasattr(handler, "tick")
        begun_at = busy_at = time.monotonic()
        while not stop.is_set():
            self._awake.clear()
            busy = lane.step(lease, stop)
            if ticks:
                busy |= cast("TickingHandler", handler).tick()
            now = time.monotonic()
            if busy:
                busy_at = now
            elif lane.is_idle and not ticks and now - busy_at >= times.idle_s:
                return False
            if now - begun_at >= times.turn_s:
                return True
            if not busy:
                self._awake.wait(min(lane.wait_s, LANE_TICK_S if ticks else LANE_POLL_S))
        return True

    def _tell(self, error: str, unexpected: Exception | None) -> None:
        failure = DeliveryFailure(self._kind, self._name, "", error, BatchState.ACCEPTED, unexpected)
        self._parts.listeners.on_failure(failure)
