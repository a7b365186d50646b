"""How fresh every view is, out of its source, the online store and what was served: for the monitor and for commands.

No Feast: the definitions are those of the registry database.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from skewless.adapters.freshness_online import StoredAges
from skewless.adapters.freshness_served import ServedTraffic, Traffic
from skewless.adapters.freshness_source import Entities, SourceReader
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.adapters.watched_bundles import WatchedBundles
from skewless.bundles.artifact_store import ArtifactStore
from skewless.dtypes import from_feast
from skewless.errors import InvalidDefinition, SkewlessError
from skewless.features.contract import JoinKey
from skewless.features.definition_metadata import DefinitionSet, ViewMetadata
from skewless.features.freshness import Clock, OnlineAges, SourceAges, ViewFreshness
from skewless.features.point_in_time import OfflineSource, SourceForm
from skewless.registry.database import engine
from skewless.registry.definitions import Definitions
from skewless.registry.drift_records import DriftRecords
from skewless.registry.endpoints import Endpoints
from skewless.registry.materializations import Materializations
from skewless.registry.transactions import system_clock
from skewless.timestamps import Micros

_NO_SOURCE = "the view has no source of its own: rows come by push alone"


@dataclass(slots=True)
class _Watched:
    """One view with what looks at it; `problem` says why nobody can, empty where somebody does."""

    view: ViewMetadata
    path: str
    source: SourceReader | None
    stored: StoredAges | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class FreshnessFound:
    """What one look found, by view; `took_s` is how long it took."""

    views: tuple[ViewFreshness, ...]
    number: int | None
    """Of the definitions; None where nothing was ever applied."""
    traffic_problem: str
    took_s: float


class FreshnessLook:
    """Looks at all views, again and again. Not for threads."""

    def __init__(
        self,
        database_url: str,
        artifacts: ArtifactStore,
        *,
        online_store: str | None,
        clock: Callable[[], Micros] = system_clock,
    ) -> None:
        """`online_store` is the store's URL, None where it is not to be asked. Nothing is connected yet.

        Raises InvalidSettings for an address that cannot be used.
        """
        connections = engine(database_url)
        self._definitions = Definitions(connections)
        self._materializations = Materializations(connections)
        bundles = WatchedBundles(artifacts)
        self._traffic = ServedTraffic(Endpoints(connections), DriftRecords(connections), bundles)
        self._store = None if online_store is None else BlockingRedisOnlineStore(online_store)
        self._clock = clock
        self._number: int | None = None
        self._watched: dict[str, _Watched] = {}

    def look(self, *, as_of: int | None = None, only: str | None = None) -> FreshnessFound:
        """How fresh views are: at `as_of` (µs) where it is given, else each at the moment that its traffic lives in.

        `only` names one view. Raises Unavailable while the database is away; what else is away is told by view.
        """
        began_s = time.monotonic()
        self._follow()
        traffic, now = self._looked_at_traffic(), self._clock()
        views = []
        for name, watched in self._watched.items():
            if only in (None, name):
                moment, kind = (as_of, Clock.GIVEN) if as_of is not None else traffic.clock(name, now)
                views.append(self._fresh(watched, moment, kind, traffic))
        return FreshnessFound(tuple(views), self._number, traffic.problem, time.monotonic() - began_s)

    @property
    def views(self) -> tuple[str, ...]:
        """The names of all views."""
        return tuple(self._watched)

    def close(self) -> None:
        """Give back connections."""
        if self._store is not None:
            self._store.close()
        self._definitions.close()

    def _looked_at_traffic(self) -> Traffic:
        try:
            return self._traffic.look()
        except InvalidDefinition as error:  # a bundle or counts of another version
            return Traffic(problem=error.message)

    def _follow(self) -> None:
        """Take up new definitions."""
        head = self._definitions.head()
        if head is None or head.number == self._number:
            return
        current = self._definitions.current()
        assert current is not None, "versions are never taken away"
        self._number = current.number
        before, found = self._watched, {}
        for name, view in sorted(current.definitions.views.items()):
            same = before.get(name)
            found[name] = same if same and same.view == view else self._opened(current.definitions, view)
        self._watched = found

    def _opened(self, definitions: DefinitionSet, view: ViewMetadata) -> _Watched:
        path = "" if view.source is None else view.source.path
        try:
            keys = tuple(JoinKey(name, from_feast(kind, where=f"join key `{name}`")) for name, kind in view.join_keys)
            stored = StoredAges(self._store, definitions.project, keys, view.stored_name or view.name)
            source = offline_source(view)
        except InvalidDefinition as error:
            return _Watched(view, path, None, None, error.message)
        reader = None if source is None else SourceReader(source, keys)
        return _Watched(view, path, reader, stored if view.online else None)

    def _fresh(self, watched: _Watched, as_of: int, clock: Clock, traffic: Traffic) -> ViewFreshness:
        view = watched.view
        source = SourceAges(problem=watched.problem, note="" if watched.problem else _NO_SOURCE)
        if watched.source is not None:
            source = watched.source.look(as_of)
        return ViewFreshness(
            view=view.name,
            as_of=as_of,
            clock=clock,
            target_us=view.freshness_us,
            path=watched.path,
            source=source,
            online=self._online(watched, as_of),
            served=traffic.served.get(view.name),
            is_online=view.online,
        )

    def _online(self, watched: _Watched, as_of: int) -> OnlineAges:
        if watched.stored is None:
            return OnlineAges(problem=watched.problem)
        name = watched.view.stored_name or watched.view.name
        try:
            watermark = self._materializations.watermark(name)
        except SkewlessError as error:
            return OnlineAges(problem=error.message)
        written = None if watermark is None or watermark.event_time > as_of else watermark.event_time
        entities = Entities() if watched.source is None else watched.source.entities(as_of)
        return watched.stored.look(as_of, entities.evenly, entities.newest, written=written)


def offline_source(view: ViewMetadata) -> OfflineSource | None:
    """Where the rows of a view lie; None where it has no source. Raises InvalidDefinition for one that is no file."""
    source = view.source
    if source is None:
        return None
    if not source.path or not source.event_time:
        raise InvalidDefinition(
            f"feature view `{view.name}` has a {source.kind}, and only files are looked at",
            hint="give it a FileSource over Parquet or a Delta table",
        )
    return OfflineSource(
        view=view.name,
        path=source.path,
        event_time=source.event_time,
        created_time=source.created_time or None,
        columns=tuple(sorted((name, column) for column, name in source.field_mapping)),
        form=SourceForm.DELTA if source.format == SourceForm.DELTA else SourceForm.PARQUET,
    )
