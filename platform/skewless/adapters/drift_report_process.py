"""Drift reports made in a process of their own: what they import takes 20 s and 700 MiB, which no monitor should keep.

The process is the command `skewless drift report`, bounded in time and in memory, and the last in line for the
processor.
"""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from skewless.errors import Unavailable
from skewless.monitor_limits import DRIFT_REPORT_MEMORY_BYTES, DRIFT_REPORT_S

PART = "the drift report"
_WORDS_MAX = 2_000
_NICENESS = 15


def report_in_child(
    endpoint: str,
    alarm_id: str,
    environment: Mapping[str, str],
    *,
    without: Sequence[str] = (),
    timeout_s: float = DRIFT_REPORT_S,
    memory_bytes: int = DRIFT_REPORT_MEMORY_BYTES,
) -> Path:
    """Make a report about an alarm, but for parts `without`; returns the folder that it lies in. Waits for it.

    `environment` has the variables of the library's settings that say where everything is and what bundles may call:
    SKEWLESS_HOME, _DATABASE_URL, _ARTIFACTS, _LOG_STORE and _STEP_PACKAGES. They are put over those of this process,
    of which no other that begins with SKEWLESS_ is passed on. Raises Unavailable where the process fails or takes too
    long; then it is gone, with all that it began.
    """
    others = {name: value for name, value in os.environ.items() if not name.startswith("SKEWLESS_")}
    left_out = [word for part in without for word in ("--without", part)]
    asked = ["drift", "report", endpoint, "--alarm", alarm_id, *left_out]
    by_hand = f"make it by hand: `skewless {' '.join(asked)}`"
    with subprocess.Popen(  # a fixed command of ours, without a shell
        [sys.executable, "-m", "skewless.cli.main", *asked, "--json"],
        env={**others, **environment, "DO_NOT_TRACK": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        _bound(process.pid, memory_bytes)
        try:
            told, words = process.communicate(timeout=timeout_s)
        except BaseException as error:
            process.kill()
            process.communicate()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            raise Unavailable(PART, f"it took more than {timeout_s:g} s", hint=by_hand) from error
    if process.returncode:
        raise Unavailable(
            PART,
            f"its process ended with {process.returncode}: {words.strip()[-_WORDS_MAX:]}",
            hint=by_hand,
        )
    return Path(json.loads(told)["folder"])


def _bound(pid: int, memory_bytes: int) -> None:
    """Give a process that just began its bounds; nothing where it has ended already."""
    try:
        resource.prlimit(pid, resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
        os.setpriority(os.PRIO_PROCESS, pid, _NICENESS)
    except ProcessLookupError:
        return
