"""Reads and changes of the registry. Every method is one short transaction, and every change is audited in it."""

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Engine, Select, select
from sqlalchemy.orm import Session, joinedload

from skewless.canonical_json import Digest
from skewless.errors import Conflict, InvalidDefinition, InvalidRequest, NotFound
from skewless.registry.records import AuditEvent, BundleRecord, EndpointRecord
from skewless.registry.rows import audit_event, bundle_record, bundle_row, endpoint_record
from skewless.registry.tables import AuditEventRow, BundleRow, EndpointRow, RouteRow
from skewless.registry.transactions import Transactions, write_audit_event
from skewless.rollout.history import LiveChange, RouteAction, rollback_target
from skewless.rollout.routes import RoutingTable, check_endpoint_name
from skewless.timestamps import Micros

DIGEST_PREFIX_MIN = 8
"""Hexadecimal digits by which a bundle may be called: fewer would soon be ambiguous."""
BUNDLE_NAME_PATTERN = "[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
_LISTED_MAX = 10
_SHORT = 12
_LIVE = "live"
_CHANGED_MEANWHILE = "read its state again with `skewless rollout status`, then repeat the change if it is still meant"


def system_clock() -> Micros:
    """Now, as microseconds since 1970."""
    return Micros(time.time_ns() // 1_000)


class Registry:
    """The registry on one engine. Threads may share it.

    Every method raises Unavailable when the database does not answer, and Conflict when another writer was first.
    """

    def __init__(self, engine: Engine, *, clock: Callable[[], Micros] = system_clock) -> None:
        self._transactions = Transactions(engine, conflict_hint=_CHANGED_MEANWHILE)
        self._clock = clock

    def register_bundle(self, record: BundleRecord, *, actor: str = "unknown", reason: str = "") -> None:
        """Keep a bundle's record. Does nothing where its digest is registered already.

        Raises InvalidDefinition for a name outside `BUNDLE_NAME_PATTERN`, Conflict where the digest is
        registered with another name, contract or transform, which a true digest cannot have.
        """
        if not re.fullmatch(BUNDLE_NAME_PATTERN, record.name):
            raise InvalidDefinition(
                f"{record.name!r} cannot name a bundle. Allowed: 1 to 100 letters, digits, `.`, `_` and `-`, "
                "first a letter or digit"
            )
        with self._transactions.write() as session:
            known = session.get(BundleRow, record.digest)
            if known is not None:
                _refuse_other_content(bundle_record(known), record)
                return
            session.add(bundle_row(record))
            detail = {"name": record.name, "artifact": record.artifact}
            self._audit(session, f"bundle/{record.digest}", "register", actor=actor, reason=reason, detail=detail)

    def bundle(self, digest_prefix: str) -> BundleRecord:
        """The bundle whose digest begins so. Raises InvalidRequest for a prefix that is too short, no
        hexadecimal text or ambiguous, NotFound where there is none."""
        if not re.fullmatch(f"[0-9a-f]{{{DIGEST_PREFIX_MIN},64}}", digest_prefix):
            raise InvalidRequest(
                f"{digest_prefix!r} is not a bundle digest",
                path="bundle",
                allowed=f"the first {DIGEST_PREFIX_MIN} to 64 lower-case hexadecimal digits of a digest",
                hint="`skewless bundle list` shows digests",
            )
        with self._transactions.read() as session:
            found = session.scalars(_bundles_from(digest_prefix).limit(_LISTED_MAX)).all()
            if not found:
                newest = session.scalars(_newest_bundles().limit(_LISTED_MAX)).all()
                known = tuple(f"{row.digest[:_SHORT]} {row.name}" for row in newest)
                raise NotFound("bundle", digest_prefix, known=known, hint="`skewless bundle list` shows all of them")
            if len(found) > 1:
                raise InvalidRequest(
                    f"bundle `{digest_prefix}` is ambiguous: {', '.join(row.digest for row in found)}",
                    path="bundle",
                    hint="give more of the digest's digits",
                )
            return bundle_record(found[0])

    def bundles(self, name: str | None = None) -> tuple[BundleRecord, ...]:
        """Every bundle, or every one of that name, newest first."""
        wanted = _newest_bundles() if name is None else _newest_bundles().where(BundleRow.name == name)
        with self._transactions.read() as session:
            return tuple(bundle_record(row) for row in session.scalars(wanted))

    def create_endpoint(
        self, name: str, *, description: str, bundle: Digest, actor: str, reason: str
    ) -> EndpointRecord:
        """A new endpoint with a live bundle. Raises InvalidDefinition for a bad name, Conflict where the name
        is taken, NotFound where the bundle is not registered."""
        check_endpoint_name(name)
        with self._transactions.write() as session:
            if session.get(EndpointRow, name) is not None:
                raise Conflict(
                    f"endpoint `{name}` exists already",
                    hint=f"`skewless rollout promote {name} --bundle {bundle[:_SHORT]}` changes its live bundle",
                )
            _registered(session, bundle)
            now = self._clock()
            session.add(EndpointRow(name=name, description=description, created_time=now, version=1))
            session.flush()
            session.add(RouteRow(endpoint_name=name, role=_LIVE, bundle_digest=bundle, share=1.0, changed_time=now))
            detail = {"role": _LIVE, "from": None, "to": bundle, "version": 1}
            self._audit(session, f"endpoint/{name}", RouteAction.CREATE, actor=actor, reason=reason, detail=detail)
            return endpoint_record(_endpoint_row(session, name))

    def set_live(
        self,
        endpoint: str,
        bundle: Digest,
        *,
        actor: str,
        reason: str,
        expected_version: int | None = None,
    ) -> EndpointRecord:
        """Make `bundle` the endpoint's live one; changes nothing where it is live already.

        With `expected_version` it refuses with Conflict when the endpoint changed since that version was read.
        Raises NotFound for an unknown endpoint or bundle.
        """
        with self._transactions.write() as session:
            row = _endpoint_row(session, endpoint)
            _refuse_other_version(row, expected_version)
            _registered(session, bundle)
            return self._change_live(session, row, bundle, action=RouteAction.PROMOTE, actor=actor, reason=reason)

    def rollback(
        self, endpoint: str, *, actor: str, reason: str, expected_version: int | None = None
    ) -> EndpointRecord:
        """Undo the latest change of the live bundle that is not yet undone (see `rollout/history.py`).

        Raises NotFound for an unknown endpoint, Conflict where there is nothing to go back to or the endpoint
        changed since `expected_version`.
        """
        with self._transactions.write() as session:
            row = _endpoint_row(session, endpoint)
            _refuse_other_version(row, expected_version)
            bundle = _rollback_target(session, endpoint)
            return self._change_live(session, row, bundle, action=RouteAction.ROLLBACK, actor=actor, reason=reason)

    def rollback_target(self, endpoint: str) -> Digest:
        """The bundle that `rollback` would make live. Raises as `rollback` does."""
        with self._transactions.read() as session:
            _endpoint_row(session, endpoint)
            return _rollback_target(session, endpoint)

    def endpoints(self) -> tuple[EndpointRecord, ...]:
        """Every endpoint, by name."""
        with self._transactions.read() as session:
            return tuple(endpoint_record(row) for row in session.scalars(_endpoints_with_routes()).unique())

    def endpoint(self, name: str) -> EndpointRecord:
        """One endpoint. Raises NotFound, which lists the endpoints that exist."""
        with self._transactions.read() as session:
            return endpoint_record(_endpoint_row(session, name))

    def routes(self) -> RoutingTable:
        """The routing table as it is now: what gateways follow."""
        return RoutingTable(tuple(endpoint.route for endpoint in self.endpoints()))

    def audit(self, endpoint: str | None = None) -> tuple[AuditEvent, ...]:
        """Every change, or every one of an endpoint, oldest first."""
        wanted = select(AuditEventRow).order_by(AuditEventRow.number)
        if endpoint is not None:
            wanted = wanted.where(AuditEventRow.subject == f"endpoint/{endpoint}")
        with self._transactions.read() as session:
            return tuple(audit_event(row) for row in session.scalars(wanted))

    def close(self) -> None:
        """Close the engine's pooled connections."""
        self._transactions.close()

    def _change_live(
        self, session: Session, row: EndpointRow, bundle: Digest, *, action: RouteAction, actor: str, reason: str
    ) -> EndpointRecord:
        live = next(route for route in row.routes if route.role == _LIVE)
        before = live.bundle_digest
        if before == bundle:
            return endpoint_record(row)
        row.version += 1
        live.bundle_digest = bundle
        live.changed_time = self._clock()
        # The version decides who wins, so its row is written before the event: no loser's event takes a number
        # below the winner's.
        session.flush()
        detail = {"role": _LIVE, "from": before, "to": bundle, "version": row.version}
        self._audit(session, f"endpoint/{row.name}", action, actor=actor, reason=reason, detail=detail)
        session.expire(live, ["bundle"])
        return endpoint_record(_endpoint_row(session, row.name))

    def _audit(
        self, session: Session, subject: str, action: str, *, actor: str, reason: str, detail: Mapping[str, Any]
    ) -> None:
        write_audit_event(session, subject, action, time=self._clock(), actor=actor, reason=reason, detail=detail)


def _bundles_from(prefix: str) -> Select[BundleRow]:
    # A range over the key rather than LIKE, so that every database uses its index; `g` follows every digit.
    return select(BundleRow).where(BundleRow.digest >= prefix, BundleRow.digest < f"{prefix}g")


def _newest_bundles() -> Select[BundleRow]:
    return select(BundleRow).order_by(BundleRow.created_time.desc(), BundleRow.digest)


def _endpoints_with_routes() -> Select[EndpointRow]:
    # One joined statement, so that versions and routes are of one moment at every isolation level.
    routes = joinedload(EndpointRow.routes).joinedload(RouteRow.bundle)
    return select(EndpointRow).options(routes).order_by(EndpointRow.name)


def _endpoint_row(session: Session, name: str) -> EndpointRow:
    wanted = _endpoints_with_routes().where(EndpointRow.name == name)
    row = session.scalars(wanted.execution_options(populate_existing=True)).unique().one_or_none()
    if row is None:
        known = tuple(session.scalars(select(EndpointRow.name).order_by(EndpointRow.name)))
        raise NotFound("endpoint", name, known=known, hint="`skewless endpoint create` makes one")
    return row


def _registered(session: Session, bundle: Digest) -> None:
    if session.get(BundleRow, bundle) is None:
        newest = session.scalars(_newest_bundles().limit(_LISTED_MAX)).all()
        known = tuple(f"{row.digest[:_SHORT]} {row.name}" for row in newest)
        raise NotFound("bundle", bundle, known=known, hint="register it with `skewless bundle register`")


def _rollback_target(session: Session, endpoint: str) -> Digest:
    wanted = (
        select(AuditEventRow)
        .where(AuditEventRow.subject == f"endpoint/{endpoint}", AuditEventRow.action.in_(tuple(RouteAction)))
        .order_by(AuditEventRow.number)
    )
    changes = (LiveChange(RouteAction(row.action), row.detail["to"]) for row in session.scalars(wanted))
    target = rollback_target(changes)
    if target is None:
        raise Conflict(
            f"endpoint `{endpoint}` has no earlier live bundle to roll back to",
            hint=f"`skewless rollout promote {endpoint} --bundle …` makes any registered bundle live",
        )
    return target


def _refuse_other_version(row: EndpointRow, expected: int | None) -> None:
    if expected is not None and row.version != expected:
        raise Conflict(
            f"endpoint `{row.name}` is at version {row.version}; the change was meant for version {expected}",
            hint=_CHANGED_MEANWHILE,
        )


def _refuse_other_content(known: BundleRecord, given: BundleRecord) -> None:
    for part in ("name", "contract_digest", "transform_digest"):
        if getattr(known, part) != getattr(given, part):
            raise Conflict(
                f"bundle `{given.digest}` is registered with {part} {getattr(known, part)!r}, "
                f"not {getattr(given, part)!r}",
                hint="a digest names one content; build the bundle again",
            )
