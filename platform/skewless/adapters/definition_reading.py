"""Feast's own objects as plain definitions: what is registered, or would be if a module's objects were."""

from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

from skewless.adapters.feast_contract import DIGEST_TAG, FUNCTION_TAG
from skewless.adapters.feast_definitions import Registered
from skewless.adapters.feast_import import (
    DUMMY_ENTITY_NAME,
    Entity,
    FeatureService,
    FeatureView,
    FileSource,
    OnDemandFeatureView,
    ValueType,
    from_value_type,
)
from skewless.aggregates.declaration import StreamAggregates
from skewless.errors import InvalidDefinition
from skewless.features.definition_metadata import (
    DefinitionSet,
    EntityMetadata,
    FeatureMetadata,
    OnDemandMetadata,
    ServiceMetadata,
    SourceMetadata,
    StreamMetadata,
    ViewMetadata,
    ViewUse,
)

_FORMATS = {"ParquetFormat": "parquet", "DeltaFormat": "delta"}


def declared_objects(module: ModuleType) -> list[Any]:
    """Every Feast object of a module's names, each once. Raises InvalidDefinition where it has none."""
    kinds = (Entity, FeatureView, FeatureService, OnDemandFeatureView)
    found = list({id(item): item for item in vars(module).values() if isinstance(item, kinds)}.values())
    if not found:
        raise InvalidDefinition(
            f"module `{module.__name__}` defines no Feast entity, feature view or feature service",
            hint="define them as module-level names in the repository's features.py",
        )
    return found


def declared_streams(module: ModuleType) -> dict[str, StreamAggregates]:
    """Every declaration of aggregates of a module's names, by stream. Raises InvalidDefinition for one given twice."""
    streams: dict[str, StreamAggregates] = {}
    for item in vars(module).values():
        if isinstance(item, StreamAggregates) and streams.setdefault(item.name, item) is not item:
            raise InvalidDefinition(
                f"stream `{item.name}` is declared twice in module `{module.__name__}`", hint="rename one of the two"
            )
    return streams


def definition_set(registered: Registered, streams: Iterable[StreamMetadata] = ()) -> DefinitionSet:
    """Everything registered as plain data; streams are not Feast's and are given."""
    return DefinitionSet(
        project=registered.project,
        entities=_by_name(_entity(each) for each in registered.entities.values()),
        views=_by_name(_view(registered, each) for each in registered.views.values()),
        on_demand=_by_name(_on_demand(each) for each in registered.on_demand.values()),
        services=_by_name(_service(each) for each in registered.services.values()),
        streams=_by_name(streams),
    )


def stream_metadata(declared: StreamAggregates) -> StreamMetadata:
    """A declaration of aggregates as plain data."""
    return StreamMetadata(
        name=declared.name,
        view=declared.view,
        declaration=declared.to_json(),
        description=declared.description,
        owner=declared.owner,
    )


def _by_name(items: Iterable[Any]) -> dict[str, Any]:
    return {each.name: each for each in items}


def _entity(entity: Any) -> EntityMetadata:
    known = entity.value_type is not ValueType.UNKNOWN
    return EntityMetadata(
        name=str(entity.name),
        join_key=str(entity.join_key),
        feast_type=str(from_value_type(entity.value_type)) if known else "",
        description=entity.description,
        owner=entity.owner,
        tags=_tags(entity),
    )


def _view(registered: Registered, view: Any) -> ViewMetadata:
    stored_name = registered.stored_name(view, view.projection)
    return ViewMetadata(
        name=str(view.name),
        entities=tuple(str(name) for name in view.entities if name != DUMMY_ENTITY_NAME),
        join_keys=tuple(registered.join_keys(view).items()),
        features=tuple(_feature(each) for each in view.features),
        ttl_us=0 if view.ttl is None else int(view.ttl.total_seconds() * 1_000_000),
        source=_source(view.batch_source),
        stored_name="" if stored_name == view.name else stored_name,
        online=bool(view.online),
        kind=type(view).__name__,
        description=view.description,
        owner=view.owner,
        tags=_tags(view),
    )


def _source(source: Any) -> SourceMetadata | None:
    if source is None:
        return None
    is_file = isinstance(source, FileSource)
    return SourceMetadata(
        name=str(source.name),
        kind=type(source).__name__,
        path=str(source.path) if is_file else "",
        format=_FORMATS.get(type(source.file_format).__name__, "") if is_file else "",
        event_time=source.timestamp_field or "",
        created_time=source.created_timestamp_column or "",
        field_mapping=tuple(sorted((str(old), str(new)) for old, new in source.field_mapping.items())),
        description=source.description or "",
        owner=source.owner or "",
        tags=_tags(source),
    )


def _on_demand(view: Any) -> OnDemandMetadata:
    tags = _tags(view)
    fields = [each for _, source in sorted(view.source_request_sources.items()) for each in source.schema]
    return OnDemandMetadata(
        name=str(view.name),
        features=tuple(_feature(each) for each in view.features),
        inputs=tuple(sorted(str(each.name) for each in view.source_feature_view_projections.values())),
        request_fields=tuple((str(each.name), str(each.dtype)) for each in fields),
        mode=str(view.mode),
        function=tags.pop(FUNCTION_TAG, ""),
        source_digest=tags.pop(DIGEST_TAG, ""),
        description=view.description,
        owner=view.owner,
        tags=tags,
    )


def _service(service: Any) -> ServiceMetadata:
    return ServiceMetadata(
        name=str(service.name),
        uses=tuple(_use(each) for each in service.feature_view_projections),
        description=service.description,
        owner=service.owner,
        tags=_tags(service),
    )


def _use(projection: Any) -> ViewUse:
    return ViewUse(
        view=str(projection.name),
        name=str(projection.name_to_use()),
        features=tuple(str(each.name) for each in projection.features),
        join_key_map=tuple(sorted((str(old), str(new)) for old, new in projection.join_key_map.items())),
    )


def _feature(feature: Any) -> FeatureMetadata:
    return FeatureMetadata(str(feature.name), str(feature.dtype), feature.description or "", _tags(feature))


def _tags(item: Any) -> dict[str, str]:
    tags: Mapping[str, Any] = item.tags or {}
    return {str(name): str(value) for name, value in tags.items()}
