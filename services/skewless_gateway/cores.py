"""How many cores this process may use, as its machine and its container allow."""

import math
import os
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores(quota: Path = _QUOTA) -> int:
    """At least 1. A container's quota counts, rounded up; Python itself does not look at it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        allowed_us, period_us = quota.read_text().split()
        if allowed_us != "max":
            cores = min(cores, math.ceil(int(allowed_us) / int(period_us)))
    except (OSError, ValueError, ZeroDivisionError):
        return max(1, cores)
    return max(1, cores)
