"""Puts a materialization together: repository, gate, leases, stores and records, and tells what comes of it."""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skewless.adapters.lease_keeper import LeaseKeeper, kept_leases
from skewless.adapters.materialization import (
    FEAST,
    LOCAL,
    Judged,
    Materializer,
    Options,
    Planned,
    lease_names,
)
from skewless.adapters.online_writer import Written
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.cli.output import Step, say, step
from skewless.cli.quality_gate import gating, told
from skewless.cli.workspace import Workspace
from skewless.errors import BatchRefused, InvalidDefinition, InvalidRequest, NotFound, VerificationFailed
from skewless.features.materialization import Asked, Kind
from skewless.features.point_in_time import SourceForm
from skewless.ingest_limits import MATERIALIZATION_OVERLAP_S, MATERIALIZATION_TELL_S, MATERIALIZATION_VERIFY_ROWS
from skewless.registry.entity_deletions import Deletions
from skewless.registry.leases import Leases, owner_text
from skewless.registry.materializations import MaterializationRun, Materializations, StartedBy
from skewless.registry.transactions import system_clock
from skewless.timestamps import SECOND_US, format_timestamp

if TYPE_CHECKING:
    from skewless.adapters.feast_repository import FeatureRepository
    from skewless.adapters.feast_stored_views import StoredProject
    from skewless.adapters.quality_gate import QualityGate


@dataclass(frozen=True, slots=True)
class MaterializeScope:
    """What is materialized, as the command line says it; without `views` all of them. Times in µs."""

    as_of: int
    views: tuple[str, ...] = ()
    reset: bool = False
    full: bool = False
    from_time: int | None = None
    to_time: int | None = None
    started_by: StartedBy = StartedBy.MANUAL
    engine: str = LOCAL
    verify_rows: int = MATERIALIZATION_VERIFY_ROWS
    overlap_s: float = MATERIALIZATION_OVERLAP_S
    allow_unreviewed: bool = False

    @property
    def asked(self) -> Asked:
        """What is asked of each view."""
        return Asked(self.as_of, self.full, self.from_time, self.to_time)

    def require(self) -> None:
        """Raise InvalidRequest for what contradicts itself."""
        if self.reset and (self.views or self.asked.is_backfill):
            raise InvalidRequest(
                "--reset empties the store of all views, and not of some",
                path="--reset",
                allowed="--reset without views, --from and --to",
                hint="to write all rows of some views again, use --full",
            )
        if self.asked.is_backfill and self.full:
            raise InvalidRequest("--full takes all rows, and --from and --to some", path="--full")
        if self.asked.is_backfill and self.engine == FEAST:
            raise InvalidRequest("a back-fill goes through the local engine", path="--engine", allowed=LOCAL)
        if self.from_time is not None and self.to_time is not None and self.from_time >= self.to_time:
            raise InvalidRequest("--from is not before --to", path="--from")


@dataclass(frozen=True, slots=True)
class Materialized:
    """What came of it: runs in order, views that only Feast can read, and entities removed before."""

    as_of: int
    views: tuple[str, ...]
    runs: tuple[MaterializationRun, ...]
    removed: int = 0
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def entities(self) -> int:
        """Newest rows of entities that were looked at; of a run that was gone on with by an earlier one too."""
        return sum(each.entity_rows for each in self.runs)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "as_of": format_timestamp(self.as_of),
            "views": list(self.views),
            "entities_removed": self.removed,
            "entities": self.entities,
            "runs": [each.to_json() for each in self.runs],
            "left_out": dict(self.left_out),
        }


def run_materialize(workspace: Workspace, scope: MaterializeScope) -> Materialized:
    """Materialize; every view is judged before any is written.

    Raises Conflict where somebody else works on one of the views, BatchRefused where a batch stops, VerificationFailed
    where what was written is not what it was written from, and what `Materializer` raises.
    """
    scope.require()
    with ExitStack() as opened:
        starts_early = scope.started_by is StartedBy.MANUAL
        options = {"allow_unreviewed": scope.allow_unreviewed, "starts_early": starts_early}
        repository, gate = opened.enter_context(gating(workspace, **options))
        project = repository.stored()
        names, left_out = _chosen(project, scope)
        url = workspace.online_store_url
        records = opened.enter_context(workspace.kept(Materializations, create=True))
        leases = opened.enter_context(workspace.kept(Leases))
        deletions = opened.enter_context(workspace.kept(Deletions))
        keeper = opened.enter_context(kept_leases(leases, lease_names(names), owner_text()))
        bar = _Bars()
        materializer = Materializer(
            project,
            partial(BlockingRedisOnlineStore, url),
            records,
            _FeastSide(repository, project),
            options=_options(scope, gate),
            kept_out=deletions,
            clock=system_clock,
            progress=bar,
        )
        work = _Work(materializer, keeper, gate, bar, shows_values=starts_early)
        runs, removed = _worked(workspace, work, names, scope, project)
        for name in left_out if scope.engine == FEAST else ():
            with step(f"Materializing {name} by Feast alone, neither judged nor compared"):
                repository.materialize_view(name, scope.as_of)
    return Materialized(scope.as_of, tuple(names), tuple(runs), removed, left_out)


