"""Bundles in memory, each verified, its model loaded at the backend, checked by its golden vectors and warmed up.

Where the servers may be stood in for, the model is kept ready in this process too, and has given the golden outputs
here; so is that of the bundle that a bundle's degrade ladder falls back to. A bundle that is ready here is in service
also while no server is.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from skewless.bundles.bundle import Bundle
from skewless.bundles.golden import GoldenVectors
from skewless.bundles.model_repository import model_name
from skewless.bundles.serving_profile import Target
from skewless.canonical_json import Digest
from skewless.errors import BundleRefused, SkewlessError, Unavailable
from skewless.features.contract import FeatureContract, LogMark
from skewless.features.plan import ReadPlan
from skewless.limits import BUNDLE_LOADS_MAX
from skewless.serving.instance_fit import misfits
from skewless.serving.log_privacy import log_marks
from skewless.serving.ports import ModelBackend
from skewless.serving.served_bundle import ServedBundle, admit_model, prepare_bundle, reproduce

_PAUSE_FIRST_S = 1.0
_PAUSE_MAX_S = 15.0
"""A bundle that was refused is tried again after a pause that doubles: someone may deploy its model meanwhile."""


_LOGGER = logging.getLogger(__name__)


class ModelPlaces(Protocol):
    """Where models run besides the backend: see `model_servers.py`."""

    @property
    def here(self) -> ModelBackend:
        """Runs models in this process."""
        ...

    @property
    def standby(self) -> ModelBackend | None:
        """`here`, where it stands in for servers; None where there are none, or it is not to."""
        ...

    def take(self, bundle: Bundle) -> None:
        """Know a bundle and where its model runs, before the model is loaded."""
        ...

    async def forget(self, model: str) -> None:
        """A bundle is not needed any more."""
        ...


@dataclass(frozen=True, slots=True)
class LoadedBundle:
    """A bundle that is ready to answer."""

    served: ServedBundle
    golden: GoldenVectors
    contract: FeatureContract
    fallback: "LoadedBundle | None" = None
    """The bundle that stands in for it, where that is at hand."""


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
        places: ModelPlaces | None = None,
        can_hash: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`hash_sizes` says how large a Feast project's entity hashes are, for the plans of bundles loaded then.

        Without `places` models run at the backend and nowhere else. Unless it `can_hash`, bundles are refused of which
        the log must keep hashes.
        """
        self._load_bundle = load_bundle
        self._backend = backend
        self._hash_sizes = hash_sizes
        self._target = target
        self._places = places
        self._can_hash = can_hash
        self._clock = clock
        self._loaded: dict[Digest, LoadedBundle] = {}
        self._loading: dict[Digest, asyncio.Task[LoadedBundle]] = {}
        self._refusals: dict[Digest, _Refusal] = {}
        self._plans: dict[object, ReadPlan] = {}
        self._turns = asyncio.Semaphore(BUNDLE_LOADS_MAX)
        self._forgetting: set[asyncio.Task[None]] = set()

    @property
    def digests(self) -> frozenset[Digest]:
        """Of the bundles in memory."""
        return frozenset(self._loaded)

    @property
    def fallbacks(self) -> frozenset[Digest]:
        """Of the bundles that bundles in memory fall back to."""
        return frozenset(each.fallback.served.digest for each in self._loaded.values() if each.fallback is not None)

    def get(self, digest: Digest) -> LoadedBundle | None:
        """The bundle, where it is in memory and was ready when it was last looked at."""
        return self._loaded.get(digest)

    async def ready(self, digest: Digest) -> LoadedBundle:
        """The bundle, once it can answer; at once where it could a moment ago and the backend still has its model, or
        is away while the model is ready in this process.

        Raises BundleRefused, NotFound, InvalidDefinition or Unavailable. Whoever gives up waiting stops no load.
        """
        loaded = self._loaded.get(digest)
        if loaded is not None:
            if await self._backend.is_ready(loaded.served.model):
                return loaded
            try:
                await self._backend.ping()
            except Unavailable:
                if loaded.served.stands_by:
                    return loaded
                raise
        refusal = self._refusals.get(digest)
        if refusal is not None and self._clock() < refusal.again_at_s:
            raise refusal.error
        task = self._loading.get(digest)
        if task is None:
            task = self._loading[digest] = asyncio.create_task(self._admit(digest))
            task.add_done_callback(lambda done: self._finished(digest, done))
        return await asyncio.shield(task)

    def keep_only(self, digests: frozenset[Digest]) -> None:
        """Forget all other bundles. Their models stay at the backend, for other gateways, and go from this process."""
        before = self._models()
        self._loaded = {digest: each for digest, each in self._loaded.items() if digest in digests}
        self._refusals = {digest: each for digest, each in self._refusals.items() if digest in digests}
        kept = {_reads(each.contract) for each in self._loaded.values()}
        self._plans = {reads: plan for reads, plan in self._plans.items() if reads in kept}
        if self._places is not None:
            for model in before - self._models():
                task = asyncio.create_task(self._places.forget(model))
                self._forgetting.add(task)
                task.add_done_callback(self._forgetting.discard)

    async def close(self) -> None:
        """Give up what is being loaded."""
        tasks = [*self._loading.values(), *self._forgetting]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _models(self) -> frozenset[str]:
        """Of the bundles in memory, and of those that they fall back to."""
        loaded = [*self._loaded.values(), *(each.fallback for each in self._loaded.values())]
        return frozenset(each.served.model for each in loaded if each is not None)

    async def _admit(self, digest: Digest) -> LoadedBundle:
        async with self._turns:
            loaded = self._loaded.get(digest)
            if loaded is None:
                loaded = await asyncio.to_thread(self._load, digest)
                loaded = await self._stood_by(loaded)
        try:
            await admit_model(loaded.served, loaded.golden, self._backend)
        except Unavailable as error:
            if not loaded.served.stands_by:
                raise
            _LOGGER.warning("bundle %s answers from this process until a server has it: %s", digest[:12], error.message)
        self._loaded[digest] = loaded
        return loaded

    async def _stood_by(self, loaded: LoadedBundle) -> LoadedBundle:
        """The bundle with what stands in for its servers, and for itself, ready in this process."""
        served = loaded.served
        if self._places is None:
            return loaded
        stands_by = False
        if self._places.standby is not None and served.degrade.in_process and not served.runs_here:
            stands_by = await _is_ready_here(loaded, self._places.standby)
        fallback = loaded.fallback
        if fallback is not None and not await _is_ready_here(fallback, self._places.here):
            fallback = None
        served = replace(served, fallback=None if fallback is None else fallback.served, stands_by=stands_by)
        return replace(loaded, served=served, fallback=fallback)

    def _load(self, digest: Digest) -> LoadedBundle:
        bundle = self._load_bundle(digest)
        loaded = self._prepared(bundle)
        named = bundle.serving.on(self._target).degrade.fallback
        if named is None or self._places is None:
            return loaded
        try:
            fallback = self._prepared(self._load_bundle(named))
        except SkewlessError as error:
            _LOGGER.warning("bundle %s has no fallback: bundle %s: %s", digest[:12], named[:12], error.message)
            return loaded
        if reasons := misfits(loaded.contract, fallback.contract):
            _LOGGER.warning("bundle %s cannot fall back to %s: %s", digest[:12], named[:12], ", ".join(reasons))
            return loaded
        return replace(loaded, fallback=fallback)

    def _prepared(self, bundle: Bundle) -> LoadedBundle:
        contract = bundle.contract
        hashed = [name for name, mark in log_marks(contract).items() if mark is LogMark.HASH]
        if hashed and not self._can_hash:
            raise BundleRefused(
                f"bundle {bundle.digest[:12]} has values that the prediction log must keep as hashes "
                f"({', '.join(f'`{name}`' for name in hashed)}), and this gateway has no key for it",
                hint="set SKEWLESS_GATEWAY_LOG_HASH_KEY, to the same value for every gateway of this log",
            )
        if self._places is not None:
            self._places.take(bundle)
        served = prepare_bundle(
            bundle,
            model_name(bundle.digest),
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


async def _is_ready_here(loaded: LoadedBundle, here: ModelBackend) -> bool:
    """Whether a model runs in this process and gives its golden outputs, as it would on the embedded target."""
    served = loaded.served
    try:
        await here.load(served.model)
        if loaded.golden.rows:
            await reproduce(loaded.golden, served.model, served.signature, here, tolerance=served.output_tolerance)
    except SkewlessError as error:
        _LOGGER.warning("the model of bundle %s cannot stand by here: %s", served.digest[:12], error.message)
        return False
    return True


def _reads(contract: FeatureContract) -> object:
    """What a read plan is made of: bundles that agree in it share one."""
    return contract.project, contract.views
