"""Deployed models in a real Triton: Python models, warm-up with golden rows, and configurations for GPU servers."""

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from harness.bundles import content
from harness.servers import TritonServer, wait_until
from skewless.adapters.triton_backend import TritonBackend
from skewless.adapters.triton_http_backend import TritonHttpBackend
from skewless.bundles.bundle import BundleContent, write_bundle
from skewless.bundles.golden import GoldenVectors
from skewless.bundles.model_files import ModelFiles, ModelFormat
from skewless.bundles.model_repository import deploy
from skewless.bundles.serving_profile import QueuePolicy, ServingProfile, Target
from skewless.bundles.triton_model import BACKENDS, triton_files
from skewless.errors import BundleRefused, SkewlessError

MODULE = b'''
"""Doubles what a row sums to, by weights in a file and a function of a second module."""
import numpy as np

from side import doubled


def load(folder):
    weights = np.load(folder / "data" / "weights.npy")
    seen = (folder.parent / "seen.jsonl").open("a")

    def predict(tensor):
        seen.write(repr(tensor.tolist()) + "\\n")
        seen.flush()
        positive = doubled(tensor @ weights)
        return {"probabilities": np.concatenate([1 - positive, positive], axis=1)}

    return predict
'''
SIDE = b"def doubled(x):\n    return x * 2\n"


def array_file(array: NDArray[np.float32]) -> bytes:
    """The content of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def python_bundle(module: bytes = MODULE, profile: ServingProfile | None = None) -> BundleContent:
    """A bundle whose model is Python, with the golden outputs that MODULE gives."""
    made = content()
    weights = np.full((made.signature.input_columns, 1), 2.0**-14, dtype=np.float32)
    positive = made.golden.tensor @ weights * 2
    outputs = {"probabilities": np.concatenate([1 - positive, positive], axis=1)}
    files = {"model.py": module, "side.py": SIDE, "data/weights.npy": array_file(weights)}
    return replace(
        made,
        model=ModelFiles(ModelFormat.PYTHON, files, "model.py"),
        golden=GoldenVectors(made.golden.columns, made.golden.tensor, outputs),
        serving=profile or ServingProfile(),
    )


@asynccontextmanager
async def loaded(server: TritonServer, made: BundleContent, folder: Path) -> AsyncIterator[tuple[TritonBackend, str]]:
    """A backend whose server has loaded the bundle, written to `folder`, and the model's name; unloaded on leaving."""
    name = deploy(folder, write_bundle(made, folder), server.model_repository)
    backend = TritonBackend(server.grpc_address)
    try:
        await backend.load(name)
        yield backend, name
        await backend.unload(name)
    finally:
        await backend.close()


async def test_a_python_model_reproduces_its_golden_outputs_alone_and_in_any_batch(
    triton_server: TritonServer, tmp_path: Path
) -> None:
    made = python_bundle()
    async with loaded(triton_server, made, tmp_path / "bundle") as (backend, name):
        golden = made.golden
        whole = await backend.infer(name, made.signature, golden.tensor, timeout_s=30)
        assert whole["probabilities"].tobytes() == golden.outputs["probabilities"].tobytes()
        for row in range(golden.rows):
            alone = await backend.infer(name, made.signature, golden.tensor[row : row + 1], timeout_s=30)
            assert alone["probabilities"].tobytes() == golden.outputs["probabilities"][row].tobytes()


async def test_an_answer_leaves_no_trace_in_the_log(triton_server: TritonServer, tmp_path: Path) -> None:
    (log,) = (triton_server.model_repository.parent / "logs").glob("triton*.log")
    before = log.stat().st_size
    made = python_bundle()
    async with loaded(triton_server, made, tmp_path / "bundle") as (backend, name):
        for rows in (1, 3, 1):
            await backend.infer(name, made.signature, made.golden.tensor[:rows], timeout_s=30)

    def told() -> str:
        with log.open() as written:
            written.seek(before)
            return written.read()

    wait_until(lambda: "successfully unloaded" in told(), "the log tells of the unloading")
    assert "Traceback" not in told()


async def test_loading_a_model_holds_up_no_call_of_another(triton_server: TritonServer, tmp_path: Path) -> None:
    first, second = python_bundle(), python_bundle(profile=ServingProfile(instances=2))
    backend = TritonHttpBackend(
        triton_server.http_address, open_loader=lambda: TritonBackend(triton_server.grpc_address)
    )
    names = [
        deploy(tmp_path / str(place), write_bundle(made, tmp_path / str(place)), triton_server.model_repository)
        for place, made in enumerate((first, second))
    ]
    try:
        await backend.load(names[0])
        loading = asyncio.create_task(_timed(backend.load(names[1])))
        longest_s = 0.0
        while not loading.done():
            call = backend.infer(names[0], first.signature, first.golden.tensor, timeout_s=30)
            longest_s = max(longest_s, await _timed(call))
        assert longest_s < await loading / 2, "over HTTP, a load takes all calls with it"
        for name in names:
            await backend.unload(name)
    finally:
        await backend.close()


async def _timed(work: Awaitable[object]) -> float:
    """Seconds that it took."""
    started_s = time.perf_counter()
    await work
    return time.perf_counter() - started_s


async def test_a_loading_model_sees_its_golden_rows_before_it_is_ready(
    triton_server: TritonServer, tmp_path: Path
) -> None:
    profile = ServingProfile(warm_up_rows=(1, 64, 7))
    made = python_bundle(profile=profile)
    async with loaded(triton_server, made, tmp_path / "bundle") as (_, name):
        lines = (triton_server.model_repository / name / "1" / "seen.jsonl").read_text().splitlines()
    batches = [np.array(json.loads(line), dtype=np.float32) for line in lines]
    # Once by the model's own rehearsal, and once by Triton.
    assert [len(batch) for batch in batches] == [1, 64, 7, 1, 64, 7]
    for index, batch in enumerate(batches):
        assert (batch == made.golden.tensor[index % 3]).all()


