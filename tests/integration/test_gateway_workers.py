"""Several workers on one port: even shares, replaced when they end or hang, and stopped without losing a request.

The workers here have a tiny application, so that they start at once; parent, socket, server and control channel are the
gateway's own. `test_gateway_workers_process.py` has real ones.
"""

import asyncio
import os
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness import tiny_worker
from harness.polling import until
from skewless_gateway.pooled_operations import PooledOperations
from skewless_gateway.settings import GatewaySettings
from skewless_gateway.worker_process import WorkerCommand
from skewless_gateway.workers import Workers
from skewless_http.lifecycle import Lifecycle
from skewless_http.listening import open_listener

TESTS = Path(__file__).parents[1]
REQUEST = b"GET %b HTTP/1.1\r\nHost: tiny\r\n\r\n"


@dataclass
class Client:
    """A caller on one connection; made anew where the server closed it with its last answer."""

    port: int
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None
    is_waiting: bool = False
    """Whether a request was sent and not answered."""

    async def connect(self) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, path: bytes = b"/") -> int:
        """The process id of who answered. Raises ConnectionError or IncompleteReadError where nobody did."""
        if self.writer is None:
            await self.connect()
        assert self.reader is not None
        assert self.writer is not None
        self.writer.write(REQUEST % path)
        self.is_waiting = True
        head = await self.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        body = await self.reader.readexactly(length)
        self.is_waiting = False
        if b"connection: close" in head.lower():
            self.close()
        return int(body)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


@dataclass
class Pool:
    """A parent in this process, its workers in their own."""

    workers: Workers
    lifecycle: Lifecycle
    port: int
    running: "asyncio.Task[int]"
    clients: list[Client] = field(default_factory=list)

    @property
    def pids(self) -> list[int]:
        return [place.process.pid for place in self.workers.places if place.process is not None]

    def client(self) -> Client:
        client = Client(self.port)
        self.clients.append(client)
        return client

    async def all_listen(self) -> None:
        places = self.workers.places
        await until(lambda: all(place.state is not None and place.state.listening for place in places))

    async def stop(self) -> int:
        self.lifecycle.ask_to_stop()
        async with asyncio.timeout(180):
            return await self.running


@asynccontextmanager
async def pool(monkeypatch: pytest.MonkeyPatch, count: int = 2, **settings: Any) -> AsyncIterator[Pool]:
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    listener = open_listener("127.0.0.1", 0, variable="PORT")
    given = {"online_store": "", "triton": "", "database_url": "", "artifacts": "", "prediction_log": Path()}
    chosen = GatewaySettings(**{**given, "workers": count, "development": True, **settings})
    workers = Workers(chosen, listener, command=WorkerCommand(tiny_worker.__name__))
    lifecycle = Lifecycle()
    port = listener.getsockname()[1]
    opened = Pool(workers, lifecycle, port, asyncio.create_task(workers.run(lifecycle)))
    try:
        yield opened
    finally:
        for client in opened.clients:
            client.close()
        with suppress(TimeoutError):
            await opened.stop()


@asynccontextmanager
async def load(opened: Pool, callers: int, path: bytes = b"/") -> AsyncIterator[tuple[list[int], list[str]]]:
    """Callers that ask without a pause, each on its own connection; answers by process id, and what failed."""
    answers: list[int] = []
    failures: list[str] = []
    is_over = asyncio.Event()

    async def call() -> None:
        client = opened.client()
        while not is_over.is_set():
            try:
                answers.append(await client.ask(path))
            except (OSError, asyncio.IncompleteReadError) as error:
                failures.append(repr(error))
                client.close()

    tasks = [asyncio.create_task(call()) for _ in range(callers)]
    try:
        yield answers, failures
    finally:
        is_over.set()
        await asyncio.gather(*tasks)


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


async def test_connections_are_spread_evenly_between_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pool(monkeypatch) as opened:
        await opened.all_listen()
        clients = [opened.client() for _ in range(32)]
        answered = Counter(await asyncio.gather(*(client.ask() for client in clients)))
        assert set(answered) == set(opened.pids)
        assert max(answered.values()) <= 20, answered


async def test_a_killed_worker_is_replaced_and_the_others_answer_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pool(monkeypatch) as opened:
        await opened.all_listen()
        victim, other = opened.pids
        os.kill(victim, signal.SIGKILL)
        await until(lambda: is_gone(victim))
        assert {await opened.client().ask() for _ in range(20)} == {other}
        await until(lambda: len(opened.pids) == 2 and victim not in opened.pids)
        await opened.all_listen()
        assert opened.workers.places[0].watched.restarts == 1
        assert "SIGKILL" in opened.workers.places[0].watched.last_failure


