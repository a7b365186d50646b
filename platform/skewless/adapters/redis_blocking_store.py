"""The online store in Redis or Valkey, read from a thread: the rules of the asyncio adapter over blocking sockets."""

import socket
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import hiredis

from skewless.adapters.redis_opening import (
    Ask,
    Opening,
    Steps,
    data_opening,
    find_master,
    find_slots,
    question_opening,
)
from skewless.adapters.redis_replies import PART, StoreFailure, settled
from skewless.adapters.redis_slots import ClusterRead, Group, SlotMap
from skewless.adapters.redis_url import Node, StoreAddress, Topology, parse_store_url
from skewless.errors import DeadlineExceeded
from skewless.features.online_store import Reply
from skewless.limits import CONNECT_TIMEOUT_S, RETRY_AFTER_S

_INCOMPLETE = object()
_RECEIVE_BYTES = 64 * 1024


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
            raise _too_late("another thread's read took until the deadline")
        try:
            return self._route.read(keys, commands, deadline)
        except StoreFailure as failure:
            raise failure.unavailable() from failure
        finally:
            self._turn.release()

    def close(self) -> None:
        """Close every connection; a later read connects again."""
        with self._turn:
            self._route.close()


class _Connection:
    """A connected socket. Whatever goes wrong closes it, so that no late reply is ever taken for another's."""

    def __init__(self, node: Node, connected: socket.socket) -> None:
        self.node = node
        self._socket = connected
        self._reader = hiredis.Reader(notEnoughData=_INCOMPLETE)
        self.owes = False
        """Whether replies to what was sent are still to be received."""
        self.closed = False

    def exchange(self, commands: Sequence[bytes], deadline: float) -> list[Any]:
        """Raw replies to complete commands. Raises StoreFailure, or DeadlineExceeded at `deadline` (monotonic, s)."""
        self.send(commands, deadline)
        return self.receive(len(commands), deadline)

    def send(self, commands: Sequence[bytes], deadline: float) -> None:
        """The first half of `exchange`."""
        self._limit(deadline)
        self.owes = True
        try:
            self._socket.sendall(b"".join(commands))
        except TimeoutError as error:
            raise self._too_late() from error
        except OSError as error:
            raise self._ended(f": {error}", unanswered=True) from error

    def receive(self, count: int, deadline: float) -> list[Any]:
        """The second half of `exchange`."""
        replies: list[Any] = []
        take = self._reader.gets
        heard = False
        while len(replies) < count:
            self._limit(deadline)
            try:
                data = self._socket.recv(_RECEIVE_BYTES)
            except TimeoutError as error:
                raise self._too_late() from error
            except OSError as error:
                raise self._ended(f": {error}", unanswered=not heard) from error
            if not data:
                raise self._ended("", unanswered=not heard)
            heard = True
            self._reader.feed(data)
            try:
                while (reply := take()) is not _INCOMPLETE:
                    replies.append(reply)
            except hiredis.ProtocolError as error:
                raise self._broken(f"it does not speak Redis's protocol ({error})") from error
        if len(replies) > count:
            raise self._broken(f"it sent `{replies[count]!r:.200}` unasked")
        self.owes = False
        return replies

    def close(self) -> None:
        """Close the socket."""
        self.closed = True
        self._socket.close()

    def _limit(self, deadline: float) -> None:
        if (left_s := deadline - time.monotonic()) <= 0:
            raise self._too_late()
        self._socket.settimeout(left_s)

    def _too_late(self) -> DeadlineExceeded:
        self.close()
        return _too_late(f"{self.node} did not answer in time")

    def _ended(self, detail: str, *, unanswered: bool) -> StoreFailure:
        self.close()
        return StoreFailure(f"{self.node} closed the connection{detail}", unanswered=unanswered)

    def _broken(self, problem: str) -> StoreFailure:
        self.close()
        return StoreFailure(f"{self.node} is no Redis server: {problem}")


