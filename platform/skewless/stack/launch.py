"""Becomes the command it is given, after asking the kernel for a signal when its starter dies.

Run by path with `python -I -S launch.py SIGNAL STARTER_PID COMMAND...`, so that it needs no package and starts
in about 15 ms. It is a file of its own because code between fork and exec of a threaded process may deadlock.
The request survives the exec, so even `kill -9` of the starter leaves no process behind.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Replace this process by the command. Exits with 127 where the command does not exist."""
    death_signal, starter, *command = arguments
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != int(starter):
            # The starter died before the request was in place; nobody would ever stop the command.
            sys.exit(1)
    try:
        os.execvp(command[0], command)  # noqa: S606  # the starter built the list, and no shell is wanted
    except OSError as error:
        sys.exit(f"{command[0]} cannot be started: {error.strerror}" if error.strerror else 127)


if __name__ == "__main__":
    main(sys.argv[1:])
