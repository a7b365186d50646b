"""`skewless endpoint …`: the stable names that product services call."""

from dataclasses import replace
from pathlib import Path

import click

from skewless.cli import rollout_options as options
from skewless.cli.arguments import actor
from skewless.cli.deployments import opened_deployment
from skewless.cli.monitoring_file import read_policy
from skewless.cli.output import print_json
from skewless.cli.rollout_views import show_endpoints, show_history, show_route
from skewless.cli.workspace import Workspace
from skewless.errors import InvalidRequest
from skewless.serving.outcome_terms import OutcomeTerms
from skewless.timestamps import SECOND_US


@click.group()
def endpoint() -> None:
    """The stable names that product services call."""


@endpoint.command("create")
@click.argument("name")
@options.bundle
@click.option("--description", default="", help="What the endpoint predicts, in a sentence.")
@click.option("--reason", default="created", show_default=True, help="Why; it is kept in the audit trail.")
@options.override_gates
@options.skip_parity
@options.as_json
def create_endpoint(
    name: str, bundle: str, description: str, reason: str, override_gates: bool, skip_parity: str, as_json: bool
) -> None:
    """Create endpoint NAME and make a bundle live on it."""
    changed_by = options.change(reason, override_gates=override_gates, skip_parity=skip_parity)
    with opened_deployment(Workspace()) as deployment:
        created = deployment.create_endpoint(name, bundle=bundle, description=description, change=changed_by)
    show_endpoints([created], as_json=as_json, single=True)


@endpoint.command("set")
@click.argument("name")
@click.option(
    "--label-horizon",
    metavar="TIME",
    help="Within which outcomes are expected, such as 1d; `none`: no outcome is late.",
)
@click.option("--outcome-window", metavar="TIME", help="How old a prediction may be for an outcome told by entity.")
@click.option(
    "--monitoring",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File (YAML or JSON) of what the monitor is asked for; docs/drift.md has its fields.",
)
@click.option("--reason", default="declared", show_default=True, help="Why; it is kept in the audit trail.")
@options.as_json
def set_endpoint(
    name: str,
    label_horizon: str | None,
    outcome_window: str | None,
    monitoring: Path | None,
    reason: str,
    as_json: bool,
) -> None:
    """Declare what is agreed about the outcomes and the monitoring of endpoint NAME; what is not named stays."""
    if label_horizon is None and outcome_window is None and monitoring is None:
        allowed = "--label-horizon, --outcome-window or --monitoring"
        raise InvalidRequest("there is nothing to set", path="NAME", allowed=allowed)
    policy = None if monitoring is None else read_policy(monitoring)
    with Workspace().registry() as registry:
        changed = registry.endpoint(name)
        terms = _terms(changed.terms, label_horizon, outcome_window)
        if terms != changed.terms:
            changed = registry.set_outcome_terms(name, terms, actor=actor(), reason=reason)
        if policy is not None:
            changed = registry.set_monitoring(name, policy, actor=actor(), reason=reason)
    if as_json:
        print_json(changed.to_json())
        return
    show_route(changed)


def _terms(terms: OutcomeTerms, label_horizon: str | None, outcome_window: str | None) -> OutcomeTerms:
    """The terms with what was given in place of what was."""
    if label_horizon is not None:
        horizon = None if label_horizon == "none" else _micros(label_horizon, option="--label-horizon")
        terms = replace(terms, label_horizon_us=horizon)
    if outcome_window is not None:
        terms = replace(terms, outcome_window_us=_micros(outcome_window, option="--outcome-window"))
    return terms


def _micros(text: str, *, option: str) -> int:
    return round(options.duration_s(text, option=option) * SECOND_US)


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
