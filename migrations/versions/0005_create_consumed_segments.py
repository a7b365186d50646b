"""Create the ledger of consumed segments: what each group of a stream's consumers has taken.

Down again, groups take once more what the stream still holds.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "consumed_segments",
        sa.Column("group_name", sa.String(63), nullable=False),
        sa.Column("segment", sa.String(200), nullable=False),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("segment_rows", sa.BigInteger(), nullable=False),
        sa.Column("taken", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("whole", sa.Boolean(), nullable=False),
        sa.Column("changed_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("group_name", "segment", name=op.f("pk_consumed_segments")),
    )
    for columns in (("group_name", "source", "sequence"), ("group_name", "changed_time")):
        op.create_index(op.f(f"ix_consumed_segments_{'_'.join(columns)}"), "consumed_segments", list(columns))


def downgrade() -> None:
    op.drop_table("consumed_segments")
