"""Materializes views: rows that may have become visible since the last run go into the online store, and are checked.

    plan       watermark, mark in the store, unfinished run     ─▶ which rows are taken, and why; or what goes on
    judge      the quality gate, by the caller                  ─▶ those of them that may go on
    expect     what is visible offline of a sample of the entities
    write      part by part of the entities: newest of each     ─▶ online store and its mark, then the database
    verify     the sample, online against what was expected
    finish     mark in the store, Feast's record, watermark     ─▶ in this order

Killed anywhere it has written some rows, each whole, and the next run goes on at the first part that is not in both.
Writing a part again changes nothing. The watermark is the last thing that moves, so nothing that was taken is skipped.
No key is ever deleted and nothing that gates reads is touched: serving goes on meanwhile.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from typing import Protocol

import numpy as np
import uuid_utils
from numpy.typing import NDArray

from skewless.adapters.duckdb_connection import DUCKDB_VERSION
from skewless.adapters.feast_stored_views import StoredProject, StoredView
from skewless.adapters.lease_keeper import LeaseKeeper
from skewless.adapters.materialization_check import Expected, OnlineCheck, Verified
from skewless.adapters.materialization_marks import MaterializationMarks
from skewless.adapters.materialization_rows import Summary, TakenRows
from skewless.adapters.online_writer import OnlineWriter, Written
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.canonical_json import Digest, digest
from skewless.errors import Conflict, SkewlessError, Unavailable, VerificationFailed
from skewless.features.feature_rows import FeatureRows
from skewless.features.kept_out import KeptOut
from skewless.features.materialization import Asked, Kind, Taking, Watermark, taking
from skewless.features.point_in_time import OfflineSource
from skewless.features.row_order import NO_CREATED_TIME
from skewless.ingest_limits import (
    MATERIALIZATION_PART_ROWS,
    MATERIALIZATION_PARTS_MAX,
    MATERIALIZATION_WRITERS,
)
from skewless.registry.leases import Lease
from skewless.registry.materializations import MaterializationRun, Materializations, StartedBy

LOCAL, FEAST = "local", "feast"
LEASE_PREFIX = "view:"
"""Before a view's name in the name of the lease that whoever writes its rows in bulk holds."""


class FeastSide(Protocol):
    """What a run needs of Feast itself."""

    def record_materialization(self, view: str, as_of: int) -> None:
        """Keep in Feast's registry that a view, by its name in the store, was materialized as of a moment (µs)."""
        ...

    def materialize_view(self, view: str, as_of: int, judged: "Judged | None") -> None:
        """Write a view by Feast's own engine."""
        ...


@dataclass(frozen=True, slots=True)
class Judged:
    """Those rows of a view's source that a gate lets pass: a Parquet file, and how many were set aside."""

    source: OfflineSource
    set_aside: int = 0


@dataclass(frozen=True, slots=True)
class Options:
    """How views are materialized. `verify_rows` entities are compared after each run, 0 for none."""

    asked: Asked
    owner: str
    overlap_us: int
    verify_rows: int
    started_by: StartedBy = StartedBy.MANUAL
    engine: str = LOCAL
    is_fresh: bool = False
    """Whether the store is emptied before: how far views have got counts no more, and nothing is gone on with."""
    part_rows: int = MATERIALIZATION_PART_ROWS
    """Source rows of one part, after which it is noted how far the run has come."""
    rules: Mapping[str, str] = field(default_factory=dict)
    """By view, the digest of the suite that judges its rows: a run that other rules began is not gone on with."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A run that is about to begin, or to be gone on with, for one view."""

    stored: StoredView
    run: MaterializationRun
    entities: int
    """About how many."""
    is_new: bool
    before: Watermark | None
    """How far the view had got: an incremental run goes on from there."""

    @property
    def view(self) -> str:
        """The view's name in the store."""
        return self.run.view


Progress = Callable[[str, int, int], None]
"""Told, now and then, a view, how many of its entities are done, and about how many there are."""


