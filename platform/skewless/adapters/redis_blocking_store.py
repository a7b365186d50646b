"""The online store in Redis or Valkey, read from a thread: the rules of the asyncio adapter over blocking sockets."""

import threading
import time
from collections.abc import Sequence
from typing import Any

from skewless.adapters.redis_blocking_connection import BlockingConnection, connect, performed, too_late
from skewless.adapters.redis_opening import data_opening, find_master, find_slots, question_opening
from skewless.adapters.redis_replies import StoreFailure, flags, settled
from skewless.adapters.redis_slots import ClusterRead, Group, SlotMap
from skewless.adapters.redis_url import Node, StoreAddress, Topology, parse_store_url
from skewless.features.online_store import Reply


class BlockingRedisOnlineStore:
    """Implements `BlockingOnlineStore`. Connects when first used; threads that share it take turns.

    Takes the URLs of `RedisOnlineStore`, and raises InvalidSettings as that does.
    """

    def __init__(self, url: str) -> None:
        address = parse_store_url(url)
        self._route = _ClusterRoute(address) if address.topology is Topology.CLUSTER else _MasterRoute(address)
        self._turn = threading.Lock()

    def read(self, keys: Sequence[bytes], commands: Sequence[bytes], *, timeout_s: float) -> list[Reply]:
        """See `BlockingOnlineStore.read`."""
        if not commands:
            return []
        deadline = time.monotonic() + timeout_s
        if not self._turn.acquire(timeout=max(0.0, timeout_s)):
            raise too_late("another thread's read took until the deadline")
        try:
            return self._route.read(keys, commands, deadline)
        except StoreFailure as failure:
            raise failure.unavailable() from failure
        finally:
            self._turn.release()

    def done(self, commands: Sequence[bytes], *, timeout_s: float) -> list[bool] | None:
        """Which of some commands that answer 1 or 0 did what they say; one whose key is no hash did not.

        None where nothing was done: the server does not know such a command, or the store is a cluster, whose nodes may
        differ in that. Raises as `read`.
        """
        if isinstance(self._route, _ClusterRoute):
            return None
        deadline = time.monotonic() + timeout_s
        if not self._turn.acquire(timeout=max(0.0, timeout_s)):
            raise too_late("another thread's read took until the deadline")
        try:
            return flags(self._route.exchange(commands, deadline))
        except StoreFailure as failure:
            raise failure.unavailable() from failure
        finally:
            self._turn.release()

    def close(self) -> None:
        """Close every connection; a later read connects again."""
        with self._turn:
            self._route.close()


class _MasterRoute:
    """One server holds everything; sentinels, where there are any, say which."""

    def __init__(self, address: StoreAddress) -> None:
        tls = address.tls.context() if address.tls else None
        self._address = address
        self._reading = data_opening(address, tls)
        self._asking = question_opening(address.sentinel_credentials, tls)
        self._moves = address.topology is Topology.SENTINEL
        self._connection: BlockingConnection | None = None

    def read(self, _keys: Sequence[bytes], commands: Sequence[bytes], deadline: float, /) -> list[Reply]:
        connection = self._connected(deadline)
        try:
            return settled(connection.exchange(commands, deadline))
        except StoreFailure as failure:
            if not failure.calls_for_another_try(moves=self._moves):
                raise
            connection.close()
        return settled(self._connected(deadline).exchange(commands, deadline))

    def exchange(self, commands: Sequence[bytes], deadline: float) -> list[Any]:
        """Raw replies; a connection that was dead already is made anew once."""
        connection = self._connected(deadline)
        try:
            return connection.exchange(commands, deadline)
        except StoreFailure as failure:
            if not failure.unanswered:
                raise
            connection.close()
        return self._connected(deadline).exchange(commands, deadline)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _connected(self, deadline: float) -> BlockingConnection:
        if self._connection is None or self._connection.closed:
            if self._moves:
                steps = find_master(self._address, asking=self._asking, reading=self._reading)
                self._connection = performed(steps, deadline)
            else:
                self._connection = connect(self._address.nodes[0], self._reading, deadline)
        return self._connection


class _ClusterRoute:
    """Each master holds some slots. Commands are sent to every master concerned before any reply is waited for."""

    def __init__(self, address: StoreAddress) -> None:
        tls = address.tls.context() if address.tls else None
        self._seeds = address.nodes
        self._reading = data_opening(address, tls)
        self._asking = question_opening(address.credentials, tls)
        self._connections: dict[Node, BlockingConnection] = {}
        self._slots: SlotMap = ()
        self._stale = True

    def read(self, keys: Sequence[bytes], commands: Sequence[bytes], deadline: float, /) -> list[Reply]:
        read = ClusterRead(keys, commands)
        try:
            while not read.finished:
                if self._stale:
                    self._draw(deadline)
                read.take(self._exchange(read.groups(self._slots), deadline))
                self._stale = self._stale or read.stale
        except StoreFailure:
            # Whatever it was, the map may have a part in it: the next read draws it anew.
            self._stale = True
            raise
        return read.replies()

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()

    def _exchange(self, groups: dict[Node, Group], deadline: float) -> dict[Node, list[Any] | StoreFailure]:
        outcomes: dict[Node, list[Any] | StoreFailure] = {}
        sent: dict[Node, BlockingConnection] = {}
        try:
            for node, group in groups.items():
                try:
                    sent[node] = connection = self._connected(node, deadline)
                    connection.send(group.commands, deadline)
                except StoreFailure as failure:
                    outcomes[node] = failure
            for node in groups.keys() - outcomes.keys():
                try:
                    outcomes[node] = sent[node].receive(len(groups[node].commands), deadline)
                except StoreFailure as failure:
                    outcomes[node] = failure
        finally:
            for connection in sent.values():
                if connection.owes:
                    connection.close()
        return outcomes

    def _connected(self, node: Node, deadline: float) -> BlockingConnection:
        connection = self._connections.get(node)
        if connection is None or connection.closed:
            connection = self._connections[node] = connect(node, self._reading, deadline)
        return connection

    def _draw(self, deadline: float) -> None:
        """Draw the map of slots, first asking nodes that are connected to: one that is away costs time."""
        connected = [node for node, connection in self._connections.items() if not connection.closed]
        known = [node for node in self._slots if node is not None]
        self._slots = performed(find_slots((*connected, *known, *self._seeds), self._asking), deadline)
        self._stale = False
        for node in self._connections.keys() - set(self._slots):
            self._connections.pop(node).close()
