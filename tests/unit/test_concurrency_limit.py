"""The limit finds what more at once is worth, and stays where nothing can be learned."""

import heapq
import random
from collections.abc import Callable

import pytest

from skewless.serving.concurrency_limit import LATE_SHARE, PERIOD_NS, ConcurrencyLimit, Mode

MS = 1_000_000
S = 1_000 * MS
Latency = Callable[[int, random.Random], float]
"""ns that a request takes beside `n` others."""


def shared_calls(fixed_ms: float, per_row_ms: float) -> Latency:
    return lambda n, noise: (fixed_ms + per_row_ms * n) * MS * noise.lognormvariate(0.0, 0.2)


def places(count: int, each_ms: float) -> Latency:
    return lambda n, noise: each_ms * MS * max(1.0, n / count) * noise.lognormvariate(0.0, 0.2)


class Demand:
    """Callers that never stop: as soon as a place is free, it is taken, unless there are fewer callers."""

    def __init__(self, seed: int, *, callers: int = 10_000, start: int = 16, highest: int = 256) -> None:
        self.limit = ConcurrencyLimit(start=start, highest=highest)
        self.callers = callers
        self.seen: list[int] = []
        self.modes: list[tuple[int, Mode]] = []
        self.now_ns = 0
        self._noise = random.Random(seed)
        self._under_way: list[tuple[int, int, int]] = []

    def run(self, latency: Latency, seconds: float, *, deadline_ms: float = 1e9) -> int:
        """Go on for a while; the median of the limits (without the halved ones of probes) of its second half."""
        began_ns, until_ns = self.now_ns, self.now_ns + int(seconds * S)
        self.seen.clear()
        while self.now_ns < until_ns:
            while len(self._under_way) < min(self.limit.value, self.callers):
                took = int(latency(len(self._under_way) + 1, self._noise))
                heapq.heappush(self._under_way, (self.now_ns + took, took, self.limit.epoch))
            self.now_ns, took, epoch = heapq.heappop(self._under_way)
            before = self.limit.mode
            self.limit.answered(self.now_ns, took, epoch=epoch, allowed_ns=LATE_SHARE * deadline_ms * MS)
            if self.limit.mode is not before:
                self.modes.append((self.now_ns, self.limit.mode))
            if self.limit.mode is not Mode.PROBE and self.now_ns - began_ns > (until_ns - began_ns) / 2:
                self.seen.append(self.limit.value)
        return sorted(self.seen)[len(self.seen) // 2]


each_seed = pytest.mark.parametrize("seed", range(4))


@each_seed
def test_the_knee_of_a_server_with_places_is_found(seed: int) -> None:
    assert 20 <= Demand(seed).run(places(20, 20), 12) <= 60


@each_seed
def test_a_server_that_shares_calls_gets_more_at_once_than_its_latency_alone_would_allow(seed: int) -> None:
    found = Demand(seed).run(shared_calls(4.0, 0.5), 12)
    throughput, most = found / (4.0 + 0.5 * found), 1 / 0.5
    assert throughput >= 0.85 * most, f"{found} at once"
    assert found < 256, "what is worth nothing is not taken"


@each_seed
def test_it_follows_capacity_down_in_some_probes_and_up_within_seconds(seed: int) -> None:
    demand = Demand(seed)
    first = demand.run(places(40, 20), 12)
    fewer = demand.run(places(8, 20), 40)
    again = demand.run(places(40, 20), 8)
    assert 40 <= first <= 120
    assert 8 <= fewer <= 32
    assert 40 <= again <= 120


@each_seed
def test_it_does_not_creep_up_in_minutes_of_overload(seed: int) -> None:
    demand = Demand(seed, highest=4_096)
    early = demand.run(places(10, 20), 20)
    late = demand.run(places(10, 20), 200)
    assert late <= max(2 * early, 30)


@each_seed
def test_noise_does_not_make_it_collapse(seed: int) -> None:
    def noisy(n: int, noise: random.Random) -> float:
        return places(20, 20)(n, noise) * (8.0 if noise.random() < 0.03 else 1.0)

    assert Demand(seed).run(noisy, 60) >= 18


@pytest.mark.parametrize("callers", [1, 3, 12])
def test_few_callers_leave_it_as_it_is(callers: int) -> None:
    demand = Demand(1, callers=callers)
    assert demand.run(places(2, 20), 30) == 16
    assert demand.limit.value == 16


@each_seed
def test_it_is_cut_where_answers_come_late_and_comes_back_at_once(seed: int) -> None:
    demand = Demand(seed)
    before = demand.run(shared_calls(4.0, 0.5), 12, deadline_ms=200)
    slower = demand.run(shared_calls(40.0, 5.0), 20, deadline_ms=200)
    assert slower <= 16, "so that half of the deadline suffices"
    after = demand.run(shared_calls(4.0, 0.5), 6, deadline_ms=200)
    assert after >= 0.6 * before


def test_one_pause_of_everything_cuts_nothing() -> None:
    demand = Demand(3)
    before = demand.run(places(20, 20), 12, deadline_ms=1_000)
    demand.run(lambda _n, _noise: 900 * MS, 0.01, deadline_ms=1_000)
    assert demand.run(places(20, 20), 2, deadline_ms=1_000) >= 0.7 * before


def test_a_limit_of_one_can_grow() -> None:
    assert Demand(1, start=1).run(places(20, 20), 12) >= 18


def test_it_never_allows_more_than_the_highest_or_less_than_one() -> None:
    demand = Demand(1, highest=24)
    demand.run(places(100, 20), 6)
    assert demand.limit.value <= 24
    demand.run(lambda n, _noise: 1_000 * MS * n, 60, deadline_ms=100)
    assert demand.limit.value >= 1


def test_all_who_share_what_they_wait_for_probe_at_the_same_moments() -> None:
    demands = [Demand(seed) for seed in (1, 2)]
    for demand in demands:
        demand.run(places(20, 20), 12)
    for demand in demands:
        probes = [when for when, mode in demand.modes if mode is Mode.PROBE]
        assert len(probes) >= 3
        assert all(when % PERIOD_NS < 0.2 * S for when in probes), "soon after a whole period"
