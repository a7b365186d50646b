"""Waiting for something without guessing how long it takes."""

import asyncio
from collections.abc import Callable

SOON_S = 60.0
_EVERY_S = 0.001


async def until(condition: Callable[[], bool]) -> None:
    """Return when the condition holds, looked at between turns of the event loop. Raises TimeoutError after SOON_S."""
    async with asyncio.timeout(SOON_S):
        while not condition():  # noqa: ASYNC110  # what is waited for tells nobody
            await asyncio.sleep(_EVERY_S)
