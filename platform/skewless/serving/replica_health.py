"""Which of several replicas does so much worse than the others that it is better left alone for a while. Pure.

Circuits notice who fails every call. What they cannot see is a replica that fails every third, or answers everything
ten times as late as its neighbours: each call is a success to it, and a bad bargain beside the others.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

CALLS_KEPT = 64
CALLS_MIN = 20
"""Fewer of a replica's calls say nothing about it."""
ERROR_SHARE_MIN = 0.2
"""Of its last calls that failed; a replica with fewer failures is left alone by nobody."""
ERROR_FACTOR = 3.0
SLOW_FACTOR = 4.0
SLOW_MIN_S = 0.01
"""So much later than the quickest replica, in the middle, a slow one must answer: a millisecond is not worth a move."""


@dataclass(slots=True)
class ReplicaHealth:
    """How the last calls of one replica ended."""

    _failed: deque[bool] = field(default_factory=lambda: deque(maxlen=CALLS_KEPT))
    _took_s: deque[float] = field(default_factory=lambda: deque(maxlen=CALLS_KEPT))

    def answered(self, took_s: float) -> None:
        """A call was answered after so many seconds."""
        self._failed.append(False)
        self._took_s.append(took_s)

    def failed(self) -> None:
        """A call was not answered, or wrongly."""
        self._failed.append(True)

    def forget(self) -> None:
        """Begin anew, as after a while in which nobody asked it."""
        self._failed.clear()
        self._took_s.clear()

    @property
    def error_share(self) -> float | None:
        """Of its last calls; None where too few are known."""
        return sum(self._failed) / len(self._failed) if len(self._failed) >= CALLS_MIN else None

    @property
    def usual_s(self) -> float | None:
        """Seconds of a call in the middle; None where too few are known."""
        if len(self._took_s) < CALLS_MIN:
            return None
        return sorted(self._took_s)[len(self._took_s) // 2]


def worst(replicas: Sequence[ReplicaHealth]) -> tuple[int, str] | None:
    """Which replica does so much worse than the best of them that it should be left alone, and why; None for none.

    >>> good, slow = ReplicaHealth(), ReplicaHealth()
    >>> for _ in range(CALLS_MIN): good.answered(0.002); slow.answered(0.5)
    >>> worst([good, slow])
    (1, 'it answers after 500 ms where another takes 2 ms')
    """
    shares = [each.error_share for each in replicas]
    known = [share for share in shares if share is not None]
    if len(known) > 1 and max(known) >= max(ERROR_SHARE_MIN, ERROR_FACTOR * min(known)):
        return shares.index(max(known)), f"{max(known):.0%} of its last calls failed"
    usual = [each.usual_s for each in replicas]
    times = [each for each in usual if each is not None]
    if len(times) > 1 and max(times) >= max(SLOW_FACTOR * min(times), SLOW_MIN_S + min(times)):
        told = f"it answers after {max(times) * 1_000:.0f} ms where another takes {min(times) * 1_000:.0f} ms"
        return usual.index(max(times)), told
    return None
