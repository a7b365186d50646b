"""Puts a deletion of entities together: every place that keeps them, and what is named because it is not reached."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skewless.adapters.aggregate_state import AggregateStates
from skewless.adapters.entity_erasure import Looked, Place, Surroundings, Unreached, erase, look
from skewless.adapters.entity_places import (
    CopiesPlace,
    OnlinePlace,
    OutboxPlace,
    QuarantinePlace,
    SourcePlace,
    StatePlace,
    sources_named,
)
from skewless.adapters.entity_rows import EntityRows
from skewless.adapters.erasure_leases import writers_waiting
from skewless.adapters.feast_stored_views import StoredProject, StoredView
from skewless.adapters.ingest_lane_thread import lane_lease
from skewless.adapters.ingest_outbox import Outbox
from skewless.adapters.materialization import LEASE_PREFIX
from skewless.adapters.offline_erasure import OfflineErasure
from skewless.adapters.online_erasure import ErasedViews, OnlineErasure
from skewless.adapters.online_scan import OnlineScan
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.adapters.redis_maintenance import OnlineStoreMaintenance
from skewless.adapters.redis_url import Topology, parse_store_url
from skewless.adapters.report_erasure import ReportErasure
from skewless.aggregates.declaration import CREATED_TIME, StreamAggregates, events_path
from skewless.cli.arguments import actor
from skewless.cli.entity_log import LogPlace
from skewless.cli.entity_unreached import unreached, unreached_sources
from skewless.cli.quality_gate import quarantine_of
from skewless.cli.workspace import Workspace
from skewless.durability import sync
from skewless.errors import InvalidRequest
from skewless.features.chosen_entities import ChosenEntities
from skewless.features.point_in_time import OfflineSource, SourceForm
from skewless.ingestion.batches import BatchKind
from skewless.registry.database import engine
from skewless.registry.definitions import Definitions
from skewless.registry.entity_copies import CopiesOf, EntityCopies
from skewless.registry.entity_deletions import DeletionRecord, DeletionRequest, Deletions
from skewless.registry.ingest_batches import IngestBatches
from skewless.registry.leases import Leases
from skewless.registry.quality_results import QualityResults
from skewless.timestamps import Micros

_REPORTS = ("parity", "repairs", "drift", "quality")
"""Folders of a home that have reports; quarantine is no report, and its Parquet files are left alone there."""


@dataclass(frozen=True, slots=True)
class EntityScope:
    """Whose rows, as the command line says it; without `views` those of all. `also`: files that no view reads."""

    entities: ChosenEntities
    views: tuple[str, ...] = ()
    before: Micros | None = None
    for_ever: bool = False
    also: tuple[Path, ...] = ()


class EntityWork:
    """Deletions in one workspace. Opened by `entity_work`."""

    def __init__(self, workspace: Workspace, stored: StoredProject, scope: EntityScope, parts: ExitStack) -> None:
        """Raises NotFound for an unknown view, and InvalidRequest where no view has these join keys."""
        self._workspace = workspace
        self._stored = stored
        self._scope = scope
        self._engine = engine(workspace.settings.registry_url)
        parts.callback(self._engine.dispose)
        self._store = parts.enter_context(closing(BlockingRedisOnlineStore(workspace.online_store_url)))
        self._views = _meant(stored, scope)
        self._streams = self._streams_of_views()
        self.deletions = Deletions(self._engine)

    def look(self, before: Micros) -> tuple[Looked, tuple[Unreached, ...]]:
        """What would go, and what would not be reached; changes nothing."""
        around = self._surroundings(before)
        return look(around.places), tuple(around.unreached)

    def delete(self, *, reason: str, progress: Callable[[str], None]) -> DeletionRecord:
        """Delete, and return the record; its receipt is kept in the home as well."""
        scope = self._scope
        # Views by their names in the store, as those who write rows call them.
        views = tuple(self._views) if scope.views else None
        request = DeletionRequest(scope.entities, views, scope.before, scope.for_ever, actor(), reason)
        record = erase(self.deletions, request, self._surroundings, progress=progress)
        write_receipt(self._workspace.home.root, record)
        return record

    def _surroundings(self, before: Micros) -> Surroundings:
        log = LogPlace(self._workspace, self._scope.entities, before)
        rows: list[Place] = [self._outbox(before), *self._sources(before), self._quarantine(before)]
        return Surroundings(
            rows=[*rows, *self._events(before), self._online(before)],
            rest=() if self._scope.views else self._copies(log),
            waiting=lambda: writers_waiting(Leases(self._engine), writers_leases(self._views, self._streams)),
            unreached=(
                *unreached_sources(
                    {name: view.source.path for name, view in self._views.items()}, self._stored.unreadable
                ),
                *unreached(self._workspace, self._scope.entities, self._read_files(), damaged=log.damaged),
            ),
            cleaning={
                "online store's files": self._rewrite_files,
                "registry database's files": EntityCopies(self._engine).forget_history,
            },
        )

    def _copies(self, log: LogPlace) -> list[Place]:
        """What was copied of rows and predictions, and last the log: copies are found by its predictions' ids."""
        wanted = self._scope.entities
        folders = [self._workspace.home.root / name for name in _REPORTS]
        copies = CopiesPlace(EntityCopies(self._engine), lambda: CopiesOf(wanted, log.prediction_ids()))
        return [copies, ReportErasure(folders, wanted, log.prediction_ids), log]

    def _rewrite_files(self) -> str:
        url = self._workspace.online_store_url
        if parse_store_url(url).topology is not Topology.SINGLE:
            return "it has several servers: run BGREWRITEAOF on each"
        with closing(OnlineStoreMaintenance(url, self._stored.project)) as maintenance:
            return maintenance.rewrite_files()

    def _rows(self, view: StoredView, before: Micros) -> EntityRows:
        """What is meant of a view, in the columns of its source."""
        columns = {
            key.key_name: view.source.column(key.key_name)
            for key in view.read.join_keys
            if key.key_name in self._scope.entities.keys
        }
        event_time = self._event_time(view.source.event_time)
        return EntityRows(self._scope.entities, columns, before, event_time, view.source.created_time or "")

    def _event_time(self, column: str) -> str:
        """The column by which a row without a created time is known; none where all that is there now is meant."""
        return "" if self._scope.before is None else column

    def _sources(self, before: Micros) -> Iterator[SourcePlace]:
        views: dict[str, list[str]] = {}
        for name, view in self._views.items():
            if "://" in view.source.path:
                continue  # not on a file system of this machine, which the receipt says
            # Views of one table are one place, where they call its columns alike.
            views.setdefault(f"{view.source.path} {self._rows(view, before)}", []).append(name)
        for names in views.values():
            view = self._views[names[0]]
            yield SourcePlace(sources_named(names), OfflineErasure(view.source, self._rows(view, before)))
        rows = EntityRows(self._scope.entities, {name: name for name in self._scope.entities.names}, before)
        for file in self._scope.also:
            source = OfflineSource(file.name, str(file.absolute()), "", None)
            yield SourcePlace(f"file {file.name}", OfflineErasure(source, rows))

    def _streams_of_views(self) -> dict[str, StreamAggregates]:
        """Streams of events that feed one of the views, as they are applied now."""
        current = Definitions(self._engine).current(self._stored.project)
        views = {view.read.view for view in self._views.values()}
        found = {} if current is None else current.definitions.streams
        return {
            name: StreamAggregates.from_json(each.declaration) for name, each in found.items() if each.view in views
        }

    def _events(self, before: Micros) -> Iterator[Place]:
        """Events of the streams, and what aggregates remember of them."""
        views = {view.read.view: view for view in self._views.values()}
        for name, stream in self._streams.items():
            path = events_path(views[stream.view].source.path)
            source = OfflineSource(name, path, stream.event_time, CREATED_TIME, form=SourceForm.DELTA)
            keys = {key: key for key in self._scope.entities.names}
            event_time = self._event_time(stream.event_time)
            rows = EntityRows(self._scope.entities, keys, before, event_time, CREATED_TIME)
            yield SourcePlace(f"events of {name}", OfflineErasure(source, rows))
        if self._streams:
            states = {
                name: AggregateStates(self._store, self._stored.project, stream)
                for name, stream in self._streams.items()
            }
            yield StatePlace(states, self._scope.entities)

    def _read_files(self) -> frozenset[str]:
        also = {str(each.absolute()) for each in self._scope.also}
        return frozenset({each.source.path for each in self._stored.views.values()} | also)

    def _outbox(self, before: Micros) -> OutboxPlace:
        keys = {name: name for name in self._scope.entities.names}
        rows = {view.read.view: self._rows(view, before) for view in self._views.values()}
        for name, stream in self._streams.items():
            rows[name] = EntityRows(self._scope.entities, keys, before, self._event_time(stream.event_time))
        return OutboxPlace(Outbox(IngestBatches(self._engine)), rows)

    def _quarantine(self, before: Micros) -> QuarantinePlace:
        rows = {view.read.view: self._rows(view, before) for view in self._views.values()}
        return QuarantinePlace(quarantine_of(self._workspace), QualityResults(self._engine), rows)

    def _online(self, before: Micros) -> OnlinePlace:
        meant = ErasedViews(
            {name: each.read for name, each in self._stored.views.items()},
            frozenset(self._views),
            not self._scope.views,
            before,
            undated_go=self._scope.before is None,
        )
        url, project = self._workspace.online_store_url, self._stored.project
        erasure = OnlineErasure(
            self._store, project, self._scope.entities, meant, lambda: OnlineScan(self._store, url, project)
        )
        return OnlinePlace(erasure)


