"""What one lane does with its batches: online in the order of acceptance, offline together, and what fails set aside.

    accepted ─ deliver ─▶ online ─ settle, some seconds later, with others ─▶ done

A step is safe to be cut off anywhere. What it had done before is done again by whoever has the lane's lease next, with
no more effect than once. While a store is away its part is tried again at growing intervals, and order is kept; a
batch that a store refuses is set aside after LANE_TRIES_MAX tries, and those behind it go on.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from skewless.adapters.ingest_outbox import unpacked_rows
from skewless.errors import SkewlessError, Unavailable
from skewless.ingest_limits import (
    LANE_BATCHES_AT_ONCE,
    LANE_BYTES_AT_ONCE,
    LANE_RETRY_S,
    LANE_RETRY_S_MAX,
    LANE_SETTLE_ROWS,
    LANE_SETTLE_S,
    LANE_TRIES_MAX,
)
from skewless.ingestion.batches import BatchKind, BatchState, LaneHandler, StoredBatch
from skewless.registry.ingest_batches import IngestBatches, WaitingBatch
from skewless.registry.leases import Lease
from skewless.timestamps import Micros


@dataclass(frozen=True, slots=True)
class DeliveredBatch:
    """A batch that has come one step further. `offline_time` is None where only the online store has it yet."""

    kind: BatchKind
    name: str
    id: str
    rows: int
    accepted_time: Micros
    online_time: Micros
    offline_time: Micros | None


@dataclass(frozen=True, slots=True)
class DeliveryFailure:
    """What went wrong in a lane. `state` is `failed` where the batch was set aside; it is tried again otherwise.

    `batch_id` is empty where it is about no batch. `unexpected` is an error that nobody foresaw, with its trace.
    """

    kind: BatchKind
    name: str
    batch_id: str
    error: str
    state: BatchState
    unexpected: Exception | None = None


class Backoff:
    """When to try again: at once, then after pauses that double from LANE_RETRY_S to LANE_RETRY_S_MAX."""

    def __init__(self) -> None:
        self._pause_s = LANE_RETRY_S
        self.due_at = 0.0

    @property
    def is_due(self) -> bool:
        """Whether the pause is over."""
        return time.monotonic() >= self.due_at

    def failed(self) -> None:
        """Wait longer than last time."""
        self.due_at = time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, LANE_RETRY_S_MAX)

    def succeeded(self) -> None:
        """Wait no longer."""
        self._pause_s, self.due_at = LANE_RETRY_S, 0.0


@dataclass(frozen=True, slots=True)
class LaneListeners:
    """Who is told of what a lane does, in its thread; neither may raise."""

    on_delivered: Callable[[DeliveredBatch], None] = lambda _: None
    on_failure: Callable[[DeliveryFailure], None] = lambda _: None


class IngestLane:
    """The work of one lane; one thread at a time, which holds the lane's lease."""

    def __init__(
        self,
        kind: BatchKind,
        name: str,
        handler: LaneHandler,
        batches: IngestBatches,
        *,
        listeners: LaneListeners,
        settle_s: float = LANE_SETTLE_S,
    ) -> None:
        self._kind = kind
        self._name = name
        self._handler = handler
        self._batches = batches
        self._listeners = listeners
        self._settle_s = settle_s
        self._online, self._offline = Backoff(), Backoff()
        self._settle_at: float | None = 0.0  # whoever had the lane before may have left some
        self._unsettled_rows = 0

    def step(self, lease: Lease, stop: threading.Event) -> bool:
        """Deliver some of what waits, and say whether anything was done.

        Raises Conflict where the lease was lost, and Unavailable where the database is away.
        """
        settled = self._settles_now and self._settle(lease, stop)
        delivered = self._online.is_due and self._deliver(lease, stop)
        return delivered or settled

    @property
    def wait_s(self) -> float:
        """How long from now on nothing is to be done, unless something new is accepted or a pause ends before."""
        moments = [each.due_at for each in (self._online, self._offline) if not each.is_due]
        if self._settle_at is not None and self._offline.is_due:
            moments.append(self._settle_at)
        return max(0.0, min(moments, default=float("inf")) - time.monotonic())

    @property
    def is_idle(self) -> bool:
        """Whether nothing that it knows of is left to be done."""
        return self._settle_at is None and self._online.is_due and self._offline.is_due

    @property
    def _settles_now(self) -> bool:
        if self._settle_at is None or not self._offline.is_due:
            return False
        return time.monotonic() >= self._settle_at or self._unsettled_rows >= LANE_SETTLE_ROWS

    def _deliver(self, lease: Lease, stop: threading.Event) -> bool:
        found = self._waiting(BatchState.ACCEPTED)
        online: list[WaitingBatch] = []
        whole: list[WaitingBatch] = []
        failed: tuple[WaitingBatch, Exception] | None = None
        for each in found:
            if stop.is_set():
                break
            try:
                delivered = self._handler.deliver(self._stored(each))
            except Exception as error:  # noqa: BLE001  # a task's boundary: it is told, counted and tried again
                failed = each, error
                break
            (whole if delivered.is_whole else online).append(each)
        self._mark(lease, online, whole)
        if failed is not None:
            self._note(lease, *failed, self._online)
        elif found:
            self._online.succeeded()
        return bool(online or whole)

    def _mark(self, lease: Lease, online: Sequence[WaitingBatch], whole: Sequence[WaitingBatch]) -> None:
        if whole:
            moment = self._batches.mark_done(lease, [each.id for each in whole], was_online=False)
            self._tell(whole, moment, moment)
        if online:
            moment = self._batches.mark_online(lease, [each.id for each in online])
            self._tell(online, moment, None)
            self._unsettled_rows += sum(each.rows for each in online)
            if self._settle_at is None:
                self._settle_at = time.monotonic() + self._settle_s

    def _settle(self, lease: Lease, stop: threading.Event) -> bool:
        """Bring everything offline that is online, in commits of bounded size."""
        settled = False
        while not stop.is_set():
            found = self._waiting(BatchState.ONLINE)
            if not found:
                self._settle_at, self._unsettled_rows = None, 0
                break
            if not self._settle_some(lease, found):
                break
            self._offline.succeeded()
            settled = True
        return settled

    def _settle_some(self, lease: Lease, found: Sequence[WaitingBatch]) -> bool:
        try:
            self._handler.settle([self._stored(each) for each in found])
        except Exception as error:  # noqa: BLE001  # a task's boundary, as in _deliver
            if len(found) > 1 and not isinstance(error, Unavailable):
                # One by one, up to the one that is refused. What is behind it must wait: a table that has a later
                # number takes this one for done.
                return all(self._settle_some(lease, [each]) for each in found)
            self._note(lease, found[0], error, self._offline)
            return False
        moment = self._batches.mark_done(lease, [each.id for each in found], was_online=True)
        self._tell(found, None, moment)
        return True

    def _waiting(self, state: BatchState) -> list[WaitingBatch]:
        return self._batches.waiting(
            self._kind, self._name, state, batches_max=LANE_BATCHES_AT_ONCE, bytes_max=LANE_BYTES_AT_ONCE
        )

    def _stored(self, batch: WaitingBatch) -> StoredBatch:
        return StoredBatch(
            batch.id,
            self._kind,
            self._name,
            batch.lane,
            batch.number,
            unpacked_rows(batch.payload),
            batch.received_time,
            batch.accepted_time,
        )

    def _note(self, lease: Lease, batch: WaitingBatch, error: Exception, backoff: Backoff) -> None:
        """Keep why a batch was not delivered. A store that is away is not the batch's fault, anything else counts."""
        text = str(error) if isinstance(error, SkewlessError) else f"{type(error).__name__}: {error}"
        counts = not isinstance(error, Unavailable)
        backoff.failed()
        state = self._batches.note_problem(lease, batch.id, text, counts=counts, tries_max=LANE_TRIES_MAX)
        if state is BatchState.FAILED:
            backoff.succeeded()  # what is behind it need not wait
        unexpected = None if isinstance(error, SkewlessError) else error
        self._listeners.on_failure(DeliveryFailure(self._kind, self._name, batch.id, text, state, unexpected))

    def _tell(self, batches: Sequence[WaitingBatch], online: Micros | None, offline: Micros | None) -> None:
        for each in batches:
            moment = online if online is not None else each.online_time
            assert moment is not None, "what is settled was marked online"
            self._listeners.on_delivered(
                DeliveredBatch(self._kind, self._name, each.id, each.rows, each.accepted_time, moment, offline)
            )
