"""Real processes for the gateway benchmark: Valkey with features, Triton with the model, gateways, the textbook."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import joblib  # type: ignore[import-untyped]  # it ships no types
import psutil

from bench.environment import ROOT
from bench.gateway_floor import FloorRequest
from bench.gateway_model import Trained, entities_of, given_columns, read_columns, train_bundle, variant_of
from bench.load_http import Connection, body_of, request_bytes, status_of
from bench.read_store import SERVICE, ReadStore, build, spread
from bench.textbook.pipeline import frame_of
from bench.textbook.transform import make_transform, typed
from bench.wire_floor import words_of
from skewless.adapters.feast_repository import Connections, FeatureRepository
from skewless.adapters.folder_artifact_store import FolderArtifactStore
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.bundles.model_repository import deploy
from skewless.canonical_json import Digest
from skewless.column_table import beside
from skewless.errors import StackFailed, Unavailable
from skewless.features.plan import ReadPlan
from skewless.registry.api_scopes import ANY_ENDPOINT, RATE_BURST_MAX, RATE_PER_S_MAX, ApiRate, ApiScope
from skewless.registry.database import engine, upgrade
from skewless.registry.records import BundleRecord
from skewless.registry.repository import Registry
from skewless.registry.snapshots import FeatureSnapshots
from skewless.settings import GATEWAY_PREFIX
from skewless.stack.gateway import gateway_spec
from skewless.stack.ports import LOOPBACK, free_ports
from skewless.stack.probes import http_probe
from skewless.stack.process import ProcessSpec, RunningProcess, start, tail
from skewless.stack.triton import TritonPorts, triton_spec
from skewless.stack.valkey import valkey_spec
from skewless.timestamps import Micros

ENDPOINT = "bench"
GATEWAY_PROGRAM = "skewless_gateway"
HTTP, GRPC, SHARED_MEMORY, IN_PROCESS = WAYS = ("http", "grpc", "shm", "in-process")
"""How a gateway reaches the model; the embedded stack's way comes first."""
FEATURES = 40
READY_TIMEOUT_S = 180.0
"""The textbook's imports take 10 s of a core; two workers of it on a busy machine a minute and more."""
PREPARED = {1: 256, 10: 64, 100: 16, 500: 4, 1_000: 2}
"""Different requests by their rows; more would only cost memory, fewer would flatter caches."""
_POLL_S = 0.05
_SETTINGS_OF = """
import json, sys
from skewless_gateway.settings import GatewaySettings
json.dump(list(GatewaySettings.model_fields), sys.stdout)
"""


@dataclass(frozen=True, slots=True)
class Served:
    """Something that answers predictions over HTTP; `pid` and its children work for it."""

    path: str
    host: str
    port: int
    pid: int
    headers: Mapping[str, str]

    def request(self, body: bytes) -> bytes:
        """A request for predictions, as it is sent."""
        return request_bytes(self.path, body, host=f"{self.host}:{self.port}", headers=self.headers)

    def ask(self, body: bytes) -> dict[str, Any]:
        """The answer to one request. Raises StackFailed for anything but a 200."""
        with contextlib.closing(Connection(self.host, self.port)) as connection:
            reply = connection.ask(self.request(body))
        if status_of(reply) != 200:
            raise StackFailed(f"{self.path} answered {status_of(reply)}: {body_of(reply)[:500]!r}")
        answer: dict[str, Any] = json.loads(body_of(reply))
        return answer


