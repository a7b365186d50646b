"""One request's deadline and the time each of its stages took, on one injected clock."""

from collections.abc import Callable, Sequence

from skewless.errors import DeadlineExceeded

_NS_PER_MS = 1_000_000
_NS_PER_S = 1_000_000_000

MonotonicClock = Callable[[], int]
"""Nanoseconds of a clock that never goes back."""


class Deadline:
    """Starts when the request arrived. Every wait asks it how long it may take; every stage ends with a lap."""

    __slots__ = ("_clock", "_deadline_ms", "_expires_ns", "_lap_ns", "_started_ns", "laps_ms")

    def __init__(self, clock: MonotonicClock, *, started_ns: int, deadline_ms: int) -> None:
        self._clock = clock
        self._started_ns = started_ns
        self._lap_ns = started_ns
        self._deadline_ms = deadline_ms
        self._expires_ns = started_ns + deadline_ms * _NS_PER_MS
        self.laps_ms: dict[str, float] = {}
        """Milliseconds by stage, in the order the stages ran."""

    def allowance_s(self, part: str, *, at_most_s: float) -> float:
        """Seconds that `part` may take now. Raises DeadlineExceeded when nothing is left."""
        left_ns = self._expires_ns - self._clock()
        if left_ns <= 0:
            raise DeadlineExceeded(
                part,
                f"the deadline of {self._deadline_ms} ms ran out before it was called",
                hint="give the request more time with options.deadline_ms, or send fewer instances",
            )
        return min(at_most_s, left_ns / _NS_PER_S)

    def lap(self, stage: str) -> None:
        """Book the time since the last lap, or since the start, to `stage`, on top of what is booked to it."""
        now_ns = self._clock()
        self.laps_ms[stage] = self.laps_ms.get(stage, 0.0) + (now_ns - self._lap_ns) / _NS_PER_MS
        self._lap_ns = now_ns

    def branch(self) -> "Deadline":
        """A deadline that ends at the same moment and books its own laps from here on, beside other branches."""
        other = Deadline(self._clock, started_ns=self._started_ns, deadline_ms=self._deadline_ms)
        other._lap_ns = self._lap_ns
        other.laps_ms = dict(self.laps_ms)
        return other

    def join(self, branches: Sequence["Deadline"]) -> None:
        """Go on where the last of `branches` ended, with its laps: it is what the request waited for."""
        last = max(branches, key=lambda branch: branch.total_ms())
        self._lap_ns = last._lap_ns  # noqa: SLF001  # one of its own kind
        self.laps_ms = last.laps_ms

    def total_ms(self) -> float:
        """Milliseconds from the start to the last lap."""
        return (self._lap_ns - self._started_ns) / _NS_PER_MS
