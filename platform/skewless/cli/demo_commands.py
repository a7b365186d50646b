"""`skewless demo`: the shipped example from end to end."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click

from skewless.cli.arguments import moment
from skewless.cli.demo import Demo
from skewless.cli.demo_report import lines, next_steps
from skewless.cli.output import say
from skewless.cli.workspace import Workspace
from skewless.settings import StackSettings, load_settings
from skewless.stack import control


@click.command()
@click.option("--until", metavar="TIME", help="Replay up to this moment (a date is its UTC midnight).")
@click.option("--exit", "exit_after", is_flag=True, help="Stop the stack at the end.")
@click.option("--again", is_flag=True, help="Replay even where an earlier demo already did.")
@click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Also write the summary to this file."
)
def demo(until: str | None, exit_after: bool, again: bool, json_path: Path | None) -> None:
    """Run the repository's example from its source files to live predictions, and compare them with training.

    What an earlier demo of this home already did is used again. The stack is left up unless --exit is given;
    Ctrl-C stops it.
    """
    workspace = Workspace()
    replay_until = None if until is None else moment(until, option="--until")
    with _stopped(workspace, exit_after=exit_after):
        summary = Demo(workspace, load_settings(StackSettings), until=replay_until).run(again=again)
        if json_path is not None:
            json_path.parent.mkdir(parents=True, exist_ok=True)
            json_path.write_text(json.dumps(summary.to_json(), indent=2, ensure_ascii=False) + "\n")
        for line in lines(summary):
            click.echo(line)
        if not exit_after:
            for line in next_steps(workspace, summary):
                click.echo(line)


@contextmanager
def _stopped(workspace: Workspace, *, exit_after: bool) -> Iterator[None]:
    """Stop the stack at the end where asked to, and always where the demo was interrupted.

    An interrupt is noted by a signal handler, because a library in the middle of its work may report it as an error
    of its own (DuckDB does).
    """
    interrupted = False

    def note_interrupt(signal_number: int, frame: FrameType | None) -> None:  # noqa: ARG001  # signal's signature
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, note_interrupt)
    try:
        yield
    except Exception as error:
        if interrupted:
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, before)
        if exit_after or interrupted:
            control.stop(workspace.home)
            say("The stack is stopped")
