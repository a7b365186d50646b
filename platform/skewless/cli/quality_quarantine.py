"""Rows that were set aside: shown, copied to be mended, and let through the gate again."""

from pathlib import Path
from typing import Any

from skewless.adapters.quality_files import load_suites
from skewless.adapters.quarantine import REASONS, ROW
from skewless.adapters.quarantine_replay import Replay, Replayed
from skewless.cli.arguments import actor
from skewless.cli.output import step
from skewless.cli.quality_gate import quality_results, quarantine_of, schemas_of, started_worker
from skewless.cli.quality_views import batch_json
from skewless.cli.workspace import Workspace
from skewless.errors import Conflict, InvalidDefinition, NotFound
from skewless.registry.quality_results import QuarantineState


def shown(workspace: Workspace, batch: str, rows_max: int) -> dict[str, Any]:
    """A batch as plain data with its first rows, each with its values as text and its reasons."""
    with quality_results(workspace) as results:
        record = results.quarantined_batch(batch)
    table = quarantine_of(workspace).read(record.file) if record.state is QuarantineState.HELD else None
    rows = [] if table is None else table.slice(0, rows_max).to_pylist()
    found = [
        {
            "values": {name: None if value is None else str(value) for name, value in row.items() if name not in _OURS},
            "reasons": row[REASONS],
        }
        for row in rows
    ]
    return {**batch_json(record), "shown": found}


def copied(workspace: Workspace, batch: str, out: Path) -> None:
    """Write all rows of a batch, without our own columns, as Parquet that somebody can mend."""
    with quality_results(workspace) as results:
        record = results.quarantined_batch(batch)
    quarantine_of(workspace).copy(record.file, out)


def replayed(workspace: Workspace, batch: str, *, mended: Path | None, as_of: int, allow_unreviewed: bool) -> Replayed:
    """Judge a batch's rows again and write those that pass online.

    Raises NotFound, Conflict where the batch is closed, InvalidDefinition where the view has no reviewed suite, and
    BatchRefused where no row passes.
    """
    with started_worker() as worker, quality_results(workspace) as results:
        record = results.quarantined_batch(batch)
        if record.state is not QuarantineState.HELD:
            raise Conflict(f"quarantined batch `{record.id}` is {record.state.value} already")
        with step("Reading definitions and suites"):
            repository = workspace.features()
            schemas = schemas_of(repository)
            suite = load_suites(workspace.settings.repo, schemas).get(record.view)
            worker.wait()
        if suite is None:
            raise NotFound("suite of view", record.view, hint="rows go on only through the gate of their view's suite")
        if suite.reviewed is None and not allow_unreviewed:
            raise InvalidDefinition(
                f"the suite of `{record.view}` is a draft that nobody has reviewed",
                hint="have it reviewed, or pass --allow-unreviewed this once",
            )
        with step(f"Replaying {record.rows:,} rows of {record.view}") as progress:
            write = repository.writer(record.view)
            replay = Replay(suite, schemas[record.view], worker, results, quarantine_of(workspace), write)
            done = replay.run(record, as_of, mended=mended, actor=actor())
            progress.note(f"{done.released:,} rows went on")
        return done


_OURS = (REASONS, ROW)
