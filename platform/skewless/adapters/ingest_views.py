"""What can be ingested, out of the newest definitions in the registry database: without Feast, followed by number."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

import yaml

from skewless.adapters.ingest_rows import Presence, RowField, RowSchema, row_schema
from skewless.adapters.quality_files import load_suite, suite_files
from skewless.aggregates.declaration import StreamAggregates, events_path
from skewless.dtypes import FEAST_ALIASES, from_feast
from skewless.errors import InvalidDefinition, InvalidRequest, NotFound, SkewlessError, Unavailable
from skewless.features.contract import FeatureField, JoinKey, LogMark, ViewRead
from skewless.features.definition_metadata import DefinitionSet, FeatureMetadata, StreamMetadata, ViewMetadata
from skewless.features.point_in_time import OfflineSource, SourceForm
from skewless.ingestion.batches import BatchKind
from skewless.ingestion.event_times import EventTimePolicy, parse_future, parse_late
from skewless.limits import STRING_BYTES_MAX
from skewless.quality.suite import Suite
from skewless.quality.view_schema import ViewSchema, schema_of
from skewless.registry.definitions import DefinitionHead, DefinitionVersion

LATE, FUTURE = "late", "future"
"""Tags of a view: what becomes of rows whose event time is long past, and of such whose event time has not come."""
_DELTA = "delta"


class ReadDefinitions(Protocol):
    """Where definitions are read; `registry.definitions.Definitions` is one."""

    def current(self, project: str | None = None) -> DefinitionVersion | None:
        """The newest definitions."""
        ...

    def head(self, project: str | None = None) -> DefinitionHead | None:
        """Which they are, which says cheaply whether there are newer ones."""
        ...


@dataclass(frozen=True)
class IngestView:
    """One feature view that rows can be brought for."""

    project: str
    read: ViewRead
    """All of its features, under its own join keys."""
    source: OfflineSource
    schema: ViewSchema
    rows: RowSchema
    times: EventTimePolicy
    suite: Suite | None
    metadata: ViewMetadata

    @property
    def name(self) -> str:
        """The view's name."""
        return self.read.view


@dataclass(frozen=True)
class DeliveredView:
    """What delivering takes of a view. Nothing in it depends on how rows are judged on their way in."""

    project: str
    read: ViewRead
    """All of its features, under its own join keys."""
    source: OfflineSource


@dataclass(frozen=True)
class IngestStream:
    """One stream of raw events that aggregates are computed from."""

    project: str
    declaration: StreamAggregates
    source: OfflineSource
    """Of the rows of the view that it feeds."""
    read: ViewRead
    """That view, with all of its features."""
    times: EventTimePolicy
    tables: tuple[Path, ...] = ()
    """The Delta tables that are written to for it: its events, and the rows of its view."""

    @property
    def name(self) -> str:
        """The stream's name."""
        return self.declaration.name

    @cached_property
    def rows(self) -> RowSchema:
        """The events as callers bring them."""
        keys = tuple(name for name, _ in self.declaration.keys)
        fields = tuple(
            RowField(
                name,
                name,
                dtype,
                "join key" if name in keys else "event time" if name == self.declaration.event_time else "field",
                Presence.NULLABLE if nullable else Presence.REQUIRED,
                STRING_BYTES_MAX,
            )
            for name, dtype, nullable in self.declaration.event_columns
        )
        return RowSchema(self.name, fields, keys)


@dataclass(frozen=True)
class Catalogue:
    """What can be ingested by one version of the definitions; the rest with the reason why it cannot."""

    number: int
    project: str
    views: Mapping[str, IngestView]
    streams: Mapping[str, IngestStream]
    refused: Mapping[str, SkewlessError]
    """Views and streams by name, of which nothing can be taken."""
    refused_streams: frozenset[str] = frozenset()
    """Which of those are streams."""
    delivered: Mapping[str, DeliveredView] = field(default_factory=dict)
    """Views that accepted rows can be delivered for, whether more are taken now or not."""

    def refused_of(self, kind: BatchKind) -> Mapping[str, SkewlessError]:
        """Views, or streams, of which nothing can be taken."""
        is_stream = kind is BatchKind.EVENTS
        return {name: error for name, error in self.refused.items() if (name in self.refused_streams) is is_stream}


