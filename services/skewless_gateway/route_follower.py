"""Keeps the gateway on the registry's routes: loads what they name, verifies it, and only then lets it answer.

    look     the routes are read: woken by the registry's change signal, else every second
    bring    for each route in a task of its own: live first, and swapped in at once; then canary, arms, shadow, and the
             bundle of a rollback, which answers nothing but stays ready
    settle   what answers is replaced as a whole, so that a request sees one route from its start to its end

A bundle that is slow to load holds up nobody else, and a newer route gives up on it: so a rollback never waits. What
cannot be loaded leaves in service what was: an older live bundle, or live in place of a candidate.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from skewless.canonical_json import Digest
from skewless.errors import NotFound, SkewlessError, Unavailable
from skewless.features.contract import FeatureContract
from skewless.rollout.routes import Route, RoutingTable
from skewless.serving.instance_fit import misfits
from skewless.serving.served_bundle import ServedBundle
from skewless.serving.served_route import ServedRoute
from skewless_gateway.loaded_bundles import LoadedBundle, LoadedBundles
from skewless_gateway.routes_copy import RoutesCopy
from skewless_http.polling import Polling

_LOGGER = logging.getLogger(__name__)
_ROUTES = "routing table"
SETTLE_S = 0.25
"""How long a look waits for what it has begun; a bundle that takes longer to load must not delay the next look."""


@dataclass(frozen=True, slots=True)
class ServedEndpoint:
    """An endpoint that answers: its newest route that could be taken into service."""

    serving: ServedRoute
    contract: FeatureContract
    """Of the live bundle."""

    @property
    def route(self) -> Route:
        """The route in service."""
        return self.serving.route

    @property
    def served(self) -> ServedBundle:
        """The live bundle, whose contract says what callers send."""
        return self.serving.live


@dataclass(frozen=True, slots=True)
class RouteState:
    """What the gateway serves; replaced as a whole, so that a request sees one state from start to end.

    `table` is None until the registry, or a copy of it, was read once. `failures` says per endpoint which bundles of
    its route are not in service and why, `registry_error` why the registry could not be read; both empty when all is
    well.
    """

    table: RoutingTable | None = None
    endpoints: Mapping[str, ServedEndpoint] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    registry_error: str = ""
    has_started: bool = False
    """Whether the first bundles of every endpoint were loaded or refused; one that is added later changes nothing."""

    @property
    def loading(self) -> tuple[str, ...]:
        """Endpoints of which nothing was loaded or refused yet."""
        routes = self.table.routes if self.table is not None else ()
        names = (route.endpoint for route in routes)
        return tuple(name for name in names if name not in self.endpoints and name not in self.failures)


class RouteFollower:
    """Follows the registry. `state` is always the last good one; a failure never takes away what answers."""

    def __init__(
        self,
        read_routes: Callable[[], RoutingTable],
        bundles: LoadedBundles,
        *,
        poll_s: float,
        copy: RoutesCopy | None = None,
        keep_only: Callable[[frozenset[Digest]], None] = lambda _digests: None,
        on_change: Callable[[RouteState], None] = lambda _state: None,
    ) -> None:
        """`keep_only` is told which bundles routes still name, once the copy of the routes says so too."""
        self.state = RouteState()
        self._read_routes = read_routes
        self._bundles = bundles
        self._copy = copy
        self._keep_only = keep_only
        self._on_change = on_change
        self._bringing: dict[str, tuple[Route, asyncio.Task[None]]] = {}
        self._copied: RoutingTable | None = None
        self._polling = Polling(self.refresh, every_s=poll_s, what="following the routes")

    def endpoint(self, name: str) -> ServedEndpoint:
        """The endpoint that answers to a name. Raises NotFound, or Unavailable where none of its bundles could load."""
        state = self.state
        found = state.endpoints.get(name)
        if found is not None:
            return found
        if state.table is None:
            raise Unavailable(_ROUTES, state.registry_error or "it has not been read yet")
        known = tuple(route.endpoint for route in state.table.routes)
        if name in known:
            raise Unavailable(f"endpoint `{name}`", state.failures.get(name, "its live bundle is being loaded"))
        raise NotFound("endpoint", name, known=known)

    def wake(self) -> None:
        """Look at once: the registry changed, or the model backend refused a request and may have lost its models."""
        self._polling.wake()

    async def run(self) -> None:
        """Follow the registry until cancelled."""
        try:
            await self._polling.run()
        finally:
            for _, task in self._bringing.values():
                task.cancel()
            await self._bundles.close()

    async def refresh(self) -> None:
        """Read the routes once, and bring what is in service up to them, as far as that is done by the next look."""
        table, registry_error = await self._table()
        routes = table.routes if table is not None else ()
        names = {route.endpoint for route in routes}
        before = self.state
        self._replace(
            RouteState(
                table,
                MappingProxyType({name: each for name, each in before.endpoints.items() if name in names}),
                MappingProxyType({name: each for name, each in before.failures.items() if name in names}),
                registry_error,
                before.has_started,
            )
        )
        for gone in self._bringing.keys() - names:
            self._bringing.pop(gone)[1].cancel()
        for route in routes:
            self._begin(route)
        if self._bringing:
            tasks = [task for _, task in self._bringing.values()]
            await asyncio.wait(tasks, timeout=SETTLE_S)
        await self._tidy()

    def _begin(self, route: Route) -> None:
        under_way = self._bringing.get(route.endpoint)
        if under_way is not None and not under_way[1].done():
            if under_way[0] == route:
                return
            under_way[1].cancel()
        self._bringing[route.endpoint] = route, asyncio.create_task(self._bring(route))

    async def _table(self) -> tuple[RoutingTable | None, str]:
        """The registry's table; while it is away, the last one read, or the one that an earlier process kept."""
        known = self.state.table
        try:
            table = await asyncio.to_thread(self._read_routes)
        except SkewlessError as error:
            if known is None and self._copy is not None:
                known = await asyncio.to_thread(self._copy.load)
            return known, error.message
        return table, ""

    async def _bring(self, route: Route) -> None:
        """Take a route into service: live at once, everything beside it when it is there."""
        current = self.state.endpoints.get(route.endpoint)
        try:
            live = await self._bundles.ready(route.live)
            wanted = route.bundles() - {route.live}
            if current is None or current.served is not live.served:
                known = {digest: each for digest in wanted if (each := self._bundles.get(digest)) is not None}
                self._settle(ServedEndpoint(_served_route(route, live, known), live.contract), route.endpoint, "")
            found, told = await self._beside(wanted)
            self._settle(ServedEndpoint(_served_route(route, live, found), live.contract), route.endpoint, told)
        except SkewlessError as error:
            self._settle(current, route.endpoint, error.message)
        except Exception:  # a task's boundary: serving goes on with what answers
            _LOGGER.exception("endpoint %s: its route could not be taken into service", route.endpoint)
            self._settle(current, route.endpoint, "its route could not be taken into service; see the gateway's log")

    async def _beside(self, wanted: frozenset[Digest]) -> tuple[Mapping[Digest, LoadedBundle], str]:
        """The bundles that can answer beside live, and in words which cannot."""
        ordered = sorted(wanted)
        results = await asyncio.gather(*map(self._bundles.ready, ordered), return_exceptions=True)
        found: dict[Digest, LoadedBundle] = {}
        told: list[str] = []
        for digest, result in zip(ordered, results, strict=True):
            if isinstance(result, SkewlessError):
                told.append(f"bundle {digest[:12]} is not in service: {result.message}")
            elif isinstance(result, BaseException):
                raise result
            else:
                found[digest] = result
        return found, "; ".join(told)

    def _settle(self, endpoint: ServedEndpoint | None, name: str, told: str) -> None:
        """Replace what answers for an endpoint; `told` says what of its route is not in service, empty for nothing."""
        before = self.state
        endpoints, failures = dict(before.endpoints), dict(before.failures)
        if endpoint is not None:
            told = "; ".join(filter(None, [told, *_misfits(endpoint, self._bundles)]))
            if endpoint != endpoints.get(name):
                endpoints[name] = endpoint
        failures.pop(name, None)
        if told:
            failures[name] = told
        self._replace(replace(before, endpoints=MappingProxyType(endpoints), failures=MappingProxyType(failures)))

    def _replace(self, after: RouteState) -> None:
        before = self.state
        if after.table is not None and not after.has_started and not after.loading:
            after = replace(after, has_started=True)
        self.state = after
        if after != before:
            _log_change(before, after)
            self._on_change(after)

    async def _tidy(self) -> None:
        """Keep a copy of the routes in service, and forget the bundles that neither they nor newer routes name.

        The copy never names a bundle that was not in service in this or an earlier process, so what a restart finds in
        it can be served.
        """
        state = self.state
        if state.table is None:
            return
        in_service = {name: endpoint.route for name, endpoint in state.endpoints.items()}
        used = state.table.bundles().union(*(route.bundles() for route in in_service.values()))
        self._bundles.keep_only(used)
        if state.registry_error:
            return
        if self._copied is None and self._copy is not None:
            self._copied = await asyncio.to_thread(self._copy.load)
        earlier = {} if self._copied is None else {route.endpoint: route for route in self._copied.routes}
        routes = (in_service.get(route.endpoint) or earlier.get(route.endpoint) for route in state.table.routes)
        worth_keeping = RoutingTable(tuple(route for route in routes if route is not None))
        if worth_keeping == self._copied:
            return
        if self._copy is not None:
            await asyncio.to_thread(self._copy.save, worth_keeping)
        self._copied = worth_keeping
        await asyncio.to_thread(self._keep_only, used | worth_keeping.bundles())


