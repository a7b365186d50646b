"""A gateway worker starts soon and stays small, and never loads what trains, checks or reports."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import psutil
import pytest
import redis

from harness import http_calls
from harness.bundles import build_bundle, contract, flights_at, instance
from harness.gateways import ENDPOINT
from harness.servers import TritonServer, ValkeyServer, wait_until
from skewless.bundles.model_repository import deploy
from skewless.canonical_json import digest
from skewless.features.compiled_registry import CompiledRegistry
from skewless.features.contract import FeatureContract
from skewless.registry.database import engine, upgrade
from skewless.registry.records import BundleRecord
from skewless.registry.repository import Registry
from skewless.registry.snapshots import FeatureSnapshots
from skewless.stack.gateway import gateway_spec
from skewless.stack.ports import LOOPBACK, free_ports
from skewless.stack.process import start, tail
from skewless.timestamps import Micros, parse_timestamp

AS_OF = "2013-05-01T12:30:00Z"
LIBRARIES = "import fastapi, grpc, hiredis, httptools, msgspec, numpy, prometheus_client, pydantic_settings, sqlalchemy"
"""What any gateway of this kind loads: the measure of a start, because it takes as long as the machine is slow then."""
START_TIMES_LIBRARIES_MAX = 3.5
"""Processor time of a start: one and a half times that of loading the libraries; with Feast it would be nine times."""
START_S_MAX = 90.0
"""Of wall time, on a machine that runs all other tests at once."""
RESIDENT_MIB_MAX = 150
PREDICTIONS = 1_000
MIB = 1024 * 1024
NEVER = ("alembic", "duckdb", "evidently", "feast", "great_expectations", "onnx", "onnxruntime", "pandas", "sklearn")
NOT_AT_START = (*NEVER, "pyarrow")


@dataclass(frozen=True, slots=True)
class Worker:
    """A gateway process, and how it came up."""

    url: str
    admin_url: str
    database_url: str
    process: psutil.Process
    start_s: float
    start_cpu_s: float

    def resident_mib(self) -> float:
        return float(self.process.memory_info().rss) / MIB


@contextmanager
def running_worker(folder: Path, valkey: ValkeyServer, triton: TritonServer) -> Iterator[Worker]:
    """A gateway with one endpoint; its models folder is the server's."""
    database_url = f"sqlite:///{folder}/registry.db"
    upgrade(database_url)
    _publish(folder, database_url, triton.model_repository)
    environment = {
        "ONLINE_STORE": valkey.url,
        "TRITON": triton.grpc_address,
        "DATABASE_URL": database_url,
        "ARTIFACTS": str(folder / "artifacts"),
        "PREDICTION_LOG": str(folder / "predictions"),
        "ALLOW_AS_OF": "true",
        "DEVELOPMENT": "true",
        # A worker that keeps models ready itself needs ONNX Runtime and the models' own memory for that.
        "STANDBY": "false",
    }
    port, admin_port = free_ports(2)
    url, admin_url = f"http://{LOOPBACK}:{port}", f"http://{LOOPBACK}:{admin_port}"
    spec = gateway_spec(port=port, admin_port=admin_port, environment=environment, logs=folder / "logs")
    began_s = time.monotonic()
    running = start(spec)
    try:
        process = psutil.Process(running.pid)
        wait_until(lambda: _answers(f"{url}/healthz"), f"it answers\n{tail(spec.log_file)}", timeout_s=START_S_MAX)
        times = process.cpu_times()
        yield Worker(url, admin_url, database_url, process, time.monotonic() - began_s, times.user + times.system)
    finally:
        running.stop()


def _publish(folder: Path, database_url: str, models: Path) -> None:
    (folder / "artifacts").mkdir()
    built = build_bundle(folder / "artifacts")
    deploy(built.folder, built.digest, models)
    bundle = built.bundle
    registry = Registry(engine(database_url))
    registry.register_bundle(BundleRecord.of(bundle, artifact=bundle.digest, created_time=Micros(0)))
    registry.create_endpoint(ENDPOINT, description="", bundle=built.digest, actor="test", reason="start")
    registry.close()


