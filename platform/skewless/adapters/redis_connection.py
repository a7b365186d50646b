"""One asyncio connection to a Redis server: commands in one write, replies to calls in the order of the calls.

What this costs over a bare socket, and redis-py's asyncio pipeline beside it, is in ADR 11.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

import hiredis

from skewless.adapters.redis_opening import Opening
from skewless.adapters.redis_replies import PART, PING, StoreFailure
from skewless.adapters.redis_url import Node
from skewless.errors import DeadlineExceeded
from skewless.features.online_store import Invalidate
from skewless.limits import (
    CONNECT_TIMEOUT_S,
    ONLINE_STORE_CALLS_MAX,
    ONLINE_STORE_HEARTBEAT_S,
    ONLINE_STORE_PENDING_BYTES_MAX,
    ONLINE_STORE_SILENCE_S,
    RETRY_AFTER_S,
)

_INCOMPLETE = object()
_LISTEN_S = 0.01
"""After a timer says that a server is silent, what its socket holds is read once before that is believed."""
_OVERLOADED = "more is asked of the store than it answers: look at its latency, or ask less at once"


class _Call:
    """Commands on their way. Its place in the queue stays until all its replies came, also when nobody waits."""

    __slots__ = ("count", "future", "heard", "replies", "started", "timer")

    def __init__(self, future: asyncio.Future[list[Any]], count: int, started: float, heard: int) -> None:
        self.future = future
        self.count = count
        self.started = started
        self.heard = heard
        self.replies: list[Any] = []
        self.timer: asyncio.TimerHandle


class Connection(asyncio.Protocol):
    """An open connection. Many calls may be in flight; none ever sees a reply of another.

    A call whose deadline passes keeps its place in the queue, and its replies are dropped when they come: the
    connection stays usable, and a server that was slow once is not punished by every client connecting anew. A
    server that owes an answer and is silent for ONLINE_STORE_SILENCE_S is taken for hung, and the connection is cut.
    """

    def __init__(self, node: Node, loop: asyncio.AbstractEventLoop, invalidate: Invalidate | None = None) -> None:
        self.node = node
        self._loop = loop
        self._invalidate = invalidate
        self._reader = hiredis.Reader(notEnoughData=_INCOMPLETE)
        self._calls: deque[_Call] = deque()
        self._heard = 0
        self._heard_at = loop.time()
        self._watched = False
        self._transport: asyncio.Transport
        self._ended = loop.create_future()
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are of no class of asyncio's, so that only a cast can say what the loop promises.
        self._transport = cast("asyncio.Transport", transport)

    def start(self, commands: Sequence[bytes], timeout_s: float) -> asyncio.Future[list[Any]]:
        """Send complete commands, at least one; the future is their raw replies, in order.

        It fails with DeadlineExceeded or StoreFailure. Raises the same at once where nothing can be sent.
        """
        if self.closed or self._transport.is_closing():
            # A transport whose write failed is closing a while before it says that the connection is lost.
            self._end(f"the connection to {self.node} is closing")
            raise StoreFailure(f"the connection to {self.node} is closed", unanswered=True)
        if timeout_s <= 0:
            raise _too_late(timeout_s)
        if len(self._calls) >= ONLINE_STORE_CALLS_MAX:
            raise StoreFailure(f"{self.node} owes the answers to {len(self._calls)} calls", hint=_OVERLOADED)
        if (waiting := self._transport.get_write_buffer_size()) > ONLINE_STORE_PENDING_BYTES_MAX:
            raise StoreFailure(f"{self.node} has not taken the last {waiting} bytes sent", hint=_OVERLOADED)
        loop = self._loop
        future: asyncio.Future[list[Any]] = loop.create_future()
        call = _Call(future, len(commands), loop.time(), self._heard)
        call.timer = loop.call_later(timeout_s, self._expire, call, timeout_s)
        self._calls.append(call)
        self._transport.write(b"".join(commands))
        return future

    def data_received(self, data: bytes) -> None:
        if self.closed:
            return
        self._heard += 1
        self._heard_at = self._loop.time()
        self._reader.feed(data)
        take = self._reader.gets
        calls = self._calls
        try:
            while (reply := take()) is not _INCOMPLETE:
                if type(reply) is hiredis.PushNotification:
                    self._pushed(reply)
                elif not calls:
                    self._broken(f"it sent `{reply!r:.200}` unasked")
                    return
                else:
                    call = calls[0]
                    call.replies.append(reply)
                    if len(call.replies) == call.count:
                        calls.popleft()
                        call.timer.cancel()
                        if not call.future.done():
                            call.future.set_result(call.replies)
        except hiredis.ProtocolError as error:
            self._broken(f"it does not speak Redis's protocol ({error})")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(f"{self.node} closed the connection{f': {exc}' if exc else ''}")
        if not self._ended.done():
            self._ended.set_result(None)

    def keep_tried(self) -> None:
        """Send a PING every ONLINE_STORE_HEARTBEAT_S, so that a dead connection is found though nobody reads."""
        if self.closed:
            return
        if not self._calls:
            self.start((PING,), ONLINE_STORE_SILENCE_S).add_done_callback(_consume)
        self._loop.call_later(ONLINE_STORE_HEARTBEAT_S, self.keep_tried)

    def cut(self, reason: str) -> None:
        """Close at once. Calls in flight fail with StoreFailure."""
        self._transport.abort()
        self._end(reason)

    async def ended(self) -> None:
        """Return once the socket is closed."""
        await asyncio.shield(self._ended)

    def _end(self, reason: str) -> None:
        if self.closed:
            return
        self.closed = True
        while self._calls:
            call = self._calls.popleft()
            call.timer.cancel()
            if not call.future.done():
                call.future.set_exception(StoreFailure(reason, unanswered=call.heard == self._heard))
        if self._invalidate is not None:
            self._invalidate(None)

    def _broken(self, problem: str) -> None:
        self.cut(f"{self.node} is no Redis server: {problem}")

    def _pushed(self, push: Sequence[Any]) -> None:
        if self._invalidate is not None and push[0] == b"invalidate":
            self._invalidate(push[1])

    def _expire(self, call: _Call, timeout_s: float) -> None:
        if not call.future.done():
            call.future.set_exception(_too_late(timeout_s))
        self._watch()

    def _watch(self) -> None:
        """Look again when the silence would be over. Only from the first late answer on: most connections need none."""
        if not self._watched:
            self._watched = True
            self._loop.call_later(max(_LISTEN_S, self._silence_left_s()), self._cut_if_silent)

    def _cut_if_silent(self) -> None:
        self._watched = False
        if self.closed or not self._calls:
            return
        if self._silence_left_s() <= 0:
            self.cut(f"{self.node} has answered nothing for {ONLINE_STORE_SILENCE_S:g} s")
        else:
            self._watch()

    def _silence_left_s(self) -> float:
        """How long the server may go on saying nothing; it is silent only while it owes an answer."""
        if not self._calls:
            return ONLINE_STORE_SILENCE_S
        since = max(self._heard_at, self._calls[0].started)
        return since + ONLINE_STORE_SILENCE_S - self._loop.time()


async def connect(node: Node, opening: Opening, invalidate: Invalidate | None = None) -> Connection:
    """An open connection, logged in. Raises StoreFailure, at the latest after CONNECT_TIMEOUT_S."""
    loop = asyncio.get_running_loop()
    connection = Connection(node, loop, invalidate)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await _dial(connection, opening)
            try:
                opening.check(await connection.start(opening.commands, CONNECT_TIMEOUT_S))
            except BaseException as error:
                connection.cut(f"the opening failed: {error}")
                raise
    except (TimeoutError, DeadlineExceeded) as error:
        raise StoreFailure(f"{node} accepted no connection within {CONNECT_TIMEOUT_S:g} s") from error
    except (OSError, UnicodeError) as error:
        raise StoreFailure(f"{node} cannot be connected to: {error}") from error
    return connection


async def ask(node: Node, opening: Opening, question: bytes) -> Any:
    """The reply to one question over a connection of its own. Raises StoreFailure."""
    connection = await connect(node, opening)
    try:
        (reply,) = await connection.start((question,), CONNECT_TIMEOUT_S)
    except DeadlineExceeded as error:
        raise StoreFailure(f"{node} did not answer within {CONNECT_TIMEOUT_S:g} s") from error
    finally:
        connection.cut("its question was answered")
    return reply


async def _dial(connection: Connection, opening: Opening) -> None:
    loop = asyncio.get_running_loop()
    node = connection.node
    if node.port:
        await loop.create_connection(lambda: connection, node.host, node.port, ssl=opening.tls)
    else:
        await loop.create_unix_connection(lambda: connection, node.host)


def _too_late(timeout_s: float) -> DeadlineExceeded:
    return DeadlineExceeded(PART, f"no answer within {timeout_s * 1_000:.0f} ms", retry_after_s=RETRY_AFTER_S)


def _consume(future: "asyncio.Future[list[Any]]") -> None:
    """Look at a failure that nobody waits for; the connection has acted on it."""
    if not future.cancelled():
        future.exception()
