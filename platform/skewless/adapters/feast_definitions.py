"""What is registered with Feast for one project, read once; nothing that a registry has pickled is loaded."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, Self

from skewless.adapters.feast_import import (
    DUMMY_ENTITY_ID,
    DUMMY_ENTITY_NAME,
    Entity,
    FeastError,
    FeatureService,
    FeatureStore,
    OnDemandFeatureView,
    ValueType,
    compute_versioned_name,
    from_value_type,
    quiet,
)
from skewless.errors import InvalidDefinition, NotFound
from skewless.features.feature_checks import ViewDefinition

_APPLY = "run `skewless apply` first"


@dataclass(frozen=True, slots=True)
class Registered:
    """A project's services, views and entities by name, as Feast's own objects."""

    project: str
    versioned: bool
    """Whether the online store keeps views by version (`registry.enable_online_feature_view_versioning`)."""
    services: Mapping[str, Any]
    views: Mapping[str, Any]
    """Views that are stored: batch, push and stream feature views."""
    on_demand: Mapping[str, Any]
    entities: Mapping[str, Any]
    _registry: Any
    _next_versions: Mapping[str, int | None] = field(default_factory=dict)
    """Versions that views will have which are not registered yet as they are here."""

    @classmethod
    def read(cls, store: FeatureStore) -> Self:
        """Everything registered now."""
        registry, project = store.registry, store.project
        with quiet():
            views = [
                *registry.list_feature_views(project, skip_udf=True),
                *registry.list_stream_feature_views(project, skip_udf=True),
            ]
            on_demand = registry.list_on_demand_feature_views(project, skip_udf=True)
        return cls(
            project=project,
            versioned=bool(store.config.registry.enable_online_feature_view_versioning),
            services=_by_name(registry.list_feature_services(project)),
            views=_by_name(views),
            on_demand=_by_name(on_demand),
            entities=_by_name(registry.list_entities(project)),
            _registry=registry,
        )

    def service(self, name: str) -> Any:
        """A feature service. Raises NotFound."""
        if name not in self.services:
            raise NotFound("feature service", name, known=tuple(sorted(self.services)), hint=_APPLY)
        return self.services[name]

    def view(self, name: str, version: int | None) -> Any:
        """A stored or on-demand view, at its pinned version or (None) as it is now. Raises InvalidDefinition."""
        if version is not None:
            return self._pinned(name, version)
        if name not in self.views and name not in self.on_demand:
            raise InvalidDefinition(
                f"`{name}` is no registered feature view of project `{self.project}` that can be read online",
                hint=_APPLY,
            )
        return self.views[name] if name in self.views else self.on_demand[name]

    def _pinned(self, name: str, version: int) -> Any:
        if not self.versioned:
            raise InvalidDefinition(
                f"feature view `{name}` is pinned to version {version}, but the store keeps no versions",
                hint="set `enable_online_feature_view_versioning: true` under `registry` in feature_store.yaml",
            )
        try:
            with quiet():
                return self._registry.get_feature_view_by_version(name, self.project, version)
        except FeastError as error:
            raise InvalidDefinition(
                f"feature view `{name}` has no version {version}", hint="`feast feature-views list-versions` lists them"
            ) from error

    def stored_name(self, view: Any, projection: Any) -> str:
        """What hash fields call a view that is used through a projection."""
        version = view.current_version_number
        if version is None:
            version = self._next_versions.get(str(view.name))
        # Not a copy of the view: Feast's own copies forget which version they are.
        used = SimpleNamespace(name=view.name, projection=projection, current_version_number=version)
        return str(compute_versioned_name(used, self.versioned))

    def join_keys(self, view: Any) -> dict[str, str]:
        """Feast's name of the type of each stored join key; empty where nobody declared it.

        A view that is not registered yet has only the keys of its schema for columns; its entities have the others.
        """
        declared = {str(column.name): str(column.dtype) for column in view.entity_columns}
        for name in view.entities:
            entity = self.entities.get(name)
            if entity is not None and entity.join_key not in declared:
                known = entity.value_type is not ValueType.UNKNOWN
                declared[str(entity.join_key)] = str(from_value_type(entity.value_type)) if known else ""
        # A view without an entity has Feast's placeholder for one, which nobody is asked for.
        return {name: kind for name, kind in sorted(declared.items()) if name != DUMMY_ENTITY_ID}

    def key_tags(self, view: Any) -> dict[str, dict[str, str]]:
        """Tags of the entity of each stored join key; a key whose entity is not registered has none."""
        found = [self.entities[name] for name in view.entities if name in self.entities]
        return {str(entity.join_key): dict(entity.tags) for entity in found}

    def with_definitions(self, found: Iterable[Any]) -> Self:
        """What would be registered if these objects were, too."""
        kinds: dict[str, dict[str, Any]] = {"services": {}, "entities": {}, "on_demand": {}, "views": {}}
        for item in found:
            kind = "views"
            if isinstance(item, FeatureService):
                kind = "services"
            elif isinstance(item, Entity):
                kind = "entities"
            elif isinstance(item, OnDemandFeatureView):
                kind = "on_demand"
            kinds[kind][str(item.name)] = item
        next_versions = {
            name: _next_version(self.views[name], item) for name, item in kinds["views"].items() if name in self.views
        }
        return replace(
            self,
            _next_versions={**self._next_versions, **next_versions},
            services={**self.services, **kinds["services"]},
            entities={**self.entities, **kinds["entities"]},
            on_demand={**self.on_demand, **kinds["on_demand"]},
            views={**self.views, **kinds["views"]},
        )

    def definitions(self) -> list[ViewDefinition]:
        """Every view as plain data, stored ones first, each kind by name."""
        used = [each for service in self.services.values() for each in service.feature_view_projections]
        used += [each for view in self.on_demand.values() for each in view.source_feature_view_projections.values()]
        found = [*(self.views[name] for name in sorted(self.views))]
        found += [self.on_demand[name] for name in sorted(self.on_demand)]
        return [self._definition(view, [each for each in used if each.name == view.name]) for view in found]

    def _definition(self, view: Any, projections: list[Any]) -> ViewDefinition:
        on_demand = isinstance(view, OnDemandFeatureView)
        names = [self.stored_name(view, each) for each in (view.projection, *projections)]
        return ViewDefinition(
            name=str(view.name),
            join_keys=() if on_demand else tuple(self.join_keys(view).items()),
            features=tuple((str(field.name), str(field.dtype)) for field in view.features),
            stored_names=() if on_demand else tuple(dict.fromkeys(names)),
            aliases=tuple(dict.fromkeys(str(each.name_to_use()) for each in projections)),
            on_demand=on_demand,
        )


def _next_version(registered: Any, declared: Any) -> int | None:
    """The version that Feast gives a view when it is registered again: a new one where its schema differs."""

    def schema(view: Any) -> tuple[list[str], list[tuple[str, str]]]:
        return sorted(view.entities), sorted((str(each.name), str(each.dtype)) for each in view.features)

    known: int | None = registered.current_version_number
    return known if schema(registered) == schema(declared) else (known or 0) + 1


def _by_name(items: Iterable[Any]) -> dict[str, Any]:
    return {str(item.name): item for item in items if item.name != DUMMY_ENTITY_NAME}
