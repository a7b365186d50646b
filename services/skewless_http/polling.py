"""The one rule of how the gateway follows what others change: look, wait, look again, whatever went wrong."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

_LOGGER = logging.getLogger(__name__)
WAKE_GAP_S = 0.1
"""Least time between two looks, however often one is asked for."""


class Polling:
    """One look repeated for as long as the gateway lives. A look that fails is logged, and the next one comes."""

    def __init__(self, look: Callable[[], Awaitable[None]], *, every_s: float, what: str) -> None:
        self._look = look
        self._every_s = every_s
        self._what = what
        self._woken = asyncio.Event()
        self._looked = asyncio.Event()

    def wake(self) -> None:
        """Look at once instead of when it is time."""
        self._woken.set()

    async def first_look(self, *, timeout_s: float) -> None:
        """Return when the first look has ended, well or not, or when `timeout_s` is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._looked.wait()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self._look()
            except Exception:  # a task's boundary: serving goes on with the last good state
                _LOGGER.exception("%s failed; serving goes on with the last good state", self._what)
            self._looked.set()
            await asyncio.sleep(WAKE_GAP_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._every_s - WAKE_GAP_S):
                    await self._woken.wait()
            self._woken.clear()