@contextmanager
def entity_work(workspace: Workspace, scope: EntityScope) -> Iterator[EntityWork]:
    """All that a deletion needs. Raises as `EntityWork` and `Workspace.features`."""
    with workspace.registry(create=True):  # also makes the home's own database where there is none yet
        pass
    with ExitStack() as parts:
        yield EntityWork(workspace, workspace.features().stored(), scope, parts)


def writers_leases(views: Mapping[str, StoredView], streams: Iterable[str]) -> list[str]:
    """Those that materializations of views, by name in the store, and the lanes of ingestion work under.

    A lane goes by the view's own name: all its versions are one.
    """
    lanes = sorted({view.read.view for view in views.values()})
    return [
        *(LEASE_PREFIX + name for name in views),
        *(lane_lease(BatchKind.ROWS, name) for name in lanes),
        *(lane_lease(BatchKind.EVENTS, name) for name in streams),
    ]


def write_receipt(home: Path, record: DeletionRecord) -> Path:
    """Keep a receipt as JSON in the home, whole or not at all: `<home>/deletions/<id>.json`."""
    folder = home / "deletions"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{record.id}.json"
    partial = file.with_suffix(".partial")
    partial.write_text(receipt_text(record))
    sync(partial)
    partial.replace(file)
    sync(folder)
    return file


