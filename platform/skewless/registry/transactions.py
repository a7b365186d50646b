"""Short transactions on the registry database, and the audit event that each change writes in its own."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError

from skewless.errors import Conflict, InvalidDefinition, InvalidRequest
from skewless.registry.database import CHANGES_CHANNEL, WRITES, unavailable
from skewless.registry.tables import AuditEventRow
from skewless.timestamps import Micros

ACTOR_CHARACTERS_MAX = 200
REASON_CHARACTERS_MAX = 4_000
CHANGED_MEANWHILE = "read its state again with `skewless rollout status`, then repeat the change if it is still meant"
_AUDIT_LOCK = 0x536B_6577_4175_6474
"""PostgreSQL advisory lock of the audit trail: the bytes of `SkewAudt`."""
_LOST_RACES = {"40001", "40P01"}
"""SQLSTATEs of PostgreSQL: serialisation failure, deadlock. Nothing is wrong but the moment."""


def system_clock() -> Micros:
    """Now, as microseconds since 1970."""
    return Micros(time.time_ns() // 1_000)


class Transactions:
    """Sessions on one engine, with the database's errors translated. Threads may share it.

    Both raise Unavailable when the database does not answer, Conflict, with `conflict_hint`, when another writer
    changed the same rows meanwhile, and InvalidDefinition for a value that the database cannot hold.
    """

    def __init__(self, engine: Engine, *, conflict_hint: str) -> None:
        self._engine = engine
        self._reading_engine = _one_moment(engine)
        self._writing_engine = engine.execution_options(**{WRITES: True})
        self._conflict_hint = conflict_hint

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session of one moment; nothing it changes is kept."""
        with self._translated(), Session(self._reading_engine) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that is committed as a whole when the block ends without an error."""
        with self._translated(), Session(self._writing_engine) as session:
            yield session
            session.flush()
            self._commit(session)

    def close(self) -> None:
        """Close the engine's pooled connections."""
        self._engine.dispose()

    def _commit(self, session: Session) -> None:
        try:
            session.commit()
        except DBAPIError as error:
            raise unavailable(self._engine.url, error, lost="whether the change was made is not known") from error

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (StaleDataError, IntegrityError) as error:
            raise self._overtaken() from error
        except DataError as error:
            raise InvalidDefinition(f"the registry database cannot hold a value: {error.orig}") from error
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) in _LOST_RACES:
                raise self._overtaken() from error
            raise unavailable(self._engine.url, error) from error
        except PoolTimeoutError as error:
            raise unavailable(self._engine.url, error) from error

    def _overtaken(self) -> Conflict:
        return Conflict("another writer changed the registry at the same moment", hint=self._conflict_hint)


class RegistryPart:
    """What each part of the registry works with: transactions on one engine, and a clock. Threads may share it.

    Every method of every part raises Unavailable when the database does not answer, and Conflict when another writer
    was first.
    """

    def __init__(self, engine: Engine, *, clock: Callable[[], Micros] = system_clock) -> None:
        self._transactions = Transactions(engine, conflict_hint=CHANGED_MEANWHILE)
        self._clock = clock

    def close(self) -> None:
        """Close the engine's pooled connections."""
        self._transactions.close()

    def _audit(
        self, session: Session, subject: str, action: str, *, actor: str, reason: str, detail: Mapping[str, Any]
    ) -> None:
        write_audit_event(session, subject, action, time=self._clock(), actor=actor, reason=reason, detail=detail)


def write_audit_event(
    session: Session,
    subject: str,
    action: str,
    *,
    time: Micros,
    actor: str,
    reason: str,
    detail: Mapping[str, Any],
) -> None:
    """Add the event of a change to the change's own transaction, as the last thing in it.

    Raises InvalidRequest for an unusable actor or reason.
    """
    check_who_and_why(actor, reason)
    # What the change itself writes goes first: its locks decide who wins, and no loser's event takes a number.
    session.flush()
    if session.get_bind().dialect.name == "postgresql":
        _queue_and_notify(session, subject, detail.get("version"))
    session.add(
        AuditEventRow(time=time, actor=actor, action=str(action), subject=subject, reason=reason, detail=dict(detail))
    )
    session.flush()


def check_who_and_why(actor: str, reason: str) -> None:
    """Return where a change may be audited with these. Raises InvalidRequest for an unusable actor or reason."""
    _check_text("actor", actor, characters_min=1, characters_max=ACTOR_CHARACTERS_MAX)
    _check_text("reason", reason, characters_min=0, characters_max=REASON_CHARACTERS_MAX)


def _queue_and_notify(session: Session, subject: str, version: object) -> None:
    """Let one transaction after another take a number, and tell who listens once this one is committed.

    Without the lock, of two transactions the one with the larger number may be committed first, and whoever reads
    "all events after the last one that I saw" would miss the other for good. It is held until the commit, for less
    than a millisecond, and always taken last, so that it is part of no deadlock.
    """
    payload = json.dumps({"subject": subject, "version": version})
    session.execute(
        text("SELECT pg_advisory_xact_lock(:key), pg_notify(:channel, :payload)"),
        {"key": _AUDIT_LOCK, "channel": CHANGES_CHANNEL, "payload": payload},
    )


def _one_moment(engine: Engine) -> Engine:
    """An engine whose transactions see the database as it was at their first statement; SQLite's always do."""
    if engine.dialect.name != "postgresql":
        return engine
    return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def _check_text(what: str, given: str, *, characters_min: int, characters_max: int) -> None:
    if not characters_min <= len(given) <= characters_max:
        raise InvalidRequest(
            f"the {what} has {len(given)} characters",
            path=what,
            allowed=f"{characters_min} to {characters_max} characters: who makes the change, and why",
        )
    if "\0" in given or any("\ud800" <= character <= "\udfff" for character in given):
        raise InvalidRequest(f"the {what} {given!r} is no text that every database can hold", path=what)
