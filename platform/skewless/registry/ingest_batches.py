"""Batches of rows and events from when they are accepted until they are delivered, in the registry's database.

Accepting takes the lane's row first and holds it, so that numbers and accepted times of a lane grow in the order of
commits. A number is no less than the moment (µs) that it was given at: a database that was restored from a backup gives
none again that a table has from before, and what waits in it keeps the number by which a table knows it. Whoever
delivers holds the lane's lease; each mark checks it in its own transaction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import uuid_utils
from numpy.typing import NDArray
from sqlalchemy import Select, Subquery, delete, func, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from skewless.errors import Conflict, InvalidRequest, NotFound, Overloaded, Unavailable
from skewless.ingest_limits import (
    INGEST_AHEAD_S,
    INGEST_BATCHES_KEPT_S,
    INGEST_ERROR_CHARACTERS,
    INGEST_FORGOTTEN_AT_ONCE,
    INGEST_KEYS_KEPT_S,
    INGEST_LISTED_MAX,
)
from skewless.ingestion.batches import (
    WAITING,
    BatchKind,
    BatchState,
    IncomingRequest,
    LaneState,
    StoredKey,
    StoredState,
)
from skewless.parity.evidence import NOT_INGESTED, NOT_ONLINE
from skewless.registry.ingest_tables import IngestBatchRow, IngestKeyRow, IngestLaneRow, IngestPayloadRow
from skewless.registry.leases import Lease, check, database_now
from skewless.registry.transactions import RegistryPart
from skewless.timestamps import SECOND_US, Micros

OUTBOX = "ingest outbox"
"""The part that is overloaded where too much waits."""
_WAITING = tuple(each.value for each in WAITING)
_KEPT = (*_WAITING, BatchState.FAILED.value)
"""States of batches whose rows the outbox holds."""
_ASKED_AT_ONCE = 500
"""Values of one condition; SQLite takes some ten thousand."""
_ENDED = (BatchState.DONE.value, BatchState.DROPPED.value)

_REASON_ERASED = "the reason went with rows that a deletion took out; retry the batch to be told anew"


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """A batch as it is kept: its rows as bytes, and what they are in memory. `newest_event_time` None: it has none."""

    kind: BatchKind
    name: str
    payload: bytes
    rows: int
    newest_event_time: int | None
    requests: Sequence[IncomingRequest]
    received_time: Micros
    quality_run: str
    decoded_bytes: int


@dataclass(frozen=True, slots=True)
class WaitingBatch:
    """A batch that its lane has work with. `payload` as it was accepted."""

    id: str
    lane: str
    number: int
    state: BatchState
    rows: int
    tries: int
    received_time: Micros
    accepted_time: Micros
    online_time: Micros | None
    payload: bytes


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the outbox may hold, of batches that wait or have failed, before it refuses more."""

    bytes_max: int
    batches_max: int