@pytest.mark.parametrize("how", ["blocked", "stopped"])
async def test_a_hung_worker_is_replaced_and_delays_nobody_else(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    async with pool(monkeypatch, worker_silence_s=2.0) as opened:
        await opened.all_listen()
        if how == "stopped":
            victim = opened.pids[0]
            os.kill(victim, signal.SIGSTOP)
        else:
            client = opened.client()
            victim = await client.ask()
            assert client.writer is not None
            client.writer.write(REQUEST % b"/hang")
        async with load(opened, 2) as (answers, failures), asyncio.timeout(180):
            operations = PooledOperations(opened.workers)
            page = (await operations.metrics()).decode()
            assert 'tiny_total{worker="1",kind="a b"} 1.0' in page or 'tiny_total{worker="0",kind="a b"} 1.0' in page
            await until(lambda: any(place.watched.last_failure for place in opened.workers.places))
        assert is_gone(victim)
        assert answers
        # Whoever was on a connection with it is cut when it is killed; nobody else notices.
        assert len(failures) <= 2, failures
        place = next(place for place in opened.workers.places if place.watched.last_failure)
        assert "hung" in place.watched.last_failure


async def test_workers_are_replaced_one_by_one_without_a_failed_request(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pool(monkeypatch) as opened:
        await opened.all_listen()
        before = opened.pids
        async with load(opened, 8) as (answers, failures):
            opened.workers.roll()
            await until(lambda: not set(before) & {*opened.pids, *(each.pid for each in leaving(opened))})
            answered = len(answers)
            await until(lambda: len(answers) > answered + 50)
        assert not failures, failures
        assert set(opened.pids) <= set(answers)


def leaving(opened: Pool) -> list[Any]:
    return [process for place in opened.workers.places for process in place.leaving]


async def test_a_gateway_that_is_told_to_stop_answers_every_request_that_it_took(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with pool(monkeypatch) as opened:
        await opened.all_listen()
        clients = [opened.client() for _ in range(16)]
        await asyncio.gather(*(client.ask() for client in clients))
        asked = [asyncio.create_task(client.ask(b"/slow")) for client in clients]
        await until(lambda: all(client.is_waiting for client in clients))
        assert await opened.stop() == 0
        answered = await asyncio.gather(*asked)
        assert len(answered) == 16
        assert all(client.writer is None for client in clients), "each answer said that the connection ends"
        with pytest.raises(ConnectionRefusedError):
            await opened.client().ask()


async def test_a_second_request_to_stop_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pool(monkeypatch, drain_s=300) as opened:
        await opened.all_listen()
        client = opened.client()
        asked = asyncio.create_task(client.ask(b"/hang"))
        await until(lambda: client.is_waiting)
        opened.lifecycle.ask_to_stop()
        opened.lifecycle.ask_to_stop()
        async with asyncio.timeout(80):
            assert await opened.running == 1
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asked


async def test_workers_that_cannot_start_end_the_gateway_with_their_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(tiny_worker.FAILS, "2")
    async with pool(monkeypatch) as opened, asyncio.timeout(180):
        assert await opened.running == 2


async def test_metrics_tell_every_worker_apart_and_survive_one_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pool(monkeypatch) as opened:
        await opened.all_listen()
        operations = PooledOperations(opened.workers)
        page = (await operations.metrics()).decode()
        assert [line for line in page.splitlines() if line.startswith("tiny_total")] == [
            'tiny_total{worker="0",kind="a b"} 1.0',
            'tiny_total{worker="1",kind="a b"} 1.0',
        ]
        assert page.count("# HELP tiny_total") == 1
        assert 'skewless_worker_up{worker="0"} 1.0' in page
        os.kill(opened.pids[0], signal.SIGSTOP)
        async with asyncio.timeout(180):
            page = (await operations.metrics()).decode()
        os.kill(opened.pids[0], signal.SIGCONT)
        assert 'tiny_total{worker="0"' not in page
        assert 'tiny_total{worker="1"' in page
        assert 'skewless_worker_misses_total{worker="0"} 0.0' not in page


async def test_the_socket_stays_open_for_others_when_one_worker_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pool(monkeypatch) as opened:
        await opened.all_listen()
        waiting = socket.create_connection(("127.0.0.1", opened.port))
        os.kill(opened.pids[0], signal.SIGTERM)
        assert await opened.client().ask() in opened.pids
        waiting.close()
