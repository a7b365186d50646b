"""Predictions beside their outcomes in force, aligned on the time asked about, out of one prediction log."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from skewless.adapters.log_reader import LogReader
from skewless.adapters.log_session import LogSession
from skewless.adapters.log_sources import ALL_DAYS, Wanted
from skewless.adapters.log_tables import OUTCOMES, PREDICTIONS
from skewless.adapters.log_views import KEY_PREFIX, columns_of, made_us, records_sql, since_sql
from skewless.adapters.model_metrics_files import CountedFiles
from skewless.adapters.outcome_maturity import maturity_of
from skewless.errors import InvalidDefinition
from skewless.features.point_in_time import identifier, literal
from skewless.limits import LOG_READ_BATCH_ROWS, ROWS_MAX
from skewless.model_metrics.logged import Coded, LoggedRows
from skewless.monitor_limits import MODEL_METRIC_CLUSTERS, MODEL_METRIC_PART_CHARACTERS, MODEL_METRIC_PARTS_MAX
from skewless.serving.label_maturity import LabelMaturity
from skewless.serving.outcome_terms import OutcomeTerms
from skewless.timestamps import DAY_US, Micros, parse_timestamp
from skewless.training.slices import NULL, OTHER

_PREFIXES = (KEY_PREFIX, "request.", "feature.")
"""Where a slice's column is looked for, in this order."""
_DAY = "strftime(received_time, '%Y-%m-%d')"

AnswerT = TypeVar("AnswerT")


@dataclass(frozen=True, slots=True)
class Counted:
    """What earlier looks counted of an endpoint's predictions, and of all outcomes; endpoints may share the latter."""

    predictions: CountedFiles = field(default_factory=CountedFiles)
    outcomes: CountedFiles = field(default_factory=CountedFiles)


def look_at_outcomes(
    log: LogReader,
    endpoint: str,
    terms: OutcomeTerms,
    question: Callable[["LogOutcomes"], AnswerT],
    *,
    counted: Counted | None = None,
) -> AnswerT:
    """What `question` makes of one look at an endpoint's log; asked again where files were replaced meanwhile.

    `counted` is of earlier looks at the same log, and is kept up. Raises Unavailable where the log cannot be read.
    """
    wanted = Wanted({PREDICTIONS: ALL_DAYS, OUTCOMES: ALL_DAYS}, endpoint)
    known = counted or Counted()
    return log.ask(wanted, lambda session: question(LogOutcomes(session, endpoint, terms, known)))