class IngestBatches(RegistryPart):
    """The outbox's tables. Threads and processes may share it."""

    def accept(self, batch: PackedBatch, bounds: Bounds) -> tuple[str, Micros]:
        """Keep a batch as the last of its lane, with the keys of its requests; its id and accepted time.

        Durable when it returns. Raises Conflict where one of the keys was used before, Overloaded where too much is
        kept, and Unavailable where this machine's clock is wrong.
        """
        keys = [(each.caller, each.key) for each in batch.requests if each.key]
        if len(set(keys)) < len(keys):
            raise InvalidRequest("two requests of one batch have one key", path="requests")
        with self._transactions.write() as session:
            lane = _lane(session, batch.kind, batch.name)
            if taken := _keys(session, lane.id, keys):
                caller, key = next(iter(taken))
                raise Conflict(f"`{caller}` has used the idempotency key `{key}` for `{batch.name}` before")
            _refuse_full(session, bounds, len(batch.payload))
            accepted_time = max(self._moment(session), Micros(lane.last_time + 1))
            row = _row(batch, lane, _next_number(lane, accepted_time), accepted_time)
            session.add(row)
            session.flush()
            session.add(IngestPayloadRow(batch_id=row.id, payload=batch.payload))
            session.add_all(_key(lane.id, each, row) for each in batch.requests if each.key)
            lane.last_time = accepted_time
            return row.id, accepted_time

    def known_keys(
        self, kind: BatchKind, name: str, pairs: Sequence[tuple[str, str]]
    ) -> dict[tuple[str, str], StoredKey]:
        """What is known of some (caller, key) of a lane; those that were never used are left out."""
        with self._transactions.read() as session:
            lane = session.scalar(_named(kind, name))
            found = {} if lane is None else _keys(session, lane.id, pairs)
            return {pair: StoredKey(row.digest, row.batch_id, row.answer) for pair, row in found.items()}

    def batch(self, batch_id: str) -> StoredState | None:
        """Where a batch stands; None where there is none of that id (any more)."""
        with self._transactions.read() as session:
            found = session.execute(_with_lane().where(IngestBatchRow.id == batch_id)).one_or_none()
            return None if found is None else _state(*found)

    def batches(
        self, *, state: BatchState | None = None, name: str | None = None, limit: int = 100
    ) -> tuple[StoredState, ...]:
        """Batches of a state and of a view or stream, all where None, newest first; at most INGEST_LISTED_MAX."""
        wanted = _with_lane().order_by(IngestBatchRow.id.desc()).limit(min(limit, INGEST_LISTED_MAX))
        if state is not None:
            wanted = wanted.where(IngestBatchRow.state == state.value)
        if name is not None:
            wanted = wanted.where(IngestLaneRow.name == name)
        with self._transactions.read() as session:
            return tuple(_state(*found) for found in session.execute(wanted))

    def lanes(self) -> tuple[LaneState, ...]:
        """Every lane with what waits in it, by kind and name."""
        counted = _counts()
        wanted = (
            select(IngestLaneRow, counted)
            .outerjoin(counted, counted.c.lane_id == IngestLaneRow.id)
            .order_by(IngestLaneRow.kind, IngestLaneRow.name)
        )
        with self._transactions.read() as session:
            return tuple(
                LaneState(
                    BatchKind(lane.kind),
                    lane.name,
                    int(batches or 0),
                    int(rows or 0),
                    int(size or 0),
                    int(failed or 0),
                    int(failed_size or 0),
                    None if oldest is None else Micros(int(oldest)),
                    None if lane.newest_event_time is None else Micros(lane.newest_event_time),
                )
                for lane, _, batches, rows, size, failed, failed_size, oldest in session.execute(wanted)
            )

    def working(self) -> list[tuple[BatchKind, str]]:
        """Lanes that have any batch to deliver."""
        busy = select(IngestBatchRow.lane_id).where(IngestBatchRow.state.in_(_WAITING)).distinct()
        wanted = select(IngestLaneRow.kind, IngestLaneRow.name).where(IngestLaneRow.id.in_(busy))
        with self._transactions.read() as session:
            return [(BatchKind(kind), name) for kind, name in session.execute(wanted)]

    def waiting(
        self, kind: BatchKind, name: str, state: BatchState, *, batches_max: int, bytes_max: int
    ) -> list[WaitingBatch]:
        """The first batches of a lane in a state, in order, with their payloads; at least one where there is any.

        `bytes_max` bounds what their rows are in memory together.
        """
        lane = _lane_id(kind, name)
        first = (
            select(IngestBatchRow)
            .where(IngestBatchRow.state == state.value, IngestBatchRow.lane_id == lane.scalar_subquery())
            .order_by(IngestBatchRow.number)
            .limit(batches_max)
        )
        with self._transactions.read() as session:
            rows: list[IngestBatchRow] = []
            size = 0
            for row in session.scalars(first):
                size += row.decoded_bytes
                if rows and size > bytes_max:
                    break
                rows.append(row)
            wanted = select(IngestPayloadRow.batch_id, IngestPayloadRow.payload).where(
                IngestPayloadRow.batch_id.in_([row.id for row in rows])
            )
            payloads = {each.batch_id: each.payload for each in session.execute(wanted)}
            return [_waiting(row, payloads[row.id]) for row in rows]

    def mark_online(self, lease: Lease, batch_ids: Sequence[str]) -> Micros:
        """Note that the online store has some batches, and return when that was. Raises Conflict for a lost lease."""
        with self._transactions.write() as session:
            check(session, lease)
            now = self._clock()
            self._advance(session, batch_ids)
            self._set(session, batch_ids, state=BatchState.ONLINE.value, online_time=now, tries=0, error="")
            return now

    def mark_done(self, lease: Lease, batch_ids: Sequence[str], *, was_online: bool) -> Micros:
        """Note that both stores have some batches, let go of their payloads, and return when that was.

        `was_online`: they were marked so before. Raises Conflict for a lost lease.
        """
        with self._transactions.write() as session:
            check(session, lease)
            now = self._clock()
            session.execute(delete(IngestPayloadRow).where(IngestPayloadRow.batch_id.in_(batch_ids)))
            if not was_online:
                self._advance(session, batch_ids)
                self._set(session, batch_ids, online_time=now)
            done = BatchState.DONE.value
            self._set(session, batch_ids, state=done, offline_time=now, tries=0, error="")
            self._set(session, batch_ids, payload_bytes=0, decoded_bytes=0)
            return now

    def note_problem(self, lease: Lease, batch_id: str, error: str, *, counts: bool, tries_max: int) -> BatchState:
        """Keep why a batch was not delivered. Where it `counts` and was the last of `tries_max`, the batch has failed.

        Returns the state that it is in then. Raises Conflict for a lost lease.
        """
        with self._transactions.write() as session:
            check(session, lease)
            row = session.get_one(IngestBatchRow, batch_id)
            row.error, row.changed_time = error[:INGEST_ERROR_CHARACTERS], self._clock()
            row.tries += counts
            if row.tries >= tries_max:
                row.state = BatchState.FAILED.value
            return BatchState(row.state)

    def retry(self, batch_id: str, *, actor: str, reason: str) -> StoredState:
        """Have a failed batch delivered again, as the last of its lane; audited. Raises NotFound and Conflict.

        It keeps its accepted time, by which rows are ordered. Its number is new: its lane's table has later ones.
        """
        with self._transactions.write() as session:
            row, lane = _failed(session, batch_id)
            now = self._moment(session)
            row.state, row.tries, row.changed_time = BatchState.ACCEPTED.value, 0, now
            row.number = _next_number(lane, now)
            self._audit_batch(session, "retry_ingest", row, lane, actor=actor, reason=reason)
            return _state(row, lane)

    def drop(self, batch_id: str, *, actor: str, reason: str) -> StoredState:
        """Give up a failed batch and its rows; audited. Raises NotFound and Conflict."""
        with self._transactions.write() as session:
            row, lane = _failed(session, batch_id)
            session.execute(delete(IngestPayloadRow).where(IngestPayloadRow.batch_id == row.id))
            row.state, row.changed_time = BatchState.DROPPED.value, self._clock()
            row.payload_bytes = row.decoded_bytes = 0
            self._audit_batch(session, "drop_ingest", row, lane, actor=actor, reason=reason)
            return _state(row, lane)

    def online_times(self, view: str, created_times: NDArray[np.int64]) -> NDArray[np.int64]:
        """Implements `parity.evidence.IngestTimes`: when the batches of a view's rows were online, by accepted time."""
        found = np.full(len(created_times), NOT_INGESTED, dtype=np.int64)
        asked = np.unique(created_times).tolist()
        known: dict[int, int] = {}
        with self._transactions.read() as session:
            lane_id = session.scalar(_lane_id(BatchKind.ROWS, view))
            for start in range(0, len(asked), _ASKED_AT_ONCE) if lane_id is not None else ():
                wanted = select(IngestBatchRow.accepted_time, IngestBatchRow.online_time).where(
                    IngestBatchRow.lane_id == lane_id,
                    IngestBatchRow.accepted_time.in_(asked[start : start + _ASKED_AT_ONCE]),
                )
                known |= {row.accepted_time: row.online_time or NOT_ONLINE for row in session.execute(wanted)}
        for place, moment in enumerate(created_times.tolist()):
            found[place] = known.get(moment, NOT_INGESTED)
        return found

    def kept_ids(self, name: str) -> list[str]:
        """Batches of a view or stream, of both kinds, whose payloads are still kept, oldest first."""
        wanted = (
            select(IngestBatchRow.id)
            .join(IngestPayloadRow, IngestPayloadRow.batch_id == IngestBatchRow.id)
            .join(IngestLaneRow, IngestLaneRow.id == IngestBatchRow.lane_id)
            .where(IngestLaneRow.name == name)
            .order_by(IngestBatchRow.id)
        )
        with self._transactions.read() as session:
            return list(session.scalars(wanted))

    def payload(self, batch_id: str) -> bytes | None:
        """What a batch holds; None where it is gone."""
        with self._transactions.read() as session:
            return session.scalar(select(IngestPayloadRow.payload).where(IngestPayloadRow.batch_id == batch_id))

    def replace_payload(self, batch_id: str, before: bytes, after: bytes, *, rows: int, decoded_bytes: int) -> bool:
        """Put other rows in the place of a batch's, where it still holds what it did `before`.

        Why it could not be delivered goes too: the reason may name what was taken out.
        """
        with self._transactions.write() as session:
            kept = session.get(IngestPayloadRow, batch_id, with_for_update=True)
            if kept is None or kept.payload != before:
                return False
            kept.payload = after
            row = session.get_one(IngestBatchRow, batch_id)
            row.rows, row.changed_time = rows, self._clock()
            row.error = _REASON_ERASED if row.error else ""
            row.payload_bytes, row.decoded_bytes = len(after), decoded_bytes
            return True

    def forget(self) -> int:
        """Forget keys and batches whose time is over, at most INGEST_FORGOTTEN_AT_ONCE of each; how many those were."""
        now = self._clock()
        keys = (
            select(IngestKeyRow.lane_id, IngestKeyRow.caller, IngestKeyRow.key)
            .where(IngestKeyRow.accepted_time < now - int(INGEST_KEYS_KEPT_S * SECOND_US))
            .order_by(IngestKeyRow.accepted_time)
            .limit(INGEST_FORGOTTEN_AT_ONCE)
        )
        batches = (
            select(IngestBatchRow.id)
            .where(
                IngestBatchRow.state.in_(_ENDED),
                IngestBatchRow.changed_time < now - int(INGEST_BATCHES_KEPT_S * SECOND_US),
            )
            .limit(INGEST_FORGOTTEN_AT_ONCE)
        )
        named = tuple_(IngestKeyRow.lane_id, IngestKeyRow.caller, IngestKeyRow.key)
        with self._transactions.write() as session:
            old_keys = [tuple(each) for each in session.execute(keys)]
            old_batches = list(session.scalars(batches))
            if old_keys:
                session.execute(delete(IngestKeyRow).where(named.in_(old_keys)))
            if old_batches:
                session.execute(delete(IngestBatchRow).where(IngestBatchRow.id.in_(old_batches)))
        return len(old_keys) + len(old_batches)

    def _set(self, session: Session, batch_ids: Sequence[str], **values: Any) -> None:
        changed = {"changed_time": self._clock(), **values}
        session.execute(update(IngestBatchRow).where(IngestBatchRow.id.in_(batch_ids)).values(changed))

    def _moment(self, session: Session) -> Micros:
        """Now. Raises Unavailable where this machine's clock and the database's are far apart."""
        now = self._clock()
        apart_s = (now - database_now(session)) / SECOND_US
        if abs(apart_s) > INGEST_AHEAD_S:
            raise Unavailable(
                OUTBOX,
                f"this machine's clock is {abs(apart_s):,.0f} s {'ahead of' if apart_s > 0 else 'behind'} the "
                f"database's. Allowed: {INGEST_AHEAD_S:.0f} s",
                hint="set both by one source of time: rows are known from when they were accepted on",
            )
        return now

    def _advance(self, session: Session, batch_ids: Sequence[str]) -> None:
        """Note in their lane the newest event time of batches that are online now."""
        wanted = (
            select(IngestBatchRow.lane_id, func.max(IngestBatchRow.newest_event_time))
            .where(IngestBatchRow.id.in_(batch_ids))
            .group_by(IngestBatchRow.lane_id)
        )
        for lane_id, newest in session.execute(wanted).all():
            lane = session.get_one(IngestLaneRow, lane_id, with_for_update=True)
            if newest is not None:
                lane.newest_event_time = max(newest, newest if (old := lane.newest_event_time) is None else old)

    def _audit_batch(
        self, session: Session, action: str, row: IngestBatchRow, lane: IngestLaneRow, *, actor: str, reason: str
    ) -> None:
        detail = {"kind": lane.kind, "name": lane.name, "rows": row.rows, "error": row.error}
        self._audit(session, f"ingest/{row.id}", action, actor=actor, reason=reason, detail=detail)


