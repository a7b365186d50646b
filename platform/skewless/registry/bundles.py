"""Registered bundles: found by digest or name, and given up when nothing refers to them any more."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, select, update
from sqlalchemy.orm import Session

from skewless.canonical_json import Digest
from skewless.errors import Conflict, InvalidDefinition, InvalidRequest, NotFound
from skewless.registry.records import BundleRecord
from skewless.registry.rows import bundle_record, bundle_row
from skewless.registry.tables import ArmRow, BundleRow, ExperimentRow, RouteRow
from skewless.registry.transactions import RegistryPart

DIGEST_PREFIX_MIN = 8
"""Hexadecimal digits by which a bundle may be called: fewer would soon be ambiguous."""
BUNDLE_NAME_PATTERN = "[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
_LISTED_MAX = 10
_SHORT = 12


class Bundles(RegistryPart):
    """The part of the registry that knows bundles."""

    def register_bundle(
        self,
        record: BundleRecord,
        *,
        actor: str = "unknown",
        reason: str = "",
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep a bundle's record. Does nothing where its digest is registered already; a retired one is back then.

        `detail` is added to the audit event, such as the checks by which the bundle was admitted.
        Raises InvalidDefinition for a name outside `BUNDLE_NAME_PATTERN`, Conflict where the digest is
        registered with another name, contract or transform, which a true digest cannot have.
        """
        if not re.fullmatch(BUNDLE_NAME_PATTERN, record.name):
            raise InvalidDefinition(
                f"{record.name!r} cannot name a bundle. Allowed: 1 to 100 letters, digits, `.`, `_` and `-`, "
                "first a letter or digit"
            )
        with self._transactions.write() as session:
            known = session.get(BundleRow, record.digest, with_for_update=True)
            if known is None:
                session.add(bundle_row(record))
            else:
                _refuse_other_content(bundle_record(known), record)
                if known.retired_time is None:
                    return
                known.retired_time = None
            facts = {**(detail or {}), "name": record.name, "artifact": record.artifact}
            self._audit(session, f"bundle/{record.digest}", "register", actor=actor, reason=reason, detail=facts)

    def bundle(self, digest_prefix: str) -> BundleRecord:
        """The bundle whose digest begins so, retired or not. Raises InvalidRequest for a prefix that is too short,
        no hexadecimal text or ambiguous, NotFound where there is none."""
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
                raise _unknown_bundle(session, digest_prefix, hint="`skewless bundle list` shows all of them")
            if len(found) > 1:
                raise InvalidRequest(
                    f"bundle `{digest_prefix}` is ambiguous: {', '.join(row.digest for row in found)}",
                    path="bundle",
                    hint="give more of the digest's digits",
                )
            return bundle_record(found[0])

    def bundles(self, name: str | None = None, *, include_retired: bool = False) -> tuple[BundleRecord, ...]:
        """Every bundle, or every one of that name, newest first; retired ones only where asked for."""
        wanted = _newest_bundles()
        if name is not None:
            wanted = wanted.where(BundleRow.name == name)
        if not include_retired:
            wanted = wanted.where(BundleRow.retired_time.is_(None))
        with self._transactions.read() as session:
            return tuple(bundle_record(row) for row in session.scalars(wanted))

    def retire_bundles(self, digests: Iterable[Digest], *, actor: str, reason: str) -> None:
        """Give bundles up: no later change can name them, so that their files may be removed.

        All or none. Those that are not registered, or retired already, are left alone. Raises Conflict where a route
        or a running experiment names one: also where that is decided at the same moment.
        """
        wanted = sorted(set(digests))
        with self._transactions.write() as session:
            # The rows are locked before references are looked for: a route that names one either was committed and
            # is seen, or waits for this transaction and then finds the bundle retired.
            known = select(BundleRow).where(BundleRow.digest.in_(wanted), BundleRow.retired_time.is_(None))
            rows = session.scalars(known.order_by(BundleRow.digest).with_for_update()).all()
            _refuse_routed(session, [row.digest for row in rows])
            now = self._clock()
            session.execute(
                update(BundleRow).where(BundleRow.digest.in_([row.digest for row in rows])).values(retired_time=now)
            )
            for row in rows:
                detail = {"name": row.name, "artifact": row.artifact}
                self._audit(session, f"bundle/{row.digest}", "retire", actor=actor, reason=reason, detail=detail)


def hold_bundles(session: Session, digests: Iterable[Digest]) -> None:
    """Return where all are registered and not retired, and none can be retired before this transaction ends.

    Raises NotFound for one that is not registered, Conflict for a retired one.
    """
    wanted = sorted(set(digests))
    held = select(BundleRow).where(BundleRow.digest.in_(wanted)).order_by(BundleRow.digest).with_for_update(read=True)
    rows = {row.digest: row for row in session.scalars(held.execution_options(populate_existing=True))}
    for digest in wanted:
        if digest not in rows:
            raise _unknown_bundle(session, digest, hint="register it with `skewless bundle register`")
        if rows[digest].retired_time is not None:
            raise Conflict(
                f"bundle `{digest}` ({rows[digest].name}) is retired; its files may be gone",
                hint="build it again and register it with `skewless bundle register`, which brings it back",
            )


def _bundles_from(prefix: str) -> Select[BundleRow]:
    # A range over the key rather than LIKE, so that every database uses its index; `g` follows every digit.
    return select(BundleRow).where(BundleRow.digest >= prefix, BundleRow.digest < f"{prefix}g")


def _newest_bundles() -> Select[BundleRow]:
    return select(BundleRow).order_by(BundleRow.created_time.desc(), BundleRow.digest)


def _unknown_bundle(session: Session, digest: str, *, hint: str) -> NotFound:
    newest = session.scalars(_newest_bundles().where(BundleRow.retired_time.is_(None)).limit(_LISTED_MAX))
    return NotFound("bundle", digest, known=tuple(f"{row.digest[:_SHORT]} {row.name}" for row in newest), hint=hint)


def _refuse_routed(session: Session, digests: list[str]) -> None:
    routed = select(RouteRow.bundle_digest, RouteRow.endpoint_name, RouteRow.role).where(
        RouteRow.bundle_digest.in_(digests)
    )
    tried = (
        select(ArmRow.bundle_digest, ArmRow.endpoint_name, ArmRow.experiment_name)
        .join(ExperimentRow, _same_experiment())
        .where(ArmRow.bundle_digest.in_(digests), ExperimentRow.ended_time.is_(None))
    )
    for digest, endpoint, part in [*session.execute(routed), *session.execute(tried)]:
        raise Conflict(
            f"bundle `{digest}` is in use: endpoint `{endpoint}` names it (`{part}`)",
            hint="abort what uses it, or promote another bundle, before it is given up",
        )


def _same_experiment() -> ColumnElement[bool]:
    return and_(ArmRow.endpoint_name == ExperimentRow.endpoint_name, ArmRow.experiment_name == ExperimentRow.name)


def _refuse_other_content(known: BundleRecord, given: BundleRecord) -> None:
    for part in ("name", "contract_digest", "transform_digest"):
        if getattr(known, part) != getattr(given, part):
            raise Conflict(
                f"bundle `{given.digest}` is registered with {part} {getattr(known, part)!r}, "
                f"not {getattr(given, part)!r}",
                hint="a digest names one content; build the bundle again",
            )
