"""HTTP/1.1 connections to one server, kept open and used again: what the hot path asks of a client, and no more.

A call of a model is one message there and one back. Clients that can do everything take several times as long for that
as the message itself, see ADR 26.
"""

import asyncio
import ssl
from dataclasses import dataclass, field
from typing import cast

import httptools

from skewless.limits import CONNECT_TIMEOUT_S, MODEL_ANSWER_BYTES_MAX, MODEL_CONNECTIONS_MAX


@dataclass(slots=True)
class HttpAnswer:
    """A whole answer. Header names are in lower case; of one that came twice the last counts."""

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""


class _Connection(asyncio.Protocol):
    """One connection, asked one thing at a time."""

    def __init__(self) -> None:
        self.is_open = False
        self.heard = False
        """Whether any of the present answer has come."""
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._answer = HttpAnswer()
        self._parts: list[bytes] = []
        self._size = 0
        self._waiter: asyncio.Future[HttpAnswer] | None = None

    async def ask(self, request: bytes) -> HttpAnswer:
        """The answer. Raises OSError where the connection ends before it. Whoever stops waiting closes it."""
        self.heard = False
        waiter: asyncio.Future[HttpAnswer] = asyncio.get_running_loop().create_future()
        self._waiter = waiter
        self._transport.write(request)
        try:
            return await waiter
        except asyncio.CancelledError:
            self.close()
            raise
        finally:
            self._waiter = None

    def close(self) -> None:
        """End it; what is still to come is dropped."""
        self.is_open = False
        self._transport.abort()

    def expire(self) -> None:
        """End it, because the answer did not come in time."""
        self._fail(TimeoutError())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._waiter is None:  # nobody asked: what a server says of its own accord is its leave, or nonsense
            self.close()
            return
        self.heard = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, _TooLargeError) as error:
            self._fail(OSError(f"the server's answer is no HTTP that is understood here: {error!r}"))

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._fail(OSError(str(error) if error else "the server closed the connection"))

    def on_message_begin(self) -> None:
        """See httptools."""
        if self._waiter is None:  # a second answer in one piece with the first
            self.is_open = False
        self._answer = HttpAnswer()
        self._parts = []
        self._size = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools."""
        self._answer.headers[name.lower()] = value

    def on_body(self, part: bytes) -> None:
        """See httptools."""
        self._size += len(part)
        if self._size > MODEL_ANSWER_BYTES_MAX:
            raise _TooLargeError(f"more than {MODEL_ANSWER_BYTES_MAX} bytes")
        self._parts.append(part)

    def on_message_complete(self) -> None:
        """See httptools."""
        answer = self._answer
        answer.status = self._parser.get_status_code()
        answer.body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        if not self._parser.should_keep_alive():
            self.is_open = False
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(answer)

    def _fail(self, error: OSError) -> None:
        self.close()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)


class _TooLargeError(Exception):
    """An answer that would take more memory than an answer may."""


class HttpConnections:
    """Connections to one server, opened as they are needed. Belongs to one event loop."""

    def __init__(self, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self._idle: list[_Connection] = []
        self._open = 0
        self._closed = False

    async def ask(self, request: bytes, *, timeout_s: float) -> HttpAnswer:
        """The answer to a whole request that may be asked twice.

        It is, where a connection that was kept ends before any of the answer came: servers close those that were idle,
        and the news may cross the request. Raises OSError where the server is away, its subclass TimeoutError past
        `timeout_s`.
        """
        deadline = asyncio.get_running_loop().time() + timeout_s
        while (kept := self._kept()) is not None:
            try:
                return await self._asked(kept, request, deadline)
            except TimeoutError:
                raise
            except OSError:
                if kept.heard:
                    raise
        return await self._asked(await self._opened(deadline), request, deadline)

    async def close(self) -> None:
        """End every connection."""
        self._closed = True
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    def _kept(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
            self._open -= 1
        return None

    async def _opened(self, deadline: float) -> _Connection:
        if self._closed:
            raise OSError("the client is closed")
        if self._open >= MODEL_CONNECTIONS_MAX:
            raise OSError(f"{self._open} connections are in use, as many as may be")
        loop = asyncio.get_running_loop()
        until = loop.time() + CONNECT_TIMEOUT_S
        self._open += 1
        try:
            async with asyncio.timeout_at(min(until, deadline)):
                _, connection = await loop.create_connection(_Connection, self._host, self._port, ssl=self._tls)
        except TimeoutError as error:
            self._open -= 1
            if deadline < until:
                raise
            raise OSError(f"no connection to {self._host}:{self._port} within {CONNECT_TIMEOUT_S:g} s") from error
        except BaseException:
            self._open -= 1
            raise
        return connection

    async def _asked(self, connection: _Connection, request: bytes, deadline: float) -> HttpAnswer:
        # `asyncio.timeout` would cost as much as all the rest of a call.
        timer = asyncio.get_running_loop().call_at(deadline, connection.expire)
        try:
            return await connection.ask(request)
        finally:
            timer.cancel()
            if connection.is_open and not self._closed:
                self._idle.append(connection)
            else:
                self._open -= 1
                connection.close()
