"""How the benchmarks measure: turns, medians, spreads and ratios, on blocks whose answers are known."""

import asyncio
import gc

import pytest

from bench.measure import AwaitedCalls, Block, Calls, compare, cpu_ratio, ratio, timing_of

US = 1_000


def test_a_timing_is_the_median_of_medians_with_the_smallest_and_the_largest() -> None:
    blocks = [Block((1 * US, 2 * US, 90 * US), 30 * US), Block((8 * US,), 8 * US), Block((4 * US, 4 * US), 4 * US)]
    timing = timing_of(blocks)
    assert (timing.p50_us, timing.p50_low_us, timing.p50_high_us) == (4, 2, 8)
    assert timing.p50s_us == (2, 8, 4)
    assert timing.cpus_us == (10, 8, 2)
    assert timing.cpu_us == 8
    assert timing.calls == 6
    assert 8 < timing.p99_us <= 90


def test_a_ratio_is_formed_within_each_repetition_so_that_a_slow_moment_cancels() -> None:
    # The second repetition ran on a machine ten times as slow; the candidate takes twice the floor's time throughout.
    floor = timing_of([Block((10 * US,), 1), Block((100 * US,), 1), Block((11 * US,), 1)])
    ours = timing_of([Block((20 * US,), 3), Block((200 * US,), 3), Block((22 * US,), 3)])
    assert ratio(ours, floor).median == 2
    assert (ratio(ours, floor).low, ratio(ours, floor).high) == (2, 2)
    assert cpu_ratio(ours, floor).median == 3


def test_timings_with_other_counts_of_repetitions_have_no_ratio() -> None:
    with pytest.raises(ValueError, match="longer"):
        ratio(timing_of([Block((1,), 1)]), timing_of([Block((1,), 1), Block((1,), 1)]))


def test_candidates_take_turns_and_the_order_is_reversed_every_time() -> None:
    turns: list[str] = []
    compare(
        {"a": lambda: turns.append("a"), "b": lambda: turns.append("b")}, repetitions=3, min_time_s=0, warm_up=False
    )
    assert "".join(turns) == "abbaab"


def test_candidates_are_called_before_their_first_turn() -> None:
    turns: list[str] = []
    timings = compare({"a": lambda: turns.append("a")}, repetitions=2, min_time_s=0)
    assert len(turns) == 3
    assert timings["a"].calls == 2


def test_a_block_lasts_as_long_as_it_was_asked_to() -> None:
    block = Calls(lambda: None).run(0.002)
    assert sum(block.wall_ns) >= 2_000_000


def test_an_awaited_candidate_runs_inside_its_own_loop() -> None:
    loop = asyncio.new_event_loop()
    seen: list[asyncio.AbstractEventLoop] = []

    async def call() -> None:
        seen.append(asyncio.get_running_loop())

    try:
        timing = compare({"awaited": AwaitedCalls(loop, call)}, repetitions=2, min_time_s=0, warm_up=False)["awaited"]
    finally:
        loop.close()
    assert seen == [loop, loop]
    assert timing.calls == 2


def test_full_collections_within_a_block_are_counted_and_those_around_it_are_not() -> None:
    timings = compare({"collects": gc.collect, "does not": lambda: None}, repetitions=2, min_time_s=0, warm_up=False)
    assert timings["collects"].full_collections == 2
    assert timings["does not"].full_collections == 0


def test_what_fails_leaves_the_garbage_collector_as_it_was() -> None:
    def fail() -> None:
        raise RuntimeError("the candidate")

    before = gc.get_freeze_count()
    with pytest.raises(RuntimeError, match="the candidate"):
        compare({"fails": fail})
    assert gc.get_freeze_count() <= before
