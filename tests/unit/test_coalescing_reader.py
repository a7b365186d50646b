"""Concurrent calls share flushes, and nobody notices it but the store: not in a value, an error or a deadline."""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

import pytest

from harness.bundles import ORIGIN, STATION, Hashes, contract, flights_at, merged, stored
from harness.hashes import answer
from skewless.coalescing import Coalescer
from skewless.dtypes import Column, Dtype, column_of, to_python
from skewless.errors import DeadlineExceeded, InvalidDefinition, Rejected, SkewlessError, Unavailable
from skewless.features.frame import STATUS_CODES, FeatureFrame
from skewless.features.near_cache import NearCache
from skewless.features.online_store import Invalidate, Reply
from skewless.features.plan import ReadPlan
from skewless.features.reader import FeatureReads
from skewless.timestamps import HOUR_US, SECOND_US

NOW = 1_367_411_400 * SECOND_US
PLENTY_S = 30.0


class Doubler:
    """Something to flush into: twice each number, once the flush is let through."""

    def __init__(self) -> None:
        self.flushes: list[list[int]] = []
        self.timeouts_s: list[float] = []
        self.permits = asyncio.Semaphore(0)
        self.failure: Exception | None = None

    async def __call__(self, items: Sequence[int], timeout_s: float) -> list[int | Exception]:
        self.flushes.append(list(items))
        self.timeouts_s.append(timeout_s)
        await self.permits.acquire()
        if self.failure is not None:
            raise self.failure
        return [ValueError(str(item)) if item < 0 else 2 * item for item in items]

    def let_through(self, flushes: int) -> None:
        for _ in range(flushes):
            self.permits.release()


def _coalescer(
    flush: Callable[[Sequence[int], float], Awaitable[Sequence[int | Exception]]], *, flushes_max: int = 1
) -> Coalescer[int, int]:
    return Coalescer(flush, part="doubler", weight_max=10, flushes_max=flushes_max, waiting_max=30)


def _submit(
    calls: Coalescer[int, int], item: int, *, weight: int = 1, timeout_s: float = PLENTY_S
) -> "asyncio.Task[int]":
    return asyncio.create_task(calls.submit(item, weight=weight, timeout_s=timeout_s))


async def _settle() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


async def test_a_lone_call_is_flushed_at_once_and_what_comes_meanwhile_shares_the_next() -> None:
    flush = Doubler()
    calls = _coalescer(flush)
    tasks = [_submit(calls, item) for item in range(5)]
    await _settle()
    assert flush.flushes == [[0]]
    flush.let_through(9)
    assert list(await asyncio.gather(*tasks)) == [0, 2, 4, 6, 8]
    assert flush.flushes == [[0], [1, 2, 3, 4]]


async def test_as_many_flushes_are_under_way_as_allowed() -> None:
    flush = Doubler()
    calls = _coalescer(flush, flushes_max=2)
    tasks = [_submit(calls, item) for item in range(4)]
    await _settle()
    assert flush.flushes == [[0], [1]]
    flush.let_through(9)
    await asyncio.gather(*tasks)
    assert flush.flushes == [[0], [1], [2, 3]]


async def test_a_flush_is_bounded_in_weight_and_keeps_the_order_of_arrival() -> None:
    flush = Doubler()
    calls = _coalescer(flush)
    first = _submit(calls, 0)
    await _settle()
    weights = {1: 4, 2: 6, 3: 1, 4: 12, 5: 1, 6: 1}
    tasks = [_submit(calls, item, weight=weight) for item, weight in weights.items()]
    await _settle()
    flush.let_through(9)
    await asyncio.gather(first, *tasks)
    assert flush.flushes == [[0], [1, 2], [3], [4], [5, 6]], "nobody overtakes, and what is too heavy goes alone"


async def test_more_than_may_wait_is_refused_at_once_and_room_is_found_again() -> None:
    flush = Doubler()
    calls = _coalescer(flush)
    first = _submit(calls, 0)
    await _settle()
    waiting = _submit(calls, 1, weight=30)
    await _settle()
    with pytest.raises(Unavailable, match="30 rows wait for it already"):
        await calls.submit(2, weight=1, timeout_s=PLENTY_S)
    waiting.cancel()
    await _settle()
    last = _submit(calls, 3, weight=30)
    flush.let_through(9)
    assert (await first, await last) == (0, 6)
    assert flush.flushes == [[0], [3]], "who was cancelled while waiting is not flushed"


