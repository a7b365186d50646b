"""A small HTTP server around an ASGI application: uvicorn's protocol, without its process handling and signals."""

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from email.utils import formatdate

from uvicorn.config import Config
from uvicorn.lifespan.on import LifespanOn
from uvicorn.server import ServerState

from skewless.errors import StackFailed
from skewless.limits import RETRY_AFTER_S
from skewless_http.http_message import Application
from skewless_http.http_protocol import ConnectionTimes, GatewayProtocol
from skewless_http.listening import Acceptor, Alone, Turns
from skewless_http.lobby import Lobby

_LOGGER = logging.getLogger(__name__)
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: %d\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    % RETRY_AFTER_S
)
_DRAIN_LOOK_S = 0.05


class HttpServer:
    """Serves one application on one socket, in the running event loop.

    `open` starts the application, `listen` takes connections, `drain` ends both without losing a request.
    """

    def __init__(
        self,
        app: Application,
        listener: socket.socket,
        *,
        connections_max: int,
        tls: Callable[[], ssl.SSLContext] | None = None,
        turns: Turns | None = None,
        times: ConnectionTimes | None = None,
        lobby: Lobby | None = None,
    ) -> None:
        """`tls` is asked for its context with every connection, so that a renewed certificate needs no restart.

        In a `lobby`, requests wait while more come than can be answered; without one they are all looked at.
        """
        self._times = times or ConnectionTimes()
        self._config = Config(
            app,
            loop="none",
            http=GatewayProtocol,
            ws="none",
            lifespan="on",
            interface="asgi3",
            access_log=False,
            log_config=None,
            server_header=False,
            # A header that any caller can send must not say who the caller is.
            proxy_headers=False,
            timeout_keep_alive=self._times.idle_s,
        )
        self._config.load()
        self._lifespan = LifespanOn(self._config)
        self._lobby = lobby
        self._listener = listener
        self._connections_max = connections_max
        self._tls = tls
        self._turns = turns or Alone()
        self._state = ServerState()
        self._acceptor: Acceptor | None = None
        self._looking: asyncio.Task[None] | None = None
        self._handshakes: set[asyncio.Task[None]] = set()
        self._open = 0
        self._is_letting_go = False
        self.refused = 0
        """Connections that were one too many."""

    @property
    def connections(self) -> int:
        """Open connections, those in their TLS handshake included."""
        return self._open

    @property
    def requests(self) -> int:
        """Requests being answered."""
        return len(self._state.tasks)

    @property
    def is_listening(self) -> bool:
        """Whether it takes connections."""
        return self._acceptor is not None and not self._acceptor.is_closed

    @property
    def accept_failures(self) -> int:
        """Accepts that failed for want of file descriptors or memory."""
        return 0 if self._acceptor is None else self._acceptor.failures

    async def open(self) -> None:
        """Start the application. Raises StackFailed where it could not start; the log says why."""
        await self._lifespan.startup()
        if self._lifespan.should_exit:
            raise StackFailed("the gateway's application could not start", hint="the lines before this one say why")
        self._looking = asyncio.create_task(self._look_often())

    def listen(self) -> None:
        """Take connections from now on; nothing happens when it does already."""
        if self._acceptor is None:
            self._turns.show(self._open)
            self._acceptor = Acceptor(self._listener, turns=self._turns, count=lambda: self._open, take=self._take)

    def stop_listening(self) -> None:
        """Take no more connections. Those that there are go on; each answer from now on is its connection's last."""
        if self._acceptor is None:
            self._listener.close()
        else:
            self._acceptor.close()
        self.let_go()

    def let_go(self) -> None:
        """Have every connection end with its next answer; new ones are still taken where it listens."""
        self._is_letting_go = True
        for connection in list(self._state.connections):
            connection.shutdown()

    async def drain(self, timeout_s: float, *, at_once: asyncio.Event | None = None) -> int:
        """Wait until every request is answered and every connection gone; returns how many requests were cut.

        What is not done after `timeout_s`, or when `at_once` is set, is cut.
        """
        self.stop_listening()
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        while (self._open or self._state.tasks) and loop.time() < deadline_s:
            if at_once is not None and at_once.is_set():
                break
            self._look(loop.time())
            await asyncio.sleep(_DRAIN_LOOK_S)
        cut = list(self._state.tasks)
        for task in cut:
            task.cancel()
        for connection in list(self._state.connections):
            connection.transport.abort()
        await asyncio.gather(*cut, return_exceptions=True)
        return len(cut)

    async def close(self) -> None:
        """End the application. Call after `drain`."""
        if self._looking is not None:
            self._looking.cancel()
            with suppress(asyncio.CancelledError):
                await self._looking
            await self._lifespan.shutdown()

    def _take(self, connection: socket.socket) -> None:
        if self._open >= self._connections_max:
            self.refused += 1
            with connection, suppress(OSError):
                if self._tls is None:
                    connection.send(_FULL)
            return
        self._open += 1
        self._turns.show(self._open)
        task = asyncio.ensure_future(self._serve(connection))
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)

    async def _serve(self, connection: socket.socket) -> None:
        """Hand a connection to a protocol of its own, and count it out once when it is gone."""
        gone = _Once(self._closed)
        try:
            _, protocol = await asyncio.get_running_loop().connect_accepted_socket(
                lambda: GatewayProtocol(
                    self._config, self._state, times=self._times, on_closed=gone, lobby=self._lobby
                ),
                connection,
                ssl=None if self._tls is None else self._tls(),
                ssl_handshake_timeout=self._times.head_s if self._tls is not None else None,
            )
        except OSError:
            # The caller hung up, or speaks no TLS that is allowed here.
            connection.close()
            gone()
            return
        if self._is_letting_go:
            protocol.shutdown()

    def _closed(self) -> None:
        self._open -= 1
        if not self._is_letting_go:
            self._turns.show(self._open)

    async def _look_often(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._look(loop.time())
            await asyncio.sleep(self._times.look_s)

    def _look(self, now_s: float) -> None:
        self._state.default_headers = [(b"date", formatdate(time.time(), usegmt=True).encode("ascii"))]
        for connection in list(self._state.connections):
            connection.look(now_s)  # type: ignore[union-attr]  # every one of them is a GatewayProtocol


class _Once:
    """Calls a function the first time that it is called."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call: Callable[[], None] | None = call

    def __call__(self) -> None:
        if self._call is not None:
            call, self._call = self._call, None
            call()
