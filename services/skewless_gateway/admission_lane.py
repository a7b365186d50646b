"""One endpoint's side of admission: who waits for it, how many may be computed, and how long that takes."""

import asyncio
from dataclasses import dataclass

from skewless.serving.concurrency_limit import ConcurrencyLimit
from skewless.serving.fair_queue import Line
from skewless.serving.recent_low import RecentLow

QUEUE_FULL = "queue_full"
"""So many wait that one more would wait longer than it may."""
TOO_LATE = "too_late"
"""It could not be answered within its deadline, after those that wait already."""
WAITED = "waited"
"""It waited for its turn, which did not come in time."""
DEADLINE = "deadline"
"""Its deadline is shorter than what the endpoint needs when nobody waits."""
REASONS = (QUEUE_FULL, TOO_LATE, WAITED, DEADLINE)

_PRESSURE_NS = 1_000_000_000
"""Over how long refused and answered requests are compared."""
_GENERATIONS = 4.0
"""Over how many times the limit answers are smoothed: those that share a call take as long, and so count as one."""
_DEVIATIONS = 4.0
"""Above the smoothed latency nearly no answer takes longer (as RFC 6298 has it)."""


@dataclass(slots=True, eq=False)
class Waiter:
    """A request that waits for its turn. Times are of the monotonic clock."""

    lane: "Lane"
    rows: int
    arrived_ns: int
    last_ns: int
    """When its turn must have come for it to be answered in time."""
    turn: "asyncio.Future[None]"


class Lane(Line[Waiter]):
    """One endpoint: who waits for it, how many may be computed, and what was learned about it."""

    __slots__ = (
        "answered",
        "background",
        "deviation_ns",
        "endpoint",
        "in_flight",
        "latency_ns",
        "limit",
        "low",
        "pressure",
        "refused",
        "shed",
        "window_ns",
    )

    def __init__(self, endpoint: str, limit: ConcurrencyLimit) -> None:
        super().__init__()
        self.endpoint = endpoint
        self.limit = limit
        self.background: Line[Waiter] = Line()
        self.in_flight = 0
        self.latency_ns = 0.0
        self.deviation_ns = 0.0
        self.low = RecentLow()
        self.refused = dict.fromkeys(REASONS, 0)
        self.answered = self.shed = self.window_ns = 0
        self.pressure = 0.0
        """Refused requests per answered one, over the last second."""

    def wait_ns(self, ahead: int) -> float:
        """How long one waits behind `ahead` others: by Little's law, a place is given back every latency / limit."""
        return ahead * self.latency_ns / self.limit.value

    def likely_ns(self) -> float:
        """What nearly every answer takes once it is admitted."""
        return self.latency_ns + _DEVIATIONS * self.deviation_ns

    def learn(self, now_ns: int, took_ns: int) -> None:
        """Take in the time of one answer."""
        if not self.latency_ns:
            self.latency_ns, self.deviation_ns = float(took_ns), took_ns / 2
        off_ns = took_ns - self.latency_ns
        share = 1.0 / (1.0 + _GENERATIONS * self.limit.value)
        self.latency_ns += share * off_ns
        self.deviation_ns += share * (abs(off_ns) - self.deviation_ns)
        self.low.learn(took_ns, now_ns=now_ns)
        self.answered += 1

    def shed_one(self, now_ns: int, reason: str) -> None:
        """Count one request that was refused for what others ask."""
        self.refused[reason] += 1
        if now_ns - self.window_ns >= _PRESSURE_NS:
            self.pressure = self.shed / max(self.answered, 1) if now_ns - self.window_ns < 2 * _PRESSURE_NS else 0.0
            self.answered = self.shed = 0
            self.window_ns = now_ns
        self.shed += 1