async def test_an_error_of_one_item_is_its_own() -> None:
    flush = Doubler()
    calls = _coalescer(flush)
    tasks = [_submit(calls, item) for item in (0, 1, -2, 3, -4)]
    await _settle()
    flush.let_through(9)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(each) for each in results] == ["0", "2", "-2", "6", "-4"]
    assert [isinstance(each, ValueError) for each in results] == [False, False, True, False, True]
    with pytest.raises(ValueError, match="-5"):
        await calls.submit(-5, weight=1, timeout_s=PLENTY_S)


async def test_what_a_flush_raises_reaches_all_of_it_and_the_next_goes_on() -> None:
    flush = Doubler()
    calls = _coalescer(flush)
    tasks = [_submit(calls, item) for item in range(3)]
    await _settle()
    flush.failure = Unavailable("doubler", "it is away")
    flush.let_through(9)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(each, Unavailable) for each in results)
    flush.failure = None
    assert await calls.submit(7, weight=1, timeout_s=PLENTY_S) == 14


async def test_a_deadline_is_the_callers_own_whether_it_waits_or_is_under_way() -> None:
    flush = Doubler()
    calls = _coalescer(flush)
    first = _submit(calls, 0)
    await _settle()
    with pytest.raises(DeadlineExceeded, match="no answer within 5 ms"):
        await calls.submit(1, weight=1, timeout_s=0.005)
    patient, hasty = _submit(calls, 2), _submit(calls, 3, timeout_s=0.05)
    await _settle()
    flush.let_through(1)
    assert await first == 0
    await _settle()
    assert flush.flushes == [[0], [2, 3]]
    with pytest.raises(DeadlineExceeded):
        await hasty
    assert flush.timeouts_s[1] == pytest.approx(PLENTY_S, abs=1.0), "a flush goes on for its most patient caller"
    flush.let_through(9)
    assert await patient == 4


async def test_a_cancelled_caller_harms_nobody_in_its_flush() -> None:
    flush = Doubler()
    calls = _coalescer(flush)
    tasks = [_submit(calls, item) for item in range(4)]
    await _settle()
    flush.let_through(1)
    await tasks[0]
    await _settle()
    assert flush.flushes == [[0], [1, 2, 3]]
    tasks[2].cancel()
    await _settle()
    flush.let_through(9)
    assert (await tasks[1], await tasks[3]) == (2, 6)
    assert tasks[2].cancelled()


async def test_a_lone_caller_that_is_cancelled_makes_way() -> None:
    flush = Doubler()
    calls = _coalescer(flush)
    first, second = _submit(calls, 0), _submit(calls, 1)
    await _settle()
    first.cancel()
    await _settle()
    assert flush.flushes == [[0], [1]]
    flush.let_through(9)
    assert await second == 2


async def test_closing_refuses_who_waits_and_who_comes() -> None:
    flush = Doubler()
    calls = _coalescer(flush)
    tasks = [_submit(calls, item) for item in range(3)]
    await _settle()
    flush.let_through(1)
    await tasks[0]
    late = _submit(calls, 9)
    await _settle()
    await calls.close()
    await calls.close()
    results = await asyncio.gather(*tasks[1:], late, return_exceptions=True)
    assert [str(each).split("\n")[0] for each in results] == ["doubler is unavailable: it is closing"] * 3
    with pytest.raises(Unavailable):
        await calls.submit(1, weight=1, timeout_s=PLENTY_S)


# What follows reads features through it.

PLAIN = contract()
NEAR = replace(PLAIN, views=tuple(replace(view, near_cache=view.view == "weather") for view in PLAIN.views))
STRICT = contract(reject_missing_weather=True)
STATIONS = replace(PLAIN, views=tuple(view for view in PLAIN.views if view.view == "noise"))


