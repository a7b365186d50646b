"""The floor of a read: one blocking socket and hiredis, which pack commands and parse replies. Nothing is decoded."""

import socket
from collections.abc import Sequence

import hiredis

TIMEOUT_S = 30.0
RECEIVE_BYTES = 65_536


class WireFloor:
    """A connection to a Redis or Valkey on this machine, for one caller at a time."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), timeout=TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def read(self, commands: Sequence[tuple[bytes, ...]]) -> list[object]:
        """The replies to commands given as words, packed here one by one and sent as one pipeline."""
        packed = [hiredis.pack_command(words) for words in commands]  # type: ignore[arg-type]  # any count of words
        return self.read_packed(b"".join(packed), len(commands))

    def read_packed(self, commands: bytes, count: int) -> list[object]:
        """The replies to `count` commands that were packed and joined beforehand."""
        self._socket.sendall(commands)
        receive, feed, gets = self._socket.recv, self._reader.feed, self._reader.gets
        replies: list[object] = []
        while len(replies) < count:
            reply = gets()
            if reply is False:
                data = receive(RECEIVE_BYTES)
                if not data:
                    raise ConnectionError(f"the server closed the connection after {len(replies)} of {count} replies")
                feed(data)
            else:
                replies.append(reply)
        return replies


def words_of(command: bytes) -> tuple[bytes, ...]:
    """The words of a packed command, which is itself a reply of the protocol: an array of texts.

    >>> words_of(b"*2\\r\\n$4\\r\\nPING\\r\\n$2\\r\\nhi\\r\\n")
    (b'PING', b'hi')
    """
    reader = hiredis.Reader()
    reader.feed(command)
    return tuple(reader.gets())
