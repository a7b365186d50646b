"""`skewless endpoint …` and `skewless rollout …`: endpoints and which bundle answers for them."""

from collections.abc import Sequence

import click
from rich.console import Console
from rich.table import Table

from skewless.cli.arguments import actor
from skewless.cli.output import print_json, say
from skewless.cli.workspace import Workspace
from skewless.errors import InvalidRequest
from skewless.registry.records import AuditEvent, EndpointRecord
from skewless.timestamps import format_timestamp

_SHORT = 12
_SECONDS = len("2013-05-01T00:00:00")
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
_bundle = click.option("--bundle", required=True, metavar="DIGEST", help="Digest, or at least its first 8 digits.")
_reason = click.option("--reason", required=True, help="Why; it is kept in the audit trail.")


@click.group()
def endpoint() -> None:
    """The stable names that product services call."""


@endpoint.command("create")
@click.argument("name")
@_bundle
@click.option("--description", default="", help="What the endpoint predicts, in a sentence.")
@_as_json
def create_endpoint(name: str, bundle: str, description: str, as_json: bool) -> None:
    """Create endpoint NAME and make a bundle live on it."""
    with Workspace().deployment() as deployment:
        created = deployment.create_endpoint(
            name, bundle=bundle, description=description, actor=actor(), reason="created"
        )
    _print_endpoints([created], as_json=as_json, single=True)


@endpoint.command("list")
@_as_json
def list_endpoints(as_json: bool) -> None:
    """List every endpoint with its live bundle."""
    with Workspace().registry() as registry:
        endpoints = registry.endpoints()
    _print_endpoints(endpoints, as_json=as_json)


@endpoint.command("show")
@click.argument("name")
@_as_json
def show_endpoint(name: str, as_json: bool) -> None:
    """Show endpoint NAME, its routes and their history."""
    with Workspace().registry() as registry:
        shown, events = registry.endpoint(name), registry.audit(name)
    if as_json:
        print_json({**shown.to_json(), "history": [each.to_json() for each in events]})
        return
    _print_routes(shown)
    _print_history(events)


@click.group()
def rollout() -> None:
    """Which bundle answers for an endpoint, and every change of it."""


@rollout.command("promote")
@click.argument("name")
@_bundle
@_reason
@_as_json
def promote(name: str, bundle: str, reason: str, as_json: bool) -> None:
    """Make a bundle live on endpoint NAME."""
    _check_reason(reason)
    with Workspace().deployment() as deployment:
        changed = deployment.promote(name, bundle=bundle, actor=actor(), reason=reason)
    _print_endpoints([changed], as_json=as_json, single=True)


@rollout.command("rollback")
@click.argument("name")
@_reason
@_as_json
def rollback(name: str, reason: str, as_json: bool) -> None:
    """Return endpoint NAME to the bundle that was live before; again, to the one before that."""
    _check_reason(reason)
    with Workspace().deployment() as deployment:
        changed = deployment.rollback(name, actor=actor(), reason=reason)
    _print_endpoints([changed], as_json=as_json, single=True)


@rollout.command("status")
@click.argument("name", required=False)
@_as_json
def status(name: str | None, as_json: bool) -> None:
    """Show what is live, for endpoint NAME or for all of them."""
    with Workspace().registry() as registry:
        endpoints = registry.endpoints() if name is None else (registry.endpoint(name),)
    _print_endpoints(endpoints, as_json=as_json, single=name is not None)


def _check_reason(reason: str) -> None:
    if not reason.strip():
        raise InvalidRequest(
            "the reason is empty",
            path="--reason",
            allowed="any text that tells others why, for example `AUROC 0.78 against 0.76 in April`",
        )


def _print_endpoints(endpoints: Sequence[EndpointRecord], *, as_json: bool, single: bool = False) -> None:
    if as_json:
        data = [each.to_json() for each in endpoints]
        print_json(data[0] if single else data)
        return
    if not endpoints:
        say("no endpoints yet: `skewless endpoint create NAME --bundle DIGEST` makes one")
        return
    table = Table("endpoint", "live bundle", "digest", "since", "version", "description")
    for each in endpoints:
        route = each.route
        since = _to_second(each.live_since)
        table.add_row(each.name, each.live_name, route.live[:_SHORT], since, str(route.version), route.description)
    _print_table(table)


def _print_routes(shown: EndpointRecord) -> None:
    route = shown.route
    table = Table("field", "value", show_header=False)
    for field, value in (
        ("endpoint", shown.name),
        ("description", route.description),
        ("created", _to_second(shown.created_time)),
        ("version", str(route.version)),
        ("live", f"{shown.live_name} {route.live}"),
        ("live since", _to_second(shown.live_since)),
        ("canary", f"{route.canary} ({route.canary_share:.1%})" if route.canary else "none"),
        ("shadow", route.shadow or "none"),
    ):
        table.add_row(field, value)
    _print_table(table)


def _print_history(events: Sequence[AuditEvent]) -> None:
    table = Table("time", "action", "bundle", "by", "reason", title="history", title_justify="left")
    for each in events:
        bundle = str(each.detail.get("to", ""))[:_SHORT]
        table.add_row(_to_second(each.time), each.action, bundle, each.actor, each.reason)
    _print_table(table)


def _to_second(moment: int) -> str:
    return f"{format_timestamp(moment)[:_SECONDS]}Z"


def _print_table(table: Table) -> None:
    # Off a terminal rich would fold lines at 80 columns, and what folds is what other programs search for.
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = 240
    console.print(table)
