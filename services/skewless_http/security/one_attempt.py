"""An attempt that is dear, made once for everyone who wants it at the same time."""

import asyncio
from collections.abc import Awaitable, Callable


class OneAttempt:
    """Starts `attempt` where none is under way. It goes on though whoever started it hangs up."""

    def __init__(self, attempt: Callable[[], Awaitable[None]]) -> None:
        self._attempt = attempt
        self._under_way: asyncio.Task[None] | None = None

    async def start_or_join(self) -> None:
        """Return when an attempt that is under way, or else a new one, has ended. Raises what it raises."""
        if self._under_way is None:
            self._under_way = asyncio.ensure_future(self._run())
            self._under_way.add_done_callback(self._ended)
        await asyncio.shield(self._under_way)

    async def join(self) -> None:
        """Return when the attempt that is under way has ended, at once where there is none."""
        if self._under_way is not None:
            await asyncio.shield(self._under_way)

    def cancel(self) -> None:
        """Give up the attempt that is under way."""
        if self._under_way is not None:
            self._under_way.cancel()

    async def _run(self) -> None:
        await self._attempt()

    def _ended(self, _task: asyncio.Task[None]) -> None:
        self._under_way = None
