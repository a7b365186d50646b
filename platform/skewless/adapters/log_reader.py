"""The prediction log as it can be asked: by id, by endpoint and time, beside its outcomes, and in SQL.

Every question is asked of the log as it is at that moment (`log_sources.py`), through views (`log_views.py`) that
DuckDB runs over Parquet files and tables of the spool, in bounded memory: what is larger goes to a temporary folder.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar
from weakref import WeakSet

import pyarrow as pa

from skewless.adapters.artifact_address import BucketAddress, parse_artifacts_url
from skewless.adapters.log_session import FilesGone, LogSession, moving, one_query
from skewless.adapters.log_sources import ALL_DAYS, Days, Wanted
from skewless.adapters.log_store import open_log_store
from skewless.adapters.log_tables import OUTCOMES, PREDICTIONS, SAMPLED, TALLIES, day_of
from skewless.adapters.log_views import Scan, columns_of, records_sql, since_sql
from skewless.errors import InvalidRequest, NotFound
from skewless.features.point_in_time import identifier
from skewless.limits import LOG_READ_BATCH_ROWS, LOG_READ_TRIES
from skewless.serving.log_blocks import AnsweredBlock, LoggedEntry
from skewless.serving.outcome_terms import OutcomeTerms
from skewless.timestamps import parse_timestamp

STORE = "store"
"""The folder of the log's store within the log's folder, where no other is named."""
_FIRST_DAY, _LAST_DAY = parse_timestamp("0001-01-01"), parse_timestamp("9999-12-31")
_BOTH = {PREDICTIONS: ALL_DAYS, OUTCOMES: ALL_DAYS}
_NO_TERMS: Mapping[str, OutcomeTerms] = {}

AnswerT = TypeVar("AnswerT")


def open_log(
    folder: Path | None, store: str | None = None, *, terms: Mapping[str, OutcomeTerms] = _NO_TERMS
) -> "LogReader":
    """The log with a spool in a folder (in its `spool`; None: only the store is read) and a store at an address.

    `store` None is `<folder>/store`. `terms` are those of endpoints that have any. What is not there is empty.
    """
    return LogReader(folder, store or (None if folder is None else str(folder / STORE)), terms)


class LogReader:
    """Reads one log. Times are µs; an open end is None. Made for one thread; to be closed, or used as a context.

    Every method raises Unavailable where the log cannot be read.
    """

    def __init__(self, folder: Path | None, store: str | None, terms: Mapping[str, OutcomeTerms]) -> None:
        self._folder = folder
        self._store = None if store is None else open_log_store(store)
        place = None if store is None else parse_artifacts_url(store)
        self._bucket = place if isinstance(place, BucketAddress) else None
        self._terms = terms
        self._reading: WeakSet[LogSession] = WeakSet()
        """Sessions of answers that are still being read; each is kept by its answer."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """End what is still being read."""
        for session in tuple(self._reading):
            session.close()

    def find(self, prediction_id: str) -> Any:
        """The record of one prediction, a table of one row. Raises NotFound."""

        def holds(entry: LoggedEntry) -> bool:
            return isinstance(entry, AnsweredBlock) and prediction_id in entry.prediction_ids

        def ask(session: LogSession) -> Any:
            for scan in session.scans(PREDICTIONS):
                if not scan.relations:
                    continue
                found = session.arrow(records_sql([scan], PREDICTIONS, where="prediction_id = $1"), [prediction_id])
                if found.num_rows:
                    return found
            raise NotFound(
                "prediction",
                prediction_id,
                hint="the log keeps a prediction at the latest one flush interval after its answer",
            )

        return self.ask(Wanted({PREDICTIONS: ALL_DAYS}, prediction_id=prediction_id, entry=holds), ask)

    def predictions(
        self, endpoint: str, start: int | None = None, end: int | None = None, columns: Sequence[str] | None = None
    ) -> Any:
        """An endpoint's predictions with `start` <= as_of < `end`, of every role, by as_of and then id.

        Columns that only some bundles have are null elsewhere. Raises InvalidRequest where two of them declare a
        column that is asked for with different dtypes, and for a column that there is not.
        """
        return self.ask(
            Wanted({PREDICTIONS: days(start, end)}, endpoint),
            lambda session: session.arrow(_ordered_sql(session, start, end, columns)),
        )

    def prediction_batches(
        self,
        endpoint: str,
        start: int | None = None,
        end: int | None = None,
        *,
        rows: int = LOG_READ_BATCH_ROWS,
        columns: Sequence[str] | None = None,
        apart: bool = False,
        sampled: bool = False,
    ) -> Iterator[Any]:
        """As `predictions`, in tables of at most `rows` rows, of which one at a time is held.

        `apart`: predictions with one set of columns after those with another, so that bundles may disagree on dtypes.
        `sampled`: only those that were sampled when they were served, to be compared with the offline store.
        """
        wanted = Wanted({PREDICTIONS: days(start, end)}, endpoint)
        which = partial(_ordered_sql, start=start, end=end, columns=columns, sampled=sampled)
        if not apart:
            yield from self._batches(wanted, which, rows)
            return
        for each in self.ask(wanted, lambda session: [scan.source.columns for scan in session.scans(PREDICTIONS)]):
            yield from self._batches(replace(wanted, columns=each), which, rows)

    def _batches(self, wanted: Wanted, which: Callable[[LogSession], str], rows: int) -> Iterator[Any]:
        for batch in self._streamed(wanted, which, rows=rows):
            for first in range(0, batch.num_rows, rows):
                yield pa.Table.from_batches([batch.slice(first, rows)])

    def joined(
        self, endpoint: str, start: int | None = None, end: int | None = None, columns: Sequence[str] | None = None
    ) -> Any:
        """As `predictions`, and beside each its outcome in force, null where none has come.

        `outcome`, `outcome_id`, `outcome_time`, `outcome_received_time`, `outcome_caller`; a shadow has its twin's.
        """

        def ask(session: LogSession) -> Any:
            _checked(session, columns, since_sql("as_of", start, end))
            session.all_views(self._terms, endpoint=endpoint, within=since_sql("as_of", start, end))
            listed = "*" if columns is None else ", ".join(map(identifier, (*columns, *_OUTCOME_COLUMNS)))
            return session.arrow(f"SELECT {listed} FROM predictions_with_outcomes {_IN_ORDER}")

        return self.ask(Wanted(_BOTH, endpoint=endpoint), ask)

    def outcomes(self, start: int | None = None, end: int | None = None) -> Any:
        """Every outcome received from `start` to before `end` as it was told, by time of receipt and then id."""

        def ask(session: LogSession) -> Any:
            sql = records_sql(session.scans(OUTCOMES), OUTCOMES, where=since_sql("received_time", start, end))
            return session.arrow(f"SELECT * FROM ({sql}) ORDER BY received_time, outcome_id")

        return self.ask(Wanted({OUTCOMES: days(start, end)}), ask)

    def final_outcomes(self, prediction_ids: Sequence[str]) -> Any:
        """prediction_id, label, outcome_time, received_time: the outcome in force of each of these that has one."""

        def ask(session: LogSession) -> Any:
            session.outcome_views(self._terms)
            session.register("asked", pa.table({"prediction_id": pa.array(prediction_ids, pa.string())}))
            return session.arrow(
                "SELECT prediction_id, label, outcome_time, received_time FROM outcomes_final "
                "WHERE prediction_id IN (SELECT prediction_id FROM asked) ORDER BY prediction_id"
            )

        return self.ask(Wanted(_BOTH), ask)

    def outcome_counts(self, endpoint: str | None = None, start: int | None = None, end: int | None = None) -> Any:
        """How many outcomes received from `start` to before `end` did what: endpoint, class, is_late, outcomes.

        `endpoint` is that of the prediction, else the one that the outcome names, else null; asked for one endpoint,
        outcomes that belong to none are counted too.
        """

        def ask(session: LogSession) -> Any:
            session.outcome_views(self._terms)
            return session.arrow(
                "SELECT coalesce(predicted_endpoint, endpoint) AS endpoint, class, is_late, count(*) AS outcomes "
                f"FROM outcomes_classed WHERE {since_sql('received_time', start, end) or 'true'} "
                "AND ($1 IS NULL OR coalesce(predicted_endpoint, endpoint, $1) = $1) GROUP BY ALL ORDER BY ALL",
                [endpoint],
            )

        return self.ask(Wanted(_BOTH), ask)

    def tallies(self, endpoint: str, start: int | None = None, end: int | None = None) -> Any:
        """Tallies of an endpoint's roles that begin from `start` on and end up to `end`, in order of their end."""

        def ask(session: LogSession) -> Any:
            within = since_sql("start", start, None), "" if end is None else f'"end" <= make_timestamptz({end})'
            sql = records_sql(session.scans(TALLIES), TALLIES, where=" AND ".join(filter(None, within)))
            return session.arrow(f'SELECT * FROM ({sql}) WHERE endpoint = $1 ORDER BY "end"', [endpoint])

        return self.ask(Wanted({TALLIES: days(start, None if end is None else end + 1)}), ask)

    def bundles(self) -> frozenset[str]:
        """Digests of every bundle that any prediction came from, in any role."""

        def ask(session: LogSession) -> frozenset[str]:
            sql = records_sql(session.scans(PREDICTIONS), PREDICTIONS, only=("bundle_digest",))
            return frozenset(session.arrow(f"SELECT DISTINCT bundle_digest FROM ({sql})").column(0).to_pylist())

        return self.ask(Wanted({PREDICTIONS: ALL_DAYS}), ask)

    def sampled_steps(self, endpoint: str, start: int | None = None, end: int | None = None, *, step_us: int) -> Any:
        """step, bundle_digest, rows: how many sampled predictions there are; a step begins at step * step_us (µs)."""

        def ask(session: LogSession) -> Any:
            within = since_sql("as_of", start, end)
            sql = _sampled_sql(session.scans(PREDICTIONS), within, only=("as_of", "bundle_digest"))
            return session.arrow(
                f"SELECT epoch_us(as_of) // {step_us} AS step, bundle_digest, count(*) AS rows FROM ({sql}) "
                "GROUP BY ALL ORDER BY ALL"
            )

        return self.ask(Wanted({PREDICTIONS: days(start, end)}, endpoint), ask)

    def endpoints(self) -> tuple[str, ...]:
        """Every endpoint that the log has predictions of, by name."""

        def ask(session: LogSession) -> tuple[str, ...]:
            return tuple(sorted({scan.source.endpoint for scan in session.scans(PREDICTIONS) if scan.relations}))

        return self.ask(Wanted({PREDICTIONS: ALL_DAYS}), ask)

    def sql(
        self,
        query: str,
        parameters: Sequence[object] = (),
        *,
        endpoint: str | None = None,
        start: int | None = None,
        end: int | None = None,
    ) -> Any:
        """The rows of one SELECT over the log's views, as an Arrow RecordBatchReader that asks as it is read.

        `endpoint`, `start` and `end` (of as_of) choose what `predictions` has; outcomes are those of any time. Raises
        InvalidRequest for what is not one SELECT, and for what DuckDB refuses.
        """
        one_query(query)

        def ask(session: LogSession) -> str:
            session.all_views(self._terms, endpoint=endpoint, within=since_sql("as_of", start, end))
            session.lock()
            return query

        return self._streamed(Wanted({**_BOTH, TALLIES: ALL_DAYS}), ask, parameters=parameters, foreign=True)

    def ask(self, wanted: Wanted, question: Callable[[LogSession], AnswerT]) -> AnswerT:
        """What `question` makes of a session over what is wanted; asked again where files were replaced meanwhile."""
        attempt = 1
        while True:
            try:
                with self._session(wanted) as session:
                    return question(session)
            except FilesGone as error:
                if attempt == LOG_READ_TRIES:
                    raise moving(error) from error
                attempt += 1

    def _session(self, wanted: Wanted) -> LogSession:
        return LogSession(self._folder, self._store, wanted, bucket=self._bucket)

    def _streamed(
        self,
        wanted: Wanted,
        ask: Callable[[LogSession], str],
        *,
        parameters: Sequence[object] = (),
        rows: int = LOG_READ_BATCH_ROWS,
        foreign: bool = False,
    ) -> Any:
        attempt = 1
        while True:
            with ExitStack() as opened:
                try:
                    session = opened.enter_context(self._session(wanted))
                    reader = session.stream(ask(session), parameters, rows=rows, foreign=foreign)
                except FilesGone as error:
                    if attempt == LOG_READ_TRIES:
                        raise moving(error) from error
                    attempt += 1
                else:
                    opened.pop_all()
                    self._reading.add(session)
                    return reader


