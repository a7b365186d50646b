"""The real Triton, started the way the stack starts it."""

import http.client
import json
import os
import signal
from pathlib import Path

import psutil

from harness.servers import READY_TIMEOUT_S, TritonServer, answers, listeners, wait_until
from skewless.stack.ports import LOOPBACK, free_ports, is_free
from skewless.stack.process import RunningProcess, start
from skewless.stack.triton import TritonPorts, installation, prepare_backends, triton_spec

CONFIG = """
backend: "python"
max_batch_size: 8
input [{name: "x" data_type: TYPE_FP32 dims: [2]}]
output [{name: "y" data_type: TYPE_FP32 dims: [2]}]
"""
DOUBLE = """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        inputs = [np.from_dlpack(pb_utils.get_input_tensor_by_name(request, "x")) for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor.from_dlpack("y", each * 2)]) for each in inputs]
"""
BROKEN = 'raise RuntimeError("this model cannot load")'


def write_model(repository: Path, name: str, code: str) -> None:
    """A python-backend model folder."""
    version = repository / name / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(code)
    (repository / name / "config.pbtxt").write_text(CONFIG)


def post(address: str, path: str, body: object) -> bytes:
    """The body of a 200 answer; any other fails the test."""
    connection = http.client.HTTPConnection(address, timeout=READY_TIMEOUT_S)
    try:
        connection.request("POST", path, json.dumps(body).encode())
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    assert answer.status == http.HTTPStatus.OK, content
    return content


def doubled(address: str, model: str) -> list[float]:
    """What the doubling model answers for one row."""
    tensor = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.5, 2.0]}
    answer = json.loads(post(address, f"/v2/models/{model}/infer", {"inputs": [tensor]}))
    return [float(each) for each in answer["outputs"][0]["data"]]


def started(folder: Path, ports: TritonPorts) -> RunningProcess:
    """A Triton that is ready, over the models in `folder/models`."""
    spec = triton_spec(ports=ports, models=folder / "models", backends=folder / "backends", logs=folder / "logs")
    process = start(spec)
    wait_until(lambda: answers(spec), "Triton is ready")
    return process


def test_a_model_put_into_the_repository_loads_answers_and_unloads(triton_server: TritonServer) -> None:
    write_model(triton_server.model_repository, "double_once", DOUBLE)
    post(triton_server.http_address, "/v2/repository/models/double_once/load", {})
    assert doubled(triton_server.http_address, "double_once") == [3.0, 4.0]
    post(triton_server.http_address, "/v2/repository/models/double_once/unload", {})


def test_a_model_imports_the_packages_of_this_environment_and_no_others(triton_server: TritonServer) -> None:
    packages = str(installation().site_packages)
    check = "".join(
        f"import {name}\nassert {name}.__file__.startswith({packages!r}), {name}.__file__\n"
        for name in ("numpy", "onnxruntime")
    )
    write_model(triton_server.model_repository, "double_here", check + DOUBLE)
    post(triton_server.http_address, "/v2/repository/models/double_here/load", {})
    assert doubled(triton_server.http_address, "double_here") == [3.0, 4.0]
    post(triton_server.http_address, "/v2/repository/models/double_here/unload", {})


def test_triton_listens_on_loopback_only(triton_server: TritonServer) -> None:
    addresses = (triton_server.http_address, triton_server.grpc_address, triton_server.metrics_address)
    ports = {int(address.rpartition(":")[2]) for address in addresses}
    # gRPC listens on an IPv6 socket bound to the IPv4 loopback address.
    listening = {(host.removeprefix("::ffff:"), port) for host, port in listeners() if port in ports}
    assert listening == {(LOOPBACK, port) for port in ports}


def test_a_restarted_triton_serves_its_models_again_and_a_broken_one_does_not_keep_it_down(tmp_path: Path) -> None:
    write_model(tmp_path / "models", "good", DOUBLE)
    write_model(tmp_path / "models", "broken", BROKEN)
    ports = TritonPorts(*free_ports(3))
    first = started(tmp_path, ports)
    stub_prefix = str(tmp_path / "backends")
    try:
        assert doubled(f"{LOOPBACK}:{ports.http}", "good") == [3.0, 4.0]
        stubs = [each for each in psutil.Process(first.pid).children() if each.cmdline()[0].startswith(stub_prefix)]
        assert stubs
        assert {os.getpgid(each.pid) for each in stubs} == {first.pid}
    finally:
        os.kill(first.pid, signal.SIGKILL)
        wait_until(lambda: first.exit_status() is not None, "the killed Triton is gone")
    wait_until(lambda: not any(each.is_running() for each in stubs), "its python stubs are gone")

    second = started(tmp_path, ports)
    try:
        assert doubled(f"{LOOPBACK}:{ports.http}", "good") == [3.0, 4.0]
        (prefix,) = {argument for argument in second.spec.command if "shm-region-prefix-name" in argument}
        regions = list(Path("/dev/shm").glob(f"{prefix.rpartition('=')[2]}*"))
        assert len(regions) == 1, "the killed server's shared memory is freed, one region per model instance is left"
    finally:
        second.stop()
    assert is_free(ports.http)
    assert is_free(ports.grpc)
    assert is_free(ports.metrics)


def test_backends_are_copied_once_and_repaired_when_they_differ(tmp_path: Path) -> None:
    installed = installation()
    prepare_backends(installed, tmp_path)
    stub = tmp_path / "python" / installed.stub.name
    before = stub.stat()
    assert os.access(stub, os.X_OK)
    prepare_backends(installed, tmp_path)
    assert stub.stat().st_ino == before.st_ino
    stub.write_bytes(b"cut short")
    prepare_backends(installed, tmp_path)
    assert stub.read_bytes() == installed.stub.read_bytes()
