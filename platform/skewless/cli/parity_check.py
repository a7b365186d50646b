"""Puts a parity check together: log, bundles, offline store, registry and online store of a workspace."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skewless.adapters.parity_checker import Checker, Unchecked
from skewless.adapters.parity_log import answered, by_bundle, concatenated, file_batches, sampled
from skewless.canonical_json import Digest
from skewless.cli.output import Step
from skewless.cli.parity_parts import WorkspaceParts, log_privacy
from skewless.cli.workspace import Workspace
from skewless.errors import InvalidDefinition, NotFound
from skewless.monitor_limits import PARITY_CHUNK_ROWS
from skewless.parity.report import Findings
from skewless.registry.repository import system_clock
from skewless.timestamps import format_timestamp


def open_checker(workspace: Workspace) -> Checker:
    """What checks rows against a workspace's definitions and sources, as they are now."""
    return Checker(WorkspaceParts(workspace), privacy=log_privacy())


@dataclass(frozen=True, slots=True)
class Scope:
    """What is checked: an endpoint's predictions with `start` <= as_of < `end` (µs), of a share of all entities.

    `served` is a Parquet file in the columns of the log to be read in its place.
    """

    endpoint: str
    start: int
    end: int
    sample: float = 1.0
    served: Path | None = None


def run_check(workspace: Workspace, scope: Scope, progress: Step) -> dict[str, Any]:
    """Check a scope, chunk by chunk, and return the report.

    Bundles that cannot be checked any more are told in it with the reason. Raises NotFound where there is nothing to
    check, and what `Checker.check` raises where no bundle can be.
    """
    findings, unchecked = Findings(), Unchecked()
    with ExitStack() as opened:
        checker = opened.enter_context(open_checker(workspace))
        for digest, table in _chunks(_tables(workspace, scope, opened), checker, scope.sample, unchecked):
            checked, contract = checker.check(digest, table)
            findings.add(checked, contract)
            progress.note(f"{findings.levels.rows:,} predictions")
        if not checker.bundles:
            unchecked.refuse()
            raise NotFound(
                "prediction",
                f"of endpoint {scope.endpoint} in this period",
                hint="name the period with --since and --until; `skewless log` commands show what there is",
            )
        about = {
            "endpoint": scope.endpoint,
            "since": format_timestamp(scope.start),
            "until": format_timestamp(scope.end),
            "sample": scope.sample,
            "checked_at": format_timestamp(system_clock()),
            "bundles": list(checker.bundles),
            "definitions_changed": checker.changed,
            "unchecked": unchecked.to_json(),
            "not_comparable": {each: list(names) for each, names in checker.not_comparable.items()},
        }
    return findings.report(about)


def _tables(workspace: Workspace, scope: Scope, opened: ExitStack) -> Iterator[Any]:
    """Tables of the scope's predictions."""
    if scope.served is not None:
        return file_batches(scope.served, scope.start, scope.end)
    log = opened.enter_context(workspace.log())
    batches: Iterator[Any] = log.prediction_batches(
        scope.endpoint, scope.start, scope.end, rows=PARITY_CHUNK_ROWS, apart=True
    )
    return batches


def _chunks(
    tables: Iterable[Any], checker: Checker, sample: float, unchecked: Unchecked
) -> Iterator[tuple[Digest, Any]]:
    """What is sampled of the tables, bundle by bundle, in parts of about PARITY_CHUNK_ROWS."""
    waiting: dict[Digest, list[Any]] = {}
    for table in tables:
        for digest, rows in by_bundle(answered(table)):
            kept = _kept(digest, rows, checker, sample, unchecked)
            if kept is None or not kept.num_rows:
                continue
            waiting.setdefault(digest, []).append(kept)
            if sum(each.num_rows for each in waiting[digest]) >= PARITY_CHUNK_ROWS:
                yield digest, concatenated(waiting.pop(digest))
    for digest, left in waiting.items():
        yield digest, concatenated(left)


def _kept(digest: Digest, rows: Any, checker: Checker, sample: float, unchecked: Unchecked) -> Any | None:
    """The sampled rows of a bundle; None where it cannot be checked."""
    if digest in unchecked:
        unchecked.add(digest, rows.num_rows)
        return None
    try:
        contract = checker.contract(digest)
    except (NotFound, InvalidDefinition) as error:
        unchecked.add(digest, rows.num_rows, error)
        return None
    return sampled(rows, contract, sample)
