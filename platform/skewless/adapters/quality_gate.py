"""The gate that every batch of feature rows goes through: judged by its view's suite, recorded, and let on or not.

    rows ─▶ columns and types as declared ─▶ suite, in the worker ─▶ verdict
         ─▶ quarantine file ─▶ one transaction ─▶ rows that may go on

The transaction keeps the run, its results and the name of the quarantine file together. So a gate that is killed leaves
either all of it or nothing: rows go on only after it, and a file without a name in the database is removed later.
"""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import uuid_utils

from skewless.adapters.declared_rows import declared_rows
from skewless.adapters.known_rows import KnownRows
from skewless.adapters.quarantine import Quarantine
from skewless.errors import BatchRefused, InvalidDefinition
from skewless.features.materialization import EVERYTHING, Bounds
from skewless.monitor_limits import QUALITY_BATCH_ROWS_MAX
from skewless.quality import wording
from skewless.quality.catalogue import CATALOGUE, Judged
from skewless.quality.results import ExpectationResult
from skewless.quality.suite import Suite
from skewless.quality.verdict import Decision, Finding, Verdict, decide, refused_schema
from skewless.quality.view_schema import ViewSchema, schema_of
from skewless.registry.quality_results import QualityResults, QuarantineRecord, ResultRecord, RunRecord
from skewless.registry.transactions import system_clock
from skewless.timestamps import Micros

if TYPE_CHECKING:
    # It imports Feast, which takes seconds; who judges batches of other origins has no need of it.
    from skewless.adapters.feast_stored_views import StoredView


class SuiteRunner(Protocol):
    """Runs a suite on a table."""

    def run(self, suite: Suite, table: pa.Table, *, as_of: int, times: frozenset[str]) -> tuple[ExpectationResult, ...]:
        """Results in the suite's order; `as_of` (µs) is the moment that bounds of the columns `times` move with."""
        ...


@dataclass(frozen=True, slots=True)
class Batch:
    """What a batch is: the moment it is judged for (µs), who brings it, and where its rows are from."""

    as_of: int
    origin: str
    source: str


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """A batch that was judged and not acted on yet."""

    suite: Suite
    schema: ViewSchema
    batch: Batch
    verdict: Verdict
    accepted: pa.Table
    """Rows that may go on, as they came; none of a batch that stops."""
    failing: pa.Table
    """Rows to be set aside: the view's columns, of their declared types."""
    duration_us: int

    def lines(self) -> list[str]:
        """What to tell: the verdict, then each expectation that is not met with what to do about it."""
        head = wording.headline(self.schema.view, self.verdict)
        lines = [head]
        for each in self.verdict.failed:
            lines.append(f"  {each.follows.value}: {wording.told(each.expectation, each.result)}")
            lines.append(f"    {wording.hint(each.expectation)}")
        return lines


@dataclass(frozen=True, slots=True, eq=False)
class GateOutcome:
    """What became of a batch. `run` is its record; `held` the rows that were newly set aside, None where none were."""

    judgement: Judgement
    run: RunRecord
    held: QuarantineRecord | None

    @property
    def decision(self) -> Decision:
        """Pass, warn, quarantine or stop."""
        return self.judgement.verdict.decision

    @property
    def accepted(self) -> pa.Table:
        """Rows that may go on, as they came; none of a batch that stops."""
        return self.judgement.accepted


