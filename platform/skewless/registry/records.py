"""What the registry keeps, as plain immutable records; rows of SQLAlchemy never leave the package."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from skewless.canonical_json import Digest
from skewless.rollout.routes import Route
from skewless.timestamps import Micros, format_timestamp


@dataclass(frozen=True, slots=True)
class BundleRecord:
    """One registered bundle. `artifact` is its location in the artifact store, relative to the store."""

    digest: Digest
    name: str
    created_time: Micros
    artifact: str
    contract_digest: Digest
    transform_digest: Digest
    signature: Mapping[str, Any]
    metrics: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data, with times as RFC 3339 text."""
        return {
            "digest": self.digest,
            "name": self.name,
            "created_time": format_timestamp(self.created_time),
            "artifact": self.artifact,
            "contract_digest": self.contract_digest,
            "transform_digest": self.transform_digest,
            "signature": dict(self.signature),
            "metrics": dict(self.metrics),
            "provenance": dict(self.provenance),
        }


@dataclass(frozen=True, slots=True)
class EndpointRecord:
    """One endpoint, its route, the name of its live bundle, and since when that one is live."""

    route: Route
    created_time: Micros
    live_name: str
    live_since: Micros

    @property
    def name(self) -> str:
        """The endpoint's name."""
        return self.route.endpoint

    def to_json(self) -> dict[str, Any]:
        """Plain data, with times as RFC 3339 text."""
        return {
            **self.route.to_json(),
            "created_time": format_timestamp(self.created_time),
            "live_name": self.live_name,
            "live_since": format_timestamp(self.live_since),
        }


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One change of the registry: who did what to which subject, when and why.

    `subject` is `endpoint/<name>`, `bundle/<digest>` or `features/<project>`. Events are numbered; later ones have
    larger numbers.
    """

    number: int
    time: Micros
    actor: str
    action: str
    subject: str
    reason: str
    detail: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain data, with the time as RFC 3339 text."""
        return {
            "number": self.number,
            "time": format_timestamp(self.time),
            "actor": self.actor,
            "action": self.action,
            "subject": self.subject,
            "reason": self.reason,
            "detail": dict(self.detail),
        }
