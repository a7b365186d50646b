"""A changed route into the rows of its endpoint: roles, the running experiment, and the canary's progress."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from skewless.errors import Conflict, InvalidDefinition
from skewless.registry.rows import experiment_row, role_bundles
from skewless.registry.tables import EndpointRow, ExperimentRow, RolloutProgressRow, RouteRow
from skewless.rollout.routes import Experiment, Route
from skewless.serving.monitoring_policy import MonitoringPolicy
from skewless.timestamps import Micros


def write_route(
    session: Session,
    row: EndpointRow,
    before: Route | None,
    after: Route,
    *,
    now: Micros,
    progress: Mapping[str, Any] | None = None,
) -> None:
    """Make the rows of a loaded endpoint say `after`; `before` is what they say, None for a new endpoint.

    Raises Conflict for an experiment whose name the endpoint has used before, InvalidDefinition for one whose arms
    become others while it runs.
    """
    row.sticky_by = list(after.sticky_by) or None
    row.monitoring = None if after.monitoring == MonitoringPolicy() else after.monitoring.to_json()
    _write_roles(session, row, after, now=now)
    _write_experiment(session, row, before.experiment if before is not None else None, after.experiment, now=now)
    if before is not None:
        _keep_progress(session, before, after)
    if progress is not None:
        write_progress(session, after, progress, now=now)
    session.flush()


def write_progress(session: Session, route: Route, state: Mapping[str, Any] | None, *, now: Micros) -> None:
    """Keep how far the canary of `route` has come; None forgets it. Raises Conflict where it has no canary."""
    known = session.get(RolloutProgressRow, route.endpoint)
    if state is None:
        if known is not None:
            session.delete(known)
        return
    if route.canary is None:
        raise Conflict(
            f"endpoint `{route.endpoint}` has no canary whose progress could be kept",
            hint="it was promoted, aborted or rolled back; start another",
        )
    if known is None:
        known = RolloutProgressRow(endpoint_name=route.endpoint)
        session.add(known)
    known.state, known.changed_time = dict(state), now


def _write_roles(session: Session, row: EndpointRow, after: Route, *, now: Micros) -> None:
    known = {route.role: route for route in row.routes}
    wanted = role_bundles(after)
    for role in known.keys() - wanted.keys():
        session.delete(known[role])
    for role, (bundle, share) in wanted.items():
        if role not in known:
            given = {"endpoint_name": row.name, "role": role, "bundle_digest": bundle, "share": share}
            session.add(RouteRow(**given, changed_time=now))
            continue
        if known[role].bundle_digest != bundle:
            known[role].bundle_digest, known[role].changed_time = bundle, now
        known[role].share = share


def _write_experiment(
    session: Session, row: EndpointRow, before: Experiment | None, after: Experiment | None, *, now: Micros
) -> None:
    if before == after:
        return
    running = row.experiment
    if running is not None and after is not None and running.name == after.name:
        _write_shares(running, after)
        return
    if running is not None:
        running.ended_time = now
        # The index lets one run: the end is written before another starts.
        session.flush()
    if after is not None:
        _refuse_used_name(session, row.name, after.name)
        session.add(experiment_row(row.name, after, started_time=now))


def _write_shares(running: ExperimentRow, after: Experiment) -> None:
    arms = [(arm.name, arm.bundle_digest) for arm in running.arms]
    if [(arm.name, arm.bundle) for arm in after.arms] != arms:
        raise InvalidDefinition(
            f"experiment `{after.name}` runs with the arms {_listed(arms)}; it cannot go on with others",
            hint="what was counted is of those arms: abort it, and start an experiment of another name",
        )
    for row, arm in zip(running.arms, after.arms, strict=True):
        row.share = arm.share
    running.kind, running.traffic = after.kind.value, after.traffic
    running.success, running.maximise = after.success, after.maximise
    running.exploration_min, running.salt = after.exploration_min, after.salt
    running.layout, running.half_life_s = [list(run) for run in after.layout], after.half_life_s


def _refuse_used_name(session: Session, endpoint: str, name: str) -> None:
    used = select(exists().where(ExperimentRow.endpoint_name == endpoint, ExperimentRow.name == name))
    if session.scalar(used):
        raise Conflict(
            f"endpoint `{endpoint}` had an experiment `{name}` before, whose counts are kept",
            hint="give the experiment another name",
        )


def _keep_progress(session: Session, before: Route, after: Route) -> None:
    """Progress is of one canary: it ends with it."""
    gone = before.canary is not None and (after.canary is None or after.canary.bundle != before.canary.bundle)
    if gone:
        write_progress(session, after, None, now=Micros(0))


def _listed(arms: list[tuple[str, str]]) -> str:
    return ", ".join(f"`{name}` ({bundle[:12]})" for name, bundle in arms)
