"""`skewless aggregates`: streams of events and the features that are computed from them."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from skewless.aggregates.declaration import StreamAggregates
from skewless.aggregates.windows import duration
from skewless.cli.output import print_json, step
from skewless.cli.workspace import Workspace
from skewless.errors import NotFound
from skewless.timestamps import format_timestamp

if TYPE_CHECKING:
    # These load Arrow, DuckDB and Delta; the lists need none of them.
    from skewless.adapters.aggregate_check import CheckFindings
    from skewless.adapters.aggregate_lane_step import OpenedStream, StreamSource

EXIT_DIFFERS = 4
as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
stream_argument = click.argument("stream")


@click.group()
def aggregates() -> None:
    """Streams of events, and the features that are computed from them over windows of time."""


@aggregates.command("list")
@as_json_option
def list_streams(as_json: bool) -> None:
    """List the streams that are declared, with the views that they feed."""
    found = _streams(Workspace())
    if as_json:
        print_json([_summary(each) for each in found])
        return
    table = Table("stream", "view", "keys", "fields", "features", "lateness", box=None)
    for each in found:
        keys, fields = (", ".join(name for name, _ in some) for some in (each.keys, each.fields))
        table.add_row(each.name, each.view, keys, fields, str(len(each.features)), duration(each.lateness_us))
    _console().print(table)


@aggregates.command("show")
@stream_argument
@as_json_option
def show(stream: str, as_json: bool) -> None:
    """Show what a stream's events look like, and what is computed over which windows."""
    declaration = _declared(Workspace(), stream)
    if as_json:
        print_json(declaration.to_json() | {"digest": declaration.digest, "features": _features(declaration)})
        return
    console = _console()
    console.print(f"stream {declaration.name} feeds view {declaration.view}", highlight=False)
    console.print(f"events may be {duration(declaration.lateness_us)} late", highlight=False)
    columns = Table("column", "dtype", "null", box=None)
    for name, dtype, nullable in declaration.event_columns:
        columns.add_row(name, str(dtype), "yes" if nullable else "no")
    console.print(columns)
    features = Table("feature", "dtype", "aggregate", "column", "window", "every", box=None)
    for each in _features(declaration):
        features.add_row(*(str(each[name]) for name in ("name", "dtype", "kind", "column", "window", "every")))
    console.print(features)


@aggregates.command("backfill")
@stream_argument
@click.argument("events", type=click.Path(exists=True, path_type=Path))
def backfill_past(stream: str, events: Path) -> None:
    """Take in the EVENTS of a stream's past, before the stream begins, and make the rows that they give.

    EVENTS is a Parquet file, a folder of them, or a Delta table, with the stream's columns. An event is known when its
    column `created_time` says, without one when it happened. Cut off anywhere, run it again.
    """
    from skewless.adapters.aggregate_backfill import backfill
    from skewless.adapters.duckdb_aggregates import GivenEvents

    with _held(stream) as opened, step(f"events of `{stream}`", total=1) as shown:
        past = GivenEvents(opened.compiled.declaration, events)
        done = backfill(opened, past, progress=lambda share: shown.update(share))
        shown.note(f"{done.events} events, {done.rows} rows, {done.rebuilt.entities} entities online")


@aggregates.command("rebuild")
@stream_argument
def rebuild_states(stream: str) -> None:
    """Make the state of every entity anew from the stream's events, and the newest rows in the online store.

    The lane of the ingestion service does so by itself where the online store has lost what it held.
    """
    from skewless.adapters.aggregate_backfill import rebuild

    with _held(stream) as opened, step(f"states of `{stream}`") as shown:
        done = rebuild(opened)
        shown.note(f"{done.entities} entities from {done.events} events")


