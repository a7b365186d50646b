"""`skewless apply`, `materialize` and `features …`: feature definitions and their values in the online store."""

import signal
import threading
from collections.abc import Sequence
from contextlib import closing

import click

from skewless.cli.arguments import moment
from skewless.cli.output import print_json, say, step
from skewless.cli.repair_command import repair
from skewless.cli.workspace import Workspace
from skewless.features.contract import FeatureContract
from skewless.features.feature_checks import Finding
from skewless.registry.repository import system_clock
from skewless.registry.snapshots import FeatureSnapshot
from skewless.stack import feature_watch
from skewless.timestamps import SECOND_US, format_timestamp

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
_SHORT = 12


@click.command()
@_as_json
def apply(as_json: bool) -> None:
    """Register the repository's entities, feature views and feature services with Feast.

    Adds and updates; removes nothing. Also stores the registry snapshot that gateways follow. Needs no running stack.
    """
    workspace = Workspace()
    with step("Registering feature definitions") as progress:
        applied = workspace.apply()
        progress.note(
            f"{len(applied.entities)} entities, {len(applied.feature_views)} feature views, "
            f"{len(applied.feature_services)} feature services"
        )
    _tell_findings(workspace.feature_snapshot().findings)
    if as_json:
        print_json(
            {
                "entities": applied.entities,
                "feature_views": applied.feature_views,
                "feature_services": applied.feature_services,
            }
        )


@click.group()
def features() -> None:
    """What is registered with Feast, as gateways and readers see it, and whether the online store holds it."""


@features.command("list")
@_as_json
def list_features(as_json: bool) -> None:
    """List the feature services of the registry snapshot: what each reads, what it asks for, or why it cannot."""
    snapshot = Workspace().feature_snapshot()
    if as_json:
        print_json({**_head_json(snapshot), **snapshot.document()})
        return
    lines = [("service", "views", "features", "join keys", "request fields")]
    for name, contract in sorted(snapshot.registry.contracts.items()):
        lines.append((name, *_counts(contract), *_asked(contract)))
    click.echo(_aligned(lines))
    for name, reason in sorted(snapshot.registry.refusals.items()):
        click.echo(f"{name}  refused: {' '.join(reason.split())}")
    _tell_findings(snapshot.findings)
    say(_head_text(snapshot))


@features.command("show")
@click.argument("service")
@_as_json
def show_features(service: str, as_json: bool) -> None:
    """Show what the feature service SERVICE reads: its views, their join keys and ttl, and every feature's dtype."""
    snapshot = Workspace().feature_snapshot()
    contract = snapshot.registry.contract(service)
    if as_json:
        print_json(contract.to_json())
        return
    for view in contract.views:
        keys = ", ".join(f"{key.name} {key.dtype}" for key in view.join_keys) or "no entity"
        ttl = f"ttl {view.ttl_us / SECOND_US:g} s" if view.ttl_us else "no ttl"
        click.echo(f"{view.name} [{keys}], {ttl}")
        click.echo(_aligned([(f"  {feature.name}", str(feature.dtype)) for feature in view.features]))
    for computed in contract.on_demand:
        click.echo(
            f"{computed.name}, on demand: {computed.function} of {', '.join(each for _, each in computed.inputs)}"
        )
        click.echo(_aligned([(f"  {feature.name}", str(feature.dtype)) for feature in computed.features]))
    if contract.request_fields:
        click.echo("request fields")
        click.echo(_aligned([(f"  {field.name}", str(field.dtype)) for field in contract.request_fields]))
    say(f"definitions {contract.definitions_digest[:_SHORT]}; {_head_text(snapshot)}")


@features.command("compile")
@_as_json
def compile_features(as_json: bool) -> None:
    """Store the registry snapshot of what is registered with Feast now, after a plain `feast apply`.

    Exit code 2: the registration checks refuse it; the last snapshot stays.
    """
    with step("Compiling the registered definitions") as progress:
        snapshot = Workspace().compile_features(reason="features compile")
        progress.note(f"version {snapshot.head.version}, {len(snapshot.registry.contracts)} feature services")
    _tell_findings(snapshot.findings)
    if as_json:
        print_json({**_head_json(snapshot), **snapshot.document()})


