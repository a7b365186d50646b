"""Deletions of entities: begun before anything goes, finished with a receipt, and kept so that nothing comes back.

No join key is kept as it is. A deletion knows its entity by keyed hashes (`features/chosen_entities.py`), whose key is
in the database itself: every process that writes feature rows must be able to ask, and none may ask wrongly. Whoever
can read the database can try values out, so a hash is as personal as what it stands for.
"""

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from threading import Lock
from typing import Any

import numpy as np
import uuid_utils
from numpy.typing import NDArray
from sqlalchemy import Engine, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from skewless.canonical_json import digest
from skewless.dtypes import Column
from skewless.errors import Conflict, NotFound
from skewless.features.chosen_entities import HASH_KEY_BYTES, ChosenEntities, row_hashes
from skewless.registry.entity_deletion_tables import EntityDeletionRow, EntityHashKeyRow
from skewless.registry.transactions import RegistryPart, system_clock
from skewless.timestamps import Micros, format_timestamp

_SUBJECT = "entity"


class DeletionState(StrEnum):
    """How far a deletion has come."""

    BEGUN = "begun"
    """Asked for; some of it may be done. Asking again goes on with it."""
    DONE = "done"
    """Looked for again everywhere, and found nowhere but in what the receipt names as not reached."""
    PARTLY = "partly"
    """Something was away or waits; asking again makes a deletion that does the rest."""


@dataclass(frozen=True, slots=True)
class DeletionRequest:
    """Whose rows go, of which `views` (None: of all), known until when (µs), and why.

    `before` None is now, also where it goes on with a deletion that was cut off. `for_ever` keeps out what becomes
    known later too.
    """

    entities: ChosenEntities
    views: tuple[str, ...] | None = None
    before: Micros | None = None
    for_ever: bool = False
    actor: str = "unknown"
    reason: str = ""


@dataclass(frozen=True, slots=True)
class DeletionRecord:
    """A deletion as it is kept. Times in µs; `found` has rows by place. Without a `receipt` it is not finished."""

    id: str
    key_names: tuple[str, ...]
    hashes: tuple[str, ...]
    views: tuple[str, ...] | None
    before: Micros
    for_ever: bool
    state: DeletionState
    actor: str
    reason: str
    requested_time: Micros
    finished_time: Micros | None
    lifted_time: Micros | None
    found: Mapping[str, int]
    receipt: Mapping[str, Any] | None

    def to_json(self) -> dict[str, Any]:
        """Plain data, with times as RFC 3339 text."""
        return {
            "id": self.id,
            "keys": list(self.key_names),
            "entity_hashes": list(self.hashes),
            "views": None if self.views is None else list(self.views),
            "before": format_timestamp(self.before),
            "for_ever": self.for_ever,
            "state": self.state.value,
            "actor": self.actor,
            "reason": self.reason,
            "requested_time": format_timestamp(self.requested_time),
            "finished_time": None if self.finished_time is None else format_timestamp(self.finished_time),
            "lifted_time": None if self.lifted_time is None else format_timestamp(self.lifted_time),
            "rows": sum(self.found.values()),
        }


@dataclass(frozen=True, slots=True)
class _Rule:
    """What one deletion keeps out of some views."""

    views: frozenset[str] | None
    before: int
    for_ever: bool

    def keeps_out(self, view: str, known: int) -> bool:
        return (self.views is None or view in self.views) and (self.for_ever or known <= self.before)


@dataclass(frozen=True, slots=True)
class _Standing:
    """All deletions in force as of a `revision`: rules by names of join keys and by hash."""

    revision: int
    key: bytes
    rules: Mapping[tuple[str, ...], Mapping[str, tuple[_Rule, ...]]]


