"""How many requests are worth computing at once: found by trying, from latencies alone. Pure.

More at once is more throughput only up to a point. By Little's law throughput is `requests under way / latency`, so two
latencies, under two limits that are reached, say what the difference was worth:

    gain per doubling = 1 - log(latency at the higher / latency at the lower) / log(higher / lower)

1: twice as many at once are answered twice as fast; 0: they only wait for one another. Where calls are shared between
requests, latency grows with every request from the first on, though throughput does too; so the ratio to an unloaded
latency says nothing, and no such latency is kept here, nor can it drift.

    climb   double as long as the doubling was worth it; then go back to the one before
    hold    stay; every two seconds of the wall clock, where requests wait for a place:
    probe   half as many for about nine latencies, then a step: down where the upper half of the limit was worth less
            than WORTH, up where it was worth more, and where it was worth much, climb again

Where many answers took more than two fifths of the time that their callers gave, twice in a row, a limit in use is
cut; where they took more than a fifth, it is not doubled. A limit that is not reached is left as it is, since nothing
can be learned about it.
"""

import math
from dataclasses import dataclass, field
from enum import StrEnum

_MS = 1_000_000
PERIOD_NS = 2_000 * _MS
"""Between probes. They begin at whole periods of the wall clock, so that all who share what they wait for probe at
once; one that probes alone sees the others' load at both limits, and takes what it wins from them for capacity."""
PROBE_SHARE = 0.25
"""Of the time may be spent in probes: where latencies are long, periods are left out."""
WORTH = 0.08
"""Gain per doubling that the limit is moved towards. There a server that shares calls gives 94 % of all it can."""
STEEP = 0.3
"""From this gain on the limit is far too low, and is doubled again and again."""
STEP = 2.5
"""A probe moves the logarithm of the limit by this times what its gain is off: noise of 0.08 by a fifth."""
STEP_MAX = 0.5
"""The most by which one probe moves it, so that one that met a pause does no great harm."""
LATE_SHARE = 0.35
"""An answer is late when it took more than this share of its caller's deadline, from the moment it was admitted."""
LATE_MAX = 0.5
"""Share of late answers, twice in a row, at which a limit is cut: a pause that others cause lasts for fewer."""
CUT = 0.7
"""What is left of a limit that was cut."""
ROUND_MIN = 10
"""Answers of which it is judged whether too many were late."""
USED_SHARE = 0.5
"""Of the limit must be in use for that; else it is not the limit that makes them late."""
SAMPLES_MIN = 40
"""Answers that a phase measures at least."""
GENERATIONS, GENERATIONS_PROBED = 4, 8
"""A phase measures so many times the limit: requests that share a call take as long, and so count as one."""
HELD_PHASES_MAX = 16
"""Phases under the same limit that count; older ones fade."""
CHANGED = 1.5
"""A phase whose latency is so many times that of the ones before tells of another server; they count no more."""
PHASE_NS_MIN = 40 * _MS
PHASE_NS_MAX = 1_000 * _MS
"""A phase that is as old is closed with fewer samples, so that slow models are heard too."""
SAMPLES_MIN_SLOW = 6
SAMPLES_MAX = 1_024
"""Latencies kept of a phase."""
FULL_SHARE = 0.8
"""Of the limit was in use on average over a phase that tells something about it. Calls that many share end together, so
that even with a long line some places are empty for a moment."""
MORE_MIN = 1.2
"""Two loads that are nearer to each other tell nothing about what is between them."""


class Mode(StrEnum):
    """What the limit is doing."""

    CLIMB = "climb"
    HOLD = "hold"
    PROBE = "probe"


@dataclass(slots=True)
class _Phase:
    """What was measured under one limit."""

    started_ns: int
    skip: int
    """Answers not to be measured: those admitted beside requests of the limit before."""
    answers: int = 0
    nearly_late: int = 0
    """Would be late if they took twice as long."""
    busy_ns: int = 0
    """Of all answers together."""
    took_ns: list[int] = field(default_factory=list)

    def is_over(self, now_ns: int, wanted: int) -> bool:
        age_ns = now_ns - self.started_ns
        enough = SAMPLES_MIN_SLOW if age_ns >= PHASE_NS_MAX else wanted
        return self.answers >= enough and age_ns >= PHASE_NS_MIN


