"""Runs of materialization as processes of a scheduler: started, watched, ended, and what each came to."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO

from skewless.cli.main import EXIT_CODES
from skewless.errors import Conflict
from skewless.features.schedule import Outcome, ScheduleState
from skewless.ingest_limits import SCHEDULE_LOG_BYTES_MAX, SCHEDULE_STOP_S, SCHEDULE_TOLD_CHARACTERS
from skewless.settings import SCHEDULER_PREFIX
from skewless.stack import launch

COMMAND = (sys.executable, "-P", "-m", "skewless.cli.main", "materialize")
_EXIT_REFUSED = EXIT_CODES[Conflict]
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that has ended. `told` is why it did not end well, empty where it did; `took_s` is in seconds."""

    claimed: ScheduleState
    outcome: Outcome
    told: str
    took_s: float


@dataclass(slots=True)
class _Child:
    claimed: ScheduleState
    process: subprocess.Popen[bytes]
    said: IO[bytes]
    began_s: float
    cut_off: str = ""
    """Why it was told to end; empty while it goes on."""
    kill_at_s: float = float("inf")
    """When it is ended by force, having been told."""


class Children:
    """At most one process per view. For one thread, which must live as long as they do.

    The kernel ends them with that thread, so that none outlives a scheduler that is killed (on Linux; elsewhere the
    lease of the view keeps a second run from beginning beside one that was left behind).
    """

    def __init__(self, *, run_s_max: float, command: tuple[str, ...] = COMMAND) -> None:
        self._run_s_max = run_s_max
        self._command = command
        self._running: dict[str, _Child] = {}

    def __len__(self) -> int:
        return len(self._running)

    @property
    def views(self) -> frozenset[str]:
        """What is being materialized."""
        return frozenset(self._running)

    def start(self, claimed: ScheduleState) -> None:
        """Begin the run of a claimed due time. Raises OSError where no process can be started."""
        command = (*self._command, claimed.view, "--scheduled", "--json")
        launcher = (sys.executable, "-I", "-S", launch.__file__, str(int(signal.SIGTERM)), str(os.getpid()))
        said = tempfile.TemporaryFile()  # noqa: SIM115  # read and closed when the run has ended
        try:
            process = subprocess.Popen(
                [*launcher, *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                env=handed_on(os.environ),
                start_new_session=True,
            )
        except OSError:
            said.close()
            raise
        self._running[claimed.view] = _Child(claimed, process, said, time.monotonic())

    def ended(self) -> Iterator[Ended]:
        """Runs that have ended since; one that takes too long is told to end."""
        for view, child in list(self._running.items()):
            now_s = time.monotonic()
            status = child.process.poll()
            if status is not None:
                del self._running[view]
                yield _ended(child, status, now_s - child.began_s)
            elif now_s > child.kill_at_s:
                _signal(child, signal.SIGKILL)
            elif now_s - child.began_s > self._run_s_max and not child.cut_off:
                child.cut_off = f"it was ended after {self._run_s_max:g} s; the next run goes on where it was"
                child.kill_at_s = now_s + SCHEDULE_STOP_S
                _signal(child, signal.SIGTERM)

    def stop(self, within_s: float) -> Iterator[Ended]:
        """End every run: politely, and by force those that are still there after so many seconds."""
        for child in self._running.values():
            _signal(child, signal.SIGTERM)
        deadline_s = time.monotonic() + within_s
        for view, child in list(self._running.items()):
            try:
                status = child.process.wait(max(_POLL_S, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                _signal(child, signal.SIGKILL)
                status = child.process.wait()
            del self._running[view]
            ended = _ended(child, status, time.monotonic() - child.began_s)
            was_cut = ended.outcome is not Outcome.DONE
            yield Ended(child.claimed, Outcome.INTERRUPTED, STOPPED, ended.took_s) if was_cut else ended


STOPPED = "its scheduler was stopped"


def handed_on(environment: Mapping[str, str]) -> dict[str, str]:
    """What runs get of a scheduler's variables: all but its own settings."""
    return {name: value for name, value in environment.items() if not name.startswith(SCHEDULER_PREFIX)}


def _signal(child: _Child, number: signal.Signals) -> None:
    """To the run and all that it started."""
    try:
        os.killpg(child.process.pid, number)
    except ProcessLookupError:
        return


def _ended(child: _Child, status: int, took_s: float) -> Ended:
    with child.said:
        said = _last(child.said)
    if status == 0:
        return Ended(child.claimed, Outcome.DONE, "", took_s)
    outcome = Outcome.REFUSED if status == _EXIT_REFUSED else Outcome.FAILED
    ending = f"signal {-status}" if status < 0 else f"exit code {status}"
    told = child.cut_off or said or f"it ended with {ending} and said nothing"
    if status < 0 and not child.cut_off:
        told = f"it was ended by {ending}. {said}".strip()
    return Ended(child.claimed, outcome, told[-SCHEDULE_TOLD_CHARACTERS:], took_s)


def _last(said: IO[bytes]) -> str:
    """The end of what a run said."""
    size = said.seek(0, os.SEEK_END)
    said.seek(max(0, size - SCHEDULE_LOG_BYTES_MAX))
    return said.read().decode(errors="replace").strip()[-SCHEDULE_TOLD_CHARACTERS:]