class Deletions(RegistryPart):
    """Deletions in the registry's database. Threads may share it, and processes each have their own."""

    def __init__(self, engine: Engine, *, clock: Callable[[], Micros] = system_clock) -> None:
        super().__init__(engine, clock=clock)
        self._lock = Lock()
        self._standing = _Standing(0, b"", {})

    def kept_out(
        self,
        view: str,
        keys: Mapping[str, Column],
        created_times: NDArray[np.int64],
        event_times: NDArray[np.int64],
    ) -> NDArray[np.bool_]:
        """Which rows (rows,) of a view, or of a stream of events, must not be written anywhere: they were deleted.

        `keys` has the rows' join keys by the view's own names; times are in µs, and where a row has no created time
        (it is negative) its event time counts. Ask right before each part is written: a deletion that began meanwhile
        counts from then on. Costs one query of two numbers, and a hash per entity only of rows that were known before
        some deletion with such join keys. Raises Unavailable.
        """
        found = np.zeros(len(created_times), dtype=np.bool_)
        standing = self._current()
        known = np.where(created_times < 0, event_times, created_times)
        for names, rules in standing.rules.items():
            if not set(names) <= keys.keys():
                continue
            newest = max(_bound(rule) for each in rules.values() for rule in each)
            rows = np.flatnonzero((known <= newest) & ~found)
            hashes = row_hashes(standing.key, {name: keys[name] for name in names}, rows) if len(rows) else []
            for row, hashed in zip(rows.tolist(), hashes, strict=True):
                kept = rules.get(hashed, ()) if hashed is not None else ()
                found[row] = any(rule.keeps_out(view, int(known[row])) for rule in kept)
        return found

    def hashes(self, entities: ChosenEntities) -> tuple[str, ...]:
        """What stands for entities in this database; none where it never deleted any."""
        with self._transactions.read() as session:
            key = session.scalar(select(EntityHashKeyRow.key))
        return () if key is None else entities.hashes(key)

    def begin(self, request: DeletionRequest) -> DeletionRecord:
        """Write down that entities are deleted, from which moment on their old rows are kept out; audited.

        Where the same deletion began and was cut off, it is that one, whose moment is now unless a time was given:
        what became known meanwhile is asked for as well. Raises InvalidRequest for an unusable reason.
        """
        self._make_key()
        with self._transactions.write() as session:
            head = _held(session)
            hashes = list(request.entities.hashes(head.key))
            row = _cut_off(session, request, hashes)
            if row is None:
                row = self._begun(request, hashes)
                session.add(row)
                action = "begin_deletion"
            elif request.before is None:
                row.before_us = max(row.before_us, self._clock())
                action = "go_on_with_deletion"
            else:
                return _record(row)
            head.revision += 1
            detail = {"keys": row.key_names, "views": row.views, "before": format_timestamp(row.before_us)}
            self._audit(
                session, f"{_SUBJECT}/{row.id}", action, actor=request.actor, reason=request.reason, detail=detail
            )
            return _record(row)

    def note(self, deletion: str, found: Mapping[str, int]) -> None:
        """Keep how many rows there are in some places, before they are deleted; of two counts the larger stays."""
        with self._transactions.write() as session:
            row = _of(session, deletion)
            row.found = {**row.found, **{place: max(rows, row.found.get(place, 0)) for place, rows in found.items()}}

    def finish(self, begun: DeletionRecord, state: DeletionState, told: Mapping[str, Any]) -> DeletionRecord:
        """Close a deletion with its receipt: `told`, what was asked for, and a digest of all of it; audited.

        Raises NotFound, and Conflict where somebody else has finished it, or goes on with it until a later moment.
        """
        with self._transactions.write() as session:
            row = _of(session, begun.id)
            if row.state != DeletionState.BEGUN.value:
                raise Conflict(f"deletion `{begun.id}` is finished already", hint="`skewless entity show` shows it")
            if row.before_us != begun.before:
                raise Conflict(
                    f"deletion `{begun.id}` was asked for again meanwhile, and goes on there",
                    hint="wait for it, or run the same command again",
                )
            row.state, row.finished_time = state.value, self._clock()
            receipt = {**_record(row).to_json(), **told}
            row.receipt = {**receipt, "digest": digest(receipt)}
            detail = {"state": state.value, "rows": sum(row.found.values()), "digest": row.receipt["digest"]}
            self._audit(
                session, f"{_SUBJECT}/{row.id}", "delete_entity", actor=row.actor, reason=row.reason, detail=detail
            )
            return _record(row)

    def lift(self, deletion: str, *, actor: str, reason: str) -> DeletionRecord:
        """Let rows in again that a deletion keeps out; what was deleted does not come back by it. Audited.

        Raises NotFound, and Conflict where it was lifted before.
        """
        found = self.deletion(deletion)
        with self._transactions.write() as session:
            row = _of(session, found.id)
            if row.lifted_time is not None:
                raise Conflict(f"deletion `{found.id}` was lifted at {format_timestamp(row.lifted_time)}")
            row.lifted_time = self._clock()
            _held(session).revision += 1
            self._audit(session, f"{_SUBJECT}/{row.id}", "lift_deletion", actor=actor, reason=reason, detail={})
            return _record(row)

    def deletions(self, entities: ChosenEntities | None = None, *, limit: int = 20) -> tuple[DeletionRecord, ...]:
        """The newest deletions, newest first; of `entities` only those of exactly these values."""
        wanted = select(EntityDeletionRow).order_by(EntityDeletionRow.number.desc())
        with self._transactions.read() as session:
            if entities is None:
                return tuple(_record(row) for row in session.scalars(wanted.limit(limit)))
            hashes = set(self.hashes(entities))
            found = (row for row in session.scalars(wanted) if hashes & set(row.hashes))
            return tuple(_record(row) for row, _ in zip(found, range(limit), strict=False))

    def deletion(self, prefix: str) -> DeletionRecord:
        """A deletion by its id, or by the end or beginning of it. Raises NotFound."""
        matches = EntityDeletionRow.id.startswith(prefix, autoescape=True)
        matches |= EntityDeletionRow.id.endswith(prefix, autoescape=True)
        with self._transactions.read() as session:
            rows = list(session.scalars(select(EntityDeletionRow).where(matches).limit(2)))
        if len(rows) != 1:
            told = "more than one fits; give more digits" if rows else "`skewless entity receipts` lists them"
            raise NotFound("deletion", prefix, hint=told)
        return _record(rows[0])

    def _begun(self, request: DeletionRequest, hashes: list[str]) -> EntityDeletionRow:
        now = self._clock()
        return EntityDeletionRow(
            id=str(uuid_utils.uuid7()),
            key_names=list(request.entities.names),
            hashes=hashes,
            views=None if request.views is None else sorted(request.views),
            before_us=now if request.before is None else request.before,
            for_ever=request.for_ever,
            state=DeletionState.BEGUN.value,
            actor=request.actor,
            reason=request.reason,
            requested_time=now,
            found={},
        )

    def _make_key(self) -> None:
        with self._transactions.read() as session:
            if session.get(EntityHashKeyRow, 1) is not None:
                return
        try:
            with self._transactions.write() as session:
                if session.get(EntityHashKeyRow, 1) is None:
                    session.add(EntityHashKeyRow(number=1, key=secrets.token_bytes(HASH_KEY_BYTES), revision=0))
        except (Conflict, IntegrityError):  # another deletion, the first as well, has made one
            return

    def _current(self) -> _Standing:
        """What is in force now; read anew only where something was begun or lifted."""
        with self._transactions.read() as session:
            head = session.get(EntityHashKeyRow, 1)
            if head is None or head.revision == self._standing.revision:
                return self._standing
            rows = session.scalars(select(EntityDeletionRow).where(EntityDeletionRow.lifted_time.is_(None)))
            standing = _Standing(head.revision, head.key, _rules(rows))
        with self._lock:
            if standing.revision > self._standing.revision:
                self._standing = standing
        return standing


