"""Keep what the drift monitor counted and found, and each endpoint's monitoring policy.

Down again, all of that is lost; what the log still holds can be counted anew.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

_JSON = sa.JSON(none_as_null=True)
_FINE = sa.text("window_us < 3600000000")
_TABLES = (
    "drift_endpoints",
    "drift_tallies",
    "drift_words",
    "drift_windows",
    "drift_alarms",
    "drift_states",
    "drift_partials",
    "drift_log_tables",
    "drift_recounts",
)


def upgrade() -> None:
    op.add_column("endpoints", sa.Column("monitoring", _JSON, nullable=True))
    _create_counts()
    _create_readings()
    _create_progress()


def downgrade() -> None:
    for table in reversed(_TABLES):
        op.drop_table(table)
    op.drop_column("endpoints", "monitoring")


def _create_counts() -> None:
    op.create_table(
        "drift_endpoints",
        sa.Column("endpoint_name", sa.String(63), nullable=False),
        sa.Column("newest_us", sa.BigInteger(), nullable=False),
        sa.Column("sealed_us", sa.BigInteger(), nullable=False),
        sa.Column("is_live", sa.Boolean(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("late_rows", sa.BigInteger(), nullable=False),
        sa.Column("uncounted_rows", sa.BigInteger(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.Column("changed_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("endpoint_name", name=op.f("pk_drift_endpoints")),
    )
    op.create_table(
        "drift_tallies",
        sa.Column("endpoint_name", sa.String(63), nullable=False),
        sa.Column("bundle_digest", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("slice", sa.String(300), nullable=False),
        sa.Column("window_start_us", sa.BigInteger(), nullable=False),
        sa.Column("window_us", sa.BigInteger(), nullable=False),
        sa.Column("layout", sa.String(64), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("late_rows", sa.BigInteger(), nullable=False),
        sa.Column("recounted", sa.Boolean(), nullable=False),
        sa.Column("shapes", _JSON, nullable=True),
        sa.Column("counts", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint(
            "endpoint_name",
            "bundle_digest",
            "role",
            "slice",
            "window_start_us",
            "window_us",
            name=op.f("pk_drift_tallies"),
        ),
    )
    op.create_index(
        op.f("ix_drift_tallies_endpoint_name_window_start_us"), "drift_tallies", ["endpoint_name", "window_start_us"]
    )
    op.create_index(
        "ix_drift_tallies_fine",
        "drift_tallies",
        ["endpoint_name", "window_start_us"],
        sqlite_where=_FINE,
        postgresql_where=_FINE,
    )
    op.create_table(
        "drift_words",
        sa.Column("endpoint_name", sa.String(63), nullable=False),
        sa.Column("bundle_digest", sa.String(64), nullable=False),
        sa.Column("feature", sa.String(255), nullable=False),
        sa.Column("word", sa.String(64), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("over", sa.BigInteger(), nullable=False),
        sa.Column("first_us", sa.BigInteger(), nullable=False),
        sa.Column("last_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("endpoint_name", "bundle_digest", "feature", "word", name=op.f("pk_drift_words")),
    )


def _create_readings() -> None:
    op.create_table(
        "drift_windows",
        sa.Column("endpoint_name", sa.String(63), nullable=False),
        sa.Column("bundle_digest", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("window_start_us", sa.BigInteger(), nullable=False),
        sa.Column("window_us", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("level", sa.Double(), nullable=False),
        sa.Column("leading", sa.String(255), nullable=False),
        sa.Column("is_open", sa.Boolean(), nullable=False),
        sa.Column("grade", sa.String(16), nullable=True),
        sa.Column("breaks", _JSON, nullable=True),
        sa.PrimaryKeyConstraint(
            "endpoint_name", "bundle_digest", "role", "window_start_us", name=op.f("pk_drift_windows")
        ),
    )
    op.create_index(
        op.f("ix_drift_windows_endpoint_name_window_start_us"), "drift_windows", ["endpoint_name", "window_start_us"]
    )
    op.create_table(
        "drift_alarms",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("endpoint_name", sa.String(63), nullable=False),
        sa.Column("bundle_digest", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("opened_us", sa.BigInteger(), nullable=False),
        sa.Column("since_us", sa.BigInteger(), nullable=False),
        sa.Column("closed_us", sa.BigInteger(), nullable=True),
        sa.Column("peak", sa.Double(), nullable=False),
        sa.Column("calibrated", sa.Boolean(), nullable=False),
        sa.Column("moved", _JSON, nullable=False),
        sa.Column("report", sa.Text(), nullable=True),
        sa.Column("told_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_drift_alarms")),
    )
    op.create_index(op.f("ix_drift_alarms_endpoint_name_opened_us"), "drift_alarms", ["endpoint_name", "opened_us"])
    op.create_index(
        "uq_drift_alarms_key", "drift_alarms", ["endpoint_name", "bundle_digest", "role", "opened_us"], unique=True
    )
    op.create_table(
        "drift_states",
        sa.Column("endpoint_name", sa.String(63), nullable=False),
        sa.Column("bundle_digest", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("window_us", sa.BigInteger(), nullable=False),
        sa.Column("slices", _JSON, nullable=False),
        sa.Column("next_start_us", sa.BigInteger(), nullable=False),
        sa.Column("grade", sa.String(16), nullable=False),
        sa.Column("height", sa.Double(), nullable=True),
        sa.Column("promise_days", sa.Double(), nullable=False),
        sa.Column("streams", sa.Integer(), nullable=False),
        sa.Column("achieved", sa.Double(), nullable=True),
        sa.Column("history_start_us", sa.BigInteger(), nullable=True),
        sa.Column("history_end_us", sa.BigInteger(), nullable=True),
        sa.Column("levels", _JSON, nullable=False),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.Column("computed_time", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("state", _JSON, nullable=False),
        sa.Column("calibration", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("endpoint_name", "bundle_digest", "role", name=op.f("pk_drift_states")),
    )


def _create_progress() -> None:
    op.create_table(
        "drift_partials",
        sa.Column("segment", sa.String(200), nullable=False),
        sa.Column("table_name", sa.String(200), nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("ids", sa.LargeBinary(), nullable=False),
        sa.Column("changed_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("segment", "table_name", "first", name=op.f("pk_drift_partials")),
    )
    op.create_index(op.f("ix_drift_partials_changed_time"), "drift_partials", ["changed_time"])
    op.create_table(
        "drift_log_tables",
        sa.Column("path", sa.String(300), nullable=False),
        sa.Column("files", _JSON, nullable=False),
        sa.Column("started_time", sa.BigInteger(), nullable=False),
        sa.Column("skipped_segments", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("path", name=op.f("pk_drift_log_tables")),
    )
    op.create_table(
        "drift_recounts",
        sa.Column("endpoint_name", sa.String(63), nullable=False),
        sa.Column("bundle_digest", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("since_us", sa.BigInteger(), nullable=False),
        sa.Column("until_us", sa.BigInteger(), nullable=False),
        sa.Column("next_us", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("changed_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("endpoint_name", "bundle_digest", "role", name=op.f("pk_drift_recounts")),
    )
