"""Keep every version of the feature definitions that was applied, and how far receivers of lineage were told."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

_ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "definition_versions",
        sa.Column("number", _ROW_NUMBER, autoincrement=True, nullable=False),
        sa.Column("project", sa.String(255), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("before", sa.String(64), nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("started_time", sa.BigInteger(), nullable=False),
        sa.Column("applied_time", sa.BigInteger(), nullable=True),
        sa.Column("document", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("plan", sa.JSON(none_as_null=True), nullable=False),
        sa.CheckConstraint("length(digest) = 64", name=op.f("ck_definition_versions_digest_length")),
        sa.CheckConstraint(
            "state IN ('applying', 'applied', 'abandoned')", name=op.f("ck_definition_versions_state_known")
        ),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_definition_versions")),
    )
    op.create_index(
        op.f("ix_definition_versions_project_state_number"), "definition_versions", ["project", "state", "number"]
    )
    op.create_table(
        "lineage_positions",
        sa.Column("receiver", sa.String(64), nullable=False),
        sa.Column("source", sa.String(32), nullable=False),
        sa.Column("position", sa.String(64), nullable=False),
        sa.Column("changed_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("receiver", "source", name=op.f("pk_lineage_positions")),
    )


def downgrade() -> None:
    op.drop_table("lineage_positions")
    op.drop_table("definition_versions")
