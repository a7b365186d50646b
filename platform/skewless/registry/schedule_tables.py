"""Tables of schedules: how each scheduled view stands, and which schedulers are alive."""

from sqlalchemy import BigInteger, CheckConstraint, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from skewless.registry.tables import Base

_View = String(255)
_Owner = String(120)


class ScheduleRow(Base):
    """One view that is materialized by a schedule; see `features/schedule.py` for what its columns mean.

    A due time is claimed by raising `version`: of two schedulers that try, one finds another version than it read.
    """

    __tablename__ = "schedules"
    __table_args__ = (
        CheckConstraint("outcome IN ('running', 'done', 'failed', 'refused', 'interrupted')", name="outcome_known"),
    )

    view: Mapped[str] = mapped_column(_View, primary_key=True)
    expression: Mapped[str] = mapped_column(String(120))
    since_time: Mapped[int] = mapped_column(BigInteger)
    due_time: Mapped[int | None] = mapped_column(BigInteger)
    outcome: Mapped[str | None] = mapped_column(String(16))
    done_time: Mapped[int | None] = mapped_column(BigInteger)
    attempts: Mapped[int] = mapped_column(Integer)
    next_try_time: Mapped[int | None] = mapped_column(BigInteger)
    started_time: Mapped[int | None] = mapped_column(BigInteger)
    ended_time: Mapped[int | None] = mapped_column(BigInteger)
    last_success_time: Mapped[int | None] = mapped_column(BigInteger)
    missed: Mapped[int] = mapped_column(Integer)
    told: Mapped[str] = mapped_column(Text)
    owner: Mapped[str] = mapped_column(_Owner)
    version: Mapped[int] = mapped_column(Integer)


class SchedulerRow(Base):
    """A scheduler that is at work, or was until `seen_time`."""

    __tablename__ = "schedulers"

    owner: Mapped[str] = mapped_column(_Owner, primary_key=True)
    runs_max: Mapped[int] = mapped_column(Integer)
    started_time: Mapped[int] = mapped_column(BigInteger)
    seen_time: Mapped[int] = mapped_column(BigInteger)
