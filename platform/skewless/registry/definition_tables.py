"""Tables of feature definitions: every version that was applied, and how far their events were sent."""

from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from skewless.registry.column_types import DigestText, Json, RowNumber
from skewless.registry.tables import Base


class DefinitionVersionRow(Base):
    """One change of a project's definitions. `before` is the fingerprint of Feast's registry that it began from.

    It is `applying` from before Feast's registry is touched until all that follows from it is kept: what a killed
    command leaves there is finished or abandoned by the next one. `applied_time` is null until then.
    """

    __tablename__ = "definition_versions"
    __table_args__ = (
        CheckConstraint("length(digest) = 64", name="digest_length"),
        CheckConstraint("state IN ('applying', 'applied', 'abandoned')", name="state_known"),
        Index(None, "project", "state", "number"),
    )

    number: Mapped[int] = mapped_column(RowNumber, primary_key=True, autoincrement=True)
    project: Mapped[str] = mapped_column(String(255))
    state: Mapped[str] = mapped_column(String(16))
    digest: Mapped[str] = mapped_column(DigestText)
    before: Mapped[str] = mapped_column(DigestText)
    actor: Mapped[str] = mapped_column(String(200))
    reason: Mapped[str] = mapped_column(Text)
    started_time: Mapped[int] = mapped_column(BigInteger)
    applied_time: Mapped[int | None] = mapped_column(BigInteger)
    document: Mapped[dict[str, Any]] = mapped_column(Json, deferred=True)
    plan: Mapped[dict[str, Any]] = mapped_column(Json, deferred=True)


class LineagePositionRow(Base):
    """How far one receiver of lineage events has been told: the last number of each kind of source."""

    __tablename__ = "lineage_positions"

    receiver: Mapped[str] = mapped_column(String(64), primary_key=True)
    """SHA-256 of its address, which may hold a password."""
    source: Mapped[str] = mapped_column(String(32), primary_key=True)
    position: Mapped[str] = mapped_column(String(64))
    changed_time: Mapped[int] = mapped_column(BigInteger)
