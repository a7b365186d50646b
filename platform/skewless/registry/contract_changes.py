"""Whether the feature definitions that a bundle was built from are still registered, and what differs."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from skewless.features.compiled_registry import CompiledRegistry
from skewless.features.contract import FeatureContract, ViewRead
from skewless.timestamps import SECOND_US


class Definitions(StrEnum):
    """How a bundle's definitions compare with the registered ones."""

    CURRENT = "current"
    CHANGED = "changed"
    UNKNOWN = "unknown"
    """There is no registry snapshot to compare with."""


@dataclass(frozen=True, slots=True)
class ContractState:
    """The outcome, and in words what differs; empty where nothing does."""

    definitions: Definitions
    detail: str = ""


def compare_contract(contract: FeatureContract, registry: CompiledRegistry | None) -> ContractState:
    """Compare a bundle's contract with its project's compiled registry, None where there is no snapshot of it.

    A contract does not name the feature service that it was made from, so it is current when any registered service
    has its definitions. Otherwise the service that reads most of the same views says what differs.
    """
    if registry is None:
        return ContractState(
            Definitions.UNKNOWN,
            f"there is no registry snapshot of project `{contract.project}`; `skewless apply` makes one",
        )
    services = registry.contracts
    if any(service.definitions_digest == contract.definitions_digest for service in services.values()):
        return ContractState(Definitions.CURRENT)
    wanted = {view.name for view in contract.views}
    common = {name: len(wanted & {view.name for view in service.views}) for name, service in services.items()}
    nearest = max(sorted(common), key=lambda name: common[name], default=None)
    if nearest is None or (wanted and not common[nearest]):
        return ContractState(Definitions.CHANGED, f"no feature service reads {_listed(wanted)} any more")
    differences = list(_differences(contract, services[nearest]))
    told = "; ".join(differences) or "they differ in what a contract does not hold, such as sources"
    return ContractState(Definitions.CHANGED, f"feature service `{nearest}` is now another one: {told}")


def _differences(old: FeatureContract, new: FeatureContract) -> Iterator[str]:
    views = {view.name: view for view in new.views}
    for view in old.views:
        if view.name not in views:
            yield f"view `{view.name}` is gone"
        else:
            yield from _view_differences(view, views[view.name])
    for name in sorted(views.keys() - {view.name for view in old.views}):
        yield f"view `{name}` is new"
    before = {view.name: view.source_digest for view in old.on_demand}
    after = {view.name: view.source_digest for view in new.on_demand}
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield f"on-demand view `{name}` is {_change(name in before, name in after)}"


def _view_differences(old: ViewRead, new: ViewRead) -> Iterator[str]:
    where = f"view `{old.name}`"
    if old.ttl_us != new.ttl_us:
        yield f"ttl of {where} was {_ttl(old)}, is {_ttl(new)}"
    if _keys(old) != _keys(new):
        yield f"join keys of {where} were {_listed(_keys(old))}, are {_listed(_keys(new))}"
    before = {feature.name: feature.dtype for feature in old.features}
    after = {feature.name: feature.dtype for feature in new.features}
    for name in sorted(before.keys() | after.keys()):
        if name in before and name in after and before[name] is not after[name]:
            yield f"feature `{name}` of {where} was {before[name]}, is {after[name]}"
        elif (name in before) != (name in after):
            yield f"feature `{name}` of {where} is {_change(name in before, name in after)}"


def _change(was_there: bool, is_there: bool) -> str:
    if was_there and is_there:
        return "changed"
    return "gone" if was_there else "new"


def _ttl(view: ViewRead) -> str:
    return f"{view.ttl_us / SECOND_US:g} s" if view.ttl_us else "unlimited"


def _keys(view: ViewRead) -> list[str]:
    return [f"{key.name} {key.dtype}" for key in view.join_keys]


def _listed(names: set[str] | list[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names)) or "nothing"
