"""How a gateway process ends: asked politely it stops without losing a request, asked again it stops at once."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress

STOPPING = (signal.SIGTERM, signal.SIGINT)


class Lifecycle:
    """What the process was asked to do. Belongs to one event loop."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        """Set when the process is to end."""
        self.at_once = asyncio.Event()
        """Set when it was asked a second time, and nothing is waited for any more."""
        self.leave = asyncio.Event()
        """Set when nobody is to be told first that this process goes."""

    @property
    def is_draining(self) -> bool:
        """Whether no new work shall be sent here."""
        return self.stop.is_set()

    def ask_to_stop(self) -> None:
        """Called for each request to stop."""
        if self.stop.is_set():
            self.at_once.set()
            self.leave.set()
        self.stop.set()

    def lose_parent(self) -> None:
        """Called when the parent is gone: whoever starts the gateway anew wants its port, which is let go at once."""
        self.stop.set()
        self.leave.set()

    def follow_signals(self, *, on_hangup: Callable[[], None]) -> None:
        """Take SIGTERM and SIGINT as requests to stop, and hand SIGHUP on."""
        loop = asyncio.get_running_loop()
        for number in STOPPING:
            loop.add_signal_handler(number, self.ask_to_stop)
        loop.add_signal_handler(signal.SIGHUP, on_hangup)

    async def linger(self, timeout_s: float) -> None:
        """Return after so long, or as soon as it is to leave."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self.leave.wait()