@aggregates.command("check")
@stream_argument
@as_json_option
def check_online(stream: str, as_json: bool) -> None:
    """Compare the online store with what the stream's events give, for every entity; exits 4 where they differ."""
    from skewless.adapters.aggregate_check import check

    with _opened(Workspace(), stream) as opened, step(f"entities of `{stream}`") as shown:
        findings = check(opened)
        shown.note(f"{findings.equal} of {findings.entities} equal")
    if as_json:
        print_json(_findings(findings))
    else:
        _show_findings(findings)
    if findings.differing or findings.missing:
        sys.exit(EXIT_DIFFERS)


@contextmanager
def _held(stream: str) -> Iterator["OpenedStream"]:
    """The stream, with its lane held so that nobody else changes it meanwhile. Raises Conflict where somebody does."""
    from skewless.adapters.lease_keeper import kept_leases
    from skewless.registry.leases import Leases, owner_text

    workspace = Workspace()
    with (
        workspace.kept(Leases, create=True) as leases,
        kept_leases(leases, [f"lane:events:{stream}"], owner_text()),
        _opened(workspace, stream) as opened,
    ):
        yield opened


@contextmanager
def _opened(workspace: Workspace, name: str) -> Iterator["OpenedStream"]:
    from skewless.adapters.aggregate_lane_step import OpenedStream
    from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore

    with closing(BlockingRedisOnlineStore(workspace.online_store_url)) as store:
        yield OpenedStream.of(_source(workspace, name), store)


def _source(workspace: Workspace, name: str) -> "StreamSource":
    from skewless.adapters.ingest_views import IngestViews
    from skewless.registry.definitions import Definitions

    with workspace.kept(Definitions, create=True) as definitions:
        views = IngestViews(definitions, None)
        views.refresh()
        return views.stream(name)


def _streams(workspace: Workspace) -> Sequence[StreamAggregates]:
    from skewless.registry.definitions import Definitions

    with workspace.kept(Definitions, create=True) as definitions:
        current = definitions.current()
    declared = {} if current is None else current.definitions.streams
    return [StreamAggregates.from_json(each.declaration) for _, each in sorted(declared.items())]


def _declared(workspace: Workspace, name: str) -> StreamAggregates:
    found = {each.name: each for each in _streams(workspace)}
    if name not in found:
        raise NotFound("stream", name, known=tuple(found), hint="declare it and run `skewless apply`")
    return found[name]


def _summary(declaration: StreamAggregates) -> dict[str, Any]:
    return {
        "name": declaration.name,
        "view": declaration.view,
        "keys": [name for name, _ in declaration.keys],
        "fields": [name for name, _ in declaration.fields],
        "features": [name for name, _ in declaration.features],
        "lateness": duration(declaration.lateness_us),
        "description": declaration.description,
        "owner": declaration.owner,
    }


def _features(declaration: StreamAggregates) -> list[dict[str, Any]]:
    dtypes = dict(declaration.features)
    return [
        {
            "name": each.name,
            "dtype": str(dtypes[each.name]),
            "kind": str(each.kind),
            "column": each.column,
            "window": duration(each.window.size_us) + (" complete" if each.window.is_complete else ""),
            "every": duration(each.window.every_us),
        }
        for each in declaration.aggregates
    ]


def _findings(findings: "CheckFindings") -> dict[str, Any]:
    return {
        "known": None if findings.known < 0 else format_timestamp(findings.known),
        "entities": findings.entities,
        "equal": findings.equal,
        "differing": findings.differing,
        "missing": findings.missing,
        "newer": findings.newer,
        "examples": [{"entity": each.entity, "features": list(each.features)} for each in findings.examples],
    }


def _show_findings(findings: "CheckFindings") -> None:
    console = _console()
    others = f"{findings.differing} differ, {findings.missing} missing, {findings.newer} changed meanwhile"
    console.print(f"{findings.equal} of {findings.entities} entities equal, {others}", highlight=False)
    for each in findings.examples:
        keys = ", ".join(f"{name}={value}" for name, value in each.entity.items())
        console.print(f"  {keys}: {', '.join(each.features)}", highlight=False, markup=False)


def _console() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=160)