@features.command("watch")
@click.option(
    "--every",
    "every_s",
    type=click.FloatRange(min=0.1, max=3600),
    default=feature_watch.EVERY_S,
    show_default=True,
    metavar="SECONDS",
    help="Between two looks.",
)
def watch_features(every_s: float) -> None:
    """Compile again whenever Feast's registry changes, until interrupted.

    A running embedded stack does so by itself; this is for gateways that run elsewhere.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    feature_watch.watch(Workspace().settings, stop, say, every_s=every_s)


features.add_command(repair)


@click.command()
@click.option("--as-of", "as_of", metavar="TIME", help="RFC 3339 time or a date (UTC midnight); now where not given.")
@click.option("--reset", is_flag=True, help="Empty the project's online store first; needed to go back in time.")
@click.option("--allow-unreviewed", is_flag=True, help="Rely on quality suites that nobody has reviewed.")
@_as_json
def materialize(as_of: str | None, reset: bool, allow_unreviewed: bool, as_json: bool) -> None:
    """Write the newest row of every entity that was visible at a moment into the online store.

    A stored row is only replaced by one with a later event time, so going back in time, and correcting a row
    under its old event time, need --reset. Views with a quality suite are judged first: failing rows are set aside or
    nothing is written, as the suite says; see `skewless quality`.
    """
    as_of_us = system_clock() if as_of is None else moment(as_of, option="--as-of")
    workspace = Workspace()
    views, removed, entities = materialize_at(workspace, as_of_us, reset=reset, allow_unreviewed=allow_unreviewed)
    if as_json:
        print_json(
            {"as_of": format_timestamp(as_of_us), "views": views, "entities_removed": removed, "entities": entities}
        )
    else:
        say(f"{entities:,} entities of {len(views)} feature views are as they were at {format_timestamp(as_of_us)}")


def materialize_at(
    workspace: Workspace, as_of_us: int, *, reset: bool, allow_unreviewed: bool = False
) -> tuple[tuple[str, ...], int, int]:
    """Materialize as of a moment; the views written, the entities removed before, the entities stored after.

    Rows of views with a quality suite are judged first: BatchRefused, before anything is emptied or written, where a
    batch stops.
    """
    # Redis' client takes longer to import than `features list` takes altogether.
    from skewless.adapters.redis_maintenance import OnlineStoreMaintenance
    from skewless.cli.quality_gate import gated

    with (
        gated(workspace, as_of_us, allow_unreviewed=allow_unreviewed) as (repository, judged),
        closing(OnlineStoreMaintenance(workspace.online_store_url, repository.project)) as online_store,
    ):
        removed = 0
        if reset:
            with step("Emptying the online store") as progress:
                removed = online_store.clear()
                progress.note(f"{removed:,} entities removed")
        with step(f"Materializing features as of {format_timestamp(as_of_us)}") as progress:
            views = repository.materialize(as_of_us, progress.note, judged)
            entities = online_store.entities()
            progress.note(f"{entities:,} entities of {len(views)} feature views")
    return views, removed, entities


def _tell_findings(findings: Sequence[Finding]) -> None:
    for finding in findings:
        say(f"{finding.severity}: {finding.message} ({finding.code}). {finding.hint}")


def _counts(contract: FeatureContract) -> tuple[str, str]:
    """How many views and features a contract reads."""
    features = [view.features for view in contract.views] + [view.features for view in contract.on_demand]
    return str(len(features)), str(sum(map(len, features)))


def _asked(contract: FeatureContract) -> tuple[str, str]:
    """What a caller gives: join keys and request fields."""
    keys, fields = (key.name for key in contract.join_keys), (field.name for field in contract.request_fields)
    return ", ".join(keys) or "-", ", ".join(fields) or "-"


def _aligned(lines: Sequence[tuple[str, ...]]) -> str:
    """Lines of cells as one text, each column as wide as its widest cell."""
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _head_json(snapshot: FeatureSnapshot) -> dict[str, object]:
    head = snapshot.head
    return {
        "project": head.project,
        "version": head.version,
        "digest": head.digest,
        "compiled_at": format_timestamp(head.compiled_at),
        "checked_at": format_timestamp(head.checked_at),
    }


def _head_text(snapshot: FeatureSnapshot) -> str:
    head = snapshot.head
    return (
        f"project {head.project}, snapshot {head.version} of {format_timestamp(head.compiled_at)}, "
        f"last compared with Feast's registry at {format_timestamp(head.checked_at)}"
    )
