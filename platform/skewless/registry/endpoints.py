"""Endpoints and their routes: read as one moment, changed by pure functions inside one transaction."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session, joinedload

from skewless.canonical_json import Digest
from skewless.errors import Conflict, NotFound
from skewless.registry.bundles import hold_bundles
from skewless.registry.records import EndpointRecord
from skewless.registry.route_rows import write_route
from skewless.registry.rows import endpoint_record, route_of
from skewless.registry.tables import ArmRow, AuditEventRow, BundleRow, EndpointRow, ExperimentRow, RouteRow
from skewless.registry.transactions import CHANGED_MEANWHILE, RegistryPart
from skewless.rollout import changes
from skewless.rollout.history import LIVE_ACTIONS, LiveChange, RouteAction, rollback_target
from skewless.rollout.routes import Route, RoutingTable
from skewless.serving.monitoring_policy import MonitoringPolicy
from skewless.serving.outcome_terms import OutcomeTerms

SET_OUTCOME_TERMS = "set_outcome_terms"
_SHORT = 12


class Endpoints(RegistryPart):
    """The part of the registry that knows endpoints."""

    def create_endpoint(
        self,
        name: str,
        *,
        description: str,
        bundle: Digest,
        actor: str,
        reason: str,
        detail: Mapping[str, Any] | None = None,
    ) -> EndpointRecord:
        """A new endpoint with a live bundle; `detail` is added to the audit event.

        Raises InvalidDefinition for a bad name, Conflict where the name is taken or the bundle retired, NotFound where
        the bundle is not registered.
        """
        route = Route(name, description, bundle)
        with self._transactions.write() as session:
            if session.get(EndpointRow, name) is not None:
                raise Conflict(
                    f"endpoint `{name}` exists already",
                    hint=f"`skewless rollout promote {name} --bundle {bundle[:_SHORT]}` changes its live bundle",
                )
            now = self._clock()
            session.add(EndpointRow(name=name, description=description, created_time=now, version=1, sticky_by=None))
            session.flush()
            hold_bundles(session, [bundle])
            row = endpoint_row(session, name)
            write_route(session, row, None, route, now=now)
            self._audit_change(
                session, None, route, action=RouteAction.CREATE, actor=actor, reason=reason, detail=detail or {}
            )
            return endpoint_record(endpoint_row(session, name))

    def change_route(
        self,
        endpoint: str,
        change: Callable[[Route], Route],
        *,
        action: RouteAction,
        actor: str,
        reason: str,
        detail: Mapping[str, Any] | None = None,
        expected_version: int | None = None,
        progress: Mapping[str, Any] | None = None,
    ) -> EndpointRecord:
        """Make the route what `change`, a pure function, makes of it; a change that changes nothing is not audited.

        `detail` is added to the audit event, whose own is `from` and `to` (the live bundles), `before` and `after`
        (the routes) and `version`. `progress` is kept in the same transaction (see `RolloutProgress`).
        With `expected_version` it refuses with Conflict when the endpoint changed since that version was read.
        Raises NotFound for an unknown endpoint or bundle, Conflict for a retired one, and what `change` raises.
        """
        with self._transactions.write() as session:
            row = endpoint_row(session, endpoint)
            refuse_other_version(row, expected_version)
            before = route_of(row)
            after = change(before)
            if replace(after, version=before.version) == before:
                return endpoint_record(row)
            assert (after.endpoint, after.version) == (endpoint, before.version + 1), "a change is one version of one"
            # The version decides who wins, so its row is written first.
            row.version, row.description = after.version, after.description
            session.flush()
            hold_bundles(session, after.bundles())
            write_route(session, row, before, after, now=self._clock(), progress=progress)
            self._audit_change(session, before, after, action=action, actor=actor, reason=reason, detail=detail or {})
            return endpoint_record(endpoint_row(session, endpoint))

    def set_live(
        self, endpoint: str, bundle: Digest, *, actor: str, reason: str, expected_version: int | None = None
    ) -> EndpointRecord:
        """Make `bundle` the endpoint's live one; changes nothing where it is live already. Raises as `change_route`."""
        return self.change_route(
            endpoint,
            lambda route: changes.promote(route, bundle),
            action=RouteAction.PROMOTE,
            actor=actor,
            reason=reason,
            expected_version=expected_version,
        )

    def rollback(
        self,
        endpoint: str,
        *,
        actor: str,
        reason: str,
        detail: Mapping[str, Any] | None = None,
        expected_version: int | None = None,
    ) -> EndpointRecord:
        """Undo the latest change of the live bundle that is not yet undone (see `rollout/history.py`).

        Raises Conflict where there is nothing to go back to, or the bundle to go back to is retired; otherwise as
        `change_route`.
        """
        with self._transactions.read() as session:
            row = endpoint_row(session, endpoint)
            refuse_other_version(row, expected_version)
            version, history = row.version, _live_changes(session, endpoint)
            retired = {Digest(each) for each in session.scalars(_retired(history))}

        def undo(route: Route) -> Route:
            undone = changes.rollback(route, history)
            return replace(undone, previous=None) if undone.previous in retired else undone

        return self.change_route(
            endpoint, undo, action=RouteAction.ROLLBACK, actor=actor, reason=reason, detail=detail,
            expected_version=version,
        )  # fmt: skip

    def set_outcome_terms(self, endpoint: str, terms: OutcomeTerms, *, actor: str, reason: str) -> EndpointRecord:
        """Declare when outcomes are late and how far back one told by entity looks; the route stays as it is.

        Terms that change nothing are not audited. Raises NotFound for an unknown endpoint.
        """
        with self._transactions.write() as session:
            row = endpoint_row(session, endpoint)
            before = endpoint_record(row)
            if before.terms == terms:
                return before
            row.label_horizon_us, row.outcome_window_us = terms.label_horizon_us, terms.outcome_window_us
            # Other names than a route's `before` and `after`, which readers of a route's past look for.
            facts = {"terms_before": before.terms.to_json(), "terms": terms.to_json(), "version": row.version}
            self._audit(session, f"endpoint/{endpoint}", SET_OUTCOME_TERMS, actor=actor, reason=reason, detail=facts)
            return endpoint_record(endpoint_row(session, endpoint))

    def set_monitoring(self, endpoint: str, policy: MonitoringPolicy, *, actor: str, reason: str) -> EndpointRecord:
        """Declare what the monitor is asked for; gateways read their part of it in the route. Raises as `change_route`.

        A policy that changes nothing is not audited.
        """
        return self.change_route(
            endpoint,
            lambda route: changes.set_monitoring(route, policy),
            action=RouteAction.SET_MONITORING,
            actor=actor,
            reason=reason,
        )

    def rollback_target(self, endpoint: str) -> Digest:
        """The bundle that `rollback` would make live. Raises as `rollback` does."""
        with self._transactions.read() as session:
            route = route_of(endpoint_row(session, endpoint))
            return changes.rollback(route, _live_changes(session, endpoint)).live

    def live_changes(self, endpoint: str) -> tuple[LiveChange, ...]:
        """What an endpoint's live bundles were and why, oldest first. Raises NotFound for an unknown endpoint."""
        with self._transactions.read() as session:
            endpoint_row(session, endpoint)
            return _live_changes(session, endpoint)

    def endpoints(self) -> tuple[EndpointRecord, ...]:
        """Every endpoint, by name."""
        with self._transactions.read() as session:
            return tuple(endpoint_record(row) for row in session.scalars(_endpoints_with_routes()).unique())

    def endpoint(self, name: str) -> EndpointRecord:
        """One endpoint. Raises NotFound, which lists the endpoints that exist."""
        with self._transactions.read() as session:
            return endpoint_record(endpoint_row(session, name))

    def routes(self) -> RoutingTable:
        """The routing table as it is now: what gateways follow."""
        return RoutingTable(tuple(endpoint.route for endpoint in self.endpoints()))

    def _audit_change(
        self,
        session: Session,
        before: Route | None,
        after: Route,
        *,
        action: RouteAction,
        actor: str,
        reason: str,
        detail: Mapping[str, Any],
    ) -> None:
        facts = {
            **detail,
            "from": before.live if before is not None else None,
            "to": after.live,
            "version": after.version,
            "before": before.to_json() if before is not None else None,
            "after": after.to_json(),
        }
        self._audit(session, f"endpoint/{after.endpoint}", action, actor=actor, reason=reason, detail=facts)


