"""Connections that are made when needed, by one attempt that everyone who needs it waits for."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from skewless.adapters.redis_connection import Connection
from skewless.adapters.redis_replies import PART, StoreFailure
from skewless.errors import DeadlineExceeded
from skewless.limits import ONLINE_STORE_RECONNECT_PAUSE_S, RETRY_AFTER_S

T = TypeVar("T")


def closed_here() -> StoreFailure:
    """What a read gets from a store that was closed."""
    return StoreFailure("it was closed by this process", hint="read before closing, or open it again")


class SharedAttempt(Generic[T]):
    """Runs one attempt at a time. A failed one answers for ONLINE_STORE_RECONNECT_PAUSE_S without another try."""

    def __init__(self, attempt: Callable[[], Awaitable[T]]) -> None:
        self._attempt = attempt
        self._running: asyncio.Task[T | StoreFailure] | None = None
        self._failure: StoreFailure | None = None
        self._pause_until = 0.0

    async def result(self, deadline: float) -> T:
        """What the attempt under way, or a new one, gives. It goes on for others when this caller has to leave.

        Raises StoreFailure, or DeadlineExceeded at `deadline` (the loop's clock, s).
        """
        loop = asyncio.get_running_loop()
        if self._running is None:
            if self._failure is not None and loop.time() < self._pause_until:
                raise self._failure.again()
            self._running = loop.create_task(self._run())
        try:
            async with asyncio.timeout_at(deadline):
                outcome = await asyncio.shield(self._running)
        except TimeoutError as error:
            raise DeadlineExceeded(
                PART, "the request's time ran out while it was being connected to", retry_after_s=RETRY_AFTER_S
            ) from error
        if isinstance(outcome, StoreFailure):
            raise outcome.again()
        return outcome

    async def stop(self) -> None:
        """End the attempt under way, if there is one."""
        if (running := self._running) is not None:
            running.cancel()
            await asyncio.wait((running,))

    async def _run(self) -> T | StoreFailure:
        """The attempt; its failure is returned, since several callers raise it, or none is left to."""
        loop = asyncio.get_running_loop()
        try:
            result = await self._attempt()
        except StoreFailure as failure:
            self._failure = failure
            self._pause_until = loop.time() + ONLINE_STORE_RECONNECT_PAUSE_S
            return failure
        except asyncio.CancelledError:
            # Only `stop` cancels it. Whoever waits is not cancelled itself, and must not be told so.
            return closed_here()
        finally:
            self._running = None
        self._failure = None
        return result


class Link:
    """A connection to one place, made anew when it is needed and closed."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]]) -> None:
        self._connect = connect
        self._attempt = SharedAttempt(self._replace)
        self._connection: Connection | None = None
        self._stopped = False

    @property
    def connection(self) -> Connection | None:
        """The open connection; None where there is none."""
        connection = self._connection
        return None if connection is None or connection.closed else connection

    async def connected(self, deadline: float) -> Connection:
        """The open connection, or a new one. Raises StoreFailure, or DeadlineExceeded at `deadline` (loop's clock)."""
        if self._stopped:
            raise closed_here()
        return self.connection or await self._attempt.result(deadline)

    async def close(self) -> None:
        """Close the connection for good."""
        self._stopped = True
        await self._attempt.stop()
        if self._connection is not None:
            self._connection.cut(closed_here().reason)
            await self._connection.ended()

    def leave(self) -> None:
        """Close the connection for good without waiting; calls in flight fail."""
        self._stopped = True
        if self._connection is not None:
            self._connection.cut("its node serves no slot any more")

    async def _replace(self) -> Connection:
        connection = await self._connect()
        if self._stopped:
            connection.cut(closed_here().reason)
            raise closed_here()
        self._connection = connection
        return connection
