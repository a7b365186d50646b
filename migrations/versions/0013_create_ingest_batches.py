"""Keep batches of feature rows and events from when they are accepted until both stores have them.

Down again, batches that wait are lost: have them delivered before (`skewless ingest status`).
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    _create_lanes()
    _create_batches()
    _create_payloads()
    _create_keys()


def downgrade() -> None:
    for table in ("ingest_keys", "ingest_payloads", "ingest_batches", "ingest_lanes"):
        op.drop_table(table)


def _create_lanes() -> None:
    op.create_table(
        "ingest_lanes",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("next_number", sa.BigInteger(), nullable=False),
        sa.Column("last_time", sa.BigInteger(), nullable=False),
        sa.Column("newest_event_time", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("kind IN ('rows', 'events')", name=op.f("ck_ingest_lanes_kind_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ingest_lanes")),
    )
    op.create_index(op.f("ix_ingest_lanes_kind_name"), "ingest_lanes", ["kind", "name"], unique=True)


def _create_batches() -> None:
    op.create_table(
        "ingest_batches",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("lane_id", sa.String(36), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("payload_bytes", sa.BigInteger(), nullable=False),
        sa.Column("decoded_bytes", sa.BigInteger(), nullable=False),
        sa.Column("newest_event_time", sa.BigInteger(), nullable=True),
        sa.Column("received_time", sa.BigInteger(), nullable=False),
        sa.Column("accepted_time", sa.BigInteger(), nullable=False),
        sa.Column("online_time", sa.BigInteger(), nullable=True),
        sa.Column("offline_time", sa.BigInteger(), nullable=True),
        sa.Column("changed_time", sa.BigInteger(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("quality_run", sa.String(36), nullable=False),
        sa.CheckConstraint(
            "state IN ('accepted', 'online', 'done', 'failed', 'dropped')", name=op.f("ck_ingest_batches_state_known")
        ),
        sa.ForeignKeyConstraint(["lane_id"], ["ingest_lanes.id"], name=op.f("fk_ingest_batches_lane_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ingest_batches")),
    )
    op.create_index(op.f("ix_ingest_batches_lane_id_number"), "ingest_batches", ["lane_id", "number"], unique=True)
    op.create_index(op.f("ix_ingest_batches_state_lane_id_number"), "ingest_batches", ["state", "lane_id", "number"])
    op.create_index(op.f("ix_ingest_batches_lane_id_accepted_time"), "ingest_batches", ["lane_id", "accepted_time"])


def _create_payloads() -> None:
    op.create_table(
        "ingest_payloads",
        sa.Column("batch_id", sa.String(36), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["ingest_batches.id"], name=op.f("fk_ingest_payloads_batch_id")),
        sa.PrimaryKeyConstraint("batch_id", name=op.f("pk_ingest_payloads")),
    )


def _create_keys() -> None:
    op.create_table(
        "ingest_keys",
        sa.Column("lane_id", sa.String(36), nullable=False),
        sa.Column("caller", sa.String(255), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("batch_id", sa.String(36), nullable=False),
        sa.Column("answer", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("accepted_time", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["lane_id"], ["ingest_lanes.id"], name=op.f("fk_ingest_keys_lane_id")),
        sa.PrimaryKeyConstraint("lane_id", "caller", "key", name=op.f("pk_ingest_keys")),
    )
    op.create_index(op.f("ix_ingest_keys_accepted_time"), "ingest_keys", ["accepted_time"])
