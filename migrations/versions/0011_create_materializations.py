"""Keep leases, runs of materialization, and how far each view has got.

Down again, the next materialization of every view is a full one; nothing that is stored online is lost.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    _create_leases()
    _create_runs()
    _create_watermarks()


def downgrade() -> None:
    for table in ("materialization_watermarks", "materialization_runs", "leases"):
        op.drop_table(table)


def _create_leases() -> None:
    op.create_table(
        "leases",
        sa.Column("name", sa.String(300), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("taken_time", sa.BigInteger(), nullable=False),
        sa.Column("expires_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )


def _create_runs() -> None:
    op.create_table(
        "materialization_runs",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("view", sa.String(255), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("started_by", sa.String(16), nullable=False),
        sa.Column("engine", sa.String(16), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("as_of", sa.BigInteger(), nullable=False),
        *(
            sa.Column(name, sa.BigInteger(), nullable=True)
            for name in ("since_created_time", "since_event_time", "from_time", "to_time")
        ),
        sa.Column("definition", sa.String(64), nullable=False),
        sa.Column("plan", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("parts", sa.Integer(), nullable=False),
        sa.Column("parts_done", sa.Integer(), nullable=False),
        *(
            sa.Column(f"{name}_rows", sa.BigInteger(), nullable=False)
            for name in ("source", "set_aside", "new", "replaced", "older", "same", "verified")
        ),
        sa.Column("newest_event_time", sa.BigInteger(), nullable=True),
        sa.Column("newest_created_time", sa.BigInteger(), nullable=True),
        sa.Column("started_time", sa.BigInteger(), nullable=False),
        sa.Column("ended_time", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "kind IN ('full', 'incremental', 'backfill')", name=op.f("ck_materialization_runs_kind_known")
        ),
        sa.CheckConstraint(
            "started_by IN ('manual', 'scheduled')", name=op.f("ck_materialization_runs_started_by_known")
        ),
        sa.CheckConstraint("state IN ('running', 'done', 'failed')", name=op.f("ck_materialization_runs_state_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_materialization_runs")),
    )
    op.create_index(op.f("ix_materialization_runs_view_id"), "materialization_runs", ["view", "id"])


def _create_watermarks() -> None:
    op.create_table(
        "materialization_watermarks",
        sa.Column("view", sa.String(255), nullable=False),
        sa.Column("run_id", sa.String(36), nullable=False),
        sa.Column("as_of", sa.BigInteger(), nullable=False),
        sa.Column("created_time", sa.BigInteger(), nullable=False),
        sa.Column("event_time", sa.BigInteger(), nullable=False),
        sa.Column("definition", sa.String(64), nullable=False),
        sa.Column("changed_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("view", name=op.f("pk_materialization_watermarks")),
    )
