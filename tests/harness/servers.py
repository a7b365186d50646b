"""Real Valkey and Triton processes on free loopback ports, each in a folder of its own."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from skewless.errors import Unavailable
from skewless.stack.ports import LOOPBACK, free_ports
from skewless.stack.process import ProcessSpec, RunningProcess, describe_exit, start, tail
from skewless.stack.triton import TritonPorts, triton_spec
from skewless.stack.valkey import valkey_spec

READY_TIMEOUT_S = 60.0
"""A server is ready in about 2 s; the rest is for a machine that is busy with other tests."""
PATIENCE = 4.0
"""How many times longer than a test says it is waited for what is to come: what never comes fails all the same."""
POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class ValkeyServer:
    """A running Valkey."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """What Redis clients call it."""
        return f"redis://{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class TritonServer:
    """A running Triton. Put a model's folder into `model_repository`, then load it over the API."""

    grpc_address: str
    http_address: str
    metrics_address: str
    model_repository: Path


@contextmanager
def running_valkey(folder: Path, *, port: int | None = None) -> Iterator[ValkeyServer]:
    """A Valkey with its data under `folder`, stopped on leaving; `port` None chooses a free one."""
    port = port or free_ports(1)[0]
    with running(valkey_spec(port=port, data=folder / "valkey", logs=folder / "logs")):
        yield ValkeyServer(LOOPBACK, port)


@contextmanager
def running_triton(folder: Path) -> Iterator[TritonServer]:
    """A Triton with the model repository `folder/models`, stopped on leaving."""
    ports = TritonPorts(*free_ports(3))
    models = folder / "models"
    spec = triton_spec(ports=ports, models=models, backends=folder / "backends", logs=folder / "logs")
    with running(spec):
        http, grpc, metrics = (f"{LOOPBACK}:{port}" for port in (ports.http, ports.grpc, ports.metrics))
        yield TritonServer(grpc, http, metrics, models)


@contextmanager
def running(spec: ProcessSpec) -> Iterator[RunningProcess]:
    """The process of a spec, once it passes its own health check; stopped on leaving."""
    process = start(spec)
    try:
        deadline = time.monotonic() + READY_TIMEOUT_S * PATIENCE
        while not answers(spec):
            status = process.exit_status()
            ended = status is not None and describe_exit(status)
            if ended or time.monotonic() > deadline:
                raise AssertionError(f"{spec.name}: {ended or 'not ready in time'}\n{tail(spec.log_file)}")
            time.sleep(POLL_S)
        yield process
    finally:
        process.stop()


def answers(spec: ProcessSpec) -> bool:
    """Whether the process of a spec passes its own health check now."""
    # A loop of its own and never the thread's current one, which belongs to the async tests.
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(_probe(spec))
    except Unavailable:
        return False
    finally:
        loop.close()
    return True


async def _probe(spec: ProcessSpec) -> None:
    await spec.probe()


def listeners() -> set[tuple[str, int]]:
    """(host, port) of every TCP socket that listens on this machine and may be seen."""
    connections = psutil.net_connections("tcp")
    return {(each.laddr[0], each.laddr[1]) for each in connections if each.laddr and each.status == "LISTEN"}


def wait_until(condition: Callable[[], bool], what: str, *, timeout_s: float = READY_TIMEOUT_S) -> None:
    """Return as soon as the condition holds. Fails the test, naming `what` was awaited, long past `timeout_s`.

    That is how long it may take on a machine that is busy; one may be slower and busier still (`PATIENCE`).
    """
    deadline = time.monotonic() + timeout_s * PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s * PATIENCE:g} s: {what}")
        time.sleep(POLL_S)
