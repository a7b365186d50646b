"""Registering definitions with Feast: looked at before, changed in one transaction, read back as they are then."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from skewless.adapters.definition_reading import declared_objects, declared_streams, definition_set, stream_metadata
from skewless.adapters.definition_tag_checks import check_tags
from skewless.adapters.feast_contract import compile_contract
from skewless.adapters.feast_definitions import Registered
from skewless.adapters.feast_functions import name_functions, try_functions
from skewless.adapters.feast_import import FeastError, FeatureStore, FeatureView, OnDemandFeatureView, quiet
from skewless.errors import InvalidDefinition, SkewlessError
from skewless.features.compiled_registry import CompiledRegistry
from skewless.features.contract import FeatureContract
from skewless.features.definition_metadata import DefinitionSet, StreamMetadata
from skewless.features.definition_metadata_checks import check_metadata
from skewless.features.feature_checks import Finding, Severity, check_definitions, hash_sizes
from skewless.registry.definition_transaction import one_transaction


@dataclass(frozen=True, slots=True)
class Removal:
    """Names that are registered and not in the module, by kind."""

    entities: tuple[str, ...] = ()
    views: tuple[str, ...] = ()
    services: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.entities or self.views or self.services)


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a module declares, beside what is registered. Nothing of it is registered yet.

    `wanted` is everything that would be registered: with a removal the module alone, else what is registered too.
    """

    objects: tuple[Any, ...]
    removal: Removal
    now: DefinitionSet
    wanted: DefinitionSet
    declared: DefinitionSet
    """What the module itself says."""
    contracts: CompiledRegistry
    """As it would be compiled."""
    findings: tuple[Finding, ...]


class Registration:
    """One project of one Feast store."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store

    def definitions(self, streams: Sequence[StreamMetadata] = ()) -> DefinitionSet:
        """Everything that is registered now; streams are not Feast's and are given."""
        return definition_set(Registered.read(self._store), streams)

    def propose(self, module: ModuleType, *, prune: bool = False, streams: Sequence[StreamMetadata] = ()) -> Proposal:
        """What registering a module's objects would come to. `streams` are the ones that are in force now.

        Raises InvalidDefinition for a module that declares nothing, and for on-demand functions that no server can run.
        """
        objects = declared_objects(module)
        declared = declared_streams(module)
        on_demand = [each for each in objects if isinstance(each, OnDemandFeatureView)]
        name_functions(on_demand)
        registered = Registered.read(self._store)
        wanted = registered.with_definitions(objects)
        removal = _removal(registered, objects) if prune else Removal()
        wanted = _without(wanted, removal)
        kept = [] if prune else [each for each in streams if each.name not in declared]
        said = [stream_metadata(each) for each in declared.values()]
        planned = definition_set(wanted, [*kept, *said])
        findings = [*check_definitions(wanted.definitions(), self.projects()), *check_metadata(planned)]
        findings += check_tags(planned)
        for each in declared.values():
            if each.view in planned.views:
                findings += each.problems(planned.views[each.view])
        contracts = compiled_registry(wanted)
        findings += _unreadable(contracts)
        return Proposal(
            objects=tuple(objects),
            removal=removal,
            now=definition_set(registered, streams),
            wanted=planned,
            declared=definition_set(_only(wanted, objects), said),
            contracts=contracts,
            findings=tuple(findings),
        )

    def register(self, proposal: Proposal, *, check: Callable[[], None] | None = None) -> None:
        """Register what is proposed: all of it or nothing.

        `check` is called once nobody else can change the registry any more; what it raises ends it. Raises
        InvalidDefinition, with nothing registered, for what Feast refuses.
        """
        on_demand = [each for each in proposal.objects if isinstance(each, OnDemandFeatureView)]
        registered = Registered.read(self._store)
        try_functions(registered.with_definitions(proposal.objects), on_demand)
        _keep_versions(registered, proposal.objects)
        registry = self._store.registry
        try:
            with quiet(), _feast_refusals(), one_transaction(registry):
                if check is not None:
                    check()
                self._remove(proposal.removal)
                self._store.apply(list(proposal.objects))
        except SkewlessError:
            registry.refresh(self._store.project)  # what it holds in memory was of the transaction
            raise

    def projects(self) -> tuple[str, ...]:
        """Every project of the registry, this one included; they may share a Redis."""
        return tuple(sorted({self._store.project, *(str(each.name) for each in self._store.list_projects())}))

    def _remove(self, removal: Removal) -> None:
        """Feast's own `apply` would also delete by a pattern of keys, which finds those of other projects.

        What the online store keeps of a removed view is swept by `skewless features repair`.
        """
        registry, project = self._store.registry, self._store.project
        for name in removal.services:
            registry.delete_feature_service(name, project, commit=False)
        for name in removal.views:
            registry.delete_feature_view(name, project, commit=False)
        for name in removal.entities:
            registry.delete_entity(name, project, commit=False)


