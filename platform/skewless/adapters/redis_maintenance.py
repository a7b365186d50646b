"""Housekeeping of the online store from the command line: how many entities it holds, emptying it, and its files."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import redis

from skewless.errors import Unavailable
from skewless.features.redis_layout import project_of
from skewless.ingest_limits import STORE_HISTORY_WAIT_S

_SCAN_COUNT = 1_000
_TIMEOUT_S = 10.0
_POLL_S = 0.1
_BUSY = ("aof_rewrite_in_progress", "aof_rewrite_scheduled", "rdb_bgsave_in_progress")
_STATUSES = ("aof_last_bgrewrite_status", "rdb_last_bgsave_status")


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

    def rewrite_files(self, *, wait_s: float = STORE_HISTORY_WAIT_S) -> str:
        """Have the server write its files anew, so that they no longer hold what was deleted; why not, or empty.

        Files of replicas, and copies that somebody took, are not reached.
        """
        try:
            if not self._begin_rewriting():
                return ""
            deadline_s = time.monotonic() + wait_s
            while time.monotonic() < deadline_s:
                told = self._persistence()
                if not any(int(told.get(each, 0)) for each in _BUSY):
                    failed = [each for each in _STATUSES if told.get(each, "ok") != "ok"]
                    return f"the server says {', '.join(failed)}: look at its log" if failed else ""
                time.sleep(_POLL_S)
        except redis.RedisError as error:
            return f"{error}; BGREWRITEAOF on each server does it"
        return f"the server's files are not written anew after {wait_s:g} s"

    def _begin_rewriting(self) -> bool:
        """Whether the server has files at all, of which the writing has begun then."""
        if int(self._persistence().get("aof_enabled", 0)):
            self._client.bgrewriteaof()  # type: ignore[no-untyped-call]  # the client has no type for it
        elif self._client.config_get("save").get("save"):  # type: ignore[union-attr]  # sync client: never awaitable
            self._client.bgsave()
        else:
            return False
        return True

    def _persistence(self) -> dict[str, Any]:
        told: dict[str, Any] = self._client.info("persistence")  # type: ignore[assignment]  # sync client, as above
        return told

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
