"""What a worker says of itself with every sign of life."""

import msgspec


class WorkerState(msgspec.Struct, frozen=True):
    """Costs nothing to tell; whether the parts behind it are there is asked apart."""

    pid: int
    uptime_s: float
    listening: bool
    draining: bool
    connections: int
    requests: int
    """Being answered."""
