"""An environment of its own for each peer, under `.peers/`: made once, and again when its requirements change."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from bench.environment import ROOT

ENVIRONMENTS = ROOT / ".peers"
REQUIREMENTS = Path(__file__).parent / "requirements"
INSTALL_TIMEOUT_S = 900.0
_SAID_CHARACTERS = 600


class NotInstalled(Exception):
    """A peer cannot be installed here; the message is what the installer said last."""


def environment_of(peer: str, progress: Callable[[str], None]) -> Path:
    """The folder of a peer's environment. Raises NotInstalled."""
    requirements, overrides = REQUIREMENTS / f"{peer}.txt", REQUIREMENTS / f"{peer}-overrides.txt"
    files = [file for file in (requirements, overrides) if file.exists()]
    wanted = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    folder = ENVIRONMENTS / peer
    stamp = folder / ".installed"
    if stamp.exists() and stamp.read_text() == wanted:
        return folder
    progress(f"installing {peer}")
    uv = str(Path(sys.executable).parent / "uv")
    _installer(uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder))
    given = ["--override", str(overrides)] if overrides.exists() else []
    _installer(uv, "pip", "install", "--quiet", "--python", str(folder), "--requirement", str(requirements), *given)
    stamp.write_text(wanted)
    return folder


def _installer(*command: str) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False, env={**os.environ}
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalled(str(error)) from error
    if done.returncode:
        raise NotInstalled(done.stderr.strip()[-_SAID_CHARACTERS:])
