"""A drift monitor in a process of its own that is killed at a place of its work, by construction and not by chance.

`python -m harness.killed_drift_monitor FOLDER URL WHEN AFTER` kills itself at the event WHEN of SQLAlchemy (`commit`,
before it is carried out, or `after_cursor_execute`) once AFTER of them have passed.
"""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from sqlalchemy import Engine, event

from harness.drift_traffic import Clock
from skewless.adapters.drift_engine import DriftEngine
from skewless.adapters.folder_artifact_store import FolderArtifactStore
from skewless.adapters.log_store import open_log_store

_TESTS = Path(__file__).parents[1]


def run_until_killed(folder: Path, url: str, *, when: str, after: int) -> subprocess.CompletedProcess[str]:
    """Run a monitor of a folder of `drift_traffic.Logged` until it is dead, or has nothing to do."""
    words = [sys.executable, "-m", __name__, str(folder), url, when, str(after)]
    path = os.pathsep.join([str(_TESTS), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        words, env={**os.environ, "PYTHONPATH": path}, timeout=180, capture_output=True, text=True, check=False
    )


def _run(folder: Path, url: str, when: str, after: int) -> None:
    left = after

    def count(*_given: object) -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    event.listen(Engine, when, count)
    store = open_log_store(str(folder / "store"), scratch=folder / "scratch")
    engine = DriftEngine(url, FolderArtifactStore(folder / "artifacts"), store, clock=Clock())
    while engine.run_once(threading.Event()):
        pass
    engine.close()


if __name__ == "__main__":
    _run(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
