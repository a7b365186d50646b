"""The listening socket, and taking connections from it: in turns between workers, bounded, and never for good."""

import asyncio
import errno
import logging
import mmap
import os
import resource
import socket
import struct
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from skewless.errors import InvalidSettings
from skewless.limits import (
    ACCEPT_PAUSE_S,
    ACCEPT_TURN_S,
    ACCEPTS_AT_ONCE,
    CONNECTION_BACKLOG,
    CONNECTIONS_MAX,
    DESCRIPTORS_SPARE,
    LISTEN_PATIENCE_S,
)

_LOGGER = logging.getLogger(__name__)
_LISTEN_AGAIN_S = 0.05
_LOG_EVERY_S = 10.0
_SLOT = struct.Struct("<I")
_ABSENT = 0xFFFF_FFFF
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def open_listener(host: str, port: int, *, variable: str) -> socket.socket:
    """A listening socket. Raises InvalidSettings, naming the port's `variable`, where it cannot be had.

    Waits a little for a taken port, as the workers of a gateway that was killed let go of it by themselves.
    """
    deadline_s = time.monotonic() + LISTEN_PATIENCE_S
    while True:
        try:
            return _listening(host, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline_s:
                raise InvalidSettings(
                    f"{variable} is {port}: {host} cannot be listened on there: {error.strerror or error}",
                    hint="choose another port or address; `ss -ltnp` shows who listens",
                ) from error
        time.sleep(_LISTEN_AGAIN_S)


def _listening(host: str, port: int) -> socket.socket:
    ((family, _, _, _, address), *_) = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(CONNECTION_BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def connections_max() -> int:
    """How many connections this process may hold, after raising its limit of open files as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS_MAX + DESCRIPTORS_SPARE
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, min(CONNECTIONS_MAX, soft - DESCRIPTORS_SPARE))


class Turns(Protocol):
    """Says whose turn it is to take the next connection."""

    def show(self, connections: int) -> None:
        """Tell the other workers how many connections this one has."""
        ...

    def is_mine(self, connections: int) -> bool:
        """Whether a worker with so many connections shall take one more."""
        ...


class Alone:
    """The turns of a process that shares its socket with nobody."""

    def show(self, connections: int) -> None:
        """See `Turns`."""

    def is_mine(self, connections: int) -> bool:  # noqa: ARG002  # it always is
        """See `Turns`."""
        return True


class ConnectionBoard:
    """How many connections each worker has, in memory that parent and workers share.

    Workers that share a listening socket take what they can get, and the kernel wakes the same one again and again: of
    32 connections two workers had up to 32 and 0 (ADR 30). So a worker that has more than the one with the fewest
    waits for a millisecond first. Each worker writes its own slot only, so there is no lock that a killed one can hold.
    """

    def __init__(self, descriptor: int, workers: int) -> None:
        """`descriptor` is one that `create` gave, here or in the process that started this one."""
        self._workers = workers
        self._memory = mmap.mmap(descriptor, workers * _SLOT.size)

    @staticmethod
    def create(workers: int) -> int:
        """A descriptor of the memory, with nobody on the board."""
        with tempfile.TemporaryFile() as file:
            file.write(_SLOT.pack(_ABSENT) * workers)
            file.flush()
            return os.dup(file.fileno())

    def counts(self) -> list[int | None]:
        """Connections of each worker; None for one that takes none."""
        found = [count for (count,) in _SLOT.iter_unpack(self._memory)]
        return [None if count == _ABSENT else count for count in found]

    def show(self, worker: int, connections: int | None) -> None:
        """Write a worker's slot; None when it takes no connections (any more)."""
        _SLOT.pack_into(self._memory, worker * _SLOT.size, _ABSENT if connections is None else connections)

    def turns_of(self, worker: int) -> "BoardTurns":
        """The board as one worker uses it."""
        return BoardTurns(self, worker)


class BoardTurns:
    """One worker's `Turns` on a board."""

    def __init__(self, board: ConnectionBoard, worker: int) -> None:
        self._board = board
        self._worker = worker

    def show(self, connections: int) -> None:
        """See `Turns`."""
        self._board.show(self._worker, connections)

    def is_mine(self, connections: int) -> bool:
        """See `Turns`. One connection more than the fewest, and an eighth of many, is still even enough."""
        others = [
            count for place, count in enumerate(self._board.counts()) if count is not None and place != self._worker
        ]
        if not others:
            return True
        fewest = min(others)
        return connections <= fewest + 1 + fewest // 8


class Acceptor:
    """Takes connections from a listening socket, in one event loop, until it is closed."""

    def __init__(
        self, listener: socket.socket, *, turns: Turns, count: Callable[[], int], take: Callable[[socket.socket], None]
    ) -> None:
        """`count` says how many connections there are; `take` is given each new one, not blocking."""
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._turns = turns
        self._count = count
        self._take = take
        self._timer: asyncio.TimerHandle | None = None
        self.is_closed = False
        self._logged_s = -_LOG_EVERY_S
        self.failures = 0
        """Accepts that failed, for want of file descriptors or memory."""
        self._loop.add_reader(listener.fileno(), self._accept, False)

    def close(self) -> None:
        """Take what has come, and no more. The socket is closed here; where other processes have it, they go on."""
        if self.is_closed:
            return
        self.is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._listener.fileno())
        # What the kernel has accepted already would be reset when the last process closes the socket.
        with suppress(OSError):
            for _ in range(CONNECTION_BACKLOG):
                connection, _ = self._listener.accept()
                connection.setblocking(False)
                self._take(connection)
        self._listener.close()

    def _accept(self, has_waited: bool) -> None:
        for _ in range(ACCEPTS_AT_ONCE):
            if not has_waited and not self._turns.is_mine(self._count()):
                self._later(ACCEPT_TURN_S)
                return
            has_waited = False
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    continue  # the caller hung up before its turn came
                self._failed(error)
                return
            connection.setblocking(False)
            self._take(connection)

    def _failed(self, error: OSError) -> None:
        self.failures += 1
        now_s = self._loop.time()
        if now_s - self._logged_s >= _LOG_EVERY_S:
            self._logged_s = now_s
            _LOGGER.error("connections cannot be accepted, and are tried again: %s", error)
        self._later(ACCEPT_PAUSE_S)

    def _later(self, delay_s: float) -> None:
        # The socket stays readable, so without this the event loop would spin.
        self._loop.remove_reader(self._listener.fileno())
        self._timer = self._loop.call_later(delay_s, self._again)

    def _again(self) -> None:
        self._timer = None
        self._loop.add_reader(self._listener.fileno(), self._accept, False)
        self._accept(True)
