"""Keeps an endpoint's metrics up with its log: finds the periods that outcomes have changed, and computes them anew.

A look takes note of how many outcomes were received on each day, and how many predictions each period has. Where a
number has changed, the periods concerned are marked, in one transaction with the new numbers; then each is computed and
replaced in a transaction of its own. So what is killed in between is done again, and doing it again changes nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from skewless.canonical_json import Digest, digest
from skewless.model_metrics.calibration import LogOddsFit
from skewless.model_metrics.cell import Cell
from skewless.model_metrics.estimate import estimates
from skewless.model_metrics.judged import ALL
from skewless.model_metrics.labels import classes_of
from skewless.model_metrics.logged import SHADOW, Judging, Key, LoggedRows, count_rows
from skewless.model_metrics.maturity import PeriodMaturity, period_maturity
from skewless.model_metrics.measures import measures
from skewless.model_metrics.metric import Metric
from skewless.model_metrics.period_counts import PeriodCounts
from skewless.model_metrics.records import MetricRecord
from skewless.monitor_limits import MODEL_METRIC_PERIODS_MAX
from skewless.serving.label_maturity import LabelMaturity
from skewless.serving.monitoring_policy import MetricsPolicy
from skewless.serving.outcome_terms import OutcomeTerms
from skewless.timestamps import Micros
from skewless.training.definition import BinaryLabels

MEANING_VERSION = 1
"""Of what is computed; with another one everything is computed again."""


class OutcomeLook(Protocol):
    """One look at an endpoint's log; everything it says is of one moment."""

    def predictions_by_period(self, period_us: int) -> Mapping[Micros, int]:
        """How many predictions each period has, by its start; periods without any are left out."""
        ...

    def outcomes_by_day(self) -> Mapping[str, int]:
        """How many outcomes, of any endpoint, were received on each UTC day."""
        ...

    def periods_told_on(self, days: frozenset[str], period_us: int) -> frozenset[Micros]:
        """The periods of the endpoint's predictions that outcomes received on these days are about."""
        ...

    def maturity(self, now: Micros) -> LabelMaturity:
        """How complete outcomes are by the age of predictions."""
        ...

    def youngest(self, start: Micros, end: Micros) -> Micros | None:
        """When the last of the predictions with `start` <= as_of < `end` was made, by its id; None: no id says."""
        ...

    def rows(self, start: Micros, end: Micros, *, slices: tuple[str, ...], ranked: bool) -> Iterator[LoggedRows]:
        """Predictions with `start` <= as_of < `end` beside their outcomes in force, in an order that is always the
        same; `ranked`: never a request in two parts."""
        ...


@dataclass(frozen=True, slots=True)
class Computed:
    """One kept period: `predictions` it was computed of, `stale` where outcomes have come since, when time alone may
    make it mature, and when it was computed."""

    predictions: int
    stale: bool
    due_us: int | None
    computed_time: Micros


