"""Metrics as they are kept: which bundle, role, slice and period they are of, and how complete its outcomes were."""

from dataclasses import dataclass
from typing import Any

from skewless.canonical_json import Digest
from skewless.timestamps import Micros, format_timestamp


@dataclass(frozen=True, slots=True)
class MetricRecord:
    """One kept metric; see `registry/model_metric_tables.py`. `bounds` is `always`, `pointwise` or None."""

    endpoint: str
    bundle: Digest
    role: str
    slice: str
    period_start: Micros
    period_us: int
    metric: str
    is_estimate: bool
    value: float | None
    low: float | None
    high: float | None
    bounds: str | None
    reason: str | None
    rows: int
    labelled: int
    effective: float | None
    expected: float | None
    mature: bool
    computed_time: Micros

    @property
    def maturity(self) -> float:
        """The share of the predictions whose outcome has come."""
        return self.labelled / self.rows if self.rows else 0.0

    @property
    def period_end(self) -> Micros:
        """The first moment after the period."""
        return Micros(self.period_start + self.period_us)

    def to_json(self) -> dict[str, Any]:
        """Plain data, times as RFC 3339 text."""
        return {
            "endpoint": self.endpoint,
            "bundle": self.bundle,
            "role": self.role,
            "slice": self.slice,
            "period_start": format_timestamp(self.period_start),
            "period_end": format_timestamp(self.period_end),
            "metric": self.metric,
            "is_estimate": self.is_estimate,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "bounds": self.bounds,
            "reason": self.reason,
            "rows": self.rows,
            "labelled": self.labelled,
            "effective": self.effective,
            "maturity": self.maturity,
            "expected": self.expected,
            "mature": self.mature,
            "computed_time": format_timestamp(self.computed_time),
        }
