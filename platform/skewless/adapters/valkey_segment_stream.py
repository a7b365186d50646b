"""Segments on a stream of Valkey or Redis (6.2 or later): one key, an entry per part, groups of its own kind.

    XADD key * head <JSON> data <Arrow>        a part
    XREADGROUP / XACK                          a member of a group takes parts, and says when their effect is kept
    XAUTOCLAIM                                 parts that another member left behind
    XTRIM key MINID                            what every group has acknowledged goes, and makes room

What is kept here is kept in memory, so it is bounded: by what the server itself says that the key takes.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from skewless.adapters.redis_url import StoreAddress
from skewless.adapters.segment_parts import DamagedPart, SegmentPart, read_part
from skewless.adapters.segment_stream import STREAM, Delivery, GroupState, PartReader, StreamState, WhenFull
from skewless.adapters.valkey_link import ValkeyLink
from skewless.errors import InvalidSettings, Overloaded, Unavailable
from skewless.limits import (
    RETRY_AFTER_S,
    STREAM_BYTES_MIN,
    STREAM_CLAIM_EVERY_S,
    STREAM_CLAIM_IDLE_S,
    STREAM_GROUPS_MAX,
    STREAM_PARTS_AT_ONCE,
    STREAM_TIMEOUT_S,
)

_HEAD, _DATA = b"head", b"data"
_ENTRY_BYTES = 256
"""What the server keeps of an entry beside its head and data."""


class ValkeySegmentStream:
    """Implements `SegmentStream`. `bytes_max` is the memory that the key may take, within what the last part takes."""

    def __init__(
        self,
        address: StoreAddress,
        *,
        key: str,
        bytes_max: int,
        when_full: WhenFull,
        claim_idle_s: float = STREAM_CLAIM_IDLE_S,
    ) -> None:
        """Raises InvalidSettings for a bound that is too small. `claim_idle_s`: after which a member counts as dead."""
        if bytes_max < STREAM_BYTES_MIN:
            raise InvalidSettings(
                f"the segment stream may take {bytes_max} bytes. Allowed: at least {STREAM_BYTES_MIN}",
                hint="give it more memory, or a Kafka topic",
            )
        self._address = address
        self._key = key
        self._bytes_max = bytes_max
        self._when_full = when_full
        self._claim_idle_ms = round(claim_idle_s * 1_000)
        self._link = ValkeyLink(address, key, part=STREAM, acl_hint=_ACL_HINT)
        self.trimmed = 0

    def publish(self, parts: Sequence[SegmentPart]) -> None:
        """See `SegmentStream.publish`."""
        assert len(parts) <= STREAM_PARTS_AT_ONCE, f"{len(parts)} parts at once"
        heads = [part.head_bytes() for part in parts]
        self._make_room(sum(len(head) + len(part.data) for head, part in zip(heads, parts, strict=True)))
        commands = [
            ("XADD", self._key, "*", _HEAD, head, _DATA, part.data) for head, part in zip(heads, parts, strict=True)
        ]
        for reply in self._link.ask(*commands, timeout_s=STREAM_TIMEOUT_S):
            if isinstance(reply, Exception):
                raise Unavailable(STREAM, f"it took no part: {reply}", retry_after_s=RETRY_AFTER_S, hint=_KEY_HINT)

    def reader(self, group: str, consumer: str) -> PartReader:
        """See `SegmentStream.reader`: over a connection of its own, which waits."""
        link = ValkeyLink(self._address, self._key, part=STREAM, acl_hint=_ACL_HINT)
        return _ValkeyReader(link, self._key, group, consumer, claim_idle_ms=self._claim_idle_ms)

    def state(self) -> StreamState:
        """See `SegmentStream.state`."""
        entries, used, groups = self._looked_at()
        states = tuple(
            GroupState(each["name"].decode(), each["consumers"], each["pending"], each.get("lag")) for each in groups
        )
        return StreamState(entries, used, self._bytes_max, states)

    def forget_group(self, group: str) -> bool:
        """See `SegmentStream.forget_group`."""
        (reply,) = self._link.ask(("XGROUP", "DESTROY", self._key, group), timeout_s=STREAM_TIMEOUT_S)
        return bool(reply == 1)

    def close(self) -> None:
        """See `SegmentStream.close`."""
        self._link.close()

    def _make_room(self, wanted: int) -> None:
        """Have room for so many bytes more. Raises Overloaded where slow groups leave none, and are waited for."""
        wanted += STREAM_PARTS_AT_ONCE * _ENTRY_BYTES
        entries, used, groups = self._looked_at()
        if groups and used:
            self._trim(f"MINID = {self._first_needed(groups)}")
        if used + wanted <= self._bytes_max:
            return
        entries, used = self._size()
        if used + wanted <= self._bytes_max:
            return
        if groups and self._when_full is WhenFull.WAIT:
            slow = ", ".join(f"`{each['name'].decode()}` ({_left(each)})" for each in groups if _is_behind(each))
            raise Overloaded(
                STREAM,
                f"it holds {used} of {self._bytes_max} bytes that groups have still to read: {slow}",
                retry_after_s=RETRY_AFTER_S,
                hint="look after these consumers, or have the group forgotten that nobody reads for any more",
            )
        trimmed = self._trim_oldest(entries, used, wanted)
        if groups:  # without one nobody misses anything: whoever joins later begins with what there is
            self.trimmed += trimmed

    def _trim_oldest(self, entries: int, used: int, wanted: int) -> int:
        """Have the oldest parts make room; how many did."""
        before = entries
        while entries and used + wanted > self._bytes_max:
            share = (used + wanted - self._bytes_max) / used
            self._trim(f"MAXLEN = {max(0, entries - max(1, round(entries * share)))}")
            entries, used = self._size()
        # The rest of a segment without its beginning is of no use to whoever comes new.
        while entries and self._begins_within_a_segment():
            self._trim(f"MAXLEN = {entries - 1}")
            entries -= 1
        return before - entries

    def _begins_within_a_segment(self) -> bool:
        (reply,) = self._link.ask(("XRANGE", self._key, "-", "+", "COUNT", 1), timeout_s=STREAM_TIMEOUT_S)
        for entry in reply:
            part = _delivery(entry).part
            return part is not None and part.head.part > 0
        return False

    def _trim(self, how: str) -> None:
        self._link.ask(("XTRIM", self._key, *how.split()), timeout_s=STREAM_TIMEOUT_S)

    def _size(self) -> tuple[int, int]:
        entries, used = self._link.ask(
            ("XLEN", self._key), ("MEMORY", "USAGE", self._key, "SAMPLES", 0), timeout_s=STREAM_TIMEOUT_S
        )
        if isinstance(entries, Exception) or isinstance(used, Exception):
            raise Unavailable(STREAM, f"`{self._key}` is no stream: {entries}", hint=_KEY_HINT)
        return entries, used or 0

    def _looked_at(self) -> tuple[int, int, list[Mapping[str, Any]]]:
        """Entries, bytes and the groups with what the server says of each; no groups where there is no stream."""
        entries, used = self._size()
        (reply,) = self._link.ask(("XINFO", "GROUPS", self._key), timeout_s=STREAM_TIMEOUT_S)
        groups = [] if isinstance(reply, Exception) else [_named(each) for each in reply]
        if len(groups) > STREAM_GROUPS_MAX:
            raise Unavailable(
                STREAM,
                f"it has {len(groups)} groups of consumers. Allowed: at most {STREAM_GROUPS_MAX}",
                hint="have groups forgotten that nobody reads for any more",
            )
        return entries, used, groups

    def _first_needed(self, groups: Sequence[Mapping[str, Any]]) -> str:
        """The id before which every group has acknowledged everything."""
        pending = [each["name"] for each in groups if each["pending"]]
        asked = [("XPENDING", self._key, name) for name in pending]
        replies = self._link.ask(*asked, timeout_s=STREAM_TIMEOUT_S) if asked else []
        oldest = {
            name: reply[1]
            for name, reply in zip(pending, replies, strict=True)
            if not isinstance(reply, Exception) and reply[1] is not None
        }
        needed = [oldest.get(each["name"]) or _following(each["last-delivered-id"]) for each in groups]
        return min(needed, key=_moment).decode()


class _ValkeyReader:
    """Implements `PartReader`. First what it left behind itself, then what is new, and what others left behind."""

    def __init__(self, link: ValkeyLink, key: str, group: str, consumer: str, *, claim_idle_ms: int) -> None:
        self._link = link
        self._key = key
        self._group = group
        self._consumer = consumer
        self._claim_idle_ms = claim_idle_ms
        self._joined = False
        self._own_after: bytes | None = b"0"
        """The id after which parts may be that are this member's already; None: there are none."""
        self._claim_from = b"0-0"
        self._claim_at = 0.0

    def receive(self, wait_s: float) -> list[Delivery]:
        """See `PartReader.receive`."""
        try:
            return self._own() or self._left_behind() or self._new(wait_s)
        except Unavailable:
            # Parts may have been given to this member in an answer that never came.
            self._own_after = b"0"
            raise

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """See `PartReader.acknowledge`."""
        tokens = [each.token for each in deliveries if isinstance(each.token, bytes)]
        if tokens:
            self._ask("XACK", self._key, self._group, *tokens)

    def close(self) -> None:
        """See `PartReader.close`."""
        self._link.close()

    def _own(self) -> list[Delivery]:
        if self._own_after is None:
            return []
        found = self._read(self._own_after, 0.0)
        self._own_after = _token(found[-1]) if found else None
        return found

    def _new(self, wait_s: float) -> list[Delivery]:
        return self._read(b">", wait_s)

    def _read(self, after: bytes, wait_s: float) -> list[Delivery]:
        self._join()
        named = ("XREADGROUP", "GROUP", self._group, self._consumer, "COUNT", STREAM_PARTS_AT_ONCE)
        waiting = ("BLOCK", max(1, round(wait_s * 1_000))) if wait_s else ()
        reply = self._ask(*named, *waiting, "STREAMS", self._key, after, wait_s=wait_s)
        return [] if reply is None else [_delivery(entry) for entry in reply[0][1]]

    def _left_behind(self) -> list[Delivery]:
        """Parts that a member has held for too long: it is dead, or it will find that they were taken."""
        if time.monotonic() < self._claim_at:
            return []
        named = ("XAUTOCLAIM", self._key, self._group, self._consumer, self._claim_idle_ms, self._claim_from)
        reply = self._ask(*named, "COUNT", STREAM_PARTS_AT_ONCE)
        self._claim_from = reply[0]
        if self._claim_from == b"0-0":
            self._claim_at = time.monotonic() + STREAM_CLAIM_EVERY_S
        # A server before version 7 names parts that were trimmed meanwhile, and has nothing to show for them.
        return [_delivery(entry) for entry in reply[1] if entry is not None]

    def _join(self) -> None:
        if self._joined:
            return
        self._ask("XGROUP", "CREATE", self._key, self._group, "0", "MKSTREAM")
        self._joined = True

    def _ask(self, *command: str | bytes | int, wait_s: float = 0.0) -> Any:
        (reply,) = self._link.ask(command, timeout_s=STREAM_TIMEOUT_S + wait_s)
        if not isinstance(reply, Exception) or str(reply).startswith("BUSYGROUP"):
            return reply
        if str(reply).startswith("NOGROUP"):
            # The stream was lost with its groups; the group begins anew with what there is.
            self._joined = False
        raise Unavailable(STREAM, str(reply), retry_after_s=RETRY_AFTER_S, hint=_KEY_HINT)


