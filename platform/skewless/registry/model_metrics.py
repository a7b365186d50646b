"""How good models were, kept in the registry's database: metrics by period, and what they were computed from."""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from skewless.canonical_json import Digest
from skewless.model_metrics.calibration import LogOddsFit
from skewless.model_metrics.compute import Computed
from skewless.model_metrics.judged import ALL
from skewless.model_metrics.logged import Key
from skewless.model_metrics.records import MetricRecord
from skewless.monitor_limits import METRIC_ROWS_AT_ONCE
from skewless.registry.model_metric_tables import ModelMetricPeriodRow, ModelMetricProgressRow, ModelMetricRow
from skewless.registry.transactions import RegistryPart
from skewless.timestamps import Micros

_FIT = ("calibration_slope", "calibration_intercept")


class ModelMetrics(RegistryPart):
    """`model_metrics.compute.MetricsStore`, and what reads it. It is computed and not decided, so it is not audited."""

    def metrics(
        self,
        endpoint: str,
        *,
        start: int | None = None,
        end: int | None = None,
        slice_called: str | None = ALL,
        bundle: str = "",
    ) -> tuple[MetricRecord, ...]:
        """An endpoint's metrics of the periods that begin from `start` to before `end` (µs), by period and name.

        `slice_called` None: of every slice. `bundle` is what the bundle's digest begins with.
        """
        wanted = select(ModelMetricRow).where(ModelMetricRow.endpoint == endpoint)
        if start is not None:
            wanted = wanted.where(ModelMetricRow.period_start_us >= start)
        if end is not None:
            wanted = wanted.where(ModelMetricRow.period_start_us < end)
        if slice_called is not None:
            wanted = wanted.where(ModelMetricRow.slice == slice_called)
        if bundle:
            wanted = wanted.where(ModelMetricRow.bundle_digest.startswith(bundle, autoescape=True))
        ordered = wanted.order_by(
            ModelMetricRow.period_start_us,
            ModelMetricRow.bundle_digest,
            ModelMetricRow.role,
            ModelMetricRow.slice,
            ModelMetricRow.metric,
            ModelMetricRow.is_estimate,
        )
        with self._transactions.read() as session:
            return tuple(_record(row) for row in session.scalars(ordered))

    def newest_periods(self, endpoint: str) -> tuple[Micros, ...]:
        """Of each bundle and role: starts of its newest period and its newest mature one, each once, newest first."""
        by = (ModelMetricRow.bundle_digest, ModelMetricRow.role)
        wanted = select(func.max(ModelMetricRow.period_start_us)).where(
            ModelMetricRow.endpoint == endpoint, ModelMetricRow.slice == ALL
        )
        with self._transactions.read() as session:
            found = set(session.scalars(wanted.group_by(*by)))
            found |= set(session.scalars(wanted.where(ModelMetricRow.mature).group_by(*by)))
        return tuple(Micros(each) for each in sorted(found, reverse=True))

    def outcome_days(self, endpoint: str, settings: Digest) -> Mapping[str, int] | None:
        """See MetricsStore."""
        with self._transactions.read() as session:
            row = session.get(ModelMetricProgressRow, endpoint)
            return row.outcomes if row is not None and row.settings == settings else None

    def note_outcomes(
        self, endpoint: str, settings: Digest, days: Mapping[str, int], stale: frozenset[Micros], *, afresh: bool
    ) -> None:
        """See MetricsStore."""
        with self._transactions.write() as session:
            row = session.get(ModelMetricProgressRow, endpoint, with_for_update=True)
            if afresh:
                _forget(session, endpoint)
            for some in _in_parts(sorted(stale)):
                session.execute(
                    update(ModelMetricPeriodRow)
                    .where(ModelMetricPeriodRow.endpoint == endpoint, ModelMetricPeriodRow.period_start_us.in_(some))
                    .values(stale=True)
                )
            if row is None:
                row = ModelMetricProgressRow(endpoint=endpoint)
                session.add(row)
            row.settings, row.outcomes, row.changed_time = settings, dict(days), self._clock()

    def periods(self, endpoint: str) -> Mapping[Micros, Computed]:
        """See MetricsStore."""
        wanted = select(ModelMetricPeriodRow).where(ModelMetricPeriodRow.endpoint == endpoint)
        with self._transactions.read() as session:
            return {
                Micros(row.period_start_us): Computed(row.predictions, row.stale, row.due_us, Micros(row.computed_time))
                for row in session.scalars(wanted)
            }

    def replace_period(
        self, endpoint: str, start: Micros, computed: Computed, records: tuple[MetricRecord, ...]
    ) -> None:
        """See MetricsStore."""
        with self._transactions.write() as session:
            row = session.get(ModelMetricPeriodRow, (endpoint, start), with_for_update=True)
            session.execute(
                delete(ModelMetricRow).where(
                    ModelMetricRow.endpoint == endpoint, ModelMetricRow.period_start_us == start
                )
            )
            session.add_all(_row(each) for each in records)
            if not computed.predictions:
                if row is not None:
                    session.delete(row)
                return
            if row is None:
                row = ModelMetricPeriodRow(endpoint=endpoint, period_start_us=start)
                session.add(row)
            row.predictions, row.stale = computed.predictions, computed.stale
            row.due_us, row.computed_time = computed.due_us, computed.computed_time

    def log_odds_fit(self, endpoint: str, key: Key, *, ended_by: Micros) -> LogOddsFit | None:
        """See MetricsStore."""
        wanted = (
            select(ModelMetricRow.period_start_us, ModelMetricRow.metric, ModelMetricRow.value)
            .where(
                ModelMetricRow.endpoint == endpoint,
                ModelMetricRow.bundle_digest == key[0],
                ModelMetricRow.role == key[1],
                ModelMetricRow.slice == ALL,
                ModelMetricRow.metric.in_(_FIT),
                ModelMetricRow.value.is_not(None),
                ModelMetricRow.mature,
                ModelMetricRow.period_start_us + ModelMetricRow.period_us <= ended_by,
            )
            .order_by(ModelMetricRow.period_start_us.desc())
            .limit(len(_FIT))
        )
        with self._transactions.read() as session:
            found = {metric: value for _, metric, value in session.execute(wanted)}
        slope, intercept = (found.get(each) for each in _FIT)
        return None if slope is None or intercept is None else LogOddsFit(slope, intercept)


