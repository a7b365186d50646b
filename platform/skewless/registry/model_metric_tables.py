"""Tables of how good models were: a row per metric of a period, and which periods are computed from what."""

from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, CheckConstraint, Double, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from skewless.registry.column_types import DigestText, EndpointName, RoleName
from skewless.registry.tables import Base

SLICE_CHARACTERS = 300


class ModelMetricRow(Base):
    """One metric of a bundle in a role, of the predictions of one period and slice ("": all of them).

    A null `value` has its `reason`. `bounds` says what `low` and `high` are, null where there are none. `maturity` is
    the share of the `rows` that is `labelled`, `expected` what it usually is at that age. `effective` is for how many
    independent rows those of a rate count.
    """

    __tablename__ = "model_metrics"
    __table_args__ = (
        Index(None, "endpoint", "period_start_us"),
        CheckConstraint("bounds IN ('always', 'pointwise')", name="bounds_known"),
        CheckConstraint("labelled >= 0 AND labelled <= rows", name="labelled_range"),
    )

    endpoint: Mapped[str] = mapped_column(EndpointName, primary_key=True)
    bundle_digest: Mapped[str] = mapped_column(DigestText, primary_key=True)
    role: Mapped[str] = mapped_column(RoleName, primary_key=True)
    slice: Mapped[str] = mapped_column(String(SLICE_CHARACTERS), primary_key=True)
    period_start_us: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    metric: Mapped[str] = mapped_column(String(64), primary_key=True)
    is_estimate: Mapped[bool] = mapped_column(Boolean, primary_key=True)
    period_us: Mapped[int] = mapped_column(BigInteger)
    value: Mapped[float | None] = mapped_column(Double)
    low: Mapped[float | None] = mapped_column(Double)
    high: Mapped[float | None] = mapped_column(Double)
    bounds: Mapped[str | None] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(Text)
    rows: Mapped[int] = mapped_column(BigInteger)
    labelled: Mapped[int] = mapped_column(BigInteger)
    effective: Mapped[float | None] = mapped_column(Double)
    maturity: Mapped[float] = mapped_column(Double)
    expected: Mapped[float | None] = mapped_column(Double)
    mature: Mapped[bool] = mapped_column(Boolean)
    computed_time: Mapped[int] = mapped_column(BigInteger)


class ModelMetricPeriodRow(Base):
    """One computed period of an endpoint: of how many predictions, and whether it must be computed again.

    `due_us` is when time alone makes it mature, null where it is or where nothing is known of outcomes.
    """

    __tablename__ = "model_metric_periods"

    endpoint: Mapped[str] = mapped_column(EndpointName, primary_key=True)
    period_start_us: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    predictions: Mapped[int] = mapped_column(BigInteger)
    stale: Mapped[bool] = mapped_column(Boolean)
    due_us: Mapped[int | None] = mapped_column(BigInteger)
    computed_time: Mapped[int] = mapped_column(BigInteger)


class ModelMetricProgressRow(Base):
    """What of an endpoint's outcomes its periods know: outcomes by the day of their receipt.

    `settings` is the digest of what metrics depend on beside the log; with another one all is computed again.
    """

    __tablename__ = "model_metric_progress"

    endpoint: Mapped[str] = mapped_column(EndpointName, primary_key=True)
    settings: Mapped[str] = mapped_column(String(64))
    outcomes: Mapped[dict[str, Any]] = mapped_column(JSON(none_as_null=True))
    changed_time: Mapped[int] = mapped_column(BigInteger)