class GatewayStack:
    """Valkey and Triton with everything that predictions need; gateways and the textbook service are started on it."""

    def __init__(self, folder: Path, progress: Callable[[str], None], *, features: int = FEATURES) -> None:
        self._folder = folder
        self._features = features
        self._logs = folder / "logs"
        self._progress = progress
        self._processes: list[RunningProcess] = []
        ports = free_ports(4)
        self.valkey_port = ports[0]
        self._triton_ports = TritonPorts(*ports[1:])
        self.triton_grpc = f"{LOOPBACK}:{self._triton_ports.grpc}"
        self.triton_http = f"{LOOPBACK}:{self._triton_ports.http}"
        self._database = f"sqlite:///{folder}/registry.db"
        self._headers: Mapping[str, str] = {}
        self.store: ReadStore
        self.trained: Trained
        self.plan: ReadPlan
        self.model = ""
        self.pids: dict[str, int] = {}
        """Of what all candidates share, by name."""

    def open(self) -> None:
        """Start Valkey and Triton, write features, train the model, register it and make it live."""
        self.pids["Valkey"] = self.start(valkey_spec(port=self.valkey_port, data=self._folder / "v", logs=self._logs))
        self._progress("writing features")
        self.store = build(spread(self._features), self._folder, self.valkey_port)
        self.trained = train_bundle(self.store, self._folder / "bundle", self._progress)
        bundle = self.trained.bundle
        FolderArtifactStore(self._folder / "artifacts").put(bundle.folder, bundle.digest)
        self.model = deploy(bundle.folder, bundle.digest, self._folder / "models")
        self._register()
        triton = triton_spec(
            ports=self._triton_ports,
            models=self._folder / "models",
            backends=self._folder / "backends",
            logs=self._logs,
        )
        self._progress("starting Triton")
        self.pids["Triton"] = self.start(triton)

    def close(self) -> None:
        """Stop every process, the last started first."""
        for process in reversed(self._processes):
            process.stop()

    def start(self, spec: ProcessSpec) -> int:
        """The id of a started process that answers its health check. Raises StackFailed where it does not in time."""
        process = start(spec)
        self._processes.append(process)
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not asyncio.run(_answers(spec.probe)):
            if process.exit_status() is not None or time.monotonic() > deadline:
                raise StackFailed(f"{spec.name} does not come up:\n{tail(spec.log_file)}", hint="run `skewless doctor`")
            time.sleep(_POLL_S)
        return process.pid

    def stop(self, pid: int) -> None:
        """Stop a process that was started on the stack, and all that it started, in whatever session they are."""
        process = next(each for each in self._processes if each.pid == pid)
        family = psutil.Process(pid).children(recursive=True)
        process.stop()
        for each in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        self._processes.remove(process)

    @property
    def folder(self) -> Path:
        """Of everything that the stack keeps."""
        return self._folder

    def log_of(self, name: str) -> Path:
        """The folder of the prediction log of a gateway."""
        return self._folder / f"log-{name}"

    def gateway(
        self, name: str, way: str, *, source: Path | None = None, program: str = GATEWAY_PROGRAM, **settings: str
    ) -> Served:
        """A gateway with one of WAYS to the model, and every setting else as shipped.

        `source` is another checkout whose gateway is to run, `program` a module that runs it in a way of its own;
        `settings` come by name without the gateway's prefix.
        """
        port, admin_port = free_ports(2)
        environment = {
            "ONLINE_STORE": f"redis://{LOOPBACK}:{self.valkey_port}",
            "TRITON": self.model_server(way),
            "DATABASE_URL": self._database,
            "ARTIFACTS": str(self._folder / "artifacts"),
            "PREDICTION_LOG": str(self.log_of(name)),
            **settings,
        }
        spec = gateway_spec(port=port, admin_port=admin_port, environment=environment, logs=self._logs / name)
        if program != GATEWAY_PROGRAM:
            command = (sys.executable, "-P", "-m", program)
            spec = replace(spec, command=command, environment={**spec.environment, "PYTHONPATH": str(ROOT)})
        if source is not None:
            spec = _of_checkout(spec, source)
        self._progress(f"starting {name}")
        pid = self.start(spec)
        served = Served(f"/v1/endpoints/{ENDPOINT}/predict", LOOPBACK, port, pid, self._headers)
        self._await_endpoint(served, spec)
        return served

    def model_server(self, way: str) -> str:
        """The gateway's setting for a way to the model: `http`, `grpc`, `shm` or `in-process`."""
        addresses = {
            HTTP: f"{self.triton_http}?grpc={self.triton_grpc}",
            GRPC: self.triton_grpc,
            SHARED_MEMORY: self.triton_grpc,
        }
        return f"{way}://{addresses[way]}" if way in addresses else way

    def textbook(self, *, workers: int = 1) -> Served:
        """The textbook service, with a pipeline fitted on the rows that the bundle was trained on."""
        artifacts = self._folder / "textbook"
        artifacts.mkdir(exist_ok=True)
        groups = self.trained.groups
        transform = make_transform(groups).fit(typed(frame_of(self.trained.columns), groups))
        joblib.dump((groups, transform), artifacts / "pipeline.joblib")
        port = free_ports(1)[0]
        # uvicorn kills a worker that does not answer for 5 s, which imports can take on a busy machine.
        patience = ("--timeout-worker-healthcheck", str(int(READY_TIMEOUT_S)))
        options = ("--host", LOOPBACK, "--port", str(port), "--workers", str(workers), "--no-access-log", *patience)
        spec = ProcessSpec(
            name="textbook",
            command=(sys.executable, "-P", "-m", "uvicorn", "bench.textbook.app:app", *options),
            log_file=self._logs / f"textbook-{workers}.log",
            probe=http_probe("textbook", port, "/healthz"),
            environment={
                "PYTHONPATH": str(ROOT),
                "TEXTBOOK_FEATURE_REPOSITORY": str(self.store.sdk.repo_path),
                "TEXTBOOK_FEATURE_SERVICE": SERVICE,
                "TEXTBOOK_ARTIFACTS": str(artifacts),
                "TEXTBOOK_TRITON": self.triton_grpc,
                "TEXTBOOK_MODEL": self.model,
            },
        )
        self._progress("starting textbook")
        return Served("/predict", LOOPBACK, port, self.start(spec), {})

    def bodies(self, rows: int) -> tuple[bytes, ...]:
        """Bodies of requests of so many rows, for gateway and textbook alike."""
        return tuple(_body(entities_of(self.store, rows, draw), rows) for draw in range(PREPARED[rows]))

    def add_variant(self, number: int) -> Digest:
        """Another bundle, which differs from the first one in its provenance alone, for models that run in gateways."""
        bundle = variant_of(self.trained.bundle, number, self._folder / f"bundle-{number}")
        FolderArtifactStore(self._folder / "artifacts").put(bundle.folder, bundle.digest)
        with contextlib.closing(self.registry()) as registry:
            registry.register_bundle(BundleRecord.of(bundle, artifact=bundle.digest, created_time=Micros(0)))
        return bundle.digest

    def add_endpoint(self, name: str, bundle: Digest) -> None:
        """Another endpoint with a live bundle."""
        with contextlib.closing(self.registry()) as registry:
            registry.create_endpoint(name, description="", bundle=bundle, actor="bench", reason="to measure")

    def registry(self) -> Registry:
        """The registry of all gateways, to be closed."""
        return Registry(engine(self._database))

    def floor_requests(self, rows: int) -> tuple[FloorRequest, ...]:
        """What the same requests read and send to the model, in the same order."""
        store = BlockingRedisOnlineStore(f"redis://{LOOPBACK}:{self.valkey_port}")
        with contextlib.closing(store):
            return tuple(self._floor_request(store, rows, draw) for draw in range(PREPARED[rows]))

    def _floor_request(self, store: BlockingRedisOnlineStore, rows: int, draw: int) -> FloorRequest:
        given = given_columns(self.trained.bundle.contract, entities_of(self.store, rows, draw))
        frame = read_columns(self.plan, store, given, rows, self.store.as_of)
        words = tuple(words_of(command) for command in self.plan.prepare(given, rows).commands)
        return FloorRequest(words, self.trained.tensor(beside(given, frame.columns, rows), rows))

    def _register(self) -> None:
        """What `skewless apply`, `bundle register` and `endpoint create` leave in the registry."""
        bundle = self.trained.bundle
        upgrade(self._database)
        database = engine(self._database)
        repository = FeatureRepository(Path(str(self.store.sdk.repo_path)), Connections(online_store="", registry=""))
        compiled = repository.compiled()
        FeatureSnapshots(database).store(
            compiled, findings=(), source=Digest("0" * 64), actor="bench", reason="to measure"
        )
        self.plan = ReadPlan.compile(bundle.contract, compiled.hash_sizes)
        with contextlib.closing(Registry(database)) as registry:
            registry.register_bundle(BundleRecord.of(bundle, artifact=bundle.digest, created_time=Micros(0)))
            secret = registry.add_api_key(
                ENDPOINT,
                (ApiScope((ANY_ENDPOINT,)),),
                rate=ApiRate(RATE_PER_S_MAX, RATE_BURST_MAX),
                actor="bench",
                reason="to measure",
            )
            self._headers = {"Authorization": f"Bearer {secret}"}
            registry.create_endpoint(ENDPOINT, description="", bundle=bundle.digest, actor="bench", reason="to measure")

    def _await_endpoint(self, served: Served, spec: ProcessSpec) -> None:
        """Wait until a gateway has loaded the bundle."""
        body = self.bodies(1)[0]
        deadline = time.monotonic() + READY_TIMEOUT_S
        while True:
            try:
                served.ask(body)
            except StackFailed as error:
                if time.monotonic() > deadline:
                    raise StackFailed(f"{error}\n{tail(spec.log_file)}") from error
                time.sleep(_POLL_S)
            else:
                return


