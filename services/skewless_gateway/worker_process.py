"""One worker as its parent sees it: a process to start, ask and end, which never outlives its parent."""

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass

import msgspec

from skewless.errors import StackFailed
from skewless.stack import launch
from skewless_gateway.control_channel import Asking

MODULE = "skewless_gateway.worker"


class WorkerStart(msgspec.Struct, frozen=True):
    """What a worker is told when it is started: its place, and file descriptors that it inherits."""

    worker: int
    workers: int
    listener: int
    control: int
    board: int
    listen_now: bool
    """False for one that shall take connections only once it is told to."""


@dataclass(frozen=True, slots=True)
class WorkerCommand:
    """How workers are started."""

    module: str = MODULE
    """A module that takes a `WorkerStart` as JSON for its argument."""

    def of(self, start: WorkerStart) -> list[str]:
        """The command line. It becomes the worker after asking the kernel for SIGTERM when its parent dies."""
        launcher = [sys.executable, "-I", "-S", launch.__file__, str(int(signal.SIGTERM)), str(os.getpid())]
        # With the parent's own way of finding modules.
        safe = ["-P"] if sys.flags.safe_path else []
        return [*launcher, sys.executable, *safe, "-m", self.module, msgspec.json.encode(start).decode()]


class WorkerProcess:
    """A started worker, in a process group of its own, so that what a terminal signals reaches the parent alone."""

    def __init__(
        self, command: WorkerCommand, *, worker: int, workers: int, listener: int, board: int, listen_now: bool
    ) -> None:
        """Raises StackFailed where no process can be started. Must be called inside a running event loop."""
        ours, theirs = socket.socketpair()
        start = WorkerStart(worker, workers, listener, theirs.fileno(), board, listen_now)
        try:
            with theirs:
                self._process = subprocess.Popen(
                    command.of(start),
                    stdin=subprocess.DEVNULL,
                    pass_fds=(listener, theirs.fileno(), board),
                    process_group=0,
                )
        except OSError as error:
            ours.close()
            raise StackFailed(
                f"worker {worker} cannot be started: {error}", hint="look at the machine's limits"
            ) from error
        ours.setblocking(False)
        self.name = f"worker {worker}"
        self.started_s = time.monotonic()
        self.asking = Asking(ours, self.name)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def exit_status(self) -> int | None:
        """The exit status (negative: the signal that ended it), or None while it runs."""
        return self._process.poll()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing happens when it has ended."""
        self._process.send_signal(number)

    async def close(self) -> None:
        """Forget an ended worker."""
        await self.asking.close()