class LogOutcomes:
    """`model_metrics.compute.OutcomeLook` over one session of the log."""

    def __init__(self, session: LogSession, endpoint: str, terms: OutcomeTerms, counted: Counted) -> None:
        self._session = session
        self._counted = counted
        self._endpoint = endpoint
        self._terms = terms
        self._scans = session.scans(PREDICTIONS)
        self._columns = columns_of(self._scans, PREDICTIONS)
        self._joined = False
        session.outcome_views({endpoint: terms})

    def predictions_by_period(self, period_us: int) -> Mapping[Micros, int]:
        """See OutcomeLook."""
        period = f"epoch_us(as_of) // {period_us} * {period_us}"
        return self._counted.predictions.counts(self._session, self._scans, period)

    def outcomes_by_day(self) -> Mapping[str, int]:
        """See OutcomeLook."""
        return self._counted.outcomes.counts(self._session, self._session.scans(OUTCOMES), _DAY)

    def last_made(self, period_us: int) -> Micros | None:
        """When the last prediction of the newest period was made, by its id; None: there is none, or no id says."""
        newest = max(self.predictions_by_period(period_us), default=None)
        return None if newest is None else self.youngest(newest, Micros(newest + period_us))

    def last_told(self) -> Micros | None:
        """When the last outcome of any of the endpoint's predictions was received; None: never."""
        own = records_sql(self._scans, PREDICTIONS, only=("prediction_id",))
        return self._moment(
            "SELECT max(epoch_us(received_time)) FROM outcomes_told "
            f"WHERE prediction_id IN (SELECT prediction_id FROM ({own}))"
        )

    def periods_told_on(self, days: frozenset[str], period_us: int) -> frozenset[Micros]:
        """See OutcomeLook."""
        if not days:
            return frozenset()
        # Times beside days, because files have statistics of them.
        within = since_sql("received_time", parse_timestamp(min(days)), parse_timestamp(max(days)) + DAY_US)
        on_days = f"{within} AND {_DAY} IN ({', '.join(map(literal, sorted(days)))})"
        nameless = self._session.arrow(f"SELECT 1 FROM outcomes WHERE {on_days} AND prediction_id IS NULL LIMIT 1")
        # Which prediction is meant by an entity is looked for among all of them.
        view = "outcomes_told" if nameless.num_rows else "outcomes"
        self._session.table("told_on_days", f"SELECT DISTINCT prediction_id FROM {view} WHERE {on_days}")
        own = records_sql(self._scans, PREDICTIONS, only=("prediction_id", "as_of"))
        # Ids grow with time: the ends of those that are looked for leave out files of other days, by their statistics.
        found = self._session.arrow(
            f"SELECT DISTINCT epoch_us(as_of) // {period_us} * {period_us} FROM ({own}) "
            "WHERE prediction_id IN (SELECT prediction_id FROM told_on_days)"
        )
        return frozenset(found.column(0).to_pylist())

    def maturity(self, now: Micros) -> LabelMaturity:
        """See OutcomeLook."""
        return maturity_of(self._session, self._endpoint, now=now, terms=self._terms)

    def youngest(self, start: Micros, end: Micros) -> Micros | None:
        """See OutcomeLook."""
        own = records_sql(self._scans, PREDICTIONS, where=since_sql("as_of", start, end), only=("prediction_id",))
        return self._moment(f"SELECT max({made_us('prediction_id')}) FROM ({own})")

    def rows(self, start: Micros, end: Micros, *, slices: tuple[str, ...], ranked: bool) -> Iterator[LoggedRows]:
        """See OutcomeLook. Raises InvalidDefinition for a slice that no prediction of the endpoint has a column of."""
        self._join()
        sliced = [self._slice_column(each) for each in slices]
        keys = [name for name in self._columns if name.startswith(KEY_PREFIX)]
        own = records_sql(
            self._scans,
            PREDICTIONS,
            where=since_sql("as_of", start, end),
            only=list(dict.fromkeys([*_ALWAYS, *keys, *sliced])),
        )
        parts = [
            f"{self._part_sql(own, column)} AS {identifier(f'part_{place}')}" for place, column in enumerate(sliced)
        ]
        cluster = f"hash({', '.join(map(identifier, keys))})" if keys else "hash(own.prediction_id)"
        listed = ", ".join([
            "bundle_digest", "role", "own.label AS label", "probability", "request_id", "final.label AS outcome",
            f"({cluster} % {MODEL_METRIC_CLUSTERS})::BIGINT AS cluster", *parts,
        ])  # fmt: skip
        order = "request_id, own.prediction_id" if ranked else "own.prediction_id"
        sql = (
            f"SELECT {listed} FROM ({own}) AS own LEFT JOIN final_outcomes AS final "
            f"ON coalesce(own.live_prediction_id, own.prediction_id) = final.prediction_id ORDER BY {order}"
        )
        batches = (pa.Table.from_batches([each]) for each in self._session.batches(sql, rows=LOG_READ_BATCH_ROWS))
        for table in _whole_requests(batches) if ranked else batches:
            yield _logged(table, slices)

    def _join(self) -> None:
        """Which outcome is in force is decided once for all periods of this look."""
        if not self._joined:
            self._session.table("final_outcomes", "SELECT prediction_id, label FROM outcomes_final")
            self._joined = True

    def _slice_column(self, name: str) -> str:
        for prefix in _PREFIXES:
            if f"{prefix}{name}" in self._columns:
                return f"{prefix}{name}"
        known = sorted(each.split(".", 1)[1] for each in self._columns if each.startswith(_PREFIXES))
        raise InvalidDefinition(
            f"endpoint `{self._endpoint}` is to be judged by slices of `{name}`, which its predictions do not have. "
            f"Columns: {', '.join(known) or 'none yet'}",
            hint="`skewless endpoint set --monitoring` changes metrics.slices",
        )

    def _part_sql(self, own: str, column: str) -> str:
        """A row's part, as every database can hold it: its value where that is among the commonest, by name."""
        written = f"replace(CAST({identifier(column)} AS VARCHAR), chr(0), '\\x00')"
        text = f"substr({written}, 1, {MODEL_METRIC_PART_CHARACTERS})"
        value = f"coalesce({text}, {literal(NULL)})"
        common = self._session.arrow(
            f"SELECT {value} AS part FROM ({own}) GROUP BY part ORDER BY count(*) DESC, part "
            f"LIMIT {MODEL_METRIC_PARTS_MAX}"
        )
        listed = ", ".join(map(literal, common.column(0).to_pylist())) or "NULL"
        return f"CASE WHEN {value} IN ({listed}) THEN {value} ELSE {literal(OTHER)} END"

    def _moment(self, sql: str) -> Micros | None:
        found = self._session.arrow(sql).column(0)[0].as_py()
        return None if found is None else Micros(found)


_ALWAYS = (
    "prediction_id", "bundle_digest", "role", "label", "probability", "request_id", "live_prediction_id",
)  # fmt: skip


def _whole_requests(tables: Iterator[Any]) -> Iterator[Any]:
    """Tables in order of request, cut anew so that no request is in two; longer ones than ROWS_MAX may be."""
    kept: Any = None
    for table in tables:
        held = table if kept is None else pa.concat_tables([kept, table])
        requests = held.column("request_id")
        last = pc.index(requests, requests[held.num_rows - 1]).as_py() if held.num_rows else 0
        if held.num_rows - last > ROWS_MAX:
            last = held.num_rows
        if last:
            yield held.slice(0, last)
        kept = held.slice(last)
    if kept is not None and kept.num_rows:
        yield kept


def _logged(table: Any, slices: tuple[str, ...]) -> LoggedRows:
    return LoggedRows(
        bundle=_coded(table, "bundle_digest"),
        role=_coded(table, "role"),
        label=_coded(table, "label"),
        outcome=_coded(table, "outcome"),
        scores=_array(table, "probability").astype(np.float32),
        clusters=_array(table, "cluster").astype(np.intp),
        requests=_coded(table, "request_id").codes.astype(np.int64),
        parts={name: _coded(table, f"part_{place}") for place, name in enumerate(slices)},
    )


def _array(table: Any, name: str) -> NDArray[Any]:
    found: NDArray[Any] = table.column(name).to_numpy()
    return found


def _coded(table: Any, name: str) -> Coded:
    encoded = table.column(name).combine_chunks().dictionary_encode(null_encoding="encode")
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    codes: NDArray[np.int32] = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int32)
    return Coded(codes, encoded.dictionary.to_pylist())
