"""`skewless features freshness`: how old features are, from their source to what callers got."""

from contextlib import closing

import click

from skewless.cli.arguments import moment
from skewless.cli.output import print_json
from skewless.cli.workspace import Workspace
from skewless.errors import NotFound, Unavailable
from skewless.features.freshness import Standing

EXIT_NOT_FRESH = 1
"""With --check, where a view is late or its source has stopped."""


@click.command()
@click.argument("view", required=False)
@click.option(
    "--as-of", "as_of", metavar="TIME", help="RFC 3339 time or a date (UTC midnight); see below where not given."
)
@click.option("--check", is_flag=True, help="Exit with 1 where a view is late or its source has stopped.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
def freshness(view: str | None, as_of: str | None, check: bool, as_json: bool) -> None:
    """Show how old the features of VIEW are, or of every view, against their targets.

    Ages are those of event times: of the source, of the online store (its newest row, and a sample of entities), and
    as callers got them. They are told at the present, or, of views that are only read by traffic which replays a past,
    at its newest moment. Looks at the online store where there is one.
    """
    from skewless.adapters.freshness_look import FreshnessLook
    from skewless.cli.freshness_views import freshness_json, show

    workspace = Workspace()
    with workspace.snapshots(create=True):
        pass  # the home's own database is there, and of the newest schema
    look = FreshnessLook(workspace.settings.registry_url, workspace.artifacts, online_store=_store(workspace))
    with closing(look):
        found = look.look(as_of=None if as_of is None else moment(as_of, option="--as-of"), only=view)
        if view is not None and not found.views:
            raise NotFound("feature view", view, known=look.views, hint="`skewless features list`")
    if as_json:
        print_json(
            {
                "definitions": found.number,
                "views": [freshness_json(each) for each in found.views],
                "problem": found.traffic_problem,
            }
        )
    else:
        show(found.views, found.traffic_problem)
    if check and any(each.standing in (Standing.LATE, Standing.STOPPED) for each in found.views):
        click.get_current_context().exit(EXIT_NOT_FRESH)


def _store(workspace: Workspace) -> str | None:
    """The online store's URL; None where there is none to ask."""
    try:
        return workspace.online_store_url
    except Unavailable:
        return None
