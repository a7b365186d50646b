"""What can be done to a process of a machine, and undone: killed, stopped, kept short of descriptors or of disk."""

import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from harness.machines import Machine

_LOOK_S = 0.5


@contextmanager
def stopped(machine: Machine, name: str) -> Iterator[None]:
    """A process that hangs: it keeps its connections and answers nothing."""
    process = machine.processes[name]
    process.signal_group(signal.SIGSTOP)
    try:
        yield
    finally:
        process.signal_group(signal.SIGCONT)


@contextmanager
def supervised(machine: Machine, name: str) -> Iterator[None]:
    """A process that is started again whenever it ends, as the stack's supervisor does.

    Triton needs it after a stop: its python backend may take a lock for lost that was only held for long, and ends the
    server by an uncaught `boost::interprocess::lock_exception`. Where only the model's process dies, the gateway
    has the model loaded anew. (Each was seen in about one of four stops under load.)
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_LOOK_S):
            if machine.processes[name].exit_status() is not None:
                machine.start(name)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join(10)


@contextmanager
def killed(machine: Machine, name: str) -> Iterator[None]:
    """A process that is gone, and comes back."""
    machine.stop(name, kill=True)
    try:
        yield
    finally:
        machine.start(name)


@contextmanager
def short_of(pid: int, what: int, soft: int) -> Iterator[None]:
    """A process whose resource `what`, one of `resource.RLIMIT_…`, is as good as used up, as far as `soft` says.

    Only the soft limit is changed, so that the process has its resource back on leaving.
    """
    before = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (soft, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, what, before)
