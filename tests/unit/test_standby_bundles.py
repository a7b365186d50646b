"""Bundles whose models are kept ready in the gateway: in service without a server, and gone when nobody needs them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from harness.fakes import FakeModelBackend
from harness.ladders import ladder_content, outputs_of, storeless_content, written
from harness.polling import until
from skewless.bundles.bundle import Bundle
from skewless.bundles.degrade_ladder import DegradeLadder
from skewless.bundles.model_files import ModelFiles, ModelFormat
from skewless.bundles.model_repository import model_name
from skewless.bundles.serving_profile import Place, ServingProfile, Target
from skewless.canonical_json import Digest, digest
from skewless.errors import BundleRefused, NotFound, Unavailable
from skewless.serving.in_process import InProcessBackend, Run
from skewless.serving.ports import ModelBackend
from skewless.stack.ports import free_ports
from skewless_gateway.degraded_parts import model_backend_state
from skewless_gateway.loaded_bundles import LoadedBundles
from skewless_gateway.model_servers import ModelServers

AWAY = Unavailable("model backend", "gone")


@dataclass
class Places:
    """Servers that can be away, and this process; remembers what was forgotten."""

    bundles: dict[Digest, Bundle] = field(default_factory=dict)
    servers: FakeModelBackend = field(default_factory=lambda: FakeModelBackend({}))
    forgotten: list[str] = field(default_factory=list)
    in_process: InProcessBackend = field(init=False)
    stands_in: bool = True

    def __post_init__(self) -> None:
        self.in_process = InProcessBackend(self._opened)

    @property
    def here(self) -> ModelBackend:
        return self.in_process

    @property
    def standby(self) -> ModelBackend | None:
        return self.in_process if self.stands_in else None

    def take(self, bundle: Bundle) -> None:
        self.servers.repository[model_name(bundle.digest)] = lambda tensor: dict(outputs_of(bundle)(tensor))

    async def forget(self, model: str) -> None:
        self.forgotten.append(model)
        await self.in_process.unload(model)

    def keep(self, bundle: Bundle) -> Bundle:
        self.bundles[bundle.digest] = bundle
        return bundle

    def load(self, wanted: Digest) -> Bundle:
        if wanted not in self.bundles:
            raise NotFound("bundle", wanted)
        return self.bundles[wanted]

    def _opened(self, model: str) -> Run:
        found = next(each for each in self.bundles.values() if model_name(each.digest) == model)
        if found.model.format is not ModelFormat.ONNX:
            raise BundleRefused(f"the model of bundle {found.digest[:12]} is {found.model.format}")
        return outputs_of(found)


@asynccontextmanager
async def loading(places: Places) -> AsyncIterator[LoadedBundles]:
    loaded = LoadedBundles(places.load, places.servers, hash_sizes=lambda _project: {}, places=places)
    try:
        yield loaded
    finally:
        await loaded.close()
        await places.in_process.close()


async def test_a_bundle_that_stands_by_is_in_service_without_a_server_and_loaded_there_once_it_is_back(
    tmp_path: Path,
) -> None:
    places = Places()
    bundle = places.keep(written(ladder_content(DegradeLadder()), tmp_path))
    places.servers.failure = AWAY
    async with loading(places) as bundles:
        loaded = await bundles.ready(bundle.digest)
        assert loaded.served.stands_by
        assert loaded.served.goes_on_without_servers
        assert await bundles.ready(bundle.digest) is loaded
        assert await model_backend_state(places.servers, {"e": loaded.served}) == (
            True,
            "every endpoint answers on a lower rung: model backend is unavailable: gone",
        )
        assert not places.servers.loaded
        places.servers.failure = None
        assert await bundles.ready(bundle.digest) is loaded
        assert places.servers.loaded == {loaded.served.model}


@pytest.mark.parametrize("forbidden_by", ["the bundle", "the gateway's setting", "the model's format"])
async def test_without_a_standby_a_bundle_waits_for_its_servers(tmp_path: Path, forbidden_by: str) -> None:
    made = ladder_content(DegradeLadder(in_process=forbidden_by != "the bundle"))
    if forbidden_by == "the model's format":
        source = b"def load(folder):\n    return None\n"
        made = replace(made, model=ModelFiles(ModelFormat.PYTHON, {"model.py": source}, "model.py"))
    places = Places(stands_in=forbidden_by != "the gateway's setting")
    bundle = places.keep(written(made, tmp_path))
    places.servers.failure = AWAY
    async with loading(places) as bundles:
        with pytest.raises(Unavailable, match="gone"):
            await bundles.ready(bundle.digest)
        assert bundles.get(bundle.digest) is None
        assert not places.in_process.models


async def test_the_fallback_bundle_is_ready_here_beside_the_bundle_that_names_it(tmp_path: Path) -> None:
    places = Places()
    cheap = places.keep(written(storeless_content(), tmp_path))
    bundle = places.keep(written(ladder_content(DegradeLadder(in_process=False, fallback=cheap.digest)), tmp_path))
    async with loading(places) as bundles:
        served = (await bundles.ready(bundle.digest)).served
        assert served.fallback is not None
        assert served.fallback.digest == cheap.digest
        assert places.in_process.models == {model_name(cheap.digest)}
        assert bundles.fallbacks == {cheap.digest}
        assert served.goes_on_without_store


@pytest.mark.parametrize("wrong", ["nobody keeps it", "callers do not send what it asks", "its model is not ONNX"])
async def test_a_fallback_that_cannot_stand_in_is_left_away_and_the_bundle_serves(tmp_path: Path, wrong: str) -> None:
    places = Places()
    live, made = ladder_content(DegradeLadder()), storeless_content()
    if wrong == "callers do not send what it asks":
        live, made = made, live
    if wrong == "its model is not ONNX":
        source = b"def load(folder):\n    return None\n"
        made = replace(made, model=ModelFiles(ModelFormat.PYTHON, {"model.py": source}, "model.py"))
    fallback = digest("nobody") if wrong == "nobody keeps it" else places.keep(written(made, tmp_path)).digest
    named = ServingProfile(degrade=DegradeLadder(fallback=fallback))
    bundle = places.keep(written(replace(live, serving=named), tmp_path))
    async with loading(places) as bundles:
        served = (await bundles.ready(bundle.digest)).served
        assert served.fallback is None
        assert bundles.fallbacks == frozenset()
        assert served.stands_by


async def test_what_no_route_names_any_more_goes_from_this_process_with_its_fallback(tmp_path: Path) -> None:
    places = Places()
    cheap = places.keep(written(storeless_content(), tmp_path))
    bundle = places.keep(written(ladder_content(DegradeLadder(fallback=cheap.digest)), tmp_path))
    async with loading(places) as bundles:
        await bundles.ready(bundle.digest)
        assert places.in_process.models == {model_name(cheap.digest), model_name(bundle.digest)}
        bundles.keep_only(frozenset({bundle.digest}))
        await asyncio.sleep(0)
        assert not places.forgotten
        bundles.keep_only(frozenset())
        await until(lambda: not places.in_process.models)
        assert set(places.forgotten) == {model_name(cheap.digest), model_name(bundle.digest)}
        assert model_name(bundle.digest) in places.servers.loaded, "servers keep it, for other gateways"


async def test_a_bundle_that_wants_to_run_in_the_gateway_asks_no_server(tmp_path: Path) -> None:
    made = replace(ladder_content(DegradeLadder()), serving=ServingProfile(place=Place.GATEWAY))
    bundle = written(made, tmp_path)
    (port,) = free_ports(1)
    servers = ModelServers(
        f"127.0.0.1:{port}",
        target=Target.EMBEDDED_CPU,
        bundle_of={model_name(bundle.digest): bundle}.__getitem__,
        on_call=lambda _model, _requests, _rows: None,
    )
    bundles = LoadedBundles(lambda _digest: bundle, servers.backend, hash_sizes=lambda _project: {}, places=servers)
    served = (await bundles.ready(bundle.digest)).served
    assert served.runs_here
    assert not served.stands_by, "there is no server to stand in for"
    outputs = await servers.backend.infer(served.model, served.signature, bundle.golden.tensor, timeout_s=30)
    assert outputs["probabilities"].tobytes() == bundle.golden.outputs["probabilities"].tobytes()
    assert (await model_backend_state(servers.backend, {"e": served}))[0], "no server is needed"
    bundles.keep_only(frozenset())
    await until(lambda: not servers.in_process.models)
    await bundles.close()
    await servers.backend.close()
