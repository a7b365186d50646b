"""A blocking connection to a Redis server, and the steps that lead to one, for callers that own a thread."""

import socket
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import hiredis

from skewless.adapters.redis_opening import Ask, Opening, Steps
from skewless.adapters.redis_replies import PART, StoreFailure
from skewless.adapters.redis_url import Node
from skewless.errors import DeadlineExceeded
from skewless.limits import CONNECT_TIMEOUT_S, RETRY_AFTER_S

_INCOMPLETE = object()
_RECEIVE_BYTES = 64 * 1024


class BlockingConnection:
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
        return too_late(f"{self.node} did not answer in time")

    def _ended(self, detail: str, *, unanswered: bool) -> StoreFailure:
        self.close()
        return StoreFailure(f"{self.node} closed the connection{detail}", unanswered=unanswered)

    def _broken(self, problem: str) -> StoreFailure:
        self.close()
        return StoreFailure(f"{self.node} is no Redis server: {problem}")


def performed(steps: Steps, deadline: float) -> Any:
    """The result of a procedure. Raises StoreFailure, or DeadlineExceeded at `deadline`."""
    outcome: Any = None
    try:
        while True:
            step = steps.send(outcome)
            try:
                outcome = connect(step.node, step.opening, deadline)
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


def connect(node: Node, opening: Opening, deadline: float) -> BlockingConnection:
    """An open connection, logged in. Raises StoreFailure at the latest after CONNECT_TIMEOUT_S, or DeadlineExceeded."""
    limit = _connect_deadline(deadline)
    if (left_s := limit - time.monotonic()) <= 0:
        raise too_late("the request's time ran out while it was being connected to")
    try:
        connection = BlockingConnection(node, _dial(node, opening, left_s))
        try:
            opening.check(connection.exchange(opening.commands, limit))
        except BaseException:
            connection.close()
            raise
    except (TimeoutError, DeadlineExceeded) as error:
        if time.monotonic() >= deadline:
            raise too_late(f"{node} accepted no connection in time") from error
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


def too_late(reason: str) -> DeadlineExceeded:
    """What a caller is told whose deadline passed."""
    return DeadlineExceeded(PART, reason, retry_after_s=RETRY_AFTER_S)
