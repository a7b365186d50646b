"""`skewless ingest …`: what waits to be delivered, what is stuck and why, and what to do about it."""

from pathlib import Path
from typing import Any

import click

from skewless.cli.arguments import actor
from skewless.cli.output import print_json, say, step
from skewless.cli.quality_views import aligned
from skewless.cli.rollout_options import as_json, reason
from skewless.cli.workspace import Workspace
from skewless.errors import InvalidDefinition, NotFound
from skewless.ingest_limits import INGEST_LISTED_MAX
from skewless.ingestion.batches import BatchState, LaneState, StoredState
from skewless.registry.definitions import Definitions
from skewless.registry.ingest_batches import IngestBatches
from skewless.registry.transactions import system_clock
from skewless.timestamps import SECOND_US, Micros, format_timestamp

_ERROR_CHARACTERS = 100


@click.group("ingest")
def ingest() -> None:
    """Rows that were accepted and are on their way to the stores."""


@ingest.command("status")
@as_json
def status(as_json: bool) -> None:
    """Show what waits of each view and stream, for how long, and what has failed."""
    with Workspace().kept(IngestBatches) as batches:
        lanes = batches.lanes()
    now = system_clock()
    if as_json:
        print_json([_lane_json(each, now) for each in lanes])
        return
    if not lanes:
        say("nothing was ever ingested here")
        return
    heads = ("KIND", "NAME", "WAITING", "ROWS", "BYTES", "OLDEST", "FAILED", "NEWEST EVENT")
    click.echo(aligned([heads, *(_lane_cells(each, now) for each in lanes)]))
    if any(each.failed_batches for each in lanes):
        say("`skewless ingest batches --state failed` says why; then `skewless ingest retry` or `drop` them")


@ingest.command("batches")
@click.option("--state", type=click.Choice([each.value for each in BatchState]), help="Only batches in this state.")
@click.option("--name", help="Only batches of this view or stream.")
@click.option("--limit", type=click.IntRange(1, INGEST_LISTED_MAX), default=50, show_default=True, help="How many.")
@as_json
def list_batches(state: str | None, name: str | None, limit: int, as_json: bool) -> None:
    """List batches, newest first, with why they are not delivered."""
    with Workspace().kept(IngestBatches) as batches:
        found = batches.batches(state=None if state is None else BatchState(state), name=name, limit=limit)
    if as_json:
        print_json([batch_json(each) for each in found])
        return
    if not found:
        say("no such batch")
        return
    heads = ("BATCH", "KIND", "NAME", "STATE", "ROWS", "ACCEPTED", "TRIES", "WHY")
    click.echo(aligned([heads, *(_batch_cells(each) for each in found)]))


@ingest.command("retry")
@click.argument("batch", required=False)
@click.option("--name", help="Every failed batch of this view or stream.")
@click.option("--all", "everything", is_flag=True, help="Every failed batch.")
@reason
@as_json
def retry(batch: str | None, name: str | None, everything: bool, reason: str, as_json: bool) -> None:
    """Deliver the failed BATCH, or many, again, once what refused them is mended."""
    if [batch is not None, name is not None, everything].count(True) != 1:
        raise click.UsageError("give one of BATCH, --name and --all")
    with Workspace().kept(IngestBatches) as batches:
        if batch is not None:
            found = batches.retry(batch, actor=actor(), reason=reason)
            _tell(found, f"{found.rows:,} rows of {found.name} wait to be delivered again", as_json=as_json)
            return
        retried = _retried(batches, name, reason)
    if as_json:
        print_json([batch_json(each) for each in retried])
    else:
        say(f"{sum(each.rows for each in retried):,} rows of {len(retried):,} batches wait to be delivered again")


def _retried(batches: IngestBatches, name: str | None, reason: str) -> list[StoredState]:
    """The failed batches of that name, or all, each to be delivered again; oldest first within a listing.

    They keep their accepted times, by which rows are ordered, so the order in which they are delivered has no effect.
    """
    retried: dict[str, StoredState] = {}

    def failed() -> list[StoredState]:
        listed = batches.batches(state=BatchState.FAILED, name=name, limit=INGEST_LISTED_MAX)
        return [each for each in reversed(listed) if each.id not in retried]  # one that failed again waits for a person

    while found := failed():
        for each in found:
            retried[each.id] = batches.retry(each.id, actor=actor(), reason=reason)
    return list(retried.values())


