"""What the drift monitor counted and found, in the registry's database.

Rows are found by endpoint, bundle and role without foreign keys: the log may name what the registry has given up.
Times are of the event, in µs, where they end in `_us`; a `_time` is the clock's.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Double,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    literal_column,
    text,
)
from sqlalchemy.orm import InstrumentedAttribute, Mapped, mapped_column

from skewless.registry.column_types import DigestText, EndpointName, Json, RoleName
from skewless.registry.tables import Base
from skewless.timestamps import HOUR_US

_Slice = String(300)
_Feature = String(255)


_FINE = f"window_us < {HOUR_US}"
"""Written out as a number, here and in statements: a plan that is made for any number cannot use the index."""


def is_fine(column: InstrumentedAttribute[int]) -> ColumnElement[bool]:
    """Whether a window is shorter than an hour, as the index of those has it."""
    return column < literal_column(str(HOUR_US))


class DriftEndpointRow(Base):
    """How far an endpoint's traffic has come: the greatest `as_of` counted, and until when windows are sealed.

    `is_live` says that rows came soon after their `as_of`, so that the clock may seal windows too. The counts are those
    since the monitor began: `uncounted_rows` are of bundles whose files are gone, or of a moment that is to come.
    """

    __tablename__ = "drift_endpoints"

    endpoint_name: Mapped[str] = mapped_column(EndpointName, primary_key=True)
    newest_us: Mapped[int] = mapped_column(BigInteger)
    sealed_us: Mapped[int] = mapped_column(BigInteger)
    is_live: Mapped[bool] = mapped_column(Boolean)
    rows: Mapped[int] = mapped_column(BigInteger)
    late_rows: Mapped[int] = mapped_column(BigInteger)
    uncounted_rows: Mapped[int] = mapped_column(BigInteger)
    problem: Mapped[str | None] = mapped_column(Text)
    changed_time: Mapped[int] = mapped_column(BigInteger)


class DriftTallyRow(Base):
    """What was counted of one slice ('' for all rows) in one window, in the bins that `layout` names.

    `counts` is read by `drift/tally_form.py`. `late_rows` came when the window was sealed. `shapes` has how many rows
    had a part of another shape than the bundle's, by its name. `recounted`: other bundles' rows, in this one's bins.
    """

    __tablename__ = "drift_tallies"
    __table_args__ = (
        Index(None, "endpoint_name", "window_start_us"),
        # Old windows are looked for before hours of a year that are older still.
        Index(
            "ix_drift_tallies_fine",
            "endpoint_name",
            "window_start_us",
            sqlite_where=text(_FINE),
            postgresql_where=text(_FINE),
        ),
    )

    endpoint_name: Mapped[str] = mapped_column(EndpointName, primary_key=True)
    bundle_digest: Mapped[str] = mapped_column(DigestText, primary_key=True)
    role: Mapped[str] = mapped_column(RoleName, primary_key=True)
    slice: Mapped[str] = mapped_column(_Slice, primary_key=True)
    window_start_us: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    window_us: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    layout: Mapped[str] = mapped_column(DigestText)
    rows: Mapped[int] = mapped_column(BigInteger)
    late_rows: Mapped[int] = mapped_column(BigInteger)
    recounted: Mapped[bool] = mapped_column(Boolean)
    shapes: Mapped[dict[str, Any] | None] = mapped_column(Json)
    counts: Mapped[bytes] = mapped_column(LargeBinary)


class DriftWordRow(Base):
    """A word that training never saw, by how often it came: at least `rows - over` times, at most `rows`."""

    __tablename__ = "drift_words"

    endpoint_name: Mapped[str] = mapped_column(EndpointName, primary_key=True)
    bundle_digest: Mapped[str] = mapped_column(DigestText, primary_key=True)
    feature: Mapped[str] = mapped_column(_Feature, primary_key=True)
    word: Mapped[str] = mapped_column(String(64), primary_key=True)
    rows: Mapped[int] = mapped_column(BigInteger)
    over: Mapped[int] = mapped_column(BigInteger)
    first_us: Mapped[int] = mapped_column(BigInteger)
    last_us: Mapped[int] = mapped_column(BigInteger)


class DriftWindowRow(Base):
    """The reading of one sealed window. `grade` is what it was compared with; null where its day is left out."""

    __tablename__ = "drift_windows"
    __table_args__ = (Index(None, "endpoint_name", "window_start_us"),)

    endpoint_name: Mapped[str] = mapped_column(EndpointName, primary_key=True)
    bundle_digest: Mapped[str] = mapped_column(DigestText, primary_key=True)
    role: Mapped[str] = mapped_column(RoleName, primary_key=True)
    window_start_us: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    window_us: Mapped[int] = mapped_column(BigInteger)
    rows: Mapped[int] = mapped_column(BigInteger)
    level: Mapped[float] = mapped_column(Double)
    leading: Mapped[str] = mapped_column(_Feature)
    is_open: Mapped[bool] = mapped_column(Boolean)
    grade: Mapped[str | None] = mapped_column(String(16))
    breaks: Mapped[list[dict[str, Any]] | None] = mapped_column(Json)


class DriftAlarmRow(Base):
    """An alarm of one bundle in one role. `report` is where a report about it lies, null where none was made."""

    __tablename__ = "drift_alarms"
    __table_args__ = (
        Index(None, "endpoint_name", "opened_us"),
        Index("uq_drift_alarms_key", "endpoint_name", "bundle_digest", "role", "opened_us", unique=True),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    endpoint_name: Mapped[str] = mapped_column(EndpointName)
    bundle_digest: Mapped[str] = mapped_column(DigestText)
    role: Mapped[str] = mapped_column(RoleName)
    opened_us: Mapped[int] = mapped_column(BigInteger)
    since_us: Mapped[int] = mapped_column(BigInteger)
    closed_us: Mapped[int | None] = mapped_column(BigInteger)
    peak: Mapped[float] = mapped_column(Double)
    calibrated: Mapped[bool] = mapped_column(Boolean)
    moved: Mapped[list[dict[str, Any]]] = mapped_column(Json)
    report: Mapped[str | None] = mapped_column(Text)
    told_time: Mapped[int] = mapped_column(BigInteger)


class DriftStateRow(Base):
    """All that the detector of one bundle in one role remembers, and how it was calibrated.

    `next_start_us` is the beginning of the first window that is not scored. `levels` has how high each variable stands
    now. `achieved` is how many alarms the height raises in what it was calibrated on, per promised one; null, as
    `height`, where nothing is promised. `calibration` is read by `drift/calibration_form.py`.
    """

    __tablename__ = "drift_states"

    endpoint_name: Mapped[str] = mapped_column(EndpointName, primary_key=True)
    bundle_digest: Mapped[str] = mapped_column(DigestText, primary_key=True)
    role: Mapped[str] = mapped_column(RoleName, primary_key=True)
    window_us: Mapped[int] = mapped_column(BigInteger)
    slices: Mapped[list[str]] = mapped_column(Json)
    next_start_us: Mapped[int] = mapped_column(BigInteger)
    grade: Mapped[str] = mapped_column(String(16))
    height: Mapped[float | None] = mapped_column(Double)
    promise_days: Mapped[float] = mapped_column(Double)
    streams: Mapped[int] = mapped_column(Integer)
    achieved: Mapped[float | None] = mapped_column(Double)
    history_start_us: Mapped[int | None] = mapped_column(BigInteger)
    history_end_us: Mapped[int | None] = mapped_column(BigInteger)
    levels: Mapped[dict[str, Any]] = mapped_column(Json)
    problem: Mapped[str | None] = mapped_column(Text)
    computed_time: Mapped[int] = mapped_column(BigInteger)
    version: Mapped[int] = mapped_column(Integer)
    state: Mapped[dict[str, Any]] = mapped_column(Json, deferred=True)
    calibration: Mapped[bytes | None] = mapped_column(LargeBinary, deferred=True)

    # Two processes that score one window cannot both win.
    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012  # SQLAlchemy's form


class DriftPartialRow(Base):
    """Which rows of a segment's table came by the stream while the rest did not: the ends of their prediction ids."""

    __tablename__ = "drift_partials"
    __table_args__ = (Index(None, "changed_time"),)

    segment: Mapped[str] = mapped_column(String(200), primary_key=True)
    table_name: Mapped[str] = mapped_column(String(200), primary_key=True)
    first: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    ids: Mapped[bytes] = mapped_column(LargeBinary)
    changed_time: Mapped[int] = mapped_column(BigInteger)


class DriftLogTableRow(Base):
    """Which files of one table of the log store hold nothing new, and since when the table is followed."""

    __tablename__ = "drift_log_tables"

    path: Mapped[str] = mapped_column(String(300), primary_key=True)
    files: Mapped[list[str]] = mapped_column(Json)
    started_time: Mapped[int] = mapped_column(BigInteger)
    skipped_segments: Mapped[int] = mapped_column(BigInteger)


class DriftRecountRow(Base):
    """Earlier rows of an endpoint being counted in a new bundle's bins, day by day back from `until_us`.

    `next_us` is the end of the day that comes next; it is done where that is `since_us` or before.
    """

    __tablename__ = "drift_recounts"

    endpoint_name: Mapped[str] = mapped_column(EndpointName, primary_key=True)
    bundle_digest: Mapped[str] = mapped_column(DigestText, primary_key=True)
    role: Mapped[str] = mapped_column(RoleName, primary_key=True)
    since_us: Mapped[int] = mapped_column(BigInteger)
    until_us: Mapped[int] = mapped_column(BigInteger)
    next_us: Mapped[int] = mapped_column(BigInteger)
    rows: Mapped[int] = mapped_column(BigInteger)
    changed_time: Mapped[int] = mapped_column(BigInteger)
