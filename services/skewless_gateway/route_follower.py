"""Keeps the gateway on the registry's routes: loads what becomes live, verifies it, and only then lets it answer."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from skewless.bundles.bundle import Bundle
from skewless.bundles.golden import GoldenVectors
from skewless.bundles.model_repository import model_name
from skewless.canonical_json import Digest
from skewless.errors import NotFound, SkewlessError, Unavailable
from skewless.features.contract import FeatureContract
from skewless.rollout.routes import Route, RoutingTable
from skewless.serving.ports import ModelBackend
from skewless.serving.served_bundle import ServedBundle, admit_model, prepare_bundle
from skewless_gateway.polling import Polling
from skewless_gateway.routes_copy import RoutesCopy

_LOGGER = logging.getLogger(__name__)
_ROUTES = "routing table"
_Loaded = tuple[ServedBundle, GoldenVectors, FeatureContract]


@dataclass(frozen=True, slots=True)
class ServedEndpoint:
    """An endpoint that answers: its newest route, and the bundle in service, which may be an earlier one."""

    route: Route
    served: ServedBundle
    contract: FeatureContract
    """Of the bundle in service."""


@dataclass(frozen=True, slots=True)
class RouteState:
    """What the gateway serves; replaced as a whole, so that a request sees one state from start to end.

    `table` is None until the registry, or a copy of it, was read once. `failures` says per endpoint why its live
    bundle is not in service, `registry_error` why the registry could not be read; both empty when all is well.
    """

    table: RoutingTable | None = None
    endpoints: Mapping[str, ServedEndpoint] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    registry_error: str = ""


class RouteFollower:
    """Polls the registry. `state` is always the last good one; a failure never takes away what answers."""

    def __init__(
        self,
        read_routes: Callable[[], RoutingTable],
        load_bundle: Callable[[Digest], Bundle],
        backend: ModelBackend,
        *,
        poll_s: float,
        copy: RoutesCopy | None = None,
        hash_sizes: Callable[[str], Mapping[tuple[str, ...], int]] = lambda _project: {},
        on_change: Callable[[RouteState], None] = lambda _state: None,
    ) -> None:
        """`hash_sizes` says how large a Feast project's entity hashes are, for the plans of bundles loaded then."""
        self.state = RouteState()
        self._read_routes = read_routes
        self._load_bundle = load_bundle
        self._backend = backend
        self._copy = copy
        self._hash_sizes = hash_sizes
        self._on_change = on_change
        self._loaded: dict[Digest, _Loaded] = {}
        self._polling = Polling(self.refresh, every_s=poll_s, what="following the routes")

    def endpoint(self, name: str) -> ServedEndpoint:
        """The endpoint that answers to a name. Raises NotFound, or Unavailable where none of its bundles could load."""
        state = self.state
        found = state.endpoints.get(name)
        if found is not None:
            return found
        if state.table is None:
            raise Unavailable(_ROUTES, state.registry_error or "it has not been read yet")
        if name in state.failures:
            raise Unavailable(f"endpoint `{name}`", state.failures[name])
        raise NotFound("endpoint", name, known=tuple(route.endpoint for route in state.table.routes))

    def wake(self) -> None:
        """Look at once: the model backend refused a request, and may have lost its models."""
        self._polling.wake()

    async def run(self) -> None:
        """Follow the registry until cancelled."""
        await self._polling.run()

    async def refresh(self) -> None:
        """Read the routes once, and bring what is in service up to them."""
        before = self.state
        table, registry_error = await self._table()
        endpoints: dict[str, ServedEndpoint] = {}
        failures: dict[str, str] = {}
        for route in table.routes if table is not None else ():
            current = before.endpoints.get(route.endpoint)
            try:
                endpoints[route.endpoint] = await self._in_service(route, current)
            except SkewlessError as error:
                failures[route.endpoint] = error.message
                if current is not None:
                    endpoints[route.endpoint] = current
        self.state = RouteState(table, MappingProxyType(endpoints), MappingProxyType(failures), registry_error)
        self._forget_unused(table)
        if self.state != before:
            _log_change(before, self.state)
            self._on_change(self.state)

    async def _table(self) -> tuple[RoutingTable | None, str]:
        """The registry's table; while it is away, the last one read, or the one that an earlier process kept."""
        known = self.state.table
        try:
            table = await asyncio.to_thread(self._read_routes)
        except SkewlessError as error:
            if known is None and self._copy is not None:
                known = await asyncio.to_thread(self._copy.load)
            return known, error.message
        if self._copy is not None and table != known:
            await asyncio.to_thread(self._copy.save, table)
        return table, ""

    async def _in_service(self, route: Route, current: ServedEndpoint | None) -> ServedEndpoint:
        """The route's live bundle, loaded and verified; at once where it answers already."""
        if current is not None and current.served.digest == route.live:
            if await self._backend.is_ready(current.served.model):
                return ServedEndpoint(route, current.served, current.contract)
            await self._backend.ping()
        if route.live not in self._loaded:
            self._loaded[route.live] = await asyncio.to_thread(self._load, route.live)
        served, golden, contract = self._loaded[route.live]
        await admit_model(served, golden, self._backend)
        return ServedEndpoint(route, served, contract)

    def _load(self, digest: Digest) -> _Loaded:
        bundle = self._load_bundle(digest)
        hash_sizes = self._hash_sizes(bundle.contract.project)
        return prepare_bundle(bundle, model_name(digest), hash_sizes), bundle.golden, bundle.contract

    def _forget_unused(self, table: RoutingTable | None) -> None:
        """Drop bundles that no route names and no endpoint serves; their Triton models stay, for other gateways."""
        used = {endpoint.served.digest for endpoint in self.state.endpoints.values()}
        used |= table.bundles() if table is not None else set()
        self._loaded = {digest: entry for digest, entry in self._loaded.items() if digest in used}


def _log_change(before: RouteState, after: RouteState) -> None:
    for name, endpoint in after.endpoints.items():
        earlier = before.endpoints.get(name)
        if earlier is None or earlier.served.digest != endpoint.served.digest:
            _LOGGER.info("endpoint %s is served by bundle %s", name, endpoint.served.digest)
    for name in before.endpoints.keys() - after.endpoints.keys():
        _LOGGER.info("endpoint %s is gone from the routing table", name)
    for name, reason in after.failures.items():
        if before.failures.get(name) != reason:
            _LOGGER.error("endpoint %s: its live bundle is not in service: %s", name, reason)
    if after.registry_error and after.registry_error != before.registry_error:
        _LOGGER.error("the routes cannot be read: %s", after.registry_error)