def compare_materialize(workspace: Workspace, scope: MaterializeScope) -> list[tuple[Planned, Written]]:
    """What a run would take of each view, and do with each entity's newest row. Nothing is judged or changed."""
    scope.require()
    repository = workspace.features()
    project = repository.stored()
    names, _ = _chosen(project, scope)
    with (
        workspace.kept(Materializations, create=True) as records,
        workspace.kept(Deletions) as deletions,
    ):
        bar = _Bars()
        materializer = Materializer(
            project,
            partial(BlockingRedisOnlineStore, workspace.online_store_url),
            records,
            _FeastSide(repository, project),
            options=_options(scope, None),
            kept_out=deletions,
            clock=system_clock,
            progress=bar,
        )
        found = []
        for name in names:
            planned = materializer.plan(name)
            with bar.shown(f"Comparing {name}", planned.entities):
                found.append((planned, materializer.compare(planned)))
    return found


def materialize_at(workspace: Workspace, as_of_us: int, *, reset: bool, allow_unreviewed: bool = False) -> Materialized:
    """Materialize all views as of a moment, as `run_materialize`."""
    scope = MaterializeScope(as_of_us, reset=reset, allow_unreviewed=allow_unreviewed)
    return run_materialize(workspace, scope)


@dataclass(frozen=True, slots=True)
class _FeastSide:
    """Implements `materialization.FeastSide`."""

    repository: "FeatureRepository"
    project: "StoredProject"

    def record_materialization(self, view: str, as_of: int) -> None:
        self.repository.record_materialization(view, as_of)

    def materialize_view(self, view: str, as_of: int, judged: Judged | None) -> None:
        from skewless.adapters.feast_repository import JudgedSource

        read = None
        if judged is not None:
            read = JudgedSource(self.project.views[view].source.path, Path(judged.source.path))
        self.repository.materialize_view(view, as_of, read)