_ACL_HINT = "docs/segment-stream.md lists the commands that its ACL user needs"
_KEY_HINT = "its server must be Redis 6.2, Valkey or later, and no other program may use the stream's key"


def _delivery(entry: Any) -> Delivery:
    """What a stream's entry holds. One that was trimmed after it was delivered has no fields any more."""
    token, fields = entry
    if fields is None:
        return Delivery(None, token, "it was trimmed before it was read")
    named = dict(zip(fields[::2], fields[1::2], strict=True))
    try:
        return Delivery(read_part(named.get(_HEAD, b""), named.get(_DATA, b"")), token)
    except DamagedPart as damaged:
        return Delivery(None, token, str(damaged))


def _token(delivery: Delivery) -> bytes:
    assert isinstance(delivery.token, bytes), "made by _delivery"
    return delivery.token


def _named(flat: Sequence[Any]) -> Mapping[str, Any]:
    return {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}


def _following(entry_id: bytes) -> bytes:
    moment, number = _moment(entry_id)
    return f"{moment}-{number + 1}".encode()


def _moment(entry_id: bytes) -> tuple[int, int]:
    """An id as what it sorts by.

    >>> _moment(b"1700000000000-3")
    (1700000000000, 3)
    """
    moment, _, number = entry_id.partition(b"-")
    return int(moment), int(number)


def _is_behind(group: Mapping[str, Any]) -> bool:
    return bool(group["pending"]) or group.get("lag") != 0


def _left(group: Mapping[str, Any]) -> str:
    unread = group.get("lag")
    return f"{group['pending']} parts unacknowledged, {'some' if unread is None else unread} unread"
