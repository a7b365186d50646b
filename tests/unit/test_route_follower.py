"""How the gateway takes routes into service: what is loaded when, what is kept, and what if parts are away."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.bundles import BuiltBundle, build_bundle
from harness.fakes import FakeModelBackend
from harness.gateways import ENDPOINT, FakeRegistry, route_to
from skewless.adapters.folder_artifact_store import FolderArtifactStore
from skewless.bundles.bundle import Bundle, load_bundle
from skewless.bundles.model_repository import model_name
from skewless.canonical_json import Digest
from skewless.errors import BundleRefused, NotFound, Unavailable
from skewless.rollout.routes import Canary, Route, RoutingTable, Shadow
from skewless_gateway.bundle_copies import BundleCopies
from skewless_gateway.loaded_bundles import LoadedBundles
from skewless_gateway.route_follower import RouteFollower
from skewless_gateway.routes_copy import RoutesCopy

POLL_S = 0.2
PATIENCE_S = 80.0


@dataclass
class Followed:
    """A follower over a real artifact folder, and the parts that a test may break."""

    folder: Path
    registry: FakeRegistry
    backend: FakeModelBackend = field(default_factory=lambda: FakeModelBackend({}))
    held: dict[Digest, threading.Event] = field(default_factory=dict)
    """Bundles whose loading waits for an event."""
    loads: list[Digest] = field(default_factory=list)

    @property
    def artifacts(self) -> Path:
        return self.folder / "artifacts"

    @property
    def copies(self) -> FolderArtifactStore:
        return FolderArtifactStore(self.folder / "bundles")

    def built(self, number: int) -> BuiltBundle:
        made = build_bundle(self.artifacts, scale=2.0 ** -(12 + number))
        self.backend.repository[model_name(made.digest)] = made.outputs
        return made

    def load(self, folder: Path, digest: Digest) -> Bundle:
        self.loads.append(digest)
        if digest in self.held:
            assert self.held[digest].wait(PATIENCE_S), "the test let it go"
        return load_bundle(folder, digest)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[RouteFollower]:
        copies = BundleCopies(self.copies, FolderArtifactStore(self.artifacts), self.load)
        bundles = LoadedBundles(copies.load, self.backend, hash_sizes=lambda _project: {})
        follower = RouteFollower(
            self.registry.routes, bundles, poll_s=POLL_S, copy=RoutesCopy(self.folder), keep_only=copies.keep_only
        )
        task = asyncio.create_task(follower.run())
        try:
            yield follower
        finally:
            for event in self.held.values():
                event.set()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def route(self, route: Route) -> None:
        others = tuple(each for each in self.registry.table.routes if each.endpoint != route.endpoint)
        self.registry.table = RoutingTable((*others, route))


@pytest.fixture
def followed(tmp_path: Path) -> Followed:
    (tmp_path / "artifacts").mkdir()
    return Followed(tmp_path, FakeRegistry(RoutingTable()))


async def until(condition: Callable[[], bool], what: str) -> None:
    """Return once the condition holds; fail past the deadline."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():  # noqa: ASYNC110  # what is waited for is no event
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not in time: {what}") from None


def live(follower: RouteFollower, name: str = ENDPOINT) -> Digest | None:
    endpoint = follower.state.endpoints.get(name)
    return None if endpoint is None else endpoint.served.digest


