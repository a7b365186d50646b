"""One request's deadline and the time each of its stages took, on one injected clock."""

from collections.abc import Callable, Sequence

from skewless.errors import DeadlineExceeded

_NS_PER_MS = 1_000_000
_NS_PER_S = 1_000_000_000

_HINT = "give the request more time (X-Request-Timeout-Ms, options.deadline_ms), or send fewer instances"

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

    @property
    def total_ns(self) -> int:
        """Nanoseconds from the start to the deadline."""
        return self._expires_ns - self._started_ns

    def now_ns(self) -> int:
        """The moment on the deadline's own clock."""
        return self._clock()

    def left_ns(self, now_ns: int) -> int:
        """Nanoseconds that are left at a moment of the same clock; 0 or less where none are."""
        return self._expires_ns - now_ns

    def allowance_s(self, part: str, *, at_most_s: float, needs_s: float = 0.0) -> float:
        """Seconds that `part` may take now.

        Raises DeadlineExceeded when nothing is left, or less than `needs_s`: what `part` and all that comes after it
        are known to take at least, so that no work is spent on an answer that would come too late.
        """
        left_s = (self._expires_ns - self._clock()) / _NS_PER_S
        if left_s <= needs_s:
            raise self.exceeded(part, left_s=left_s, needs_s=needs_s)
        return min(at_most_s, left_s)

    def exceeded(self, part: str, *, left_s: float = 0.0, needs_s: float = 0.0) -> DeadlineExceeded:
        """The error for a request that has `left_s` for what takes `needs_s` at least."""
        when = (
            "ran out before it was called"
            if left_s <= 0
            else f"leaves {left_s * 1_000:.1f} ms, and it takes {needs_s * 1_000:.1f} ms at least"
        )
        return DeadlineExceeded(part, f"the deadline of {self._deadline_ms} ms {when}", hint=_HINT)

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