@ingest.command("drop")
@click.argument("batch")
@reason
@as_json
def drop(batch: str, reason: str, as_json: bool) -> None:
    """Give up the failed BATCH and its rows."""
    with Workspace().kept(IngestBatches) as batches:
        found = batches.drop(batch, actor=actor(), reason=reason)
    _tell(found, f"dropped {found.rows:,} rows of {found.name}", as_json=as_json)
    if found.online_time is not None:
        say(f"the online store has them already: `skewless features repair --view {found.name}` takes them out")


@ingest.command("compact")
@click.argument("view")
@click.option(
    "--vacuum",
    is_flag=True,
    help="Also remove files that were replaced longer ago than the table keeps them.",
)
def compact(view: str, vacuum: bool) -> None:
    """Put the small files of the Delta table of VIEW together; reading and ingesting go on meanwhile."""
    from skewless.adapters.offline_tables import OfflineTable

    table = OfflineTable(_table_of(view))
    with step(f"Putting files of {view} together") as progress:
        files = rows = 0
        while (done := table.compact(files_min=2)) is not None:
            files, rows = files + done.files, rows + done.rows
            progress.note(f"{files} files, {rows:,} rows")
    if vacuum:
        with step("Removing what nobody reads any more") as progress:
            progress.note(f"{table.vacuum(leftovers=True)} files")


def _table_of(view: str) -> Path:
    """The folder of a view's Delta table. Raises NotFound and InvalidDefinition."""
    with Workspace().kept(Definitions) as definitions:
        current = definitions.current()
    views = {} if current is None else current.definitions.views
    if view not in views:
        raise NotFound("feature view", view, known=tuple(sorted(views)), hint="`skewless features list`")
    source = views[view].source
    if source is None or source.format != "delta":
        raise InvalidDefinition(
            f"the source of feature view `{view}` is no Delta table",
            hint="a Parquet source is written anew by the job that makes it",
        )
    return Path(source.path)


def batch_json(batch: StoredState) -> dict[str, Any]:
    """A batch as plain data, with times as RFC 3339 text."""
    return {
        "id": batch.id,
        "kind": batch.kind.value,
        "name": batch.name,
        "state": batch.state.value,
        "rows": batch.rows,
        "bytes": batch.payload_bytes,
        "accepted": format_timestamp(batch.accepted_time),
        "online": _time(batch.online_time),
        "offline": _time(batch.offline_time),
        "tries": batch.tries,
        "error": batch.error,
        "quality_run": batch.quality_run,
    }


def _lane_json(lane: LaneState, now: Micros) -> dict[str, Any]:
    return {
        "kind": lane.kind.value,
        "name": lane.name,
        "waiting_batches": lane.waiting_batches,
        "waiting_rows": lane.waiting_rows,
        "waiting_bytes": lane.waiting_bytes,
        "oldest_s": _age_s(lane, now),
        "failed_batches": lane.failed_batches,
        "newest_event_time": _time(lane.newest_event_time),
    }


def _lane_cells(lane: LaneState, now: Micros) -> tuple[str, ...]:
    oldest_s = _age_s(lane, now)
    return (
        lane.kind.value,
        lane.name,
        f"{lane.waiting_batches:,}",
        f"{lane.waiting_rows:,}",
        f"{lane.waiting_bytes:,}",
        "-" if oldest_s is None else f"{oldest_s:,.1f} s",
        f"{lane.failed_batches:,}",
        _time(lane.newest_event_time) or "-",
    )


def _batch_cells(batch: StoredState) -> tuple[str, ...]:
    why = " ".join(batch.error.split())
    return (
        batch.id,
        batch.kind.value,
        batch.name,
        batch.state.value,
        f"{batch.rows:,}",
        format_timestamp(batch.accepted_time),
        str(batch.tries),
        why if len(why) <= _ERROR_CHARACTERS else f"{why[:_ERROR_CHARACTERS]}…",
    )


def _age_s(lane: LaneState, now: Micros) -> float | None:
    return None if lane.oldest_accepted_time is None else round((now - lane.oldest_accepted_time) / SECOND_US, 3)


def _time(moment: Micros | None) -> str | None:
    return None if moment is None else format_timestamp(moment)


def _tell(batch: StoredState, text: str, *, as_json: bool) -> None:
    if as_json:
        print_json(batch_json(batch))
    else:
        say(text)
