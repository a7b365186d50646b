"""Tables of deletions of entities: what was asked for, without whose it was, and what came of it."""

from typing import Any

from sqlalchemy import BigInteger, Boolean, CheckConstraint, Index, Integer, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from skewless.registry.column_types import Json, RowNumber
from skewless.registry.tables import Base


class EntityHashKeyRow(Base):
    """The one key under which this database hashes entities; made with the first deletion and never changed.

    `revision` grows with every deletion that begins or is lifted, by transactions that hold this row: who has seen one
    knows every deletion up to it.
    """

    __tablename__ = "entity_hash_keys"
    __table_args__ = (CheckConstraint("number = 1", name="only_one"),)

    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    key: Mapped[bytes] = mapped_column(LargeBinary)
    revision: Mapped[int] = mapped_column(BigInteger)


class EntityDeletionRow(Base):
    """One deletion. `hashes` stand for the entity: keyed hashes of the values of `key_names`, one per kind of value.

    `views` is null where all are meant. Rows that were known until `before_us` are deleted and kept out from then on,
    with `for_ever` those that become known later too, until it is lifted. `found` has rows by place as they were
    counted before each was deleted; `receipt` is null until it is done.
    """

    __tablename__ = "entity_deletions"
    __table_args__ = (
        CheckConstraint("state IN ('begun', 'done', 'partly')", name="state_known"),
        Index("uq_entity_deletions_id", "id", unique=True),
    )

    number: Mapped[int] = mapped_column(RowNumber, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(36))
    key_names: Mapped[list[str]] = mapped_column(Json)
    hashes: Mapped[list[str]] = mapped_column(Json)
    views: Mapped[list[str] | None] = mapped_column(Json)
    before_us: Mapped[int] = mapped_column(BigInteger)
    for_ever: Mapped[bool] = mapped_column(Boolean)
    state: Mapped[str] = mapped_column(String(16))
    actor: Mapped[str] = mapped_column(String(200))
    reason: Mapped[str] = mapped_column(Text)
    requested_time: Mapped[int] = mapped_column(BigInteger)
    finished_time: Mapped[int | None] = mapped_column(BigInteger)
    lifted_time: Mapped[int | None] = mapped_column(BigInteger)
    found: Mapped[dict[str, int]] = mapped_column(Json)
    receipt: Mapped[dict[str, Any] | None] = mapped_column(Json)
