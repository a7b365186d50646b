"""Create experiments, rollout progress, data sets, evaluations and API keys; let bundles retire and routes roll back.

JSON columns of PostgreSQL become `json` instead of `jsonb`: it keeps the text as it was written, so that documents are
read back bit for bit and their digests hold. `jsonb` turns 1e22 into an integer and -0.0 into 0.

Down again, what the older schema has no place for is lost: experiments, keys, data sets, and which bundle was previous.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

# A migration keeps its own types: it must go on meaning the same when the tables' module changes.
_JSON = sa.JSON()
_JSON_COLUMNS = (
    ("bundles", "signature"),
    ("bundles", "metrics"),
    ("bundles", "provenance"),
    ("audit_events", "detail"),
    ("feature_snapshots", "document"),
)
_NAME, _DIGEST = sa.String(63), sa.String(64)
_RUNNING = sa.text("ended_time IS NULL")
_NOT_REVOKED = sa.text("revoked_time IS NULL")


def upgrade() -> None:
    if op.get_context().dialect.name == "postgresql":
        _keep_json_as(sa.JSON())
    op.add_column("bundles", sa.Column("retired_time", sa.BigInteger(), nullable=True))
    op.add_column("endpoints", sa.Column("sticky_by", _JSON, nullable=True))
    _set_roles("role IN ('live', 'previous', 'canary', 'shadow')")
    op.create_index("ix_audit_events_time", "audit_events", ["time"])
    _create_experiments()
    _create_experiment_arms()
    _create_experiment_counts()
    op.create_table(
        "rollout_progress",
        sa.Column("endpoint_name", _NAME, nullable=False),
        sa.Column("state", _JSON, nullable=False),
        sa.Column("changed_time", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["endpoint_name"], ["endpoints.name"], name="fk_rollout_progress_endpoint_name"),
        sa.PrimaryKeyConstraint("endpoint_name", name="pk_rollout_progress"),
    )
    _create_datasets_and_evaluations()
    _create_api_keys()


def downgrade() -> None:
    for table in ("api_keys", "evaluations", "datasets", "rollout_progress"):
        op.drop_table(table)
    for table in ("experiment_counts", "experiment_arms", "experiments"):
        op.drop_table(table)
    op.drop_index("ix_audit_events_time", "audit_events")
    op.execute("DELETE FROM routes WHERE role = 'previous'")
    _set_roles("role IN ('live', 'canary', 'shadow')")
    with op.batch_alter_table("endpoints", copy_from=_endpoints()) as endpoints:
        endpoints.drop_column("sticky_by")
    with op.batch_alter_table("bundles", copy_from=_bundles()) as bundles:
        bundles.drop_column("retired_time")
    if op.get_context().dialect.name == "postgresql":
        _keep_json_as(postgresql.JSONB())


def _keep_json_as(kept: sa.JSON) -> None:
    name = "jsonb" if isinstance(kept, postgresql.JSONB) else "json"
    for table, column in _JSON_COLUMNS:
        op.alter_column(table, column, type_=kept, postgresql_using=f"{column}::{name}")


def _set_roles(rule: str) -> None:
    """SQLite cannot alter a check: the table is built anew from what is known of it here, not from a reflection."""
    with op.batch_alter_table("routes", copy_from=_routes()) as table:
        table.drop_constraint(op.f("ck_routes_role_known"), type_="check")
        table.create_check_constraint(op.f("ck_routes_role_known"), sa.text(rule))


def _routes() -> sa.Table:
    return sa.Table(
        "routes",
        sa.MetaData(),
        sa.Column("endpoint_name", _NAME, nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("bundle_digest", _DIGEST, nullable=False),
        sa.Column("share", sa.Double(), nullable=False),
        sa.Column("changed_time", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("role IS NOT NULL", name=op.f("ck_routes_role_known")),
        sa.CheckConstraint("share >= 0 AND share <= 1", name=op.f("ck_routes_share_range")),
        sa.ForeignKeyConstraint(["endpoint_name"], ["endpoints.name"], name="fk_routes_endpoint_name"),
        sa.ForeignKeyConstraint(["bundle_digest"], ["bundles.digest"], name="fk_routes_bundle_digest"),
        sa.PrimaryKeyConstraint("endpoint_name", "role", name="pk_routes"),
        sa.Index("ix_routes_bundle_digest", "bundle_digest"),
    )


def _endpoints() -> sa.Table:
    return sa.Table(
        "endpoints",
        sa.MetaData(),
        sa.Column("name", _NAME, nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("created_time", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("sticky_by", _JSON, nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_endpoints"),
    )


def _bundles() -> sa.Table:
    return sa.Table(
        "bundles",
        sa.MetaData(),
        sa.Column("digest", _DIGEST, nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("created_time", sa.BigInteger(), nullable=False),
        sa.Column("artifact", sa.Text(), nullable=False),
        sa.Column("contract_digest", _DIGEST, nullable=False),
        sa.Column("transform_digest", _DIGEST, nullable=False),
        sa.Column("signature", _JSON, nullable=False),
        sa.Column("metrics", _JSON, nullable=False),
        sa.Column("provenance", _JSON, nullable=False),
        sa.Column("retired_time", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("length(digest) = 64", name=op.f("ck_bundles_digest_length")),
        sa.PrimaryKeyConstraint("digest", name="pk_bundles"),
        sa.Index("ix_bundles_name", "name"),
    )


def _create_experiments() -> None:
    op.create_table(
        "experiments",
        sa.Column("endpoint_name", _NAME, nullable=False),
        sa.Column("name", _NAME, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("traffic", sa.Double(), nullable=False),
        sa.Column("success", sa.Text(), nullable=False),
        sa.Column("maximise", sa.Boolean(), nullable=False),
        sa.Column("exploration_min", sa.Double(), nullable=False),
        sa.Column("salt", sa.String(200), nullable=False),
        sa.Column("layout", _JSON, nullable=False),
        sa.Column("half_life_s", sa.Double(), nullable=True),
        sa.Column("started_time", sa.BigInteger(), nullable=False),
        sa.Column("ended_time", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("kind IN ('ab', 'bandit')", name=op.f("ck_experiments_kind_known")),
        sa.CheckConstraint("traffic >= 0 AND traffic <= 1", name=op.f("ck_experiments_traffic_range")),
        sa.CheckConstraint(
            "exploration_min >= 0 AND exploration_min <= 1", name=op.f("ck_experiments_exploration_min_range")
        ),
        sa.ForeignKeyConstraint(["endpoint_name"], ["endpoints.name"], name="fk_experiments_endpoint_name"),
        sa.PrimaryKeyConstraint("endpoint_name", "name", name="pk_experiments"),
    )
    op.create_index(
        "uq_experiments_running",
        "experiments",
        ["endpoint_name"],
        unique=True,
        sqlite_where=_RUNNING,
        postgresql_where=_RUNNING,
    )


def _create_experiment_arms() -> None:
    op.create_table(
        "experiment_arms",
        sa.Column("endpoint_name", _NAME, nullable=False),
        sa.Column("experiment_name", _NAME, nullable=False),
        sa.Column("name", _NAME, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("bundle_digest", _DIGEST, nullable=False),
        sa.Column("share", sa.Double(), nullable=False),
        sa.CheckConstraint("share >= 0 AND share <= 1", name=op.f("ck_experiment_arms_share_range")),
        sa.ForeignKeyConstraint(
            ["endpoint_name", "experiment_name"],
            ["experiments.endpoint_name", "experiments.name"],
            name="fk_experiment_arms_endpoint_name_experiment_name",
        ),
        sa.ForeignKeyConstraint(["bundle_digest"], ["bundles.digest"], name="fk_experiment_arms_bundle_digest"),
        sa.PrimaryKeyConstraint("endpoint_name", "experiment_name", "name", name="pk_experiment_arms"),
    )
    op.create_index("ix_experiment_arms_bundle_digest", "experiment_arms", ["bundle_digest"])


def _create_experiment_counts() -> None:
    op.create_table(
        "experiment_counts",
        sa.Column("endpoint_name", _NAME, nullable=False),
        sa.Column("experiment_name", _NAME, nullable=False),
        sa.Column("segment", sa.String(200), nullable=False),
        sa.Column("arm_name", _NAME, nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("trials", sa.BigInteger(), nullable=False),
        sa.Column("successes", sa.BigInteger(), nullable=False),
        sa.Column("total", sa.Double(), nullable=False),
        sa.Column("squares", sa.Double(), nullable=False),
        sa.CheckConstraint("successes >= 0 AND successes <= trials", name=op.f("ck_experiment_counts_successes_range")),
        sa.ForeignKeyConstraint(
            ["endpoint_name", "experiment_name", "arm_name"],
            ["experiment_arms.endpoint_name", "experiment_arms.experiment_name", "experiment_arms.name"],
            name="fk_experiment_counts_endpoint_name_experiment_name_arm_name",
        ),
        sa.PrimaryKeyConstraint("endpoint_name", "experiment_name", "segment", "arm_name", name="pk_experiment_counts"),
    )


def _create_datasets_and_evaluations() -> None:
    op.create_table(
        "datasets",
        sa.Column("digest", _DIGEST, nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("start_time", sa.BigInteger(), nullable=True),
        sa.Column("end_time", sa.BigInteger(), nullable=True),
        sa.Column("query", sa.Text(), nullable=False),
        sa.Column("created_time", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("length(digest) = 64", name=op.f("ck_datasets_digest_length")),
        sa.PrimaryKeyConstraint("digest", name="pk_datasets"),
    )
    op.create_index("ix_datasets_name", "datasets", ["name"])
    op.create_table(
        "evaluations",
        sa.Column("bundle_digest", _DIGEST, nullable=False),
        sa.Column("dataset_digest", _DIGEST, nullable=False),
        sa.Column("metrics", _JSON, nullable=False),
        sa.Column("slices", _JSON, nullable=False),
        sa.Column("created_time", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["bundle_digest"], ["bundles.digest"], name="fk_evaluations_bundle_digest"),
        sa.ForeignKeyConstraint(["dataset_digest"], ["datasets.digest"], name="fk_evaluations_dataset_digest"),
        sa.PrimaryKeyConstraint("bundle_digest", "dataset_digest", name="pk_evaluations"),
    )
    op.create_index("ix_evaluations_dataset_digest", "evaluations", ["dataset_digest"])


def _create_api_keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("hash", _DIGEST, nullable=False),
        sa.Column("name", _NAME, nullable=False),
        sa.Column("scopes", _JSON, nullable=False),
        sa.Column("created_time", sa.BigInteger(), nullable=False),
        sa.Column("expires_time", sa.BigInteger(), nullable=True),
        sa.Column("revoked_time", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("length(hash) = 64", name=op.f("ck_api_keys_hash_length")),
        sa.PrimaryKeyConstraint("hash", name="pk_api_keys"),
    )
    op.create_index(
        "uq_api_keys_name",
        "api_keys",
        ["name"],
        unique=True,
        sqlite_where=_NOT_REVOKED,
        postgresql_where=_NOT_REVOKED,
    )