@contextlib.contextmanager
def gateway_stack(folder: Path, progress: Callable[[str], None], *, features: int = FEATURES) -> Iterator[GatewayStack]:
    """The stack with so many features, opened; everything that was started on it is stopped on leaving."""
    stack = GatewayStack(folder, progress, features=features)
    try:
        stack.open()
        yield stack
    finally:
        stack.close()


async def _answers(probe: Callable[[], Any]) -> bool:
    try:
        await probe()
    except Unavailable:
        return False
    return True


def _body(entities: Mapping[str, list[object]], rows: int) -> bytes:
    instances = [{name: values[row] for name, values in entities.items()} for row in range(rows)]
    return json.dumps({"instances": instances}, separators=(",", ":")).encode()


def _of_checkout(spec: ProcessSpec, source: Path) -> ProcessSpec:
    """The gateway of another checkout, with this environment's packages, and only the settings that it has."""
    roots = os.pathsep.join(str(root.resolve()) for root in (source / "platform", source / "services", source))
    asked = subprocess.run(
        [sys.executable, "-P", "-c", _SETTINGS_OF],
        env={**os.environ, "PYTHONPATH": roots},
        capture_output=True,
        text=True,
        check=True,
    )
    known = {f"{GATEWAY_PREFIX}{name.upper()}" for name in json.loads(asked.stdout)}
    environment = {name: value for name, value in spec.environment.items() if name in known}
    return replace(spec, environment={**environment, "PYTHONPATH": roots})
