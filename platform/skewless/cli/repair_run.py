"""Puts a repair of the online store together: registry, sources, store, bundles in service, report and audit."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from skewless.adapters.entity_files import entity_parts
from skewless.adapters.feast_stored_views import StoredProject
from skewless.adapters.online_repair import OnlineRepair, Pace, RepairChoice
from skewless.adapters.online_scan import OnlineScan
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.bundles.bundle import CONTRACT
from skewless.cli.arguments import actor
from skewless.cli.output import step
from skewless.cli.quality_gate import gated
from skewless.cli.repair_reports import store_repair
from skewless.cli.workspace import Workspace
from skewless.errors import InvalidRequest
from skewless.features.contract import FeatureContract, ViewRead
from skewless.parity.repair_plan import REMEDIES, chosen_reasons
from skewless.registry.repository import system_clock
from skewless.timestamps import format_timestamp


@dataclass(frozen=True, slots=True)
class RepairScope:
    """What is repaired, as the command line says it; without views all of them, without entities all of theirs."""

    as_of: int
    began: int
    """The clock (µs) when the repair began; `as_of` is the same unless somebody named another moment."""
    views: tuple[str, ...] = ()
    entities: Path | None = None
    report: Path | None = None
    """A parity check's report, whose views and causes are taken."""
    causes: tuple[str, ...] = ()
    dry_run: bool = False
    rows_per_s: float = 0.0
    leftovers: bool = False
    """Also what nobody reads any more."""
    allow_unreviewed: bool = False

    def clock(self) -> int:
        """The time in µs as it goes on from `as_of` since the repair began."""
        return self.as_of + system_clock() - self.began


def run_repair(workspace: Workspace, scope: RepairScope, *, reason: str) -> dict[str, Any]:
    """Repair, and return the report, which is kept in the home.

    A repair that changes anything leaves two events in the audit trail, one when it begins and one when it ends, also
    where it ends with an error. Raises what `OnlineRepair` does, NotFound for an unknown view, InvalidRequest for a
    file that says nothing, and BatchRefused where a source does not pass its quality suite.
    """
    url = workspace.online_store_url
    with gated(workspace, scope.as_of, allow_unreviewed=scope.allow_unreviewed) as (repository, judged):
        stored = repository.stored().reading({name: each.rows for name, each in judged.items()})
        names, reasons = _chosen(stored, scope)
        title = "Comparing the online store with the offline store" if scope.dry_run else "Repairing the online store"
        with step(title) as progress, closing(BlockingRedisOnlineStore(url)) as store:
            choice = RepairChoice(scope.as_of, reasons, scope.dry_run)
            repair = OnlineRepair(
                store, stored, choice, clock=scope.clock, pace=Pace(scope.rows_per_s), progress=progress.note
            )
            with _Audit(workspace, stored.project, repair, scope, reason):
                _repair(workspace, scope, repair, stored, names, partial(OnlineScan, store, url, stored.project))
            findings = repair.findings
            progress.note(
                f"{findings.entities:,} rows compared, {findings.differing:,} differ, {findings.changed:,} changed"
            )
    about = {
        "project": stored.project,
        "as_of": format_timestamp(scope.as_of),
        "began_at": format_timestamp(scope.began),
        "ended_at": format_timestamp(system_clock()),
        "dry_run": scope.dry_run,
        "causes": sorted(reasons),
        "unreadable": dict(stored.unreadable),
    }
    found = findings.report(about)
    store_repair(workspace.home.root, found)
    return found


def _repair(
    workspace: Workspace,
    scope: RepairScope,
    repair: OnlineRepair,
    stored: StoredProject,
    names: list[str],
    scan: Callable[[], OnlineScan],
) -> None:
    if scope.entities is None:
        repair.whole_views(names, scan())
    else:
        file, dtypes = scope.entities, _key_dtypes(stored, names)
        repair.entities(names, lambda: entity_parts(file, dtypes))
    if scope.leftovers:
        repair.leftovers(scan(), stored.known_hashes(_views_in_service(workspace, stored.project)))


class _Audit:
    """Events of a repair that changes the store: what began, and what became of it."""

    def __init__(
        self, workspace: Workspace, project: str, repair: OnlineRepair, scope: RepairScope, reason: str
    ) -> None:
        self._workspace = workspace
        self._subject = f"features/{project}"
        self._repair = repair
        self._scope = scope
        self._reason = reason

    def __enter__(self) -> None:
        self._note("begin_repair", {})

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        findings = self._repair.findings
        counts = {"entities": findings.entities, "differing": findings.differing, "changed": findings.changed}
        self._note("repair", {**counts, "finished": kind is None})

    def _note(self, action: str, detail: dict[str, Any]) -> None:
        if self._scope.dry_run:
            return
        said = {
            "as_of": format_timestamp(self._scope.as_of),
            "views": list(self._scope.views),
            "causes": list(self._scope.causes),
            "leftovers": self._scope.leftovers,
        }
        with self._workspace.registry(create=True) as registry:
            registry.note(self._subject, action, actor=actor(), reason=self._reason, detail={**said, **detail})


def _chosen(stored: StoredProject, scope: RepairScope) -> tuple[list[str], frozenset[str]]:
    """Names in the store of the views that are looked at, and the reasons that are acted on."""
    if scope.report is None:
        views = [stored.stored_name(each) for each in scope.views] or list(stored.views)
        of_now = scope.as_of == scope.began
        return list(dict.fromkeys(views)), chosen_reasons(scope.causes, of_now=of_now)
    found = _of_check(scope.report)
    pairs = [(stored.aliases[view], cause) for view, cause in found if view in stored.aliases and cause in REMEDIES]
    if not pairs:
        raise InvalidRequest(
            f"`{scope.report.name}` names no cause that a repair could mend",
            path="--from-check",
            allowed=f"a report with one of {', '.join(f'`{each}`' for each in REMEDIES)} in a stored view",
        )
    causes = scope.causes or tuple(dict.fromkeys(cause for _, cause in pairs))
    return list(dict.fromkeys(view for view, _ in pairs)), chosen_reasons(causes)


def _of_check(report: Path) -> list[tuple[str, str]]:
    """View and cause of each finding of a parity check's report."""
    try:
        found = json.loads(report.read_text())
        return [(str(each["view"]), str(each["cause"])) for each in found["causes"]]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidRequest(
            f"`{report.name}` is no report of a parity check: {error!r}",
            path="--from-check",
            allowed="what `skewless parity check --json` prints",
        ) from error


def _key_dtypes(stored: StoredProject, names: list[str]) -> dict[str, Any]:
    """The dtype of each join key that entities may be named by."""
    return {key.name: key.dtype for name in names for key in stored.views[name].read.join_keys}


def _views_in_service(workspace: Workspace, project: str) -> Iterator[ViewRead]:
    """What bundles read that routes name now or that a rollback returns to, whatever is registered today."""
    if workspace.settings.database_url is None and not workspace.home.database.exists():
        return
    with workspace.registry() as registry:
        digests = registry.referenced_bundles(since=system_clock())
    for digest in sorted(digests):
        contract = FeatureContract.from_json(json.loads((workspace.artifacts.open(digest) / CONTRACT).read_bytes()))
        if contract.project == project:
            yield from contract.views
