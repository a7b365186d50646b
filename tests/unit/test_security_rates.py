"""How often callers may ask: the rule against a naive twin, and one number shared by processes that die and stop."""

import fcntl
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.examples import examples
from skewless.errors import RateLimited
from skewless.limits import RATE_DEBT_MAX, RATE_SLOTS
from skewless.registry.api_scopes import ApiRate, ApiScope
from skewless_http.security.callers import Caller
from skewless_http.security.rate_limits import FILE, SharedRates

SECOND = 1_000_000_000
SOON_S = 60.0
BURST = 8_000
"""So many that workers without a lock do lose some of each other's requests."""
ALWAYS = 1_000_000_000
SPAWNED = multiprocessing.get_context("spawn")


class Clock:
    """Nanoseconds that a test moves on."""

    def __init__(self) -> None:
        self.now = 1_000 * SECOND

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rates(tmp_path: Path, clock: Clock) -> Iterator[SharedRates]:
    made = SharedRates.open(tmp_path, clock=clock)
    yield made
    made.close()


def _caller(rate: ApiRate | None, name: str = "shop") -> Caller:
    return Caller(f"key:{name}", (ApiScope(("*",)),), rate)


def _admitted(rates: SharedRates, caller: Caller, tries: int, cost: int = 1) -> int:
    admitted = 0
    for _ in range(tries):
        try:
            rates.check(caller, cost)
            admitted += 1
        except RateLimited:
            pass
    return admitted


def test_a_caller_may_ask_its_burst_at_once_and_its_rate_from_then_on(rates: SharedRates, clock: Clock) -> None:
    caller = _caller(ApiRate(10.0, 5))
    assert _admitted(rates, caller, 20) == 5
    clock.now += SECOND // 10 - 1
    assert _admitted(rates, caller, 20) == 0
    clock.now += 1
    assert _admitted(rates, caller, 20) == 1
    clock.now += 60 * SECOND
    assert _admitted(rates, caller, 20) == 5, "what is not used is not saved up beyond the burst"


def test_a_refusal_says_when_to_ask_again_and_is_right(rates: SharedRates, clock: Clock) -> None:
    caller = _caller(ApiRate(4.0, 2))
    assert _admitted(rates, caller, 2) == 2
    clock.now += SECOND // 16
    with pytest.raises(RateLimited) as refused:
        rates.check(caller)
    assert refused.value.retry_after_s == pytest.approx(0.188, abs=1e-9)
    assert (refused.value.quota, refused.value.window_s) == (2, 0.5)
    clock.now += int(refused.value.retry_after_s * SECOND)
    rates.check(caller)


def test_a_caller_without_a_rate_is_never_refused_and_takes_no_slot(rates: SharedRates, tmp_path: Path) -> None:
    assert _admitted(rates, _caller(None), 10_000) == 10_000
    assert not any((tmp_path / FILE).read_bytes())


def test_callers_do_not_use_up_what_others_may_ask(rates: SharedRates) -> None:
    one, other = _caller(ApiRate(1.0, 3), "one"), _caller(ApiRate(1.0, 3), "other")
    assert _admitted(rates, one, 10) == 3
    assert _admitted(rates, other, 10) == 3


def test_a_key_whose_rate_was_changed_counts_by_the_new_one_at_once(rates: SharedRates) -> None:
    assert _admitted(rates, _caller(ApiRate(1.0, 3)), 10) == 3
    assert _admitted(rates, _caller(ApiRate(1.0, 8)), 10) == 5


def test_rows_are_charged_afterwards_as_a_debt_that_has_an_end(rates: SharedRates, clock: Clock) -> None:
    caller = _caller(ApiRate(10.0, 5))
    rates.check(caller)
    rates.charge(caller, 9)
    clock.now += SECOND // 2
    assert _admitted(rates, caller, 5) == 0, "ten were used, of which five are paid back"
    clock.now += SECOND // 10
    assert _admitted(rates, caller, 5) == 1
    for _ in range(50):
        rates.charge(caller, 9)
    clock.now += RATE_DEBT_MAX * SECOND // 10
    assert _admitted(rates, caller, 5) == 0
    clock.now += SECOND // 10
    assert _admitted(rates, caller, 5) == 1


def test_a_cost_above_the_burst_is_let_in_when_the_burst_is_whole(rates: SharedRates, clock: Clock) -> None:
    caller = _caller(ApiRate(10.0, 5))
    assert _admitted(rates, caller, 2, cost=50) == 1
    clock.now += SECOND // 2
    assert _admitted(rates, caller, 2, cost=50) == 1


def test_what_was_written_before_the_machine_started_anew_holds_nobody_up(rates: SharedRates, clock: Clock) -> None:
    caller = _caller(ApiRate(1.0, 3))
    assert _admitted(rates, caller, 10) == 3
    clock.now = 5 * SECOND
    assert _admitted(rates, caller, 10) == 3


