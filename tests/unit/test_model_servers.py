"""Which model servers a setting names, how they are reached, and models in the gateway itself."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.bundles import content
from skewless.adapters.triton_backend import TritonBackend
from skewless.adapters.triton_http_backend import TritonHttpBackend
from skewless.bundles.bundle import Bundle, load_bundle, write_bundle
from skewless.bundles.model_files import ModelFiles, ModelFormat
from skewless.bundles.model_repository import model_name
from skewless.bundles.serving_profile import QueuePolicy, ServingProfile, Target
from skewless.canonical_json import Digest
from skewless.errors import BundleRefused, InvalidSettings
from skewless.serving.served_bundle import admit_model, prepare_bundle
from skewless_gateway.model_servers import IN_PROCESS, ModelServers, _opened


def nothing(model: str) -> Bundle:
    raise BundleRefused(f"no model `{model}` is kept here")


def servers(listed: str, bundle_of: Callable[[str], Bundle] = nothing) -> ModelServers:
    return ModelServers(
        listed, target=Target.EMBEDDED_CPU, bundle_of=bundle_of, on_call=lambda _model, _requests, _rows: None
    )


async def test_each_address_is_reached_by_its_scheme() -> None:
    kinds = {
        "127.0.0.1:8001": TritonBackend,
        "grpc://triton:8001": TritonBackend,
        "shm://127.0.0.1:8001": TritonBackend,
        "http://triton:8000": TritonHttpBackend,
        "https://triton:8000/": TritonHttpBackend,
        "http://triton:8000?grpc=triton:8001": TritonHttpBackend,
    }
    for address, kind in kinds.items():
        opened = _opened(address)
        assert type(opened) is kind
        await opened.close()


@pytest.mark.parametrize(
    "address",
    [
        *("triton", "triton:", "triton:nine", "redis://triton:1", "http://:8000", "grpc://triton:8001/v2", ":80"),
        *("grpc://triton:8001?grpc=triton:8001", "http://triton:8000?grpc=", "http://triton:8000?load=triton:8001"),
    ],
)
async def test_another_form_is_refused_with_what_is_allowed(address: str) -> None:
    with pytest.raises(InvalidSettings, match=r"host:port.*shm://.*in-process"):
        servers(address)


async def test_no_address_at_all_is_refused() -> None:
    with pytest.raises(InvalidSettings, match="names no model server"):
        servers(" , ")


async def test_several_addresses_are_one_backend_and_named_twice_is_once() -> None:
    several = servers("127.0.0.1:1, http://127.0.0.1:2, 127.0.0.1:1")
    assert several.pool is not None
    assert [each.name for each in several.pool.states()] == ["127.0.0.1:1", "http://127.0.0.1:2"]
    assert not await several.backend.is_ready("any")
    await several.backend.close()


async def test_models_in_the_gateway_are_no_replica_of_servers() -> None:
    with pytest.raises(InvalidSettings, match="names `in-process` beside servers"):
        servers(f"127.0.0.1:1, {IN_PROCESS}")


@pytest.mark.parametrize(("target", "told"), [(Target.GPU_ONNXRUNTIME, True), (Target.EMBEDDED_CPU, False)])
async def test_queues_are_told_how_long_a_call_may_wait_where_the_bundle_says_so_and_not_on_the_embedded_target(
    tmp_path: Path, target: Target, told: bool
) -> None:
    made = replace(content(), serving=ServingProfile(queue=QueuePolicy(allow_override=True)))
    plain = load_bundle(tmp_path / "plain", write_bundle(content(), tmp_path / "plain"))
    bundle = load_bundle(tmp_path / "queued", write_bundle(made, tmp_path / "queued"))
    there = ModelServers("127.0.0.1:1", target=target, bundle_of=nothing, on_call=lambda _model, _requests, _rows: None)
    for each in (plain, bundle):
        there.take(each)
    assert there._queue_timeouts == ({model_name(bundle.digest)} if told else set())
    await there.forget(model_name(bundle.digest))
    assert not there._queue_timeouts
    await there.backend.close()


async def test_a_gateway_runs_a_bundles_model_itself_and_reproduces_its_golden_outputs(tmp_path: Path) -> None:
    digest = write_bundle(content(), tmp_path)
    bundle = load_bundle(tmp_path, digest)
    served = prepare_bundle(bundle, model_name(digest))
    here = servers(IN_PROCESS, {served.model: bundle}.__getitem__)
    await admit_model(served, bundle.golden, here.backend)
    for rows in (1, 700):
        tensor = np.resize(bundle.golden.tensor, (rows, bundle.signature.input_columns))
        outputs = await here.backend.infer(served.model, bundle.signature, tensor, timeout_s=30)
        for name, expected in bundle.golden.outputs.items():
            assert outputs[name].tobytes() == np.resize(expected, outputs[name].shape).tobytes()
    await here.backend.close()


async def test_what_a_gateway_cannot_run_itself_is_refused_with_what_can(tmp_path: Path) -> None:
    given = content()
    source = ModelFiles(ModelFormat.PYTHON, {"model.py": b"def load(folder):\n    return None\n"}, "model.py")
    bundle = load_bundle(tmp_path, Digest(write_bundle(replace(given, model=source), tmp_path)))
    here = servers(IN_PROCESS, lambda _model: bundle)
    with pytest.raises(BundleRefused, match="is python; a gateway runs onnx only"):
        await here.backend.load("any")
    await here.backend.close()
