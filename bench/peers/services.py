"""Peers as running services: how each is started, asked and understood."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.environment import ROOT
from bench.gateway_stack import GatewayStack, Served
from bench.peers.environments import environment_of
from bench.read_store import SERVICE
from bench.textbook.pipeline import frame_of
from skewless.errors import StackFailed
from skewless.stack.ports import LOOPBACK, free_ports
from skewless.stack.probes import http_probe
from skewless.stack.process import ProcessSpec

Entities = Mapping[str, list[object]]
FIT_TIMEOUT_S = 300.0
FEAST_SERVE = "feast serve"
_QUANTITY = "quantity"
_REQUESTS_MAX = 10_000_000
"""It starts a worker anew after a thousand requests, where nothing else is asked for."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One framework. `command` gets the environment's folder, a port and a scratch folder; `body` makes a request's
    body of entities; `positive` finds the probabilities in an answer."""

    name: str
    path: str
    health: str
    command: Callable[[Path, int, Path], tuple[str, ...]]
    body: Callable[[Entities], Any]
    positive: Callable[[Any], list[float]]


@dataclass(frozen=True, slots=True)
class StartedPeer:
    """A peer that answers; `started_s` is how long it took until then."""

    peer: Peer
    served: Served
    started_s: float

    def bodies(self, entities: Sequence[Entities]) -> tuple[bytes, ...]:
        """Requests' bodies."""
        return tuple(json.dumps(self.peer.body(each), separators=(",", ":")).encode() for each in entities)


def start_peer(stack: GatewayStack, peer: Peer, progress: Callable[[str], None]) -> StartedPeer:
    """Install where needed, fit its transform, start it. Raises NotInstalled and StackFailed."""
    environment = environment_of(peer.name, progress)
    folder = stack.folder / f"peer-{peer.name}"
    folder.mkdir()
    variables = {
        "PYTHONPATH": str(ROOT),
        "PEER_ARTIFACTS": str(folder),
        "PEER_FEATURE_REPOSITORY": str(stack.store.sdk.repo_path),
        "PEER_FEATURE_SERVICE": SERVICE,
        "HOME": str(folder),
        "BENTOML_DO_NOT_TRACK": "true",
        "RAY_USAGE_STATS_ENABLED": "0",
        # Python finds its packages by its environment; scripts that a framework starts find it by the path.
        "PATH": f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}",
    }
    _write_artifacts(stack, folder)
    _fit(environment, variables)
    port = free_ports(1)[0]
    spec = ProcessSpec(
        name=peer.name,
        command=peer.command(environment, port, folder),
        log_file=folder / f"{peer.name}.log",
        probe=http_probe(peer.name, port, peer.health),
        environment=variables,
        stop_timeout_s=30.0,
    )
    progress(f"starting {peer.name}")
    began = time.monotonic()
    pid = stack.start(spec)
    return StartedPeer(peer, Served(peer.path, LOOPBACK, port, pid, {}), time.monotonic() - began)


def start_feast_serve(stack: GatewayStack, progress: Callable[[str], None]) -> StartedPeer:
    """Feast's own feature server, from this project's environment, over the same repository."""
    port = free_ports(1)[0]
    options = ("--host", LOOPBACK, "--port", str(port), "--no-access-log", "--max-requests", str(_REQUESTS_MAX))
    spec = ProcessSpec(
        name=FEAST_SERVE,
        command=(str(Path(sys.executable).parent / "feast"), "-c", str(stack.store.sdk.repo_path), "serve", *options),
        log_file=stack.folder / "feast-serve.log",
        probe=http_probe(FEAST_SERVE, port, "/health"),
        environment={"FEAST_USAGE": "false"},
        stop_timeout_s=30.0,
    )
    progress(f"starting {FEAST_SERVE}")
    began = time.monotonic()
    pid = stack.start(spec)
    peer = Peer(FEAST_SERVE, "/get-online-features", "/health", _module(""), _columns, _of_predictions)
    return StartedPeer(peer, Served(peer.path, LOOPBACK, port, pid, {}), time.monotonic() - began)


def _write_artifacts(stack: GatewayStack, folder: Path) -> None:
    trained = stack.trained
    frame_of(trained.columns).to_parquet(folder / "rows.parquet")
    (folder / "groups.json").write_text(json.dumps(asdict(trained.groups)))
    model = trained.bundle.read_model()
    (folder / "model.onnx").write_bytes(model.files[model.entry])


def _fit(environment: Path, variables: Mapping[str, str]) -> None:
    done = subprocess.run(
        [str(environment / "bin" / "python"), "-P", "-m", "bench.peers.fit"],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=FIT_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise StackFailed(f"the peer's transform cannot be fitted:\n{done.stderr[-1_000:]}")


def _instances(entities: Entities) -> dict[str, Any]:
    rows = len(next(iter(entities.values())))
    return {"instances": [{name: values[row] for name, values in entities.items()} for row in range(rows)]}


def _columns(entities: Entities) -> dict[str, Any]:
    keys = {name: values for name, values in entities.items() if name != _QUANTITY}
    return {"feature_service": SERVICE, "entities": keys, "full_feature_names": True}


def _tensors(entities: Entities) -> dict[str, Any]:
    quantities = entities[_QUANTITY]
    columns: dict[str, list[Any]] = {**entities, _QUANTITY: [0.0 if each is None else each for each in quantities]}
    known: dict[str, list[Any]] = {"quantity_known": [each is not None for each in quantities]}
    types: dict[type, str] = {int: "INT64", str: "BYTES", float: "FP64", bool: "BOOL"}
    return {
        "inputs": [
            {"name": name, "shape": [len(values)], "datatype": types[type(values[0])], "data": values}
            for name, values in {**columns, **known}.items()
        ]
    }


def _of_predictions(answer: Any) -> list[float]:
    predictions = answer["predictions"] if isinstance(answer, dict) else answer
    return [each["probability"] for each in predictions]


def _of_outputs(answer: Any) -> list[float]:
    found: list[float] = next(each["data"] for each in answer["outputs"] if each["name"] == "probability")
    return found


def _module(name: str) -> Callable[[Path, int, Path], tuple[str, ...]]:
    return lambda environment, port, _: (str(environment / "bin" / "python"), "-P", "-m", name, str(port))


def _bentoml(environment: Path, port: int, _: Path) -> tuple[str, ...]:
    options = ("--host", LOOPBACK, "--port", str(port), "--working-dir", str(ROOT))
    return (str(environment / "bin" / "bentoml"), "serve", "bench.peers.bentoml_service:Peer", *options)


def _mlserver(environment: Path, port: int, folder: Path) -> tuple[str, ...]:
    models = folder / "model"
    models.mkdir()
    source = Path(__file__).parent / "mlserver_model"
    (models / "model-settings.json").write_bytes((source / "model-settings.json").read_bytes())
    settings = json.loads((source / "settings.json").read_text())
    ports = dict(zip(("grpc_port", "metrics_port"), free_ports(2), strict=True))
    (models / "settings.json").write_text(json.dumps({**settings, "http_port": port, **ports}))
    return (str(environment / "bin" / "mlserver"), "start", str(models))


PEERS = (
    Peer("bentoml", "/predict", "/readyz", _bentoml, _instances, _of_predictions),
    Peer("litserve", "/predict", "/health", _module("bench.peers.litserve_server"), _instances, _of_predictions),
    Peer("mlserver", "/v2/models/peer/infer", "/v2/health/ready", _mlserver, _tensors, _of_outputs),
    Peer("ray", "/predict", "/-/healthz", _module("bench.peers.ray_app"), _instances, _of_predictions),
)