class _MasterRoute:
    """One server holds everything; sentinels, where there are any, say which."""

    def __init__(self, address: StoreAddress) -> None:
        tls = address.tls.context() if address.tls else None
        self._address = address
        self._reading = data_opening(address, tls)
        self._asking = question_opening(address.sentinel_credentials, tls)
        self._moves = address.topology is Topology.SENTINEL
        self._connection: _Connection | None = None

    def read(self, _keys: Sequence[bytes], commands: Sequence[bytes], deadline: float, /) -> list[Reply]:
        connection = self._connected(deadline)
        try:
            return settled(connection.exchange(commands, deadline))
        except StoreFailure as failure:
            if not failure.calls_for_another_try(moves=self._moves):
                raise
            connection.close()
        return settled(self._connected(deadline).exchange(commands, deadline))

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _connected(self, deadline: float) -> _Connection:
        if self._connection is None or self._connection.closed:
            if self._moves:
                steps = find_master(self._address, asking=self._asking, reading=self._reading)
                self._connection = _performed(steps, deadline)
            else:
                self._connection = _connect(self._address.nodes[0], self._reading, deadline)
        return self._connection


class _ClusterRoute:
    """Each master holds some slots. Commands are sent to every master concerned before any reply is waited for."""

    def __init__(self, address: StoreAddress) -> None:
        tls = address.tls.context() if address.tls else None
        self._seeds = address.nodes
        self._reading = data_opening(address, tls)
        self._asking = question_opening(address.credentials, tls)
        self._connections: dict[Node, _Connection] = {}
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
        sent: dict[Node, _Connection] = {}
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

    def _connected(self, node: Node, deadline: float) -> _Connection:
        connection = self._connections.get(node)
        if connection is None or connection.closed:
            connection = self._connections[node] = _connect(node, self._reading, deadline)
        return connection

    def _draw(self, deadline: float) -> None:
        """Draw the map of slots, first asking nodes that are connected to: one that is away costs time."""
        connected = [node for node, connection in self._connections.items() if not connection.closed]
        known = [node for node in self._slots if node is not None]
        self._slots = _performed(find_slots((*connected, *known, *self._seeds), self._asking), deadline)
        self._stale = False
        for node in self._connections.keys() - set(self._slots):
            self._connections.pop(node).close()


def _performed(steps: Steps, deadline: float) -> Any:
    """The result of a procedure. Raises StoreFailure, or DeadlineExceeded at `deadline`."""
    outcome: Any = None
    try:
        while True:
            step = steps.send(outcome)
            try:
                outcome = _connect(step.node, step.opening, deadline)
                if isinstance(step, Ask):
                    with closing(outcome) as connection:
                        (outcome,) = connection.exchange((step.question,), _connect_deadline(deadline))
            except StoreFailure as failure:
                outcome = failure
            except DeadlineExceeded as error:
                if time.monotonic() >= deadline:
                    raise
                outcome = StoreFailure(str(error))
    except StopIteration as finished:
        return finished.value


def _connect(node: Node, opening: Opening, deadline: float) -> _Connection:
    """An open connection, logged in. Raises StoreFailure at the latest after CONNECT_TIMEOUT_S, or DeadlineExceeded."""
    limit = _connect_deadline(deadline)
    if (left_s := limit - time.monotonic()) <= 0:
        raise _too_late("the request's time ran out while it was being connected to")
    try:
        connection = _Connection(node, _dial(node, opening, left_s))
        try:
            opening.check(connection.exchange(opening.commands, limit))
        except BaseException:
            connection.close()
            raise
    except (TimeoutError, DeadlineExceeded) as error:
        if time.monotonic() >= deadline:
            raise _too_late(f"{node} accepted no connection in time") from error
        raise StoreFailure(f"{node} accepted no connection within {CONNECT_TIMEOUT_S:g} s") from error
    except (OSError, UnicodeError) as error:
        raise StoreFailure(f"{node} cannot be connected to: {error}") from error
    return connection


def _dial(node: Node, opening: Opening, timeout_s: float) -> socket.socket:
    if not node.port:
        plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        plain.settimeout(timeout_s)
    else:
        plain = socket.create_connection((node.host, node.port), timeout=timeout_s)
    try:
        if not node.port:
            plain.connect(node.host)
            return plain
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return opening.tls.wrap_socket(plain, server_hostname=node.host) if opening.tls else plain
    except BaseException:
        plain.close()
        raise


def _connect_deadline(deadline: float) -> float:
    return min(deadline, time.monotonic() + CONNECT_TIMEOUT_S)


def _too_late(reason: str) -> DeadlineExceeded:
    return DeadlineExceeded(PART, reason, retry_after_s=RETRY_AFTER_S)