def receipt_text(record: DeletionRecord) -> str:
    """A receipt as JSON text; its digest is of the canonical form of all but itself."""
    told: Mapping[str, Any] = record.receipt or record.to_json()
    return json.dumps(told, indent=2, ensure_ascii=False) + "\n"


def _meant(stored: StoredProject, scope: EntityScope) -> dict[str, StoredView]:
    """The views, by name in the store, whose rows are meant."""
    names = [stored.stored_name(each) for each in scope.views] or list(stored.views)
    found = {}
    for name in names:
        keys = [key.key_name for key in stored.views[name].read.join_keys]
        if scope.entities.are_told_by(keys):
            scope.entities.values(stored.views[name].read.join_keys)
            found[name] = stored.views[name]
        elif scope.views:
            raise InvalidRequest(
                f"view `{name}` has not all of these join keys", path="--views", allowed=", ".join(keys) or "no keys"
            )
    if not found:
        known = sorted({key.key_name for each in stored.views.values() for key in each.read.join_keys})
        raise InvalidRequest(
            f"no view has the join keys {', '.join(scope.entities.names)}",
            path="KEY=VALUE",
            allowed=f"some of the join keys of a view, of {', '.join(known)}",
            hint="`skewless features list` shows which view has which keys",
        )
    return found