_IN_ORDER = "ORDER BY as_of, prediction_id"
_OUTCOME_COLUMNS = ("outcome", "outcome_id", "outcome_time", "outcome_received_time", "outcome_caller")


def _ordered_sql(
    session: LogSession,
    start: int | None,
    end: int | None,
    columns: Sequence[str] | None,
    *,
    sampled: bool = False,
) -> str:
    within = since_sql("as_of", start, end)
    scans = _checked(session, columns, within)
    sql = _sampled_sql(scans, within) if sampled else records_sql(scans, PREDICTIONS, where=within)
    listed = "*" if columns is None else ", ".join(map(identifier, columns))
    return f"SELECT {listed} FROM ({sql}) {_IN_ORDER}"


def _sampled_sql(scans: Sequence[Scan], within: str, only: Sequence[str] | None = None) -> str:
    """Records that were sampled; what was logged before there were samples has none."""
    known = [replace(scan, relations=scan.relations if SAMPLED in scan.types else ()) for scan in scans]
    where = " AND ".join(filter(None, [within, f"{SAMPLED} IS NOT NULL"]))
    return records_sql(known, PREDICTIONS, where=where, only=only)


def _checked(session: LogSession, columns: Sequence[str] | None, within: str) -> list[Scan]:
    """The scans of predictions, each column of which has one type; those without a row `within` only where they agree.

    Raises InvalidRequest where a column that is asked for does not exist, or has several types.
    """
    scans = session.scans(PREDICTIONS)
    types = columns_of(scans, PREDICTIONS)
    wanted = types if columns is None else columns
    if within and any(len(types.get(name, ())) > 1 for name in wanted):
        scans = [scan for scan in scans if _has_rows(session, scan, within)]
        types = columns_of(scans, PREDICTIONS)
    for name in wanted:
        if name not in types:
            raise InvalidRequest(
                f"the log has no column `{name}` here", path="columns", allowed=", ".join(f"`{each}`" for each in types)
            )
        if len(types[name]) > 1:
            raise InvalidRequest(
                f"bundles declare `{name}` with different dtypes: {', '.join(sorted(types[name]))}",
                path="start, end",
                allowed="a period in which the endpoint's bundles agree on dtypes, or other columns",
                hint="read the periods before and after the change separately",
            )
    return scans


def _has_rows(session: LogSession, scan: Scan, within: str) -> bool:
    sql = records_sql([scan], PREDICTIONS, where=within, only=("prediction_id",))
    return bool(session.arrow(f"SELECT 1 FROM ({sql}) LIMIT 1").num_rows)


def days(start: int | None, end: int | None) -> Days:
    """The days from `start` to before `end` (µs).

    >>> days(0, 86_400_000_000)
    Days(first='1970-01-01', last='1970-01-01')
    """
    return Days(_day(start), _day(None if end is None else end - 1))


def _day(moment: int | None) -> str | None:
    """The UTC day of a moment; None where days have no name that far away."""
    return day_of(moment) if moment is not None and _FIRST_DAY <= moment < _LAST_DAY else None
