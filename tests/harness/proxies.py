"""A proxy between a client and a server that can be told to fail: to wait, to hold answers back, to cut them."""

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from skewless.stack.ports import LOOPBACK

_CHUNK_BYTES = 4096


class Proxy:
    """Forwards TCP connections to a server on loopback. What it does to answers may be changed at any time.

    `delay_s` is how long each piece of an answer is kept; `holding` keeps answers until it is False again;
    `budget` is asked once for each new connection how many bytes of answers it may carry before it is cut,
    None for any number.
    """

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = 0
        self.delay_s = 0.0
        self.budget: Callable[[], int | None] = lambda: None
        self.connections = 0
        self.cuts = 0
        self._holding = False
        self._loop = asyncio.new_event_loop()
        self._released: asyncio.Event
        self._clients: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """What a client of a Redis behind the proxy calls it."""
        return f"redis://{LOOPBACK}:{self.port}"

    @property
    def holding(self) -> bool:
        """Whether answers are kept."""
        return self._holding

    @holding.setter
    def holding(self, holding: bool) -> None:
        self._holding = holding
        change = self._released.clear if holding else self._released.set
        self._loop.call_soon_threadsafe(change)

    @property
    def open_connections(self) -> int:
        """Connections of clients that are open now."""
        return len(self._clients)

    def cut_all(self) -> None:
        """Close every connection that is open now."""
        for writer in tuple(self._clients):
            self._loop.call_soon_threadsafe(writer.close)

    async def _serve(self, started: threading.Event, tls: ssl.SSLContext | None, stop: "asyncio.Future[None]") -> None:
        self._released = asyncio.Event()
        self._released.set()
        server = await asyncio.start_server(self._connection, LOOPBACK, 0, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await stop
        server.close()
        # A connection that was accepted a moment ago becomes a task only now; each round may bring one.
        while pending := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
        await asyncio.sleep(0)  # closed transports say so in the next turn of the loop

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        budget = self.budget()
        self._clients.add(writer)
        server_writer: asyncio.StreamWriter | None = None
        try:
            server_reader, server_writer = await asyncio.open_connection(LOOPBACK, self.target_port)
            forwards = asyncio.ensure_future(_pump(reader, server_writer))
            answers = asyncio.ensure_future(self._answers(server_reader, writer, budget))
            try:
                await asyncio.wait((forwards, answers), return_when=asyncio.FIRST_COMPLETED)
            finally:
                forwards.cancel()
                answers.cancel()
                await asyncio.gather(forwards, answers, return_exceptions=True)
        except OSError:
            return  # the server is away, which the client is to notice
        finally:
            self._clients.discard(writer)
            writers = [each for each in (writer, server_writer) if each is not None]
            for each in writers:  # all of them before anything is awaited, where this may be cancelled
                each.close()
            for each in writers:
                with suppress(OSError):
                    await each.wait_closed()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, budget: int | None) -> None:
        left = budget
        while chunk := await reader.read(_CHUNK_BYTES):
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            await self._released.wait()
            writer.write(chunk if left is None else chunk[:left])
            await writer.drain()
            if left is not None:
                left -= len(chunk)
                if left <= 0:
                    self.cuts += 1
                    return


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(_CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()


@contextmanager
def proxied(target_port: int, *, tls: ssl.SSLContext | None = None) -> Iterator[Proxy]:
    """A proxy to a port of loopback, in a thread of its own; with `tls` it speaks TLS to its clients."""
    proxy = Proxy(target_port)
    loop = proxy._loop
    started = threading.Event()
    stop: asyncio.Future[None] = loop.create_future()
    thread = threading.Thread(target=loop.run_until_complete, args=(proxy._serve(started, tls, stop),), daemon=True)
    thread.start()
    try:
        assert started.wait(10), "the proxy did not start"
        yield proxy
    finally:
        loop.call_soon_threadsafe(stop.set_result, None)
        thread.join(10)
        loop.close()
