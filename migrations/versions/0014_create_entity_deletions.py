"""Keep deletions of entities, so that what was deleted does not come back, with their receipts.

Down again, the receipts are gone, and rows that were deleted are no longer kept out.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0014"
down_revision: str | None = "0013"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "entity_hash_keys",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("number = 1", name=op.f("ck_entity_hash_keys_only_one")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_entity_hash_keys")),
    )
    op.create_table(
        "entity_deletions",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("key_names", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("hashes", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("views", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("before_us", sa.BigInteger(), nullable=False),
        sa.Column("for_ever", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("requested_time", sa.BigInteger(), nullable=False),
        sa.Column("finished_time", sa.BigInteger(), nullable=True),
        sa.Column("lifted_time", sa.BigInteger(), nullable=True),
        sa.Column("found", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("receipt", sa.JSON(none_as_null=True), nullable=True),
        sa.CheckConstraint("state IN ('begun', 'done', 'partly')", name=op.f("ck_entity_deletions_state_known")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_entity_deletions")),
    )
    op.create_index("uq_entity_deletions_id", "entity_deletions", ["id"], unique=True)


def downgrade() -> None:
    op.drop_table("entity_deletions")
    op.drop_table("entity_hash_keys")