class SlowStore:
    """Hashes that answer when the gate is open, and say what they were asked."""

    def __init__(self, hashes: Hashes, *, open_gate: bool = True) -> None:
        self.hashes = hashes
        self.reads: list[list[bytes]] = []
        self.tracked_reads: list[list[bytes]] = []
        self.gate = asyncio.Event()
        self.failure: SkewlessError | None = None
        if open_gate:
            self.gate.set()

    async def read(self, keys: Sequence[bytes], commands: Sequence[bytes], *, timeout_s: float) -> list[Reply]:
        self.reads.append(list(keys))
        return await self._answer(commands, timeout_s)

    async def read_tracked(self, keys: Sequence[bytes], commands: Sequence[bytes], *, timeout_s: float) -> list[Reply]:
        self.tracked_reads.append(list(keys))
        return await self._answer(commands, timeout_s)

    def subscribe(self, invalidate: Invalidate) -> None:
        """Nothing ever changes here."""

    async def ping(self) -> None:
        """Always there."""

    async def close(self) -> None:
        """Nothing to close."""

    async def _answer(self, commands: Sequence[bytes], timeout_s: float) -> list[Reply]:
        if timeout_s <= 0.0:
            raise DeadlineExceeded("online store", "there was no time")
        try:
            async with asyncio.timeout(timeout_s):
                await self.gate.wait()
        except TimeoutError:
            raise DeadlineExceeded("online store", "the gate stayed shut") from None
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        return answer(commands, self.hashes)


def _reads(store: SlowStore, *, near: bool = False, flushes_max: int = 1, rows_max: int = 1_000) -> FeatureReads:
    cache = NearCache(store, bytes_max=1_000_000, age_max_s=60.0, clock=itertools.count().__next__) if near else None
    return FeatureReads(store, near_cache=cache, rows_max=rows_max, flushes_max=flushes_max, rows_waiting_max=1_000_000)


def _keys(*origins: str | None, tailnum: str = "N1", station: int = 7) -> dict[str, Column]:
    rows = len(origins)
    return {
        "origin": column_of(Dtype.STRING, list(origins)),
        "tailnum": column_of(Dtype.STRING, [tailnum] * rows),
        "station": column_of(Dtype.INT64, [station] * rows),
    }


def _read(
    reads: FeatureReads, plan: ReadPlan, keys: Mapping[str, Column], *, as_of: int = NOW, timeout_s: float = PLENTY_S
) -> "asyncio.Task[FeatureFrame]":
    rows = len(next(iter(keys.values())))
    return asyncio.create_task(reads.read(plan, keys, rows, as_of, timeout_s=timeout_s))


def _shown(frame: FeatureFrame) -> dict[str, object]:
    """Everything a frame says, to compare."""
    return {
        "rows": frame.rows,
        "values": {name: to_python(column) for name, column in frame.columns.items()},
        "statuses": {name: [STATUS_CODES[code] for code in codes] for name, codes in frame.statuses.items()},
        "event_times": {name: times.tolist() for name, times in frame.event_times.items()},
    }


def _alone(plan: ReadPlan, keys: Mapping[str, Column], hashes: Hashes, as_of: int = NOW) -> dict[str, object]:
    prepared = plan.prepare(keys, len(next(iter(keys.values()))))
    return _shown(prepared.decode(answer(prepared.commands, hashes), as_of).frame)


async def test_requests_of_one_plan_share_one_read_with_each_entity_once() -> None:
    store = SlowStore(flights_at(NOW), open_gate=False)
    reads, plan = _reads(store), ReadPlan.compile(PLAIN)
    asked = [_keys("JFK"), _keys("JFK", "LGA"), _keys("LGA", None, tailnum="N2"), _keys("JFK", station=8)]
    tasks = [_read(reads, plan, keys) for keys in asked]
    await _settle()
    store.gate.set()
    frames = await asyncio.gather(*tasks)
    assert [_shown(frame) for frame in frames] == [_alone(plan, keys, store.hashes) for keys in asked]
    assert [len(keys) for keys in store.reads] == [3, 6], "JFK, LGA, N1, N2, stations 7 and 8"


async def test_each_request_keeps_its_own_moment() -> None:
    store = SlowStore(flights_at(NOW), open_gate=False)
    reads, plan = _reads(store), ReadPlan.compile(PLAIN)
    moments = [NOW, NOW - 2 * HOUR_US, NOW + 10 * HOUR_US, NOW]
    tasks = [_read(reads, plan, _keys("JFK", "LGA"), as_of=moment) for moment in moments]
    await _settle()
    store.gate.set()
    for frame, moment in zip(await asyncio.gather(*tasks), moments, strict=True):
        assert _shown(frame) == _alone(plan, _keys("JFK", "LGA"), store.hashes, moment)