class MetricsStore(Protocol):
    """Keeps metrics, and what they were computed from."""

    def outcome_days(self, endpoint: str, settings: Digest) -> Mapping[str, int] | None:
        """The outcomes by day that are accounted for; None where none are, or metrics depend on other settings."""
        ...

    def note_outcomes(
        self, endpoint: str, settings: Digest, days: Mapping[str, int], stale: frozenset[Micros], *, afresh: bool
    ) -> None:
        """Keep these outcomes by day and mark periods, in one transaction; `afresh` forgets all metrics first."""
        ...

    def periods(self, endpoint: str) -> Mapping[Micros, Computed]:
        """Every kept period, by its start."""
        ...

    def replace_period(
        self, endpoint: str, start: Micros, computed: Computed, records: tuple[MetricRecord, ...]
    ) -> None:
        """Put a period's metrics in the place of those that were there, in one transaction."""
        ...

    def log_odds_fit(self, endpoint: str, key: Key, *, ended_by: Micros) -> LogOddsFit | None:
        """The calibration of the last mature period that ended by then; None where there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Subject:
    """The endpoint whose models are judged, and what is agreed about it. `labels` are a bundle's own, None where its
    files are gone."""

    endpoint: str
    policy: MetricsPolicy
    terms: OutcomeTerms
    labels: Callable[[Digest], BinaryLabels | None]

    @property
    def settings(self) -> Digest:
        """The digest of all that metrics depend on beside the log."""
        agreed = {"policy": self.policy.to_json(), "terms": self.terms.to_json(), "meaning": MEANING_VERSION}
        return digest(agreed)


@dataclass(frozen=True, slots=True)
class Progress:
    """Periods that were computed, and those that still wait."""

    computed: int
    waiting: int


def keep_up(
    subject: Subject,
    look: OutcomeLook,
    store: MetricsStore,
    *,
    now: Micros,
    periods_max: int,
    rest_us: int = 0,
    stopped: Callable[[], bool] = lambda: False,
) -> Progress:
    """Compute up to `periods_max` periods that have changed, oldest first.

    One that was computed less than `rest_us` ago waits its turn, and is not told as waiting: what goes on filling, or
    has an outcome every second, would be read again and again. Where `stopped` says so it ends after the one under way.

    Raises Unavailable where log or registry cannot be read, Conflict where another process keeps the same metrics up.
    """
    waiting = _waiting(subject, look, store, now, rest_us)
    known = look.maturity(now) if waiting else None
    done = 0
    for start in waiting[:periods_max]:
        if known is None or stopped():
            break
        compute_period(subject, look, store, start, known=known)
        done += 1
    return Progress(done, len(waiting) - done)


def _waiting(subject: Subject, look: OutcomeLook, store: MetricsStore, now: Micros, rest_us: int) -> list[Micros]:
    """Starts of the periods to be computed, oldest first, once what is new is noted."""
    period_us = subject.policy.period_us
    before = store.outcome_days(subject.endpoint, subject.settings)
    days = look.outcomes_by_day()
    changed = frozenset(day for day, count in days.items() if (before or {}).get(day) != count)
    changed |= frozenset((before or {}).keys() - days.keys())
    if before is None or changed:
        told = look.periods_told_on(changed, period_us) if before is not None else frozenset()
        store.note_outcomes(subject.endpoint, subject.settings, days, told, afresh=before is None)
    kept = store.periods(subject.endpoint)
    there = look.predictions_by_period(period_us)
    gone = [start for start in kept if start not in there]
    newest = sorted(there)[-MODEL_METRIC_PERIODS_MAX:]
    return sorted([*gone, *(each for each in newest if _is_due(kept.get(each), there[each], now, rest_us))])


def _is_due(kept: Computed | None, predictions: int, now: Micros, rest_us: int) -> bool:
    if kept is None:
        return True
    if kept.stale or kept.predictions != predictions:
        return now >= kept.computed_time + rest_us
    return kept.due_us is not None and kept.due_us <= now


def compute_period(
    subject: Subject, look: OutcomeLook, store: MetricsStore, start: Micros, *, known: LabelMaturity
) -> tuple[MetricRecord, ...]:
    """Compute and keep one period; what the log has no predictions of any more is forgotten."""
    policy, end = subject.policy, Micros(start + subject.policy.period_us)
    judging = Judging(
        lambda bundle: classes_of(policy.positive, subject.labels(bundle)),
        policy.ranking_k,
        {name: frozenset(labels) for name, labels in policy.counters.items()},
    )
    counts: dict[Key, PeriodCounts] = {}
    for rows in look.rows(start, end, slices=policy.slices, ranked=policy.ranking_k is not None):
        count_rows(rows, judging, counts)
    made = look.youngest(start, end)
    records: list[MetricRecord] = []
    predictions, due = 0, None
    for key, counted in sorted(counts.items()):
        # By what was known when the period began: a later one would make the estimate look better than it was.
        fit = store.log_odds_fit(subject.endpoint, key, ended_by=Micros(start - int(known.horizon_us or 0)))
        classed = judging.classes(key[0]) is not None
        for name, cell in counted.cells():
            state = period_maturity(rows=cell.rows, told=cell.told, end_us=end, made_us=made, known=known)
            found = list(_metrics(cell, key, policy, classed=classed, fit=fit))
            records += _records(subject, key, name, start, found, cell, state, Micros(known.now_us))
            due = state.due_us if due is None else due
            predictions += cell.rows if name == ALL else 0
    done = tuple(records)
    computed = Computed(predictions, stale=False, due_us=due, computed_time=Micros(known.now_us))
    store.replace_period(subject.endpoint, start, computed, done)
    return done


def _metrics(cell: Cell, key: Key, policy: MetricsPolicy, *, classed: bool, fit: LogOddsFit | None) -> Iterator[Metric]:
    yield from measures(cell, classed=classed, ranked=policy.ranking_k is not None, counters=key[1] != SHADOW)
    if classed:
        yield from estimates(cell, fit)


def _records(
    subject: Subject,
    key: Key,
    slice_called: str,
    start: Micros,
    metrics: list[Metric],
    cell: Cell,
    state: PeriodMaturity,
    now: Micros,
) -> Iterator[MetricRecord]:
    for each in metrics:
        yield MetricRecord(
            endpoint=subject.endpoint,
            bundle=key[0],
            role=key[1],
            slice=slice_called,
            period_start=start,
            period_us=subject.policy.period_us,
            metric=each.name,
            is_estimate=each.is_estimate,
            value=each.value,
            low=each.low,
            high=each.high,
            bounds=None if each.validity is None else each.validity.value,
            reason=each.reason,
            rows=cell.rows,
            labelled=cell.told,
            effective=each.effective,
            expected=state.expected,
            mature=state.mature,
            computed_time=now,
        )