@given(
    st.floats(0.5, 1_000.0),
    st.integers(1, 20),
    st.lists(st.tuples(st.integers(0, SECOND), st.integers(1, 5)), max_size=40),
)
@settings(max_examples=examples(100), deadline=None)
def test_it_admits_what_a_naive_token_bucket_admits(
    tmp_path_factory: pytest.TempPathFactory, per_s: float, burst: int, asked: list[tuple[int, int]]
) -> None:
    clock, rate = Clock(), ApiRate(per_s, burst)
    rates = SharedRates.open(tmp_path_factory.mktemp("rates"), clock=clock)
    interval = max(1, round(SECOND / per_s))
    tokens, seen = burst * interval, clock.now
    try:
        for pause, wanted in asked:
            clock.now += pause
            cost = min(wanted, burst)
            tokens, seen = min(burst * interval, tokens + clock.now - seen), clock.now
            is_admitted = tokens >= cost * interval
            tokens -= cost * interval if is_admitted else 0
            assert _admitted(rates, _caller(rate), 1, cost) == is_admitted
    finally:
        rates.close()


def test_a_worker_that_starts_anew_goes_on_where_it_was(tmp_path: Path, clock: Clock) -> None:
    caller = _caller(ApiRate(1.0, 3))
    for expected in (3, 0):
        rates = SharedRates.open(tmp_path, clock=clock)
        assert _admitted(rates, caller, 10) == expected
        rates.close()


def test_more_callers_than_slots_are_all_limited_while_they_ask(rates: SharedRates, clock: Clock) -> None:
    rate = ApiRate(1_000.0, 1)
    for number in range(RATE_SLOTS + 1_000):
        assert _admitted(rates, _caller(rate, f"caller-{number}"), 2) == 1
        clock.now += SECOND // 100


def test_where_no_file_can_be_had_each_worker_counts_for_itself(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "file").write_text("no folder")
    rates = SharedRates.open(tmp_path / "file", clock=clock)
    assert _admitted(rates, _caller(ApiRate(1.0, 3)), 10) == 3
    rates.close()


def _ask(folder: str, tries: int, told: Connection) -> None:
    rates = SharedRates.open(Path(folder), lock_tries=ALWAYS)
    told.send("ready")
    told.recv()
    told.send(_admitted(rates, _caller(ApiRate(0.001, BURST)), tries))
    rates.close()


def test_workers_together_admit_the_burst_once(tmp_path: Path) -> None:
    pipes, workers = [], []
    for _ in range(3):
        here, there = SPAWNED.Pipe()
        worker = SPAWNED.Process(target=_ask, args=(str(tmp_path), BURST // 2, there))
        worker.start()
        pipes.append(here)
        workers.append(worker)
    for pipe in pipes:
        assert pipe.poll(SOON_S)
        assert pipe.recv() == "ready"
    for pipe in pipes:
        pipe.send("go")
    assert all(pipe.poll(SOON_S) for pipe in pipes)
    total = sum(pipe.recv() for pipe in pipes)
    # Who stops asking for a lock may overtake a worker that lost its processor with it; these never stop.
    assert total == BURST
    for worker in workers:
        worker.join(SOON_S)


def test_a_worker_that_was_overtaken_while_it_found_a_slot_does_not_make_the_burst_whole_again(
    rates: SharedRates, tmp_path: Path, clock: Clock
) -> None:
    slow, caller = SharedRates.open(tmp_path, clock=clock), _caller(ApiRate(1.0, 3))
    assert caller.rate is not None
    bucket = slow._bucket(caller.id, caller.rate)
    offset, found = slow._found(bucket, clock.now)
    assert _admitted(rates, caller, 2) == 2, "another worker lets some of the burst in meanwhile"
    assert not slow._occupied(offset, found, bucket, clock.now)
    assert _admitted(slow, caller, 5) == 1
    slow.close()


def _hold_every_slot(folder: str, told: Connection) -> None:
    descriptor = os.open(Path(folder) / FILE, os.O_RDWR)
    fcntl.lockf(descriptor, fcntl.LOCK_EX)
    told.send("held")
    told.recv()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_dies_or_stops_with_a_lock_holds_up_no_other(
    rates: SharedRates, tmp_path: Path, end: signal.Signals
) -> None:
    here, there = SPAWNED.Pipe()
    worker = SPAWNED.Process(target=_hold_every_slot, args=(str(tmp_path), there))
    worker.start()
    assert here.poll(SOON_S)
    assert here.recv() == "held"
    assert worker.pid is not None
    os.kill(worker.pid, end)
    begun_s = time.monotonic()
    assert _admitted(rates, _caller(ApiRate(1.0, 20)), 100) == 20
    assert time.monotonic() - begun_s < SOON_S, "a hundred checks wait for no lock"
    worker.kill()
    worker.join(SOON_S)
