"""`skewless up`, `skewless down` and `skewless doctor`.

What opens the registry database is imported where it is used: SQLAlchemy and Alembic take over a second, which
`down` and `up --detach` need not spend.
"""

import dataclasses
import sys

import click

from skewless.cli.output import print_json, say, step
from skewless.settings import Settings, StackSettings, load_settings
from skewless.stack import control


@click.command()
@click.option("--detach", is_flag=True, help="Return when every process is healthy and leave the stack running.")
def up(detach: bool) -> None:
    """Start Valkey, Triton, the gateway, the shipper of its log and the monitor on loopback, and keep them up.

    Stays in the foreground, where Ctrl-C stops everything, unless --detach is given. Exit code 5: the stack of
    this home is already up; it is left alone. Exit code 3: it could not start; the message says why.
    """
    settings, stack = load_settings(Settings), load_settings(StackSettings)
    if not detach:
        from skewless.stack import supervisor

        supervisor.run(settings, stack, say)
        return
    with step("Starting the stack") as progress:
        state = control.start_detached(settings, stack, progress.note)
        progress.note("every process is healthy")
    say(f"The stack is {state.summary}")
    say("`skewless doctor` shows its health, `skewless down` stops it.")


@click.command()
def down() -> None:
    """Stop the stack, and whatever a killed one left running."""
    home = load_settings(Settings).folders
    with step("Stopping the stack") as progress:
        progress.note("stopped" if control.stop(home) else f"none was running in {home.root}")


@click.command()
@click.option("--features", is_flag=True, help="Check what is registered with Feast now; takes seconds.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
def doctor(features: bool, as_json: bool) -> None:
    """Say in one line each what is missing or unhealthy, and what to do.

    Exit code 1 when anything is missing or unhealthy. What the registration checks found is taken from the registry
    snapshot unless --features is given.
    """
    from skewless.cli.workspace import Workspace
    from skewless.stack.doctor import Condition, examine

    settings = load_settings(Settings)
    findings = examine(
        settings,
        Workspace(settings).registration_findings() if features else None,
        runs_triton=load_settings(StackSettings).runs_triton,
    )
    if as_json:
        print_json([dataclasses.asdict(finding) for finding in findings])
    else:
        for finding in findings:
            click.echo(finding.line)
    if any(finding.condition in (Condition.MISSING, Condition.UNHEALTHY) for finding in findings):
        sys.exit(1)