def _answers(url: str) -> bool:
    try:
        return http_calls.get(url, timeout=10).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def worker(
    tmp_path_factory: pytest.TempPathFactory, valkey_server: ValkeyServer, triton_server: TritonServer
) -> Iterator[Worker]:
    with redis.Redis(port=valkey_server.port) as client:
        for key, fields in flights_at(parse_timestamp(AS_OF)).items():
            client.hset(key, mapping={**fields})
    with running_worker(tmp_path_factory.mktemp("worker"), valkey_server, triton_server) as running:
        yield running


def loading_libraries_cpu_s() -> float:
    before = psutil.Process().cpu_times()
    subprocess.run([sys.executable, "-c", LIBRARIES], check=True, timeout=120)
    after = psutil.Process().cpu_times()
    return float(after.children_user + after.children_system - before.children_user - before.children_system)


def test_a_worker_answers_after_little_work(worker: Worker) -> None:
    least_s = max(loading_libraries_cpu_s() for _ in range(2))
    told = f"{worker.start_cpu_s:.2f} s of processor time to the first answer, of libraries {least_s:.2f} s"
    assert worker.start_cpu_s <= START_TIMES_LIBRARIES_MAX * least_s, told


def test_a_worker_stays_small_from_its_start_through_a_thousand_predictions(worker: Worker) -> None:
    wait_until(lambda: _answers(f"{worker.url}/readyz"), "the worker is ready")
    at_start = worker.resident_mib()
    body = {"instances": [instance()], "options": {"as_of": AS_OF}}
    with http_calls.client(base_url=worker.url, timeout=30) as client:
        for _ in range(PREDICTIONS):
            assert client.post(f"/v1/endpoints/{ENDPOINT}/predict", json=body).status_code == 200
    after = worker.resident_mib()
    assert max(at_start, after) <= RESIDENT_MIB_MAX, f"{at_start:.0f} MiB when ready, {after:.0f} MiB after predictions"


def test_importing_the_gateway_loads_nothing_that_trains_checks_or_reports() -> None:
    code = f"import sys, skewless_gateway.main; print([each for each in {NOT_AT_START!r} if each in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def test_a_running_worker_has_mapped_no_library_that_trains_checks_or_reports(worker: Worker) -> None:
    wait_until(lambda: _answers(f"{worker.url}/readyz"), "the worker is ready")
    mapped = {part for each in worker.process.memory_maps() for part in Path(each.path).parts}
    assert mapped.isdisjoint(NEVER)


def test_a_worker_counts_the_endpoints_whose_definitions_changed_and_tells_the_snapshots_age(worker: Worker) -> None:
    def lines() -> list[str]:
        return http_calls.get(f"{worker.admin_url}/metrics", timeout=10).text.splitlines()

    assert not [line for line in lines() if line.startswith("skewless_contract_changed{")], "no snapshot, no verdict"
    _store(worker, contract())
    unchanged = f'skewless_contract_changed{{endpoint="{ENDPOINT}"}} 0.0'
    wait_until(lambda: unchanged in lines(), "the snapshot is followed")
    _store(worker, replace(contract(), definitions_digest=digest("others")))
    changed = f'skewless_contract_changed{{endpoint="{ENDPOINT}"}} 1.0'
    wait_until(lambda: changed in lines(), "the change is followed")
    (age,) = [line for line in lines() if line.startswith('skewless_registry_snapshot_age_seconds{project="demo"}')]
    assert 0 <= float(age.rpartition(" ")[2]) < 60


def _store(worker: Worker, registered: FeatureContract) -> None:
    with closing(FeatureSnapshots(engine(worker.database_url))) as snapshots:
        compiled = CompiledRegistry("demo", {"delays": registered}, {}, {("origin",): 3})
        snapshots.store(compiled, findings=(), source=digest("source"), actor="test", reason="start")