class QualityGate:
    """Judges batches of views that have a suite, records every run, and sets failing rows aside.

    `quarantine` None judges and records alone: rows that would be set aside stay where they are. Raises BatchRefused
    for a batch that stops, InvalidDefinition for a suite that nobody has reviewed (unless `allow_unreviewed`), and
    Unavailable while the database or the process that judges is away; then nothing went on.
    """

    def __init__(
        self,
        suites: Mapping[str, Suite],
        runner: SuiteRunner,
        results: QualityResults,
        quarantine: Quarantine | None,
        *,
        allow_unreviewed: bool = False,
        part_rows_max: int = QUALITY_BATCH_ROWS_MAX,
    ) -> None:
        self._part_rows_max = part_rows_max
        self._suites = suites
        self._runner = runner
        self._results = results
        self._quarantine = quarantine
        self._allow_unreviewed = allow_unreviewed
        self.outcomes: list[GateOutcome] = []
        """Every batch that was judged and acted on, in order."""
        self.ungated: list[str] = []
        """Views that have no suite."""

    def rules(self) -> Mapping[str, str]:
        """The digest of each view's suite, by the view's name."""
        return {view: suite.digest for view, suite in self._suites.items()}

    def gate_batch(self, schema: ViewSchema, rows: pa.Table, batch: Batch) -> GateOutcome:
        """Judge one batch of a view and act on the verdict; the outcome has the rows that may go on."""
        judgement = judge(self._suite(schema.view), schema, rows, batch, self._runner)
        outcome = self._act(judgement, sets_aside=True, time=system_clock())
        refuse_stopped(outcome.judgement)
        return outcome

    @contextmanager
    def judged(
        self, view: "StoredView", as_of: int, *, bounds: Bounds = EVERYTHING, origin: str = "materialize"
    ) -> Iterator[Path | None]:
        """Judge all rows of a source that are known at `as_of` (µs) and lie within bounds.

        Gives a Parquet file of those that may go on, there while the block runs; None where the view has no suite: all
        may. Large sources are judged in parts of equal size; all parts are judged before any is acted on.
        """
        name = view.read.view
        if name not in self._suites:
            self.ungated.append(name)
            yield None
            return
        suite, schema = self._suite(name), schema_of(view.read, view.source)
        known = KnownRows(view.source, as_of, bounds=bounds, part_rows_max=self._part_rows_max)
        if known.is_absent:  # there is no batch, and nothing of it can be wrong
            yield None
            return
        with tempfile.TemporaryDirectory(prefix="skewless-judged-") as folder:
            path = Path(folder) / "rows.parquet"
            judgements = []
            with pq.ParquetWriter(path, known.schema) as writer:
                for part in known.parts():
                    batch = Batch(as_of, origin, f"{view.source.path}, {part.label}")
                    judgement = judge(suite, schema, part.rows, batch, self._runner)
                    writer.write_table(judgement.accepted)
                    # Not a slice of none, which would keep the whole part in memory.
                    judgements.append(replace(judgement, accepted=part.rows.schema.empty_table()))
            self._act_on_all(judgements)
            yield path

    def _act_on_all(self, judgements: list[Judgement]) -> None:
        """Record every part, and set rows aside where no part stops. Raises BatchRefused where one does."""
        stops = [each for each in judgements if each.verdict.decision is Decision.STOP]
        time = system_clock()  # one for all, by which they are known to be of one batch
        for each in judgements:
            self._act(each, sets_aside=not stops, time=time)
        for each in stops:
            refuse_stopped(each)

    def _suite(self, view: str) -> Suite:
        suite = self._suites[view]
        if suite.reviewed is None and not self._allow_unreviewed:
            raise InvalidDefinition(
                f"the suite of `{view}` is a draft that nobody has reviewed, and a gate does not rely on it",
                hint="read it, then set meta.reviewed to today's date; or pass --allow-unreviewed this once",
            )
        return suite

    def _act(self, judgement: Judgement, *, sets_aside: bool, time: Micros) -> GateOutcome:
        run, view = run_record(judgement, time=time), judgement.schema.view
        held: QuarantineRecord | None = None
        wanted = sets_aside and self._quarantine is not None and bool(judgement.verdict.set_aside.any())
        with self._locked(view) if wanted else nullcontext():
            if wanted:
                held = self._set_aside(judgement, run)
            self._results.add(run, held)
        outcome = GateOutcome(judgement, run, held)
        self.outcomes.append(outcome)
        return outcome

    def _locked(self, view: str) -> AbstractContextManager[None]:
        assert self._quarantine is not None, "only what sets aside locks"
        return self._quarantine.locked(view)

    def _set_aside(self, judgement: Judgement, run: RunRecord) -> QuarantineRecord | None:
        assert self._quarantine is not None, "only what sets aside comes here"
        view = run.view
        files = [each.file for each in self._results.quarantined(view)]
        self._quarantine.sweep(view, files)
        return set_aside(self._quarantine, judgement, run, files)


