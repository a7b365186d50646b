"""The gateway's HTTP server on real sockets: what it bounds, what it survives, and how it ends."""

import asyncio
import logging
import os
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field

import psutil
import pytest

from harness.polling import until
from skewless.errors import InvalidSettings
from skewless.limits import REQUEST_HEAD_BYTES_MAX, REQUEST_HEADERS_MAX, REQUEST_LINE_BYTES_MAX
from skewless_http.http_message import Receive, Scope, Send, send_reply
from skewless_http.http_protocol import ConnectionTimes
from skewless_http.http_server import HttpServer
from skewless_http.listening import ConnectionBoard, open_listener

HOST = "127.0.0.1"
QUICK = ConnectionTimes(head_s=0.2, stall_s=0.3, idle_s=30, drain_idle_s=0.05, look_s=0.02)
GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
LARGE = 8 * 1024 * 1024


@dataclass
class Application:
    """Answers with how many bytes the body had; requests to /wait wait for `go`, /large is answered with 8 MiB."""

    go: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: int = 0
    cancelled: int = 0
    seen: list[Scope] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})
            return
        self.seen.append(scope)
        body = b""
        while (message := await receive()).get("more_body"):
            body += message["body"]
        body += message.get("body", b"")
        if scope["path"] == "/wait":
            self.waiting += 1
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                return
        answer = b"x" * LARGE if scope["path"] == "/large" else b"%d" % len(body)
        await send_reply(send, 200, [], answer)


@dataclass
class Served:
    app: Application
    server: HttpServer
    port: int

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(HOST, self.port)

    async def said(self, *parts: bytes) -> bytes:
        """Everything that the server says to what is sent on one connection, until it closes it or answered."""
        reader, writer = await self.connect()
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
            async with asyncio.timeout(80):
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                return head + await reader.readexactly(length)
        finally:
            writer.close()


@asynccontextmanager
async def served(*, connections_max: int = 100, times: ConnectionTimes = QUICK) -> AsyncIterator[Served]:
    listener = open_listener(HOST, 0, variable="PORT")
    port = listener.getsockname()[1]
    app = Application()
    server = HttpServer(app, listener, connections_max=connections_max, times=times)
    await server.open()
    server.listen()
    try:
        yield Served(app, server, port)
    finally:
        await server.drain(0)
        await server.close()


async def test_a_head_that_dribbles_is_answered_408_though_bytes_keep_coming() -> None:
    async with served() as running:
        caller = socket.create_connection((HOST, running.port))
        caller.setblocking(False)
        caller.send(b"GET / HTTP/1.1\r\n")
        hearing = asyncio.ensure_future(asyncio.get_running_loop().sock_recv(caller, 1_000))

        def dribbles_on() -> bool:
            with suppress(OSError):
                caller.send(b"a: b\r\n")
            return hearing.done()

        await until(dribbles_on)
        assert (await hearing).startswith(b"HTTP/1.1 408")
        caller.close()
        assert not running.app.seen


async def test_a_connection_that_asks_nothing_is_closed_without_a_word() -> None:
    async with served() as running:
        reader, writer = await running.connect()
        async with asyncio.timeout(80):
            assert await reader.read() == b""
        writer.close()


