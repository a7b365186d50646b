"""Tables judged by suites, and suites drafted from tables: what `quality check` and `quality suggest` do."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from skewless.adapters.known_rows import KnownRows
from skewless.adapters.offline_sources import DELTA_LOG
from skewless.adapters.quality_files import FOLDER, load_suite, load_suites, save_suite, suite_files
from skewless.adapters.quality_gate import Batch, Judgement, SuiteRunner, judge
from skewless.adapters.tabular import columns_of
from skewless.cli.arguments import actor
from skewless.cli.output import say, step
from skewless.cli.quality_gate import has_suites, schemas_of, started_worker
from skewless.cli.workspace import Workspace
from skewless.errors import InvalidDefinition, NotFound
from skewless.features.point_in_time import OfflineSource, SourceForm
from skewless.monitor_limits import QUALITY_BATCH_ROWS_MAX
from skewless.quality.suggestion import suggested
from skewless.quality.suite import Suite
from skewless.quality.training_suite import of_training
from skewless.quality.verdict import Decision
from skewless.quality.view_schema import ViewSchema
from skewless.registry.transactions import system_clock

_DRAFT = """\
A draft from data, which knows the data and not its meaning: whatever was in it counts as usual, mistakes included.
Read every line, narrow ranges to what can be true, then set meta.reviewed to the day on which you did."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A file to judge as rows of a view, by a suite (None: the view's own), for a moment (µs)."""

    file: Path
    view: str
    suite: Path | None
    as_of: int
    allow_unreviewed: bool


def checked(workspace: Workspace, asked: Asked) -> list[Judgement]:
    """The verdict on each part of a file; nothing is recorded or set aside. Raises NotFound and InvalidDefinition."""
    with started_worker() as worker:
        with step("Reading definitions and suite"):
            schemas = schemas_of(workspace.features(connected=False))
            schema = _schema(schemas, asked.view)
            suite = load_suite(asked.suite or _suite_path(workspace, asked.view), schema)
            worker.wait()
        if suite.reviewed is None and not asked.allow_unreviewed:
            raise InvalidDefinition(
                f"suite `{suite.name}` is a draft that nobody has reviewed",
                hint="read it, then set meta.reviewed to today's date; or pass --allow-unreviewed this once",
            )
        with step(f"Judging {asked.file.name}") as progress:
            found = list(_judged(asked.file, suite, schema, asked.as_of, worker))
            progress.note(f"{sum(len(each.verdict.set_aside) for each in found):,} rows")
        return found


def checked_training(workspace: Workspace, file: Path, as_of: int) -> list[Judgement]:
    """The verdicts on a training set, view by view, of views that have a suite and features in it: warnings at most."""
    with started_worker() as worker:
        with step("Reading definitions and suites"):
            schemas = schemas_of(workspace.features(connected=False))
            suites = load_suites(workspace.settings.repo, schemas)
            worker.wait()
        with step(f"Judging {file.name}") as progress:
            names = set(_rows_of(file, "training").schema.names)
            found: list[Judgement] = []
            for view, suite in suites.items():
                progress.note(view)
                milder, schema = of_training(suite, schemas[view])
                schema = ViewSchema(view, tuple(each for each in schema.columns if each.name in names))
                if schema.columns:
                    found += _judged(file, milder, schema, as_of, worker)
        return found


def warn_of_training(workspace: Workspace, file: Path) -> None:
    """Say what in a training set that was just written is not as the suites expect; nothing where there are none."""
    if not has_suites(workspace.settings.repo):
        return
    for each in checked_training(workspace, file, system_clock()):
        if each.verdict.decision is not Decision.PASS:
            say("\n".join(each.lines()))


def drafted(workspace: Workspace, view: str, *, file: Path | None, out: Path | None) -> tuple[Path, Suite]:
    """The path and content of a new suite, drafted from a file or from the view's own source.

    Raises InvalidDefinition where there is a suite already, or no row to learn from.
    """
    with step("Reading the definitions"):
        repository = workspace.features(connected=False)
        schema = _schema(schemas_of(repository), view)
    path = out or workspace.settings.repo / FOLDER / f"{view}.yaml"
    sources = {each.read.view: each.source.path for each in repository.stored().views.values()}
    source = file or Path(sources[view])
    with step(f"Looking at {source.name}") as progress:
        rows = _rows_of(source, view).sampled(QUALITY_BATCH_ROWS_MAX)
        columns, count = columns_of(rows, [(each.name, each.dtype) for each in schema.columns])
        progress.note(f"{count:,} rows")
    if not count:
        raise InvalidDefinition(f"`{source}` has no rows to draft a suite from", hint="give a file with --from")
    suite = suggested(schema, columns, owner=actor())
    save_suite(path, suite, note=_DRAFT)
    return path, suite


def _judged(file: Path, suite: Suite, schema: ViewSchema, as_of: int, worker: SuiteRunner) -> Iterator[Judgement]:
    for part in _rows_of(file, schema.view).parts():
        yield judge(suite, schema, part.rows, Batch(as_of, "check", f"{file}, {part.label}"), worker)


def _rows_of(file: Path, view: str) -> KnownRows:
    """All rows of a file, whenever they became known."""
    if not file.exists():
        raise NotFound("file", str(file), hint="give a Parquet file, a folder of such files, or a Delta table")
    form = SourceForm.DELTA if (file / DELTA_LOG).is_dir() else SourceForm.PARQUET
    return KnownRows(OfflineSource(view, str(file), "", None, form=form), 0)


def _schema(schemas: Mapping[str, ViewSchema], view: str) -> ViewSchema:
    if view not in schemas:
        raise NotFound("feature view", view, known=tuple(sorted(schemas)), hint="`skewless apply` registers views")
    return schemas[view]


def _suite_path(workspace: Workspace, view: str) -> Path:
    files = suite_files(workspace.settings.repo)
    if view not in files:
        raise NotFound("suite of view", view, known=tuple(files), hint=f"draft one: `skewless quality suggest {view}`")
    return files[view]
