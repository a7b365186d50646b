"""`skewless plan` and `skewless apply`: what registering definitions would change, and registering them."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from skewless.cli import definition_apply
from skewless.cli.output import print_json, say, step
from skewless.cli.plan_views import finding_lines, plan_lines
from skewless.cli.workspace import Workspace
from skewless.durability import sync
from skewless.errors import InvalidDefinition, InvalidRequest
from skewless.features.definition_plan import Plan, SavedPlan

EXIT_REFUSED = 4
EXIT_CHANGES = 7
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
_prune = click.option("--prune", is_flag=True, help="Also remove what is registered and not declared any more.")


@click.command()
@_prune
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Save the plan, for `apply --plan`.")
@_as_json
def plan(prune: bool, out: Path | None, as_json: bool) -> None:
    """Show what registering the repository's definitions would change, and whom each change reaches.

    \b
    Exit codes: 0 nothing to do, 7 changes to apply, 4 changes that `apply` refuses,
    2 definitions that cannot be registered.
    """
    with step("Comparing what is declared with what is registered") as progress:
        made = definition_apply.prepare(Workspace(), prune=prune).plan
        progress.note(f"{len(made.changes)} differences")
    if as_json:
        print_json({**made.saved(), "exit_code": _exit_code(made)})
    else:
        click.echo("\n".join(plan_lines(made)))
    if out is not None:
        _save(made, out)
    if code := _exit_code(made):
        click.get_current_context().exit(code)


@click.command()
@click.option(
    "--plan",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Apply exactly this saved plan, or nothing.",
)
@_prune
@click.option("--reason", default="", help="Why, for the audit trail.")
@click.option("--allow-breaking", is_flag=True, help="Apply what breaks a bundle that answers somebody.")
@click.option("--yes", is_flag=True, help="Do not ask before something is removed or broken.")
@_as_json
def apply(file: Path | None, prune: bool, reason: str, allow_breaking: bool, yes: bool, as_json: bool) -> None:
    """Register the repository's entities, feature views and feature services, all or none.

    Shows what changes first. Removes only with --prune, and refuses what would break a bundle that answers somebody.
    Also stores the registry snapshot that gateways follow. Needs no running stack.
    """
    saved = None if file is None else _saved(file)
    if saved is not None:
        if prune and not saved.prune:
            raise InvalidRequest("the saved plan removes nothing", path="--prune", allowed="a plan made with --prune")
        prune = saved.prune
    workspace = Workspace()
    for told in definition_apply.finish_cut_off(workspace):
        say(told)
    with step("Registering feature definitions") as progress:
        prepared = definition_apply.prepare(workspace, prune=prune)
        made = prepared.plan
        if saved is not None:
            definition_apply.refuse_other_plan(saved, made)
        progress.note(f"{len(made.changes)} differences")
        if not as_json:
            _show(made)
        definition_apply.refuse_unless_allowed(made, allow_breaking=allow_breaking)
        if not yes:
            _ask(made)
        applied = definition_apply.apply_prepared(workspace, prepared, reason=reason)
        progress.note(
            f"{len(applied.entities)} entities, {len(applied.feature_views)} feature views, "
            f"{len(applied.feature_services)} feature services"
        )
    if as_json:
        for finding in made.findings:
            say("\n".join(finding_lines(finding)))
        print_json(
            {
                "entities": applied.entities,
                "feature_views": applied.feature_views,
                "feature_services": applied.feature_services,
            }
        )


def _show(made: Plan) -> None:
    """The plan on standard error, beside the progress: standard output stays data."""
    if made.changes or made.findings:
        say("\n".join(plan_lines(made)))


def _ask(made: Plan) -> None:
    """Have somebody agree to what cannot be taken back by applying the old definitions again."""
    removed = [each.change.name for each in made.changes if each.change.action == "remove"]
    if not removed and not made.refused:
        return
    what = f"removes {', '.join(removed)}" if removed else "breaks what endpoints answer with"
    if not sys.stdin.isatty():
        raise InvalidRequest(f"this plan {what}, and nobody can be asked here", path="--yes", allowed="given")
    if not click.confirm(f"This plan {what}. Apply it?", err=True):
        raise click.Abort


def _exit_code(made: Plan) -> int:
    if made.errors:
        return 2
    return EXIT_REFUSED if made.refused else EXIT_CHANGES if made.changes else 0


def _save(made: Plan, out: Path) -> None:
    """Write a plan whole or not at all: a plan that is cut off would be refused when it is to be applied."""
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        beside.write_text(json.dumps(made.saved(), indent=2, ensure_ascii=False) + "\n")
        sync(beside)
        beside.replace(out)
    except OSError as error:
        raise InvalidRequest(
            f"`{out}` cannot be written: {error.strerror}", path="--out", allowed="a file in a folder that is there"
        ) from error
    finally:
        beside.unlink(missing_ok=True)
    say(f"saved as {out}; `skewless apply --plan {out}` applies it")


def _saved(file: Path) -> SavedPlan:
    try:
        data: Any = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise InvalidDefinition(
            f"`{file}` is no saved plan: {error}", hint="`skewless plan --out FILE` makes one"
        ) from error
    return SavedPlan.from_json(data)
