"""Tables of quality gates: runs, what came of each expectation, and batches of rows that were set aside."""

from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Double, ForeignKey, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from skewless.registry.column_types import Json
from skewless.registry.tables import Base

_RunId = String(36)
_View = String(255)


class QualityRunRow(Base):
    """One batch that was judged. `id` grows with time; `as_of` is the moment that it was judged for."""

    __tablename__ = "quality_runs"
    __table_args__ = (
        CheckConstraint("decision IN ('pass', 'warn', 'quarantine', 'stop')", name="decision_known"),
        Index(None, "view", "id"),
    )

    id: Mapped[str] = mapped_column(_RunId, primary_key=True)
    view: Mapped[str] = mapped_column(_View)
    suite: Mapped[str] = mapped_column(String(200))
    suite_digest: Mapped[str] = mapped_column(String(64))
    origin: Mapped[str] = mapped_column(String(32))
    batch: Mapped[str] = mapped_column(Text)
    as_of: Mapped[int] = mapped_column(BigInteger)
    time: Mapped[int] = mapped_column(BigInteger)
    duration_us: Mapped[int] = mapped_column(BigInteger)
    rows: Mapped[int] = mapped_column(BigInteger)
    set_aside: Mapped[int] = mapped_column(BigInteger)
    decision: Mapped[str] = mapped_column(String(16))
    results: Mapped[list["QualityResultRow"]] = relationship(lazy="raise", order_by="QualityResultRow.position")


class QualityResultRow(Base):
    """What came of one expectation in a run. `told` is the sentence for people, `hint` what to do."""

    __tablename__ = "quality_results"

    run_id: Mapped[str] = mapped_column(_RunId, ForeignKey("quality_runs.id"), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True)
    type: Mapped[str] = mapped_column(String(100))
    kwargs: Mapped[dict[str, Any]] = mapped_column(Json)
    severity: Mapped[str] = mapped_column(String(16))
    follows: Mapped[str] = mapped_column(String(16))
    success: Mapped[bool]
    unexpected: Mapped[int | None] = mapped_column(BigInteger)
    unexpected_share: Mapped[float | None] = mapped_column(Double)
    observed: Mapped[dict[str, Any] | None] = mapped_column(Json)
    told: Mapped[str] = mapped_column(Text)
    hint: Mapped[str] = mapped_column(Text)


class QuarantineBatchRow(Base):
    """Rows of one run that were set aside, in one file of the quarantine. `released` of them went on later."""

    __tablename__ = "quarantine_batches"
    __table_args__ = (
        CheckConstraint("state IN ('held', 'replayed', 'dropped')", name="state_known"),
        Index(None, "view", "state"),
    )

    id: Mapped[str] = mapped_column(_RunId, primary_key=True)
    run_id: Mapped[str] = mapped_column(_RunId)
    view: Mapped[str] = mapped_column(_View)
    file: Mapped[str] = mapped_column(Text)
    digest: Mapped[str] = mapped_column(String(64))
    rows: Mapped[int] = mapped_column(BigInteger)
    released: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(String(16))
    created_time: Mapped[int] = mapped_column(BigInteger)
    changed_time: Mapped[int] = mapped_column(BigInteger)
