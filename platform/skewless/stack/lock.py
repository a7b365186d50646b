"""One supervisor per home: a lock that the kernel takes back when its holder dies, however it dies."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from skewless.errors import Conflict
from skewless.settings import Home
from skewless.stack.state import read_state

EXIT_CONFLICT = 5
"""Exit status of a supervisor that found the lock held; the same code as the command line's."""


@contextmanager
def only_supervisor(home: Home) -> Iterator[None]:
    """Holds the home's lock inside. Raises Conflict, saying where the running stack is, when another holds it.

    The file itself stays: removing it could let two supervisors lock two files of the same name. Started
    processes do not inherit the lock, because Python opens files close-on-exec.
    """
    home.root.mkdir(parents=True, exist_ok=True)
    with home.lock_file.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise already_up(home) from error
        yield


def already_up(home: Home) -> Conflict:
    """What a second start in the same home is told."""
    state = read_state(home)
    where = state.summary if state is not None else "just starting"
    return Conflict(
        f"the stack of {home.root} is {where}",
        hint="`skewless doctor` shows its health, `skewless down` stops it; another SKEWLESS_HOME holds another stack",
    )