class IngestViews:
    """The newest catalogue. `refresh` looks; what is asked for answers at once, from memory."""

    def __init__(self, definitions: ReadDefinitions, repository: Path | None, *, project: str | None = None) -> None:
        """`repository` is the folder whose suites judge rows; None judges none."""
        self._definitions = definitions
        self._repository = repository
        self._project = project
        self._catalogue: Catalogue | None = None
        self._suite_state: tuple[tuple[str, int, int], ...] = ()
        self._lock = threading.Lock()
        self.on_change: Callable[[Catalogue], None] = lambda _catalogue: None
        self.error = ""
        """Why the definitions could not be read last; empty where they were."""

    @property
    def catalogue(self) -> Catalogue:
        """What is known. Raises Unavailable where nothing was ever read."""
        known = self._catalogue
        if known is None:
            raise Unavailable("feature definitions", self.error or "they have not been read yet")
        return known

    def refresh(self) -> None:
        """Read the definitions where there are newer ones. What is known stays while they cannot be read."""
        with self._lock:
            try:
                self._refresh()
                self.error = ""
            except SkewlessError as error:
                self.error = error.message

    def view(self, name: str) -> IngestView:
        """A view. Raises NotFound, InvalidRequest for one that takes no rows, Unavailable before anything was read."""
        known = self.catalogue
        if (found := known.views.get(name)) is not None:
            return found
        if (reason := known.refused_of(BatchKind.ROWS).get(name)) is not None:
            raise self._takes_none("feature view", name, reason)
        raise NotFound("feature view", name, known=tuple(sorted(known.views)), hint="`skewless features list`")

    def stream(self, name: str) -> IngestStream:
        """A stream. Raises as `view`."""
        known = self.catalogue
        if (found := known.streams.get(name)) is not None:
            return found
        if (reason := known.refused_of(BatchKind.EVENTS).get(name)) is not None:
            raise self._takes_none("stream", name, reason)
        raise NotFound(
            "stream of events", name, known=tuple(sorted(known.streams)), hint="declare one with StreamAggregates"
        )

    def delivered_view(self, name: str) -> DeliveredView:
        """A view that accepted rows are delivered for, also while it takes no more, as when its suite is a draft.

        Raises Unavailable where its definition allows no delivery: rows that were accepted wait until it is mended.
        NotFound where there is no such view.
        """
        known = self.catalogue
        if (found := known.delivered.get(name)) is not None:
            return found
        if (reason := known.refused_of(BatchKind.ROWS).get(name)) is not None:
            raise Unavailable(f"feature view `{name}`", reason.message, hint=reason.hint)
        raise NotFound("feature view", name, known=tuple(sorted(known.views)), hint="`skewless features list`")

    def delivered_stream(self, name: str) -> IngestStream:
        """A stream that accepted events are delivered for. Raises as `delivered_view`."""
        known = self.catalogue
        if (reason := known.refused_of(BatchKind.EVENTS).get(name)) is not None:
            raise Unavailable(f"stream `{name}`", reason.message, hint=reason.hint)
        return self.stream(name)

    def _takes_none(self, what: str, name: str, reason: SkewlessError) -> InvalidRequest:
        """An error of its own for each request: somebody may add to it on its way to the caller."""
        return InvalidRequest(
            f"{what} `{name}` takes no rows: {self.told(reason)}", path="$", hint=reason.hint, code="takes_no_rows"
        )

    def told(self, reason: SkewlessError) -> str:
        """Why nothing of a view or stream is taken, for callers: not where on this machine a suite lies."""
        return reason.message if self._repository is None else reason.message.replace(f"{self._repository}/", "")

    def knows(self, name: str) -> bool:
        """Whether there is a view or stream of that name, for labels."""
        known = self._catalogue
        return known is not None and (name in known.views or name in known.streams or name in known.refused)

    def _refresh(self) -> None:
        before = self._catalogue
        if before is not None and not self._suites_changed():
            head = self._definitions.head(before.project)
            if head is not None and head.number == before.number:
                return
        current = self._definitions.current(self._project)
        if current is None:
            raise Unavailable("feature definitions", "nothing was applied yet", hint="run `skewless apply`")
        self._catalogue = self._read(current)
        self.on_change(self._catalogue)

    def _read(self, current: DefinitionVersion) -> Catalogue:
        definitions = current.definitions
        views: dict[str, IngestView] = {}
        streams: dict[str, IngestStream] = {}
        refused: dict[str, SkewlessError] = {}
        wrong_streams: set[str] = set()
        fed = {each.view: each.name for each in definitions.streams.values()}
        suites = {} if self._repository is None else suite_files(self._repository)
        self._suite_state = _state(suites)  # before they are read: one that changes meanwhile is read again
        for name, view in definitions.views.items():
            try:
                views[name] = _view(definitions, view, suites.get(name), fed.get(name))
            except SkewlessError as error:
                refused[name] = error
        for name, stream in definitions.streams.items():
            try:
                streams[name] = _stream(definitions, stream)
            except SkewlessError as error:
                refused[name] = error
                wrong_streams.add(name)
        delivered = {
            name: found for name, view in definitions.views.items() if (found := _delivered(definitions, view))
        }
        return Catalogue(
            current.number, current.head.project, views, streams, refused, frozenset(wrong_streams), delivered
        )

    def _suites_changed(self) -> bool:
        files = {} if self._repository is None else suite_files(self._repository)
        return _state(files) != self._suite_state


