"""The quality gate of rows that callers bring: many small requests are judged at once, each as if it were alone.

    requests ─▶ one table ─▶ suite, in the worker ─▶ rows set aside, requests refused ─▶ what goes on, by request

A request of many rows is a batch, and is judged by all of its view's suite. Small ones are judged together by what the
suite says of rows: what it says of a batch as a whole (how many rows, their mean) has no meaning for them. A request
that repeats what another one of the group has, in columns that the suite wants unique, waits for the next group.
"""

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import uuid_utils
from numpy.typing import NDArray

from skewless.adapters.declared_rows import declared_rows
from skewless.adapters.ingest_views import IngestView
from skewless.adapters.quality_gate import Batch, Judgement, SuiteRunner, judge, rows_only, run_record
from skewless.adapters.quarantine import ROW, Quarantine, row_digests
from skewless.errors import BatchRefused, InvalidDefinition, NotFound, SkewlessError
from skewless.ingest_limits import INGEST_QUARANTINE_BATCHES_MAX, INGEST_RUN_EVERY_S
from skewless.quality import wording
from skewless.quality.catalogue import UNIQUE, UNIQUE_COLUMN
from skewless.quality.suite import OnFailure, Suite
from skewless.quality.verdict import Decision
from skewless.quality.view_schema import ViewSchema
from skewless.registry.quality_results import QualityResults, QuarantineRecord, ResultRecord, RunRecord
from skewless.timestamps import Micros

ORIGIN = "ingest"
_EVENT_TIME = "event_time_policy"
_ROUNDS_MAX = 4
"""Times that a group is judged anew without the requests that made it stop."""
_TOLD_MAX = 20
"""Rows of one request that a refusal names."""
Span = tuple[int, int]
"""First row of a request in the group's table, and the one behind its last."""


@dataclass(frozen=True, slots=True, eq=False)
class Gated:
    """What became of a group of requests.

    `goes_on` is (rows,) bool. `reasons` has the sentences of each row that was set aside. `refused` has requests, by
    their place in the group, none of whose rows goes on; `deferred` those that are to be judged in another group.
    """

    goes_on: NDArray[np.bool_]
    reasons: dict[int, tuple[str, ...]] = field(default_factory=dict)
    refused: dict[int, SkewlessError] = field(default_factory=dict)
    deferred: frozenset[int] = frozenset()
    run: str = ""
    """The record of the judgement, empty where none was kept."""
    quarantine: str = ""
    """The batch in quarantine that has the rows that were newly set aside."""
    decision: Decision = Decision.PASS