def _lane(session: Session, kind: BatchKind, name: str) -> IngestLaneRow:
    """The lane's row, held until the transaction ends; made where there is none."""
    lane = session.scalar(_named(kind, name).with_for_update())
    if lane is not None:
        return lane
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    made = {"id": str(uuid_utils.uuid7()), "kind": kind.value, "name": name, "next_number": 1, "last_time": 0}
    session.execute(insert(IngestLaneRow).values(made).on_conflict_do_nothing())
    return session.scalars(_named(kind, name).with_for_update()).one()


def _named(kind: BatchKind, name: str) -> Select[IngestLaneRow]:
    return select(IngestLaneRow).where(IngestLaneRow.kind == kind.value, IngestLaneRow.name == name)


def _lane_id(kind: BatchKind, name: str) -> Select[str]:
    return select(IngestLaneRow.id).where(IngestLaneRow.kind == kind.value, IngestLaneRow.name == name)


def _next_number(lane: IngestLaneRow, moment: Micros) -> int:
    """A number larger than all before it in the lane, and no less than the moment."""
    number = max(lane.next_number, moment)
    lane.next_number = number + 1
    return number


def _refuse_full(session: Session, bounds: Bounds, added_bytes: int) -> None:
    wanted = select(func.count(), func.coalesce(func.sum(IngestBatchRow.payload_bytes), 0))
    batches, size = session.execute(wanted.where(IngestBatchRow.state.in_(_KEPT))).one()
    if batches + 1 > bounds.batches_max or size + added_bytes > bounds.bytes_max:
        raise Overloaded(
            OUTBOX,
            f"{batches:,} batches with {size:,} bytes wait to be delivered, or to be retried or dropped. "
            f"Allowed: {bounds.batches_max:,} batches and {bounds.bytes_max:,} bytes",
            retry_after_s=2.0,
            hint="`skewless ingest status` says which store is slow or away, and "
            "`skewless ingest batches --state failed` what was set aside",
        )


