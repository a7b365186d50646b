"""What the running parity monitor compared and found, hour by hour, so that a restart repeats and skips nothing.

What was found is committed together with the steps that it was found in. Counts add up within an hour, and the final
pass replaces what it found before; whoever compares the same steps at the same time loses with Conflict.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from skewless.canonical_json import Digest
from skewless.errors import Conflict
from skewless.monitor_limits import PARITY_EXAMPLES_KEPT, PARITY_RESULTS_KEEP_S
from skewless.parity.schedule import PERIOD_US, STEP_US, Pass, period_of
from skewless.parity.tally import Count, Level, Stratum, Tally, TallyKey, packed, unpacked
from skewless.registry.parity_tables import ParityExampleRow, ParityPassRow, ParityResultRow, ParityStateRow
from skewless.registry.transactions import RegistryPart
from skewless.timestamps import SECOND_US


@dataclass(frozen=True, slots=True)
class ParityResult:
    """One count of one hour, as it is stored. Times in µs; `view` and `cause` are empty where a level has none.

    `low` and `high` are 95 % bounds of the rate: by entity at the levels `views`, `causes` and `known_later`; 0 and 1,
    which say nothing, where units are counted singly.
    """

    endpoint: str
    period_start_us: int
    pass_: Pass
    bundle: Digest
    stratum: Stratum
    level: Level
    view: str
    cause: str
    units: int
    mismatches: int
    entities: int
    rate: float
    low: float
    high: float
    count: Count
    """The same with its groups, to be added up."""

    @property
    def key(self) -> TallyKey:
        """What it is a count of."""
        return TallyKey(self.bundle, self.stratum, self.level, self.view, self.cause)


@dataclass(frozen=True, slots=True)
class ParityExample:
    """A stored mismatch; `explanation` is that of `parity/explanation.py`."""

    endpoint: str
    period_start_us: int
    pass_: Pass
    bundle: Digest
    view: str
    cause: str
    prediction_id: str
    explanation: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class NotedPass:
    """One pass over one hour: `steps` has, by the beginning of each step that is done (µs), its predictions."""

    start_us: int
    steps: Mapping[int, int]
    checked_time: int

    @property
    def rows(self) -> int:
        """Predictions compared."""
        return sum(self.steps.values())


@dataclass(frozen=True, slots=True)
class ParityState:
    """How the monitor stands with an endpoint; `state` is the document of `adapters/parity_watch.py`."""

    endpoint: str
    state: Mapping[str, Any]
    changed_time: int


class ParityHistory(RegistryPart):
    """The tables. Threads and processes may share them."""

    def passes(self, endpoint: str, pass_: Pass, since: int | None = None) -> dict[int, NotedPass]:
        """What is done of an endpoint, by the beginning of the hour; from the hour of `since` (µs) on."""
        wanted = select(ParityPassRow).where(
            ParityPassRow.endpoint == endpoint,
            ParityPassRow.pass_name == pass_.value,
            ParityPassRow.start_us >= (-(2**62) if since is None else period_of(since)),
        )
        with self._transactions.read() as session:
            return {
                row.start_us: NotedPass(row.start_us, _steps(row), row.checked_time) for row in session.scalars(wanted)
            }

    def note_then(
        self, endpoint: str, steps: Mapping[int, int], tally: Tally, examples: Iterable[ParityExample]
    ) -> None:
        """Keep what was found in some steps of one hour, which none of may be noted yet; `steps` has their predictions.

        Raises Conflict where another has compared one of them meanwhile: then nothing is kept.
        """
        (period,) = {period_of(start) for start in steps}
        with self._transactions.write() as session:
            row = _locked_pass(session, endpoint, Pass.THEN, period)
            known = _steps(row)
            if not known.keys().isdisjoint(steps):
                raise Conflict(
                    f"endpoint {endpoint}: another monitor has compared the same predictions",
                    hint="let one monitor alone do the job `parity` (SKEWLESS_MONITOR_JOBS)",
                )
            _note_steps(row, {**known, **steps}, self._clock())
            _add_results(session, endpoint, Pass.THEN, period, tally)
            _add_examples(session, examples)

    def note_finally(
        self, endpoint: str, period: int, steps: Mapping[int, int], tally: Tally, examples: Iterable[ParityExample]
    ) -> None:
        """Keep what the final pass over an hour found, in place of what an earlier one did."""
        with self._transactions.write() as session:
            row = _locked_pass(session, endpoint, Pass.FINALLY, period)
            _note_steps(row, steps, self._clock())
            session.execute(
                delete(ParityResultRow).where(
                    ParityResultRow.endpoint == endpoint,
                    ParityResultRow.pass_name == Pass.FINALLY.value,
                    ParityResultRow.period_start_us == period,
                )
            )
            _add_results(session, endpoint, Pass.FINALLY, period, tally)
            _add_examples(session, examples)

    def results(
        self, endpoint: str | None = None, since: int | None = None, until: int | None = None, pass_: Pass | None = None
    ) -> tuple[ParityResult, ...]:
        """Counts of the hours that begin from `since` to before `until` (µs), by endpoint and hour.

        `pass_` None: of each hour the final pass where there is one, else the first.
        """
        wanted = select(ParityResultRow).order_by(
            ParityResultRow.endpoint, ParityResultRow.period_start_us, ParityResultRow.bundle_digest,
            ParityResultRow.stratum, ParityResultRow.level, ParityResultRow.view, ParityResultRow.cause,
        )  # fmt: skip
        if endpoint is not None:
            wanted = wanted.where(ParityResultRow.endpoint == endpoint)
        if pass_ is not None:
            wanted = wanted.where(ParityResultRow.pass_name == pass_.value)
        if since is not None:
            wanted = wanted.where(ParityResultRow.period_start_us >= since)
        if until is not None:
            wanted = wanted.where(ParityResultRow.period_start_us < until)
        with self._transactions.read() as session:
            found = [_result(row) for row in session.scalars(wanted)]
        final = {(each.endpoint, each.period_start_us) for each in found if each.pass_ is Pass.FINALLY}
        return tuple(
            each
            for each in found
            if pass_ is not None or each.pass_ is Pass.FINALLY or (each.endpoint, each.period_start_us) not in final
        )

    def examples(self, endpoint: str, *, limit: int = PARITY_EXAMPLES_KEPT) -> tuple[ParityExample, ...]:
        """Kept mismatches of an endpoint, newest first, at most `limit` of each view and cause."""
        of_endpoint = select(ParityExampleRow).where(ParityExampleRow.endpoint == endpoint)
        wanted = of_endpoint.order_by(ParityExampleRow.number.desc())
        taken: dict[tuple[str, str], list[ParityExample]] = {}
        with self._transactions.read() as session:
            for row in session.scalars(wanted):
                kept = taken.setdefault((row.view, row.cause), [])
                if len(kept) < limit:
                    kept.append(_example(row))
        return tuple(each for kept in taken.values() for each in kept)

    def note_state(self, endpoint: str, state: Mapping[str, Any]) -> None:
        """Keep how the monitor stands with an endpoint."""
        with self._transactions.write() as session:
            session.merge(ParityStateRow(endpoint=endpoint, state=dict(state), changed_time=self._clock()))

    def states(self) -> tuple[ParityState, ...]:
        """How the monitor stands with each endpoint that it has looked at, by name."""
        with self._transactions.read() as session:
            rows = session.scalars(select(ParityStateRow).order_by(ParityStateRow.endpoint))
            return tuple(ParityState(row.endpoint, row.state, row.changed_time) for row in rows)

    def forget(self, endpoint: str, now: int, *, keep_s: float = PARITY_RESULTS_KEEP_S) -> None:
        """Forget hours that are older than `keep_s` seconds, with their examples."""
        before = now - int(keep_s * SECOND_US)
        with self._transactions.write() as session:
            session.execute(
                delete(ParityPassRow).where(ParityPassRow.endpoint == endpoint, ParityPassRow.start_us < before)
            )
            for table in (ParityResultRow, ParityExampleRow):
                session.execute(delete(table).where(table.endpoint == endpoint, table.period_start_us < before))


def _locked_pass(session: Session, endpoint: str, pass_: Pass, period: int) -> ParityPassRow:
    """The row of a pass over an hour, held until the transaction ends."""
    values: dict[str, Any] = {
        "endpoint": endpoint,
        "pass_name": pass_.value,
        "start_us": period,
        "end_us": period + PERIOD_US,
        "steps": {},
        "rows": 0,
        "checked_time": 0,
    }
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    session.execute(insert(ParityPassRow).values(values).on_conflict_do_nothing())
    wanted = select(ParityPassRow).where(
        ParityPassRow.endpoint == endpoint, ParityPassRow.pass_name == pass_.value, ParityPassRow.start_us == period
    )
    return session.scalars(wanted.with_for_update()).one()


def _steps(row: ParityPassRow) -> dict[int, int]:
    return {row.start_us + int(number) * STEP_US: rows for number, rows in row.steps.items()}


def _note_steps(row: ParityPassRow, steps: Mapping[int, int], now: int) -> None:
    row.steps = {str((start - row.start_us) // STEP_US): steps[start] for start in sorted(steps)}
    row.rows = sum(steps.values())
    row.checked_time = now


def _add_results(session: Session, endpoint: str, pass_: Pass, period: int, tally: Tally) -> None:
    wanted = select(ParityResultRow).where(
        ParityResultRow.endpoint == endpoint,
        ParityResultRow.pass_name == pass_.value,
        ParityResultRow.period_start_us == period,
    )
    rows = {_result(row).key: row for row in session.scalars(wanted)}
    whole = {key: _result(row).count for key, row in rows.items()}
    for key, count in tally.items():
        whole[key] = whole[key].plus(count) if key in whole else count
    # The units of a cause are those of its view, also where a portion had none of the cause.
    for key, count in whole.items():
        units = whole.get(TallyKey(key.bundle, key.stratum, Level.VIEWS, key.view))
        if key.level in (Level.CAUSES, Level.KNOWN_LATER) and units is not None:
            count = Count(units.units, count.mismatches, None, count.mismatch_groups)
        rate = count.rate(None if units is None else units.unit_groups)
        row = rows.get(key)
        if row is None:
            row = ParityResultRow(
                endpoint=endpoint, period_start_us=period, pass_name=pass_.value, bundle_digest=key.bundle,
                stratum=key.stratum.value, level=key.level.value, view=key.view, cause=key.cause,
            )  # fmt: skip
            session.add(row)
        row.units, row.mismatches, row.entities = count.units, count.mismatches, rate.entities
        row.rate, row.low, row.high = rate.value, rate.low, rate.high
        row.unit_groups, row.mismatch_groups = packed(count.unit_groups), packed(count.mismatch_groups)


def _add_examples(session: Session, examples: Iterable[ParityExample]) -> None:
    found: dict[tuple[str, str, str], list[ParityExample]] = {}
    for each in examples:
        found.setdefault((each.endpoint, each.view, each.cause), []).append(each)
    for (endpoint, view, cause), newest in found.items():
        ids = [each.prediction_id for each in newest]
        of_them = (
            ParityExampleRow.endpoint == endpoint, ParityExampleRow.view == view, ParityExampleRow.cause == cause
        )  # fmt: skip
        session.execute(delete(ParityExampleRow).where(*of_them, ParityExampleRow.prediction_id.in_(ids)))
        session.add_all(_example_row(each) for each in newest[-PARITY_EXAMPLES_KEPT:])
        session.flush()
        kept = select(ParityExampleRow.number).where(*of_them).order_by(ParityExampleRow.number.desc())
        oldest = session.scalars(kept.offset(PARITY_EXAMPLES_KEPT)).all()
        if oldest:
            session.execute(delete(ParityExampleRow).where(ParityExampleRow.number.in_(oldest)))


def _example_row(example: ParityExample) -> ParityExampleRow:
    return ParityExampleRow(
        endpoint=example.endpoint, period_start_us=example.period_start_us, pass_name=example.pass_.value,
        bundle_digest=example.bundle, view=example.view, cause=example.cause, prediction_id=example.prediction_id,
        explanation=dict(example.explanation),
    )  # fmt: skip


def _example(row: ParityExampleRow) -> ParityExample:
    return ParityExample(
        row.endpoint, row.period_start_us, Pass(row.pass_name), Digest(row.bundle_digest), row.view, row.cause,
        row.prediction_id, row.explanation,
    )  # fmt: skip


def _result(row: ParityResultRow) -> ParityResult:
    return ParityResult(
        endpoint=row.endpoint,
        period_start_us=row.period_start_us,
        pass_=Pass(row.pass_name),
        bundle=Digest(row.bundle_digest),
        stratum=Stratum(row.stratum),
        level=Level(row.level),
        view=row.view,
        cause=row.cause,
        units=row.units,
        mismatches=row.mismatches,
        entities=row.entities,
        rate=row.rate,
        low=row.low,
        high=row.high,
        count=Count(row.units, row.mismatches, unpacked(row.unit_groups), unpacked(row.mismatch_groups)),
    )


def added_up(results: Sequence[ParityResult]) -> dict[tuple[str, Stratum, Level, str, str], ParityResult]:
    """Hours and bundles added up: by endpoint, stratum, level, view and cause, with bounds over all of them.

    `period_start_us` and `bundle` are those of the last; units of a cause are those of its view in all hours.
    """
    found: dict[tuple[str, Stratum, Level, str, str], Count] = {}
    last: dict[tuple[str, Stratum, Level, str, str], ParityResult] = {}
    for each in results:
        key = (each.endpoint, each.stratum, each.level, each.view, each.cause)
        found[key] = found[key].plus(each.count) if key in found else each.count
        last[key] = each
    whole = {}
    for key, count in found.items():
        units = found.get((key[0], key[1], Level.VIEWS, key[3], ""))
        if key[2] in (Level.CAUSES, Level.KNOWN_LATER) and units is not None:
            count = Count(units.units, count.mismatches, None, count.mismatch_groups)
        rate = count.rate(None if units is None else units.unit_groups)
        whole[key] = ParityResult(
            key[0], last[key].period_start_us, last[key].pass_, last[key].bundle, *key[1:],
            units=count.units, mismatches=count.mismatches, entities=rate.entities,
            rate=rate.value, low=rate.low, high=rate.high, count=count,
        )  # fmt: skip
    return whole