def _held(session: Session) -> EntityHashKeyRow:
    """The key, held until the transaction ends."""
    return session.scalars(select(EntityHashKeyRow).with_for_update()).one()


def _bound(rule: _Rule) -> int:
    return int(np.iinfo(np.int64).max) if rule.for_ever else rule.before


def _rules(rows: Iterable[EntityDeletionRow]) -> dict[tuple[str, ...], dict[str, tuple[_Rule, ...]]]:
    found: dict[tuple[str, ...], dict[str, tuple[_Rule, ...]]] = {}
    for row in rows:
        rule = _Rule(None if row.views is None else frozenset(row.views), row.before_us, row.for_ever)
        of_names = found.setdefault(tuple(row.key_names), {})
        for hashed in row.hashes:
            of_names[hashed] = (*of_names.get(hashed, ()), rule)
    return found


def _cut_off(session: Session, request: DeletionRequest, hashes: Sequence[str]) -> EntityDeletionRow | None:
    """The deletion that this one goes on with."""
    begun = select(EntityDeletionRow).where(EntityDeletionRow.state == DeletionState.BEGUN.value)
    for row in session.scalars(begun.order_by(EntityDeletionRow.number)):
        is_same = row.hashes == hashes and row.for_ever == request.for_ever
        views = None if request.views is None else sorted(request.views)
        # Without a time it was asked for until its own moment; one with a time in the past is another request.
        until = row.before_us if row.before_us < row.requested_time else None
        if is_same and row.views == views and request.before in (until, row.before_us):
            return row
    return None


def _of(session: Session, deletion: str) -> EntityDeletionRow:
    row = session.scalar(select(EntityDeletionRow).where(EntityDeletionRow.id == deletion).with_for_update())
    if row is None:
        raise NotFound("deletion", deletion, hint="`skewless entity receipts` lists them")
    return row


def _record(row: EntityDeletionRow) -> DeletionRecord:
    return DeletionRecord(
        id=row.id,
        key_names=tuple(row.key_names),
        hashes=tuple(row.hashes),
        views=None if row.views is None else tuple(row.views),
        before=Micros(row.before_us),
        for_ever=row.for_ever,
        state=DeletionState(row.state),
        actor=row.actor,
        reason=row.reason,
        requested_time=Micros(row.requested_time),
        finished_time=None if row.finished_time is None else Micros(row.finished_time),
        lifted_time=None if row.lifted_time is None else Micros(row.lifted_time),
        found=dict(row.found),
        receipt=row.receipt,
    )
