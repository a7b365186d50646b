"""Keep what the running parity monitor compared and found.

Down again, the history of comparisons is lost; the monitor compares anew what the log still holds.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "parity_passes",
        sa.Column("endpoint", sa.String(63), nullable=False),
        sa.Column("pass_name", sa.String(8), nullable=False),
        sa.Column("start_us", sa.BigInteger(), nullable=False),
        sa.Column("end_us", sa.BigInteger(), nullable=False),
        sa.Column("steps", sa.JSON(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("checked_time", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("pass_name IN ('then', 'finally')", name=op.f("ck_parity_passes_pass_known")),
        sa.PrimaryKeyConstraint("endpoint", "pass_name", "start_us", name=op.f("pk_parity_passes")),
    )
    op.create_table(
        "parity_results",
        sa.Column("endpoint", sa.String(63), nullable=False),
        sa.Column("period_start_us", sa.BigInteger(), nullable=False),
        sa.Column("pass_name", sa.String(8), nullable=False),
        sa.Column("bundle_digest", sa.String(64), nullable=False),
        sa.Column("stratum", sa.String(32), nullable=False),
        sa.Column("level", sa.String(32), nullable=False),
        sa.Column("view", sa.String(255), nullable=False),
        sa.Column("cause", sa.String(32), nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.Column("mismatches", sa.BigInteger(), nullable=False),
        sa.Column("entities", sa.BigInteger(), nullable=False),
        sa.Column("rate", sa.Double(), nullable=False),
        sa.Column("low", sa.Double(), nullable=False),
        sa.Column("high", sa.Double(), nullable=False),
        sa.Column("unit_groups", sa.LargeBinary(), nullable=True),
        sa.Column("mismatch_groups", sa.LargeBinary(), nullable=True),
        sa.CheckConstraint(
            "mismatches >= 0 AND mismatches <= units", name=op.f("ck_parity_results_mismatches_range")
        ),
        sa.PrimaryKeyConstraint(
            "endpoint", "period_start_us", "pass_name", "bundle_digest", "stratum", "level", "view", "cause",
            name=op.f("pk_parity_results"),
        ),
    )  # fmt: skip
    op.create_index(
        op.f("ix_parity_results_endpoint_pass_name_period_start_us"),
        "parity_results",
        ["endpoint", "pass_name", "period_start_us"],
    )
    op.create_table(
        "parity_examples",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("endpoint", sa.String(63), nullable=False),
        sa.Column("period_start_us", sa.BigInteger(), nullable=False),
        sa.Column("pass_name", sa.String(8), nullable=False),
        sa.Column("bundle_digest", sa.String(64), nullable=False),
        sa.Column("view", sa.String(255), nullable=False),
        sa.Column("cause", sa.String(32), nullable=False),
        sa.Column("prediction_id", sa.String(200), nullable=False),
        sa.Column("explanation", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_parity_examples")),
    )
    op.create_index(
        op.f("ix_parity_examples_endpoint_view_cause_number"),
        "parity_examples",
        ["endpoint", "view", "cause", "number"],
    )
    op.create_table(
        "parity_states",
        sa.Column("endpoint", sa.String(63), nullable=False),
        sa.Column("state", sa.JSON(), nullable=False),
        sa.Column("changed_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("endpoint", name=op.f("pk_parity_states")),
    )


def downgrade() -> None:
    op.drop_table("parity_states")
    op.drop_index(op.f("ix_parity_examples_endpoint_view_cause_number"), table_name="parity_examples")
    op.drop_table("parity_examples")
    op.drop_index(op.f("ix_parity_results_endpoint_pass_name_period_start_us"), table_name="parity_results")
    op.drop_table("parity_results")
    op.drop_table("parity_passes")
