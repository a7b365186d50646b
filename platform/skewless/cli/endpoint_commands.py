"""`skewless endpoint …`: the stable names that product services call."""

import click

from skewless.cli import rollout_options as options
from skewless.cli.deployments import opened_deployment
from skewless.cli.output import print_json
from skewless.cli.rollout_views import show_endpoints, show_history, show_route
from skewless.cli.workspace import Workspace


@click.group()
def endpoint() -> None:
    """The stable names that product services call."""


@endpoint.command("create")
@click.argument("name")
@options.bundle
@click.option("--description", default="", help="What the endpoint predicts, in a sentence.")
@click.option("--reason", default="created", show_default=True, help="Why; it is kept in the audit trail.")
@options.override_gates
@options.as_json
def create_endpoint(name: str, bundle: str, description: str, reason: str, override_gates: bool, as_json: bool) -> None:
    """Create endpoint NAME and make a bundle live on it."""
    changed_by = options.change(reason, override_gates=override_gates)
    with opened_deployment(Workspace()) as deployment:
        created = deployment.create_endpoint(name, bundle=bundle, description=description, change=changed_by)
    show_endpoints([created], as_json=as_json, single=True)


@endpoint.command("list")
@options.as_json
def list_endpoints(as_json: bool) -> None:
    """List every endpoint with its live bundle."""
    with Workspace().registry() as registry:
        endpoints = registry.endpoints()
    show_endpoints(endpoints, as_json=as_json)


@endpoint.command("show")
@click.argument("name")
@options.as_json
def show_endpoint(name: str, as_json: bool) -> None:
    """Show endpoint NAME, its route and its history."""
    with Workspace().registry() as registry:
        shown, events = registry.endpoint(name), registry.audit(name)
    if as_json:
        print_json({**shown.to_json(), "history": [each.to_json() for each in events]})
        return
    show_route(shown)
    show_history(events)