def _served_route(route: Route, live: LoadedBundle, found: Mapping[Digest, LoadedBundle]) -> ServedRoute:
    """The route with those of `found` that can be asked what callers of `live` send."""
    fitting = {digest: each.served for digest, each in found.items() if not misfits(live.contract, each.contract)}
    answering = {route.canary.bundle} if route.canary is not None else set()
    answering |= {arm.bundle for arm in route.experiment.arms} if route.experiment is not None else set()
    return ServedRoute(
        route,
        live.served,
        MappingProxyType({digest: served for digest, served in fitting.items() if digest in answering}),
        None if route.shadow is None else fitting.get(route.shadow.bundle),
    )


def _misfits(endpoint: ServedEndpoint, bundles: LoadedBundles) -> list[str]:
    """Why bundles that are loaded do not answer beside live; what a rollback would bring back may ask otherwise."""
    told = []
    for digest in sorted(endpoint.route.bundles() - {endpoint.route.live, endpoint.route.previous}):
        loaded = bundles.get(digest)
        reasons = misfits(endpoint.contract, loaded.contract) if loaded is not None else ()
        if reasons:
            told.append(f"bundle {digest[:12]} is not in service: {', '.join(reasons)}")
    return told


def _log_change(before: RouteState, after: RouteState) -> None:
    for name, endpoint in after.endpoints.items():
        earlier = before.endpoints.get(name)
        if earlier is None or earlier.served.digest != endpoint.served.digest:
            _LOGGER.info("endpoint %s is served by bundle %s", name, endpoint.served.digest)
        elif earlier.route != endpoint.route:
            _LOGGER.info("endpoint %s is at version %d of its route", name, endpoint.route.version)
    for name in before.endpoints.keys() - after.endpoints.keys():
        _LOGGER.info("endpoint %s is gone from the routing table", name)
    for name, reason in after.failures.items():
        if before.failures.get(name) != reason:
            _LOGGER.error("endpoint %s: %s", name, reason)
    if after.registry_error and after.registry_error != before.registry_error:
        _LOGGER.error("the routes cannot be read: %s", after.registry_error)