def _forget(session: Session, endpoint: str) -> None:
    session.execute(delete(ModelMetricRow).where(ModelMetricRow.endpoint == endpoint))
    session.execute(delete(ModelMetricPeriodRow).where(ModelMetricPeriodRow.endpoint == endpoint))


def _in_parts(starts: list[Micros]) -> Iterable[list[Micros]]:
    """So few at once that every database takes them as parameters of one statement."""
    for first in range(0, len(starts), METRIC_ROWS_AT_ONCE):
        yield starts[first : first + METRIC_ROWS_AT_ONCE]


def _row(record: MetricRecord) -> ModelMetricRow:
    return ModelMetricRow(
        endpoint=record.endpoint,
        bundle_digest=record.bundle,
        role=record.role,
        slice=record.slice,
        period_start_us=record.period_start,
        metric=record.metric,
        is_estimate=record.is_estimate,
        period_us=record.period_us,
        value=record.value,
        low=record.low,
        high=record.high,
        bounds=record.bounds,
        reason=record.reason,
        rows=record.rows,
        labelled=record.labelled,
        effective=record.effective,
        maturity=record.maturity,
        expected=record.expected,
        mature=record.mature,
        computed_time=record.computed_time,
    )


def _record(row: Any) -> MetricRecord:
    return MetricRecord(
        endpoint=row.endpoint,
        bundle=Digest(row.bundle_digest),
        role=row.role,
        slice=row.slice,
        period_start=Micros(row.period_start_us),
        period_us=row.period_us,
        metric=row.metric,
        is_estimate=row.is_estimate,
        value=row.value,
        low=row.low,
        high=row.high,
        bounds=row.bounds,
        reason=row.reason,
        rows=row.rows,
        labelled=row.labelled,
        effective=row.effective,
        expected=row.expected,
        mature=row.mature,
        computed_time=Micros(row.computed_time),
    )
