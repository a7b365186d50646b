"""Keep the results of quality gates, and what they set aside.

Down again, files of the quarantine stay where they are, and nothing names them any more.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    _create_runs()
    _create_results()
    _create_quarantine()


def downgrade() -> None:
    for table in ("quarantine_batches", "quality_results", "quality_runs"):
        op.drop_table(table)


def _create_runs() -> None:
    op.create_table(
        "quality_runs",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("view", sa.String(255), nullable=False),
        sa.Column("suite", sa.String(200), nullable=False),
        sa.Column("suite_digest", sa.String(64), nullable=False),
        sa.Column("origin", sa.String(32), nullable=False),
        sa.Column("batch", sa.Text(), nullable=False),
        sa.Column("as_of", sa.BigInteger(), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("duration_us", sa.BigInteger(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("set_aside", sa.BigInteger(), nullable=False),
        sa.Column("decision", sa.String(16), nullable=False),
        sa.CheckConstraint(
            "decision IN ('pass', 'warn', 'quarantine', 'stop')", name=op.f("ck_quality_runs_decision_known")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quality_runs")),
    )
    op.create_index(op.f("ix_quality_runs_view_id"), "quality_runs", ["view", "id"])


def _create_results() -> None:
    op.create_table(
        "quality_results",
        sa.Column("run_id", sa.String(36), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("type", sa.String(100), nullable=False),
        sa.Column("kwargs", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("severity", sa.String(16), nullable=False),
        sa.Column("follows", sa.String(16), nullable=False),
        sa.Column("success", sa.Boolean(), nullable=False),
        sa.Column("unexpected", sa.BigInteger(), nullable=True),
        sa.Column("unexpected_share", sa.Double(), nullable=True),
        sa.Column("observed", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("told", sa.Text(), nullable=False),
        sa.Column("hint", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["quality_runs.id"], name=op.f("fk_quality_results_run_id")),
        sa.PrimaryKeyConstraint("run_id", "position", name=op.f("pk_quality_results")),
    )


def _create_quarantine() -> None:
    op.create_table(
        "quarantine_batches",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("run_id", sa.String(36), nullable=False),
        sa.Column("view", sa.String(255), nullable=False),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("released", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created_time", sa.BigInteger(), nullable=False),
        sa.Column("changed_time", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("state IN ('held', 'replayed', 'dropped')", name=op.f("ck_quarantine_batches_state_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quarantine_batches")),
    )
    op.create_index(op.f("ix_quarantine_batches_view_state"), "quarantine_batches", ["view", "state"])
