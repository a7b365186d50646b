"""`skewless log …`: what became of the prediction log's segments, and what is done to its store.

Only one process writes to the store: where a shipper runs it does what a command asks for, else the command itself.
Questions to the log are in `log_query_commands.py`, consumers of its stream in `log_stream_commands.py`.
"""

import click

from skewless.adapters.shipper_requests import Work
from skewless.cli.arguments import actor
from skewless.cli.log_query_commands import QUERY_COMMANDS
from skewless.cli.log_stream_commands import STREAM_COMMANDS
from skewless.cli.log_work import LogWork
from skewless.cli.output import print_json, say, step
from skewless.cli.workspace import Workspace
from skewless.errors import InvalidRequest
from skewless.limits import LOG_DELETION_WAIT_S

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
_WORK_WAIT_S = 3_600.0


@click.group()
def log() -> None:
    """The prediction log: what it holds, where its segments are, and what is kept of it."""


for _command in (*QUERY_COMMANDS, *STREAM_COMMANDS):
    log.add_command(_command)


@log.command("status")
@_as_json
def status(as_json: bool) -> None:
    """Show which segments wait, whether a shipper runs, and what the store holds."""
    workspace = Workspace()
    from skewless.cli.log_status import log_status, status_lines

    found = log_status(workspace.home.predictions, workspace.settings.log_store_address)
    if as_json:
        print_json(found)
        return
    for line in status_lines(found):
        click.echo(line)


@log.command("ship")
@_as_json
def ship(as_json: bool) -> None:
    """Ship every sealed segment now, instead of when its turn comes.

    Exit code 3: some could not be shipped; they wait, and are tried again.
    """
    with step("Shipping") as progress:
        result = LogWork(Workspace()).done(Work.SHIP, wait_s=_WORK_WAIT_S)
        left = result["segments"]
        progress.note(f"{left} segments still wait" if left else "every sealed segment is with every sink")
    if as_json:
        print_json(result)
    if left:
        say("`skewless log status` says why they wait")
        click.get_current_context().exit(3)


@log.command("compact")
@_as_json
def compact(as_json: bool) -> None:
    """Put the small files of every day together now, also of days that may still grow."""
    with step("Putting files together") as progress:
        done = LogWork(Workspace()).done(Work.COMPACT, wait_s=_WORK_WAIT_S)["compacted"]
        progress.note(f"{sum(each['files'] for each in done)} files are {len(done)} now" if done else "nothing to do")
    if as_json:
        print_json(done)


@log.command("retain")
@click.option("--days", type=click.IntRange(min=1), help="Keep so many days, instead of what the settings say.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_as_json
def retain(days: int | None, yes: bool, as_json: bool) -> None:
    """Drop the days that the settings of the shipper, or --days, no longer keep; their files are removed."""
    if not yes:
        click.confirm(f"Drop what is older than {'the settings say' if days is None else f'{days} days'}?", abort=True)
    with step("Dropping old days") as progress:
        done = LogWork(Workspace()).done(Work.RETAIN, days=days, wait_s=_WORK_WAIT_S)["dropped"]
        progress.note(f"{sum(each['rows'] for each in done)} rows of {len(done)} tables")
    if as_json:
        print_json(done)


@log.command("delete")
@click.argument("endpoint")
@click.option(
    "--key", "keys", multiple=True, required=True, metavar="NAME=VALUE", help="A join key of the entity; once for each."
)
@click.option("--dry-run", is_flag=True, help="Count what would be deleted, and delete nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--reason", default="", help="Why, for the audit trail.")
@click.option(
    "--wait", "wait_s", type=click.FloatRange(min=0), default=LOG_DELETION_WAIT_S, show_default=True,
    help="Seconds to wait for segments that are not shipped yet.",
)  # fmt: skip
@_as_json
def delete(
    endpoint: str, keys: tuple[str, ...], dry_run: bool, yes: bool, reason: str, wait_s: float, as_json: bool
) -> None:
    """Delete every prediction of an entity that ENDPOINT made until now, in any role, and every outcome of them.

    They are gone from the store's files when this ends, and the receipt says how many there were. Segments that are
    not shipped yet are shipped first; where that takes longer than --wait the receipt says `pending`, and the shipper
    deletes as soon as it can. Values of hashed keys are given as they are.
    """
    workspace = Workspace()
    entity = _keys(keys)
    work = LogWork(workspace)
    if dry_run or not yes:
        counted = work.done(Work.DELETE, endpoint=endpoint, keys=entity, dry_run=True, wait_s=wait_s)
        if dry_run:
            _show_receipt(counted, as_json=as_json)
            return
        click.confirm(
            f"Delete {counted['predictions']} predictions and {counted['outcomes']} outcomes of `{endpoint}`?",
            abort=True,
        )
    with step("Deleting") as progress:
        receipt = work.receipt(endpoint, entity, wait_s=wait_s)
        progress.note("waits for segments that are not shipped yet" if receipt["pending"] else "done")
    with workspace.registry(create=True) as registry:
        # The values stay out of the trail: they are what was to be forgotten.
        detail = {name: value for name, value in receipt.items() if name != "dry_run"} | {"keys": sorted(entity)}
        registry.note(f"log/{endpoint}", "delete", actor=actor(), reason=reason, detail=detail)
    _show_receipt(receipt, as_json=as_json)


def _keys(given: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for each in given:
        name, separator, value = each.partition("=")
        if not separator or not name or name in found:
            raise InvalidRequest(f"`{each}` names no value", path="--key", allowed="NAME=VALUE, each name once")
        found[name] = value
    return found


def _show_receipt(receipt: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        print_json(receipt)
        return
    verb = "would be deleted" if receipt.get("dry_run") else "deleted"
    if receipt.get("pending"):
        click.echo(f"request {receipt['request']}: pending; the shipper deletes once older segments are shipped")
        return
    click.echo(f"{receipt['predictions']} predictions and {receipt['outcomes']} outcomes {verb}")
    click.echo(f"request {receipt['request']}")
