"""`skewless apply` and `skewless materialize`: feature definitions and their values in the online store."""

from contextlib import closing

import click

from skewless.adapters.redis_maintenance import OnlineStoreMaintenance
from skewless.cli.arguments import moment
from skewless.cli.output import print_json, say, step
from skewless.cli.workspace import Workspace
from skewless.registry.repository import system_clock
from skewless.timestamps import format_timestamp

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")


@click.command()
@_as_json
def apply(as_json: bool) -> None:
    """Register the repository's entities, feature views and feature services with Feast.

    Adds and updates; removes nothing. Needs no running stack.
    """
    with step("Registering feature definitions") as progress:
        applied = Workspace().apply()
        progress.note(
            f"{len(applied.entities)} entities, {len(applied.feature_views)} feature views, "
            f"{len(applied.feature_services)} feature services"
        )
    if as_json:
        print_json(
            {
                "entities": applied.entities,
                "feature_views": applied.feature_views,
                "feature_services": applied.feature_services,
            }
        )


@click.command()
@click.option("--as-of", "as_of", metavar="TIME", help="RFC 3339 time or a date (UTC midnight); now where not given.")
@click.option("--reset", is_flag=True, help="Empty the project's online store first; needed to go back in time.")
@_as_json
def materialize(as_of: str | None, reset: bool, as_json: bool) -> None:
    """Write the newest row of every entity that was visible at a moment into the online store.

    A stored row is only replaced by one with a later event time, so going back in time, and correcting a row
    under its old event time, need --reset.
    """
    as_of_us = system_clock() if as_of is None else moment(as_of, option="--as-of")
    workspace = Workspace()
    views, removed, entities = materialize_at(workspace, as_of_us, reset=reset)
    if as_json:
        print_json(
            {"as_of": format_timestamp(as_of_us), "views": views, "entities_removed": removed, "entities": entities}
        )
    else:
        say(f"{entities:,} entities of {len(views)} feature views are as they were at {format_timestamp(as_of_us)}")


def materialize_at(workspace: Workspace, as_of_us: int, *, reset: bool) -> tuple[tuple[str, ...], int, int]:
    """Materialize as of a moment; the views written, the entities removed before, the entities stored after."""
    repository = workspace.features()
    with closing(OnlineStoreMaintenance(workspace.online_store_url, repository.project)) as online_store:
        removed = 0
        if reset:
            with step("Emptying the online store") as progress:
                removed = online_store.clear()
                progress.note(f"{removed:,} entities removed")
        with step(f"Materializing features as of {format_timestamp(as_of_us)}") as progress:
            views = repository.materialize(as_of_us, progress.note)
            entities = online_store.entities()
            progress.note(f"{entities:,} entities of {len(views)} feature views")
    return views, removed, entities
