"""Entry of the command line: finds a command's module when it is asked for, and turns errors into exit codes.

Commands are imported lazily because some need Feast, which takes seconds to import, and most do not.
"""

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click

from skewless.errors import (
    BatchRefused,
    BundleRefused,
    Conflict,
    Forbidden,
    InvalidDefinition,
    InvalidRequest,
    InvalidSettings,
    NotFound,
    Rejected,
    SkewlessError,
    StackFailed,
    Unauthenticated,
    Unavailable,
    VerificationFailed,
)

EXIT_OTHER = 1
EXIT_INTERRUPTED = 130
"""What shells report for a program ended by Ctrl-C."""
EXIT_CODES: Mapping[type[SkewlessError], int] = {
    InvalidRequest: 2,
    NotFound: 2,
    InvalidDefinition: 2,
    InvalidSettings: 2,
    Unavailable: 3,
    StackFailed: 3,
    BatchRefused: 4,
    BundleRefused: 4,
    VerificationFailed: 4,
    Rejected: 4,
    Unauthenticated: 4,
    Forbidden: 4,
    Conflict: 5,
    SkewlessError: EXIT_OTHER,
}
"""Exit code of each error; a class that is not named has that of its nearest base."""

EXIT_MEANINGS: Mapping[int, str] = {
    0: "done",
    1: "something is wrong that has no code of its own (also: doctor found something)",
    2: "wrong usage, definition or setting, or a name that does not exist",
    3: "a part is unavailable, or the stack failed",
    4: "refused: a bundle, a prediction or a batch of rows does not meet its own conditions, or who asks may not",
    5: "conflict: someone else got there first (also: the stack is already up)",
    6: "not decided: what a replay needs is not kept (fields left out of the log, or a bundle that is gone)",
    7: "there are changes to apply (`plan`)",
    EXIT_INTERRUPTED: "interrupted",
}


@dataclass(frozen=True, slots=True)
class LazyCommand:
    """Where a command is defined, and what the list of commands says about it."""

    module: str
    name: str
    summary: str


COMMANDS: Mapping[str, LazyCommand] = {
    "up": LazyCommand("skewless.cli.stack_commands", "up", "Start the embedded stack."),
    "down": LazyCommand("skewless.cli.stack_commands", "down", "Stop the embedded stack."),
    "top": LazyCommand("skewless.cli.top_command", "top", "Watch traffic, latency, drift and parity live."),
    "doctor": LazyCommand("skewless.cli.stack_commands", "doctor", "Say what is missing or unhealthy."),
    "demo": LazyCommand("skewless.cli.demo_commands", "demo", "Run the shipped example from end to end."),
    "plan": LazyCommand("skewless.cli.plan_commands", "plan", "Show what registering the definitions would change."),
    "apply": LazyCommand("skewless.cli.plan_commands", "apply", "Register the feature definitions."),
    "features": LazyCommand("skewless.cli.definition_commands", "features", "Find and show what is registered."),
    "materialize": LazyCommand("skewless.cli.materialize_commands", "materialize", "Write features into the store."),
    "schedule": LazyCommand("skewless.cli.schedule_commands", "schedule", "Show what is materialized when."),
    "ingest": LazyCommand("skewless.cli.ingest_commands", "ingest", "Show what is on its way to the stores, and why."),
    "aggregates": LazyCommand(
        "skewless.cli.aggregate_commands", "aggregates", "Streams of events and the features computed from them."
    ),
    "dataset": LazyCommand("skewless.cli.model_commands", "dataset", "Build training sets."),
    "train": LazyCommand("skewless.cli.model_commands", "train", "Train a model and write its bundle."),
    "bundle": LazyCommand("skewless.cli.bundle_commands", "bundle", "Verify, register, show and list bundles."),
    "artifact": LazyCommand(
        "skewless.cli.artifact_commands", "artifact", "List, verify and clean up the files of bundles."
    ),
    "transform": LazyCommand(
        "skewless.cli.transform_commands", "transform", "Show, compare and verify fitted transforms."
    ),
    "endpoint": LazyCommand("skewless.cli.endpoint_commands", "endpoint", "Create, list and show endpoints."),
    "rollout": LazyCommand(
        "skewless.cli.rollout_commands", "rollout", "Change which bundles answer, and see how they do."
    ),
    "api-key": LazyCommand("skewless.cli.api_key_commands", "api_key", "Create, list, show and revoke API keys."),
    "predict": LazyCommand("skewless.cli.prediction_commands", "predict", "Ask an endpoint for predictions."),
    "replay": LazyCommand("skewless.cli.replay_command", "replay", "Account for logged predictions, and back-test."),
    "parity": LazyCommand(
        "skewless.cli.parity_commands", "parity", "Compare what was served with the offline store, and say why."
    ),
    "entity": LazyCommand(
        "skewless.cli.entity_commands", "entity", "Delete all that is kept of an entity, and show the receipts."
    ),
    "log": LazyCommand("skewless.cli.log_commands", "log", "Ask the prediction log, ship it, and delete from it."),
    "quality": LazyCommand(
        "skewless.cli.quality_commands", "quality", "Judge batches of feature rows by reviewed suites."
    ),
    "drift": LazyCommand("skewless.cli.drift_commands", "drift", "Say what moved in traffic or in files, and when."),
    "model-metrics": LazyCommand(
        "skewless.cli.model_metrics_commands", "model_metrics", "Show how good models were, once outcomes have come."
    ),
    "capacity": LazyCommand("skewless.cli.capacity_command", "capacity_command", "Say what hardware a load takes."),
}