def judge(suite: Suite, schema: ViewSchema, rows: pa.Table, batch: Batch, runner: SuiteRunner) -> Judgement:
    """The verdict on a batch; nothing is recorded or written.

    Columns that the suite names and an older version of the view does not have are not judged.
    """
    begun_s = monotonic()
    known = suite_of_schema(suite, schema)
    declared, faults = declared_rows(rows, schema)
    if faults:
        verdict = refused_schema(faults, rows.num_rows)
    else:
        found = runner.run(known, declared, as_of=batch.as_of, times=schema.times)
        verdict = _told(decide(known, found, rows.num_rows), schema)
    stops, aside = verdict.decision is Decision.STOP, pa.array(verdict.set_aside)
    accepted = rows.schema.empty_table() if stops else rows.filter(pc.invert(aside))
    failing = declared.schema.empty_table() if stops else declared.filter(aside)
    duration_us = int((monotonic() - begun_s) * 1_000_000)
    return Judgement(known, schema, batch, verdict, accepted, failing, duration_us)


def suite_of_schema(suite: Suite, schema: ViewSchema) -> Suite:
    """The suite's expectations of columns that a view's version has."""
    known = set(schema.by_name)
    return replace(suite, expectations=tuple(each for each in suite.expectations if known.issuperset(each.columns)))


def rows_only(suite: Suite) -> Suite:
    """The expectations that judge rows by themselves; rows that were set aside are no batch, and any share may fail."""
    kept = tuple(each for each in suite.expectations if CATALOGUE[each.type].judged is Judged.ROWS)
    return replace(suite, expectations=kept, quarantine_share_max=1.0)


def set_aside(quarantine: Quarantine, judgement: Judgement, run: RunRecord, held: list[str]) -> QuarantineRecord | None:
    """Write the rows that fail, but for those that the files `held` have; None where they have all of them."""
    sentences = {each.result.position: wording.reason(each.expectation) for each in judgement.verdict.findings}
    reasons = [[sentences[position] for position in each] for each in judgement.verdict.reasons()]
    batch = str(uuid_utils.uuid7())
    file = quarantine.write(run.view, batch, judgement.failing, reasons, held)
    if file is None:
        return None
    return QuarantineRecord(batch, run.id, run.view, file.name, file.digest, file.rows, run.time, run.time)


def refuse_stopped(judgement: Judgement) -> None:
    """Raise BatchRefused, with all that is wrong, where a batch stops."""
    if judgement.verdict.decision is Decision.STOP:
        failed = judgement.verdict.failed
        raise BatchRefused(
            "\n".join(judgement.lines()),
            hint=wording.hint(failed[0].expectation) if failed else "",
        )


def run_record(judgement: Judgement, *, time: Micros | None = None) -> RunRecord:
    """The record of a batch that was judged, with an id that grows with time; `time` None is now."""
    verdict, batch = judgement.verdict, judgement.batch
    return RunRecord(
        id=str(uuid_utils.uuid7()),
        view=judgement.schema.view,
        suite=judgement.suite.name,
        suite_digest=judgement.suite.digest,
        origin=batch.origin,
        batch=batch.source,
        as_of=batch.as_of,
        time=system_clock() if time is None else time,
        duration_us=judgement.duration_us,
        rows=len(verdict.set_aside),
        set_aside=int(verdict.set_aside.sum()),
        decision=verdict.decision,
        results=tuple(_record(each) for each in verdict.findings),
    )


def _record(finding: Finding) -> ResultRecord:
    expectation, result = finding.expectation, finding.result
    failed = not result.success
    return ResultRecord(
        position=result.position,
        type=expectation.type,
        kwargs=expectation.kwargs,
        severity=expectation.severity.value,
        follows=finding.follows.value,
        success=result.success,
        unexpected=result.unexpected,
        unexpected_share=result.unexpected_share,
        observed=result.observed,
        told=wording.told(expectation, result) if failed else "",
        hint=wording.hint(expectation) if failed else "",
    )


def _told(verdict: Verdict, schema: ViewSchema) -> Verdict:
    """The verdict without values of columns that are marked to stay out of logs."""
    hidden = {each.name for each in schema.columns if not each.told}
    findings = tuple(
        replace(each, result=replace(each.result, examples=(), observed=None))
        if hidden.intersection(each.expectation.columns)
        else each
        for each in verdict.findings
    )
    return replace(verdict, findings=findings)
