"""One worker's place in the gateway, which outlives the processes that hold it."""

from dataclasses import dataclass, field

from skewless.stack.supervision import Watched
from skewless_gateway.worker_process import WorkerProcess
from skewless_gateway.worker_state import WorkerState


@dataclass
class Place:
    """One worker's place: who holds it now, and who held it before and is still draining."""

    number: int
    watched: Watched
    process: WorkerProcess | None = None
    state: WorkerState | None = None
    leaving: list[WorkerProcess] = field(default_factory=list)
    misses: int = 0
    """Questions that the workers of this place did not answer in time."""
