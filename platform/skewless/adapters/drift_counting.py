"""Counts logged predictions once: from the log store by files, from the stream by parts, through one ledger.

What is counted and that it was taken are one transaction, whichever way rows come; after any failure both or neither
are there. The counting itself is done before a transaction begins where rows come from the store, so that it is short.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from skewless.adapters.counted_rows import by_bundle_and_role, counted_columns, logged_parts, times_of
from skewless.adapters.log_following import LogBatch, LogFollower
from skewless.adapters.log_tables import PREDICTIONS
from skewless.adapters.segment_consumer import PartRows
from skewless.adapters.watched_bundles import WatchedBundles
from skewless.drift.batch_counts import BatchCounts
from skewless.drift.slicing import Slicing, slicings_of
from skewless.drift.watched_bundle import WatchedBundle
from skewless.errors import Conflict
from skewless.monitor_limits import DRIFT_AHEAD_S
from skewless.registry.consumed_segments import ConsumedSegments, Transaction, is_settled_from_store, streamed_rows
from skewless.registry.drift_counts import Counted, Sealing, add_counts
from skewless.registry.drift_files import drop_partials, note_files, note_partial
from skewless.registry.drift_records import DriftKey
from skewless.serving.monitoring_policy import DriftPolicy
from skewless.statistics.variable import Part
from skewless.timestamps import SECOND_US, Micros

GROUP = "drift"
"""What the ledger and the stream call the drift monitor's reading of the log."""


@dataclass(slots=True)
class _Batch:
    """What some rows of one endpoint add up to."""

    counts: dict[DriftKey, BatchCounts] = field(default_factory=dict)
    rows: int = 0
    uncounted_rows: int = 0
    problem: str | None = None

    @property
    def counted(self) -> list[Counted]:
        return [Counted(key, counts) for key, counts in sorted(self.counts.items())]


class DriftCounting:
    """See the module. Not for threads."""

    def __init__(
        self,
        ledger: ConsumedSegments,
        bundles: WatchedBundles,
        policy_of: Callable[[str], DriftPolicy],
        *,
        clock: Callable[[], Micros],
    ) -> None:
        self._ledger = ledger
        self._bundles = bundles
        self._policy_of = policy_of
        self._clock = clock
        self._slicings: dict[tuple[str, str, tuple[str, ...]], tuple[Slicing, ...]] = {}
        self.touched: set[DriftKey] = set()
        """Bundles in roles of which rows were counted since somebody emptied it."""
        self.slice_problems: dict[str, str] = {}
        """By endpoint: why a column of the policy makes no slices."""

    def take(self, follower: LogFollower, *, stopping: Callable[[], bool]) -> int | None:
        """Take the next rows of the log store; how many there were, None where nothing is new or it is to stop.

        Raises Unavailable, and Conflict where another process took some of them meanwhile: taking anew is right.
        """
        try:
            # Also a batch that could not be put together leaves the follower with files that nobody has counted.
            batch = follower.next_batch()
            if batch is None:
                return None
            counted = self._count_batch(follower, batch, stopping)
            if counted is None:
                return None
            with self._ledger.settling_days(GROUP, batch.units) as settling:
                _check_left(settling.left)
                self._add(settling.transaction, batch.endpoint, counted, pending_us=batch.pending_us)
                note_files(settling.transaction, batch.followed)
        except BaseException:
            follower.give_up()
            raise
        return counted.rows

    def handle(self, rows: PartRows, transaction: Transaction) -> bool:
        """Take rows of a part of the stream, in the transaction that notes them; whether windows were sealed."""
        if rows.kind != PREDICTIONS or is_settled_from_store(transaction, GROUP, rows.segment, rows.head.table):
            return False
        batch, policy = _Batch(), self._policy_of(rows.endpoint)
        self._count(batch, rows.endpoint, policy, rows.table.select(counted_columns(rows.table.column_names)))
        has_sealed = self._add(transaction, rows.endpoint, batch, pending_us=None)
        self._remember(rows, transaction)
        return has_sealed

    def _count_batch(self, follower: LogFollower, batch: LogBatch, stopping: Callable[[], bool]) -> _Batch | None:
        found, policy = _Batch(), self._policy_of(batch.endpoint)
        for table in follower.tables(batch, counted_columns):
            self._count(found, batch.endpoint, policy, table)
            if stopping():
                follower.give_up()
                return None
        return found

    def _count(self, batch: _Batch, endpoint: str, policy: DriftPolicy, table: Any) -> None:
        """Add the rows of a table to what a batch adds up to."""
        batch.rows += table.num_rows
        table = self._of_the_past(batch, table)
        for digest, role, rows in by_bundle_and_role(table):
            watched = self._bundles.get(digest)
            if watched is None:
                batch.uncounted_rows += rows.num_rows
                batch.problem = f"bundle {digest[:12]}: {self._bundles.gone[digest]}"
                continue
            key = DriftKey(endpoint, digest, role)
            if (counts := batch.counts.get(key)) is None:
                slicings = self.slicings(endpoint, watched, policy.slices)
                counts = batch.counts[key] = BatchCounts(watched, policy.window_us, slicings)
            for part in logged_parts(rows, watched):
                counts.add(part)

    def _of_the_past(self, batch: _Batch, table: Any) -> Any:
        """The rows whose `as_of` is not to come: one that is years ahead would seal and forget all before it."""
        ends_us = self._clock() + int(DRIFT_AHEAD_S * SECOND_US)
        ahead = np.asarray(times_of(table) > ends_us)
        if not ahead.any():
            return table
        rows = int(np.count_nonzero(ahead))
        batch.uncounted_rows += rows
        batch.problem = f"{rows} rows were asked as of a moment to come: the clock of a gateway is ahead, or a caller's"
        return table.filter(pa.array(~ahead))

    def _add(self, transaction: Transaction, endpoint: str, batch: _Batch, *, pending_us: int | None) -> bool:
        policy = self._policy_of(endpoint)
        self.touched |= batch.counts.keys()
        return add_counts(
            transaction,
            endpoint,
            batch.counted,
            Sealing(policy.window_us, policy.lateness_us, pending_us),
            now=self._clock(),
            uncounted_rows=batch.uncounted_rows,
            problem=batch.problem,
        )

    def _remember(self, rows: PartRows, transaction: Transaction) -> None:
        """Note the ids of rows whose segment has not come as a whole, for the store to leave them out if it must."""
        if len(rows.table) == rows.head.segment_rows:
            return
        before = streamed_rows(transaction, GROUP, rows.segment)
        if before is not None and before + len(rows.table) >= rows.head.segment_rows:
            drop_partials(transaction, rows.segment)
            return
        ids = rows.table.column("prediction_id").to_pylist()
        note_partial(transaction, rows.segment, rows.head.table, rows.first, ids, now=self._clock())

    def slicings(self, endpoint: str, watched: WatchedBundle, columns: tuple[str, ...]) -> tuple[Slicing, ...]:
        """The slices of a bundle's rows by some columns, those that cannot be sliced left out and told."""
        place = endpoint, watched.digest, columns
        if (found := self._slicings.get(place)) is None:
            found, problem = slicings_of(watched.of(Part.COLUMN), columns)
            self._slicings[place] = found
            self.slice_problems.pop(endpoint, None)
            if problem is not None:
                self.slice_problems[endpoint] = problem
        return found


def _check_left(left: Sequence[bool]) -> None:
    """Raise Conflict where somebody else took rows that were counted to be taken."""
    if not all(left):
        raise Conflict("another monitor took rows of the log meanwhile", hint="they are looked for anew")
