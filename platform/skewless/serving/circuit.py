"""Whether something that failed should be asked again yet: closed, open, and half open for one probe. Pure.

closed ──failures in a row──▶ open ──after a pause that doubles──▶ half open ──one call succeeds──▶ closed
                               ▲                                       └──────it fails──────────────┘
"""

from dataclasses import dataclass
from enum import StrEnum

FAILURES_MAX = 3
"""In a row, before nobody asks any more. One lost connection is no outage; three calls in a row are."""
PAUSE_MIN_S = 0.25
PAUSE_MAX_S = 1.0
"""A restart under a supervisor takes seconds; probing more seldom than this would lengthen it noticeably."""
_PAUSES_COUNTED_MAX = 10
_PROBE_S = 5.0
"""A probe that has not ended after this keeps nobody out any more."""


class CircuitState(StrEnum):
    """What a circuit lets through."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(slots=True)
class Circuit:
    """The memory of one thing's failures. Times are seconds of one clock that never goes back.

    >>> circuit = Circuit()
    >>> for second in (1.0, 2.0, 3.0): circuit.failed(second)
    >>> circuit.state(3.1), circuit.admits(3.1)
    (<CircuitState.OPEN: 'open'>, False)
    >>> circuit.admits(3.3), circuit.admits(3.3)  # one probe, and nobody else meanwhile
    (True, False)
    >>> circuit.succeeded(); circuit.admits(3.4)
    True
    """

    failures_max: int = FAILURES_MAX
    failures: int = 0
    """In a row, up to now."""
    openings: int = 0
    """How often it has opened, half-open probes that failed not counted."""
    _pauses: int = 0
    """Since it was closed."""
    _open_until_s: float | None = None
    _probe_until_s: float = 0.0
    """Until when the probe under way keeps others out; one that never ends keeps nobody out for ever."""

    def state(self, now_s: float) -> CircuitState:
        """What it would do with a call now."""
        if self._open_until_s is None:
            return CircuitState.CLOSED
        return CircuitState.HALF_OPEN if now_s >= self._open_until_s else CircuitState.OPEN

    def admits(self, now_s: float) -> bool:
        """Whether a call may be made. In the half-open state the caller that is told so is the probe."""
        state = self.state(now_s)
        if state is CircuitState.HALF_OPEN and now_s >= self._probe_until_s:
            self._probe_until_s = now_s + _PROBE_S
            return True
        return state is CircuitState.CLOSED

    def retry_after_s(self, now_s: float) -> float:
        """Seconds until it lets a probe through; 0 where it admits calls."""
        return 0.0 if self._open_until_s is None else max(0.0, self._open_until_s - now_s)

    def succeeded(self) -> None:
        """A call was answered."""
        self.failures = 0
        self._pauses = 0
        self._open_until_s = None
        self._probe_until_s = 0.0

    def failed(self, now_s: float) -> None:
        """A call was not answered."""
        self.failures += 1
        if self.failures < self.failures_max or self.state(now_s) is CircuitState.OPEN:
            return
        self.openings += self._open_until_s is None
        self._probe_until_s = 0.0
        self._open_until_s = now_s + min(PAUSE_MAX_S, PAUSE_MIN_S * 2 ** min(self._pauses, _PAUSES_COUNTED_MAX))
        self._pauses += 1