async def test_requests_of_several_plans_share_one_pipeline_and_equal_commands() -> None:
    store = SlowStore(flights_at(NOW), open_gate=False)
    reads = _reads(store)
    plans = [ReadPlan.compile(PLAIN), ReadPlan.compile(PLAIN), ReadPlan.compile(STATIONS)]
    tasks = [_read(reads, plan, _keys("JFK")) for plan in (plans[0], *plans)]
    await _settle()
    store.gate.set()
    for frame, plan in zip((await asyncio.gather(*tasks))[1:], plans, strict=True):
        assert _shown(frame) == _alone(plan, _keys("JFK"), store.hashes)
    assert [len(keys) for keys in store.reads] == [3, 3]


async def test_a_rejected_row_is_the_matter_of_its_request_and_numbered_in_it() -> None:
    store = SlowStore(flights_at(NOW), open_gate=False)
    reads, plan = _reads(store), ReadPlan.compile(STRICT)
    first = _read(reads, plan, _keys("JFK"))
    good, bad = _read(reads, plan, _keys("JFK", "JFK")), _read(reads, plan, _keys("JFK", "nowhere"))
    await _settle()
    store.gate.set()
    assert (await first).rows == 1
    assert (await good).rows == 2
    with pytest.raises(Rejected) as refused:
        await bad
    assert refused.value.path == "$.instances[1]"


async def test_keys_that_cannot_be_prepared_are_the_matter_of_their_request() -> None:
    store = SlowStore(flights_at(NOW), open_gate=False)
    reads, plan = _reads(store), ReadPlan.compile(PLAIN)
    asked = [_keys("JFK"), _keys("JFK"), _keys("lone surrogate \ud800"), _keys("LGA")]
    tasks = [_read(reads, plan, keys) for keys in asked]
    await _settle()
    store.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(each, UnicodeEncodeError) for each in results] == [False, False, True, False]


async def test_a_failing_store_fails_all_that_it_was_asked_and_no_more() -> None:
    store = SlowStore(flights_at(NOW), open_gate=False)
    reads, plan = _reads(store), ReadPlan.compile(PLAIN)
    tasks = [_read(reads, plan, _keys("JFK")) for _ in range(3)]
    await _settle()
    store.failure = Unavailable("online store", "it is away")
    store.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in results] == [Unavailable] * 3
    store.failure = None
    assert (await _read(reads, plan, _keys("JFK"))).rows == 1


async def test_a_lone_request_that_runs_out_of_time_says_so_and_the_next_is_read() -> None:
    store = SlowStore(flights_at(NOW), open_gate=False)
    reads, plan = _reads(store), ReadPlan.compile(PLAIN)
    with pytest.raises(DeadlineExceeded):
        await _read(reads, plan, _keys("JFK"), timeout_s=0.01)
    store.gate.set()
    assert (await _read(reads, plan, _keys("JFK"))).rows == 1


async def test_only_views_that_ask_for_it_are_kept_near_and_the_frame_tells_which_were() -> None:
    store = SlowStore(flights_at(NOW))
    reads, plan = _reads(store, near=True), ReadPlan.compile(NEAR)
    first = await _read(reads, plan, _keys("JFK"))
    assert ([len(keys) for keys in store.tracked_reads], [len(keys) for keys in store.reads]) == ([1], [2])
    assert not any(rows.any() for rows in first.near.values())
    again = await _read(reads, plan, _keys("JFK", "LGA"))
    assert ([len(keys) for keys in store.tracked_reads], [len(keys) for keys in store.reads]) == ([1, 1], [2, 2])
    assert {view: rows.tolist() for view, rows in again.near.items()} == {
        "weather": [True, False],
        "aircraft": [False, False],
        "noise": [False, False],
    }
    assert _shown(again) == _alone(plan, _keys("JFK", "LGA"), store.hashes)


async def test_a_read_that_needs_no_round_trip_lets_the_loop_run_all_the_same() -> None:
    store = SlowStore(flights_at(NOW))
    near = replace(PLAIN, views=tuple(replace(view, near_cache=True) for view in PLAIN.views))
    reads, plan = _reads(store, near=True), ReadPlan.compile(near)
    await reads.read(plan, _keys("JFK"), 1, NOW, timeout_s=PLENTY_S)
    news = asyncio.Event()
    asyncio.get_running_loop().call_soon(news.set)
    frame = await reads.read(plan, _keys("JFK"), 1, NOW, timeout_s=PLENTY_S)
    assert all(rows.all() for rows in frame.near.values())
    assert news.is_set()
    assert (len(store.tracked_reads), len(store.reads)) == (1, 0)


