"""Many different requests over several connections at once, each with its own reply: to check answers, not to time."""

import select
from collections import deque
from collections.abc import Sequence

from bench.load_http import TIMEOUT_S, Connection


def exchange(host: str, port: int, requests: Sequence[bytes], *, connections: int) -> list[bytes]:
    """The reply to each request, in the order of the requests; as many are at the server at once as there are
    connections.

    Raises TimeoutError where nothing comes back for TIMEOUT_S, and OSError where the server hangs up.
    """
    replies: list[bytes] = [b""] * len(requests)
    waiting = deque(range(len(requests)))
    opened = [Connection(host, port) for _ in range(min(connections, len(requests)))]
    asked: dict[int, tuple[Connection, int]] = {}
    epoll = select.epoll()
    try:
        for connection in opened:
            epoll.register(connection.fileno(), select.EPOLLIN)
            _ask_next(connection, requests, waiting, asked)
        while asked:
            ready = epoll.poll(TIMEOUT_S)
            if not ready:
                raise TimeoutError(f"{len(asked)} requests had no reply within {TIMEOUT_S:g} s")
            for descriptor, _ in ready:
                connection, number = asked[descriptor]
                reply = connection.receive()
                if reply is not None:
                    replies[number] = reply
                    del asked[descriptor]
                    _ask_next(connection, requests, waiting, asked)
    finally:
        epoll.close()
        for connection in opened:
            connection.close()
    return replies


def _ask_next(
    connection: Connection, requests: Sequence[bytes], waiting: "deque[int]", asked: dict[int, tuple[Connection, int]]
) -> None:
    if waiting:
        number = waiting.popleft()
        asked[connection.fileno()] = (connection, number)
        connection.send(requests[number])
