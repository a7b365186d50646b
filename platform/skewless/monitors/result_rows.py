"""Rows of the monitors of outcomes and parity for programs."""

from dataclasses import dataclass
from datetime import datetime

from skewless.model_metrics.records import MetricRecord
from skewless.registry.parity_history import ParityResult as StoredResult
from skewless.timestamps import HOUR_US, from_micros


@dataclass(frozen=True, slots=True)
class ModelMetric:
    """One metric of one bundle, role, slice ('' for all rows) and period of prediction time; see docs/model-metrics.md.

    `value` None comes with a `reason`. `is_estimate`: expected before outcomes came. `maturity` is the share of `rows`
    whose outcome is there; `low` and `high` are `bounds`: `always` valid or `pointwise`.
    """

    endpoint: str
    bundle: str
    role: str
    slice: str
    start: datetime
    end: datetime
    metric: str
    is_estimate: bool
    value: float | None
    low: float | None
    high: float | None
    bounds: str | None
    reason: str | None
    rows: int
    labelled: int
    maturity: float
    mature: bool


@dataclass(frozen=True, slots=True)
class ParityResult:
    """How many units of a level and view differed for one cause in an hour of predictions; see docs/parity.md.

    `pass_name` is `then` or `finally`, `stratum` which part of the sample, `rate` is mismatches / units with bounds.
    """

    endpoint: str
    bundle: str
    start: datetime
    end: datetime
    pass_name: str
    stratum: str
    level: str
    view: str
    cause: str
    units: int
    mismatches: int
    entities: int
    rate: float
    low: float
    high: float


def metric_row(stored: MetricRecord) -> ModelMetric:
    """A kept metric as programs get it."""
    return ModelMetric(
        endpoint=stored.endpoint,
        bundle=stored.bundle,
        role=stored.role,
        slice=stored.slice,
        start=from_micros(stored.period_start),
        end=from_micros(stored.period_end),
        metric=stored.metric,
        is_estimate=stored.is_estimate,
        value=stored.value,
        low=stored.low,
        high=stored.high,
        bounds=stored.bounds,
        reason=stored.reason,
        rows=stored.rows,
        labelled=stored.labelled,
        maturity=stored.maturity,
        mature=stored.mature,
    )


def parity_row(stored: StoredResult) -> ParityResult:
    """A result of parity as programs get it."""
    return ParityResult(
        endpoint=stored.endpoint,
        bundle=stored.bundle,
        start=from_micros(stored.period_start_us),
        end=from_micros(stored.period_start_us + HOUR_US),
        pass_name=str(stored.pass_),
        stratum=str(stored.stratum),
        level=str(stored.level),
        view=stored.view,
        cause=stored.cause,
        units=stored.units,
        mismatches=stored.mismatches,
        entities=stored.entities,
        rate=stored.rate,
        low=stored.low,
        high=stored.high,
    )
