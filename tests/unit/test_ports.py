"""Ports on loopback: free, different, and not where outgoing connections are given theirs."""

import socket
from pathlib import Path

from skewless.stack.ports import LOOPBACK, free_ports, is_free, prefer_port

OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")


def test_ports_are_free_and_different() -> None:
    ports = free_ports(50)
    assert len(set(ports)) == 50
    assert sum(is_free(port) for port in ports) >= 45, "somebody else may have taken one since"


def test_no_outgoing_connection_can_take_a_chosen_port() -> None:
    first = int(OUTGOING.read_text().split()[0]) if OUTGOING.exists() else 0
    if first > 21_000:
        assert max(free_ports(50)) < first


def test_a_port_that_is_taken_is_not_preferred() -> None:
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen()
        taken = listener.getsockname()[1]
        assert not is_free(taken)
        assert prefer_port(taken) != taken
