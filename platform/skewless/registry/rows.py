"""Rows into records and back."""

from skewless.canonical_json import Digest
from skewless.registry.records import AuditEvent, BundleRecord, EndpointRecord
from skewless.registry.tables import AuditEventRow, BundleRow, EndpointRow
from skewless.rollout.routes import Route
from skewless.timestamps import Micros


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
    )


def endpoint_record(row: EndpointRow) -> EndpointRecord:
    """The record of an endpoint's row, whose routes and their bundles are loaded."""
    roles = {route.role: route for route in row.routes}
    live, canary, shadow = roles["live"], roles.get("canary"), roles.get("shadow")
    route = Route(
        endpoint=row.name,
        description=row.description,
        live=Digest(live.bundle_digest),
        canary=Digest(canary.bundle_digest) if canary else None,
        canary_share=canary.share if canary else 0.0,
        shadow=Digest(shadow.bundle_digest) if shadow else None,
        version=row.version,
    )
    return EndpointRecord(route, Micros(row.created_time), live.bundle.name, Micros(live.changed_time))


def audit_event(row: AuditEventRow) -> AuditEvent:
    """The record of an audit event's row."""
    return AuditEvent(row.number, Micros(row.time), row.actor, row.action, row.subject, row.reason, row.detail)