class IngestGate:
    """Judges groups. Threads may share it: what it holds of a view changes under the lock of its quarantine."""

    def __init__(
        self,
        runner: SuiteRunner,
        results: QualityResults,
        quarantine: Quarantine,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runner = runner
        self._results = results
        self._quarantine = quarantine
        self._clock = clock
        self._recorded_s: dict[tuple[str, Decision], float] = {}
        self._held: dict[str, _HeldRows] = {}
        self._lock = threading.Lock()

    def judge(
        self,
        view: IngestView,
        table: Any,
        spans: Sequence[Span],
        *,
        eligible: NDArray[np.bool_],
        aside: "TimeAside",
        is_batch: bool,
        now: Micros,
        in_order: bool = False,
    ) -> Gated:
        """What goes on of a group's rows that are `eligible`; `is_batch`: they are one request, and a batch of its own.

        `in_order`: no request may be kept before one that came before it, so all behind a deferred one are deferred.
        Raises Unavailable while the database or the judging process is away.
        """
        goes_on = eligible & ~aside.mask
        suite = view.suite
        deferred: frozenset[int] = frozenset()
        refused: dict[int, SkewlessError] = {}
        judgement: Judgement | None = None
        places = np.flatnonzero(goes_on)
        if suite is not None:
            known = suite if is_batch else rows_only(suite)
            deferred = _colliding(known, table, spans) if len(spans) > 1 else frozenset()
            if deferred and in_order:
                deferred = frozenset(range(min(deferred), len(spans)))
            for place in deferred:
                goes_on[slice(*spans[place])] = False
            judgement, places = self._judged(view, known, table, spans, goes_on, refused, now)
        held_back = {row for place in (*deferred, *refused) for row in range(*spans[place])}
        reasons: dict[int, tuple[str, ...]] = {
            row: (aside.reason_of(row),) for row in np.flatnonzero(aside.mask).tolist() if row not in held_back
        }
        if judgement is not None and judgement.verdict.set_aside.any():
            reasons |= _reasons(judgement, places)
            goes_on[places[judgement.verdict.set_aside]] = False
        gated = Gated(goes_on, reasons, refused, deferred, decision=_decision(judgement, refused, reasons))
        return self._kept(view, table, spans, judgement, gated, aside, now)

    def _judged(
        self,
        view: IngestView,
        suite: Suite,
        table: Any,
        spans: Sequence[Span],
        goes_on: NDArray[np.bool_],
        refused: dict[int, SkewlessError],
        now: Micros,
    ) -> tuple[Judgement | None, NDArray[np.int64]]:
        """The last judgement, of the rows at the places that come with it; requests that stop it are taken out."""
        judgement = None
        for _ in range(_ROUNDS_MAX):
            places = np.flatnonzero(goes_on)
            if not len(places):
                return None, places
            rows = table if len(places) == table.num_rows else table.take(pa.array(places))
            batch = Batch(now, ORIGIN, f"{len(spans) - len(refused)} requests")
            judgement = judge(suite, view.schema, rows, batch, self._runner)
            if judgement.verdict.decision is not Decision.STOP:
                return judgement, places
            self._record(view, judgement, now)
            for place, error in _stopped(judgement, places, spans).items():
                refused[place] = error
                goes_on[slice(*spans[place])] = False
        for place, span in enumerate(spans):
            if goes_on[slice(*span)].any():
                refused[place] = BatchRefused("the rows that came with these make every batch stop; send them alone")
                goes_on[slice(*span)] = False
        return None, np.flatnonzero(goes_on)

    def _record(self, view: IngestView, judgement: Judgement, now: Micros) -> None:
        """Keep the record of a batch that stopped, where none was for a while: a caller may try again and again."""
        if self._is_due(view.name, judgement.verdict.decision):
            self._results.add(run_record(judgement, time=now))

    def _is_due(self, view: str, decision: Decision) -> bool:
        now_s = self._clock()
        with self._lock:
            before = self._recorded_s.get((view, decision))
            if before is not None and now_s - before < INGEST_RUN_EVERY_S:
                return False
            self._recorded_s[view, decision] = now_s
            return True

    def _kept(
        self,
        view: IngestView,
        table: Any,
        spans: Sequence[Span],
        judgement: Judgement | None,
        gated: Gated,
        aside: "TimeAside",
        now: Micros,
    ) -> Gated:
        """Set rows aside and keep the record. Where quarantine is full, requests with such rows are refused."""
        if not gated.reasons:
            if judgement is not None and self._is_due(view.name, gated.decision):
                run = run_record(judgement, time=now)
                self._results.add(run)
                return replace(gated, run=run.id)
            return gated
        run = _run(view, judgement, gated, aside, now)
        rows = sorted(gated.reasons)
        try:
            with self._quarantine.locked(view.name):
                held, digests = self._set_aside(view, table, run, rows, gated)
                self._results.add(run, held)
                if held is not None:  # and not before: what no record names is not held
                    self._held_of(view.name).added(held.file, digests)
        except InvalidDefinition as full:
            return _refused_instead(gated, spans, full)
        return replace(gated, run=run.id, quarantine="" if held is None else held.id)

    def _set_aside(
        self, view: IngestView, table: Any, run: RunRecord, rows: list[int], gated: Gated
    ) -> tuple[QuarantineRecord | None, Sequence[str]]:
        """Rows that quarantine has not yet, as one file, with their digests; None where it has them all.

        Raises InvalidDefinition where it is full.
        """
        files = [each.file for each in self._results.quarantined(view.name)]
        if len(files) >= INGEST_QUARANTINE_BATCHES_MAX:
            raise InvalidDefinition(
                f"{len(files)} batches of `{view.name}` are in quarantine; ingestion adds none beyond "
                f"{INGEST_QUARANTINE_BATCHES_MAX}",
                hint="`skewless quality quarantine list` shows them: replay what is mended, drop what is not wanted",
            )
        known = self._held_of(view.name)
        known.follow(self._quarantine, files)
        declared, _ = declared_rows(table.take(pa.array(rows)), view.schema)
        digests = row_digests(declared)
        is_new = np.array([each not in known.digests for each in digests], dtype=np.bool_)
        if not is_new.any():
            return None, ()
        reasons = [gated.reasons[row] for row, new in zip(rows, is_new, strict=True) if new]
        batch = str(uuid_utils.uuid7())
        file = self._quarantine.write(view.name, batch, declared.filter(pa.array(is_new)), reasons, ())
        if file is None:
            return None, ()
        record = QuarantineRecord(batch, run.id, run.view, file.name, file.digest, file.rows, run.time, run.time)
        return record, digests

    def _held_of(self, view: str) -> "_HeldRows":
        with self._lock:
            return self._held.setdefault(view, _HeldRows())


class TimeAside:
    """Rows of a group that are set aside for their event time, before anything is judged; `told` says why."""

    def __init__(self, late: NDArray[np.bool_], future: NDArray[np.bool_], *, told: tuple[str, str]) -> None:
        self.mask = late | future
        self.late = late
        self._told = told

    def reason_of(self, row: int) -> str:
        """Why the row is set aside."""
        return self._told[0] if self.late[row] else self._told[1]


class _HeldRows:
    """Digests of the rows of one view that quarantine has, read once per file."""

    def __init__(self) -> None:
        self.digests: set[str] = set()
        self._files: set[str] = set()

    def follow(self, quarantine: Quarantine, files: Sequence[str]) -> None:
        """Take in files that others wrote; begin anew where one is gone, whose rows may come again."""
        if self._files - set(files):
            self.digests, self._files = set(), set()
        for name in files:
            if name not in self._files:
                with suppress(NotFound):  # dropped a moment ago, or judged on another machine
                    self.digests.update(quarantine.read(name).column(ROW).to_pylist())
                self._files.add(name)

    def added(self, file: str, digests: Sequence[str]) -> None:
        """Remember a file that was just written."""
        self.digests.update(digests)
        self._files.add(file)


def _colliding(suite: Suite, table: Any, spans: Sequence[Span]) -> frozenset[int]:
    """Requests with a row that repeats an earlier request's in columns that the suite wants unique.

    Also where that earlier one is itself deferred: the later one must not be kept before it.
    """
    wanted = {each.columns for each in suite.expectations if each.type in (UNIQUE, UNIQUE_COLUMN)}
    found: set[int] = set()
    for columns in wanted:
        values = list(zip(*(table.column(name).to_pylist() for name in columns), strict=True))
        seen: set[tuple[object, ...]] = set()
        for place, (start, stop) in enumerate(spans):
            own = set(values[start:stop])
            if own & seen:
                found.add(place)
            seen |= own
    return frozenset(found)


def _stopped(judgement: Judgement, places: NDArray[np.int64], spans: Sequence[Span]) -> dict[int, BatchRefused]:
    """The refusals of requests that make a group stop: those with such rows, or all where no row is known to.

    What is told to one names no value of another's rows.
    """
    starts = np.array([start for start, _ in spans])
    present = np.unique(_owners(starts, places)).tolist()
    hint = _hint(judgement)
    if len(present) == 1:
        return {present[0]: BatchRefused("\n".join(judgement.lines()), hint=hint)}
    sentences: dict[int, list[str]] = {}
    for each in judgement.verdict.findings:
        rows = each.result.failing_rows
        if each.follows is OnFailure.STOP and rows is not None:
            found = places[rows]
            for place, row in zip(_owners(starts, found).tolist(), found.tolist(), strict=True):
                sentences.setdefault(place, []).append(
                    f"row {row - spans[place][0]}: {wording.reason(each.expectation)}"
                )
    if not sentences:
        told = [f"{each.follows.value}: {wording.reason(each.expectation)}" for each in judgement.verdict.failed]
        return {place: BatchRefused("; ".join(told), hint=hint) for place in present}
    return {
        place: BatchRefused("; ".join(lines[:_TOLD_MAX]) + ("; and more" if len(lines) > _TOLD_MAX else ""), hint=hint)
        for place, lines in sentences.items()
    }


def _owners(starts: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place of the request that each row is of."""
    return np.searchsorted(starts, rows, side="right") - 1


def _reasons(judgement: Judgement, places: NDArray[np.int64]) -> dict[int, tuple[str, ...]]:
    sentences = {each.result.position: wording.reason(each.expectation) for each in judgement.verdict.findings}
    rows = places[judgement.verdict.set_aside].tolist()
    return {
        row: tuple(sentences[position] for position in positions)
        for row, positions in zip(rows, judgement.verdict.reasons(), strict=True)
    }


def _decision(
    judgement: Judgement | None, refused: dict[int, SkewlessError], reasons: dict[int, tuple[str, ...]]
) -> Decision:
    if reasons:
        return Decision.QUARANTINE
    if judgement is None:
        return Decision.STOP if refused else Decision.PASS
    return judgement.verdict.decision


def _run(view: IngestView, judgement: Judgement | None, gated: Gated, aside: TimeAside, now: Micros) -> RunRecord:
    """The record of a group some of whose rows are set aside, also where no suite judged them."""
    late = int(aside.mask.sum())
    if judgement is None:
        judgement = _unjudged(view.schema, now)
    run = run_record(judgement, time=now)
    results = run.results
    if late:
        told = f"{late:,} of {len(aside.mask):,} rows have an event time that the view does not take"
        hint = (
            "see that times are UTC and in the right unit; the tags `late` and `future` of the view say what it takes"
        )
        share = late / max(len(aside.mask), 1)
        results += (
            ResultRecord(
                len(results),
                _EVENT_TIME,
                {},
                "warning",
                OnFailure.QUARANTINE.value,
                False,
                late,
                share,
                None,
                told,
                hint,
            ),
        )
    aside_rows = len(gated.reasons)
    rows = int(gated.goes_on.sum()) + aside_rows
    return replace(run, rows=rows, set_aside=aside_rows, decision=Decision.QUARANTINE, results=results)


def _unjudged(schema: ViewSchema, now: Micros) -> Judgement:
    empty = Suite("event times", schema.view, ())
    table = pa.table({name: pa.nulls(0) for name in schema.names()})
    return judge(empty, schema, table, Batch(now, ORIGIN, "event times"), _NoExpectations())


class _NoExpectations:
    """Judges a suite without expectations."""

    def run(self, _suite: Suite, _table: Any, *, as_of: int, times: frozenset[str]) -> tuple[Any, ...]:  # noqa: ARG002
        """Nothing."""
        return ()


def _refused_instead(gated: Gated, spans: Sequence[Span], full: InvalidDefinition) -> Gated:
    """Requests with a row that would be set aside are refused as a whole; the others go on."""
    goes_on, refused = gated.goes_on.copy(), dict(gated.refused)
    aside = sorted(gated.reasons)
    for place, (start, stop) in enumerate(spans):
        rows = aside[bisect_left(aside, start) : bisect_left(aside, stop)]
        if rows:
            goes_on[start:stop] = False
            sentence = "; ".join(gated.reasons[rows[0]])
            refused[place] = BatchRefused(
                f"{len(rows)} rows would be set aside, such as row {rows[0] - start} ({sentence}), and {full.message}",
                hint=full.hint,
            )
    return replace(gated, goes_on=goes_on, refused=refused, reasons={}, decision=Decision.STOP)


def _hint(judgement: Judgement) -> str:
    failed = judgement.verdict.failed
    return wording.hint(failed[0].expectation) if failed else ""
