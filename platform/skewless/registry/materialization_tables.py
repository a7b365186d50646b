"""Tables of materialization: runs with how far each has come, and how far each view has got."""

from sqlalchemy import BigInteger, CheckConstraint, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from skewless.registry.column_types import DigestText
from skewless.registry.tables import Base

_RunId = String(36)
_View = String(255)


class MaterializationRunRow(Base):
    """One run for one view, by its name in the store. `id` grows with time; `parts_done` is where it goes on.

    `since_created_time` and `since_event_time` bound the rows of an incremental run, `from_time` and `to_time` the
    event times of a back-fill; null where they do not. `plan` says what must be the same for a run to be gone on with.
    """

    __tablename__ = "materialization_runs"
    __table_args__ = (
        CheckConstraint("kind IN ('full', 'incremental', 'backfill')", name="kind_known"),
        CheckConstraint("started_by IN ('manual', 'scheduled')", name="started_by_known"),
        CheckConstraint("state IN ('running', 'done', 'failed')", name="state_known"),
        Index(None, "view", "id"),
    )

    id: Mapped[str] = mapped_column(_RunId, primary_key=True)
    view: Mapped[str] = mapped_column(_View)
    kind: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text)
    started_by: Mapped[str] = mapped_column(String(16))
    engine: Mapped[str] = mapped_column(String(16))
    owner: Mapped[str] = mapped_column(Text)
    as_of: Mapped[int] = mapped_column(BigInteger)
    since_created_time: Mapped[int | None] = mapped_column(BigInteger)
    since_event_time: Mapped[int | None] = mapped_column(BigInteger)
    from_time: Mapped[int | None] = mapped_column(BigInteger)
    to_time: Mapped[int | None] = mapped_column(BigInteger)
    definition: Mapped[str] = mapped_column(DigestText)
    plan: Mapped[str] = mapped_column(DigestText)
    state: Mapped[str] = mapped_column(String(16))
    parts: Mapped[int] = mapped_column(Integer)
    parts_done: Mapped[int] = mapped_column(Integer)
    source_rows: Mapped[int] = mapped_column(BigInteger)
    set_aside_rows: Mapped[int] = mapped_column(BigInteger)
    new_rows: Mapped[int] = mapped_column(BigInteger)
    replaced_rows: Mapped[int] = mapped_column(BigInteger)
    older_rows: Mapped[int] = mapped_column(BigInteger)
    same_rows: Mapped[int] = mapped_column(BigInteger)
    verified_rows: Mapped[int] = mapped_column(BigInteger)
    newest_event_time: Mapped[int | None] = mapped_column(BigInteger)
    newest_created_time: Mapped[int | None] = mapped_column(BigInteger)
    started_time: Mapped[int] = mapped_column(BigInteger)
    ended_time: Mapped[int | None] = mapped_column(BigInteger)
    error: Mapped[str] = mapped_column(Text)


class MaterializationWatermarkRow(Base):
    """How far a view has got in the online store that `run_id` was written to: all rows known by then are in it."""

    __tablename__ = "materialization_watermarks"

    view: Mapped[str] = mapped_column(_View, primary_key=True)
    run_id: Mapped[str] = mapped_column(_RunId)
    as_of: Mapped[int] = mapped_column(BigInteger)
    created_time: Mapped[int] = mapped_column(BigInteger)
    event_time: Mapped[int] = mapped_column(BigInteger)
    definition: Mapped[str] = mapped_column(DigestText)
    changed_time: Mapped[int] = mapped_column(BigInteger)
