"""Counts rows that other bundles answered in the bins of a new one, so that it has a history before it has a past.

The log store is read a day at a time, from the new bundle's first window back. Only what both bundles read is counted:
columns, statuses and ages; scores are each model's own. A day is one transaction, and is put in the place of what was
counted of it before: it may be stopped anywhere, and goes on where it was.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skewless.adapters.counted_rows import counted_columns, foreign_part
from skewless.adapters.log_following import read_rows
from skewless.adapters.log_store import LogStore, StoredTable, translated
from skewless.adapters.log_tables import PREDICTIONS, day_of
from skewless.drift.batch_counts import BatchCounts, LoggedPart
from skewless.drift.rows import taken
from skewless.drift.slicing import Slicing, slicings_of
from skewless.drift.watched_bundle import WatchedBundle
from skewless.errors import InvalidRequest, NotFound
from skewless.monitor_limits import DRIFT_COARSE_DAYS, DRIFT_HISTORY_DAYS
from skewless.registry.drift_counts import Counted
from skewless.registry.drift_records import DriftKey, DriftRecount
from skewless.registry.drift_recounts import DriftRecounts, day_before
from skewless.registry.drift_scores import DriftScores
from skewless.rollout.routes import Role
from skewless.serving.monitoring_policy import DriftPolicy
from skewless.statistics.variable import Part
from skewless.timestamps import DAY_US

Stopping = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class RecountedBundle:
    """A bundle whose bins are counted in, and how its windows are cut."""

    watched: WatchedBundle
    policy: DriftPolicy
    slicings: tuple[Slicing, ...]


def recounted_bundle(watched: WatchedBundle, policy: DriftPolicy) -> RecountedBundle:
    """A bundle by an endpoint's policy."""
    return RecountedBundle(watched, policy, slicings_of(watched.of(Part.COLUMN), policy.slices)[0])


class DriftRecounting:
    """See the module. Not for threads."""

    def __init__(self, store: LogStore, recounts: DriftRecounts, scores: DriftScores) -> None:
        self._store = store
        self._recounts = recounts
        self._scores = scores

    def begin(self, key: DriftKey, policy: DriftPolicy, since_us: int | None = None) -> DriftRecount | None:
        """Begin, or reach further back; None where the bundle has answered nothing yet that is counted.

        `since_us` is how far back, as far as a detector looks where not given. Raises InvalidRequest for a moment that
        is further back than counts are kept.
        """
        first_us = self._scores.first_rows(key)
        if first_us is None:
            return None
        until_us = first_us // policy.window_us * policy.window_us
        wanted_us = until_us - DRIFT_HISTORY_DAYS * DAY_US if since_us is None else since_us
        if until_us - wanted_us > DRIFT_COARSE_DAYS * DAY_US:
            raise InvalidRequest(
                f"{(until_us - wanted_us) // DAY_US} days of earlier rows are asked for",
                path="--since",
                allowed=f"at most {DRIFT_COARSE_DAYS} days before the bundle's first own rows, {day_of(until_us)}",
            )
        return self._recounts.begin(key, wanted_us // DAY_US * DAY_US, until_us)

    def step(self, recount: DriftRecount, bundle: RecountedBundle, *, stopping: Stopping) -> DriftRecount:
        """Count the day that comes next; as it was where it is to stop. Days without rows are passed over.

        Raises Unavailable, and Conflict where another process counts the same.
        """
        tables = self._store.tables(PREDICTIONS, recount.key.endpoint)
        days = sorted({file.day for table in tables for file in table.entries})
        start_us = max(day_before(recount.next_us), recount.since_us)
        while day_of(start_us) not in days and start_us > recount.since_us:
            start_us = max(day_before(start_us), recount.since_us)
        counts = BatchCounts(bundle.watched, bundle.policy.window_us, bundle.slicings)
        for table in tables:
            if not self._count(counts, table, recount, start_us, stopping):
                return recount
        counted = [Counted(recount.key, counts)] if counts.rows else []
        return self._recounts.keep(recount, start_us, counted)

    def _count(
        self, counts: BatchCounts, table: StoredTable, recount: DriftRecount, start_us: int, stopping: Stopping
    ) -> bool:
        """Add a table's rows of a day; False where it is to stop."""
        for file in table.entries:
            if file.day != day_of(start_us):
                continue
            with translated(), table.fetched(file) as path:
                for rows in read_rows(path, counted_columns):
                    if stopping():
                        return False
                    answered = pc.equal(rows.column("role").cast(pa.string()), Role.LIVE.value)
                    part = foreign_part(rows.filter(answered), counts.watched)
                    counts.add(_between(part, start_us, recount.next_us))
        return True


def recount_all(
    recounting: DriftRecounting,
    key: DriftKey,
    bundle: RecountedBundle,
    *,
    since_us: int | None,
    progress: Callable[[DriftRecount], None],
    stopping: Stopping,
) -> DriftRecount:
    """Count all earlier rows of a key, as `skewless drift backfill` does. Raises NotFound where it has no own rows."""
    recount = recounting.begin(key, bundle.policy, since_us)
    if recount is None:
        raise NotFound(
            "traffic",
            f"{key.endpoint} by bundle {key.bundle[:12]} as {key.role}",
            hint="it is counted back from the bundle's first own rows; the monitor has counted none yet",
        )
    progress(recount)
    while not recount.is_done and not stopping():
        recount = recounting.step(recount, bundle, stopping=stopping)
        progress(recount)
    return recount


def _between(part: LoggedPart, start_us: int, end_us: int) -> LoggedPart:
    """The rows of a part within a time (µs)."""
    inside = (part.times_us >= start_us) & (part.times_us < end_us)
    if inside.all():
        return part
    places = np.flatnonzero(inside)
    return LoggedPart(taken(part.observed, places), part.times_us[places], part.absent)
