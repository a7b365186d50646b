"""`skewless features lineage`: where something comes from and who uses it, also for catalogues of lineage."""

import json

import click

from skewless.cli.lineage_views import lineage_lines
from skewless.cli.output import print_json, say
from skewless.cli.workspace import Workspace
from skewless.errors import InvalidRequest
from skewless.features.lineage import lineage_graph, tree_json
from skewless.registry.repository import system_clock

_SEND_S = 60.0
"""For all events that `--send` sends: somebody waits for it."""


@click.command()
@click.argument("name", required=False)
@click.option(
    "--openlineage", is_flag=True, help="Print what is declared and served as OpenLineage events, a line each."
)
@click.option("--send", is_flag=True, help="Post what SKEWLESS_OPENLINEAGE_URL has not been told yet.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
def lineage(name: str | None, openlineage: bool, send: bool, as_json: bool) -> None:
    """Show what NAME is made of and what is made of it, from source tables to endpoints.

    NAME is a source, stream, entity, view, feature (`view:feature`), feature service, bundle (the beginning of its
    digest) or endpoint; `kind:name` where one name stands for several, such as `entity:route`.
    """
    # Loads NumPy and all that reads bundles, which listing features does without.
    from skewless.cli.definition_apply import read_bundles
    from skewless.cli.definition_commands import in_force
    from skewless.cli.lineage_sending import current_events, send_pending

    if sum([name is not None, openlineage, send]) != 1:
        raise InvalidRequest("one thing is asked for at a time", path="NAME", allowed="NAME, --openlineage or --send")
    workspace = Workspace()
    if send:
        say(f"{send_pending(workspace, within_s=_SEND_S)} events were taken")
        return
    definitions, bundles = in_force(workspace), read_bundles(workspace)
    if openlineage:
        for event in current_events(definitions, bundles, system_clock()):
            click.echo(json.dumps(event, ensure_ascii=False))
        return
    graph = lineage_graph(definitions, bundles.reads)
    assert name is not None, "one of three was given, and it is not one of the other two"
    node = graph.find(name)
    if as_json:
        print_json(tree_json(graph, node))
        return
    click.echo("\n".join(lineage_lines(graph, node)))
