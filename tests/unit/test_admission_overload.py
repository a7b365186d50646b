"""Overload, over the real admission and servers whose capacity is known, in virtual time: the same in every run."""

import asyncio
import os
from collections.abc import Callable

import pytest

from harness.overload import Gate, PlacesServer, Seen, Server, SharedCallServer
from harness.virtual_time import in_virtual_time

SEEDS = pytest.mark.parametrize("seed", [1, 2])
A_SEED = pytest.mark.parametrize("seed", [1, 2, 3] if "SKEWLESS_TEST_OVERLOAD_S" in os.environ else [2])
MakeServer = Callable[[Gate], Server]


def shared_calls(gate: Gate) -> Server:
    return SharedCallServer(fixed_s=0.004, per_row_s=0.002, noise=gate.noise)


def places(gate: Gate) -> Server:
    return PlacesServer(places=10, each_s=0.025, noise=gate.noise)


each_server = pytest.mark.parametrize("make_server", [shared_calls, places])


async def capacity(seed: int, make_server: MakeServer) -> float:
    """Answers per second for callers of whom 64 are always there, as a closed loop measures it."""
    gate = Gate.open(seed, in_flight_max=64, queue_ms=1_000)
    server, seen = make_server(gate), Seen()

    async def caller() -> None:
        while gate.now_s() < 6.0:
            await gate.ask(server, seen, "e", deadline_ms=10_000)

    async with asyncio.TaskGroup() as group:
        for _ in range(64):
            group.create_task(caller())
    return seen.per_s(2.0, 6.0)


@SEEDS
@each_server
def test_under_five_times_the_capacity_nearly_all_of_it_does_good(seed: int, make_server: MakeServer) -> None:
    async def story() -> None:
        most = await capacity(seed, make_server)
        gate = Gate.open(seed)
        server, seen = make_server(gate), Seen()
        await gate.flood(server, seen, per_s=5 * most, until_s=9.0, deadline_ms=500)
        assert seen.per_s(3.0, 9.0) >= 0.9 * most, "goodput"
        assert seen.took_s(0.99, since_s=3.0) <= 0.5, "of those answered in time, by definition"
        assert seen.late <= 0.01 * len(seen.good), "p99 of the admitted is within the deadline"

    in_virtual_time(story())


@A_SEED
def test_short_deadlines_are_kept_by_admitting_less(seed: int) -> None:
    async def story() -> None:
        most = await capacity(seed, shared_calls)
        gate = Gate.open(seed)
        server, seen = shared_calls(gate), Seen()
        await gate.flood(server, seen, per_s=5 * most, until_s=9.0, deadline_ms=150)
        assert seen.per_s(3.0, 9.0) >= 0.6 * most, "a call may take two fifths of 150 ms, so fewer share one"
        assert seen.late <= 0.04 * len(seen.good), "each pause of the server is two thirds of the deadline"

    in_virtual_time(story())


@A_SEED
@each_server
def test_after_a_burst_everything_is_as_before_at_once(seed: int, make_server: MakeServer) -> None:
    async def story() -> None:
        most = await capacity(seed, make_server)
        gate = Gate.open(seed)
        server, burst, after = make_server(gate), Seen(), Seen()
        await gate.flood(server, burst, per_s=5 * most, until_s=5.0)
        ended_s = gate.now_s()
        assert ended_s <= 5.5, "the last of the burst is answered or refused soon"
        await gate.flood(server, after, per_s=0.5 * most, until_s=ended_s + 5.0)
        assert not after.refusals
        assert after.per_s(ended_s, ended_s + 5.0) >= 0.45 * most
        assert after.took_s(0.5) <= 0.1

    in_virtual_time(story())


@A_SEED
def test_the_flood_of_one_endpoint_starves_no_other(seed: int) -> None:
    async def story() -> None:
        most = await capacity(seed, shared_calls)
        gate = Gate.open(seed)
        flooded, calm = shared_calls(gate), places(gate)
        flood, few = Seen(), Seen()
        async with asyncio.TaskGroup() as group:
            group.create_task(gate.flood(flooded, flood, "flooded", per_s=5 * most, until_s=8.0))
            group.create_task(gate.flood(calm, few, "calm", per_s=50, until_s=8.0))
        assert not few.refusals
        assert few.took_s(0.99) <= 0.25
        assert flood.per_s(3.0, 8.0) >= 0.85 * most

    in_virtual_time(story())


@A_SEED
def test_two_floods_of_one_server_get_about_as_much_each(seed: int) -> None:
    async def story() -> None:
        most = await capacity(seed, places)
        gate = Gate.open(seed)
        server, one, other = places(gate), Seen(), Seen()
        async with asyncio.TaskGroup() as group:
            group.create_task(gate.flood(server, one, "one", per_s=1.2 * most, until_s=14.0))
            group.create_task(gate.flood(server, other, "other", per_s=2.4 * most, until_s=14.0))
        rates = one.per_s(5.0, 14.0), other.per_s(5.0, 14.0)
        assert sum(rates) >= 0.9 * most
        assert min(rates) >= 0.2 * most, rates
        readings = {each.endpoint: each.limit for each in gate.admission.readings()}
        assert sum(readings.values()) <= 150, f"both probe at once, so neither wins from the other: {readings}"

    in_virtual_time(story())


def test_a_server_that_stops_and_goes_on_is_used_again_at_once() -> None:
    async def story() -> None:
        most = await capacity(1, shared_calls)
        gate = Gate.open(1)
        server, seen = SharedCallServer(fixed_s=0.004, per_row_s=0.002, noise=gate.noise), Seen()

        async def stop() -> None:
            await asyncio.sleep(4.0)
            server.paused.clear()
            await asyncio.sleep(3.0)
            server.paused.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(stop())
            group.create_task(gate.flood(server, seen, per_s=2 * most, until_s=12.0, deadline_ms=500))
        assert seen.per_s(5.0, 7.0) == 0
        assert seen.per_s(7.5, 8.5) >= 0.6 * most, "within half a second"
        assert seen.per_s(9.0, 12.0) >= 0.85 * most

    in_virtual_time(story())


def test_what_refused_callers_are_told_to_wait_is_spread_and_grows_with_the_overload() -> None:
    async def told(times: float) -> list[float]:
        gate = Gate.open(1)
        server, seen = places(gate), Seen()
        await gate.flood(server, seen, per_s=times * 400, until_s=4.0)
        return [getattr(each, "retry_after_s", 0.0) for each in seen.refusals[-500:]]

    mild: list[float] = in_virtual_time(told(1.5))
    heavy: list[float] = in_virtual_time(told(8.0))
    assert min(mild) >= 1.0
    assert max(heavy) <= 30.0
    assert sum(heavy) / len(heavy) > 2 * sum(mild) / len(mild)
    assert len({round(each) for each in heavy}) >= 4