class Materializer:
    """See the module. One thread at a time; the leases of all views that it works on are held by `keeper`.

    Every method raises Unavailable where the source, the online store or the database is away, and Conflict where a
    lease was lost; whatever was written then is right, and the next run goes on.
    """

    def __init__(
        self,
        project: StoredProject,
        open_store: Callable[[], BlockingRedisOnlineStore],
        records: Materializations,
        feast: FeastSide,
        *,
        options: Options,
        kept_out: KeptOut,
        clock: Callable[[], int],
        progress: Progress,
    ) -> None:
        self._project = project
        self._open_store = open_store
        self._records = records
        self._feast = feast
        self._options = options
        self._kept_out = kept_out
        self._clock = clock
        self._progress = progress

    def plan(self, view: str) -> Planned:
        """What a run for a view would take now, or the run that was begun and is gone on with. Nothing is changed."""
        stored, asked = self._project.views[view], self._options.asked
        definition = definition_digest(stored)
        with closing(self._open_store()) as store:
            marks = MaterializationMarks(store, self._project.project)
            done, begun = marks.done(view), marks.begun(view)
        watermark, unfinished = self._records.watermark(view), self._records.unfinished(view)
        if self._options.is_fresh:
            watermark = unfinished = None
        if unfinished is not None:
            unfinished = self._gone_on_with(unfinished, view, definition, begun)
        if unfinished is not None:
            with TakenRows(stored.read, stored.source, unfinished.taking) as rows:
                entities = rows.summary().entities
            return Planned(stored, unfinished, entities, is_new=False, before=watermark)
        taken = taking(asked, watermark, definition=definition, stored_run=done, overlap_us=self._options.overlap_us)
        if self._options.engine == FEAST and taken.kind is Kind.INCREMENTAL:
            taken = Taking(Kind.FULL, "Feast's engine takes all rows", asked.as_of)
        with TakenRows(stored.read, stored.source, taken) as rows:
            summary = rows.summary()
        return Planned(stored, self._new_run(view, taken, summary, definition), summary.entities, True, watermark)

    def compare(self, planned: Planned) -> Written:
        """What a run would do with each entity's newest row, as the store is now; nothing is changed."""
        run, done = planned.run, Written()
        with ExitStack() as opened:
            rows = opened.enter_context(TakenRows(planned.stored.read, planned.stored.source, run.taking))
            writer = self._writer(planned.stored, opened.enter_context(closing(self._open_store())))
            for number in range(run.parts):
                for batch in rows.part(number, run.parts):
                    done = done.plus(writer.compare(self._allowed(run.view, batch)))
                    self._progress(run.view, done.rows, max(planned.entities, done.rows))
        return done

    def run(self, planned: Planned, keeper: LeaseKeeper, judged: Judged | None = None) -> MaterializationRun:
        """Write, verify and finish; the run as it is kept then. `judged` has the rows that may go on, None: all may.

        Raises VerificationFailed where the sample differs; the watermark does not move.
        """
        run, lease = planned.run, _LeaseOf(keeper, planned.view)
        if judged is not None:
            run = replace(run, set_aside_rows=judged.set_aside)
        source = planned.stored.source if judged is None else judged.source
        keeper.require()
        with closing(self._open_store()) as store:
            marks = MaterializationMarks(store, self._project.project)
            if planned.is_new:
                self._records.begin(run, lease.now)
                marks.mark_begun(run.view, run.id)
            else:
                self._records.go_on(run, lease.now, owner=self._options.owner)
            with self._noting(run, lease):
                check = OnlineCheck(store, self._project.project, planned.stored.read, source)
                sample = self._sample(planned, run, source)
                expected = None if sample is None else check.expected(sample, run.taking)
                parts = 0
                if self._options.engine == LOCAL:
                    parts = self._write(planned, run, source, lease, marks)
                else:
                    self._require_none_deleted(planned, run, source)
                    self._feast.materialize_view(run.view, run.as_of, judged)
                verified = self._verified(run, check, expected)
                keeper.require()
                watermark = self._watermark(planned)
                if watermark is not None:
                    marks.mark_done(run.view, run.id, parts)
                    self._feast.record_materialization(run.view, run.as_of)
                self._records.finish(run.id, lease.now, verified_rows=verified.entities, watermark=watermark)
        return self._records.run(run.id)

    def refused(self, planned: Planned, keeper: LeaseKeeper, error: str) -> None:
        """Keep that a view's rows were refused before any was written."""
        lease = _LeaseOf(keeper, planned.view)
        if planned.is_new:
            self._records.begin(planned.run, lease.now)
        self._records.fail(planned.run.id, lease.now, error.partition("\n")[0])

    def forget(self, views: Iterable[str], keeper: LeaseKeeper) -> None:
        """The store is about to be emptied: whatever is known of how far views have got is not true any more."""
        for view in views:
            self._records.forget_watermark(view, _LeaseOf(keeper, view).now)
        with closing(self._open_store()) as store:
            MaterializationMarks(store, self._project.project).forget()

    def _gone_on_with(
        self, run: MaterializationRun, view: str, definition: Digest, begun: tuple[str, int] | None
    ) -> MaterializationRun | None:
        """An unfinished run at the first part that is not in this store; None where it is not what is asked for."""
        asked = self._options.asked
        if asked.is_backfill or run.kind is Kind.BACKFILL:
            same = (run.from_time, run.to_time) == (asked.from_time, asked.to_time) and run.as_of <= asked.as_of
        else:
            same = run.as_of <= asked.as_of and (run.kind is Kind.FULL or not asked.full)
        plan = self._plan_digest(view, run.taking, definition, run.parts)
        if begun is None or begun[0] != run.id or not same or run.plan != plan:
            return None
        return replace(run, parts_done=min(run.parts_done, begun[1]))

    def _new_run(self, view: str, taken: Taking, summary: Summary, definition: Digest) -> MaterializationRun:
        parts = min(max(-(-summary.rows // self._options.part_rows), 1), MATERIALIZATION_PARTS_MAX)
        bounds = taken.bounds
        return MaterializationRun(
            id=str(uuid_utils.uuid7()),
            view=view,
            kind=taken.kind,
            reason=taken.reason,
            started_by=self._options.started_by,
            engine=self._options.engine,
            owner=self._options.owner,
            as_of=taken.as_of,
            definition=definition,
            plan=self._plan_digest(view, taken, definition, parts),
            parts=parts,
            source_rows=summary.rows,
            started_time=self._clock(),
            since_created_time=bounds.since_created_time,
            since_event_time=bounds.since_event_time,
            from_time=bounds.from_time,
            to_time=bounds.to_time,
            newest_event_time=summary.newest_event_time,
            newest_created_time=summary.newest_created_time,
        )

    def _plan_digest(self, view: str, taken: Taking, definition: Digest, parts: int) -> Digest:
        """What decides which rows are in which part: a part that is done is done only while all of this is the same."""
        bounds = [taken.bounds.since_created_time, taken.bounds.since_event_time, taken.bounds.from_time]
        rules, engine = self._options.rules.get(view, ""), self._options.engine
        return digest(
            [taken.kind.value, taken.as_of, *bounds, taken.bounds.to_time, definition, parts, rules, engine, _HASHES]
        )

    def _write(
        self,
        planned: Planned,
        run: MaterializationRun,
        source: OfflineSource,
        lease: "_LeaseOf",
        marks: MaterializationMarks,
    ) -> int:
        """How many parts the store holds then."""
        if not run.source_rows:
            return 0  # rows that have come since were not judged: they are the next run's
        done = run.entity_rows
        with (
            TakenRows(planned.stored.read, source, run.taking) as rows,
            self._writers(planned.stored) as writers,
        ):
            for number in range(run.parts_done, run.parts):
                counts = Written()
                for written in writers.written(self._allowed(run.view, each) for each in rows.part(number, run.parts)):
                    counts = counts.plus(written)
                    now = done + counts.rows
                    self._progress(run.view, now, max(planned.entities, now))
                    lease.require()
                marks.mark_part(run.view, run.id, number + 1)
                self._records.advance(run.id, lease.now, parts_done=number + 1, counts=counts._asdict())
                done += counts.rows
        return run.parts

    def _require_none_deleted(self, planned: Planned, run: MaterializationRun, source: OfflineSource) -> None:
        """Return where Feast's engine, which knows of no deletions, would bring nobody back. Raises Conflict."""
        with TakenRows(planned.stored.read, source, run.taking) as rows:
            for number in range(run.parts):
                for batch in rows.part(number, run.parts):
                    if self._allowed(run.view, batch).rows < batch.rows:
                        raise Conflict(
                            f"the source of feature view `{run.view}` still has rows of entities that were deleted",
                            hint="Feast's engine would write them again: take `--engine local`, which leaves them out",
                        )

    def _allowed(self, view: str, rows: FeatureRows) -> FeatureRows:
        """Rows without those of entities that were deleted."""
        out = self._kept_out.kept_out(view, rows.keys, rows.created_times, rows.event_times)
        return rows.take(np.flatnonzero(~out)) if out.any() else rows

    def _sample(self, planned: Planned, run: MaterializationRun, source: OfflineSource) -> FeatureRows | None:
        """The newest rows of some entities that the run is to write from here on; None where none are compared."""
        wanted, parts = self._options.verify_rows, range(run.parts_done, run.parts)
        if not wanted or not run.source_rows or not parts:
            return None
        with TakenRows(planned.stored.read, source, run.taking) as rows:
            return rows.sample(wanted, entities=planned.entities, parts=parts, seed=self._clock())

    def _verified(self, run: MaterializationRun, check: OnlineCheck, expected: Expected | None) -> Verified:
        if expected is None:
            return Verified(0)
        verified = check.compared(expected, self._never_deleted(run.view, expected.rows))
        if verified.differing:
            raise VerificationFailed(
                f"{verified.differing} of {verified.entities} entities of feature view `{run.view}` are not online "
                "what they are offline",
                examples=verified.told,
                hint="see what else writes this view; `skewless features repair --view "
                f"{run.view} --dry-run` names the reason of each difference",
            )
        return verified

    def _never_deleted(self, view: str, rows: FeatureRows) -> NDArray[np.bool_]:
        """Which rows are of entities never deleted: of some rows of others nobody can tell whether they count."""
        ever = np.full(rows.rows, NO_CREATED_TIME, dtype=np.int64)
        return ~self._kept_out.kept_out(view, rows.keys, ever, ever)

    def _watermark(self, planned: Planned) -> Watermark | None:
        """How far the view has got with this run; None where it is as far as before."""
        run = planned.run
        before = planned.before if run.kind is Kind.INCREMENTAL else None
        if run.kind is Kind.BACKFILL or (run.newest_event_time is None and before is None):
            return None
        earliest = NO_CREATED_TIME
        event_time = earliest if run.newest_event_time is None else run.newest_event_time
        created_time = event_time if run.newest_created_time is None else run.newest_created_time
        return Watermark(
            view=run.view,
            run_id=run.id,
            as_of=run.as_of,
            created_time=max(created_time, earliest if before is None else before.created_time),
            event_time=max(event_time, earliest if before is None else before.event_time),
            definition=run.definition,
        )

    @contextmanager
    def _noting(self, run: MaterializationRun, lease: "_LeaseOf") -> Iterator[None]:
        """Keep with a run what ends it early."""
        try:
            yield
        except VerificationFailed as error:
            self._records.fail(run.id, lease.now, error.message)
            raise
        except SkewlessError as error:
            with suppress(Unavailable, Conflict):
                self._records.interrupt(run.id, lease.now, error.message)
            raise

    def _writer(self, stored: StoredView, store: BlockingRedisOnlineStore) -> OnlineWriter:
        return OnlineWriter(
            store,
            self._project.project,
            stored.read,
            lifetime_s=self._project.lifetime_s,
            has_created_time=bool(stored.source.created_time),
        )

    @contextmanager
    def _writers(self, stored: StoredView) -> Iterator["_Writers"]:
        with ExitStack() as opened:
            stores = [opened.enter_context(closing(self._open_store())) for _ in range(MATERIALIZATION_WRITERS)]
            pool = opened.enter_context(ThreadPoolExecutor(MATERIALIZATION_WRITERS, thread_name_prefix="writer"))
            yield _Writers(pool, [self._writer(stored, store) for store in stores])


class _Writers:
    """Writes batches side by side, as many at once as there are writers, and one more waits."""

    def __init__(self, pool: ThreadPoolExecutor, writers: Iterable[OnlineWriter]) -> None:
        self._pool = pool
        self._free: SimpleQueue[OnlineWriter] = SimpleQueue()
        for each in writers:
            self._free.put(each)

    def written(self, batches: Iterable[FeatureRows]) -> Iterator[Written]:
        """What became of each batch, in order; no two of them have rows of one entity."""
        waiting: deque[Future[Written]] = deque()
        for batch in batches:
            waiting.append(self._pool.submit(self._write, batch))
            if len(waiting) > MATERIALIZATION_WRITERS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _write(self, rows: FeatureRows) -> Written:
        writer = self._free.get()
        try:
            return writer.write(rows)
        finally:
            self._free.put(writer)


@dataclass(frozen=True, slots=True)
class _LeaseOf:
    """The lease of one view, as it is after its last renewal."""

    keeper: LeaseKeeper
    view: str

    @property
    def now(self) -> Lease:
        return self.keeper.held[LEASE_PREFIX + self.view]

    def require(self) -> None:
        self.keeper.require()


_HASHES = f"duckdb {DUCKDB_VERSION}"
"""Whose `hash` deals entities out to parts; another version may deal them otherwise."""


def definition_digest(stored: StoredView) -> Digest:
    """Of all that decides which bytes lie under which keys for which rows; with another one the next run is full."""
    read, source = stored.read, stored.source
    return digest(
        {
            "view": read.field_name,
            "keys": [[key.key_name, key.dtype.value] for key in read.join_keys],
            "features": [[each.name, each.dtype.value, each.feast_type] for each in read.features],
            "source": [source.path, source.form.value, source.event_time, source.created_time or ""],
            "columns": [list(each) for each in source.columns],
        }
    )


def lease_names(views: Iterable[str]) -> list[str]:
    """The leases of whoever writes rows of views in bulk."""
    return [LEASE_PREFIX + each for each in views]
