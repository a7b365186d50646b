"""The audit trail, and what it and the routes still refer to."""

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from skewless.canonical_json import Digest
from skewless.registry.endpoints import rollback_targets
from skewless.registry.records import AuditEvent
from skewless.registry.rows import audit_event
from skewless.registry.tables import ArmRow, AuditEventRow, ExperimentRow, RouteRow
from skewless.registry.transactions import RegistryPart
from skewless.rollout.routes import Route
from skewless.timestamps import Micros

_ENDPOINT, _BUNDLE = "endpoint/", "bundle/"
_REGISTERED = "register"
_ALWAYS = Micros(0)


class AuditTrail(RegistryPart):
    """The part of the registry that knows its past."""

    def audit(
        self, endpoint: str | None = None, *, subject: str | None = None, after: int = 0, limit: int | None = None
    ) -> tuple[AuditEvent, ...]:
        """Every change, or every one of an endpoint or another subject, oldest first.

        Only those numbered above `after`, and only the first `limit` of them. Numbers are in the order of commits:
        whoever asks again with the last number that came misses none.
        """
        wanted = select(AuditEventRow).where(AuditEventRow.number > after).order_by(AuditEventRow.number).limit(limit)
        if endpoint is not None:
            wanted = wanted.where(AuditEventRow.subject == f"{_ENDPOINT}{endpoint}")
        if subject is not None:
            wanted = wanted.where(AuditEventRow.subject == subject)
        with self._transactions.read() as session:
            return tuple(audit_event(row) for row in session.scalars(wanted))

    def note(self, subject: str, action: str, *, actor: str, reason: str, detail: Mapping[str, Any]) -> None:
        """Write down what was done outside of the registry. Raises InvalidRequest for an unusable actor or reason."""
        with self._transactions.write() as session:
            self._audit(session, subject, action, actor=actor, reason=reason, detail=detail)

    def referenced_bundles(self, *, since: Micros = _ALWAYS) -> frozenset[Digest]:
        """Every bundle that must not be removed: what a route or a running experiment names, what the next rollback
        of an endpoint returns to, and what an audit event at or after `since` registered or routed to.

        With the default every bundle that was ever registered is; a later `since` is how long one that nothing uses
        is kept.
        """
        with self._transactions.read() as session:
            current = {Digest(digest) for digest in session.scalars(select(RouteRow.bundle_digest))}
            current |= {Digest(digest) for digest in session.scalars(_running_arms())}
            return frozenset(current | rollback_targets(session) | set(_named_since(session, since)))


def _running_arms() -> Select[str]:
    same = (ArmRow.endpoint_name == ExperimentRow.endpoint_name) & (ArmRow.experiment_name == ExperimentRow.name)
    return select(ArmRow.bundle_digest).join(ExperimentRow, same).where(ExperimentRow.ended_time.is_(None))


def _named_since(session: Session, since: Micros) -> Iterator[Digest]:
    wanted = select(AuditEventRow.subject, AuditEventRow.action, AuditEventRow.detail).where(
        AuditEventRow.time >= since
    )
    for subject, action, detail in session.execute(wanted):
        if subject.startswith(_ENDPOINT):
            yield from _routed(detail)
        elif subject.startswith(_BUNDLE) and action == _REGISTERED:
            yield Digest(subject.removeprefix(_BUNDLE))


def _routed(detail: Mapping[str, Any]) -> Iterator[Digest]:
    """The bundles that a change of a route left and came to. Events from before the third migration have only the
    live ones."""
    for live in (detail["from"], detail["to"]):
        if live is not None:
            yield Digest(live)
    for route in (detail.get("before"), detail.get("after")):
        if route is not None:
            yield from Route.from_json(route).bundles()
