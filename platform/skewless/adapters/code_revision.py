"""Which revision of the code a model was trained by, where the repository is in git."""

import subprocess
from pathlib import Path
from typing import Any

_TIMEOUT_S = 10.0


def code_revision(folder: Path) -> dict[str, Any]:
    """`{"revision": …, "dirty": …}` of the work tree that holds a folder; both None where git knows nothing of it.

    `dirty` is whether anything below the folder differs from the revision, files that git does not track included.
    """
    revision = _git(folder, "rev-parse", "HEAD")
    status = _git(folder, "status", "--porcelain", "--untracked-files=normal", "--", ".")
    if revision is None or status is None:
        return {"revision": None, "dirty": None}
    return {"revision": revision.strip(), "dirty": bool(status.strip())}


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says; None where there is no git, no repository or no commit, or git does not answer in time."""
    command = ["git", "-C", str(folder), "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
