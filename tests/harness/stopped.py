"""Processes that are stopped, and stand still: a signal tells that they shall, and not that they do."""

import os
import signal
from pathlib import Path

from harness.servers import wait_until

STANDS_STILL = {"T", "t", "Z", "X"}


def stop_still(pid: int) -> None:
    """Stop a process, and return once each of its threads stands still; on a busy machine that can take a while."""
    os.kill(pid, signal.SIGSTOP)
    tasks = Path(f"/proc/{pid}/task")
    if tasks.is_dir():  # on Linux; elsewhere nothing tells
        wait_until(lambda: _states(tasks) <= STANDS_STILL, f"process {pid} stands still")


def _states(tasks: Path) -> set[str]:
    """The states of threads, by their letters in proc(5)."""
    found = set()
    for each in tasks.iterdir():
        try:
            found.add((each / "stat").read_text().rpartition(")")[2].split()[0])
        except OSError:  # a thread that has ended meanwhile
            continue
    return found
