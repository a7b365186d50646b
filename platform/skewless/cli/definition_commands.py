"""`skewless features …`: what is registered, as gateways and readers see it, and what is declared about it."""

import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import click

from skewless.cli.definition_views import (
    aligned,
    contract_lines,
    entity_lines,
    entity_rows,
    feature_lines,
    feature_rows,
    head_text,
    on_demand_lines,
    service_rows,
    stream_lines,
    version_rows,
    view_lines,
    view_rows,
)
from skewless.cli.feature_search_command import search_features
from skewless.cli.freshness_command import freshness
from skewless.cli.lineage_commands import lineage
from skewless.cli.output import print_json, say, step
from skewless.cli.plan_views import finding_lines
from skewless.cli.repair_command import repair
from skewless.cli.workspace import Workspace
from skewless.errors import NotFound
from skewless.features.definition_metadata import DefinitionSet
from skewless.registry.definitions import Definitions
from skewless.registry.snapshots import FeatureSnapshot
from skewless.stack import feature_watch
from skewless.stack.feature_store_file import feast_address
from skewless.timestamps import format_timestamp

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
_SHORT = 12
_HISTORY_MAX = 1_000


@click.group()
def features() -> None:
    """What is registered, what is declared about it, and whether the online store holds it."""


@features.command("list")
@click.option("--features", "each_feature", is_flag=True, help="A line for every feature, with type, unit and range.")
@click.option("--entities", is_flag=True, help="A line for every entity.")
@_as_json
def list_features(each_feature: bool, entities: bool, as_json: bool) -> None:
    """List the feature services and feature views that are registered: what each reads, asks for and promises."""
    workspace = Workspace()
    snapshot = workspace.feature_snapshot()
    definitions = _known(workspace)
    if as_json:
        print_json({**_head_json(snapshot), **snapshot.document(), "definitions": definitions.to_json()})
        return
    if each_feature or entities:
        click.echo(aligned(feature_rows(definitions) if each_feature else entity_rows(definitions)))
        return
    click.echo(aligned(service_rows(snapshot.registry)))
    for name, reason in sorted(snapshot.registry.refusals.items()):
        click.echo(f"{name}  refused: {' '.join(reason.split())}")
    click.echo("")
    click.echo(aligned(view_rows(definitions)))
    _tell_findings(snapshot)
    say(head_text(snapshot))


@features.command("show")
@click.argument("name")
@_as_json
def show_features(name: str, as_json: bool) -> None:
    """Show the feature service, view, feature (`view:feature`), entity or stream NAME.

    Of a feature service: its views, their join keys and ttl, and every feature's dtype.
    """
    workspace = Workspace()
    snapshot = workspace.feature_snapshot()
    if name in snapshot.registry.contracts or name in snapshot.registry.refusals:
        contract = snapshot.registry.contract(name)
        if as_json:
            print_json(contract.to_json())
            return
        for line in contract_lines(contract):
            click.echo(line)
        say(f"definitions {contract.definitions_digest[:_SHORT]}; {head_text(snapshot)}")
        return
    definitions = _known(workspace)
    shown = _shown(definitions, name)
    if shown is None:
        known = tuple(sorted({*snapshot.registry.contracts, *snapshot.registry.refusals, *definitions.views}))
        raise NotFound("feature service, view, feature, entity or stream", name, known=known, hint=_SEARCH)
    if as_json:
        print_json(shown.data)
        return
    for line in shown.lines():
        click.echo(line)


@features.command("compile")
@_as_json
def compile_features(as_json: bool) -> None:
    """Store the registry snapshot of what is registered with Feast now, after a plain `feast apply`.

    Exit code 2: the registration checks refuse it; the last snapshot stays.
    """
    with step("Compiling the registered definitions") as progress:
        snapshot = Workspace().compile_features(reason="features compile")
        progress.note(f"version {snapshot.head.version}, {len(snapshot.registry.contracts)} feature services")
    _tell_findings(snapshot)
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


@features.command("history")
@click.option("--limit", type=click.IntRange(1, _HISTORY_MAX), default=20, show_default=True, help="How many at most.")
@_as_json
def history(limit: int, as_json: bool) -> None:
    """List the versions of the definitions, newest first: who applied what, when and why."""
    workspace = Workspace()
    with workspace.kept(Definitions) as versions:
        listed = versions.versions(feast_address(workspace.settings).project, limit=limit)
    if as_json:
        print_json([each.to_json() for each in listed])
        return
    click.echo(aligned(version_rows(listed)))


features.add_command(search_features)
features.add_command(lineage)
features.add_command(freshness)
features.add_command(repair)

_SEARCH = "`skewless features search` finds names by their words"
_MAKE = "`skewless apply` and `skewless features compile` make one"


def in_force(workspace: Workspace) -> DefinitionSet:
    """The definitions that were applied last. Raises NotFound where none were."""
    project = feast_address(workspace.settings).project
    with workspace.kept(Definitions) as versions:
        current = versions.current(project)
    if current is None:
        raise NotFound("version of the definitions of project", project, hint=_MAKE)
    return current.definitions


def _known(workspace: Workspace) -> DefinitionSet:
    """As `in_force`; none, and a word about it, where a snapshot was made before versions were kept."""
    try:
        return in_force(workspace)
    except NotFound as error:
        say(f"{error.message}; {error.hint}")
        return DefinitionSet(feast_address(workspace.settings).project)


@dataclass(frozen=True)
class _Shown:
    """One definition: in plain data, and in lines."""

    data: object
    lines: Callable[[], Iterator[str]]


def _shown(definitions: DefinitionSet, name: str) -> _Shown | None:
    """What is called so; None where nothing is."""
    plain = definitions.to_json()

    def data(kind: str) -> object:
        return next(each for each in plain[kind] if each["name"] == name)

    if name in definitions.views:
        view = definitions.views[name]
        return _Shown(data("views"), lambda: view_lines(view, definitions))
    if name in definitions.on_demand:
        computed = definitions.on_demand[name]
        return _Shown(data("on_demand"), lambda: on_demand_lines(computed))
    if name in definitions.entities:
        entity = definitions.entities[name]
        return _Shown(data("entities"), lambda: entity_lines(entity))
    if name in definitions.streams:
        stream = definitions.streams[name]
        return _Shown(data("streams"), lambda: stream_lines(stream))
    return _shown_feature(definitions, name)


def _shown_feature(definitions: DefinitionSet, name: str) -> _Shown | None:
    plain = definitions.to_json()
    for kind, views in (("views", definitions.views), ("on_demand", definitions.on_demand)):
        for view in views.values():
            for feature in view.features:
                if name in (f"{view.name}:{feature.name}", f"{view.name}__{feature.name}"):
                    of_view = next(each for each in plain[kind] if each["name"] == view.name)
                    data = next(each for each in of_view["features"] if each["name"] == feature.name)
                    return _Shown({"view": view.name, **data}, partial(feature_lines, view, feature))
    return None


def _tell_findings(snapshot: FeatureSnapshot) -> None:
    for finding in snapshot.findings:
        say("\n".join(finding_lines(finding)))


def _head_json(snapshot: FeatureSnapshot) -> dict[str, object]:
    head = snapshot.head
    return {
        "project": head.project,
        "version": head.version,
        "digest": head.digest,
        "compiled_at": format_timestamp(head.compiled_at),
        "checked_at": format_timestamp(head.checked_at),
    }
