"""Turns a spool file of the prediction log into Parquet; a gateway has it done by a process that ends.

Sealing one minute of 120 predictions a second took a gateway from 111 to 290 MB resident, most of which Arrow and the
allocator kept, and took turns with requests for the interpreter (2 cores, 2026-11-21). In a process of its own, which
the scheduler puts last, it does neither.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from skewless.adapters.spool import read_frames
from skewless.serving.records import decode

TIMEOUT_S = 600.0
"""A full segment takes seconds; this is for a disk that hangs."""
_NICENESS = 10


def seal(folder: Path, spool: Path) -> None:
    """Write the segment of a spool file into a log's folder, leaving the spool file. Raises OSError and ValueError."""
    # Arrow takes 36 MB and 0.1 s to import; whoever only starts such processes needs none of it.
    from skewless.adapters.prediction_parquet import write_segment

    write_segment(folder, spool.stem, [decode(frame) for frame in read_frames(spool)])


def seal_apart(folder: Path, spool: Path) -> None:
    """As `seal`, in a process that ends. Raises OSError with what it said where it failed or took too long."""
    command = [sys.executable, "-P", "-m", "skewless.adapters.prediction_sealer", str(folder), str(spool)]
    with _polite_signals_blocked():
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    with process:
        try:
            _, said = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise OSError(f"it took longer than {TIMEOUT_S:g} s") from error
    if process.returncode != 0:
        raise OSError(f"exit status {process.returncode}: {said.decode(errors='replace')}")


@contextmanager
def _polite_signals_blocked() -> Iterator[None]:
    """A process started inside never gets them: it inherits what its starter's thread blocks.

    Who stops a gateway stops its whole group, and a segment that is half done is better finished. SIGKILL ends it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def main() -> None:
    """Entry of the process: the log's folder and the spool file are its arguments."""
    os.nice(_NICENESS)
    folder, spool = map(Path, sys.argv[1:])
    seal(folder, spool)


if __name__ == "__main__":
    main()
