"""Emptying one project's part of a real Valkey, and nothing else."""

from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis

from harness.servers import ValkeyServer
from skewless.adapters.redis_maintenance import OnlineStoreMaintenance
from skewless.dtypes import Dtype
from skewless.errors import Unavailable
from skewless.features.contract import JoinKey
from skewless.features.redis_layout import KeyTemplate
from skewless.stack.ports import free_ports

FOREIGN = [b"session:1", b"prod", b"xprod", b"\x00\x00\x00\x00prod", b"\xff" * 20, b"\x01\x00\x00\x00"]
MANY = 2_500
"""More than one batch of the scan and of the deletion."""


@pytest.fixture
def client(valkey_server: ValkeyServer) -> Iterator[Redis]:
    with Redis(host=valkey_server.host, port=valkey_server.port) as made:
        made.flushdb()
        yield made
        made.flushdb()


def _fill(client: Any, project: str, count: int) -> set[bytes]:
    template = KeyTemplate.compile((JoinKey("id", Dtype.INT64), JoinKey("place", Dtype.STRING)), project)
    keys = {*template.keys((number, "prod") for number in range(count)), *KeyTemplate.compile((), project).keys([()])}
    with client.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.hset(key, "f", "v")
        pipeline.execute()
    return keys


def test_clearing_removes_every_entity_of_the_project_and_nothing_else(
    client: Redis, valkey_server: ValkeyServer
) -> None:
    _fill(client, "prod", MANY)
    kept = _fill(client, "nonprod", 20) | _fill(client, "produce", 3)
    for key in FOREIGN:
        client.set(key, b"theirs")
    store = OnlineStoreMaintenance(valkey_server.url, "prod")
    assert store.entities() == MANY + 1
    assert store.clear() == MANY + 1
    assert store.entities() == 0
    assert store.clear() == 0
    store.close()
    assert set(client.scan_iter()) == kept | set(FOREIGN)


def test_an_empty_store_has_no_entities(client: Redis, valkey_server: ValkeyServer) -> None:
    store = OnlineStoreMaintenance(valkey_server.url, "prod")
    assert (store.entities(), store.clear()) == (0, 0)
    store.close()


def test_a_store_that_is_away_is_unavailable() -> None:
    (port,) = free_ports(1)
    store = OnlineStoreMaintenance(f"redis://127.0.0.1:{port}", "prod")
    with pytest.raises(Unavailable, match="skewless doctor"):
        store.clear()
    with pytest.raises(Unavailable, match="skewless doctor"):
        store.entities()
    store.close()
