"""Versions of a project's feature definitions: what was declared, what changed, who applied it when and why.

Feast's registry may be another database than this one, so that both cannot change in one transaction. A version is
written first (`begin`), then Feast's registry is changed in a transaction of its own, then all that follows from it is
kept here in one more (`finish`). Whatever a killed command leaves is told apart by the fingerprint of Feast's registry:

    as it was before   → nothing was registered: the version is abandoned
    any other          → it was registered: what follows from it is made up, and the version is applied
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, undefer

from skewless.canonical_json import Digest
from skewless.errors import Conflict, NotFound
from skewless.features.compiled_registry import CompiledRegistry
from skewless.features.definition_metadata import DefinitionSet
from skewless.features.feature_checks import Finding
from skewless.registry.definition_tables import DefinitionVersionRow
from skewless.registry.snapshot_heads import SnapshotHead
from skewless.registry.snapshots import keep_snapshot
from skewless.registry.transactions import RegistryPart, check_who_and_why, write_audit_event
from skewless.timestamps import Micros, format_timestamp


class VersionState(StrEnum):
    """How far a version has come."""

    APPLYING = "applying"
    APPLIED = "applied"
    ABANDONED = "abandoned"
    """Its command ended before anything was registered."""


@dataclass(frozen=True, slots=True)
class DefinitionHead:
    """Which version a project has, without its content. Numbers grow; one may be left out."""

    number: int
    project: str
    digest: Digest
    state: VersionState
    actor: str
    reason: str
    started_time: Micros
    applied_time: Micros | None
    before: Digest
    """The fingerprint of Feast's registry that the change began from."""

    def to_json(self) -> dict[str, Any]:
        """Plain data, with times as RFC 3339 text."""
        return {
            "number": self.number,
            "project": self.project,
            "digest": self.digest,
            "state": self.state.value,
            "actor": self.actor,
            "reason": self.reason,
            "started_time": format_timestamp(self.started_time),
            "applied_time": None if self.applied_time is None else format_timestamp(self.applied_time),
        }


@dataclass(frozen=True, slots=True)
class DefinitionVersion:
    """One version with its content; `plan` is what it changed, as plain data, empty where nobody planned it."""

    head: DefinitionHead
    definitions: DefinitionSet
    plan: Mapping[str, Any]

    @property
    def number(self) -> int:
        """Its number."""
        return self.head.number


@dataclass(frozen=True, slots=True)
class Compiled:
    """What follows from registered definitions. `source` is the fingerprint of the registry they were read from."""

    definitions: DefinitionSet
    registry: CompiledRegistry
    findings: Sequence[Finding]
    source: Digest


