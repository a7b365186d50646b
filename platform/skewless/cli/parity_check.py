"""Puts a parity check together: log, bundles, offline store, registry and online store of a workspace."""

import importlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from skewless.adapters.duckdb_point_in_time import OfflineSession
from skewless.adapters.parity_keys import OtherKeys
from skewless.adapters.parity_log import answered, by_bundle, concatenated, file_batches, sampled, served_of
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.bundles.bundle import Bundle
from skewless.canonical_json import Digest
from skewless.cli.local_model import local_model
from skewless.cli.output import Step
from skewless.cli.workspace import Workspace
from skewless.errors import InvalidDefinition, NotFound, Unavailable
from skewless.features.compiled_registry import CompiledRegistry
from skewless.features.contract import FeatureContract
from skewless.features.on_demand import OnDemandPlan
from skewless.limits import PARITY_CHUNK_ROWS
from skewless.parity.check import Checked, KeyProbe, Subject, check_rows
from skewless.parity.definitions import changed_views
from skewless.parity.evidence import Written
from skewless.parity.recompute import with_present_functions
from skewless.parity.report import Findings
from skewless.registry.repository import system_clock
from skewless.serving.log_privacy import log_marks
from skewless.timestamps import format_timestamp


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


@dataclass(frozen=True, slots=True)
class _Opened:
    """One bundle, ready to be checked against."""

    subject: Subject
    output: str
    offline: OfflineSession


class Checker:
    """Checks rows of the log, bundle by bundle; each is opened once. A context manager."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._exit = ExitStack()
        self._bundles: dict[Digest, _Opened] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit.close()

    @property
    def changed(self) -> dict[str, str]:
        """By view, what is defined otherwise today than in a bundle that was checked."""
        return {view: told for each in self._bundles.values() for view, told in each.subject.changed.items()}

    @property
    def bundles(self) -> tuple[Digest, ...]:
        """Bundles that were checked."""
        return tuple(sorted(self._bundles))

    def contract(self, digest: Digest) -> FeatureContract:
        """The contract that a bundle is checked by. Raises as `check`."""
        return self._opened(digest).subject.contract

    def check(self, digest: Digest, table: Any) -> tuple[Checked, FeatureContract]:
        """Check rows of one bundle.

        Raises NotFound where the bundle or its model's definition is gone, InvalidDefinition where its features can no
        longer be computed here, and Unavailable where the online store does not answer.
        """
        opened = self._opened(digest)
        served = served_of(table, opened.subject.contract, opened.output)
        return check_rows(opened.subject, served, opened.offline), opened.subject.contract

    def _opened(self, digest: Digest) -> _Opened:
        if digest not in self._bundles:
            self._bundles[digest] = self._open(digest)
        return self._bundles[digest]

    def _open(self, digest: Digest) -> _Opened:
        workspace = self._workspace
        bundle = workspace.bundle(digest)
        _refuse_marked(bundle)
        definition = workspace.model(bundle.name)
        repository = workspace.features(connected=False)
        sources = repository.sources(definition.feature_service)
        gone = [view.name for view in bundle.contract.views if view.name not in sources]
        if gone:
            raise InvalidDefinition(
                f"bundle {digest[:12]} reads view `{gone[0]}`, which feature service "
                f"`{definition.feature_service}` no longer has, so its offline values cannot be computed",
                hint="check bundles of the present definitions, or register the view again",
            )
        contract, _ = with_present_functions(bundle.contract, importlib.import_module)
        model = local_model(bundle)
        offline = self._exit.enter_context(OfflineSession(contract, sources))
        written = repository.materialized(definition.feature_service)
        subject = Subject(
            transform=bundle.transform,
            contract=contract,
            plan=OnDemandPlan.compile(contract, importlib.import_module),
            score=model.run,
            output_tolerance=bundle.serving.output_tolerance,
            changed=changed_views(bundle.contract, _registered(workspace)),
            written={view: Written.of(runs) for view, runs in written.items() if runs},
            watermarks=offline.watermarks(),
            probe=self._probe(contract),
        )
        return _Opened(subject, model.output_name, offline)

    def _probe(self, contract: FeatureContract) -> KeyProbe | None:
        """What looks for entities under other types of keys; None where no online store is known."""
        try:
            url = self._workspace.online_store_url
        except Unavailable:
            return None
        store = BlockingRedisOnlineStore(url)
        self._exit.callback(store.close)
        return OtherKeys(contract, store)


class Unchecked:
    """Bundles that predictions came from and that cannot be checked here, with how many those are and why."""

    def __init__(self) -> None:
        self._found: dict[Digest, tuple[int, NotFound | InvalidDefinition]] = {}

    def __contains__(self, digest: Digest) -> bool:
        return digest in self._found

    def add(self, digest: Digest, rows: int, error: NotFound | InvalidDefinition | None = None) -> None:
        """Count predictions; `error` is given with a bundle's first."""
        count, known = self._found.get(digest, (0, error))
        assert known is not None, "a bundle's first rows come with the reason"
        self._found[digest] = (count + rows, known)

    def refuse(self) -> None:
        """Raise the first reason, where there is one."""
        for _, error in self._found.values():
            raise error

    def to_json(self) -> list[dict[str, Any]]:
        """Plain data."""
        return [
            {"bundle": digest, "predictions": count, "reason": error.message}
            for digest, (count, error) in self._found.items()
        ]


def run_check(workspace: Workspace, scope: Scope, progress: Step) -> dict[str, Any]:
    """Check a scope, chunk by chunk, and return the report.

    Bundles that cannot be checked any more are told in it with the reason. Raises NotFound where there is nothing to
    check, and what `Checker.check` raises where no bundle can be.
    """
    findings, unchecked = Findings(), Unchecked()
    with ExitStack() as opened:
        checker = opened.enter_context(Checker(workspace))
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
        }
    return findings.report(about)


def _refuse_marked(bundle: Bundle) -> None:
    """Raise InvalidDefinition where the log keeps a column of a bundle hashed or not at all."""
    marked = sorted(log_marks(bundle.contract))
    if marked:
        raise InvalidDefinition(
            f"the log does not keep column `{marked[0]}` of bundle {bundle.digest[:12]} as it was served, "
            "so its predictions cannot be compared with the offline store",
            hint="parity needs what was served; `skewless replay` says what it can without it",
        )


def _registered(workspace: Workspace) -> CompiledRegistry | None:
    try:
        return workspace.feature_snapshot().registry
    except NotFound:
        return None


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
