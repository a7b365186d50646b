"""The contract of `OnlineStore`, held by Redis's adapter over a real Valkey and by the fake."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis.asyncio

from harness.fakes import FakeOnlineStore
from harness.servers import ValkeyServer, running_valkey
from skewless.adapters.redis_online_store import RedisOnlineStore
from skewless.errors import DeadlineExceeded, InvalidSettings, Unavailable
from skewless.features.redis_layout import HashRead
from skewless.serving.ports import OnlineStore
from skewless.stack.ports import free_ports

HASHES = {b"contract:a": {b"\x00\xff": b"one", b"y": b""}, b"contract:b": {b"x": b"\x20\x00"}}


@asynccontextmanager
async def opened(kind: str, server: ValkeyServer) -> AsyncIterator[OnlineStore]:
    if kind == "fake":
        yield FakeOnlineStore(HASHES)
        return
    with redis.Redis(host=server.host, port=server.port) as client:
        for key, fields in HASHES.items():
            client.hset(key, mapping={**fields})
    store = RedisOnlineStore(server.url)
    try:
        yield store
    finally:
        await store.close()


KINDS = pytest.mark.parametrize("kind", ["redis", "fake"])


@KINDS
async def test_values_come_in_the_order_asked_and_none_is_what_does_not_exist(
    kind: str, valkey_server: ValkeyServer
) -> None:
    reads = (
        HashRead(b"contract:b", (b"x", b"y")),
        HashRead(b"contract:nobody", (b"x", b"y")),
        HashRead(b"contract:a", (b"y", b"\x00\xff", b"x")),
    )
    async with opened(kind, valkey_server) as store:
        answers = await store.read(reads, timeout_s=2)
    assert [list(each) for each in answers] == [[b"\x20\x00", None], [None, None], [b"", b"one", None]]


@KINDS
async def test_many_reads_at_once_do_not_mix(kind: str, valkey_server: ValkeyServer) -> None:
    async with opened(kind, valkey_server) as store:
        reads = [(HashRead(b"contract:a", (b"y",)), HashRead(b"contract:b", (b"x",))) for _ in range(200)]
        answers = await asyncio.gather(*(store.read(each, timeout_s=5) for each in reads))
    assert [[list(row) for row in each] for each in answers] == [[[b""], [b"\x20\x00"]]] * 200


@KINDS
async def test_ping_returns_while_the_store_answers(kind: str, valkey_server: ValkeyServer) -> None:
    async with opened(kind, valkey_server) as store:
        await store.ping()


async def test_a_store_that_goes_away_is_unavailable(tmp_path: Path) -> None:
    # Servers are started on a thread of their own: their readiness probe runs its own event loop.
    server_context = running_valkey(tmp_path)
    server = await asyncio.to_thread(server_context.__enter__)
    store = RedisOnlineStore(server.url)
    try:
        await store.ping()
    finally:
        await asyncio.to_thread(server_context.__exit__, None, None, None)
    with pytest.raises(Unavailable) as caught:
        await store.read((HashRead(b"k", (b"f",)),), timeout_s=2)
    assert not isinstance(caught.value, DeadlineExceeded)
    await store.close()


async def test_a_connection_that_the_server_closed_meanwhile_costs_nobody_an_error(
    valkey_server: ValkeyServer,
) -> None:
    store = RedisOnlineStore(valkey_server.url)
    await store.ping()
    killer = redis.asyncio.Redis(host=valkey_server.host, port=valkey_server.port)
    await killer.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")  # type: ignore[no-untyped-call]
    await killer.aclose()
    assert await store.read((HashRead(b"nobody", (b"f",)),), timeout_s=2) == [[None]]
    await store.close()


async def test_a_store_that_hangs_is_left_at_the_deadline(valkey_server: ValkeyServer) -> None:
    store = RedisOnlineStore(valkey_server.url)
    await store.ping()
    blocker = redis.asyncio.Redis(host=valkey_server.host, port=valkey_server.port)
    await blocker.execute_command("CLIENT", "PAUSE", "1000", "ALL")  # type: ignore[no-untyped-call]
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        await store.read((HashRead(b"nobody", (b"f",)),), timeout_s=0.1)
    assert time.monotonic() - started < 0.9
    # The abandoned connection must not hand its late answer to the next read.
    assert await store.read((HashRead(b"nobody", (b"f", b"g")),), timeout_s=5) == [[None, None]]
    await blocker.aclose()
    await store.close()


async def test_nobody_listening_is_unavailable_at_once() -> None:
    (port,) = free_ports(1)
    store = RedisOnlineStore(f"redis://127.0.0.1:{port}")
    with pytest.raises(Unavailable, match="online store"):
        await store.ping()
    await store.close()


def test_a_url_of_another_kind_is_refused() -> None:
    with pytest.raises(InvalidSettings, match="online store"):
        RedisOnlineStore("http://localhost:1")