async def test_without_a_near_cache_every_view_is_read_plainly() -> None:
    store = SlowStore(flights_at(NOW))
    await _read(_reads(store), ReadPlan.compile(NEAR), _keys("JFK"))
    assert ([len(keys) for keys in store.tracked_reads], [len(keys) for keys in store.reads]) == ([], [3])


async def test_no_rows_are_no_read() -> None:
    store = SlowStore(flights_at(NOW))
    frame = await _read(_reads(store), ReadPlan.compile(PLAIN), _keys())
    assert (frame.rows, store.reads) == (0, [])


def _world(entities: int) -> Hashes:
    """Weather of each origin and noise of each station, told apart by their values."""
    return merged(
        *(
            stored((ORIGIN,), (f"o{n}",), "weather", NOW - n * SECOND_US, {"temp": n / 4.0, "wind_dir": n})
            for n in range(entities)
        ),
        *(stored((STATION,), (n,), "noise", NOW - n * SECOND_US, {"level": n + 0.5}) for n in range(entities)),
    )


@pytest.mark.parametrize("near", [False, True], ids=["direct", "near cache"])
async def test_thousands_of_concurrent_requests_over_several_plans_get_their_own_values(near: bool) -> None:
    entities, requests = 60, 3_000
    rng = random.Random(20_261)
    store = SlowStore(_world(entities))
    reads = _reads(store, near=near, flushes_max=3, rows_max=64)
    plans = [ReadPlan.compile(NEAR), ReadPlan.compile(PLAIN), ReadPlan.compile(STATIONS), ReadPlan.compile(NEAR)]

    async def one() -> None:
        picks = [rng.randrange(entities + 5) for _ in range(rng.choice((1, 1, 1, 2, 7, 30)))]
        plan, as_of = rng.choice(plans), NOW + rng.randrange(3) * SECOND_US
        keys = {
            "origin": column_of(Dtype.STRING, [f"o{pick}" for pick in picks]),
            "tailnum": column_of(Dtype.STRING, [None] * len(picks)),
            "station": column_of(Dtype.INT64, [*picks]),
        }
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)
        if rng.random() < 0.05:
            with pytest.raises(DeadlineExceeded):
                await reads.read(plan, keys, len(picks), as_of, timeout_s=0.0)
            return
        frame = await reads.read(plan, keys, len(picks), as_of, timeout_s=PLENTY_S)
        known = [pick if pick < entities else None for pick in picks]
        assert to_python(frame.columns["noise__level"]) == [None if n is None else n + 0.5 for n in known]
        assert frame.event_times["noise"].tolist() == [-1 if n is None else NOW - n * SECOND_US for n in known]
        if plan is not plans[2]:
            assert to_python(frame.columns["weather__temp"]) == [None if n is None else n / 4.0 for n in known]
            assert to_python(frame.columns["weather__wind_dir"]) == [90 if n is None else n for n in known]

    await asyncio.gather(*(one() for _ in range(requests)))
    assert len(store.reads) < requests / 3, "they shared reads"


async def test_a_plan_that_cannot_decode_fails_only_its_requests() -> None:
    class Broken:
        """A plan of another make: what it was asked for is read, and then it gives up."""

        def __init__(self, plan: ReadPlan) -> None:
            self._plan = plan
            self.key_names = plan.key_names

        def prepare(self, keys: Mapping[str, Column], rows: int) -> "Broken._Prepared":
            return Broken._Prepared(self._plan, keys, rows)

        class _Prepared:
            def __init__(self, plan: ReadPlan, keys: Mapping[str, Column], rows: int) -> None:
                prepared = plan.prepare(keys, rows)
                self.keys, self.commands, self.cacheable = prepared.keys, prepared.commands, prepared.cacheable

            def decode(self, *_: object) -> FeatureFrame:
                raise InvalidDefinition("its definition is wrong")

    store = SlowStore(flights_at(NOW), open_gate=False)
    reads, plan = _reads(store), ReadPlan.compile(PLAIN)
    broken: ReadPlan = Broken(plan)  # type: ignore[assignment]  # the shape of a plan, and wrong on purpose
    tasks = [_read(reads, each, _keys("JFK")) for each in (plan, broken, plan, broken)]
    await _settle()
    store.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(each, InvalidDefinition) for each in results] == [False, True, False, True]
    assert [isinstance(each, FeatureFrame) for each in results] == [True, False, True, False]