WRONG_ANSWERS: Mapping[str, tuple[bytes, str]] = {
    "another name": (b'{"scores": tensor[:, :2].copy()}', "the model gave outputs \\['scores'\\]"),
    "another type": (b'{"probabilities": tensor[:, :2].astype("f8")}', "the model gave float64"),
    "other columns": (b'{"probabilities": tensor[:, :1].copy()}', "the model gave float32 \\(1, 1\\)"),
    "other rows": (b'{"probabilities": tensor[:0, :2].copy()}', "the model gave float32 \\(0, 2\\)"),
    "an exception": (b"1 / 0", "division by zero"),
}


@pytest.mark.parametrize("wrong", WRONG_ANSWERS)
async def test_a_python_model_that_answers_otherwise_than_its_signature_gives_an_error_and_no_prediction(
    wrong: str, triton_server: TritonServer, tmp_path: Path
) -> None:
    answer, said = WRONG_ANSWERS[wrong]
    module = b"def load(folder):\n    return lambda tensor: " + answer + b"\n"
    made = python_bundle(module, ServingProfile(warm_up_rows=()))
    async with loaded(triton_server, made, tmp_path / "bundle") as (backend, name):
        with pytest.raises(SkewlessError, match=said):
            await backend.infer(name, made.signature, made.golden.tensor[:1], timeout_s=30)


FAILURES: Mapping[str, tuple[bytes, str]] = {
    "while it loads": (b"def load(folder):\n    1 / 0\n", "division by zero"),
    "while it warms up": (b"def load(folder):\n    return lambda tensor: 1 / 0\n", "division by zero"),
    "with its process": (b"def load(folder):\n    return lambda tensor: __import__('os')._exit(3)\n", "not healthy"),
}


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_model_that_fails_while_it_loads_is_refused_and_takes_no_other_down(
    failure: str, triton_server: TritonServer, tmp_path: Path
) -> None:
    module, said = FAILURES[failure]
    made = python_bundle(module)
    with pytest.raises(BundleRefused, match=said):
        async with loaded(triton_server, made, tmp_path / "bundle"):
            pass
    backend = TritonBackend(triton_server.grpc_address)
    await backend.ping()
    await backend.close()


def onnx_of(columns: int, *nodes: onnx.NodeProto, **constants: NDArray[np.generic]) -> onnx.ModelProto:
    """A model from `features` (rows, columns) to `probabilities` (rows, 2)."""
    graph = helper.make_graph(
        nodes,
        "made for a test",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, columns])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


async def test_an_onnx_model_that_fails_to_warm_up_is_refused_and_takes_no_other_down(
    triton_server: TritonServer, tmp_path: Path
) -> None:
    made = content()
    columns = made.signature.input_columns
    one_row_only = onnx_of(
        columns,
        helper.make_node("Reshape", ["features", "one_row"], ["row"]),
        helper.make_node("MatMul", ["row", "weights"], ["probabilities"]),
        one_row=np.array([1, columns]),
        weights=np.ones((columns, 2), dtype=np.float32),
    )
    made = replace(made, model=ModelFiles.onnx(one_row_only.SerializeToString()))
    with pytest.raises(BundleRefused, match="Reshape"):
        async with loaded(triton_server, made, tmp_path / "bundle"):
            pass
    backend = TritonBackend(triton_server.grpc_address)
    await backend.ping()
    await backend.close()


async def test_onnx_reads_its_external_data_where_it_is_deployed(triton_server: TritonServer, tmp_path: Path) -> None:
    made = content()
    weights = np.full((made.signature.input_columns, 2), 2.0**-14, dtype=np.float32)
    whole = onnx_of(
        len(weights), helper.make_node("MatMul", ["features", "weights"], ["probabilities"]), weights=weights
    )
    onnx.save_model(whole, tmp_path / "net.onnx", save_as_external_data=True, location="net.bin", size_threshold=0)
    files = {name: (tmp_path / name).read_bytes() for name in ("net.onnx", "net.bin")}
    made = replace(made, model=ModelFiles(ModelFormat.ONNX, files, "net.onnx"))
    async with loaded(triton_server, made, tmp_path / "bundle") as (backend, name):
        outputs = await backend.infer(name, made.signature, made.golden.tensor, timeout_s=30)
    assert outputs["probabilities"].tobytes() == (made.golden.tensor @ weights).tobytes()


GPU_MODELS = [(target, form) for target in Target if target is not Target.EMBEDDED_CPU for form in BACKENDS[target]]


@pytest.mark.parametrize(("target", "form"), GPU_MODELS)
async def test_a_configuration_for_a_gpu_server_is_one_that_triton_reads(
    target: Target, form: ModelFormat, triton_server: TritonServer
) -> None:
    """This server has neither the backends nor a GPU: it checks a configuration, and then says that they are away."""
    made = content()
    name = f"{target}_{form}"
    model = ModelFiles(form, {"entry.py": b"def load(folder):\n    pass\n"}, "entry.py")
    profile = ServingProfile(queue=QueuePolicy(5_000, requests_max=64), max_queue_delay_us=100, instances=2)
    files = triton_files(name, model, made.signature, profile, made.golden.tensor, target)
    for path, data in files.items():
        file = triton_server.model_repository / name / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    backend = TritonBackend(triton_server.grpc_address)
    away = "no GPUs are available" if form is ModelFormat.PYTHON else "unable to find backend library for backend"
    with pytest.raises(BundleRefused, match=away):
        await backend.load(name)
    await backend.close()