class Definitions(RegistryPart):
    """The versions on one engine. Threads and processes may share it.

    Every method raises Unavailable when the database does not answer, and InvalidDefinition for a version that was
    written by another version of Skewless.
    """

    def current(self, project: str | None = None) -> DefinitionVersion | None:
        """What is in force for a project, or (None) what was applied last of any; None where nothing was."""
        wanted = _applied(project).options(*_CONTENT).limit(1)
        with self._transactions.read() as session:
            row = session.scalars(wanted).first()
            return None if row is None else _version(row)

    def head(self, project: str | None = None) -> DefinitionHead | None:
        """As `current`, without its content: for whoever looks every few seconds."""
        with self._transactions.read() as session:
            row = session.scalars(_applied(project).limit(1)).first()
            return None if row is None else _head(row)

    def version(self, number: int) -> DefinitionVersion:
        """A version by its number, in any state. Raises NotFound."""
        with self._transactions.read() as session:
            row = session.get(DefinitionVersionRow, number, options=_CONTENT)
            if row is None:
                raise NotFound("version of definitions", str(number), hint="`skewless features history` lists them")
            return _version(row)

    def versions(self, project: str | None = None, *, limit: int = 20) -> tuple[DefinitionHead, ...]:
        """The newest versions of a project, or of all, newest first, in any state; without their content."""
        wanted = select(DefinitionVersionRow).order_by(DefinitionVersionRow.number.desc()).limit(limit)
        if project is not None:
            wanted = wanted.where(DefinitionVersionRow.project == project)
        with self._transactions.read() as session:
            return tuple(_head(row) for row in session.scalars(wanted))

    def unfinished(self, project: str) -> tuple[DefinitionHead, ...]:
        """Versions that were begun and neither finished nor abandoned, oldest first."""
        wanted = (
            select(DefinitionVersionRow)
            .where(
                DefinitionVersionRow.project == project,
                DefinitionVersionRow.state == VersionState.APPLYING.value,
            )
            .order_by(DefinitionVersionRow.number)
        )
        with self._transactions.read() as session:
            return tuple(_head(row) for row in session.scalars(wanted))

    def begin(
        self, definitions: DefinitionSet, *, plan: Mapping[str, Any], before: Digest, actor: str, reason: str
    ) -> int:
        """Write down what is about to be registered; its number. Raises InvalidRequest for an unusable reason."""
        check_who_and_why(actor, reason)
        with self._transactions.write() as session:
            row = _row(definitions, plan, before, self._clock(), actor, reason)
            session.add(row)
            session.flush()
            return row.number

    def abandon(self, number: int) -> None:
        """Note that nothing of a version was registered. Does nothing where it was finished meanwhile."""
        with self._transactions.write() as session:
            row = session.get(DefinitionVersionRow, number, with_for_update=True)
            if row is not None and row.state == VersionState.APPLYING.value:
                row.state = VersionState.ABANDONED.value

    def finish(self, number: int, compiled: Compiled, *, actor: str, reason: str) -> SnapshotHead:
        """Keep what follows from a version's registration: registry snapshot, version in force, audit event.

        All of it or nothing; again, it changes nothing. A version that says what is in force already is dropped.
        """
        with self._transactions.write() as session:
            row = session.get(DefinitionVersionRow, number, with_for_update=True)
            head = self._keep_snapshot(session, compiled, actor, reason)
            if row is not None and row.state != VersionState.APPLIED.value:
                self._put_in_force(session, row, compiled.definitions)
            return head

    def follow(
        self, compiled: Compiled, *, plan: Mapping[str, Any], after: int | None = None, actor: str, reason: str
    ) -> SnapshotHead:
        """As `finish`, for definitions that somebody else registered, such as a plain `feast apply`.

        `after` is the number of the version that was in force when all was read, 0 where none was; None: any. Raises
        Conflict, with nothing changed, where another is in force now: its streams would be lost, which are not Feast's.
        """
        with self._transactions.write() as session:
            last = session.scalars(_applied(compiled.definitions.project).limit(1)).first()
            if after is not None and (0 if last is None else last.number) != after:
                raise Conflict(
                    "definitions were applied since they were read; nothing was changed",
                    hint="run it again: the registry snapshot may say all of it already",
                )
            head = self._keep_snapshot(session, compiled, actor, reason)
            row = _row(compiled.definitions, plan, compiled.source, self._clock(), actor, reason)
            session.add(row)
            session.flush()
            self._put_in_force(session, row, compiled.definitions)
            return head

    def _keep_snapshot(self, session: Session, compiled: Compiled, actor: str, reason: str) -> SnapshotHead:
        return keep_snapshot(
            session,
            compiled.registry,
            findings=compiled.findings,
            source=compiled.source,
            time=self._clock(),
            actor=actor,
            reason=reason,
        )

    def _put_in_force(self, session: Session, row: DefinitionVersionRow, definitions: DefinitionSet) -> None:
        """Make a version the project's newest, as it turned out: others may have registered more meanwhile."""
        last = session.scalars(_applied(row.project).limit(1)).first()
        made = definitions.digest
        if last is not None and last.digest == made:
            session.delete(row)
            return
        row.digest, row.document = made, definitions.to_json()
        row.state, row.applied_time = VersionState.APPLIED.value, self._clock()
        write_audit_event(
            session,
            f"definitions/{row.project}",
            "apply",
            time=Micros(row.applied_time),
            actor=row.actor,
            reason=row.reason,
            detail={
                "from": None if last is None else last.digest,
                "to": row.digest,
                "number": row.number,
                "changes": row.plan.get("changes", []),
            },
        )


_CONTENT = (undefer(DefinitionVersionRow.document), undefer(DefinitionVersionRow.plan))


def _applied(project: str | None) -> Any:
    """Versions that were applied, the one in force first."""
    wanted = (
        select(DefinitionVersionRow)
        .where(DefinitionVersionRow.state == VersionState.APPLIED.value)
        .order_by(DefinitionVersionRow.applied_time.desc(), DefinitionVersionRow.number.desc())
    )
    return wanted if project is None else wanted.where(DefinitionVersionRow.project == project)


def _row(
    definitions: DefinitionSet, plan: Mapping[str, Any], before: Digest, now: Micros, actor: str, reason: str
) -> DefinitionVersionRow:
    return DefinitionVersionRow(
        project=definitions.project,
        state=VersionState.APPLYING.value,
        digest=definitions.digest,
        before=before,
        actor=actor,
        reason=reason,
        started_time=now,
        applied_time=None,
        document=definitions.to_json(),
        plan=dict(plan),
    )


def _head(row: DefinitionVersionRow) -> DefinitionHead:
    return DefinitionHead(
        number=row.number,
        project=row.project,
        digest=Digest(row.digest),
        state=VersionState(row.state),
        actor=row.actor,
        reason=row.reason,
        started_time=Micros(row.started_time),
        applied_time=None if row.applied_time is None else Micros(row.applied_time),
        before=Digest(row.before),
    )


def _version(row: DefinitionVersionRow) -> DefinitionVersion:
    return DefinitionVersion(_head(row), DefinitionSet.from_json(row.document), row.plan)
