"""The registry's tables. A change here needs a migration beside it; a test compares the two on every database."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from skewless.registry.column_types import DigestText, EndpointName, Json, RowNumber

CONSTRAINT_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
"""Every constraint has a name, so that a later migration can alter it on any database."""

_Name = String(63)
_RUNNING = text("ended_time IS NULL")
_NOT_REVOKED = text("revoked_time IS NULL")


class Base(DeclarativeBase):
    """Metadata of every registry table."""

    metadata = MetaData(naming_convention=CONSTRAINT_NAMES)


class BundleRow(Base):
    """A registered bundle. Its content never changes; a retired one is named by no route, and its files may be gone."""

    __tablename__ = "bundles"
    __table_args__ = (CheckConstraint("length(digest) = 64", name="digest_length"),)

    digest: Mapped[str] = mapped_column(DigestText, primary_key=True)
    name: Mapped[str] = mapped_column(String(200), index=True)
    created_time: Mapped[int] = mapped_column(BigInteger)
    artifact: Mapped[str] = mapped_column(Text)
    contract_digest: Mapped[str] = mapped_column(DigestText)
    transform_digest: Mapped[str] = mapped_column(DigestText)
    signature: Mapped[dict[str, Any]] = mapped_column(Json)
    metrics: Mapped[dict[str, Any]] = mapped_column(Json)
    provenance: Mapped[dict[str, Any]] = mapped_column(Json)
    retired_time: Mapped[int | None] = mapped_column(BigInteger)


class EndpointRow(Base):
    """An endpoint. `version` grows with every change of its routes; two writers of one version cannot both win.

    `sticky_by` is null where traffic is split by all of a row's join keys. Terms of outcomes
    (`serving/outcome_terms.py`) and what the monitor is asked for (`serving/monitoring_policy.py`) are null where they
    were not declared.
    """

    __tablename__ = "endpoints"

    name: Mapped[str] = mapped_column(EndpointName, primary_key=True)
    description: Mapped[str] = mapped_column(Text)
    created_time: Mapped[int] = mapped_column(BigInteger)
    version: Mapped[int] = mapped_column(Integer)
    sticky_by: Mapped[list[str] | None] = mapped_column(Json)
    label_horizon_us: Mapped[int | None] = mapped_column(BigInteger)
    outcome_window_us: Mapped[int | None] = mapped_column(BigInteger)
    monitoring: Mapped[dict[str, Any] | None] = mapped_column(Json)
    routes: Mapped[list["RouteRow"]] = relationship(lazy="raise", order_by="RouteRow.role")
    experiment: Mapped["ExperimentRow | None"] = relationship(
        lazy="raise",
        primaryjoin="and_(EndpointRow.name == ExperimentRow.endpoint_name, ExperimentRow.ended_time.is_(None))",
        viewonly=True,
    )

    # The registry counts the version up itself: a changed route alone would not update the endpoint's row.
    __mapper_args__ = {"version_id_col": version, "version_id_generator": False}  # noqa: RUF012  # SQLAlchemy's form


class RouteRow(Base):
    """What one role of an endpoint points to, since `changed_time`. `share` is of the endpoint's traffic.

    A running experiment's arms are in its own tables, since there are several.
    """

    __tablename__ = "routes"
    __table_args__ = (
        CheckConstraint("role IN ('live', 'previous', 'canary', 'shadow')", name="role_known"),
        CheckConstraint("share >= 0 AND share <= 1", name="share_range"),
    )

    endpoint_name: Mapped[str] = mapped_column(EndpointName, ForeignKey("endpoints.name"), primary_key=True)
    role: Mapped[str] = mapped_column(String(16), primary_key=True)
    bundle_digest: Mapped[str] = mapped_column(DigestText, ForeignKey("bundles.digest"), index=True)
    share: Mapped[float] = mapped_column(Double)
    changed_time: Mapped[int] = mapped_column(BigInteger)
    bundle: Mapped[BundleRow] = relationship(lazy="raise", viewonly=True)


class ExperimentRow(Base):
    """An experiment of an endpoint, running until `ended_time`. It is kept afterwards, with what its arms counted."""

    __tablename__ = "experiments"
    __table_args__ = (
        CheckConstraint("kind IN ('ab', 'bandit')", name="kind_known"),
        CheckConstraint("traffic >= 0 AND traffic <= 1", name="traffic_range"),
        CheckConstraint("exploration_min >= 0 AND exploration_min <= 1", name="exploration_min_range"),
        # An endpoint runs one experiment at a time: the database says so, not only the code.
        Index(
            "uq_experiments_running",
            "endpoint_name",
            unique=True,
            sqlite_where=_RUNNING,
            postgresql_where=_RUNNING,
        ),
    )

    endpoint_name: Mapped[str] = mapped_column(EndpointName, ForeignKey("endpoints.name"), primary_key=True)
    name: Mapped[str] = mapped_column(_Name, primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    traffic: Mapped[float] = mapped_column(Double)
    success: Mapped[str] = mapped_column(Text)
    maximise: Mapped[bool] = mapped_column(Boolean)
    exploration_min: Mapped[float] = mapped_column(Double)
    salt: Mapped[str] = mapped_column(String(200))
    layout: Mapped[list[list[int]]] = mapped_column(Json)
    half_life_s: Mapped[float | None] = mapped_column(Double)
    started_time: Mapped[int] = mapped_column(BigInteger)
    ended_time: Mapped[int | None] = mapped_column(BigInteger)
    arms: Mapped[list["ArmRow"]] = relationship(lazy="raise", order_by="ArmRow.position")


class ArmRow(Base):
    """One arm of an experiment. `share` is of the traffic that takes part; `position` keeps the declared order."""

    __tablename__ = "experiment_arms"
    __table_args__ = (
        ForeignKeyConstraint(["endpoint_name", "experiment_name"], ["experiments.endpoint_name", "experiments.name"]),
        CheckConstraint("share >= 0 AND share <= 1", name="share_range"),
    )

    endpoint_name: Mapped[str] = mapped_column(EndpointName, primary_key=True)
    experiment_name: Mapped[str] = mapped_column(_Name, primary_key=True)
    name: Mapped[str] = mapped_column(_Name, primary_key=True)
    position: Mapped[int] = mapped_column(Integer)
    bundle_digest: Mapped[str] = mapped_column(DigestText, ForeignKey("bundles.digest"), index=True)
    share: Mapped[float] = mapped_column(Double)
    bundle: Mapped[BundleRow] = relationship(lazy="raise", viewonly=True)


class ArmCountRow(Base):
    """What one arm's outcomes of one log segment add up to. A segment is counted once: its name is in the key.

    `time` is the segment's own, so that what is old can be given less weight.
    """

    __tablename__ = "experiment_counts"
    __table_args__ = (
        ForeignKeyConstraint(
            ["endpoint_name", "experiment_name", "arm_name"],
            ["experiment_arms.endpoint_name", "experiment_arms.experiment_name", "experiment_arms.name"],
        ),
        CheckConstraint("successes >= 0 AND successes <= trials", name="successes_range"),
    )

    endpoint_name: Mapped[str] = mapped_column(EndpointName, primary_key=True)
    experiment_name: Mapped[str] = mapped_column(_Name, primary_key=True)
    segment: Mapped[str] = mapped_column(String(200), primary_key=True)
    arm_name: Mapped[str] = mapped_column(_Name, primary_key=True)
    time: Mapped[int] = mapped_column(BigInteger)
    trials: Mapped[int] = mapped_column(BigInteger)
    successes: Mapped[int] = mapped_column(BigInteger)
    total: Mapped[float] = mapped_column(Double)
    squares: Mapped[float] = mapped_column(Double)


class RolloutProgressRow(Base):
    """How far an endpoint's canary has come by its steps: the progression's own plain data."""

    __tablename__ = "rollout_progress"

    endpoint_name: Mapped[str] = mapped_column(EndpointName, ForeignKey("endpoints.name"), primary_key=True)
    state: Mapped[dict[str, Any]] = mapped_column(Json)
    changed_time: Mapped[int] = mapped_column(BigInteger)


class DatasetRow(Base):
    """A data set that a bundle was trained or evaluated on; its rows lie elsewhere, named by the digest."""

    __tablename__ = "datasets"
    __table_args__ = (CheckConstraint("length(digest) = 64", name="digest_length"),)

    digest: Mapped[str] = mapped_column(DigestText, primary_key=True)
    name: Mapped[str] = mapped_column(String(200), index=True)
    rows: Mapped[int] = mapped_column(BigInteger)
    start_time: Mapped[int | None] = mapped_column(BigInteger)
    end_time: Mapped[int | None] = mapped_column(BigInteger)
    query: Mapped[str] = mapped_column(Text)
    created_time: Mapped[int] = mapped_column(BigInteger)


class EvaluationRow(Base):
    """How a bundle did on a data set; doing it again replaces the figures."""

    __tablename__ = "evaluations"

    bundle_digest: Mapped[str] = mapped_column(DigestText, ForeignKey("bundles.digest"), primary_key=True)
    dataset_digest: Mapped[str] = mapped_column(DigestText, ForeignKey("datasets.digest"), primary_key=True, index=True)
    metrics: Mapped[dict[str, Any]] = mapped_column(Json)
    slices: Mapped[dict[str, Any]] = mapped_column(Json)
    created_time: Mapped[int] = mapped_column(BigInteger)


class ApiKeyRow(Base):
    """An API key by the hash of its secret; the secret itself is nowhere.

    `rate_per_s` and `rate_burst` are both null where the gateway's default holds.
    """

    __tablename__ = "api_keys"
    __table_args__ = (
        CheckConstraint("length(hash) = 64", name="hash_length"),
        Index("uq_api_keys_name", "name", unique=True, sqlite_where=_NOT_REVOKED, postgresql_where=_NOT_REVOKED),
    )

    hash: Mapped[str] = mapped_column(DigestText, primary_key=True)
    name: Mapped[str] = mapped_column(_Name)
    scopes: Mapped[list[dict[str, Any]]] = mapped_column(Json)
    created_time: Mapped[int] = mapped_column(BigInteger)
    expires_time: Mapped[int | None] = mapped_column(BigInteger)
    revoked_time: Mapped[int | None] = mapped_column(BigInteger)
    rate_per_s: Mapped[float | None] = mapped_column(Double)
    rate_burst: Mapped[int | None] = mapped_column(Integer)


class AuditEventRow(Base):
    """One change, written in the transaction that made it."""

    __tablename__ = "audit_events"
    __table_args__ = (Index(None, "subject", "number"), Index(None, "time"))

    number: Mapped[int] = mapped_column(RowNumber, primary_key=True, autoincrement=True)
    time: Mapped[int] = mapped_column(BigInteger)
    actor: Mapped[str] = mapped_column(String(200))
    action: Mapped[str] = mapped_column(String(32))
    subject: Mapped[str] = mapped_column(String(200))
    reason: Mapped[str] = mapped_column(Text)
    detail: Mapped[dict[str, Any]] = mapped_column(Json)


class FeatureSnapshotRow(Base):
    """The newest compiled feature registry of one project; older ones are only in the audit trail, by digest."""

    __tablename__ = "feature_snapshots"
    __table_args__ = (CheckConstraint("length(digest) = 64", name="digest_length"),)

    project: Mapped[str] = mapped_column(String(255), primary_key=True)
    version: Mapped[int] = mapped_column(Integer)
    digest: Mapped[str] = mapped_column(DigestText)
    source: Mapped[str] = mapped_column(DigestText)
    compiled_at: Mapped[int] = mapped_column(BigInteger)
    checked_at: Mapped[int] = mapped_column(BigInteger)
    document: Mapped[dict[str, Any]] = mapped_column(Json, deferred=True)

    # The version counts changes of the document alone; when it was last checked is no change.
    __mapper_args__ = {"version_id_col": version, "version_id_generator": False}  # noqa: RUF012  # SQLAlchemy's form


class ConsumedSegmentRow(Base):
    """What one group of a stream's consumers has taken of one segment of the prediction log.

    `taken` has row ranges by table; `whole` says that they are all of the segment's rows. `sequence` 0: it came from
    elsewhere than the stream.
    """

    __tablename__ = "consumed_segments"
    __table_args__ = (
        Index(None, "group_name", "source", "sequence"),
        Index(None, "group_name", "changed_time"),
    )

    group_name: Mapped[str] = mapped_column(_Name, primary_key=True)
    segment: Mapped[str] = mapped_column(String(200), primary_key=True)
    source: Mapped[str] = mapped_column(String(64))
    sequence: Mapped[int] = mapped_column(BigInteger)
    segment_rows: Mapped[int] = mapped_column(BigInteger)
    taken: Mapped[dict[str, Any]] = mapped_column(Json)
    whole: Mapped[bool] = mapped_column(Boolean)
    changed_time: Mapped[int] = mapped_column(BigInteger)