def _row(batch: PackedBatch, lane: IngestLaneRow, number: int, accepted_time: Micros) -> IngestBatchRow:
    return IngestBatchRow(
        id=str(uuid_utils.uuid7()),
        lane_id=lane.id,
        number=number,
        state=BatchState.ACCEPTED.value,
        rows=batch.rows,
        payload_bytes=len(batch.payload),
        decoded_bytes=batch.decoded_bytes,
        newest_event_time=batch.newest_event_time,
        received_time=batch.received_time,
        accepted_time=accepted_time,
        changed_time=accepted_time,
        tries=0,
        error="",
        quality_run=batch.quality_run,
    )


def _key(lane_id: str, request: IncomingRequest, row: IngestBatchRow) -> IngestKeyRow:
    return IngestKeyRow(
        lane_id=lane_id,
        caller=request.caller,
        key=request.key,
        digest=request.digest,
        batch_id=row.id,
        answer=dict(request.answer),
        accepted_time=row.accepted_time,
    )


def _keys(session: Session, lane_id: str, pairs: Sequence[tuple[str, str]]) -> Mapping[tuple[str, str], IngestKeyRow]:
    if not pairs:
        return {}
    wanted = select(IngestKeyRow).where(
        IngestKeyRow.lane_id == lane_id, tuple_(IngestKeyRow.caller, IngestKeyRow.key).in_(list(pairs))
    )
    return {(row.caller, row.key): row for row in session.scalars(wanted)}


