"""Feature reads of many concurrent requests: one pipeline for all that wait, one decode for all of one plan.

    requests   (plan, keys, rows, as_of) of callers that wait at the same moment
    parts      requests of one plan side by side: key columns concatenated, each entity once, as_of per row
    commands   of all parts, each command once: kept replies from the near cache, the others in one read
    frames     each part decoded at once, then cut back into its requests

A request that comes alone is prepared, read and decoded as it is. A read under way is never joined: its reply may be
older than the request, and whoever has just written a feature expects to read it.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skewless.coalescing import Coalescer
from skewless.dtypes import Column
from skewless.errors import SkewlessError
from skewless.features.decoding import DecodedRead
from skewless.features.frame import FeatureFrame
from skewless.features.near_cache import NearCache
from skewless.features.online_store import OnlineStore, Reply
from skewless.features.plan import PreparedRead, ReadPlan

PART = "feature reads"
"""What errors call the queue before the online store, whose own errors name the store."""


@dataclass(slots=True)
class _Request:
    """Not frozen, because making it would take three times as long, and one is made for every request."""

    plan: ReadPlan
    keys: Mapping[str, Column]
    rows: int
    as_of: int


@dataclass(frozen=True, slots=True)
class _Part:
    """Requests of one plan, prepared together. `places` are theirs in the flush."""

    requests: Sequence[_Request]
    places: Sequence[int]
    prepared: PreparedRead

    def frames(self, replies: Sequence[Reply], near: Sequence[bool] | None) -> list[FeatureFrame | Exception]:
        """A frame per request, or why it has none."""
        try:
            decoded = self.prepared.decode(replies, _moments(self.requests), near)
        except SkewlessError as error:
            return [error] * len(self.requests)
        frames: list[FeatureFrame | Exception] = []
        start = 0
        for request in self.requests:
            stop = start + request.rows
            try:
                frames.append(decoded.cut(start, stop))
            except SkewlessError as error:
                frames.append(error)
            start = stop
        return frames


@dataclass(frozen=True, slots=True)
class Recalled:
    """Features as they were last known. Of a hash of which nothing is known all values are `missing`."""

    read: DecodedRead
    unknown: int
    """Hashes of which nothing is known."""
    age_s: float
    """How long ago the oldest of what is known was read; 0 where nothing is."""


class FeatureReads:
    """Reads features for concurrent callers of one event loop."""

    def __init__(
        self,
        store: OnlineStore,
        *,
        near_cache: NearCache | None,
        rows_max: int,
        flushes_max: int,
        rows_waiting_max: int,
    ) -> None:
        """At most `rows_max` rows share a read, unless one request alone has more, and `flushes_max` reads are under
        way at once; at most `rows_waiting_max` rows wait for the next.
        """
        self._store = store
        self._near_cache = near_cache
        self._coalescer: Coalescer[_Request, FeatureFrame] = Coalescer(
            self._flush, part=PART, weight_max=rows_max, flushes_max=flushes_max, waiting_max=rows_waiting_max
        )

    async def read(
        self, plan: ReadPlan, keys: Mapping[str, Column], rows: int, as_of: int, *, timeout_s: float
    ) -> FeatureFrame:
        """The features of `rows` entities, given as a Column (rows,) per join key, at `as_of` (µs).

        The frame may be cut out of a larger one and share its memory. Raises Rejected, Unavailable (at once where too
        many rows wait already) and DeadlineExceeded.
        """
        # No row still costs its turn.
        return await self._coalescer.submit(_Request(plan, keys, rows, as_of), weight=rows or 1, timeout_s=timeout_s)

    def recall(
        self, plan: ReadPlan, keys: Mapping[str, Column], rows: int, as_of: int, *, age_max_s: float
    ) -> Recalled:
        """What is known of these features without asking the store, arguments as for `read`: for when it is away.

        Nothing that was read longer than `age_max_s` ago is taken, 0 takes nothing; what is not known is missing.
        """
        prepared = plan.prepare(keys, rows)
        count = prepared.cacheable if self._near_cache is not None and age_max_s > 0 else 0
        kept: Sequence[list[bytes | None] | None] = []
        age_s = 0.0
        if self._near_cache is not None and count:
            kept, age_s = self._near_cache.recall(prepared.commands[:count], age_max_s=age_max_s)
        kept = [*kept, *[None] * (len(prepared.commands) - count)]
        nothing = prepared.nothing_stored()
        replies: list[Reply] = [empty if reply is None else reply for reply, empty in zip(kept, nothing, strict=True)]
        decoded = prepared.decode(replies, as_of, [reply is not None for reply in kept])
        return Recalled(decoded, kept.count(None), age_s)

    async def close(self) -> None:
        """Refuse whoever waits. The store stays open."""
        await self._coalescer.close()

    async def _flush(self, requests: Sequence[_Request], timeout_s: float) -> Sequence[FeatureFrame | Exception]:
        if len(requests) == 1 and not requests[0].plan.repeats:
            request = requests[0]
            prepared = request.plan.prepare(request.keys, request.rows)
            replies, near = await self._fetch(prepared.keys, prepared.commands, prepared.cacheable, timeout_s)
            return (prepared.decode(replies, request.as_of, near).frame,)
        outcomes: list[FeatureFrame | Exception | None] = [None] * len(requests)
        parts = _parts(requests, outcomes)
        merged = _Merged(parts)
        replies, near = await self._fetch(merged.keys, merged.commands, merged.cacheable, timeout_s)
        for part, slots in zip(parts, merged.slots, strict=True):
            own_near = None if near is None else [near[slot] for slot in slots]
            frames = part.frames([replies[slot] for slot in slots], own_near)
            for place, frame in zip(part.places, frames, strict=True):
                outcomes[place] = frame
        return [outcome for outcome in outcomes if outcome is not None]

    async def _fetch(
        self, keys: Sequence[bytes], commands: Sequence[bytes], cacheable: int, timeout_s: float
    ) -> tuple[Sequence[Reply], Sequence[bool] | None]:
        """One reply per distinct command, and which were kept near; the first `cacheable` may be."""
        cache = self._near_cache
        if not commands:
            return [], None
        if cache is None or not cacheable:
            return await self._store.read(keys, commands, timeout_s=timeout_s), None
        kept = cache.lookup(commands[:cacheable])
        missing = [index for index, reply in enumerate(kept) if reply is None]
        fetched, distant = await self._fetch_both(
            cache,
            ([keys[index] for index in missing], [commands[index] for index in missing]),
            (keys[cacheable:], commands[cacheable:]),
            timeout_s,
        )
        answers = iter(fetched)
        replies: list[Reply] = [next(answers) if reply is None else reply for reply in kept]
        near = [reply is not None for reply in kept] + [False] * len(distant)
        return replies + list(distant), near

    async def _fetch_both(
        self,
        cache: NearCache,
        missing: tuple[Sequence[bytes], Sequence[bytes]],
        distant: tuple[Sequence[bytes], Sequence[bytes]],
        timeout_s: float,
    ) -> tuple[Sequence[Reply], Sequence[Reply]]:
        """Replies to (keys, commands) that go through the cache and to those that do not, read at the same time."""
        if not missing[0]:
            if distant[0]:
                return [], await self._store.read(*distant, timeout_s=timeout_s)
            # Nothing to wait for. Whoever reads in a loop lets the event loop run all the same, and with it the news of
            # changes, which would otherwise not be heard before the age bound.
            await asyncio.sleep(0)
            return [], []
        if not distant[0]:
            return await cache.fetch(*missing, timeout_s=timeout_s), []
        # Where one of them fails, the other ends by itself within its time; what it fetched is kept for the next.
        return await asyncio.gather(
            cache.fetch(*missing, timeout_s=timeout_s), self._store.read(*distant, timeout_s=timeout_s)
        )


class _Merged:
    """Commands of several parts, each once, those that may be kept near first. `slots` has each part's replies."""

    def __init__(self, parts: Sequence[_Part]) -> None:
        near: dict[bytes, bytes] = {}
        distant: dict[bytes, bytes] = {}
        for part in parts:
            prepared = part.prepared
            for index, command in enumerate(prepared.commands):
                (near if index < prepared.cacheable else distant)[command] = prepared.keys[index]
        self.commands = [*near, *distant]
        self.keys = [*near.values(), *distant.values()]
        self.cacheable = len(near)
        slot_near = {command: slot for slot, command in enumerate(near)}
        slot_distant = {command: slot for slot, command in enumerate(distant, start=len(near))}
        self.slots = [
            [slot_near[command] for command in part.prepared.commands[: part.prepared.cacheable]]
            + [slot_distant[command] for command in part.prepared.commands[part.prepared.cacheable :]]
            for part in parts
        ]


