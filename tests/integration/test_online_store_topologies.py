"""What happens to a store of several servers while it is read: failovers, moved slots, nodes that are away; and TLS."""

import asyncio
import signal
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import hiredis
import pytest

from harness.proxies import Proxy, proxied
from harness.redis_topologies import (
    SLOTS,
    Certificates,
    Cluster,
    Sentinels,
    Server,
    load,
    make_certificates,
    running_cluster,
    running_sentinels,
)
from harness.servers import ValkeyServer, wait_until
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.adapters.redis_online_store import RedisOnlineStore
from skewless.adapters.redis_slots import key_slot
from skewless.errors import InvalidSettings, Unavailable
from skewless.features.online_store import Reply
from skewless.stack.ports import LOOPBACK

KEYS = [b"topologies:%d" % number for number in range(60)]
VALUES = {key: {b"f": b"value of " + key} for key in KEYS}
EXPECTED: list[Reply] = [[VALUES[key][b"f"]] for key in KEYS]
FAILOVER_S = 20.0


def hmget(key: bytes) -> bytes:
    command: bytes = hiredis.pack_command(("HMGET", key, b"f"))  # type: ignore[arg-type]  # stub: one part
    return command


COMMANDS = [hmget(key) for key in KEYS]
Read = Callable[[], list[Reply]]


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[Sentinels]:
    with running_sentinels(tmp_path) as started:
        with started.master.client() as client:
            load(client, VALUES)
            client.wait(1, 20_000)
        yield started


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster")) as started:
        with started.client() as client:
            load(client, VALUES)
        yield started


@asynccontextmanager
async def opened(url: str, *, tracked: bool = False) -> AsyncIterator[RedisOnlineStore]:
    store = RedisOnlineStore(url, tracked=tracked)
    try:
        yield store
    finally:
        await store.close()


@contextmanager
def opened_blocking(url: str) -> Iterator[Read]:
    """Reads every key."""
    store = BlockingRedisOnlineStore(url)
    try:
        yield lambda: store.read(KEYS, COMMANDS, timeout_s=5)
    finally:
        store.close()


async def read_all(store: RedisOnlineStore) -> list[Reply]:
    return await store.read(KEYS, COMMANDS, timeout_s=5)