def _failed(session: Session, batch_id: str) -> tuple[IngestBatchRow, IngestLaneRow]:
    """A failed batch with its lane, both held."""
    found = session.get(IngestBatchRow, batch_id)
    if found is None:
        raise NotFound("batch", batch_id, hint="`skewless ingest batches --state failed` lists them")
    lane = session.get_one(IngestLaneRow, found.lane_id, with_for_update=True)
    session.refresh(found, with_for_update=True)
    if found.state != BatchState.FAILED.value:
        raise Conflict(
            f"batch `{batch_id}` is `{found.state}`; only one that has failed is retried or dropped",
            hint="one that waits is tried again by itself",
        )
    return found, lane


def _with_lane() -> Select[IngestBatchRow, IngestLaneRow]:
    return select(IngestBatchRow, IngestLaneRow).join(IngestLaneRow, IngestLaneRow.id == IngestBatchRow.lane_id)


def _counts() -> Subquery:
    """By lane: batches, rows and bytes that wait, batches and bytes that have failed, and the oldest that waits."""
    waits = IngestBatchRow.state.in_(_WAITING)
    failed = IngestBatchRow.state == BatchState.FAILED.value
    return (
        select(
            IngestBatchRow.lane_id,
            func.count().filter(waits).label("batches"),
            func.sum(IngestBatchRow.rows).filter(waits).label("rows"),
            func.sum(IngestBatchRow.payload_bytes).filter(waits).label("bytes"),
            func.count().filter(failed).label("failed"),
            func.sum(IngestBatchRow.payload_bytes).filter(failed).label("failed_bytes"),
            func.min(IngestBatchRow.accepted_time).filter(waits).label("oldest"),
        )
        .where(waits | failed)
        .group_by(IngestBatchRow.lane_id)
        .subquery()
    )


def _waiting(row: IngestBatchRow, payload: bytes) -> WaitingBatch:
    return WaitingBatch(
        row.id,
        row.lane_id,
        row.number,
        BatchState(row.state),
        row.rows,
        row.tries,
        Micros(row.received_time),
        Micros(row.accepted_time),
        None if row.online_time is None else Micros(row.online_time),
        payload,
    )


def _state(row: IngestBatchRow, lane: IngestLaneRow) -> StoredState:
    return StoredState(
        id=row.id,
        kind=BatchKind(lane.kind),
        name=lane.name,
        number=row.number,
        state=BatchState(row.state),
        rows=row.rows,
        payload_bytes=row.payload_bytes,
        received_time=Micros(row.received_time),
        accepted_time=Micros(row.accepted_time),
        online_time=None if row.online_time is None else Micros(row.online_time),
        offline_time=None if row.offline_time is None else Micros(row.offline_time),
        tries=row.tries,
        error=row.error,
        quality_run=row.quality_run,
    )
