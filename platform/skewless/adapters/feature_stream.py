"""A consumer of feature rows and events from a stream: what it is given has its effect once, in the stream's order.

    records ─▶ of each view together: decoded, judged, kept in their order ─▶ acknowledged
                    ├── refused: to the stream of refused records, with the reason
                    └── of a view that takes nothing now: left in the stream

A record's place in the stream is its idempotency key, so that one that comes again, after a crash or from another
consumer, is found to be kept. Records of one view are kept in their order, so that none overtakes another of the same
row; while the database or the outbox is away or full they wait in the stream. A consumer ends only when told to.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from skewless.errors import SkewlessError, Unavailable
from skewless.ingest_limits import (
    FEATURE_STREAM_REASON_CHARACTERS,
    FEATURE_STREAM_TRIES_MAX,
    FEATURE_STREAM_WAIT_S,
    LANE_RETRY_S,
    LANE_RETRY_S_MAX,
)
from skewless.ingestion.batches import BatchKind

Result = TypeVar("Result")

FEATURE_STREAM = "feature stream"
"""The part that is unavailable where the stream's server is away."""


@dataclass(frozen=True, slots=True)
class StreamRecord:
    """One record. `place` names it within the stream for ever; `form` is `ndjson`, `json` or `arrow`.

    `token` is the stream's own, for acknowledging it.
    """

    kind: BatchKind
    name: str
    place: str
    body: bytes
    form: str
    token: object


class FeatureStream(Protocol):
    """A stream with one consumer of a group reading it. Every method raises Unavailable while its server is away."""

    def receive(self, wait_s: float) -> list[StreamRecord]:
        """Records in their order, as soon as there are any; none where none came in that time."""
        ...

    def acknowledge(self, records: Sequence[StreamRecord]) -> None:
        """Say that records need not come again."""
        ...

    def set_aside(self, record: StreamRecord, reason: str) -> None:
        """Keep a record that was refused where it can be looked at, with the reason; it is acknowledged after that."""
        ...

    def leave(self, records: Sequence[StreamRecord]) -> None:
        """Have records of one view or stream of events come again, in their order, once that is read next."""
        ...

    def close(self) -> None:
        """Leave. Records that were not acknowledged go to others, or to the next one of this name."""
        ...


TakeTogether = Callable[[Sequence[StreamRecord]], Sequence[SkewlessError | None] | None]
"""Keeps records of one view or stream of events in their order; what refuses each, None where it is kept.

A record that was kept before is kept. None instead of all: the view or stream takes nothing now, and its records are to
wait in the stream. Raises Unavailable where some could not be kept for now; then all of them are given again.
"""


@dataclass(slots=True)
class FeatureStreamCounts:
    """What a consumer has done since it was made."""

    records: int = 0
    refused: int = 0
    retries: int = 0
    problem: str = ""
    """Why it waits; empty where it does not."""


class FeatureStreamConsumer:
    """Takes records until it is told to stop; one thread."""

    def __init__(
        self,
        stream: FeatureStream,
        take: TakeTogether,
        *,
        on_refused: Callable[[StreamRecord, str], None] = lambda _record, _reason: None,
        on_problem: Callable[[str, Exception], None] = lambda _problem, _error: None,
    ) -> None:
        """`on_refused` is told of records that were set aside, `on_problem` of what is tried again."""
        self._stream = stream
        self._take = take
        self._on_refused = on_refused
        self._on_problem = on_problem
        self._tries: dict[str, int] = {}
        self._stop = threading.Event()
        self.counts = FeatureStreamCounts()

    def run(self, stop: threading.Event, *, idle_s: float | None = None) -> None:
        """Take records until told to stop, or until none came for `idle_s`. A server that is away is waited for."""
        self._stop = stop
        heard_at = time.monotonic()
        try:
            while not stop.is_set():
                records = self._persistently(partial(self._stream.receive, FEATURE_STREAM_WAIT_S)) or []
                for group in _by_lane(records):
                    self._persistently(partial(self._taken, group))
                if records:
                    heard_at = time.monotonic()
                elif idle_s is not None and time.monotonic() - heard_at >= idle_s:
                    return
        finally:
            self._stream.close()

    def _taken(self, records: Sequence[StreamRecord]) -> bool:
        """Take records of one lane and acknowledge them. Raises Unavailable; then all of them are to be taken again."""
        try:
            refusals = self._take(records)
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001  # a task's boundary: the stream must go on, and somebody be told
            return self._failed(records, error)
        if refusals is None:
            self._stream.leave(records)
            return True
        for record, refusal in zip(records, refusals, strict=True):
            if refusal is not None:
                self._refuse(record, str(refusal))
        self._stream.acknowledge(records)
        self.counts.records += len(records)
        for record in records:
            self._tries.pop(record.place, None)
        return True

    def _failed(self, records: Sequence[StreamRecord], error: Exception) -> bool:
        """Try records one by one where all of them failed together, and set aside what fails again and again."""
        self._on_problem(f"{type(error).__name__}: {error}", error)
        if len(records) > 1:
            return all(self._persistently(partial(self._taken, [each])) for each in records)
        (record,) = records
        tries = self._tries.get(record.place, 0) + 1
        self._tries[record.place] = tries
        if tries < FEATURE_STREAM_TRIES_MAX:
            raise Unavailable(FEATURE_STREAM, f"record {record.place} was not taken: {error}")
        del self._tries[record.place]
        self._refuse(record, f"{type(error).__name__}: {error}")
        self._stream.acknowledge(records)
        return True

    def _refuse(self, record: StreamRecord, reason: str) -> None:
        self._stream.set_aside(record, reason[:FEATURE_STREAM_REASON_CHARACTERS])
        self.counts.refused += 1
        self._on_refused(record, reason)

    def _persistently(self, act: Callable[[], Result]) -> Result | None:
        """What the act gives, tried again while something is away; None where the consumer is to stop meanwhile.

        What nobody foresaw is tried again too: a consumer that ended would leave rows lying, and nobody be told.
        """
        pause_s = LANE_RETRY_S
        while True:
            try:
                result = act()
            except Exception as error:  # noqa: BLE001  # a task's boundary
                told = error.message if isinstance(error, Unavailable) else f"{type(error).__name__}: {error}"
                self.counts.retries += 1
                self.counts.problem = told
                self._on_problem(told, error)
            else:
                self.counts.problem = ""
                return result
            if self._stop.wait(pause_s):
                return None
            pause_s = min(2 * pause_s, LANE_RETRY_S_MAX)


def _by_lane(records: Sequence[StreamRecord]) -> list[list[StreamRecord]]:
    """Records of each view or stream of events together, in their order."""
    groups: dict[tuple[BatchKind, str], list[StreamRecord]] = {}
    for record in records:
        groups.setdefault((record.kind, record.name), []).append(record)
    return list(groups.values())
