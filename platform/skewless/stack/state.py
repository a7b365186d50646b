"""What a running stack says about itself in `stack.json`, and whether what stands there is still true."""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from skewless.settings import Home
from skewless.stack.process import is_alive
from skewless.stack.supervision import Health, Phase
from skewless.timestamps import Micros, format_timestamp


@dataclass(frozen=True, slots=True)
class ProcessState:
    """One process. `pid` is 0 while it does not run; `created_s` tells it from a later one of the same id."""

    name: str
    pid: int
    created_s: float
    health: Health
    restarts: int
    last_failure: str
    log: str


@dataclass(frozen=True, slots=True)
class StackAddresses:
    """Where the servers listen, all on loopback: two URLs, then `host:port`, empty where no Triton runs."""

    gateway_url: str
    valkey_url: str
    triton_grpc: str
    triton_http: str
    triton_metrics: str
    gateway_admin_url: str = ""
    """Empty in the state of a stack that an older version started."""
    shipper_url: str = ""
    """As above."""
    monitor_url: str = ""
    """As above, and where the stack runs no monitor."""
    scheduler_url: str = ""
    """As above, and where the stack materializes nothing by schedules."""
    ingest_url: str = ""
    """As above, and where the stack runs no ingestion service."""
    ingest_admin_url: str = ""
    """Where that tells its metrics."""


@dataclass(frozen=True, slots=True)
class StackState:
    """A stack. `failure` says why it could not start or which process was given up; empty when all is well."""

    home: str
    pid: int
    """Process id of the supervisor."""
    created_s: float
    started: Micros
    phase: Phase
    addresses: StackAddresses
    allow_as_of: bool
    processes: tuple[ProcessState, ...] = ()
    failure: str = ""

    @property
    def gateway_url(self) -> str:
        """Base URL of the REST API, without a slash at its end."""
        return self.addresses.gateway_url

    @property
    def gateway_admin_url(self) -> str:
        """Base URL of the gateway's admin listener, where its metrics are."""
        return self.addresses.gateway_admin_url

    @property
    def shipper_url(self) -> str:
        """Base URL of the shipper's own listener, where its metrics are."""
        return self.addresses.shipper_url

    @property
    def monitor_url(self) -> str:
        """Base URL of the monitor's own listener, where its metrics are; empty where none runs."""
        return self.addresses.monitor_url

    @property
    def scheduler_url(self) -> str:
        """Base URL of the scheduler's own listener, where its metrics are; empty where none runs."""
        return self.addresses.scheduler_url

    @property
    def ingest_url(self) -> str:
        """Base URL of the ingestion service; empty where none runs."""
        return self.addresses.ingest_url

    @property
    def ingest_admin_url(self) -> str:
        """Base URL of the ingestion service's listener for metrics; empty where none runs."""
        return self.addresses.ingest_admin_url

    @property
    def valkey_url(self) -> str:
        """`redis://host:port` of the online store."""
        return self.addresses.valkey_url

    @property
    def triton_grpc(self) -> str:
        """`host:port` of Triton's gRPC API; empty where no Triton runs."""
        return self.addresses.triton_grpc

    @property
    def triton_http(self) -> str:
        """`host:port` of Triton's HTTP API."""
        return self.addresses.triton_http

    @property
    def triton_metrics(self) -> str:
        """`host:port` of Triton's metrics."""
        return self.addresses.triton_metrics

    @property
    def is_running(self) -> bool:
        """Whether the very supervisor that wrote this still lives."""
        return is_alive(self.pid, self.created_s)

    @property
    def summary(self) -> str:
        """Since when it is up, under which process, and where it listens, in one line."""
        models = f"Triton {self.triton_grpc} (gRPC) and {self.triton_http} (HTTP)"
        monitor = f"monitor {self.monitor_url}" if self.monitor_url else "no monitor"
        return (
            f"{self.phase} since {format_timestamp(self.started)} (process {self.pid}), gateway {self.gateway_url}, "
            f"Valkey {self.valkey_url}, {models if self.triton_grpc else 'models in the gateway itself'}, {monitor}"
        )


def write_state(home: Home, state: StackState) -> None:
    """Replace `stack.json` in one step; a reader sees the old state or the new one, never half of one."""
    partial = home.stack_file.with_name(f"{home.stack_file.name}.partial")
    partial.write_bytes(msgspec.json.format(msgspec.json.encode(state), indent=2) + b"\n")
    partial.replace(home.stack_file)


def read_last_state(home: Home) -> StackState | None:
    """What stands in `stack.json`, true or not any more; None where there is none or it cannot be read."""
    return _decode(home.stack_file)


def read_state(home: Home) -> StackState | None:
    """The state of the stack that runs in this home, or None when none runs (whatever `stack.json` says)."""
    state = read_last_state(home)
    return state if state is not None and state.is_running else None


def _decode(file: Path) -> StackState | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=StackState)
    except (FileNotFoundError, msgspec.DecodeError):
        # A file of another version is as good as none: what it names is found again by its lock.
        return None
