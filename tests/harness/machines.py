"""A gateway as a process of its own over a real Valkey, Triton and registry, on ports that stay the same."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import redis

from harness import http_calls
from harness.bundles import BuiltBundle, Hashes, build_bundle, flights_at, instance
from harness.gateways import ENDPOINT
from harness.servers import wait_until
from skewless.bundles.model_repository import deploy
from skewless.limits import DEADLINE_MS_DEFAULT
from skewless.registry.database import engine, upgrade
from skewless.registry.records import BundleRecord
from skewless.registry.repository import Registry
from skewless.stack.gateway import gateway_spec
from skewless.stack.ports import LOOPBACK, free_ports
from skewless.stack.process import ProcessSpec, RunningProcess, start, tail
from skewless.stack.triton import TritonPorts, triton_spec
from skewless.stack.valkey import valkey_spec
from skewless.timestamps import Micros, parse_timestamp

NOW = parse_timestamp("2013-05-01T12:30:00Z")
AS_OF = "2013-05-01T12:30:00Z"


@dataclass
class Machine:
    """Valkey, Triton and a gateway on ports that stay the same over restarts."""

    folder: Path
    specs: dict[str, ProcessSpec]
    url: str
    admin_url: str
    valkey_port: int
    registry: Registry
    processes: dict[str, RunningProcess] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        return self.folder / "predictions"

    def start(self, name: str) -> None:
        self.processes[name] = start(self.specs[name])

    def stop(self, name: str, *, kill: bool = False) -> int:
        process = self.processes.pop(name)
        if kill:
            process.signal_group(signal.SIGKILL)
        return process.stop()

    def fill(self, hashes: Hashes) -> None:
        def is_filled() -> bool:
            try:
                with redis.Redis(port=self.valkey_port) as client:
                    for key, fields in hashes.items():
                        client.hset(key, mapping={**fields})
            except redis.ConnectionError:
                return False
            return True

        wait_until(is_filled, "Valkey takes features")

    def publish(self, built: BuiltBundle) -> None:
        """What the command line does to make a bundle live."""
        deploy(built.folder, built.digest, self.folder / "models")
        bundle = built.bundle
        self.registry.register_bundle(BundleRecord.of(bundle, artifact=bundle.digest, created_time=Micros(0)))

    def build(self, number: int) -> BuiltBundle:
        """A bundle with a model of its own, published."""
        built = build_bundle(self.folder / "artifacts", scale=2.0 ** -(12 + number))
        self.publish(built)
        return built

    def serve(self, number: int) -> BuiltBundle:
        """A bundle live on the endpoint, with features to answer from, once it answers."""
        built = self.build(number)
        self.registry.create_endpoint(ENDPOINT, description="", bundle=built.digest, actor="test", reason="test")
        self.fill(flights_at(NOW))
        self.wait_until_ready()
        # Triton is ready before the model is: wait for the endpoint itself.
        self.wait_until_answered(self.predict)
        return built

    def wait_until_answered(self, ask: Callable[[], httpx.Response]) -> None:
        """Return when every worker answers, each of which loads bundles by itself; `ask` connects anew each time."""

        def is_answered() -> bool:
            # As many connections as will have met every worker, which take turns.
            connections = 12 if "SKEWLESS_GATEWAY_WORKERS" in self.specs["gateway"].environment else 1
            if any(ask().status_code != 200 for _ in range(connections)):
                return False
            return self._are_workers_ready()

        what = f"the endpoint answers\n{tail(self.specs['gateway'].log_file)}"
        wait_until(is_answered, what, timeout_s=60)

    def predict(self, *, deadline_ms: int = DEADLINE_MS_DEFAULT, **changes: object) -> httpx.Response:
        body = {"instances": [instance(**changes)], "options": {"as_of": AS_OF, "deadline_ms": deadline_ms}}
        return http_calls.post(f"{self.url}/v1/endpoints/{ENDPOINT}/predict", json=body, timeout=30)

    def endpoint(self) -> dict[str, Any]:
        """What the gateway says about the endpoint; empty while it says nothing."""
        try:
            response = http_calls.get(f"{self.url}/v1/endpoints/{ENDPOINT}", timeout=10)
        except httpx.TransportError:
            return {}
        body: dict[str, Any] = response.json()
        return body if response.status_code == 200 else {}

    def wait_until_ready(self) -> None:
        wait_until(self._is_ready, f"the gateway is ready\n{tail(self.specs['gateway'].log_file)}", timeout_s=30)

    def metrics(self) -> str:
        """What Prometheus would scrape."""
        return http_calls.get(f"{self.admin_url}/metrics", timeout=10).text

    def _is_ready(self) -> bool:
        try:
            return http_calls.get(f"{self.url}/readyz", timeout=10).status_code == 200 and self._are_workers_ready()
        except httpx.TransportError:
            return False

    def _are_workers_ready(self) -> bool:
        """Every one of them, where there are several: who asks the gateway meets any of them."""
        workers = http_calls.get(f"{self.admin_url}/readyz", timeout=10).json().get("workers", {})
        return all(each["ready"] for each in workers.values())


@contextmanager
def running_machine(folder: Path, *, database_url: str = "", tritons: int = 1, **gateway: str) -> Iterator[Machine]:
    """Everything started. `database_url` is a migrated registry, a SQLite file in the folder where not given; `gateway`
    has more of the gateway's settings. Of several Tritons, on one model repository, the second is `triton2`."""
    ports = free_ports(3 + 3 * tritons)
    servers = {
        "triton" if place == 0 else f"triton{place + 1}": TritonPorts(*ports[3 + 3 * place : 6 + 3 * place])
        for place in range(tritons)
    }
    if not database_url:
        database_url = f"sqlite:///{folder}/registry.db"
        upgrade(database_url)
    logs = folder / "logs"
    environment = {
        "ONLINE_STORE": f"redis://{LOOPBACK}:{ports[0]}",
        "TRITON": ",".join(f"http://{LOOPBACK}:{each.http}?grpc={LOOPBACK}:{each.grpc}" for each in servers.values()),
        "DATABASE_URL": database_url,
        "ARTIFACTS": str(folder / "artifacts"),
        "PREDICTION_LOG": str(folder / "predictions"),
        "LOG_FLUSH_MS": "0",
        "ALLOW_AS_OF": "true",
        "DEVELOPMENT": "true",
        **gateway,
    }
    specs = {
        "valkey": valkey_spec(port=ports[0], data=folder / "valkey", logs=logs),
        **{
            name: replace(
                triton_spec(ports=each, models=folder / "models", backends=folder / f"backends_{name}", logs=logs),
                name=name,
                log_file=logs / f"{name}.log",
            )
            for name, each in servers.items()
        },
        "gateway": gateway_spec(port=ports[1], admin_port=ports[2], environment=environment, logs=logs),
    }
    registry = Registry(engine(database_url))
    url, admin_url = (f"http://{LOOPBACK}:{port}" for port in ports[1:3])
    machine = Machine(folder, specs, url, admin_url, ports[0], registry)
    try:
        for name in specs:
            machine.start(name)
        yield machine
    finally:
        for process in reversed(list(machine.processes.values())):
            process.stop()
        registry.close()