class _Bars:
    """Shows how far the view under way has come: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._step: Step | None = None
        self._begun_s = self._told_s = 0.0

    @contextmanager
    def shown(self, title: str, total: int) -> Iterator[Step]:
        """Show the view under way while the block runs."""
        with step(title, total=total) as current:
            self._step = current
            self._begun_s = self._told_s = time.monotonic()
            try:
                yield current
            finally:
                self._step = None

    def __call__(self, view: str, done: int, total: int) -> None:
        """Implements `materialization.Progress`."""
        now_s = time.monotonic()
        note = f"{done:,} rows, {done / max(now_s - self._begun_s, 1e-3):,.0f} rows/s"
        if self._step is not None:
            self._step.update(done, total)
            self._step.note(note)
        if not sys.stderr.isatty() and now_s - self._told_s > MATERIALIZATION_TELL_S:
            self._told_s = now_s
            say(f"{view}: {note}, about {100 * done / max(total, 1):.0f} %")


@dataclass(frozen=True, slots=True)
class _Work:
    """What writes views, one after another."""

    materializer: Materializer
    keeper: LeaseKeeper
    gate: "QualityGate | None"
    bar: _Bars
    shows_values: bool
    """Whether somebody looks on: what a scheduled run says is kept, and keys and values are not to be."""

    def judged(self, kept: ExitStack, plans: Sequence[Planned]) -> dict[str, Judged]:
        """Those rows of each view that may go on, there until `kept` is closed. Raises BatchRefused."""
        found: dict[str, Judged] = {}
        if self.gate is None or not plans:
            return found
        first = len(self.gate.outcomes)
        with step("Judging feature rows by their suites") as progress:
            for number, plan in enumerate(plans, start=1):
                progress.note(f"{number}/{len(plans)} {plan.view}")
                if plan.run.kind is Kind.INCREMENTAL and not plan.run.source_rows:
                    continue
                judged = self._judged(kept, self.gate, plan)
                if judged is not None:
                    found[plan.view] = judged
            rows = sum(each.run.rows for each in self.gate.outcomes[first:])
            progress.note(f"{rows:,} rows of {len(found)} views")
        for line in told(self.gate):
            say(line)
        return found

    def _judged(self, kept: ExitStack, gate: "QualityGate", plan: Planned) -> Judged | None:
        first, run = len(gate.outcomes), plan.run
        try:
            rows = kept.enter_context(gate.judged(plan.stored, run.as_of, bounds=run.taking.bounds))
        except BatchRefused as error:
            self.materializer.refused(plan, self.keeper, error.message)
            raise
        if rows is None:
            return None
        source = replace(plan.stored.source, path=str(rows), form=SourceForm.PARQUET, files=None)
        return Judged(source, sum(each.run.set_aside for each in gate.outcomes[first:]))

    def written(self, plan: Planned, judged: Judged | None) -> MaterializationRun:
        """Write one view."""
        goes_on = "" if plan.is_new else f", going on after part {plan.run.parts_done} of {plan.run.parts}"
        say(f"{plan.view}: {plan.run.taking.told}{goes_on}")
        with self.bar.shown(f"Materializing {plan.view}", plan.entities) as progress:
            begun_s = time.monotonic()
            run = self._run(plan, judged)
            rate = run.entity_rows / max(time.monotonic() - begun_s, 1e-3)
            progress.note(
                f"{run.entity_rows:,} entities ({run.new_rows:,} new, {run.replaced_rows:,} replaced, "
                f"{run.older_rows:,} older, {run.same_rows:,} the same), {rate:,.0f} rows/s, "
                f"{run.verified_rows} verified"
            )
        return run

    def _run(self, plan: Planned, judged: Judged | None) -> MaterializationRun:
        try:
            return self.materializer.run(plan, self.keeper, judged)
        except VerificationFailed as error:
            for example in error.examples if self.shows_values else ():
                say(f"  {example}")
            raise


def _worked(
    workspace: Workspace, work: _Work, names: Iterable[str], scope: MaterializeScope, project: "StoredProject"
) -> tuple[list[MaterializationRun], int]:
    """Runs of all views: judged all first, then written; those that went on with an earlier moment once more."""
    from skewless.adapters.redis_maintenance import OnlineStoreMaintenance  # its client takes long to import

    runs: list[MaterializationRun] = []
    removed, pending, resets = 0, list(names), scope.reset
    while pending:
        plans = [work.materializer.plan(name) for name in pending]
        with ExitStack() as kept:
            judged = work.judged(kept, plans)
            if resets:
                resets = False
                with (
                    step("Emptying the online store") as progress,
                    closing(OnlineStoreMaintenance(workspace.online_store_url, project.project)) as online_store,
                ):
                    work.materializer.forget(pending, work.keeper)
                    removed = online_store.clear()
                    progress.note(f"{removed:,} entities removed")
            runs += [work.written(plan, judged.get(plan.view)) for plan in plans]
        pending = [plan.view for plan in plans if not plan.is_new and plan.run.as_of < scope.as_of]
    return runs, removed


def _options(scope: MaterializeScope, gate: "QualityGate | None") -> Options:
    return Options(
        asked=scope.asked,
        owner=owner_text(),
        overlap_us=int(scope.overlap_s * SECOND_US),
        verify_rows=scope.verify_rows,
        started_by=scope.started_by,
        engine=scope.engine,
        is_fresh=scope.reset,
        rules={} if gate is None else gate.rules(),
    )


def _chosen(project: "StoredProject", scope: MaterializeScope) -> tuple[list[str], Mapping[str, str]]:
    """Names in the store of the views asked for, and those left out, with the reason, where all are asked for."""
    if not scope.views:
        if not project.views and not project.unreadable:
            raise InvalidDefinition(
                f"project `{project.project}` has no registered feature view", hint="run `skewless apply` first"
            )
        for name, reason in project.unreadable.items() if scope.engine == LOCAL else ():
            say(f"{name} is left out, --engine {FEAST} would write it: {reason}")
        return list(project.views), project.unreadable
    return sorted({_stored_name(project, name) for name in scope.views}), {}


def _stored_name(project: "StoredProject", name: str) -> str:
    stored = name if name in project.views else project.aliases.get(name, name)
    if stored in project.unreadable:
        raise InvalidDefinition(f"feature view `{name}` cannot be materialized: {project.unreadable[stored]}")
    if stored not in project.views:
        raise NotFound("stored feature view", name, known=tuple(project.views), hint="`skewless features list`")
    return stored
