"""Ends what a supervisor left running that was killed before it could stop its processes."""

import signal
import time
from collections.abc import Callable

from skewless.errors import StackFailed
from skewless.settings import Home
from skewless.stack.process import is_alive, signal_group
from skewless.stack.state import read_last_state

WAIT_S = 10.0
_POLL_S = 0.05


def end_leftovers(home: Home, report: Callable[[str], None]) -> None:
    """Kill the processes that the last `stack.json` names and that still run. Call only while none supervises.

    The kernel ends them with their supervisor already; this waits for the polite ones to finish, and catches
    one that is stopped or hung. Raises StackFailed when one does not go away.
    """
    state = read_last_state(home)
    left = [each for each in state.processes if is_alive(each.pid, each.created_s)] if state else []
    polite_until = time.monotonic() + WAIT_S / 2
    deadline = time.monotonic() + WAIT_S
    for each in left:
        report(f"{each.name} (process {each.pid}) was left by an earlier supervisor; ending it")
        signal_group(each.pid, signal.SIGTERM)
    while left := [each for each in left if is_alive(each.pid, each.created_s)]:
        if time.monotonic() > polite_until:
            for each in left:
                signal_group(each.pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            names = ", ".join(f"{each.name} (process {each.pid})" for each in left)
            raise StackFailed(
                f"{names} of an earlier stack of {home.root} cannot be ended", hint="end it by hand, then start again"
            )
        time.sleep(_POLL_S)
