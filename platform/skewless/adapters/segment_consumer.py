"""A consumer of the segments on a stream whose effect happens once, whatever is delivered again.

    def count(rows: PartRows, transaction: Transaction) -> None:
        transaction.execute(…)                       # kept together with the ledger's row, or not at all

    SegmentConsumer(stream, ledger, group="drift", name="drift-1").run(count, stop=stop)

A part is acknowledged to the stream only after its transaction: a consumer that dies before has no effect and gets the
part again, one that dies after finds in the ledger that its rows were taken.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from skewless.adapters.segment_parts import DamagedPart, PartHead, rows_of
from skewless.adapters.segment_stream import Delivery, PartReader, SegmentStream
from skewless.errors import Conflict, Unavailable
from skewless.limits import STREAM_RETRY_S, STREAM_RETRY_S_MAX, STREAM_WAIT_S
from skewless.registry.consumed_segments import ConsumedSegments, DeliveredRows, SegmentGap, Transaction
from skewless.registry.row_ranges import rows_in

_FORGET_EVERY_S = 60.0

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class PartRows:
    """Rows of one table of a segment that the group has not taken before; `first` is the place of the first of them.

    `table` is an Arrow table with the columns of docs/prediction-log.md, `kind` and `endpoint` say which; `head` is
    what the part said of itself.
    """

    head: PartHead
    first: int
    table: Any

    @property
    def kind(self) -> str:
        """`predictions`, `outcomes` or `tallies`."""
        return self.head.kind

    @property
    def endpoint(self) -> str:
        """Of predictions; empty for others."""
        return self.head.endpoint

    @property
    def segment(self) -> str:
        """The segment that the rows are of."""
        return self.head.segment


Handle = Callable[[PartRows, Transaction], None]
"""The effect of some rows, in a transaction that it neither commits nor keeps. It may be called again after an error.

Nothing outside of the transaction is undone: what cannot be done twice belongs into it.
"""


@dataclass(slots=True)
class ConsumerCounts:
    """What a consumer has done since it was made."""

    parts: int = 0
    rows: int = 0
    repeated: int = 0
    """Parts that were delivered again though all their rows were taken."""
    damaged: int = 0
    """Entries that are no parts, or were trimmed before they were read; their segments are told by `missed`."""
    gaps: int = 0
    retries: int = 0


class SegmentConsumer:
    """One member of a group. Its name must be its own among those that run; to keep it over restarts is best."""

    def __init__(
        self,
        stream: SegmentStream,
        ledger: ConsumedSegments,
        *,
        group: str,
        name: str,
        on_gap: Callable[[SegmentGap], None] | None = None,
        on_problem: Callable[[str], None] | None = None,
    ) -> None:
        """`on_gap` is told of segments that the stream no longer had, `on_problem` of what went wrong and is tried
        again or passed over."""
        self._stream = stream
        self._ledger = ledger
        self._group = group
        self._name = name
        self._on_gap = on_gap
        self._on_problem = on_problem
        self._stop = threading.Event()
        self._forget_at = 0.0
        self.counts = ConsumerCounts()

    def run(self, handle: Handle, *, stop: threading.Event | None = None, idle_s: float | None = None) -> None:
        """Take parts until told to stop, or until none came for `idle_s`. A server that is away is waited for.

        Raises whatever `handle` raises; the part is then delivered again to whoever runs next. Raises
        InvalidDefinition at a part that a newer version wrote.
        """
        self._stop = stop or threading.Event()
        reader = self._stream.reader(self._group, self._name)
        heard_at = time.monotonic()
        try:
            while not self._stop.is_set():
                deliveries = self._persistently(partial(reader.receive, STREAM_WAIT_S)) or []
                self._take_all(reader, deliveries, handle)
                if deliveries:
                    heard_at = time.monotonic()
                elif idle_s is not None and time.monotonic() - heard_at >= idle_s:
                    return
                self._forget_now_and_then()
        finally:
            reader.close()

    def _take_all(self, reader: PartReader, deliveries: list[Delivery], handle: Handle) -> None:
        """Take parts in order, then acknowledge them together. After an error none is; the ledger knows them."""
        taken: list[Delivery] = []
        for delivery in deliveries:
            if self._stop.is_set() or self._persistently(partial(self._take, delivery, handle)) is None:
                break
            taken.append(delivery)
        if taken:
            self._persistently(partial(_acknowledged, reader, taken))

    def _take(self, delivery: Delivery, handle: Handle) -> bool:
        """The effect of a part, once. Raises Unavailable and Conflict where it did not happen."""
        if delivery.part is None:
            return self._passed_over(delivery.problem)
        try:
            table = rows_of(delivery.part)
        except DamagedPart as damaged:
            return self._passed_over(str(damaged))
        head = delivery.part.head
        end = head.first + head.rows
        rows = DeliveredRows(head.segment, head.source, head.sequence, head.segment_rows, head.table, head.first, end)
        with self._ledger.taking(self._group, rows) as taking:
            for first, range_end in taking.ranges:
                part_rows = PartRows(head, first, table.slice(first - head.first, range_end - first))
                handle(part_rows, taking.transaction)
        self.counts.parts += 1
        self.counts.rows += rows_in(taking.ranges)
        self.counts.repeated += not taking.ranges
        if taking.gap is not None:
            self.counts.gaps += 1
            if self._on_gap is not None:
                self._on_gap(taking.gap)
        return True

    def _passed_over(self, problem: str) -> bool:
        """Count what cannot be read. It would stop its group for ever, and its rows are in the log store."""
        self.counts.damaged += 1
        self._tell(problem)
        return True

    def _persistently(self, act: Callable[[], Result]) -> Result | None:
        """What the act gives, tried again while a server is away; None where the consumer is to stop meanwhile."""
        pause_s = STREAM_RETRY_S
        while True:
            try:
                return act()
            except (Unavailable, Conflict) as error:
                self.counts.retries += 1
                self._tell(str(error))
            if self._stop.wait(pause_s):
                return None
            pause_s = min(2 * pause_s, STREAM_RETRY_S_MAX)

    def _tell(self, problem: str) -> None:
        if self._on_problem is not None:
            self._on_problem(problem)

    def _forget_now_and_then(self) -> None:
        if time.monotonic() >= self._forget_at:
            self._forget_at = time.monotonic() + _FORGET_EVERY_S
            self._persistently(lambda: self._ledger.forget(self._group))


def _acknowledged(reader: PartReader, taken: list[Delivery]) -> bool:
    reader.acknowledge(taken)
    return True
