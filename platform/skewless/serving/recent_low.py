"""The least of what was measured lately: what a stage is known to need, however well things go. Pure."""

from dataclasses import dataclass

SPAN_NS = 10_000_000_000
"""A measurement counts for one to two of these. Long enough to see an idle moment, short enough to forget a release."""


@dataclass(slots=True)
class RecentLow:
    """The lowest duration of the last 10 to 20 s, in ns; 0 where nothing was measured, so that nothing is refused.

    >>> low = RecentLow()
    >>> low.learn(4_000_000, now_ns=0); low.learn(3_000_000, now_ns=1); low.learn(9_000_000, now_ns=2)
    >>> low.at(3)
    3000000
    >>> low.at(2 * SPAN_NS + 3)
    0
    """

    _current_ns: int = 0
    _previous_ns: int = 0
    _started_ns: int = 0

    def learn(self, took_ns: int, *, now_ns: int) -> None:
        """Take one measurement of something that succeeded."""
        if now_ns - self._started_ns >= SPAN_NS:
            self._turn(now_ns)
        if took_ns < self._current_ns or not self._current_ns:
            self._current_ns = took_ns

    def at(self, now_ns: int) -> int:
        """The lowest duration, ns."""
        if now_ns - self._started_ns >= SPAN_NS:
            self._turn(now_ns)
        if not self._current_ns or not self._previous_ns:
            return self._current_ns or self._previous_ns
        return min(self._current_ns, self._previous_ns)

    def _turn(self, now_ns: int) -> None:
        """Begin a new span; what is older than the one before is forgotten."""
        self._previous_ns = self._current_ns if now_ns - self._started_ns < 2 * SPAN_NS else 0
        self._current_ns = 0
        self._started_ns = now_ns


@dataclass(frozen=True, slots=True)
class StageNeeds:
    """What the stages of one bundle are known to need, so that a request that cannot make it costs them nothing."""

    read: RecentLow
    call: RecentLow

    @classmethod
    def unknown(cls) -> "StageNeeds":
        """Before anything was measured."""
        return cls(RecentLow(), RecentLow())

    def before_read_s(self, now_ns: int) -> float:
        """Seconds that reading the features and calling the model take at least, one after the other."""
        return (self.read.at(now_ns) + self.call.at(now_ns)) / 1_000_000_000

    def before_call_s(self, now_ns: int) -> float:
        """Seconds that calling the model takes at least."""
        return self.call.at(now_ns) / 1_000_000_000
