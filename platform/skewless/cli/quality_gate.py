"""Where the command line puts a quality gate together: suites, the process that judges, database and quarantine."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from skewless.adapters.quality_files import load_suites, suite_files
from skewless.adapters.quality_worker import SuiteWorker
from skewless.adapters.quarantine import Quarantine
from skewless.cli.output import say, step
from skewless.cli.workspace import Workspace
from skewless.quality.verdict import Decision
from skewless.quality.view_schema import ViewSchema, schema_of
from skewless.registry.quality_results import QualityResults

if TYPE_CHECKING:
    from skewless.adapters.feast_repository import FeatureRepository, JudgedSource
    from skewless.adapters.feast_stored_views import StoredView
    from skewless.adapters.quality_gate import GateOutcome, QualityGate


def quarantine_of(workspace: Workspace) -> Quarantine:
    """The quarantine of a home."""
    return Quarantine(workspace.home.root / "quality" / "quarantine")


@contextmanager
def quality_results(workspace: Workspace, *, create: bool = False) -> Iterator[QualityResults]:
    """Results in the registry database; `create` makes or migrates the home's own (see `Workspace.registry`)."""
    with workspace.kept(QualityResults, create=create) as results:
        yield results


@contextmanager
def started_worker() -> Iterator[SuiteWorker]:
    """The process that judges, importing while the caller does other slow things, such as importing Feast."""
    with SuiteWorker() as worker:
        worker.start()
        yield worker


def has_suites(repository: Path) -> bool:
    """Whether a feature repository has any suite."""
    return bool(suite_files(repository))


def schemas_of(repository: "FeatureRepository") -> Mapping[str, ViewSchema]:
    """The source columns of every registered view that is kept online, as it is in use now, by its name."""
    stored = repository.stored().views.values()
    return {each.read.view: schema_of(each.read, each.source) for each in stored if each.read.name == each.read.view}


@contextmanager
def opened_gate(
    workspace: Workspace,
    repository: "FeatureRepository",
    worker: SuiteWorker,
    *,
    allow_unreviewed: bool,
    sets_aside: bool,
) -> Iterator["QualityGate"]:
    """The gate of a workspace's suites; `sets_aside` False judges and records alone.

    Raises InvalidDefinition for a suite that is wrong.
    """
    from skewless.adapters.quality_gate import QualityGate

    suites = load_suites(workspace.settings.repo, schemas_of(repository))
    with quality_results(workspace, create=True) as results:
        quarantine = quarantine_of(workspace) if sets_aside else None
        yield QualityGate(suites, worker, results, quarantine, allow_unreviewed=allow_unreviewed)


@contextmanager
def gated(
    workspace: Workspace, as_of: int, *, allow_unreviewed: bool
) -> Iterator[tuple["FeatureRepository", Mapping[str, "JudgedSource"]]]:
    """The feature repository, and those of its rows that may go on as of a moment (µs), by view as the store calls it.

    Where the repository has no suites nothing is judged, and all rows may. Raises BatchRefused for a batch that stops,
    before anything was written or emptied.
    """
    with gating(workspace, allow_unreviewed=allow_unreviewed) as (repository, gate):
        if gate is None:
            yield repository, {}
            return
        views = repository.stored().views
        with ExitStack() as kept:
            with step("Judging feature rows by their suites") as progress:
                found = {}
                for number, (name, view) in enumerate(views.items(), start=1):
                    progress.note(f"{number}/{len(views)} {name}")
                    found[name] = kept.enter_context(gate.judged(view, as_of))
                progress.note(f"{sum(each.run.rows for each in gate.outcomes):,} rows of {len(views)} views")
            for line in told(gate):
                say(line)
            yield repository, _judged(views, found)


@contextmanager
def gating(
    workspace: Workspace, *, allow_unreviewed: bool, starts_early: bool = True
) -> Iterator[tuple["FeatureRepository", "QualityGate | None"]]:
    """The feature repository, and the gate of its suites, ready to judge; None where it has none.

    Not `starts_early`: the process that judges is started by the first batch, for work that often has none.
    """
    if not has_suites(workspace.settings.repo):
        yield workspace.features(), None
        return
    with ExitStack() as parts:
        worker = parts.enter_context(started_worker() if starts_early else SuiteWorker())
        repository = workspace.features()
        options = {"allow_unreviewed": allow_unreviewed, "sets_aside": True}
        gate = parts.enter_context(opened_gate(workspace, repository, worker, **options))
        if starts_early:
            with step("Reading suites and getting ready to judge"):
                worker.wait()
        yield repository, gate


def _judged(views: Mapping[str, "StoredView"], found: Mapping[str, Path | None]) -> Mapping[str, "JudgedSource"]:
    from skewless.adapters.feast_repository import JudgedSource

    return {name: JudgedSource(views[name].source.path, rows) for name, rows in found.items() if rows is not None}


def told(gate: "QualityGate") -> list[str]:
    """What to say of a gate's work: what did not simply pass, and what was not judged."""
    spoken = [each for each in gate.outcomes if each.decision is not Decision.PASS]
    lines = [line for each in spoken for line in _lines(each)]
    if gate.ungated:
        lines.append(f"not judged, because there is no suite: {', '.join(f'`{each}`' for each in gate.ungated)}")
    return lines


def _lines(outcome: "GateOutcome") -> list[str]:
    lines = outcome.judgement.lines()
    if outcome.held is not None:
        lines.append(f"  set aside as {outcome.held.id}: `skewless quality quarantine show {outcome.held.id}`")
    return lines
