"""One HTTP connection: uvicorn's protocol, with the bounds that it lacks and a way to end without losing a request.

What uvicorn does not bound, and is bounded here: how long the head of a request may take, how large it may be, how
long a caller may leave its answer unread, and how long a connection may stay that never asks anything. While the
server drains, each connection is closed with its next answer, which says so, and idle ones after a moment.
"""

import asyncio
import select
import time
from collections.abc import Callable
from dataclasses import dataclass

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from skewless.limits import (
    CONNECTION_DRAIN_IDLE_S,
    CONNECTION_IDLE_S,
    CONNECTION_LOOK_S,
    CONNECTION_STALL_S,
    REQUEST_HEAD_BYTES_MAX,
    REQUEST_HEAD_S,
    REQUEST_HEADERS_MAX,
    REQUEST_LINE_BYTES_MAX,
)
from skewless_http.lobby import REFUSED, Lobby
from skewless_http.security.peers import PeerCertificate, peer_of

PEER = "skewless.peer"
"""Where a request's scope has the caller's `PeerCertificate`; absent where none was shown."""
_OFFERS = frozenset({b"connection", b"upgrade", b"http2-settings"})
_BAD_REQUEST = b"400 Bad Request"
_TOO_SLOW = b"408 Request Timeout"
_LINE_TOO_LONG = b"414 URI Too Long"
_HEAD_TOO_LARGE = b"431 Request Header Fields Too Large"


@dataclass(frozen=True, slots=True)
class ConnectionTimes:
    """How long a connection may take for what, in seconds; `look_s` is how often that is looked at."""

    head_s: float = REQUEST_HEAD_S
    stall_s: float = CONNECTION_STALL_S
    idle_s: int = CONNECTION_IDLE_S
    drain_idle_s: float = CONNECTION_DRAIN_IDLE_S
    look_s: float = CONNECTION_LOOK_S


class _HeadRefused(Exception):
    """Ends the parsing of a head that is too large; the parser reports it as its own error."""


class _OpenFlow(FlowControl):
    """Leaves a connection alone that is closing, on which the transport would raise."""

    def resume_reading(self) -> None:
        if not self._transport.is_closing():
            super().resume_reading()

    def pause_reading(self) -> None:
        if not self._transport.is_closing():
            super().pause_reading()