def compiled_registry(registered: Registered) -> CompiledRegistry:
    """Every feature service with its contract, or with why it has none."""
    contracts: dict[str, FeatureContract] = {}
    refusals: dict[str, str] = {}
    for name in registered.services:
        try:
            contracts[name] = compile_contract(registered, name)
        except SkewlessError as error:
            refusals[name] = str(error)
    return CompiledRegistry(registered.project, contracts, refusals, hash_sizes(registered.definitions()))


def _keep_versions(registered: Registered, objects: Sequence[Any]) -> None:
    """Say of declared views which version is registered, where the store keeps views by version.

    Feast 0.67 forgets it where a view is registered again with the same schema, such as with another ttl: the store
    would be read and written under the name without a version from then on, and all that is in it would be missing.
    """
    if not registered.versioned:
        return
    for item in objects:
        known = registered.views.get(str(item.name)) if isinstance(item, FeatureView) else None
        if known is not None and item.current_version_number is None:
            item.current_version_number = known.current_version_number


def _unreadable(contracts: CompiledRegistry) -> Iterator[Finding]:
    """Feature services for which no contract could be made; nothing can be trained on one."""
    for name, reason in sorted(contracts.refusals.items()):
        message, _, hint = reason.partition("\n\nhint: ")
        yield Finding(
            Severity.WARNING, "unreadable_service", f"feature service `{name}` cannot be read: {message}", hint
        )


def _only(registered: Registered, objects: Sequence[Any]) -> Registered:
    """What would be registered if nothing else were than these objects."""
    return replace(registered, services={}, entities={}, on_demand={}, views={}).with_definitions(objects)


def _removal(registered: Registered, objects: Sequence[Any]) -> Removal:
    """What is registered and neither declared nor used by what is declared."""
    declared = _only(registered, objects)
    used = {str(each.name) for service in declared.services.values() for each in service.feature_view_projections}
    used |= {
        str(each.name) for view in declared.on_demand.values() for each in view.source_feature_view_projections.values()
    }
    views = {*registered.views, *registered.on_demand} - {*declared.views, *declared.on_demand} - used
    keyed = {name for view in {**registered.views, **declared.views}.values() if view.name not in views
             for name in view.entities}  # fmt: skip
    return Removal(
        entities=tuple(sorted(set(registered.entities) - set(declared.entities) - keyed)),
        views=tuple(sorted(views)),
        services=tuple(sorted(set(registered.services) - set(declared.services))),
    )


def _without(registered: Registered, removal: Removal) -> Registered:
    def kept(items: Any, names: Sequence[str]) -> dict[str, Any]:
        return {name: item for name, item in items.items() if name not in names}

    return replace(
        registered,
        services=kept(registered.services, removal.services),
        entities=kept(registered.entities, removal.entities),
        on_demand=kept(registered.on_demand, removal.views),
        views=kept(registered.views, removal.views),
    )


@contextmanager
def _feast_refusals() -> Iterator[None]:
    """What Feast finds wrong with definitions, as an error of ours."""
    try:
        yield
    except (FeastError, ValueError, TypeError) as error:
        raise InvalidDefinition(f"Feast refuses the definitions: {error}") from error
