"""`skewless log consumers` and `forget-group`: who reads the stream of sealed segments, and how far each group is."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from skewless.cli.output import print_json, say
from skewless.cli.workspace import Workspace
from skewless.errors import InvalidRequest, NotFound
from skewless.limits import MIB, STREAM_BYTES_MIN
from skewless.registry.consumed_segments import ConsumedSegments

if TYPE_CHECKING:
    # Loads Arrow, which the other commands of the group need not wait for.
    from skewless.adapters.segment_stream import GroupState, SegmentStream

_URL_VARIABLE, _NAME_VARIABLE = "SKEWLESS_SHIPPER_STREAM", "SKEWLESS_SHIPPER_STREAM_NAME"
_where = click.option(
    "--stream", "url", metavar="URL", help=f"The stream. Not given: {_URL_VARIABLE}, or the running stack's Valkey."
)
_name = click.option("--name", metavar="KEY", help=f"Its key in Valkey. Not given: {_NAME_VARIABLE}, or skewless.log.")
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")


@click.command("consumers")
@_where
@_name
@_as_json
def consumers(url: str | None, name: str | None, as_json: bool) -> None:
    """Show the groups that read the stream of segments: what they have still to read, and what they missed."""
    workspace = Workspace()
    with _opened(workspace, url, name) as stream:
        state = stream.state()
    if not state.bytes_max:
        raise InvalidRequest(
            "a Kafka topic does not say here who reads it",
            path="--stream",
            hint="ask Kafka: `kafka-consumer-groups.sh --describe --all-groups`",
        )
    missed = _missed(workspace, state.groups)
    if as_json:
        groups = [_document(group, missed[group.name]) for group in state.groups]
        print_json({"parts": state.entries, "bytes": state.bytes, "groups": groups})
        return
    table = Table("group", "members", "unread parts", "unacknowledged", "missed segments")
    for group in state.groups:
        unread = "unknown" if group.unread is None else str(group.unread)
        table.add_row(group.name, str(group.consumers), unread, str(group.pending), str(missed[group.name]))
    say(f"{state.entries} parts in {state.bytes / MIB:.1f} MiB")
    Console().print(table if state.groups else "no group reads the stream")


@click.command("forget-group")
@click.argument("group")
@_where
@_name
@click.option("--yes", is_flag=True, help="Do not ask.")
def forget_group(group: str, url: str | None, name: str | None, yes: bool) -> None:
    """Forget a group that nobody reads for any more, so that the stream waits for it no longer.

    A consumer that comes back under its name begins with the oldest that the stream holds; what it has taken before it
    does not take again.
    """
    if not yes:
        click.confirm(f"Forget how far group `{group}` has read?", abort=True)
    with _opened(Workspace(), url, name) as stream:
        if not stream.forget_group(group):
            raise NotFound("group of consumers", group, known=tuple(each.name for each in stream.state().groups))
    say(f"group `{group}` is forgotten")


STREAM_COMMANDS = (consumers, forget_group)
"""What the group `skewless log` has from here."""


@contextmanager
def _opened(workspace: Workspace, url: str | None, name: str | None) -> Iterator["SegmentStream"]:
    from skewless.adapters.stream_opening import STREAM_NAME, open_segment_stream

    where = url or os.environ.get(_URL_VARIABLE) or workspace.stack().valkey_url
    key = name or os.environ.get(_NAME_VARIABLE) or STREAM_NAME
    # Nothing is published from here, so that the bound does not matter.
    with closing(open_segment_stream(where, name=key, bytes_max=STREAM_BYTES_MIN)) as stream:
        yield stream


def _missed(workspace: Workspace, groups: tuple["GroupState", ...]) -> dict[str, int]:
    """Segments by group that lie in gaps of what it has taken, as far as the registry's database knows."""
    with workspace.kept(ConsumedSegments) as ledger:
        return {group.name: sum(gap.last - gap.first + 1 for gap in ledger.gaps(group.name)) for group in groups}


def _document(group: "GroupState", missed: int) -> dict[str, Any]:
    return {
        "group": group.name,
        "members": group.consumers,
        "unread_parts": group.unread,
        "unacknowledged_parts": group.pending,
        "missed_segments": missed,
    }
