"""Short transactions on the registry database, and the audit event that each change writes in its own."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError

from skewless.errors import Conflict, InvalidRequest
from skewless.registry.database import WRITES, unavailable
from skewless.registry.tables import AuditEventRow
from skewless.timestamps import Micros

ACTOR_CHARACTERS_MAX = 200


class Transactions:
    """Sessions on one engine, with the database's errors translated. Threads may share it.

    Both raise Unavailable when the database does not answer, and Conflict, with `conflict_hint`, when another
    writer changed the same rows meanwhile.
    """

    def __init__(self, engine: Engine, *, conflict_hint: str) -> None:
        self._engine = engine
        self._writing_engine = engine.execution_options(**{WRITES: True})
        self._conflict_hint = conflict_hint

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session of one moment; nothing it changes is kept."""
        with self._translated(), Session(self._engine) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that is committed as a whole when the block ends without an error."""
        with self._translated(), Session(self._writing_engine) as session, session.begin():
            yield session

    def close(self) -> None:
        """Close the engine's pooled connections."""
        self._engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (StaleDataError, IntegrityError) as error:
            raise Conflict(
                "another writer changed the registry at the same moment", hint=self._conflict_hint
            ) from error
        except (DBAPIError, PoolTimeoutError) as error:
            raise unavailable(self._engine.url, error) from error


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
    """Add the event of a change to the change's own transaction. Raises InvalidRequest for an unusable actor."""
    if not 1 <= len(actor) <= ACTOR_CHARACTERS_MAX:
        raise InvalidRequest(
            f"the actor has {len(actor)} characters",
            path="actor",
            allowed=f"1 to {ACTOR_CHARACTERS_MAX} characters: who makes the change",
        )
    session.add(
        AuditEventRow(time=time, actor=actor, action=str(action), subject=subject, reason=reason, detail=dict(detail))
    )
    session.flush()