@dataclass(slots=True)
class _Round:
    """Answers as many as the limit is."""

    started_ns: int
    answers: int = 0
    late: int = 0
    busy_ns: int = 0


@dataclass(frozen=True, slots=True)
class _Load:
    """What a phase came to: requests under way on average, and how long one took."""

    under_way: float
    latency_ns: float
    phases: int = 1
    """Of which it is the mean."""

    def with_another(self, other: "_Load") -> "_Load":
        ratio = other.latency_ns / self.latency_ns
        if not 1 / CHANGED < ratio < CHANGED:
            return other
        phases = min(self.phases + 1, HELD_PHASES_MAX)
        return _Load(
            self.under_way + (other.under_way - self.under_way) / phases,
            self.latency_ns + (other.latency_ns - self.latency_ns) / phases,
            phases,
        )


class ConcurrencyLimit:
    """The limit of one endpoint. `value` requests may be under way; `epoch` counts the limits there were."""

    __slots__ = (
        "_held",
        "_late_rounds",
        "_lower",
        "_next_probe_ns",
        "_phase",
        "_probe_of",
        "_round",
        "_wall_ns",
        "epoch",
        "highest",
        "mode",
        "value",
    )

    def __init__(self, *, start: int, highest: int, now_ns: int = 0, wall_ns: int = 0) -> None:
        """Begin with `start`, and never allow more than `highest`.

        `wall_ns` is what the wall clock says (since 1970) when the other clock says `now_ns`.
        """
        assert 1 <= start <= highest, "a limit lets somebody in"
        self.value = start
        self.highest = highest
        self.epoch = 0
        self.mode = Mode.CLIMB
        self._wall_ns = wall_ns - now_ns
        self._lower: _Load | None = None
        """Under the limit before, while climbing."""
        self._held: _Load | None = None
        """Under the whole limit, before a probe."""
        self._late_rounds = 0
        self._round = _Round(now_ns)
        self._probe_of = start
        self._next_probe_ns = 0
        self._phase = _Phase(now_ns, skip=0)

    def answered(self, now_ns: int, took_ns: int, *, epoch: int, allowed_ns: float) -> None:
        """Learn from one request that was admitted under the limit of `epoch` and took `took_ns` from then on.

        It came late where that was more than `allowed_ns`: LATE_SHARE of the caller's deadline. A request that was
        given up at its deadline is an answer too.
        """
        if epoch != self.epoch:
            return
        phase = self._phase
        if phase.skip:
            phase.skip -= 1
            phase.started_ns = self._round.started_ns = now_ns
            return
        if self._comes_late(now_ns, took_ns, is_late=took_ns > allowed_ns):
            before = self._probe_of if self.mode is Mode.PROBE else self.value
            self._lower = None
            self._set(now_ns, math.floor(before * CUT), Mode.CLIMB)
            return
        phase.answers += 1
        phase.busy_ns += took_ns
        phase.nearly_late += 2 * took_ns > allowed_ns
        if phase.answers <= SAMPLES_MAX:
            phase.took_ns.append(took_ns)
        generations = GENERATIONS_PROBED if self.mode is Mode.PROBE else GENERATIONS
        if phase.answers >= SAMPLES_MIN_SLOW and phase.is_over(now_ns, max(SAMPLES_MIN, generations * self.value)):
            self._decide(now_ns, phase)

    def _comes_late(self, now_ns: int, took_ns: int, *, is_late: bool) -> bool:
        """Whether the last two rounds, of as many answers as the limit is, had too many late ones while it was used.

        Judged apart from phases, which are longer than callers wait.
        """
        round_ = self._round
        round_.answers += 1
        round_.late += is_late
        round_.busy_ns += took_ns
        if round_.answers < max(ROUND_MIN, self.value):
            return False
        is_used = round_.busy_ns >= USED_SHARE * self.value * (now_ns - round_.started_ns)
        self._late_rounds = self._late_rounds + 1 if is_used and round_.late > LATE_MAX * round_.answers else 0
        self._round = _Round(now_ns)
        return self._late_rounds > 1

    def _decide(self, now_ns: int, phase: _Phase) -> None:
        """One phase is over: go on with the next, under the same limit or another."""
        load = _Load(phase.busy_ns / max(now_ns - phase.started_ns, 1), _middle(phase.took_ns))
        is_full = load.under_way >= FULL_SHARE * self.value
        is_slow = phase.nearly_late > LATE_MAX * phase.answers
        if not is_full:
            self._rest_unused(now_ns)
        elif self.mode is Mode.CLIMB:
            self._climb(now_ns, load, is_slow=is_slow)
        elif self.mode is Mode.PROBE:
            self._judge(now_ns, load, is_slow=is_slow)
        else:
            self._hold(now_ns, load)

    def _climb(self, now_ns: int, load: _Load, *, is_slow: bool) -> None:
        if self._lower is not None and gain(self._lower, load) < WORTH:
            self._rest(now_ns, round(self.value / math.sqrt(2.0)))
        elif is_slow or self.value >= self.highest:
            self._rest(now_ns, self.value)
        else:
            self._climb_from(now_ns, self.value, load)

    def _hold(self, now_ns: int, load: _Load) -> None:
        self._held = load if self._held is None else self._held.with_another(load)
        if now_ns < self._next_probe_ns:
            self._phase = _Phase(now_ns, skip=0)
        elif self.value < 2:
            self._climb_from(now_ns, self.value, load)
        else:
            self._probe_of = self.value
            self._set(now_ns, self.value // 2, Mode.PROBE)

    def _judge(self, now_ns: int, load: _Load, *, is_slow: bool) -> None:
        """The probe is over; the limit that was halved for it is `_probe_of`."""
        assert self._held is not None, "a probe follows a phase under the whole limit"
        before = self._probe_of
        gained = gain(load, self._held)
        if gained >= STEEP and not is_slow:
            self._climb_from(now_ns, before, self._held)
            return
        step = min(max(STEP * (gained - WORTH), -STEP_MAX), STEP_MAX)
        moved = math.ceil(before * math.exp(step)) if step > 0 else math.floor(before * math.exp(step))
        self._rest(now_ns, moved, probe_ns=now_ns - self._phase.started_ns)

    def _rest_unused(self, now_ns: int) -> None:
        """Fewer came than were let in, so nothing can be said; a probe that met no line is given up."""
        if self.mode is Mode.PROBE:
            self._rest(now_ns, self._probe_of)
        else:
            self._held = None
            self._phase = _Phase(now_ns, skip=0)

    def _climb_from(self, now_ns: int, value: int, load: _Load) -> None:
        self._lower = load
        self._set(now_ns, 2 * value, Mode.CLIMB)

    def _rest(self, now_ns: int, value: int, *, probe_ns: int = 0) -> None:
        """Hold a limit until the next probe."""
        self._next_probe_ns = self._aligned(now_ns + round(probe_ns / PROBE_SHARE))
        self._lower = None
        self._held = None
        self._set(now_ns, value, Mode.HOLD)

    def _set(self, now_ns: int, value: int, mode: Mode) -> None:
        """Another limit from now on; the first answers under it are those of requests that met the limit before."""
        self.value = min(max(value, 1), self.highest)
        self.mode = mode
        self.epoch += 1
        self._phase = _Phase(now_ns, skip=self.value)
        self._round = _Round(now_ns)
        self._late_rounds = 0

    def _aligned(self, now_ns: int) -> int:
        """The next moment at which everybody probes."""
        wall_ns = now_ns + self._wall_ns
        return (wall_ns // PERIOD_NS + 1) * PERIOD_NS - self._wall_ns


def gain(lower: _Load, higher: _Load) -> float:
    """Share of its size that a doubling adds to throughput, between two loads.

    >>> gain(_Load(8, 10.0), _Load(16, 10.0)), gain(_Load(8, 10.0), _Load(16, 20.0))
    (1.0, 0.0)
    """
    if higher.under_way <= lower.under_way * MORE_MIN:
        return 0.0
    return 1.0 - math.log(higher.latency_ns / lower.latency_ns) / math.log(higher.under_way / lower.under_way)


def _middle(took_ns: list[int]) -> float:
    """The mean of the middle half: a pause of the whole process lifts the upper end only."""
    ordered = sorted(took_ns)
    cut = len(ordered) // 4
    middle = ordered[cut : len(ordered) - cut]
    return max(1.0, sum(middle) / len(middle))
