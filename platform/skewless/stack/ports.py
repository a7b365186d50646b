"""TCP ports on loopback."""

import socket
from collections.abc import Mapping

from skewless.errors import StackFailed

LOOPBACK = "127.0.0.1"


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
    """Different ports that are free now. Held open together while choosing, so that none comes twice."""
    listeners = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)]
    try:
        for listener in listeners:
            listener.bind((LOOPBACK, 0))
        return tuple(listener.getsockname()[1] for listener in listeners)
    finally:
        for listener in listeners:
            listener.close()


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
