"""Create the table of compiled feature registries."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

# A migration keeps its own types: it must go on meaning the same when the tables' module changes.
_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "feature_snapshots",
        sa.Column("project", sa.String(255), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("compiled_at", sa.BigInteger(), nullable=False),
        sa.Column("checked_at", sa.BigInteger(), nullable=False),
        sa.Column("document", _JSON, nullable=False),
        sa.CheckConstraint("length(digest) = 64", name=op.f("ck_feature_snapshots_digest_length")),
        sa.PrimaryKeyConstraint("project", name="pk_feature_snapshots"),
    )


def downgrade() -> None:
    op.drop_table("feature_snapshots")
