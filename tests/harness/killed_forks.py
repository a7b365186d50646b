"""Forks that are killed at a step of what they do, or after a time.

A step is whatever CPython announces to audit hooks with a path below a folder: opening, renaming, making and removing.
"""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path


def forked(
    act: Callable[[], None], *, root: Path | None = None, kill_at: int = -1, kill_after_s: float | None = None
) -> bool:
    """Whether a forked process did something to its end, and was not killed at a step of it or after a time."""
    pid = os.fork()
    if pid == 0:
        seen = 0

        def hook(_event: str, arguments: tuple[object, ...]) -> None:
            nonlocal seen
            if any(isinstance(each, str | Path) and str(each).startswith(str(root)) for each in arguments):
                if seen == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                seen += 1

        if kill_at >= 0:
            sys.addaudithook(hook)
        status = 1
        try:
            act()
            status = 0
        except Exception:  # noqa: BLE001  # a process ends here, and says why
            traceback.print_exc()
        finally:
            os._exit(status)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0, "the process failed, and its trace is above"
    return True
