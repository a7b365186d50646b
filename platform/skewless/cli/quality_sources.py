"""What the sources of views hold, judged by their suites and recorded: what `quality run` does."""

from collections.abc import Sequence
from contextlib import ExitStack, suppress

from skewless.adapters.feast_stored_views import StoredView
from skewless.adapters.quality_files import suite_files
from skewless.adapters.quality_gate import QualityGate
from skewless.cli.output import step
from skewless.cli.quality_gate import opened_gate, started_worker
from skewless.cli.workspace import Workspace
from skewless.errors import BatchRefused, NotFound
from skewless.registry.quality_results import RunRecord


def judged_sources(
    workspace: Workspace, views: Sequence[str], as_of: int, *, allow_unreviewed: bool
) -> list[RunRecord]:
    """The run of every view that has a suite, or of those named, in order. Raises NotFound for one without."""
    files = suite_files(workspace.settings.repo)
    for name in views or list(files)[:1] or [""]:
        if name not in files:
            raise NotFound("suite of view", name, known=tuple(files), hint="`skewless quality suggest VIEW` drafts one")
    with ExitStack() as parts:
        worker = parts.enter_context(started_worker())
        with step("Reading definitions and suites"):
            repository = workspace.features(connected=False)
            options = {"allow_unreviewed": allow_unreviewed, "sets_aside": False}
            gate = parts.enter_context(opened_gate(workspace, repository, worker, **options))
            worker.wait()
        with step("Judging feature rows by their suites") as progress:
            for view in repository.stored().views.values():
                if view.read.view in files and view.read.view in (views or files):
                    progress.note(view.read.name)
                    _judge(gate, view, as_of)
            progress.note(f"{sum(each.run.rows for each in gate.outcomes):,} rows of {len(gate.outcomes)} batches")
        return [each.run for each in gate.outcomes]


def _judge(gate: QualityGate, view: StoredView, as_of: int) -> None:
    # A batch that stops is a result here; the views after it are judged as well.
    with suppress(BatchRefused), gate.judged(view, as_of, origin="run"):
        pass
