"""Feature rows and events on streams of Valkey or Redis (6.2 or later): a key for each view and stream of events.

    XADD {skewless.ingest}:rows:clicks * data '{"user": "a", …}' [form ndjson|json|arrow]     what a producer does
    XREADGROUP / XAUTOCLAIM                                     records, and those of consumers that died
    XADD {skewless.ingest}:rows:clicks:refused * place … reason … data …    a record that was refused
    XACK, XDEL                                                  a record that is kept; it leaves the stream

The braces have a cluster keep all keys on one server.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

from skewless.adapters.feature_stream import FEATURE_STREAM, StreamRecord
from skewless.adapters.redis_url import StoreAddress
from skewless.adapters.valkey_link import ValkeyLink
from skewless.errors import Unavailable
from skewless.ingest_limits import (
    FEATURE_STREAM_CLAIM_EVERY_S,
    FEATURE_STREAM_CLAIM_IDLE_S,
    FEATURE_STREAM_DEAD_MAX,
    FEATURE_STREAM_NAMES_MAX,
    FEATURE_STREAM_NAMES_S,
    FEATURE_STREAM_RECORDS_AT_ONCE,
    FEATURE_STREAM_TIMEOUT_S,
)
from skewless.ingestion.batches import BatchKind

PREFIX = "{skewless.ingest}"
"""What keys begin with where nothing else is said."""
REFUSED = "refused"
Names = Callable[[], Sequence[tuple[BatchKind, str]]]
"""The views and streams of events that there are now."""
_DATA, _FORM = b"data", b"form"
_FORMS = frozenset({"ndjson", "json", "arrow"})
_HINT = "its server must be Redis 6.2, Valkey or later, and these keys must be streams"


def stream_key(kind: BatchKind, name: str, *, prefix: str = PREFIX) -> str:
    """The key of a view's rows or of a stream's events.

    >>> stream_key(BatchKind.ROWS, "clicks")
    '{skewless.ingest}:rows:clicks'
    """
    return f"{prefix}:{kind.value}:{name}"


class ValkeyFeatureStream:
    """Implements `FeatureStream`. One thread."""

    def __init__(
        self,
        address: StoreAddress,
        names: Names,
        *,
        group: str,
        consumer: str,
        prefix: str = PREFIX,
        claim_idle_s: float = FEATURE_STREAM_CLAIM_IDLE_S,
    ) -> None:
        """`consumer` must be its own among those that run; one that keeps its name finds what it left behind at once.

        `claim_idle_s`: after which another one counts as dead.
        """
        self._link = ValkeyLink(address, prefix, part=FEATURE_STREAM, acl_hint=_HINT)
        self._names = names
        self._group = group
        self._consumer = consumer
        self._prefix = prefix
        self._claim_idle_ms = round(claim_idle_s * 1_000)
        self._claim_every_s = min(claim_idle_s, FEATURE_STREAM_CLAIM_EVERY_S)
        self._keys: dict[bytes, tuple[BatchKind, str]] = {}
        self._look_at = self._claim_at = 0.0
        self._own_after: dict[bytes, bytes] = {}
        """By key, the id after which records may be that are this consumer's already."""

    def receive(self, wait_s: float) -> list[StreamRecord]:
        """See `FeatureStream.receive`."""
        try:
            self._join()
            if not self._keys:
                time.sleep(wait_s)  # no view or stream is declared yet
                return []
            return self._own() or self._left_behind() or self._read(dict.fromkeys(self._keys, b">"), wait_s)
        except Unavailable:
            # Records may have been given to this consumer in an answer that never came.
            self._own_after = dict.fromkeys(self._keys, b"0")
            raise

    def acknowledge(self, records: Sequence[StreamRecord]) -> None:
        """See `FeatureStream.acknowledge`: the records leave the stream."""
        by_key: dict[bytes, list[bytes]] = {}
        for record in records:
            assert isinstance(record.token, tuple), "made by _record"
            key, entry = record.token
            by_key.setdefault(key, []).append(entry)
        for key, entries in by_key.items():
            self._ask("XACK", key, self._group, *entries)
            self._ask("XDEL", key, *entries)

    def set_aside(self, record: StreamRecord, reason: str) -> None:
        """See `FeatureStream.set_aside`: onto `<key>:refused`, which keeps the newest FEATURE_STREAM_DEAD_MAX."""
        key = f"{stream_key(record.kind, record.name, prefix=self._prefix)}:{REFUSED}"
        bounded = ("XADD", key, "MAXLEN", "~", FEATURE_STREAM_DEAD_MAX, "*")
        named = ("place", record.place, "reason", reason, "form", record.form, "data", record.body)
        self._ask(*bounded, *(each.encode() if isinstance(each, str) else each for each in named))

    def leave(self, records: Sequence[StreamRecord]) -> None:
        """See `FeatureStream.leave`: they stay this consumer's, and are read again when their key is."""
        for record in records:
            assert isinstance(record.token, tuple), "made by _record"
            self._keys.pop(record.token[0], None)
        self._look_at = 0.0

    def close(self) -> None:
        """See `FeatureStream.close`."""
        self._link.close()

    def _join(self) -> None:
        """Make the group of every key that is new."""
        if time.monotonic() < self._look_at:
            return
        wanted = {
            stream_key(kind, name, prefix=self._prefix).encode(): (kind, name)
            for kind, name in list(self._names())[:FEATURE_STREAM_NAMES_MAX]
        }
        for key in wanted.keys() - self._keys.keys():
            self._ask("XGROUP", "CREATE", key, self._group, "0", "MKSTREAM")
            self._own_after[key] = b"0"
        self._keys = wanted
        self._own_after = {key: after for key, after in self._own_after.items() if key in wanted}
        self._look_at = time.monotonic() + FEATURE_STREAM_NAMES_S

    def _own(self) -> list[StreamRecord]:
        """What this consumer was given and has not acknowledged, as before a crash."""
        while self._own_after:
            key, after = next(iter(self._own_after.items()))
            found = self._read({key: after}, 0.0)
            if found:
                # All of them are acknowledged before the next reading, or this consumer is no more.
                return found
            del self._own_after[key]
        return []

    def _left_behind(self) -> list[StreamRecord]:
        """Records that another consumer has held for too long."""
        if time.monotonic() < self._claim_at:
            return []
        for key in self._keys:
            named = ("XAUTOCLAIM", key, self._group, self._consumer, self._claim_idle_ms, "0-0")
            reply = self._ask(*named, "COUNT", FEATURE_STREAM_RECORDS_AT_ONCE)
            # A server before version 7 names records that were deleted meanwhile, and has nothing to show for them.
            if found := [self._record(key, entry) for entry in reply[1] if entry is not None and entry[1] is not None]:
                return found
        self._claim_at = time.monotonic() + self._claim_every_s
        return []

    def _read(self, after: dict[bytes, bytes], wait_s: float) -> list[StreamRecord]:
        named = ("XREADGROUP", "GROUP", self._group, self._consumer, "COUNT", FEATURE_STREAM_RECORDS_AT_ONCE)
        waiting = ("BLOCK", max(1, round(wait_s * 1_000))) if wait_s else ()
        reply = self._ask(*named, *waiting, "STREAMS", *after.keys(), *after.values(), wait_s=wait_s)
        found = []
        gone = []
        for key, entries in reply or ():
            for entry in entries:
                if entry[1] is None:  # it was deleted after it was given to this consumer
                    gone.append((key, entry[0]))
                else:
                    found.append(self._record(key, entry))
        for key, entry in gone:
            self._ask("XACK", key, self._group, entry)
        return found

    def _record(self, key: bytes, entry: Any) -> StreamRecord:
        place, flat = entry
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        form = fields.get(_FORM, b"ndjson").decode(errors="replace")
        kind, name = self._keys[key]
        return StreamRecord(
            kind,
            name,
            f"{key.decode()}/{place.decode()}",
            fields.get(_DATA, b""),
            form if form in _FORMS else "ndjson",
            (key, place),
        )

    def _ask(self, *command: str | bytes | int, wait_s: float = 0.0) -> Any:
        (reply,) = self._link.ask(command, timeout_s=FEATURE_STREAM_TIMEOUT_S + wait_s)
        if not isinstance(reply, Exception) or str(reply).startswith("BUSYGROUP"):
            return reply
        if str(reply).startswith("NOGROUP"):
            # A stream was lost with its groups; they are made anew.
            self._keys, self._look_at = {}, 0.0
        raise Unavailable(FEATURE_STREAM, str(reply), hint=_HINT)
