"""Tables of the running parity monitor: what was compared when, what was found, and some examples of it."""

from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Double, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from skewless.registry.column_types import DigestText, EndpointName, Json, RowNumber
from skewless.registry.tables import Base

_Pass = String(8)
_View = String(255)
_Word = String(32)


class ParityPassRow(Base):
    """One pass over the sampled predictions of one hour of an endpoint.

    `steps` has, by its number within the hour, how many predictions of each step were compared; what it names is done.
    Who compares holds this row until what was found is committed with it.
    """

    __tablename__ = "parity_passes"
    __table_args__ = (CheckConstraint("pass_name IN ('then', 'finally')", name="pass_known"),)

    endpoint: Mapped[str] = mapped_column(EndpointName, primary_key=True)
    pass_name: Mapped[str] = mapped_column(_Pass, primary_key=True)
    start_us: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    end_us: Mapped[int] = mapped_column(BigInteger)
    steps: Mapped[dict[str, int]] = mapped_column(Json)
    rows: Mapped[int] = mapped_column(BigInteger)
    checked_time: Mapped[int] = mapped_column(BigInteger)


class ParityResultRow(Base):
    """Counts of one hour, pass, bundle, stratum, level, view and cause (empty: none); see `parity/tally.py`."""

    __tablename__ = "parity_results"
    __table_args__ = (
        CheckConstraint("mismatches >= 0 AND mismatches <= units", name="mismatches_range"),
        Index(None, "endpoint", "pass_name", "period_start_us"),
    )

    endpoint: Mapped[str] = mapped_column(EndpointName, primary_key=True)
    period_start_us: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    pass_name: Mapped[str] = mapped_column(_Pass, primary_key=True)
    bundle_digest: Mapped[str] = mapped_column(DigestText, primary_key=True)
    stratum: Mapped[str] = mapped_column(_Word, primary_key=True)
    level: Mapped[str] = mapped_column(_Word, primary_key=True)
    view: Mapped[str] = mapped_column(_View, primary_key=True)
    cause: Mapped[str] = mapped_column(_Word, primary_key=True)
    units: Mapped[int] = mapped_column(BigInteger)
    mismatches: Mapped[int] = mapped_column(BigInteger)
    entities: Mapped[int] = mapped_column(BigInteger)
    rate: Mapped[float] = mapped_column(Double)
    low: Mapped[float] = mapped_column(Double)
    high: Mapped[float] = mapped_column(Double)
    unit_groups: Mapped[bytes | None] = mapped_column(LargeBinary)
    mismatch_groups: Mapped[bytes | None] = mapped_column(LargeBinary)


class ParityExampleRow(Base):
    """A mismatch that a person can follow; of each endpoint, view and cause the newest few are kept."""

    __tablename__ = "parity_examples"
    __table_args__ = (Index(None, "endpoint", "view", "cause", "number"),)

    number: Mapped[int] = mapped_column(RowNumber, primary_key=True, autoincrement=True)
    endpoint: Mapped[str] = mapped_column(EndpointName)
    period_start_us: Mapped[int] = mapped_column(BigInteger)
    pass_name: Mapped[str] = mapped_column(_Pass)
    bundle_digest: Mapped[str] = mapped_column(DigestText)
    view: Mapped[str] = mapped_column(_View)
    cause: Mapped[str] = mapped_column(_Word)
    prediction_id: Mapped[str] = mapped_column(String(200))
    explanation: Mapped[dict[str, Any]] = mapped_column(Json)


class ParityStateRow(Base):
    """How the monitor stands with an endpoint, as its own plain data: watermarks, backlog, newest prediction."""

    __tablename__ = "parity_states"

    endpoint: Mapped[str] = mapped_column(EndpointName, primary_key=True)
    state: Mapped[dict[str, Any]] = mapped_column(Json)
    changed_time: Mapped[int] = mapped_column(BigInteger)
