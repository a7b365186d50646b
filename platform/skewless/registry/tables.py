"""The registry's tables. A change here needs a migration beside it; a test compares the two."""

from typing import Any

from sqlalchemy import JSON, BigInteger, CheckConstraint, Double, ForeignKey, Index, Integer, MetaData, String, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

CONSTRAINT_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
"""Every constraint has a name, so that a later migration can alter it on any database."""

_Json = JSON().with_variant(JSONB(), "postgresql")
# SQLite numbers rows by itself only where the key is spelled INTEGER, which is 64 bits wide there.
_RowNumber = BigInteger().with_variant(Integer(), "sqlite")
_Digest = String(64)
_EndpointName = String(63)


class Base(DeclarativeBase):
    """Metadata of every registry table."""

    metadata = MetaData(naming_convention=CONSTRAINT_NAMES)


class BundleRow(Base):
    """A registered bundle; never changed once written."""

    __tablename__ = "bundles"
    __table_args__ = (CheckConstraint("length(digest) = 64", name="digest_length"),)

    digest: Mapped[str] = mapped_column(_Digest, primary_key=True)
    name: Mapped[str] = mapped_column(String(200), index=True)
    created_time: Mapped[int] = mapped_column(BigInteger)
    artifact: Mapped[str] = mapped_column(Text)
    contract_digest: Mapped[str] = mapped_column(_Digest)
    transform_digest: Mapped[str] = mapped_column(_Digest)
    signature: Mapped[dict[str, Any]] = mapped_column(_Json)
    metrics: Mapped[dict[str, Any]] = mapped_column(_Json)
    provenance: Mapped[dict[str, Any]] = mapped_column(_Json)


class EndpointRow(Base):
    """An endpoint. `version` grows with every change of its routes; two writers of one version cannot both win."""

    __tablename__ = "endpoints"

    name: Mapped[str] = mapped_column(_EndpointName, primary_key=True)
    description: Mapped[str] = mapped_column(Text)
    created_time: Mapped[int] = mapped_column(BigInteger)
    version: Mapped[int] = mapped_column(Integer)
    routes: Mapped[list["RouteRow"]] = relationship(back_populates="endpoint", lazy="raise", order_by="RouteRow.role")

    # The repository counts the version up itself: a changed route alone would not update the endpoint's row.
    __mapper_args__ = {"version_id_col": version, "version_id_generator": False}  # noqa: RUF012  # SQLAlchemy's form


class RouteRow(Base):
    """What one role of an endpoint points to, since `changed_time`. `share` is of the endpoint's traffic."""

    __tablename__ = "routes"
    __table_args__ = (
        CheckConstraint("role IN ('live', 'canary', 'shadow')", name="role_known"),
        CheckConstraint("share >= 0 AND share <= 1", name="share_range"),
    )

    endpoint_name: Mapped[str] = mapped_column(_EndpointName, ForeignKey("endpoints.name"), primary_key=True)
    role: Mapped[str] = mapped_column(String(16), primary_key=True)
    bundle_digest: Mapped[str] = mapped_column(_Digest, ForeignKey("bundles.digest"), index=True)
    share: Mapped[float] = mapped_column(Double)
    changed_time: Mapped[int] = mapped_column(BigInteger)
    endpoint: Mapped[EndpointRow] = relationship(back_populates="routes", lazy="raise")
    bundle: Mapped[BundleRow] = relationship(lazy="raise")


class AuditEventRow(Base):
    """One change, written in the transaction that made it."""

    __tablename__ = "audit_events"
    __table_args__ = (Index(None, "subject", "number"),)

    number: Mapped[int] = mapped_column(_RowNumber, primary_key=True, autoincrement=True)
    time: Mapped[int] = mapped_column(BigInteger)
    actor: Mapped[str] = mapped_column(String(200))
    action: Mapped[str] = mapped_column(String(32))
    subject: Mapped[str] = mapped_column(String(200))
    reason: Mapped[str] = mapped_column(Text)
    detail: Mapped[dict[str, Any]] = mapped_column(_Json)


class FeatureSnapshotRow(Base):
    """The newest compiled feature registry of one project; older ones are only in the audit trail, by digest."""

    __tablename__ = "feature_snapshots"
    __table_args__ = (CheckConstraint("length(digest) = 64", name="digest_length"),)

    project: Mapped[str] = mapped_column(String(255), primary_key=True)
    version: Mapped[int] = mapped_column(Integer)
    digest: Mapped[str] = mapped_column(_Digest)
    source: Mapped[str] = mapped_column(_Digest)
    compiled_at: Mapped[int] = mapped_column(BigInteger)
    checked_at: Mapped[int] = mapped_column(BigInteger)
    document: Mapped[dict[str, Any]] = mapped_column(_Json, deferred=True)

    # The version counts changes of the document alone; when it was last checked is no change.
    __mapper_args__ = {"version_id_col": version, "version_id_generator": False}  # noqa: RUF012  # SQLAlchemy's form
