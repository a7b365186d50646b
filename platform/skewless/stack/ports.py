"""TCP ports on loopback."""

import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from skewless.errors import StackFailed

LOOPBACK = "127.0.0.1"
_OUTGOING: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FIRST: Final = 20_000
"""Below it lie the ports that servers are known by."""
_TRIES: Final = 100


def is_free(port: int) -> bool:
    """Whether a server could listen on the loopback port now (a connection in TIME_WAIT does not hinder it)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> tuple[int, ...]:
    """Different ports that are free now. Held open together while choosing, so that none comes twice.

    They lie below those that the kernel gives to outgoing connections, where it is Linux and has room: between choosing
    and listening, any connection of the machine could take one of the others.
    """
    listeners = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)]
    try:
        for listener in listeners:
            _bind_somewhere(listener)
        return tuple(listener.getsockname()[1] for listener in listeners)
    finally:
        for listener in listeners:
            listener.close()


def _bind_somewhere(listener: socket.socket) -> None:
    below = _first_outgoing()
    for _ in range(_TRIES if below > _FIRST else 0):
        try:
            listener.bind((LOOPBACK, _FIRST + secrets.randbelow(below - _FIRST)))
        except OSError:
            continue  # somebody listens there
        return
    listener.bind((LOOPBACK, 0))


def _first_outgoing() -> int:
    """The first port that the kernel gives to outgoing connections; 0 where that is not known."""
    try:
        return int(_OUTGOING.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0


def choose_ports(configured: Mapping[str, int]) -> tuple[int, ...]:
    """The configured ports by the names of their variables, in order, each 0 replaced by a free port.

    Raises StackFailed where a configured port is taken.
    """
    chosen = iter(free_ports(sum(port == 0 for port in configured.values())))
    for variable, port in configured.items():
        if port and not is_free(port):
            raise StackFailed(
                f"port {port} of {LOOPBACK}, asked for by {variable}, is taken by another process",
                hint=f"choose another port in {variable}, 0 lets the stack choose; `ss -ltnp` shows who listens",
            )
    return tuple(port or next(chosen) for port in configured.values())


def prefer_port(preferred: int) -> int:
    """The preferred port where it is free, otherwise (and for 0) a free one."""
    return preferred if preferred and is_free(preferred) else free_ports(1)[0]
