"""The online store in Redis or Valkey, read without blocking the event loop."""

from collections.abc import Sequence

from skewless.adapters.redis_replies import StoreFailure
from skewless.adapters.redis_routes import Route, open_route
from skewless.adapters.redis_url import parse_store_url
from skewless.features.online_store import Invalidate, Reply
from skewless.limits import CONNECT_TIMEOUT_S


class RedisOnlineStore:
    """Implements `OnlineStore`, and where `tracked` also `TrackedStore`. Connects when first used, in one event loop.

    Holds one connection to each server that it reads from, and one more for tracked reads. What a URL may be is
    in `redis_url`. Raises InvalidSettings for any other, and where a TLS file cannot be used.
    """

    def __init__(self, url: str, *, tracked: bool = False) -> None:
        address = parse_store_url(url)
        self._route = open_route(address)
        self._subscribers: list[Invalidate] = []
        self._tracked: Route | None = open_route(address, invalidate=self._tell) if tracked else None

    async def read(self, keys: Sequence[bytes], commands: Sequence[bytes], *, timeout_s: float) -> list[Reply]:
        """See `OnlineStore.read`."""
        return await _read(self._route, keys, commands, timeout_s)

    async def read_tracked(self, keys: Sequence[bytes], commands: Sequence[bytes], *, timeout_s: float) -> list[Reply]:
        """See `TrackedStore.read_tracked`."""
        assert self._tracked is not None, "build the store with tracked=True"
        return await _read(self._tracked, keys, commands, timeout_s)

    def subscribe(self, invalidate: Invalidate) -> None:
        """See `TrackedStore.subscribe`."""
        assert self._tracked is not None, "build the store with tracked=True"
        self._subscribers.append(invalidate)

    async def ping(self) -> None:
        """See `OnlineStore.ping`."""
        try:
            await self._route.ping(CONNECT_TIMEOUT_S)
        except StoreFailure as failure:
            raise failure.unavailable() from failure

    async def close(self) -> None:
        """Close every connection. Calls in flight, and later ones, are Unavailable."""
        await self._route.close()
        if self._tracked is not None:
            await self._tracked.close()

    def _tell(self, keys: Sequence[bytes] | None) -> None:
        for invalidate in self._subscribers:
            invalidate(keys)


async def _read(route: Route, keys: Sequence[bytes], commands: Sequence[bytes], timeout_s: float) -> list[Reply]:
    if not commands:
        return []
    try:
        return await route.read(keys, commands, timeout_s)
    except StoreFailure as failure:
        raise failure.unavailable() from failure
