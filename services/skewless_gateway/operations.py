"""What operators can ask of a gateway, whether it is one process or several workers."""

import logging
from typing import Any, Protocol

from skewless.errors import InvalidRequest

OPEN_METRICS_ASKED = "open metrics"
"""What a parent says where it asks a worker for metrics in that form."""
LOG_LEVELS = ("debug", "info", "warning", "error")


class Operations(Protocol):
    """What the admin listener tells and does."""

    async def metrics(self, *, open_metrics: bool = False) -> bytes:
        """What Prometheus scrapes, as its text or as OpenMetrics."""
        ...

    async def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Whether predictions can be answered, and what says so."""
        ...

    async def workers(self) -> list[dict[str, Any]]:
        """One entry per worker."""
        ...

    async def stacks(self) -> str:
        """Where every thread and task is."""
        ...

    async def set_log_level(self, level: str) -> None:
        """Log from this level on, in every process. Raises InvalidRequest for a level that does not exist."""
        ...


def set_log_level(level: str) -> None:
    """Log from this level on, in this process. Raises InvalidRequest for a level that does not exist."""
    if level not in LOG_LEVELS:
        raise InvalidRequest(f"`{level[:100]}` is no level", path="$.level", allowed=", ".join(LOG_LEVELS))
    logging.getLogger().setLevel(level.upper())
