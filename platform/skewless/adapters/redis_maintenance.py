"""Housekeeping of the online store from the command line: how many entities it holds, and emptying it."""

import contextlib
from collections.abc import Iterator

import redis

from skewless.errors import Unavailable
from skewless.features.redis_layout import project_of

_SCAN_COUNT = 1_000
_TIMEOUT_S = 10.0


class OnlineStoreMaintenance:
    """One project's entities in a Redis or Valkey database, found by decoding keys and never by a suffix."""

    def __init__(self, url: str, project: str) -> None:
        self._client = redis.Redis.from_url(url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S)
        self._project = project

    def entities(self) -> int:
        """Entities of the project that have a hash. Raises Unavailable."""
        with _translated():
            return sum(1 for _ in self._keys())

    def clear(self) -> int:
        """Delete every entity of the project and return how many there were. Raises Unavailable."""
        count = 0
        with _translated():
            batch: list[bytes] = []
            for key in self._keys():
                batch.append(key)
                if len(batch) == _SCAN_COUNT:
                    count += self._delete(batch)
                    batch = []
            return count + self._delete(batch)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _delete(self, keys: list[bytes]) -> int:
        return int(self._client.unlink(*keys)) if keys else 0  # type: ignore[arg-type]  # sync client: never awaitable

    def _keys(self) -> Iterator[bytes]:
        for key in self._client.scan_iter(count=_SCAN_COUNT):
            if project_of(key) == self._project:
                yield key


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except redis.RedisError as error:
        raise Unavailable("online store", str(error), hint="run `skewless doctor`") from error
