"""Create bundles, endpoints, routes and the audit trail."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0001"
down_revision: str | None = None
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

# A migration keeps its own types: it must go on meaning the same when the tables' module changes.
_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _create_bundles()
    op.create_table(
        "endpoints",
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("created_time", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_endpoints"),
    )
    _create_routes()
    _create_audit_events()


def downgrade() -> None:
    for table in ("audit_events", "routes", "endpoints", "bundles"):
        op.drop_table(table)


def _create_bundles() -> None:
    op.create_table(
        "bundles",
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("created_time", sa.BigInteger(), nullable=False),
        sa.Column("artifact", sa.Text(), nullable=False),
        sa.Column("contract_digest", sa.String(64), nullable=False),
        sa.Column("transform_digest", sa.String(64), nullable=False),
        sa.Column("signature", _JSON, nullable=False),
        sa.Column("metrics", _JSON, nullable=False),
        sa.Column("provenance", _JSON, nullable=False),
        sa.CheckConstraint("length(digest) = 64", name=op.f("ck_bundles_digest_length")),
        sa.PrimaryKeyConstraint("digest", name="pk_bundles"),
    )
    op.create_index("ix_bundles_name", "bundles", ["name"])


def _create_routes() -> None:
    op.create_table(
        "routes",
        sa.Column("endpoint_name", sa.String(63), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("bundle_digest", sa.String(64), nullable=False),
        sa.Column("share", sa.Double(), nullable=False),
        sa.Column("changed_time", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("role IN ('live', 'canary', 'shadow')", name=op.f("ck_routes_role_known")),
        sa.CheckConstraint("share >= 0 AND share <= 1", name=op.f("ck_routes_share_range")),
        sa.ForeignKeyConstraint(["endpoint_name"], ["endpoints.name"], name="fk_routes_endpoint_name"),
        sa.ForeignKeyConstraint(["bundle_digest"], ["bundles.digest"], name="fk_routes_bundle_digest"),
        sa.PrimaryKeyConstraint("endpoint_name", "role", name="pk_routes"),
    )
    op.create_index("ix_routes_bundle_digest", "routes", ["bundle_digest"])


def _create_audit_events() -> None:
    op.create_table(
        "audit_events",
        sa.Column("number", _ROW_NUMBER, autoincrement=True, nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("subject", sa.String(200), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("detail", _JSON, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_audit_events"),
    )
    op.create_index("ix_audit_events_subject_number", "audit_events", ["subject", "number"])
