"""Batches on their way from producers to the stores: what comes in, what waits, and who brings it on.

accepted ──▶ online ──▶ done            a batch of rows: visible online first, then appended offline
    │          │
    └──────────┴──▶ failed ──▶ accepted (retried, as the last of its lane) or dropped
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from skewless.timestamps import Micros


class BatchKind(StrEnum):
    """What the rows of a batch are."""

    ROWS = "rows"
    """Feature rows of a view."""
    EVENTS = "events"
    """Raw events of a stream that aggregates are computed from."""


class BatchState(StrEnum):
    """How far a batch has come."""

    ACCEPTED = "accepted"
    """It is kept, and nobody can read it yet."""
    ONLINE = "online"
    """The online store has it."""
    DONE = "done"
    """Both stores have it; its rows are kept there alone."""
    FAILED = "failed"
    """It could not be delivered, for the reason that is kept with it; somebody has to decide."""
    DROPPED = "dropped"
    """Somebody decided that it is not wanted."""


WAITING = (BatchState.ACCEPTED, BatchState.ONLINE)
"""States of batches that the lane of their view still has work with."""


@dataclass(frozen=True, slots=True)
class IncomingRequest:
    """What one caller sent of a batch. `key` is its idempotency key, empty where it gave none.

    `digest` is that of what was sent, so that the same key with other rows is noticed; `answer` is what the caller is
    told, plain JSON without the batch's id, and told again to a repeat.
    """

    caller: str
    key: str
    digest: str
    rows: int
    answer: Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class IncomingBatch:
    """Rows of one view or stream from some requests, judged and ready to be kept.

    `rows` is an Arrow table with the source's column names and declared types. Its created time is `received_time`
    wherever the caller gave none.
    """

    kind: BatchKind
    name: str
    rows: Any
    requests: tuple[IncomingRequest, ...]
    received_time: Micros
    quality_run: str = ""
    event_time: str = ""
    """Name of the column of event times."""
    created_time: str = ""
    """Name of the column of created times; empty for what has none."""
    keys: tuple[str, ...] = ()
    """Names of the columns that say which entity a row is about; none: rows are never taken for restated ones."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of a batch that is kept. `duplicates`: rows that a later row of the same batch takes the place of."""

    id: str
    accepted_time: Micros
    rows: int
    duplicates: int


@dataclass(frozen=True, slots=True)
class StoredKey:
    """An idempotency key that was used: the digest of what came with it, its batch, and what the caller was told."""

    digest: str
    batch_id: str
    answer: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StoredState:
    """Where a batch stands. Times are None until then; `error` is why it is tried again or has failed."""

    id: str
    kind: BatchKind
    name: str
    number: int
    state: BatchState
    rows: int
    payload_bytes: int
    received_time: Micros
    accepted_time: Micros
    online_time: Micros | None
    offline_time: Micros | None
    tries: int
    error: str
    quality_run: str


@dataclass(frozen=True, slots=True)
class LaneState:
    """What waits in one lane or has failed, and how far it has come.

    `newest_event_time` is of what is online; None: nothing yet.
    """

    kind: BatchKind
    name: str
    waiting_batches: int
    waiting_rows: int
    waiting_bytes: int
    failed_batches: int
    failed_bytes: int
    oldest_accepted_time: Micros | None
    newest_event_time: Micros | None


@dataclass(frozen=True, slots=True, eq=False)
class StoredBatch:
    """A batch as its lane hands it on. `rows` is the Arrow table that was accepted.

    `lane` and `number` name it for ever: numbers grow with acceptance within a lane and with time, and a lane's id is
    made anew with its database, so that no number means two batches, also after a database was restored. Rows whose
    created time is `received_time` became known at `accepted_time`, which is later than that of any batch before.
    """

    id: str
    kind: BatchKind
    name: str
    lane: str
    number: int
    rows: Any
    received_time: Micros
    accepted_time: Micros


@dataclass(frozen=True, slots=True)
class Delivered:
    """What a handler has done with a batch. `is_whole`: both stores have it; False: `settle` brings it offline."""

    is_whole: bool


class LaneHandler(Protocol):
    """Brings the batches of one lane to the stores, in order, from one thread, under the lane's lease.

    Unavailable is for what passes, and is tried again. Anything else counts against the batch, which is set aside after
    some tries.
    """

    def deliver(self, batch: StoredBatch) -> Delivered:
        """Have the online store hold a batch. It may come again after a crash, and must have its effect once."""
        ...

    def settle(self, batches: Sequence[StoredBatch]) -> None:
        """Have the offline store hold batches that are online, in order; of them too some may come again."""
        ...


class TickingHandler(LaneHandler, Protocol):
    """A handler that has something to do without batches too."""

    def tick(self) -> bool:
        """Do it; True where more is due at once. Called in the lane's thread, under its lease."""
        ...
