"""Tables of ingestion: lanes, batches with what they hold until they are delivered, and keys that callers have used."""

from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Integer, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from skewless.registry.column_types import DigestText, Json
from skewless.registry.tables import Base

_Id = String(36)


class IngestLaneRow(Base):
    """One view's or stream's batches, in the order of their numbers. `last_time` is the newest accepted time.

    `next_number` is the least that the next batch may have.
    """

    __tablename__ = "ingest_lanes"
    __table_args__ = (
        CheckConstraint("kind IN ('rows', 'events')", name="kind_known"),
        Index(None, "kind", "name", unique=True),
    )

    id: Mapped[str] = mapped_column(_Id, primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(255))
    next_number: Mapped[int] = mapped_column(BigInteger)
    last_time: Mapped[int] = mapped_column(BigInteger)
    newest_event_time: Mapped[int | None] = mapped_column(BigInteger)


class IngestBatchRow(Base):
    """One batch that was accepted. `id` grows with time. `payload_bytes` and `decoded_bytes` are 0 without payload."""

    __tablename__ = "ingest_batches"
    __table_args__ = (
        CheckConstraint("state IN ('accepted', 'online', 'done', 'failed', 'dropped')", name="state_known"),
        Index(None, "lane_id", "number", unique=True),
        Index(None, "state", "lane_id", "number"),
        Index(None, "lane_id", "accepted_time"),
    )

    id: Mapped[str] = mapped_column(_Id, primary_key=True)
    lane_id: Mapped[str] = mapped_column(_Id, ForeignKey("ingest_lanes.id"))
    number: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(String(16))
    rows: Mapped[int] = mapped_column(BigInteger)
    payload_bytes: Mapped[int] = mapped_column(BigInteger)
    decoded_bytes: Mapped[int] = mapped_column(BigInteger)
    newest_event_time: Mapped[int | None] = mapped_column(BigInteger)
    received_time: Mapped[int] = mapped_column(BigInteger)
    accepted_time: Mapped[int] = mapped_column(BigInteger)
    online_time: Mapped[int | None] = mapped_column(BigInteger)
    offline_time: Mapped[int | None] = mapped_column(BigInteger)
    changed_time: Mapped[int] = mapped_column(BigInteger)
    tries: Mapped[int] = mapped_column(Integer)
    error: Mapped[str] = mapped_column(Text)
    quality_run: Mapped[str] = mapped_column(_Id)


class IngestPayloadRow(Base):
    """The rows of a batch until it is delivered: an Arrow stream under zstd."""

    __tablename__ = "ingest_payloads"

    batch_id: Mapped[str] = mapped_column(_Id, ForeignKey("ingest_batches.id"), primary_key=True)
    payload: Mapped[bytes] = mapped_column(LargeBinary)


class IngestKeyRow(Base):
    """An idempotency key that a caller has used for a lane: what came with it, and what the caller was told."""

    __tablename__ = "ingest_keys"
    __table_args__ = (Index(None, "accepted_time"),)

    lane_id: Mapped[str] = mapped_column(_Id, ForeignKey("ingest_lanes.id"), primary_key=True)
    caller: Mapped[str] = mapped_column(String(255), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    digest: Mapped[str] = mapped_column(DigestText)
    batch_id: Mapped[str] = mapped_column(_Id)
    answer: Mapped[dict[str, Any]] = mapped_column(Json)
    accepted_time: Mapped[int] = mapped_column(BigInteger)
