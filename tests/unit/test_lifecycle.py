"""How a gateway process is told to end."""

import asyncio

from harness.polling import until
from skewless_http.lifecycle import Lifecycle

LONG_S = 3_600.0


async def test_the_first_request_to_stop_lets_the_load_balancer_notice() -> None:
    lifecycle = Lifecycle()
    lifecycle.ask_to_stop()
    assert lifecycle.is_draining
    lingering = asyncio.create_task(lifecycle.linger(LONG_S))
    await asyncio.sleep(0)
    assert not lingering.done()
    lifecycle.ask_to_stop()
    await until(lingering.done)
    assert lifecycle.at_once.is_set()


async def test_a_lost_parent_ends_the_wait_and_cuts_nothing() -> None:
    lifecycle = Lifecycle()
    lingering = asyncio.create_task(lifecycle.linger(LONG_S))
    lifecycle.lose_parent()
    await until(lingering.done)
    assert lifecycle.is_draining
    assert not lifecycle.at_once.is_set()


async def test_lingering_ends_by_itself() -> None:
    async with asyncio.timeout(30):
        await Lifecycle().linger(0.01)
