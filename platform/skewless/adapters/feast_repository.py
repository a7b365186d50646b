"""The one place that talks to Feast: definitions, registry, materialization and writes in Feast's own layout.

Importing Feast takes seconds and changes the environment, so only command-line jobs import this module.
"""

import contextlib
import io
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import yaml

from skewless.canonical_json import Digest, digest
from skewless.dtypes import from_feast
from skewless.errors import InvalidDefinition, NotFound, Unavailable
from skewless.features.contract import (
    FeatureContract,
    FeatureField,
    JoinKey,
    Policy,
    RequestField,
    ViewRead,
    column_name,
)
from skewless.features.point_in_time import OfflineSource
from skewless.timestamps import from_micros

_MULTIPROCESS_VARIABLES = ("PROMETHEUS_MULTIPROC_DIR", "PROMETHEUS_MULTIPROCESS_DIR")


@contextlib.contextmanager
def _environment_kept() -> Iterator[None]:
    """Undo what importing Feast does to the environment.

    Feast points prometheus_client at a temporary folder; every process started after that would inherit it and
    silently count into files instead of memory.
    """
    before = {name: os.environ.get(name) for name in _MULTIPROCESS_VARIABLES}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


with _environment_kept():
    import feast.metrics  # noqa: F401  # it sets the variables; imported here so that it cannot do so later
    from feast import Entity, FeatureService, FeatureStore, FeatureView
    from feast.feature_view import DUMMY_ENTITY_FIELD, DUMMY_ENTITY_ID, DUMMY_ENTITY_VAL
    from feast.infra.offline_stores.file_source import FileSource
    from feast.repo_config import RepoConfig
    from feast.utils import _convert_arrow_to_proto, make_tzaware


@dataclass(frozen=True, slots=True)
class Connections:
    """Addresses that a repository's `feature_store.yaml` may name as `${SKEWLESS_…}`."""

    online_store: str
    """`host:port` of Redis or Valkey."""
    registry: str
    """SQLAlchemy URL of Feast's SQL registry."""

    def variables(self) -> dict[str, str]:
        """Values of the variables, by name."""
        return {
            "SKEWLESS_ONLINE_STORE": self.online_store,
            "SKEWLESS_FEAST_REGISTRY": self.registry,
        }


@dataclass(frozen=True, slots=True)
class Applied:
    """What `apply` put into the registry, by name."""

    entities: tuple[str, ...]
    feature_views: tuple[str, ...]
    feature_services: tuple[str, ...]