def endpoint_row(session: Session, name: str) -> EndpointRow:
    """An endpoint's row, its routes, experiment and their bundles loaded anew. Raises NotFound, with what exists."""
    wanted = _endpoints_with_routes().where(EndpointRow.name == name)
    row = session.scalars(wanted.execution_options(populate_existing=True)).unique().one_or_none()
    if row is None:
        known = tuple(session.scalars(select(EndpointRow.name).order_by(EndpointRow.name)))
        raise NotFound("endpoint", name, known=known, hint="`skewless endpoint create` makes one")
    return row


def refuse_other_version(row: EndpointRow, expected: int | None) -> None:
    """Return where the endpoint is at the expected version, or none is. Raises Conflict."""
    if expected is not None and row.version != expected:
        raise Conflict(
            f"endpoint `{row.name}` is at version {row.version}; the change was meant for version {expected}",
            hint=CHANGED_MEANWHILE,
        )


def rollback_targets(session: Session) -> frozenset[Digest]:
    """What a rollback of each endpoint would make live, where there is one."""
    names = session.scalars(select(EndpointRow.name)).all()
    targets = (rollback_target(_live_changes(session, name)) for name in names)
    return frozenset(target for target in targets if target is not None)


def _endpoints_with_routes() -> Select[EndpointRow]:
    # One joined statement, so that versions and routes are of one moment at every isolation level.
    routes = joinedload(EndpointRow.routes).joinedload(RouteRow.bundle)
    arms = joinedload(EndpointRow.experiment).joinedload(ExperimentRow.arms).joinedload(ArmRow.bundle)
    return select(EndpointRow).options(routes, arms).order_by(EndpointRow.name)


def _live_changes(session: Session, endpoint: str) -> tuple[LiveChange, ...]:
    wanted = (
        select(AuditEventRow)
        .where(AuditEventRow.subject == f"endpoint/{endpoint}", AuditEventRow.action.in_(sorted(LIVE_ACTIONS)))
        .order_by(AuditEventRow.number)
    )
    return tuple(LiveChange(RouteAction(row.action), row.detail["to"]) for row in session.scalars(wanted))


def _retired(history: tuple[LiveChange, ...]) -> Select[str]:
    lived = {change.bundle for change in history}
    return select(BundleRow.digest).where(BundleRow.digest.in_(lived), BundleRow.retired_time.is_not(None))
