"""What the registry keeps, as plain immutable records; rows of SQLAlchemy never leave the package."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from skewless.bundles.bundle import Bundle, signature_json
from skewless.canonical_json import Digest
from skewless.rollout.routes import Route
from skewless.serving.monitoring_policy import MonitoringPolicy
from skewless.serving.outcome_terms import OutcomeTerms
from skewless.timestamps import Micros, format_timestamp


@dataclass(frozen=True, slots=True)
class BundleRecord:
    """One registered bundle. `artifact` is its location in the artifact store, relative to the store.

    `retired_time` is when it was given up: no route may name it from then on, and its files may be gone.
    """

    digest: Digest
    name: str
    created_time: Micros
    artifact: str
    contract_digest: Digest
    transform_digest: Digest
    signature: Mapping[str, Any]
    metrics: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    retired_time: Micros | None = None

    @classmethod
    def of(cls, bundle: Bundle, *, artifact: str, created_time: Micros) -> "BundleRecord":
        """What is recorded of a bundle that is kept at `artifact`."""
        return cls(
            digest=bundle.digest,
            name=bundle.name,
            created_time=created_time,
            artifact=artifact,
            contract_digest=bundle.contract.digest,
            transform_digest=bundle.transform.digest,
            signature=signature_json(bundle.signature),
            metrics=bundle.provenance.get("holdout", {}).get("metrics", {}),
            provenance=bundle.provenance,
        )

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
            "retired_time": _timestamp(self.retired_time),
        }


@dataclass(frozen=True, slots=True)
class EndpointRecord:
    """One endpoint and its route. `names` has the name of every bundle that the route names.

    `live_since` is when the live bundle became so.
    """

    route: Route
    created_time: Micros
    live_since: Micros
    names: Mapping[Digest, str]
    terms: OutcomeTerms = field(default_factory=OutcomeTerms)

    @property
    def name(self) -> str:
        """The endpoint's name."""
        return self.route.endpoint

    @property
    def monitoring(self) -> MonitoringPolicy:
        """What the monitor is asked for."""
        return self.route.monitoring

    @property
    def live_name(self) -> str:
        """The name of the live bundle."""
        return self.names[self.route.live]

    def to_json(self) -> dict[str, Any]:
        """Plain data, with times as RFC 3339 text."""
        return {
            **self.route.to_json(),
            "created_time": format_timestamp(self.created_time),
            "live_name": self.live_name,
            "live_since": format_timestamp(self.live_since),
            "names": dict(sorted(self.names.items())),
            "outcome_terms": self.terms.to_json(),
            "monitoring": self.monitoring.to_json(),
        }


@dataclass(frozen=True, slots=True)
class DatasetRecord:
    """One data set: what was asked for and the digest of what came back. Its rows lie elsewhere.

    `start` and `end` are the period of the questions, None where they have no time.
    """

    digest: Digest
    name: str
    rows: int
    start: Micros | None
    end: Micros | None
    query: str
    created_time: Micros

    def to_json(self) -> dict[str, Any]:
        """Plain data, with times as RFC 3339 text."""
        return {
            "digest": self.digest,
            "name": self.name,
            "rows": self.rows,
            "start": _timestamp(self.start),
            "end": _timestamp(self.end),
            "query": self.query,
            "created_time": format_timestamp(self.created_time),
        }


@dataclass(frozen=True, slots=True)
class EvaluationRecord:
    """How a bundle did on a data set: figures over all rows, and by the name of each slice."""

    bundle: Digest
    dataset: Digest
    metrics: Mapping[str, Any]
    slices: Mapping[str, Any]
    created_time: Micros

    def to_json(self) -> dict[str, Any]:
        """Plain data, with the time as RFC 3339 text."""
        return {
            "bundle": self.bundle,
            "dataset": self.dataset,
            "metrics": dict(self.metrics),
            "slices": dict(self.slices),
            "created_time": format_timestamp(self.created_time),
        }


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One change of the registry: who did what to which subject, when and why.

    `subject` is `endpoint/<name>`, `bundle/<digest>`, `dataset/<digest>`, `api-key/<name>`, `features/<project>`,
    `definitions/<project>` or the like: a kind and a name.
    Events are numbered in the order in which they were committed; a number may be left out.
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


def _timestamp(moment: Micros | None) -> str | None:
    return None if moment is None else format_timestamp(moment)
