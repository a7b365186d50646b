"""What commands write: data on standard output, progress on standard error.

On a terminal a step shows a live line while it works; elsewhere (a pipe, a CI log) it is one line when done.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


class Step:
    """The step under way: `advance` and `update` move its bar, `note` says something about it."""

    def __init__(self, live: Progress | None, task: TaskID | None) -> None:
        self._live = live
        self._task = task
        self.noted = ""

    def update(self, done: float, total: float | None = None) -> None:
        """Set how much is done, and of how much; None keeps the total given before."""
        if self._live is not None and self._task is not None:
            self._live.update(self._task, completed=done, total=total)

    def advance(self, amount: float = 1) -> None:
        """Add to how much is done."""
        if self._live is not None and self._task is not None:
            self._live.advance(self._task, amount)

    def note(self, text: str) -> None:
        """Show a few words behind the title; the last ones stay on the line that the step leaves."""
        self.noted = text
        if self._live is not None and self._task is not None:
            self._live.update(self._task, note=text)


@contextmanager
def step(title: str, *, total: float | None = None) -> Iterator[Step]:
    """Show a step while the block works; on leaving, one line with its result and its time stays.

    `total` is the amount of work for the bar, None where unknown. An error passes through; its line says so.
    """
    console = _console()
    begun_s = time.monotonic()
    current = Step(None, None)
    try:
        if console.is_terminal:
            with _live(console, with_bar=total is not None) as live:
                current = Step(live, live.add_task(title, total=total, note=""))
                yield current
        else:
            yield current
    except BaseException:
        _print_line(console, "failed", title, current.noted, time.monotonic() - begun_s)
        raise
    _print_line(console, "done", title, current.noted, time.monotonic() - begun_s)


def say(text: str) -> None:
    """A line for the reader, on standard error so that standard output stays data."""
    _console().print(text, markup=False, highlight=False, soft_wrap=True)


def print_json(value: object) -> None:
    """Plain data as JSON on standard output, indented, keys in the order given."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _console() -> Console:
    # Made for each use: a test or a caller may have replaced standard error since.
    return Console(file=sys.stderr)


def _live(console: Console, *, with_bar: bool) -> Progress:
    amounts = (BarColumn(bar_width=24), MofNCompleteColumn()) if with_bar else ()
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        *amounts,
        TextColumn("{task.fields[note]}", markup=False, style="dim"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )


def _print_line(console: Console, result: str, title: str, note: str, elapsed_s: float) -> None:
    words = f"{title}: {note}" if note else title
    style = "red" if result == "failed" else "green"
    console.print(f"{result:>6}", style=style, end=" ", markup=False, highlight=False)
    console.print(f"{words} ({elapsed_s:.1f} s)", markup=False, highlight=False, soft_wrap=True)
