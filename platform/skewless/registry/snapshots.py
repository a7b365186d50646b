"""Registry snapshots: what each project's Feast registry says, compiled, so that readers need no Feast.

One row per project holds the newest one. Its document is plain JSON:

    registry   the CompiledRegistry: a contract or a refusal for each feature service, sizes of entity hashes
    findings   what the registration checks found without refusing it
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, undefer

from skewless.canonical_json import Digest, digest
from skewless.errors import InvalidDefinition, NotFound
from skewless.features.compiled_registry import CompiledRegistry
from skewless.features.feature_checks import Finding, Severity
from skewless.registry.snapshot_heads import SnapshotHead, SnapshotHeads, head_of
from skewless.registry.tables import FeatureSnapshotRow
from skewless.registry.transactions import write_audit_event
from skewless.timestamps import Micros

_APPLY_HINT = "`skewless apply` and `skewless features compile` make one"


@dataclass(frozen=True, slots=True)
class FeatureSnapshot:
    """One project's compiled registry. `findings` are warnings: definitions with errors are not kept."""

    head: SnapshotHead
    registry: CompiledRegistry
    findings: tuple[Finding, ...] = ()

    def document(self) -> dict[str, Any]:
        """Plain data of the content, whose digest is the head's."""
        return _document(self.registry, self.findings)

    @classmethod
    def of(cls, head: SnapshotHead, document: object) -> "FeatureSnapshot":
        """A snapshot from its stored parts. Raises InvalidDefinition where they do not belong together."""
        if digest(document) != head.digest:
            raise InvalidDefinition(
                f"the registry snapshot of project `{head.project}`, version {head.version}, is not what was stored: "
                f"its digest is {digest(document)[:12]}, not {head.digest[:12]}",
                hint="run `skewless features compile`",
            )
        try:
            assert isinstance(document, Mapping), "only documents of this module have a digest"
            findings = tuple(
                Finding(Severity(each["severity"]), each["code"], each["message"], each["hint"])
                for each in document["findings"]
            )
            return cls(head, CompiledRegistry.from_json(document["registry"]), findings)
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidDefinition(
                f"the registry snapshot of project `{head.project}`, version {head.version}, cannot be read: {error!r}",
                hint="it was written by another version of Skewless; run `skewless features compile`",
            ) from error


class FeatureSnapshots(SnapshotHeads):
    """The snapshots on one engine, heads and content. Threads may share it; errors are those of `SnapshotHeads`."""

    def newest(self, project: str) -> FeatureSnapshot:
        """A project's snapshot. Raises NotFound, and InvalidDefinition for one that another version wrote."""
        with self.transactions.read() as session:
            row = session.get(FeatureSnapshotRow, project, options=[undefer(FeatureSnapshotRow.document)])
            if row is None:
                known = tuple(session.scalars(select(FeatureSnapshotRow.project).order_by(FeatureSnapshotRow.project)))
                raise NotFound("registry snapshot of project", project, known=known, hint=_APPLY_HINT)
            head, document = head_of(row), row.document
        return FeatureSnapshot.of(head, document)

    def store(
        self, registry: CompiledRegistry, *, findings: Sequence[Finding], source: Digest, actor: str, reason: str
    ) -> FeatureSnapshot:
        """Make this the project's snapshot, checked now. Only a change of content counts and is audited."""
        with self.transactions.write() as session:
            head = keep_snapshot(
                session, registry, findings=findings, source=source, time=self.clock(), actor=actor, reason=reason
            )
        return FeatureSnapshot(head, registry, tuple(findings))


def keep_snapshot(
    session: Session,
    registry: CompiledRegistry,
    *,
    findings: Sequence[Finding],
    source: Digest,
    time: Micros,
    actor: str,
    reason: str,
) -> SnapshotHead:
    """Make this its project's snapshot in a transaction that changes more; as `FeatureSnapshots.store`."""
    document = _document(registry, findings)
    made = digest(document)
    row = session.get(FeatureSnapshotRow, registry.project)
    before = None if row is None else Digest(row.digest)
    if row is None:
        row = FeatureSnapshotRow(project=registry.project, version=1, digest=made, compiled_at=time, document=document)
        session.add(row)
    elif before != made:
        row.version += 1
        row.digest, row.compiled_at, row.document = made, time, document
    row.source, row.checked_at = source, time
    session.flush()
    if before != made:
        _audit(session, row, before=before, actor=actor, reason=reason)
    return head_of(row)


def _audit(session: Session, row: FeatureSnapshotRow, *, before: Digest | None, actor: str, reason: str) -> None:
    write_audit_event(
        session,
        f"features/{row.project}",
        "compile",
        time=Micros(row.compiled_at),
        actor=actor,
        reason=reason,
        detail={"from": before, "to": row.digest, "version": row.version},
    )


def _document(registry: CompiledRegistry, findings: Sequence[Finding]) -> dict[str, Any]:
    return {
        "registry": registry.to_json(),
        "findings": [
            {"severity": each.severity.value, "code": each.code, "message": each.message, "hint": each.hint}
            for each in findings
        ],
    }
