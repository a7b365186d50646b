"""What can be done to a process of a machine, and undone: killed, stopped, kept short of descriptors or of disk."""

import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx

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
    """A process that is started again whenever it ends, as the stack's supervisor does, or when it can never get well.

    Triton needs it after a stop: its python backend may take a lock for lost that was only held for long. Then it ends
    the server by an uncaught `boost::interprocess::lock_exception`, or the model's process dies, and Triton, which says
    that it is ready, refuses every call until it is started again (each seen in about one of four stops under load).
    """
    over = threading.Event()

    def watch() -> None:
        was_helped = False  # what the gateway says of it is a little old
        while not over.wait(_LOOK_S):
            if machine.processes[name].exit_status() is not None:
                machine.start(name)
            elif not was_helped and _is_past_help(machine):
                was_helped = True
                machine.stop(name, kill=True)
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


def _is_past_help(machine: Machine) -> bool:
    """Whether the gateway says of its model server that the model's process is gone."""
    with suppress(httpx.TransportError):
        return "is not healthy" in httpx.get(f"{machine.admin_url}/readyz", timeout=10).text
    return False
