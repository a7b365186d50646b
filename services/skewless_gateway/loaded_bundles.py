"""Bundles in memory, each verified, its model loaded at the backend, checked by its golden vectors and warmed up."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from skewless.bundles.bundle import Bundle
from skewless.bundles.golden import GoldenVectors
from skewless.bundles.model_repository import model_name
from skewless.bundles.serving_profile import Target
from skewless.canonical_json import Digest
from skewless.errors import BundleRefused, SkewlessError
from skewless.features.contract import FeatureContract
from skewless.features.plan import ReadPlan
from skewless.limits import BUNDLE_LOADS_MAX
from skewless.serving.ports import ModelBackend
from skewless.serving.served_bundle import ServedBundle, admit_model, prepare_bundle

_PAUSE_FIRST_S = 1.0
_PAUSE_MAX_S = 15.0
"""A bundle that was refused is tried again after a pause that doubles: someone may deploy its model meanwhile."""


@dataclass(frozen=True, slots=True)
class LoadedBundle:
    """A bundle that is ready to answer."""

    served: ServedBundle
    golden: GoldenVectors
    contract: FeatureContract


@dataclass(slots=True)
class _Refusal:
    error: BundleRefused
    pause_s: float
    again_at_s: float


class LoadedBundles:
    """Loads each bundle once, however many endpoints and roles ask for it. Belongs to one event loop."""

    def __init__(
        self,
        load_bundle: Callable[[Digest], Bundle],
        backend: ModelBackend,
        *,
        hash_sizes: Callable[[str], Mapping[tuple[str, ...], int]],
        target: Target = Target.EMBEDDED_CPU,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`hash_sizes` says how large a Feast project's entity hashes are, for the plans of bundles loaded then."""
        self._load_bundle = load_bundle
        self._backend = backend
        self._hash_sizes = hash_sizes
        self._target = target
        self._clock = clock
        self._loaded: dict[Digest, LoadedBundle] = {}
        self._loading: dict[Digest, asyncio.Task[LoadedBundle]] = {}
        self._refusals: dict[Digest, _Refusal] = {}
        self._plans: dict[object, ReadPlan] = {}
        self._turns = asyncio.Semaphore(BUNDLE_LOADS_MAX)

    @property
    def digests(self) -> frozenset[Digest]:
        """Of the bundles in memory."""
        return frozenset(self._loaded)

    def get(self, digest: Digest) -> LoadedBundle | None:
        """The bundle, where it is in memory and was ready when it was last looked at."""
        return self._loaded.get(digest)

    async def ready(self, digest: Digest) -> LoadedBundle:
        """The bundle, once it can answer; at once where it could a moment ago and the backend still has its model.

        Raises BundleRefused, NotFound, InvalidDefinition or Unavailable. Whoever gives up waiting stops no load.
        """
        loaded = self._loaded.get(digest)
        if loaded is not None:
            if await self._backend.is_ready(loaded.served.model):
                return loaded
            await self._backend.ping()
        refusal = self._refusals.get(digest)
        if refusal is not None and self._clock() < refusal.again_at_s:
            raise refusal.error
        task = self._loading.get(digest)
        if task is None:
            task = self._loading[digest] = asyncio.create_task(self._admit(digest))
            task.add_done_callback(lambda done: self._finished(digest, done))
        return await asyncio.shield(task)

    def keep_only(self, digests: frozenset[Digest]) -> None:
        """Forget all other bundles. Their models stay at the backend, for other gateways."""
        self._loaded = {digest: each for digest, each in self._loaded.items() if digest in digests}
        self._refusals = {digest: each for digest, each in self._refusals.items() if digest in digests}
        kept = {_reads(each.contract) for each in self._loaded.values()}
        self._plans = {reads: plan for reads, plan in self._plans.items() if reads in kept}

    async def close(self) -> None:
        """Give up what is being loaded."""
        tasks = list(self._loading.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _admit(self, digest: Digest) -> LoadedBundle:
        async with self._turns:
            loaded = self._loaded.get(digest)
            if loaded is None:
                loaded = await asyncio.to_thread(self._load, digest)
        await admit_model(loaded.served, loaded.golden, self._backend)
        self._loaded[digest] = loaded
        return loaded

    def _load(self, digest: Digest) -> LoadedBundle:
        bundle = self._load_bundle(digest)
        contract = bundle.contract
        served = prepare_bundle(
            bundle,
            model_name(digest),
            self._hash_sizes(contract.project),
            target=self._target,
            plan=self._plans.get(_reads(contract)),
        )
        # Two loads at once may each make a plan; which of them stays is then one and the same for all later ones.
        self._plans.setdefault(_reads(contract), served.plan)
        return LoadedBundle(served, bundle.golden, contract)

    def _finished(self, digest: Digest, done: "asyncio.Task[LoadedBundle]") -> None:
        del self._loading[digest]
        error = None if done.cancelled() else done.exception()
        if isinstance(error, BundleRefused):
            before = self._refusals.get(digest)
            pause_s = min(before.pause_s * 2, _PAUSE_MAX_S) if before is not None else _PAUSE_FIRST_S
            self._refusals[digest] = _Refusal(error, pause_s, self._clock() + pause_s)
        elif not isinstance(error, SkewlessError):
            self._refusals.pop(digest, None)


def _reads(contract: FeatureContract) -> object:
    """What a read plan is made of: bundles that agree in it share one."""
    return contract.project, contract.views
