"""`skewless entity …`: delete all that is kept of a person or thing, and show the receipts."""

from pathlib import Path

import click

from skewless.cli.arguments import actor, moment
from skewless.cli.output import print_json, say, step
from skewless.cli.workspace import Workspace
from skewless.errors import InvalidRequest
from skewless.features.chosen_entities import ChosenEntities
from skewless.registry.entity_deletions import Deletions, DeletionState
from skewless.registry.repository import system_clock

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
_PARTLY_EXIT = 3


@click.group()
def entity() -> None:
    """Delete all that is kept of an entity, and show the receipts."""


@entity.command("delete")
@click.argument("keys", nargs=-1, required=True, metavar="KEY=VALUE…")
@click.option("--views", default="", metavar="VIEW,…", help="Only these views' rows; the prediction log stays.")
@click.option(
    "--before", metavar="TIME", help="Only what was known until then (RFC 3339 or a date); now where not given."
)
@click.option("--for-ever", is_flag=True, help="Keep out what becomes known later too, until `skewless entity lift`.")
@click.option(
    "--also",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Also rows of this Parquet file, which no view reads; repeatable.",
)
@click.option("--dry-run", is_flag=True, help="Count what would go, place by place, and delete nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--reason", default="", help="Why, for receipt and audit trail; without the person's name.")
@_as_json
def delete(
    keys: tuple[str, ...],
    views: str,
    before: str | None,
    for_ever: bool,
    also: tuple[Path, ...],
    dry_run: bool,
    yes: bool,
    reason: str,
    as_json: bool,
) -> None:
    """Delete every row about the entities with these join keys, wherever it lies, and write a receipt.

    Online store, sources, batches on their way, quarantine, prediction log and the copies in database and reports. A
    part of a composite key means every entity that has it. Old rows are kept out from then on. What was cut off goes
    on when it is run again. Exit code 3: something was away or is left, which the receipt names.
    """
    from skewless.cli.entity_run import EntityScope, entity_work
    from skewless.cli.entity_views import looked_json, looked_lines, receipt_lines

    scope = EntityScope(
        _chosen(keys),
        tuple(each.strip() for each in views.split(",") if each.strip()),
        None if before is None else moment(before, option="--before"),
        for_ever,
        also,
    )
    with entity_work(Workspace(), scope) as work:
        if dry_run or not yes:
            with step("Looking for it everywhere") as progress:
                looked, not_reached = work.look(scope.before or system_clock())
                progress.note(f"{looked.count:,} rows")
            if dry_run and as_json:
                print_json(looked_json(looked, not_reached))
                return
            for line in looked_lines(looked, not_reached):
                click.echo(line, err=as_json)
            if dry_run:
                return
            click.confirm(f"Delete {looked.count:,} rows?", abort=True, err=as_json)
        with step("Deleting") as progress:
            record = work.delete(reason=reason, progress=progress.note)
            progress.note(f"{sum(record.found.values()):,} rows; {record.state.value}")
    if as_json:
        print_json(record.receipt)
    else:
        for line in receipt_lines(record):
            click.echo(line)
    if record.state is not DeletionState.DONE:
        say("something is left: see the receipt, and run the same command again")
        click.get_current_context().exit(_PARTLY_EXIT)


@entity.command("receipts")
@click.argument("keys", nargs=-1, metavar="[KEY=VALUE…]")
@click.option("--limit", type=click.IntRange(min=1, max=10_000), default=20, show_default=True, help="Newest so many.")
@_as_json
def receipts(keys: tuple[str, ...], limit: int, as_json: bool) -> None:
    """List deletions, newest first; with KEY=VALUE those of exactly this entity, which only its keys can find."""
    from skewless.cli.entity_views import list_lines

    with Workspace().kept(Deletions) as deletions:
        found = deletions.deletions(_chosen(keys) if keys else None, limit=limit)
    if as_json:
        print_json([each.to_json() for each in found])
        return
    for line in list_lines(found):
        click.echo(line)


@entity.command("show")
@click.argument("deletion")
@_as_json
def show(deletion: str, as_json: bool) -> None:
    """Show a deletion and its receipt, by its id or the beginning or end of it."""
    from skewless.cli.entity_views import receipt_lines

    with Workspace().kept(Deletions) as deletions:
        found = deletions.deletion(deletion)
    if as_json:
        print_json(found.receipt or found.to_json())
        return
    for line in receipt_lines(found):
        click.echo(line)


@entity.command("lift")
@click.argument("deletion")
@click.option("--reason", default="", help="Why, for the audit trail.")
def lift(deletion: str, reason: str) -> None:
    """Let rows in again that a deletion keeps out; what it deleted stays deleted."""
    with Workspace().kept(Deletions) as deletions:
        found = deletions.lift(deletion, actor=actor(), reason=reason)
    click.echo(f"deletion {found.id} keeps nothing out any more")


def _chosen(given: tuple[str, ...]) -> ChosenEntities:
    found: dict[str, str] = {}
    for each in given:
        name, separator, value = each.partition("=")
        if not separator or not name or not value or name in found:
            # Not what was given: a value must not get into anybody's terminal log by a slip of the keyboard.
            raise InvalidRequest("an argument names no value", path="KEY=VALUE", allowed="KEY=VALUE, each key once")
        found[name] = value
    return ChosenEntities(found)
