"""Named leases: what only one process may do at a time, on whatever machine, and for as long as it says it is alive.

Time is the database's, so that clocks of machines may differ. Each taking of a lease has a token larger than all before
it. Who is cut off long enough to lose a lease finds that out at the next renewal; and a transaction that checks its
token changes nothing any more, whatever its process believes.
"""

import getpass
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

from sqlalchemy import CursorResult, Engine, delete, select, text, update
from sqlalchemy.orm import Session

from skewless.errors import Conflict
from skewless.registry.lease_tables import LeaseRow
from skewless.registry.transactions import RegistryPart, Transactions, system_clock
from skewless.timestamps import SECOND_US, Micros, format_timestamp

_NOW = {
    "sqlite": "SELECT CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)",
    "postgresql": "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)",
}
"""Microseconds since 1970 by the database's clock; SQLite's is that of the machine, and exact to a millisecond."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease that somebody holds until `expires_time` (µs, by the database's clock)."""

    name: str
    owner: str
    token: int
    expires_time: int


class Leases(RegistryPart):
    """Leases in the registry's database. Threads and processes may share it; see `RegistryPart` for what is raised."""

    def __init__(self, engine: Engine, *, clock: Callable[[], Micros] = system_clock) -> None:
        super().__init__(engine, clock=clock)
        self._transactions = Transactions(engine, conflict_hint="somebody else took it first; try again later")

    def take(self, name: str, owner: str, *, lease_s: float) -> Lease:
        """Take a lease that is free. Raises Conflict, saying who has it and until when, where it is not."""
        return self.take_all((name,), owner, lease_s=lease_s)[0]

    def take_all(self, names: Iterable[str], owner: str, *, lease_s: float) -> tuple[Lease, ...]:
        """Take leases, all of them or none, in the order given; as `take`."""
        with self._transactions.write() as session:
            return tuple(self._taken(session, name, owner, lease_s) for name in names)

    def renew(self, lease: Lease, *, lease_s: float) -> Lease:
        """The lease for longer. Raises Conflict where it was lost."""
        with self._transactions.write() as session:
            now = database_now(session)
            held = _held(session, lease.name)
            if held is None or held.token != lease.token or held.expires_time <= now:
                raise _lost(lease, held, now)
            held.expires_time = now + int(lease_s * SECOND_US)
            return _lease(held)

    def release(self, lease: Lease) -> None:
        """Give a lease back; nothing happens where it was lost."""
        with self._transactions.write() as session:
            mine = (LeaseRow.name == lease.name) & (LeaseRow.token == lease.token)
            session.execute(update(LeaseRow).where(mine).values(expires_time=0))

    def holder(self, name: str) -> Lease | None:
        """Who holds a lease now; None where it is free."""
        with self._transactions.read() as session:
            row = session.get(LeaseRow, name)
            return None if row is None or row.expires_time <= database_now(session) else _lease(row)

    def forget(self, name: str) -> bool:
        """Remove a lease that is free, and say whether there was one. Its next token begins anew."""
        with self._transactions.write() as session:
            free = (LeaseRow.name == name) & (LeaseRow.expires_time <= database_now(session))
            gone = cast("CursorResult[object]", session.execute(delete(LeaseRow).where(free)))
            return bool(gone.rowcount)

    def _taken(self, session: Session, name: str, owner: str, lease_s: float) -> Lease:
        now = database_now(session)
        held = _held(session, name)
        if held is None:
            held = LeaseRow(name=name, owner=owner, token=0, taken_time=now, expires_time=0)
            session.add(held)
        if held.expires_time > now:
            raise _refused(held, now)
        held.token += 1
        held.owner, held.taken_time, held.expires_time = owner, now, now + int(lease_s * SECOND_US)
        session.flush()
        return _lease(held)


def check(session: Session, lease: Lease) -> None:
    """Return where the lease is still held, and keep it so until the transaction ends. Raises Conflict where it is not.

    What the transaction writes is then written by the holder or not at all.
    """
    held, now = _held(session, lease.name), database_now(session)
    if held is None or held.token != lease.token or held.expires_time <= now:
        raise _lost(lease, held, now)


def owner_text() -> str:
    """This process, for people: user, machine and process id."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a user without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()} pid {os.getpid()}"


def _held(session: Session, name: str) -> LeaseRow | None:
    return session.scalars(select(LeaseRow).where(LeaseRow.name == name).with_for_update()).one_or_none()


def database_now(session: Session) -> int:
    """The moment (µs) by the database's clock."""
    return int(session.execute(text(_NOW[session.get_bind().dialect.name])).scalar_one())


def _lease(row: LeaseRow) -> Lease:
    return Lease(row.name, row.owner, row.token, row.expires_time)


def _refused(held: LeaseRow, now: int) -> Conflict:
    left_s = (held.expires_time - now) / SECOND_US
    return Conflict(
        f"`{held.name}` is held by {held.owner} since {format_timestamp(held.taken_time)}",
        hint=f"wait until it is done; if that process is gone, its lease ends by itself in {left_s:.0f} s",
    )


def _lost(lease: Lease, held: LeaseRow | None, now: int) -> Conflict:
    taken = held is not None and held.token != lease.token and held.expires_time > now
    by = f"; {held.owner} has it now" if taken and held is not None else ""
    return Conflict(
        f"`{lease.name}` is not held any more{by}",
        hint="this process was stopped or cut off for too long; what it began goes on with the next run",
    )