TELLING = frozenset({"apply", "materialize", "train", "bundle", "endpoint", "rollout", "demo"})
"""Commands after which a receiver of lineage, where one is configured, is told what has happened."""


class CommandTable(click.Group):
    """A group whose commands are imported when run; listing them imports none."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        """Every command, in the order of a first use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # click's signature
        """The command, imported now; None for a name that is not in the table."""
        if cmd_name not in COMMANDS:
            return None
        lazy = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(lazy.module), lazy.name)
        assert isinstance(command, click.Command), f"{lazy.module}:{lazy.name} is not a command"
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # as above
        """The list of commands, out of the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, lazy.summary) for name, lazy in COMMANDS.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # as above
        """The exit codes."""
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), meaning) for code, meaning in EXIT_MEANINGS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error of ours becomes a message on standard error and its exit code."""
        try:
            result = super().invoke(ctx)
        except SkewlessError as error:
            click.echo(f"error: {_told(error)}", err=True)
            ctx.exit(exit_code(error))
        except KeyboardInterrupt:
            # Click's own answer would be exit code 1, which means something else here.
            click.echo("interrupted", err=True)
            ctx.exit(EXIT_INTERRUPTED)
        else:
            if ctx.invoked_subcommand in TELLING and os.environ.get("SKEWLESS_OPENLINEAGE_URL"):
                from skewless.cli.lineage_sending import send_afterwards  # loads what reads bundles

                send_afterwards()
            return result


def _told(error: SkewlessError) -> str:
    """An error as a reader of a terminal needs it: what is wrong, where, what is allowed, and the hint."""
    if not isinstance(error, InvalidRequest):
        return str(error)
    allowed = f"\nallowed: {error.allowed}" if error.allowed else ""
    hint = f"\n\nhint: {error.hint}" if error.hint else ""
    return f"{error.path}: {error.message}{allowed}{hint}"


def exit_code(error: SkewlessError) -> int:
    """The exit code of an error.

    >>> exit_code(Conflict("the stack is up"))
    5
    """
    return next(EXIT_CODES[base] for base in type(error).__mro__ if base in EXIT_CODES)


@click.command(cls=CommandTable, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="skewless")
def main() -> None:
    """Feature-store-backed online prediction that shows it served what the model was trained on.

    Settings are environment variables that begin with SKEWLESS_; see docs/reference.md. Everything is kept in
    the folder of SKEWLESS_HOME, .skewless by default.
    """


if __name__ == "__main__":
    main()
