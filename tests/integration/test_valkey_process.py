"""The real Valkey, started the way the stack starts it."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil

from harness.servers import ValkeyServer, answers, listeners, wait_until
from skewless.stack.ports import LOOPBACK, free_ports, is_free
from skewless.stack.process import RunningProcess, start
from skewless.stack.valkey import valkey_spec


def ask(port: int, command: bytes) -> bytes:
    """What the server answers to one inline command."""
    with socket.create_connection((LOOPBACK, port), timeout=5) as connection:
        connection.sendall(command + b"\r\n")
        return connection.recv(65536)


def started(folder: Path, port: int) -> RunningProcess:
    """A Valkey that answers."""
    spec = valkey_spec(port=port, data=folder / "data", logs=folder / "logs")
    process = start(spec)
    wait_until(lambda: answers(spec), "Valkey answers")
    return process


def test_valkey_listens_on_loopback_only(valkey_server: ValkeyServer) -> None:
    assert {host for host, port in listeners() if port == valkey_server.port} == {LOOPBACK}


def test_valkey_never_evicts_and_appends_every_second(valkey_server: ValkeyServer) -> None:
    assert b"noeviction" in ask(valkey_server.port, b"CONFIG GET maxmemory-policy")
    assert b"everysec" in ask(valkey_server.port, b"CONFIG GET appendfsync")


def test_a_write_survives_kill_9_of_valkey(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    first = started(tmp_path, port)
    try:
        assert ask(port, b"SET kept yes").startswith(b"+OK")
    finally:
        first.signal_group(signal.SIGKILL)
        wait_until(lambda: first.exit_status() is not None, "the killed Valkey is gone")
    assert first.exit_status() == -signal.SIGKILL

    second = started(tmp_path, port)
    try:
        assert b"yes" in ask(port, b"GET kept")
    finally:
        second.stop()


def test_a_stopped_valkey_leaves_neither_process_nor_port(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    process = started(tmp_path, port)
    assert process.stop() == 0
    assert not psutil.pid_exists(process.pid)
    assert is_free(port)


STARTER = """
import signal, sys
from pathlib import Path
from skewless.stack.process import start
from skewless.stack.valkey import valkey_spec
start(valkey_spec(port=int(sys.argv[1]), data=Path(sys.argv[2]), logs=Path(sys.argv[3])))
signal.pause()
"""


def test_valkey_dies_with_its_starter(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    data, logs = tmp_path / "data", tmp_path / "logs"
    starter = subprocess.Popen([sys.executable, "-c", STARTER, str(port), str(data), str(logs)])
    try:
        wait_until(lambda: answers(valkey_spec(port=port, data=data, logs=logs)), "Valkey answers")
    finally:
        starter.kill()
        starter.wait()
    wait_until(lambda: is_free(port), "Valkey is gone, and its port is free")