async def test_a_connection_between_requests_is_kept_longer_than_a_head_may_take() -> None:
    async with served() as running:
        reader, writer = await running.connect()
        for _ in range(2):
            writer.write(GET)
            await reader.readuntil(b"\r\n\r\n0")
            asked_s = asyncio.get_running_loop().time()
            await until(lambda since=asked_s: asyncio.get_running_loop().time() > since + 2 * QUICK.head_s)  # type: ignore[misc]  # a default binds the loop's value
        writer.close()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /" + b"a" * REQUEST_LINE_BYTES_MAX + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * (REQUEST_HEADERS_MAX + 1) + b"\r\n", b"431"),
        (b"GET / HTTP/1.1\r\na: " + b"b" * REQUEST_HEAD_BYTES_MAX + b"\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\na: " + b"b" * (REQUEST_HEAD_BYTES_MAX + 1), b"431"),
        (b"NONSENSE\r\n\r\n", b"400"),
        (b"CONNECT elsewhere:80 HTTP/1.1\r\nHost: elsewhere\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", b"400"),
    ],
    ids=["line", "many", "large", "large and unfinished", "nonsense", "connect", "smuggling"],
)
async def test_a_head_beyond_its_bounds_is_refused_before_the_application(
    head: bytes, status: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with served() as running:
        said = await running.said(head)
        assert said.startswith(b"HTTP/1.1 " + status), said
        assert b"connection: close" in said
        assert not running.app.seen
    assert not [record for record in caplog.records if record.name.startswith("uvicorn") and record.levelno >= 30]


async def test_a_large_body_after_a_small_head_is_no_large_head() -> None:
    async with served() as running:
        body = b"b" * (3 * REQUEST_HEAD_BYTES_MAX)
        said = await running.said(b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        assert said.endswith(b"\r\n\r\n%d" % len(body))


async def test_an_offer_of_another_protocol_is_passed_over_and_the_body_arrives() -> None:
    offer = (
        b"POST / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n"
        b"Content-Length: 5\r\nX-Kept: yes\r\n\r\nhello"
    )
    async with served() as running:
        reader, writer = await running.connect()
        for piece in (offer, offer[:-2], offer[-2:]):
            writer.write(piece)
            if piece != offer[:-2]:
                async with asyncio.timeout(80):
                    assert (await reader.readuntil(b"\r\n\r\n5")).startswith(b"HTTP/1.1 200")
        writer.close()
        assert [dict(scope["headers"])[b"x-kept"] for scope in running.app.seen] == [b"yes", b"yes"]


async def test_one_connection_too_many_is_told_so_and_room_comes_back() -> None:
    async with served(connections_max=2, times=ConnectionTimes()) as running:
        first, second = await running.connect(), await running.connect()
        await until(lambda: running.server.connections == 2)
        assert b"503" in await running.said(GET)
        assert running.server.refused == 1
        first[1].close()
        await until(lambda: running.server.connections == 1)
        assert (await running.said(GET)).startswith(b"HTTP/1.1 200")
        second[1].close()


async def test_without_file_descriptors_accepting_pauses_and_recovers() -> None:
    async with served(times=ConnectionTimes()) as running:
        # What the kernel has completed waits to be accepted; this thread gives the server no turn meanwhile.
        callers = [socket.create_connection((HOST, running.port)) for _ in range(3)]
        for caller in callers:
            caller.setblocking(False)
            caller.send(GET)
        with no_descriptors():
            await until(lambda: running.server.accept_failures > 1)
            assert running.server.accept_failures < 20, "a pause lies between two attempts"
        loop = asyncio.get_running_loop()
        for caller in callers:
            async with asyncio.timeout(80):
                assert (await loop.sock_recv(caller, 1_000)).startswith(b"HTTP/1.1 200")
            caller.close()
        assert (await running.said(GET)).startswith(b"HTTP/1.1 200")


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Inside, this process gets no file descriptor more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_a_caller_that_does_not_read_its_answer_is_cut_off() -> None:
    async with served() as running:
        caller = socket.create_connection((HOST, running.port))
        caller.setblocking(False)
        caller.send(b"GET /large HTTP/1.1\r\n\r\n")
        await until(lambda: len(running.app.seen) == 1)
        await until(lambda: running.server.connections == 0)
        caller.close()


async def test_a_caller_that_reads_slowly_gets_all_of_its_answer() -> None:
    async with served() as running:
        reader, writer = await running.connect()
        writer.write(b"GET /large HTTP/1.1\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        got = 0
        while got < LARGE:
            got += len(await reader.read(256 * 1024))
            await asyncio.sleep(QUICK.stall_s / 20)
        writer.close()


@pytest.mark.parametrize("half", [True, False], ids=["half-closed", "closed"])
async def test_a_caller_that_hangs_up_ends_its_work_and_leaves_nothing_behind(half: bool) -> None:
    async with served() as running:
        descriptors = psutil.Process().num_fds()
        callers = [await running.connect() for _ in range(5)]
        for _, writer in callers:
            writer.write(b"GET /wait HTTP/1.1\r\n\r\n")
        await until(lambda: running.app.waiting == 5)
        for _, writer in callers:
            if half:
                writer.write_eof()
            else:
                writer.close()
        await until(lambda: running.app.cancelled == 5)
        assert all(scope["state"]["gone"] for scope in running.app.seen)
        for _, writer in callers:
            writer.close()
        await until(lambda: running.server.connections == 0 and running.server.requests == 0)
        await until(lambda: psutil.Process().num_fds() <= descriptors)


async def test_draining_answers_what_was_taken_and_closes_each_connection() -> None:
    async with served() as running:
        reader, writer = await running.connect()
        writer.write(b"GET /wait HTTP/1.1\r\n\r\n")
        idle_reader, idle_writer = await running.connect()
        await until(lambda: running.app.waiting == 1 and running.server.connections == 2)
        draining = asyncio.create_task(running.server.drain(20))
        async with asyncio.timeout(80):
            assert await idle_reader.read() == b""
        assert not draining.done()
        with pytest.raises(ConnectionRefusedError):
            await running.connect()
        running.app.go.set()
        async with asyncio.timeout(80):
            assert b"connection: close" in (await reader.read())
        assert await draining == 0
        for each in (writer, idle_writer):
            each.close()


async def test_what_the_kernel_took_before_the_server_stopped_is_answered() -> None:
    async with served() as running:
        callers = [socket.create_connection((HOST, running.port)) for _ in range(20)]
        for caller in callers:
            caller.send(GET)
            caller.setblocking(False)
        # Until here the event loop had no turn in which it could have accepted any of them.
        assert running.server.connections == 0
        await running.server.drain(20)
        for caller in callers:
            assert caller.recv(1_000).startswith(b"HTTP/1.1 200")
            caller.close()


@pytest.mark.parametrize("bad", [b"NONSENSE\r\n\r\n", b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"])
async def test_whole_requests_before_a_broken_one_have_their_answers(
    bad: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with served() as running:
        reader, writer = await running.connect()
        writer.write(b"GET /wait HTTP/1.1\r\n\r\n" + GET + GET + bad)
        await until(lambda: running.app.waiting == 1)
        running.app.go.set()
        async with asyncio.timeout(80):
            said = await reader.read()
        assert said.count(b"HTTP/1.1 200") == 3, said
        assert said.count(b"HTTP/1.1") == 3
        writer.close()
        await until(lambda: running.server.connections == 0 and running.server.requests == 0)
    assert not caplog.records


async def test_a_broken_body_is_refused_and_ends_its_work_without_a_trace(caplog: pytest.LogCaptureFixture) -> None:
    async with served() as running:
        said = await running.said(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", b"zz\r\n")
        assert said.startswith(b"HTTP/1.1 400"), said
        await until(lambda: running.server.connections == 0 and running.server.requests == 0)
    assert not caplog.records


async def test_a_caller_that_hangs_up_on_several_requests_ends_them_all(caplog: pytest.LogCaptureFixture) -> None:
    async with served() as running:
        _, writer = await running.connect()
        writer.write(b"GET /wait HTTP/1.1\r\n\r\n" * 5)
        await until(lambda: running.app.waiting == 1)
        writer.close()
        await until(lambda: running.server.connections == 0 and running.server.requests == 0)
        assert (running.app.waiting, running.app.cancelled) == (1, 1), "those behind it are never begun"
    assert not caplog.records


async def test_what_is_not_answered_in_time_is_cut() -> None:
    async with served() as running:
        _, writer = await running.connect()
        writer.write(b"GET /wait HTTP/1.1\r\n\r\n")
        await until(lambda: running.app.waiting == 1)
        assert await running.server.drain(0.1) == 1
        assert running.app.cancelled == 1
        writer.close()


async def test_a_server_that_lets_go_still_takes_requests_and_says_that_each_is_the_last() -> None:
    async with served() as running:
        running.server.let_go()
        said = await running.said(GET)
        assert said.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in said


def test_a_taken_port_is_named_with_its_setting() -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidSettings, match=f"MY_PORT is {port}"):
            open_listener(HOST, port, variable="MY_PORT")


def test_workers_take_turns_by_who_has_fewest_connections() -> None:
    descriptor = ConnectionBoard.create(3)
    board = ConnectionBoard(descriptor, 3)
    mine = board.turns_of(0)
    assert mine.is_mine(1_000), "nobody else is there"
    board.turns_of(1).show(4)
    assert mine.is_mine(5)
    assert not mine.is_mine(6)
    board.turns_of(2).show(2)
    assert not mine.is_mine(4)
    board.show(2, None)
    assert mine.is_mine(4), "one that is gone takes no turns"
    board.turns_of(1).show(800)
    assert mine.is_mine(901)
    assert not mine.is_mine(902)
    assert ConnectionBoard(descriptor, 3).counts() == [None, 800, None]
    os.close(descriptor)
