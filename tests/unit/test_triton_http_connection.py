"""Connections to a model server over HTTP: kept, used again, and given up exactly when they must be."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from harness.polling import until
from skewless.adapters.triton_http_connection import HttpAnswer, HttpConnections
from skewless.limits import MODEL_ANSWER_BYTES_MAX, MODEL_CONNECTIONS_MAX

REQUEST = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Seen: Yes\r\n\r\nok"
TOO_MANY = MODEL_ANSWER_BYTES_MAX + 1

Serve = Callable[[int, int, asyncio.StreamWriter], Awaitable[None]]
"""Given the number of the connection, of the request on it, and where to write."""


class Server:
    """Answers by a script."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self.connections = 0
        self.requests = 0
        self.open = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        number, asked = self.connections, 0
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                self.requests += 1
                asked += 1
                await self._serve(number, asked, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def connected(serve: Serve) -> AsyncIterator[tuple[Server, HttpConnections]]:
    server = Server(serve)
    listening = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    host, port = listening.sockets[0].getsockname()
    connections = HttpConnections(host, port)
    try:
        yield server, connections
    finally:
        await connections.close()
        await until(lambda: server.open == 0)
        listening.close()
        await listening.wait_closed()


async def ask(connections: HttpConnections, *, timeout_s: float = 30.0) -> HttpAnswer:
    return await connections.ask(REQUEST, timeout_s=timeout_s)


def always(*parts: bytes) -> Serve:
    async def serve(_connection: int, _request: int, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)

    return serve


async def test_a_connection_is_kept_and_used_again() -> None:
    async with connected(always(OK)) as (server, connections):
        for _ in range(5):
            answer = await ask(connections)
            assert (answer.status, answer.body, answer.headers[b"x-seen"]) == (200, b"ok", b"Yes")
        assert (server.connections, server.requests) == (1, 5)


@pytest.mark.parametrize(
    "parts",
    [
        [OK[each : each + 1] for each in range(len(OK))],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n", b"1\r\nk\r\n0\r\n\r\n"],
        [OK[:20], OK[20:]],
    ],
)
async def test_an_answer_may_come_in_any_pieces(parts: list[bytes]) -> None:
    async with connected(always(*parts)) as (server, connections):
        for _ in range(2):
            assert (await ask(connections)).body == b"ok"
        assert server.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ],
)
async def test_a_server_that_wants_no_more_is_asked_on_another_connection(answer: bytes) -> None:
    async with connected(always(answer)) as (server, connections):
        for _ in range(3):
            assert (await ask(connections)).body == b"ok"
        assert server.connections == 3
        await until(lambda: server.open == 0)


async def test_requests_at_once_have_connections_of_their_own_and_none_gets_anothers_answer() -> None:
    release = asyncio.Event()

    async def serve(connection: int, _request: int, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        body = b"%d" % connection
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    async with connected(serve) as (server, connections):
        asked = [asyncio.create_task(ask(connections)) for _ in range(8)]
        await until(lambda: server.requests == 8)
        release.set()
        assert sorted(int(each.body) for each in await asyncio.gather(*asked)) == list(range(1, 9))
        await asyncio.gather(*(ask(connections) for _ in range(8)))
        assert server.connections == 8


async def test_a_connection_that_the_server_closed_meanwhile_is_replaced_unseen() -> None:
    async def serve(connection: int, request: int, writer: asyncio.StreamWriter) -> None:
        if request == 1:
            writer.write(OK)
        else:  # the request has crossed the news that the connection is closed
            writer.transport.abort()

    async with connected(serve) as (server, connections):
        for _ in range(3):
            assert (await ask(connections)).status == 200
        assert server.connections == 3


async def test_a_new_connection_that_ends_before_the_answer_is_an_error_at_once() -> None:
    async def serve(_connection: int, _request: int, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with connected(serve) as (server, connections):
        with pytest.raises(OSError, match=r"closed|reset"):
            await ask(connections)
        assert server.requests == 1


async def test_an_answer_that_breaks_off_is_not_asked_for_again() -> None:
    async def serve(_connection: int, request: int, writer: asyncio.StreamWriter) -> None:
        if request == 1:
            writer.write(OK)
            return
        writer.write(OK[:-1])
        writer.close()  # once the piece is on its way

    async with connected(serve) as (server, connections):
        await ask(connections)
        with pytest.raises(OSError, match=r"closed|reset"):
            await ask(connections)
        assert server.requests == 2
        assert (await ask(connections)).status == 200


@pytest.mark.parametrize(
    "nonsense",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 two OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (MODEL_ANSWER_BYTES_MAX + 1)
        + bytes(MODEL_ANSWER_BYTES_MAX + 1),
    ],
    ids=["no http", "no status", "two lengths", "too large"],
)
async def test_what_is_no_answer_is_an_error_and_the_connection_is_left(nonsense: bytes) -> None:
    async def serve(connection: int, _request: int, writer: asyncio.StreamWriter) -> None:
        writer.write(nonsense if connection == 1 else OK)

    async with connected(serve) as (server, connections):
        with pytest.raises(OSError, match="no HTTP that is understood"):
            await ask(connections)
        assert (await ask(connections)).status == 200
        assert server.connections == 2


async def test_an_answer_that_nobody_asked_for_ends_the_connection() -> None:
    async with connected(always(OK + OK)) as (server, connections):
        for _ in range(3):
            assert (await ask(connections)).body == b"ok"
        assert server.connections == 3


async def test_what_comes_too_late_never_answers_another_request() -> None:
    async def serve(connection: int, _request: int, writer: asyncio.StreamWriter) -> None:
        if connection > 1:
            writer.write(OK)

    async with connected(serve) as (server, connections):
        with pytest.raises(TimeoutError):
            await ask(connections, timeout_s=0.02)
        assert (await ask(connections)).status == 200
        assert server.connections == 2
        await until(lambda: server.open == 1)


async def test_who_gives_up_waiting_leaves_no_connection_behind() -> None:
    async def serve(connection: int, _request: int, writer: asyncio.StreamWriter) -> None:
        if connection > 1:
            writer.write(OK)

    async with connected(serve) as (server, connections):
        waiting = asyncio.create_task(ask(connections))
        await until(lambda: server.requests == 1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await until(lambda: server.open == 0)
        assert (await ask(connections)).status == 200


async def test_there_are_never_more_connections_than_may_be() -> None:
    async def silent(_connection: int, _request: int, _writer: asyncio.StreamWriter) -> None: ...

    async with connected(silent) as (server, connections):
        asked = [asyncio.create_task(ask(connections)) for _ in range(MODEL_CONNECTIONS_MAX)]
        await until(lambda: server.requests == MODEL_CONNECTIONS_MAX)
        with pytest.raises(OSError, match="as many as may be"):
            await ask(connections)
        for each in asked:
            each.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        await until(lambda: server.open == 0)
        with pytest.raises(TimeoutError):  # a place is free again, and what is there does not answer
            await ask(connections, timeout_s=0.02)


async def test_nobody_there_is_an_error_and_closing_ends_everything() -> None:
    async with connected(always(OK)) as (server, connections):
        await ask(connections)
        await connections.close()
        await until(lambda: server.open == 0)
        with pytest.raises(OSError, match="closed"):
            await ask(connections)
    nobody = HttpConnections("127.0.0.1", 1)
    for _ in range(2 * MODEL_CONNECTIONS_MAX):
        with pytest.raises(OSError, match=r"refused|Connect"):
            await ask(nobody)
