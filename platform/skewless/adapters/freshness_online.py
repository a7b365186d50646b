"""How old a view's rows in the online store are, by the event times that lie beside them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.adapters.redis_replies import packed
from skewless.errors import SkewlessError
from skewless.features.contract import JoinKey
from skewless.features.frame import NO_EVENT_TIME
from skewless.features.freshness import OnlineAges, newest, quantiles_of
from skewless.features.redis_layout import KeyTemplate, timestamp_field
from skewless.features.value_codec import event_times_of
from skewless.ingest_limits import FRESHNESS_STORE_S

_NOT_CONFIGURED = "no online store is configured here"


class StoredAges:
    """Looks up the rows of some entities of one view. Not for threads."""

    def __init__(
        self, store: BlockingRedisOnlineStore | None, project: str, join_keys: Sequence[JoinKey], stored_name: str
    ) -> None:
        """`stored_name` is the view's name in the store. Raises InvalidDefinition for keys that Feast cannot have."""
        self._store = store
        self._keys = KeyTemplate.compile(tuple(join_keys), project)
        given = [key.name for key in join_keys]
        self._order = [given.index(name) for name in self._keys.names]
        self._field = timestamp_field(stored_name)

    def look(
        self,
        as_of: int,
        evenly: Sequence[tuple[object, ...]],
        latest: Sequence[tuple[object, ...]],
        *,
        written: int | None,
    ) -> OnlineAges:
        """Ages at `as_of` (µs) of the rows of entities that lie `evenly`, and the newest of them and of the `latest`.

        Entities are tuples in order of the join keys. `written` is the newest event time that somebody noted to
        have written, None for nobody; it counts unless none of the entities is there.
        """
        if self._store is None:
            return OnlineAges(newest_event=written, problem=_NOT_CONFIGURED)
        try:
            times = self._stored([*evenly, *latest])
        except SkewlessError as error:
            return OnlineAges(problem=error.message)
        sampled, found = times[: len(evenly)], times[times != NO_EVENT_TIME]
        present = sampled[sampled != NO_EVENT_TIME]
        seen = int(found.max()) if len(found) else None
        was_emptied = len(times) > 0 and seen is None
        return OnlineAges(
            newest_event=None if was_emptied else newest([seen, written]),
            asked=len(evenly),
            found=len(present),
            ages_us=quantiles_of(as_of - present) if len(present) else None,
        )

    def _stored(self, entities: Sequence[tuple[object, ...]]) -> NDArray[np.int64]:
        """The event time (entities,) of each one's row, NO_EVENT_TIME where it has none. Raises Unavailable."""
        assert self._store is not None, "asked by look"
        if not entities:
            return np.empty(0, dtype=np.int64)
        single = len(self._keys.names) == 1
        asked = [each[0] if single else tuple(each[place] for place in self._order) for each in entities]
        keys = self._keys.keys(asked)
        commands = [packed("HMGET", key, self._field) for key in keys]
        replies = self._store.read(keys, commands, timeout_s=FRESHNESS_STORE_S)
        # A key of another type holds no row either.
        times, _ = event_times_of([None if isinstance(reply, Exception) else reply[0] for reply in replies])
        return times
