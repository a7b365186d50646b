"""HTTP/1.1 as far as a load generator needs it: kept connections, one request at a time, written beforehand."""

import socket
from collections.abc import Mapping
from types import MappingProxyType

RECEIVE_BYTES = 262_144
TIMEOUT_S = 60.0
"""No reply ever takes that long; a server that needs it is a fault, not a number."""
_HEAD_END = b"\r\n\r\n"
_LENGTH = b"\r\ncontent-length:"


def request_bytes(
    path: str,
    body: bytes,
    *,
    host: str,
    method: str = "POST",
    headers: Mapping[str, str] = MappingProxyType({}),
) -> bytes:
    """A whole request as it is sent.

    >>> request_bytes("/a", b"{}", host="h:1", headers={"X-B": "c"})[:38]
    b'POST /a HTTP/1.1\\r\\nHost: h:1\\r\\nX-B: c\\r\\n'
    """
    given = {"Host": host, **headers, "Content-Type": "application/json", "Content-Length": str(len(body))}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
    return "\r\n".join(lines).encode() + _HEAD_END + body


def status_of(reply: bytes) -> int:
    """The status of a reply.

    >>> status_of(b"HTTP/1.1 200 OK\\r\\n\\r\\n")
    200
    """
    return int(reply[9:12])


def body_of(reply: bytes) -> bytes:
    """The body of a whole reply."""
    return reply[reply.index(_HEAD_END) + len(_HEAD_END) :]


class Connection:
    """One connection to a server, for one request at a time. `sent_ns` is the caller's to set.

    The socket blocks, so that a long request is sent whole; replies are only read when there is something to read.
    """

    __slots__ = ("_address", "_parts", "_socket", "_wanted", "sent_ns")

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._parts = b""
        self._wanted = 0
        self.sent_ns = 0
        self._socket = self._connect()

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def reopen(self) -> None:
        """Take a new connection, after the server gave this one up."""
        self._socket.close()
        self._parts, self._wanted = b"", 0
        self._socket = self._connect()

    def send(self, request: bytes) -> None:
        """Send a request whole. Raises OSError where the server is gone."""
        self._socket.sendall(request)

    def receive(self) -> bytes | None:
        """The whole reply, or None while some of it is missing. Call when there is something to read.

        Raises ConnectionError where the server closed the connection, ValueError for a reply of unknown length.
        """
        data = self._socket.recv(RECEIVE_BYTES)
        if not data:
            raise ConnectionResetError(f"the server closed the connection after {len(self._parts)} bytes of a reply")
        if self._parts:
            data = self._parts + data
        if not self._wanted:
            self._wanted = _reply_bytes(data)
        if not self._wanted or len(data) < self._wanted:
            self._parts = data
            return None
        self._parts, self._wanted = b"", 0
        return data

    def ask(self, request: bytes) -> bytes:
        """The whole reply to a request, waited for."""
        self.send(request)
        while (reply := self.receive()) is None:
            pass
        return reply

    def _connect(self) -> socket.socket:
        made = socket.create_connection(self._address, timeout=TIMEOUT_S)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made


def _reply_bytes(data: bytes) -> int:
    """How long a reply is with its head, 0 while the head is incomplete."""
    end = data.find(_HEAD_END)
    if end < 0:
        return 0
    head = data[: end + 2].lower()
    place = head.find(_LENGTH)
    if place < 0:
        raise ValueError(f"a reply of status {status_of(data)} does not say how long it is")
    start = place + len(_LENGTH)
    return end + len(_HEAD_END) + int(head[start : head.index(b"\r\n", start)])