class FeatureRepository:
    """A Feast repository: the folder with `feature_store.yaml`, and the store it describes."""

    def __init__(self, folder: Path, connections: Connections) -> None:
        """Reads the configuration; nothing connects yet. Raises InvalidDefinition where it is missing or wrong."""
        self._config = _load_config(folder, connections)
        self._store = FeatureStore(config=self._config)

    @property
    def project(self) -> str:
        """Feast's project, which ends every Redis key."""
        return str(self._config.project)

    def apply(self, definitions: ModuleType) -> Applied:
        """Register every Feast object of a module. Adds and updates; removes nothing."""
        found: list[Any] = [
            item for item in vars(definitions).values() if isinstance(item, Entity | FeatureView | FeatureService)
        ]
        if not found:
            raise InvalidDefinition(
                f"module `{definitions.__name__}` defines no Feast entity, feature view or feature service",
                hint="define them as module-level names in the repository's features.py",
            )
        with _quiet():
            self._store.apply(found)
        return Applied(
            entities=_names(found, Entity),
            feature_views=_names(found, FeatureView),
            feature_services=_names(found, FeatureService),
        )

    def contract(
        self,
        feature_service: str,
        *,
        request_fields: tuple[RequestField, ...],
        nullable_keys: frozenset[str] = frozenset(),
        policies: Mapping[str, tuple[Policy, Policy]] | None = None,
    ) -> FeatureContract:
        """The contract of a registered feature service, in the service's order.

        Raises NotFound for an unknown service, InvalidDefinition for what cannot be read online yet or for a
        policy or nullable key that names nothing.
        """
        views = tuple(
            _view_read(view, projection, nullable_keys, policies or {})
            for view, projection in self._views(feature_service)
        )
        _refuse_unknown(views, nullable_keys, policies or {})
        return FeatureContract(
            project=self.project,
            views=views,
            request_fields=request_fields,
            definitions_digest=self._definitions_digest(feature_service),
        )

    def sources(self, feature_service: str) -> dict[str, OfflineSource]:
        """Where the offline rows of each view of a service lie, by view."""
        return {view.name: _offline_source(view) for view, _ in self._views(feature_service)}

    def materialize(self, as_of: int, progress: Callable[[str], None]) -> tuple[str, ...]:
        """Write the newest visible row of every entity at `as_of` (µs) into the online store, view by view.

        The whole history is searched, so that an entity that is stale is reported as stale and not as missing.
        Returns the views written. Raises Unavailable when the online store is away.
        """
        views = self._registered_views()
        for number, view in enumerate(views, start=1):
            progress(f"{number}/{len(views)} {view.name}")
            with _quiet(), _translated():
                self._store.materialize(
                    start_date=from_micros(0), end_date=from_micros(as_of), feature_views=[view.name]
                )
        return tuple(view.name for view in views)

    def writer(self, view_name: str) -> Callable[[pa.RecordBatch], None]:
        """A function that writes rows of one view: join keys, features, and the source's time columns.

        A stored row with a later event time is kept; of rows with the same event time the one written last stays,
        so give corrections in the order in which they became known. The function raises Unavailable when the online
        store is away; writing the same rows again is harmless. One writer per view at a time.
        """
        view = next(view for view in self._registered_views() if view.name == view_name)
        # Feast's list of views hides its placeholder for no entity.
        entities = view.entity_columns or [DUMMY_ENTITY_FIELD]
        join_keys = {column.name: column.dtype.to_value_type() for column in entities}
        provider = self._store._get_provider()  # noqa: SLF001  # Feast's write path without its per-call registry look-ups
        # Feast's own comparison also drops a correction, whose event time equals the stored one; ours replaces it.
        unconditional = self._config.model_copy(deep=True)
        unconditional.online_store.skip_dedup = True
        some_feature = [view.features[0].name]

        def write(rows: pa.RecordBatch) -> None:
            protos = _convert_arrow_to_proto(_with_entity(rows, join_keys), view, join_keys)
            with _translated():
                stored = provider.online_read(self._config, view, [row[0] for row in protos], some_feature)
                winners = _not_older(protos, [event_time for event_time, _ in stored])
                if winners:
                    provider.online_write_batch(unconditional, view, winners, progress=None)

        return write

    def time_columns(self, view_name: str) -> tuple[str, str | None]:
        """The source's event-time and created-time column of a view."""
        view = next(view for view in self._registered_views() if view.name == view_name)
        return view.batch_source.timestamp_field, view.batch_source.created_timestamp_column or None

    def online_features(self, feature_service: str, entity_rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
        """What Feast's own SDK reads, by full feature name; used to show that both readers agree."""
        with _quiet(), _translated():
            service = self._store.get_feature_service(feature_service)
            answer = self._store.get_online_features(service, entity_rows, full_feature_names=True)
        values: dict[str, list[Any]] = answer.to_dict()
        return values

    def _registered_views(self) -> list[Any]:
        views: list[Any] = sorted(self._store.list_batch_feature_views(), key=lambda view: str(view.name))
        if not views:
            raise InvalidDefinition(
                f"project `{self.project}` has no registered feature view", hint="run `skewless apply` first"
            )
        return views

    def _views(self, feature_service: str) -> list[tuple[Any, Any]]:
        """(feature view, projection) of each entry of a service."""
        services = {service.name: service for service in self._store.list_feature_services()}
        if feature_service not in services:
            raise NotFound(
                "feature service", feature_service, known=tuple(sorted(services)), hint="run `skewless apply` first"
            )
        projections = services[feature_service].feature_view_projections
        return [(self._store.get_feature_view(projection.name), projection) for projection in projections]

    def _definitions_digest(self, feature_service: str) -> Digest:
        return digest([_definition(view, projection) for view, projection in self._views(feature_service)])


def _load_config(folder: Path, connections: Connections) -> RepoConfig:
    path = folder / "feature_store.yaml"
    try:
        text = path.read_text()
    except OSError as error:
        raise InvalidDefinition(
            f"`{path}` cannot be read: {error.strerror}", hint="set SKEWLESS_REPO to the folder of a Feast repository"
        ) from error
    for name, value in connections.variables().items():
        text = text.replace(f"${{{name}}}", value)
    try:
        return RepoConfig(**yaml.safe_load(text), repo_path=folder.resolve())
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise InvalidDefinition(f"`{path}` is not a Feast configuration: {error}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Feast prints its progress to standard output, which here carries data only."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    from redis.exceptions import RedisError  # Feast's online store lets the client's errors through

    try:
        yield
    except (RedisError, OSError) as error:
        raise Unavailable("online store", str(error), hint="run `skewless doctor`") from error


def _with_entity(rows: pa.RecordBatch, join_keys: Mapping[str, Any]) -> pa.RecordBatch:
    """The rows with Feast's placeholder key where the view has no entity."""
    if DUMMY_ENTITY_ID not in join_keys:
        return rows
    return rows.append_column(DUMMY_ENTITY_ID, pa.array([DUMMY_ENTITY_VAL] * rows.num_rows, pa.string()))


def _not_older(rows: list[Any], stored: list[Any]) -> list[Any]:
    """Rows (key, values, event time, created time) that are at least as new as what is stored and written before."""
    newest: dict[bytes, Any] = {}
    kept = []
    for row, stored_time in zip(rows, stored, strict=True):
        key, event_time = row[0].SerializeToString(), make_tzaware(row[2])
        known = newest.get(key, stored_time)
        if known is None or event_time >= known:
            newest[key] = event_time
            kept.append(row)
    return kept


def _names(items: list[Any], kind: Any) -> tuple[str, ...]:
    return tuple(sorted(str(item.name) for item in items if isinstance(item, kind)))


def _view_read(
    view: Any, projection: Any, nullable_keys: frozenset[str], policies: Mapping[str, tuple[Policy, Policy]]
) -> ViewRead:
    where = f"feature view `{view.name}`"
    if projection.name_alias or projection.join_key_map or projection.version_tag:
        raise InvalidDefinition(
            f"{where} is used with an alias, a join-key map or a version pin, which cannot be read online yet",
            hint="use the view under its own name in the feature service",
        )
    features = []
    for field in projection.features:
        on_missing, on_stale = policies.get(column_name(view.name, field.name), (Policy(), Policy()))
        dtype = from_feast(str(field.dtype), where=f"feature `{view.name}:{field.name}`")
        features.append(FeatureField(field.name, dtype, on_missing, on_stale))
    # A view without an entity has Feast's placeholder for one, which nobody is asked for.
    entities = (column for column in view.entity_columns if column.name != DUMMY_ENTITY_ID)
    keys = sorted(entities, key=lambda column: str(column.name))
    return ViewRead(
        view=view.name,
        join_keys=tuple(
            JoinKey(
                key.name, from_feast(str(key.dtype), where=f"{where}, entity `{key.name}`"), key.name in nullable_keys
            )
            for key in keys
        ),
        ttl_us=0 if view.ttl is None else int(view.ttl.total_seconds() * 1_000_000),
        features=tuple(features),
    )


def _refuse_unknown(
    views: tuple[ViewRead, ...], nullable_keys: frozenset[str], policies: Mapping[str, tuple[Policy, Policy]]
) -> None:
    keys = {key.name for view in views for key in view.join_keys}
    columns = {column_name(view.view, feature.name) for view in views for feature in view.features}
    for kind, named, known in (("nullable key", nullable_keys, keys), ("policy", frozenset(policies), columns)):
        unknown = sorted(named - known)
        if unknown:
            raise InvalidDefinition(
                f"{kind} `{unknown[0]}` names nothing that the feature service reads. Known: {', '.join(sorted(known))}"
            )


def _offline_source(view: Any) -> OfflineSource:
    source = view.batch_source
    if not isinstance(source, FileSource):
        raise InvalidDefinition(
            f"feature view `{view.name}` has a {type(source).__name__}; training reads file sources only yet",
            hint="give it a FileSource over Parquet",
        )
    renamed = {new: old for old, new in source.field_mapping.items()}
    return OfflineSource(
        view=view.name,
        path=source.path,
        event_time=source.timestamp_field,
        created_time=source.created_timestamp_column or None,
        columns=tuple(sorted(renamed.items())),
    )


def _definition(view: Any, projection: Any) -> dict[str, Any]:
    """Everything about a view that changes what its features mean; paths and descriptions do not."""
    return {
        "view": view.name,
        "entities": sorted([column.name, str(column.dtype)] for column in view.entity_columns),
        "features": [[field.name, str(field.dtype)] for field in projection.features],
        "ttl_s": 0 if view.ttl is None else view.ttl.total_seconds(),
        "event_time": view.batch_source.timestamp_field,
        "created_time": view.batch_source.created_timestamp_column or "",
        "field_mapping": sorted(view.batch_source.field_mapping.items()),
    }