def _parts(requests: Sequence[_Request], outcomes: list[FeatureFrame | Exception | None]) -> list[_Part]:
    """The requests by plan, prepared. A request that cannot be has its error put into `outcomes` and no part."""
    places: dict[int, list[int]] = {}
    for place, request in enumerate(requests):
        places.setdefault(id(request.plan), []).append(place)
    parts = []
    for together in places.values():
        try:
            parts.append(_part(requests, together))
        except (SkewlessError, ValueError, LookupError):
            # One request's keys must not cost the others theirs: each for itself.
            parts += _parts_alone(requests, together, outcomes)
    return parts


def _parts_alone(
    requests: Sequence[_Request], places: Sequence[int], outcomes: list[FeatureFrame | Exception | None]
) -> list[_Part]:
    parts = []
    for place in places:
        try:
            parts.append(_part(requests, [place]))
        except (SkewlessError, ValueError, LookupError) as error:
            outcomes[place] = error
    return parts


def _part(requests: Sequence[_Request], places: Sequence[int]) -> _Part:
    own = [requests[place] for place in places]
    plan = own[0].plan
    if len(own) == 1:
        return _Part(own, places, plan.prepare(own[0].keys, own[0].rows))
    keys = {name: _side_by_side([request.keys[name] for request in own]) for name in plan.key_names}
    return _Part(own, places, plan.prepare(keys, sum([request.rows for request in own])))


def _side_by_side(columns: Sequence[Column]) -> Column:
    return Column(
        columns[0].dtype,
        np.concatenate([column.values for column in columns]),
        np.concatenate([column.valid for column in columns]),
    )


def _moments(requests: Sequence[_Request]) -> int | NDArray[np.int64]:
    """`as_of` of the requests: one moment where they share it, else one per row (rows,)."""
    moments = [request.as_of for request in requests]
    if moments.count(moments[0]) == len(moments):
        return moments[0]
    return np.repeat(np.array(moments, dtype=np.int64), [request.rows for request in requests])
