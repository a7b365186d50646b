"""Starting, stopping and asking about the embedded stack from another process."""

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from skewless.errors import StackFailed
from skewless.settings import Home, Settings, StackSettings, as_environment
from skewless.stack.leftovers import end_leftovers
from skewless.stack.lock import EXIT_CONFLICT, already_up, only_supervisor
from skewless.stack.process import is_alive, tail
from skewless.stack.state import StackState, read_last_state, read_state
from skewless.stack.supervision import Health, Phase

__all__ = ["Progress", "StackState", "read_state", "start_detached", "stop"]

STOP_TIMEOUT_S = 120.0
"""More than the sum of what each process of the stack may take to stop."""
_POLL_S = 0.05

Progress = Callable[[str], None]


def start_detached(settings: Settings, stack: StackSettings, progress: Progress) -> StackState:
    """Start the stack in the background and return when every process is healthy.

    `progress` is called with a sentence whenever a process changes. Raises Conflict when a stack of this home
    is up already, and StackFailed, with the reason, when it cannot come up; then nothing is left running.
    """
    home = settings.folders
    if read_state(home) is not None:
        raise already_up(home)
    supervisor = _spawn(settings, stack)
    deadline = time.monotonic() + _start_timeout_s(stack)
    told: dict[str, Health] = {}
    try:
        while (status := _exit_status(supervisor)) is None and time.monotonic() < deadline:
            state = read_last_state(home)
            if state is not None and state.pid == supervisor:
                _tell(state, told, progress)
                if state.phase is Phase.UP:
                    return state
            time.sleep(_POLL_S)
    except BaseException:
        # Interrupted while waiting (Ctrl-C): a stack that nobody was told about must not stay.
        _end(supervisor)
        raise
    if status is None:
        _end(supervisor)
        raise StackFailed(f"the stack was not healthy in time: {told}", hint=f"look at the logs in {home.logs}")
    if status == EXIT_CONFLICT:
        raise already_up(home)
    raise StackFailed(_reason(home, supervisor), hint="`skewless doctor` says what is missing on this machine")


def stop(home: Home) -> bool:
    """Stop the stack of a home and return when nothing of it runs; False when none ran.

    Also ends what a killed supervisor left. Raises StackFailed when a process does not go away.
    """
    state = read_state(home)
    if state is not None:
        _end_supervisor(state)
    if home.stack_file.exists():
        with only_supervisor(home):
            end_leftovers(home, lambda _: None)
            home.stack_file.unlink(missing_ok=True)
    return state is not None


def _end_supervisor(state: StackState) -> None:
    deadline = time.monotonic() + STOP_TIMEOUT_S
    os.kill(state.pid, signal.SIGTERM)
    while is_alive(state.pid, state.created_s):
        if time.monotonic() > deadline:
            # Its processes follow it: the kernel signals them, and the leftovers are ended after this.
            os.kill(state.pid, signal.SIGKILL)
            deadline = time.monotonic() + STOP_TIMEOUT_S
        time.sleep(_POLL_S)
    _exit_status(state.pid)


def _spawn(settings: Settings, stack: StackSettings) -> int:
    """Process id of a started supervisor, in a session of its own and writing to its log.

    Not a `subprocess.Popen`, which complains when its process outlives it, as this one shall.
    """
    home = settings.folders
    home.logs.mkdir(parents=True, exist_ok=True)
    log = home.logs / "supervisor.log"
    absolute = settings.model_copy(update={"home": home.root, "repo": settings.repo.absolute()})
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-P", "-m", "skewless.stack.supervisor"],
        {**os.environ, **as_environment(absolute), **as_environment(stack)},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )


def _exit_status(pid: int) -> int | None:
    """The exit status of a child, collected; None while it runs, and for a process that is no child of ours."""
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(status) if ended else None


def _start_timeout_s(stack: StackSettings) -> float:
    # Valkey and Triton start side by side, the gateway after them; each may take two attempts.
    return 4 * stack.start_timeout_s + 2 * stack.restart_delay_max_s


def _tell(state: StackState, told: dict[str, Health], progress: Progress) -> None:
    for each in state.processes:
        if each.health is not told.get(each.name) and each.health is not Health.WAITING:
            told[each.name] = each.health
            why = f": {each.last_failure}" if each.health is Health.BACKING_OFF else ""
            progress(f"{each.name} is {each.health.replace('_', ' ')}{why}")


def _end(supervisor: int) -> None:
    """Stop a supervisor that this process started; nothing happens when it has ended already."""
    deadline = time.monotonic() + STOP_TIMEOUT_S
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(supervisor, signal.SIGTERM)
        while os.waitpid(supervisor, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(supervisor, signal.SIGKILL)
            time.sleep(_POLL_S)


def _reason(home: Home, pid: int) -> str:
    state = read_last_state(home)
    if state is not None and state.pid == pid and state.failure:
        return state.failure.partition("\n\nhint: ")[0]
    log = home.logs / "supervisor.log"
    return f"the supervisor ended before the stack was up. The last lines of {log}:\n{tail(log)}"