async def test_a_bundle_is_warmed_up_with_its_usual_batch_sizes_before_it_answers(followed: Followed) -> None:
    first = followed.built(0)
    sizes: list[int] = []
    outputs = followed.backend.repository[model_name(first.digest)]

    def measured(tensor: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        sizes.append(len(tensor))
        return outputs(tensor)

    followed.backend.repository[model_name(first.digest)] = measured
    followed.route(route_to(first))
    async with followed.running() as follower:
        await until(lambda: live(follower) == first.digest, "it answers")
        assert sizes[1:] == list(first.bundle.serving.warm_up_rows), "after the golden rows"


async def test_a_slow_load_delays_neither_other_endpoints_nor_a_rollback(followed: Followed) -> None:
    first, slow, other = followed.built(0), followed.built(1), followed.built(2)
    followed.route(route_to(first))
    async with followed.running() as follower:
        await until(lambda: live(follower) == first.digest, "the first answers")
        followed.held[slow.digest] = threading.Event()
        followed.route(replace(route_to(slow), previous=first.digest, version=2))
        await until(lambda: slow.digest in followed.loads, "the slow one is being loaded")
        followed.route(route_to(other, endpoint="other"))
        await until(lambda: live(follower, "other") == other.digest, "another endpoint comes into service meanwhile")
        followed.route(replace(route_to(first), version=3))
        await until(lambda: follower.endpoint(ENDPOINT).route.version == 3, "the rollback is served meanwhile")
        assert not followed.held[slow.digest].is_set()


async def test_what_a_rollback_needs_stays_in_memory(followed: Followed) -> None:
    first, second = followed.built(0), followed.built(1)
    followed.route(route_to(first))
    async with followed.running() as follower:
        await until(lambda: live(follower) == first.digest, "the first answers")
        followed.route(replace(route_to(second), previous=first.digest, version=2))
        await until(lambda: live(follower) == second.digest, "the second answers")
        followed.loads.clear()
        followed.route(replace(route_to(first), version=3))
        await until(lambda: live(follower) == first.digest, "the first answers again")
        assert followed.loads == []


async def test_live_is_swapped_in_before_a_slow_candidate(followed: Followed) -> None:
    first, second, slow = followed.built(0), followed.built(1), followed.built(2)
    followed.route(route_to(first))
    async with followed.running() as follower:
        await until(lambda: live(follower) == first.digest, "the first answers")
        followed.held[slow.digest] = threading.Event()
        followed.route(replace(route_to(second), canary=Canary(slow.digest, 0.5), version=2))
        await until(lambda: live(follower) == second.digest, "the new live bundle answers")
        assert follower.endpoint(ENDPOINT).serving.candidates == {}
        followed.held[slow.digest].set()
        await until(lambda: slow.digest in follower.endpoint(ENDPOINT).serving.candidates, "the canary answers too")


async def test_bundles_that_read_the_same_share_one_plan(followed: Followed) -> None:
    first, second, third = followed.built(0), followed.built(1), followed.built(2)
    followed.route(replace(route_to(first), canary=Canary(second.digest, 0.5), shadow=Shadow(third.digest)))
    async with followed.running() as follower:
        await until(lambda: ENDPOINT in follower.state.endpoints, "it answers")
        await until(lambda: len(follower.endpoint(ENDPOINT).serving.bundles) == 3, "all are in service")
        assert len({id(each.plan) for each in follower.endpoint(ENDPOINT).serving.bundles.values()}) == 1


async def test_a_candidate_that_is_refused_leaves_its_rows_to_live_and_is_tried_again(followed: Followed) -> None:
    first, second = followed.built(0), followed.built(1)
    del followed.backend.repository[model_name(second.digest)]
    followed.route(replace(route_to(first), canary=Canary(second.digest, 1.0)))
    async with followed.running() as follower:
        await until(lambda: second.digest[:12] in follower.state.failures.get(ENDPOINT, ""), "the refusal is told")
        assert follower.endpoint(ENDPOINT).serving.candidates == {}
        followed.backend.repository[model_name(second.digest)] = second.outputs
        await until(lambda: second.digest in follower.endpoint(ENDPOINT).serving.candidates, "it comes into service")
        assert follower.state.failures == {}


async def test_a_restart_serves_from_its_own_copies_while_registry_and_artifacts_are_away(followed: Followed) -> None:
    first, second = followed.built(0), followed.built(1)
    followed.route(replace(route_to(first), canary=Canary(second.digest, 0.5)))
    async with followed.running() as follower:
        await until(lambda: set(followed.copies.digests()) == {first.digest, second.digest}, "both are copied")
        await until(lambda: (followed.folder / "routes.json").exists(), "the routes are copied")
        assert follower.state.failures == {}
    followed.artifacts.rename(followed.folder / "elsewhere")
    followed.registry.failure = Unavailable("registry database", "gone")
    async with followed.running() as follower:
        await until(lambda: live(follower) == first.digest, "it answers from its copies")
        await until(lambda: second.digest in follower.endpoint(ENDPOINT).serving.candidates, "the canary too")
        assert "gone" in follower.state.registry_error


async def test_a_torn_copy_is_fetched_anew_and_refused_where_it_cannot_be(followed: Followed) -> None:
    first = followed.built(0)
    followed.route(route_to(first))
    async with followed.running() as follower:
        await until(lambda: live(follower) == first.digest, "it answers")
    torn = followed.folder / "bundles" / first.digest / "golden.json"
    torn.write_bytes(torn.read_bytes()[:-10])
    async with followed.running() as follower:
        await until(lambda: live(follower) == first.digest, "it answers after the copy was fetched anew")
    torn.write_bytes(torn.read_bytes()[:-10])
    followed.artifacts.rename(followed.folder / "elsewhere")
    async with followed.running() as follower:
        await until(lambda: ENDPOINT in follower.state.failures, "nothing unverified serves")
        assert live(follower) is None
        with pytest.raises(Unavailable):
            follower.endpoint(ENDPOINT)


async def test_the_copy_of_the_routes_never_names_a_bundle_that_was_not_in_service(followed: Followed) -> None:
    first, slow = followed.built(0), followed.built(1)
    followed.route(route_to(first))
    async with followed.running() as follower:
        await until(lambda: RoutesCopy(followed.folder).load() == followed.registry.table, "the routes are copied")
        followed.held[slow.digest] = threading.Event()
        before = followed.registry.table
        followed.route(replace(route_to(slow), previous=first.digest, version=2))
        await until(lambda: slow.digest in followed.loads, "the next one is being loaded")
        followed.route(route_to(first, endpoint="other"))
        await until(lambda: live(follower, "other") == first.digest, "a look was completed meanwhile")
        await until(lambda: len((RoutesCopy(followed.folder).load() or before).routes) == 2, "and copied")
        kept = RoutesCopy(followed.folder).load()
        assert kept is not None
        assert kept.route(ENDPOINT) == before.route(ENDPOINT)


async def test_a_start_that_finds_no_bundle_yet_does_not_forget_the_copy(followed: Followed) -> None:
    first = followed.built(0)
    followed.route(route_to(first))
    async with followed.running() as follower:
        await until(lambda: RoutesCopy(followed.folder).load() == followed.registry.table, "the routes are copied")
    followed.backend.failure = Unavailable("model backend", "gone")
    async with followed.running() as follower:
        await until(lambda: ENDPOINT in follower.state.failures, "it cannot serve yet")
        assert RoutesCopy(followed.folder).load() == followed.registry.table
        assert followed.copies.digests() == (first.digest,)


async def test_copies_that_no_route_names_are_deleted(followed: Followed) -> None:
    first, second = followed.built(0), followed.built(1)
    followed.route(route_to(first))
    async with followed.running() as follower:
        await until(lambda: live(follower) == first.digest, "the first answers")
        followed.route(replace(route_to(second), previous=first.digest, version=2))
        await until(lambda: set(followed.copies.digests()) == {first.digest, second.digest}, "both are kept")
        followed.route(replace(route_to(second), version=3))
        await until(lambda: followed.copies.digests() == (second.digest,), "only what is routed is kept")


async def test_unknown_endpoints_are_told_from_those_that_are_loading(followed: Followed) -> None:
    first = followed.built(0)
    followed.held[first.digest] = threading.Event()
    followed.route(route_to(first))
    async with followed.running() as follower:
        await until(lambda: follower.state.table is not None, "the routes are read")
        with pytest.raises(Unavailable, match="being loaded"):
            follower.endpoint(ENDPOINT)
        with pytest.raises(NotFound):
            follower.endpoint("other")


async def test_a_refused_bundle_is_not_read_again_at_every_look(followed: Followed) -> None:
    wrong = build_bundle(followed.artifacts, wrong_golden=True)
    followed.backend.repository[model_name(wrong.digest)] = wrong.outputs
    moments = [0.0]
    bundles = LoadedBundles(
        lambda digest: followed.load(followed.artifacts / digest, digest),
        followed.backend,
        hash_sizes=lambda _project: {},
        clock=lambda: moments[0],
    )
    for moment, calls in ((0.0, 1), (0.5, 1), (1.5, 2), (3.0, 2), (4.0, 3)):
        moments[0] = moment
        with pytest.raises(BundleRefused):
            await bundles.ready(wrong.digest)
        assert len(followed.loads) == calls


async def test_it_has_started_once_every_first_bundle_was_loaded_or_refused_and_stays_so(followed: Followed) -> None:
    first, slow, later = followed.built(0), followed.built(1), followed.built(2)
    followed.held[slow.digest], followed.held[later.digest] = threading.Event(), threading.Event()
    followed.route(route_to(first))
    followed.route(route_to(slow, endpoint="other"))
    async with followed.running() as follower:
        await until(lambda: live(follower) == first.digest, "the quick one answers")
        assert not follower.state.has_started
        assert follower.state.loading == ("other",)
        followed.held[slow.digest].set()
        await until(lambda: follower.state.has_started, "the slow one answers too")
        followed.route(route_to(later, endpoint="third"))
        await until(lambda: follower.state.loading == ("third",), "an endpoint that is added is being loaded")
        assert follower.state.has_started, "the gateway stays ready for its other endpoints"