class Reader:
    """Reads again and again until told to stop, and counts what it got; a wrong answer fails the test."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.stopped = False

    def right_since(self, before: int) -> bool:
        return self.outcomes["right"] > before + 20

    def take(self, replies: Sequence[Reply] | Unavailable) -> None:
        if isinstance(replies, Unavailable):
            self.outcomes["unavailable"] += 1
        else:
            assert replies == EXPECTED
            self.outcomes["right"] += 1

    async def run(self, read: Callable[..., Awaitable[list[Reply]]]) -> None:
        while not self.stopped:
            try:
                self.take(await read(KEYS, COMMANDS, timeout_s=5))
            except Unavailable as error:
                self.take(error)
            await asyncio.sleep(0.005)

    def run_blocking(self, read: Read) -> None:
        while not self.stopped:
            try:
                self.take(read())
            except Unavailable as error:
                self.take(error)
            threading.Event().wait(0.005)


async def reach(condition: Callable[[], bool], what: str) -> None:
    await asyncio.to_thread(wait_until, condition, what, timeout_s=FAILOVER_S)


async def test_a_failover_in_the_middle_of_a_run_is_followed_by_every_adapter(sentinels: Sentinels) -> None:
    readers = [Reader() for _ in range(3)]
    losses = 0

    def lost(keys: object) -> None:
        nonlocal losses
        losses += keys is None

    with opened_blocking(sentinels.url) as blocking:
        async with opened(sentinels.url, tracked=True) as store:
            store.subscribe(lost)
            runs = [
                asyncio.ensure_future(readers[0].run(store.read)),
                asyncio.ensure_future(readers[1].run(store.read_tracked)),
                asyncio.ensure_future(asyncio.to_thread(readers[2].run_blocking, blocking)),
            ]
            try:
                await reach(lambda: all(each.right_since(0) for each in readers), "everyone reads")
                losses = 0
                sentinels.master.process.signal_group(signal.SIGKILL)
                await reach(lambda: sentinels.master_port() == sentinels.replica.port, "the sentinel fails over")
                before = [each.outcomes["right"] for each in readers]
                await reach(
                    lambda: all(each.right_since(old) for each, old in zip(readers, before, strict=True)),
                    "everyone reads from the new master",
                )
            finally:
                for reader in readers:
                    reader.stopped = True
                await asyncio.gather(*runs)
    assert all(reader.outcomes["unavailable"] for reader in readers), [reader.outcomes for reader in readers]
    assert losses > 0


async def test_a_master_that_was_replaced_while_it_lives_is_left(sentinels: Sentinels) -> None:
    with opened_blocking(sentinels.url) as blocking:
        async with opened(sentinels.url) as store:
            assert await read_all(store) == blocking() == EXPECTED
            await reach(lambda: may_fail_over(sentinels), "the replica may be promoted")
            await reach(lambda: sentinels.master_port() == sentinels.replica.port, "the sentinel fails over")
            with sentinels.replica.client() as client:
                await reach(lambda: is_master(sentinels.replica), "the replica is master")
                load(client, {KEYS[0]: {b"f": b"new"}})
            # The sentinel makes the old master a replica and has it close its clients' connections.
            await reach(lambda: first_value(blocking) == [b"new"], "the new value is read blocking")
            await until_read(store, [[b"new"], *EXPECTED[1:]])


def may_fail_over(sentinels: Sentinels) -> bool:
    try:
        sentinels.sentinel.run("SENTINEL", "FAILOVER", "features")
    except Exception as error:  # noqa: BLE001  # of any class, NOGOODSLAVE means: ask again
        assert "NOGOODSLAVE" in str(error) or "INPROG" in str(error)  # noqa: PT017  # what it says is why to go on
        return False
    return True


def is_master(server: Server) -> bool:
    answer = server.run("INFO", "replication")
    assert isinstance(answer, dict)
    return bool(answer["role"] == "master")


def first_value(read: Read) -> Reply | None:
    try:
        return read()[0]
    except Unavailable:
        return None


async def until_read(store: RedisOnlineStore, expected: list[Reply]) -> None:
    """Return once the store answers so. Fails the test past FAILOVER_S."""
    async with asyncio.timeout(FAILOVER_S):
        while True:
            try:
                if await read_all(store) == expected:
                    return
            except Unavailable:
                pass  # it may be, for a while
            await asyncio.sleep(0.02)


async def test_a_sentinel_that_knows_no_such_service_is_unavailable(sentinels: Sentinels) -> None:
    async with opened(f"redis+sentinel://{LOOPBACK}:{sentinels.sentinel.port}/others") as store:
        with pytest.raises(Unavailable, match=r"`others`.*knows no service of that name"):
            await store.ping()


async def test_a_slot_that_moved_is_read_at_its_new_node(cluster: Cluster) -> None:
    source, target, _ = cluster.servers
    slot = next(slot for slot in range(100) if slot not in {key_slot(key) for key in KEYS})
    key = next(key for number in range(1_000_000) if key_slot(key := b"moved:%d" % number) == slot)
    read = {"keys": (key, *KEYS), "commands": (hmget(key), *COMMANDS)}
    blocking = BlockingRedisOnlineStore(cluster.url)
    async with opened(cluster.url) as store:
        assert (await store.read(**read, timeout_s=5)) == blocking.read(**read, timeout_s=5) == [[None], *EXPECTED]
        cluster.move_slot(slot, source, target)
        with target.client() as client:
            load(client, {key: {b"f": b"there"}})
        assert (await store.read(**read, timeout_s=5)) == blocking.read(**read, timeout_s=5) == [[b"there"], *EXPECTED]
    blocking.close()


async def test_a_key_that_was_migrated_out_of_its_slot_is_asked_for_at_the_importing_node(cluster: Cluster) -> None:
    source, target, _ = cluster.servers
    key = next(key for key in KEYS if key_slot(key) < 5_000)
    slot, identities = key_slot(key), [server.run("CLUSTER", "MYID") for server in (source, target)]
    blocking = BlockingRedisOnlineStore(cluster.url)
    async with opened(cluster.url) as store:
        assert await read_all(store) == EXPECTED
        target.run("CLUSTER", "SETSLOT", slot, "IMPORTING", identities[0])
        source.run("CLUSTER", "SETSLOT", slot, "MIGRATING", identities[1])
        try:
            source.run("MIGRATE", LOOPBACK, target.port, key, 0, 5_000)
            assert await read_all(store) == EXPECTED
            assert blocking.read(KEYS, COMMANDS, timeout_s=5) == EXPECTED
        finally:
            cluster.move_slot(slot, source, target)
        assert await read_all(store) == EXPECTED
    blocking.close()


async def test_a_node_that_is_away_takes_only_its_own_keys_with_it_and_is_found_again(cluster: Cluster) -> None:
    away = cluster.servers[0]
    elsewhere = next(index for index, key in enumerate(KEYS) if key_slot(key) > SLOTS // 2)
    one = slice(elsewhere, elsewhere + 1)
    with opened_blocking(cluster.url) as blocking:
        async with opened(cluster.url) as store:
            assert await read_all(store) == blocking() == EXPECTED
            with cluster.stopped(away) as start_again:
                started = time.monotonic()
                with pytest.raises(Unavailable):
                    await read_all(store)
                with pytest.raises(Unavailable):
                    blocking()
                with pytest.raises(Unavailable):
                    await store.ping()
                assert await store.read(KEYS[one], COMMANDS[one], timeout_s=5) == EXPECTED[one]
                assert time.monotonic() - started < 30
                await asyncio.to_thread(start_again)
                await reach(lambda: first_value(blocking) is not None, "it is read blocking")
                await until_read(store, EXPECTED)


async def test_the_other_kind_of_store_is_named_by_the_hint(cluster: Cluster, valkey_server: ValkeyServer) -> None:
    key = next(key for key in KEYS if key_slot(key) < SLOTS // 2)
    async with opened(f"redis://{LOOPBACK}:{cluster.servers[2].port}") as store:
        with pytest.raises(Unavailable, match="a node of a cluster") as caught:
            await store.read((key,), (hmget(key),), timeout_s=5)
        assert "redis+cluster://" in caught.value.hint
    async with opened(f"redis+cluster://{LOOPBACK}:{valkey_server.port}") as store:
        with pytest.raises(Unavailable, match="no node of a cluster"):
            await store.read((key,), (hmget(key),), timeout_s=5)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def encrypted(valkey_server: ValkeyServer, certificates: Certificates) -> Iterator[Proxy]:
    with proxied(valkey_server.port, tls=certificates.server_context()) as proxy:
        yield proxy


@pytest.mark.parametrize(
    ("host", "options", "works"),
    [
        (LOOPBACK, "{options}", True),
        ("localhost", "{options}", False),
        ("localhost", "{options}&ssl_check_hostname=false", True),
        (LOOPBACK, "ssl_ca_certs={stranger}&ssl_certfile={certificate}&ssl_keyfile={key}", False),
        (LOOPBACK, "", False),
        (LOOPBACK, "ssl_ca_certs={authority}", False),
    ],
    ids=["right", "other host", "any host", "stranger's authority", "system's authorities", "no client certificate"],
)
async def test_tls_trusts_whom_the_url_says_and_nobody_else(
    encrypted: Proxy, certificates: Certificates, host: str, options: str, works: bool
) -> None:
    filled = options.format(
        options=certificates.options,
        authority=certificates.authority,
        certificate=certificates.certificate,
        key=certificates.key,
        stranger=certificates.stranger,
    )
    url = f"rediss://{host}:{encrypted.port}?{filled}"
    blocking = BlockingRedisOnlineStore(url)
    async with opened(url) as store:
        if works:
            await store.ping()
            assert await asyncio.to_thread(blocking.read, KEYS[:1], COMMANDS[:1], timeout_s=5) == [[None]]
        else:
            with pytest.raises(Unavailable):
                await store.ping()
            with pytest.raises(Unavailable):
                await asyncio.to_thread(blocking.read, KEYS[:1], COMMANDS[:1], timeout_s=5)
    blocking.close()


async def test_a_server_without_tls_is_unavailable_over_tls(valkey_server: ValkeyServer) -> None:
    async with opened(f"rediss://{LOOPBACK}:{valkey_server.port}") as store:
        with pytest.raises(Unavailable):
            await store.ping()


def test_a_tls_file_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="TLS files cannot be used"):
        RedisOnlineStore(f"rediss://{LOOPBACK}?ssl_ca_certs={tmp_path / 'nothing.pem'}")
