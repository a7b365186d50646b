"""Goes through all keys of one project in the online store, a part at a time, by SCAN and never by KEYS."""

from collections.abc import Iterator, Sequence
from typing import Any

from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.adapters.redis_replies import packed
from skewless.adapters.redis_url import Topology, parse_store_url
from skewless.errors import InvalidSettings
from skewless.features.redis_layout import StoredKey, stored_key
from skewless.monitor_limits import REPAIR_SCAN_COUNT, REPAIR_TIMEOUT_S

_START = b"0"


class OnlineScan:
    """The keys of a project, found by taking each apart and never by a suffix. Raises Unavailable as the store does."""

    def __init__(self, store: BlockingRedisOnlineStore, url: str, project: str) -> None:
        """Raises InvalidSettings for a cluster, of which one connection sees a part only."""
        if parse_store_url(url).topology is Topology.CLUSTER:
            raise InvalidSettings(
                "the online store is a cluster, whose keys are not gone through",
                hint="name the entities to repair: `skewless features repair --entities FILE`",
            )
        self._store = store
        self._project = project

    def parts(self) -> Iterator[list[tuple[bytes, StoredKey]]]:
        """Parts of all keys with what they say; a key that is there all the while comes at least once."""
        cursor: Any = _START
        while True:
            command = packed("SCAN", cursor, "COUNT", REPAIR_SCAN_COUNT, "TYPE", "hash")
            (reply,) = self._store.read((b"",), (command,), timeout_s=REPAIR_TIMEOUT_S)
            assert not isinstance(reply, Exception), "SCAN is about no key"
            cursor, found = reply[0], self._ours(reply[1])
            if found:
                yield found
            if cursor == _START:
                return

    def fields(self, keys: Sequence[bytes]) -> list[list[bytes]]:
        """The names of all fields of each hash."""
        commands = [packed("HKEYS", key) for key in keys]
        replies = self._store.read(keys, commands, timeout_s=REPAIR_TIMEOUT_S)
        return [[] if isinstance(reply, Exception) else [each for each in reply if each] for reply in replies]

    def held(self, keys: Sequence[bytes], fields: Sequence[Sequence[bytes]]) -> list[dict[bytes, bytes | None]]:
        """Some fields of each hash with what they hold."""
        commands = [packed("HMGET", key, *names) for key, names in zip(keys, fields, strict=True)]
        replies = self._store.read(keys, commands, timeout_s=REPAIR_TIMEOUT_S)
        return [
            {} if isinstance(reply, Exception) else dict(zip(names, reply, strict=True))
            for names, reply in zip(fields, replies, strict=True)
        ]

    def _ours(self, keys: Any) -> list[tuple[bytes, StoredKey]]:
        found = ((key, stored_key(key)) for key in dict.fromkeys(keys))
        return [(key, told) for key, told in found if told is not None and told.project == self._project]
