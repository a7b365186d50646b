"""Keep how good models were, by period and slice.

Down again, nothing is lost but time: all of it is computed from the prediction log.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "model_metrics",
        sa.Column("endpoint", sa.String(length=63), nullable=False),
        sa.Column("bundle_digest", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("slice", sa.String(length=300), nullable=False),
        sa.Column("period_start_us", sa.BigInteger(), nullable=False),
        sa.Column("metric", sa.String(length=64), nullable=False),
        sa.Column("is_estimate", sa.Boolean(), nullable=False),
        sa.Column("period_us", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("low", sa.Double(), nullable=True),
        sa.Column("high", sa.Double(), nullable=True),
        sa.Column("bounds", sa.String(length=16), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("labelled", sa.BigInteger(), nullable=False),
        sa.Column("effective", sa.Double(), nullable=True),
        sa.Column("maturity", sa.Double(), nullable=False),
        sa.Column("expected", sa.Double(), nullable=True),
        sa.Column("mature", sa.Boolean(), nullable=False),
        sa.Column("computed_time", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("bounds IN ('always', 'pointwise')", name=op.f("ck_model_metrics_bounds_known")),
        sa.CheckConstraint("labelled >= 0 AND labelled <= rows", name=op.f("ck_model_metrics_labelled_range")),
        sa.PrimaryKeyConstraint(
            "endpoint", "bundle_digest", "role", "slice", "period_start_us", "metric", "is_estimate",
            name=op.f("pk_model_metrics"),
        ),
    )  # fmt: skip
    op.create_index(op.f("ix_model_metrics_endpoint_period_start_us"), "model_metrics", ["endpoint", "period_start_us"])
    op.create_table(
        "model_metric_periods",
        sa.Column("endpoint", sa.String(length=63), nullable=False),
        sa.Column("period_start_us", sa.BigInteger(), nullable=False),
        sa.Column("predictions", sa.BigInteger(), nullable=False),
        sa.Column("stale", sa.Boolean(), nullable=False),
        sa.Column("due_us", sa.BigInteger(), nullable=True),
        sa.Column("computed_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("endpoint", "period_start_us", name=op.f("pk_model_metric_periods")),
    )
    op.create_table(
        "model_metric_progress",
        sa.Column("endpoint", sa.String(length=63), nullable=False),
        sa.Column("settings", sa.String(length=64), nullable=False),
        sa.Column("outcomes", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("changed_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("endpoint", name=op.f("pk_model_metric_progress")),
    )


def downgrade() -> None:
    op.drop_table("model_metric_progress")
    op.drop_table("model_metric_periods")
    op.drop_index(op.f("ix_model_metrics_endpoint_period_start_us"), table_name="model_metrics")
    op.drop_table("model_metrics")
