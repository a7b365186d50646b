"""`skewless features search`: definitions by the words in them."""

import click

from skewless.cli.definition_views import aligned
from skewless.cli.output import print_json, say
from skewless.cli.workspace import Workspace
from skewless.features.definition_search import search
from skewless.registry.definitions import Definitions
from skewless.stack.feature_store_file import feast_address

_FOUND_MAX = 1_000


@click.command("search")
@click.argument("words", nargs=-1, required=True)
@click.option("--limit", type=click.IntRange(1, _FOUND_MAX), default=20, show_default=True, help="How many at most.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
def search_features(words: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Find definitions in whose name, description, owner, unit or tags all WORDS occur, best match first.

    Exit code 1: nothing was found.
    """
    workspace = Workspace()
    with workspace.kept(Definitions) as versions:
        current = versions.current(feast_address(workspace.settings).project)
    found = () if current is None else search(current.definitions, words, limit=limit)
    if as_json:
        print_json([each.to_json() for each in found])
    elif found:
        rows = [("name", "kind", "owner", "description")]
        click.echo(aligned([*rows, *((each.name, each.kind, each.owner or "-", each.description) for each in found)]))
    if not found:
        say("nothing is called or described so; `skewless features list --features` lists everything")
        click.get_current_context().exit(1)