def _view(definitions: DefinitionSet, view: ViewMetadata, suite_file: Path | None, stream: str | None) -> IngestView:
    if stream is not None:
        raise InvalidDefinition(
            f"feature view `{view.name}` is computed from the stream `{stream}`, so nobody else writes its rows",
            hint=f"post events to /v1/events/{stream}",
        )
    source = _source(view)
    read = _read_of(definitions, view)
    schema = schema_of(read, source)
    suite = None if suite_file is None else load_suite(suite_file, schema)
    if suite is not None and suite.reviewed is None:
        raise InvalidDefinition(
            f"the suite of `{view.name}` is a draft that nobody has reviewed, and a gate does not rely on it",
            hint="read it, then set meta.reviewed to today's date",
        )
    return IngestView(definitions.project, read, source, schema, row_schema(schema), _times(view), suite, view)


def _delivered(definitions: DefinitionSet, view: ViewMetadata) -> DeliveredView | None:
    """None for a view whose definition no row can be delivered by; `refused` of the catalogue has the reason."""
    try:
        return DeliveredView(definitions.project, _read_of(definitions, view), _source(view))
    except SkewlessError:
        return None


def _stream(definitions: DefinitionSet, stream: StreamMetadata) -> IngestStream:
    declaration = StreamAggregates.from_json(stream.declaration)
    view = definitions.views.get(stream.view)
    if view is None:
        raise InvalidDefinition(
            f"stream `{stream.name}` feeds the feature view `{stream.view}`, which is not defined",
            hint="define it as feast_aggregates.feature_view makes it",
        )
    rows = _source(view)
    tables = (Path(rows.path), Path(events_path(rows.path)))
    return IngestStream(definitions.project, declaration, rows, _read_of(definitions, view), _times(view), tables)


def _source(view: ViewMetadata) -> OfflineSource:
    """Raises InvalidDefinition for a source that no row can be added to."""
    source = view.source
    if source is None or source.format != _DELTA or not source.path:
        kind = "no source" if source is None else f"a source of kind {source.kind} ({source.format or 'no format'})"
        raise InvalidDefinition(
            f"feature view `{view.name}` has {kind}; rows can be ingested into a Delta table only",
            hint="declare FileSource(path=…, file_format=DeltaFormat()); a Parquet file has no place for one row more",
        )
    if not source.created_time:
        raise InvalidDefinition(
            f"the source of feature view `{view.name}` has no created time, so that of two rows of one moment nobody "
            "could say which one holds",
            hint="declare created_timestamp_column in its FileSource",
        )
    renamed = tuple(sorted((name, column) for column, name in source.field_mapping))
    return OfflineSource(
        view=view.name,
        path=source.path,
        event_time=source.event_time,
        created_time=source.created_time,
        columns=renamed,
        form=SourceForm.DELTA,
    )


def _read_of(definitions: DefinitionSet, view: ViewMetadata) -> ViewRead:
    personal = {each.join_key: LogMark.HASH for each in definitions.entities.values() if each.is_personal}
    keys = tuple(
        JoinKey(name, from_feast(kind, where=f"join key `{name}`"), log=personal.get(name, LogMark.KEEP))
        for name, kind in sorted(view.join_keys)
    )
    return ViewRead(
        view=view.name,
        join_keys=keys,
        ttl_us=view.ttl_us,
        features=tuple(_feature(each) for each in view.features),
        stored_name="" if view.stored_name in ("", view.name) else view.stored_name,
    )


def _feature(each: FeatureMetadata) -> FeatureField:
    alias = each.feast_type if each.feast_type in FEAST_ALIASES else ""
    mark = LogMark.HASH if each.is_personal else LogMark.KEEP
    return FeatureField(each.name, each.dtype, feast_type=alias, log=mark)


def _times(view: ViewMetadata) -> EventTimePolicy:
    return EventTimePolicy(parse_late(view.tags.get(LATE, "")), parse_future(view.tags.get(FUTURE, "")))


def _state(files: Mapping[str, Path]) -> tuple[tuple[str, int, int], ...]:
    """Another one when a suite was added, changed or removed; a file that is gone again has a state of its own."""
    found = []
    for name, path in sorted(files.items()):
        try:
            stat = path.stat()
        except OSError:  # removed since the folder was listed, or a link to nothing
            found.append((name, 0, -1))
        else:
            found.append((name, stat.st_mtime_ns, stat.st_size))
    return tuple(found)


def stored_lifetime_s(repository: Path | None) -> int:
    """How long Feast has a hash of the online store live after a write, in s; 0 for ever, also without a repository.

    Raises InvalidDefinition where the repository's feature_store.yaml cannot be read.
    """
    if repository is None:
        return 0
    path = repository / "feature_store.yaml"
    try:
        online = yaml.safe_load(path.read_text()).get("online_store")
        return int((online or {}).get("key_ttl_seconds") or 0)
    except (OSError, AttributeError, TypeError, ValueError, yaml.YAMLError) as error:
        raise InvalidDefinition(
            f"`{path}` cannot be read: {error}", hint="SKEWLESS_INGEST_REPO is the folder of the feature definitions"
        ) from error
