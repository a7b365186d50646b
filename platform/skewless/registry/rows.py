"""Rows into records and back."""

from skewless.canonical_json import Digest
from skewless.registry.records import AuditEvent, BundleRecord, DatasetRecord, EndpointRecord, EvaluationRecord
from skewless.registry.tables import (
    ArmRow,
    AuditEventRow,
    BundleRow,
    DatasetRow,
    EndpointRow,
    EvaluationRow,
    ExperimentRow,
    RouteRow,
)
from skewless.rollout.routes import Arm, Canary, Experiment, ExperimentKind, Role, Route, Shadow
from skewless.serving.monitoring_policy import MonitoringPolicy
from skewless.serving.outcome_terms import OUTCOME_WINDOW_US, OutcomeTerms
from skewless.timestamps import Micros

PREVIOUS = "previous"
"""What a rollback returns to. It answers nobody, so it is no role of an answer (`Role`), but it has a row."""


def bundle_row(record: BundleRecord) -> BundleRow:
    """A new row of a bundle's record."""
    return BundleRow(
        digest=record.digest,
        name=record.name,
        created_time=record.created_time,
        artifact=record.artifact,
        contract_digest=record.contract_digest,
        transform_digest=record.transform_digest,
        signature=dict(record.signature),
        metrics=dict(record.metrics),
        provenance=dict(record.provenance),
        retired_time=None,
    )


def bundle_record(row: BundleRow) -> BundleRecord:
    """The record of a bundle's row."""
    return BundleRecord(
        digest=Digest(row.digest),
        name=row.name,
        created_time=Micros(row.created_time),
        artifact=row.artifact,
        contract_digest=Digest(row.contract_digest),
        transform_digest=Digest(row.transform_digest),
        signature=row.signature,
        metrics=row.metrics,
        provenance=row.provenance,
        retired_time=_micros(row.retired_time),
    )


def role_bundles(route: Route) -> dict[str, tuple[Digest, float]]:
    """The bundle and the share of each role that a route fills, by what the role is called in its row."""
    roles = {Role.LIVE.value: (route.live, 1.0)}
    if route.previous is not None:
        roles[PREVIOUS] = (route.previous, 0.0)
    if route.canary is not None:
        roles[Role.CANARY.value] = (route.canary.bundle, route.canary.share)
    if route.shadow is not None:
        roles[Role.SHADOW.value] = (route.shadow.bundle, route.shadow.share)
    return roles


def route_of(row: EndpointRow) -> Route:
    """The route of an endpoint's row, whose routes and experiment are loaded."""
    roles = {route.role: route for route in row.routes}
    canary, shadow, previous = roles.get(Role.CANARY), roles.get(Role.SHADOW), roles.get(PREVIOUS)
    return Route(
        endpoint=row.name,
        description=row.description,
        live=Digest(roles[Role.LIVE].bundle_digest),
        previous=Digest(previous.bundle_digest) if previous else None,
        canary=Canary(Digest(canary.bundle_digest), canary.share) if canary else None,
        shadow=Shadow(Digest(shadow.bundle_digest), shadow.share) if shadow else None,
        experiment=_experiment(row.experiment) if row.experiment else None,
        version=row.version,
        sticky_by=tuple(row.sticky_by or ()),
        monitoring=MonitoringPolicy.from_json(row.monitoring or {}),
    )


def endpoint_record(row: EndpointRow) -> EndpointRecord:
    """The record of an endpoint's row, whose routes, experiment and their bundles are loaded."""
    live = next(route for route in row.routes if route.role == Role.LIVE)
    named: list[RouteRow | ArmRow] = [*row.routes, *(row.experiment.arms if row.experiment else ())]
    names = {Digest(each.bundle_digest): each.bundle.name for each in named}
    terms = OutcomeTerms(row.label_horizon_us, row.outcome_window_us or OUTCOME_WINDOW_US)
    return EndpointRecord(route_of(row), Micros(row.created_time), Micros(live.changed_time), names, terms)


def experiment_row(endpoint: str, experiment: Experiment, *, started_time: Micros) -> ExperimentRow:
    """New rows of an experiment that starts now, with its arms."""
    return ExperimentRow(
        endpoint_name=endpoint,
        name=experiment.name,
        kind=experiment.kind.value,
        traffic=experiment.traffic,
        success=experiment.success,
        maximise=experiment.maximise,
        exploration_min=experiment.exploration_min,
        salt=experiment.salt,
        layout=[list(run) for run in experiment.layout],
        half_life_s=experiment.half_life_s,
        started_time=started_time,
        ended_time=None,
        arms=[
            ArmRow(name=arm.name, position=position, bundle_digest=arm.bundle, share=arm.share)
            for position, arm in enumerate(experiment.arms)
        ],
    )


def dataset_row(record: DatasetRecord) -> DatasetRow:
    """A new row of a data set's record."""
    return DatasetRow(
        digest=record.digest,
        name=record.name,
        rows=record.rows,
        start_time=record.start,
        end_time=record.end,
        query=record.query,
        created_time=record.created_time,
    )


def dataset_record(row: DatasetRow) -> DatasetRecord:
    """The record of a data set's row."""
    start, end = _micros(row.start_time), _micros(row.end_time)
    return DatasetRecord(Digest(row.digest), row.name, row.rows, start, end, row.query, Micros(row.created_time))


def evaluation_record(row: EvaluationRow) -> EvaluationRecord:
    """The record of an evaluation's row."""
    bundle, dataset = Digest(row.bundle_digest), Digest(row.dataset_digest)
    return EvaluationRecord(bundle, dataset, row.metrics, row.slices, Micros(row.created_time))


def audit_event(row: AuditEventRow) -> AuditEvent:
    """The record of an audit event's row."""
    return AuditEvent(row.number, Micros(row.time), row.actor, row.action, row.subject, row.reason, row.detail)


def _experiment(row: ExperimentRow) -> Experiment:
    return Experiment(
        name=row.name,
        kind=ExperimentKind(row.kind),
        arms=tuple(Arm(arm.name, Digest(arm.bundle_digest), arm.share) for arm in row.arms),
        traffic=row.traffic,
        success=row.success,
        maximise=row.maximise,
        exploration_min=row.exploration_min,
        salt=row.salt,
        layout=tuple((arm, slots) for arm, slots in row.layout),
        half_life_s=row.half_life_s,
    )


def _micros(moment: int | None) -> Micros | None:
    return None if moment is None else Micros(moment)