class GatewayProtocol(HttpToolsProtocol):
    """See the module. `on_closed` is called once, when the connection is gone."""

    def __init__(
        self,
        config: Config,
        state: ServerState,
        *,
        times: ConnectionTimes,
        on_closed: Callable[[], None],
        lobby: Lobby | None = None,
    ) -> None:
        super().__init__(config, state, app_state={})
        self._times = times
        self._on_closed = on_closed
        self._lobby = lobby
        self._unseen = b""
        """The beginning of a request that waits in the lobby."""
        self._arrived_ns = 0
        self._peer: PeerCertificate | None = None
        self._awaiting_since_s = 0.0
        """When a head began to be awaited; 0 while none is: a request is being answered, or the connection is idle."""
        self._in_head = False
        """Whether some of a head has come, and not all of it."""
        self._head_bytes = 0
        self._refusal = _BAD_REQUEST
        self._upgrade_asked = False
        self._request: asyncio.Task[None] | None = None
        self._running: RequestResponseCycle | None = None
        """What is being answered; `cycle` is what was received last, which may wait behind it."""
        self._draining_since_s = 0.0
        self._unread_bytes = 0
        self._unread_since_s = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether no request is being received or answered."""
        return not self._in_head and not self._is_answering and not self._unseen

    @property
    def _is_answering(self) -> bool:
        return bool(self.pipeline) or (self._running is not None and not self._running.response_complete)

    @property
    def _was_refused(self) -> bool:
        """Whether the last request was refused for what others ask; who comes back at once may have to wait."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and REFUSED in cycle.scope["state"]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn's own
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self.flow = _OpenFlow(transport)
        self._awaiting_since_s = self.loop.time()
        self._peer = peer_of(transport.get_extra_info("ssl_object"))

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`. What was being answered is given up: nobody waits for it."""
        if self._unseen and self._lobby is not None:
            self._lobby.leaves(self)
        self._give_up()
        super().connection_lost(exc)
        self._on_closed()

    def _give_up(self) -> None:
        """End the request under way, and forget those behind it; nothing more can be written."""
        self.pipeline.clear()
        cycle = self._running
        if self._request is None or cycle is None or cycle.response_complete:
            return
        cycle.scope["state"]["gone"] = True  # so that the front door counts it as the caller's doing
        # uvicorn tells only the request that came last, and answers 500 on a closed connection for the others.
        cycle.disconnected = True
        cycle.message_event.set()
        self._request.cancel()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`. Unlike uvicorn's, writes nothing to the log for what any caller can send."""
        self._unset_keepalive_if_required()
        if self._lobby is not None and self.is_idle:
            self._arrived_ns = time.monotonic_ns()
            if self._was_refused and self._lobby.keeps(self):
                self._unseen = data
                self._awaiting_since_s = 0.0  # from here on it is not the caller who is late
                self.flow.pause_reading()
                return
        self._take(data)

    def go_on(self) -> None:
        """Look at the request that waited in the lobby."""
        data, self._unseen = self._unseen, b""
        self.flow.resume_reading()
        self._take(data)

    def _take(self, data: bytes) -> None:
        self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._go_on_without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(self._refusal)
        if not self._in_head:
            self._head_bytes = 0
        elif self._head_bytes > REQUEST_HEAD_BYTES_MAX and not self.transport.is_closing():
            self._refuse(_HEAD_TOO_LARGE)

    def _go_on_without_upgrade(self, rest: bytes) -> None:
        """Read the request again as one that asks for no other protocol, which a server may leave unanswered.

        The parser takes everything after such a head for the other protocol: without this the body of a request from
        Java's HTTP client, which offers h2c with its first one, would be lost.
        """
        method = self.parser.get_method()
        kept = [(name, value) for name, value in self.headers if name not in _OFFERS]
        head = b"".join((method, b" ", self.url, b" HTTP/1.1\r\n", *(b"%b: %b\r\n" % each for each in kept), b"\r\n"))
        self._upgrade_asked = False
        self.parser = httptools.HttpRequestParser(self)
        self._take(head + rest)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self.scope["state"]["arrived_ns"] = self._arrived_ns
        self._in_head = True
        self._awaiting_since_s = self.loop.time()
        if self._peer is not None:
            self.scope[PEER] = self._peer  # type: ignore[literal-required]  # an extension of our own

    def on_headers_complete(self) -> None:
        """The whole head has come."""
        self._in_head = False
        self._awaiting_since_s = 0.0
        if len(self.url) > REQUEST_LINE_BYTES_MAX:
            self._refusal = _LINE_TOO_LONG
            raise _HeadRefused
        # The sum is worked out only where it can be too large: a small request comes in one small piece.
        too_many = len(self.headers) > REQUEST_HEADERS_MAX
        if too_many or (self._head_bytes > REQUEST_HEAD_BYTES_MAX and self._sum() > REQUEST_HEAD_BYTES_MAX):
            self._refusal = _HEAD_TOO_LARGE
            raise _HeadRefused
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise _HeadRefused
            self._upgrade_asked = True
            return
        super().on_headers_complete()
        if self._draining_since_s:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """The whole request has come."""
        if not self._upgrade_asked:
            super().on_message_complete()

    def _sum(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: object) -> None:
        """As uvicorn does, and what is begun is kept, so that a hang-up can end it."""
        self._running = cycle
        self._request = task = self.loop.create_task(cycle.run_asgi(app))  # type: ignore[arg-type]  # uvicorn's own
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def _refuse(self, status: bytes) -> None:
        """Answer without the application, and close: what would come next on this connection cannot be read.

        Requests that came whole before are answered first, and their answers are all that is said then.
        """
        newest: RequestResponseCycle | None = self.cycle
        broken = newest if newest is not None and newest.more_body and not newest.response_complete else None
        if broken is not None and broken is self._running:
            is_answered = broken.response_started
            self._give_up()
            self._end_with(status if not is_answered else b"")
        elif broken is not None and self.pipeline and self.pipeline[0][0] is broken:
            self.pipeline.popleft()
            self._end_after_answers()
        elif self._is_answering:
            self._end_after_answers()
        else:
            self._end_with(status)

    def _end_with(self, status: bytes) -> None:
        if status:
            reason = status.partition(b" ")[2]
            self.transport.write(
                b"HTTP/1.1 %b\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n"
                b"connection: close\r\n\r\n%b" % (status, len(reason), reason)
            )
        self.transport.close()

    def _end_after_answers(self) -> None:
        last = self.pipeline[0][0] if self.pipeline else self._running
        assert last is not None, "something is being answered"
        last.keep_alive = False
        self._in_head = False
        self._awaiting_since_s = 0.0
        self.flow.pause_reading()

    def shutdown(self) -> None:
        """Begin to drain: the next answer is the last one on this connection."""
        self._draining_since_s = self.loop.time()
        if self._is_answering:
            self.cycle.keep_alive = False

    def look(self, now_s: float) -> None:
        """Close what is late, stalled, or idle while the server drains; called every `look_s`."""
        if self._is_stalled(now_s):
            self.transport.abort()
        elif self._awaiting_since_s and now_s - self._awaiting_since_s > self._times.head_s:
            if self._in_head:
                self._refuse(_TOO_SLOW)
            else:
                self.transport.close()
        elif (
            self._draining_since_s
            and self.is_idle
            and now_s - self._draining_since_s > self._times.drain_idle_s
            and not self._has_unread()
        ):
            self.transport.close()

    def _is_stalled(self, now_s: float) -> bool:
        """Whether the caller has taken nothing of an answer for too long."""
        left = self.transport.get_write_buffer_size()
        if left == 0 or left != self._unread_bytes:
            self._unread_bytes, self._unread_since_s = left, now_s
            return False
        return now_s - self._unread_since_s > self._times.stall_s

    def _has_unread(self) -> bool:
        """Whether a request has come that the event loop has not read yet; closing now would lose it."""
        connection = self.transport.get_extra_info("socket")
        return connection is not None and bool(select.select([connection.fileno()], [], [], 0)[0])


assert issubclass(httptools.HttpParserCallbackError, httptools.HttpParserError), "what _HeadRefused becomes"
