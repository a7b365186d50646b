"""Whether the feature definitions that a bundle was built from are still registered, and what differs."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from skewless.features.compiled_registry import CompiledRegistry
from skewless.features.contract import (
    Action,
    FeatureContract,
    JoinKey,
    LogMark,
    Policy,
    RequestField,
    ViewRead,
    column_name,
)
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
    has its definitions. Otherwise the service that reads most of the same views says what differs. A contract that
    states the digest of registered definitions and reads something else was changed after it was made.
    """
    if registry is None:
        return ContractState(
            Definitions.UNKNOWN,
            f"there is no registry snapshot of project `{contract.project}`; `skewless apply` makes one",
        )
    services = registry.contracts
    same = sorted(name for name, each in services.items() if each.definitions_digest == contract.definitions_digest)
    if same:
        told = [list(definition_differences(contract, services[name])) for name in same]
        if not all(told):
            return ContractState(Definitions.CURRENT)
        return ContractState(
            Definitions.CHANGED,
            f"it states the definitions of feature service `{same[0]}` and reads others: {'; '.join(told[0])}",
        )
    wanted = {view.name for view in contract.views}
    common = {name: len(wanted & {view.name for view in service.views}) for name, service in services.items()}
    nearest = max(sorted(common), key=lambda name: common[name], default=None)
    if nearest is None or (wanted and not common[nearest]):
        return ContractState(Definitions.CHANGED, f"no feature service reads {_listed(wanted)} any more")
    differences = list(definition_differences(contract, services[nearest]))
    detail = "; ".join(differences) or "they differ in what a contract does not hold, such as sources"
    return ContractState(Definitions.CHANGED, f"feature service `{nearest}` is now another one: {detail}")


def contract_differences(old: FeatureContract, new: FeatureContract) -> Iterator[str]:
    """What one contract has otherwise than another, a phrase each; nothing where they read the same in the same way."""
    yield from definition_differences(old, new)
    yield from _request_differences(old, new)
    before, after = _policies(old), _policies(new)
    for column in sorted(before.keys() & after.keys()):
        for situation, was, now in zip(("missing", "stale"), before[column], after[column], strict=True):
            if was != now:
                yield f"policy of `{column}` where it is {situation} was {_policy(was)}, is {_policy(now)}"


def definition_differences(old: FeatureContract, new: FeatureContract) -> Iterator[str]:
    """As `contract_differences`, of what Feast's registry knows: no policies, request fields and nullable keys."""
    views = {view.name: view for view in new.views}
    for view in old.views:
        if view.name not in views:
            yield f"view `{view.name}` is gone"
        else:
            yield from _view_differences(view, views[view.name])
    for name in sorted(views.keys() - {view.name for view in old.views}):
        yield f"view `{name}` is new"
    before = {view.name: view for view in old.on_demand}
    after = {view.name: view for view in new.on_demand}
    for name in sorted(before.keys() | after.keys()):
        if name not in before or name not in after:
            yield f"on-demand view `{name}` is {'gone' if name in before else 'new'}"
        elif before[name].source_digest != after[name].source_digest:
            yield f"on-demand view `{name}` is changed: its function has another source"
        elif before[name] != after[name]:
            yield f"on-demand view `{name}` is changed: it has other inputs, features or another way to be called"
    marked = {field.name: field.log for field in new.request_fields if field.log is not LogMark.KEEP}
    for field in old.request_fields:
        # A mark that the registry lacks may be the model's own.
        yield from _mark_difference(f"request field `{field.name}`", field.log, marked.get(field.name, field.log))


def _request_differences(old: FeatureContract, new: FeatureContract) -> Iterator[str]:
    """Of what callers give: request fields, and whether a key may be null."""
    given: list[dict[str, RequestField | JoinKey]]
    given = [{field.name: field for field in contract.request_fields} for contract in (old, new)]
    keys: list[dict[str, RequestField | JoinKey]]
    keys = [{key.name: key for key in contract.join_keys} for contract in (old, new)]
    for what, (before, after) in (("request field", given), ("join key", keys)):
        for name in sorted(before.keys() & after.keys()):
            if before[name].dtype is not after[name].dtype:
                yield f"{what} `{name}` was {before[name].dtype}, is {after[name].dtype}"
            if before[name].nullable is not after[name].nullable:
                yield f"{what} `{name}` {'must be given now' if before[name].nullable else 'may be null now'}"
    before, after = given
    for name in sorted(name for name in before.keys() & after.keys() if after[name].log is LogMark.KEEP):
        yield from _mark_difference(f"request field `{name}`", before[name].log, LogMark.KEEP)
    for name in sorted(before.keys() ^ after.keys()):
        yield f"request field `{name}` is {'gone' if name in before else 'new'}"


def _policies(contract: FeatureContract) -> dict[str, tuple[Policy, Policy]]:
    return {
        column_name(view.name, feature.name): (feature.on_missing, feature.on_stale)
        for view in contract.views
        for feature in view.features
    }


def _policy(policy: Policy) -> str:
    return f"{policy.action} {policy.value!r}" if policy.action is Action.DEFAULT else str(policy.action)


def _view_differences(old: ViewRead, new: ViewRead) -> Iterator[str]:
    where = f"view `{old.name}`"
    if old.ttl_us != new.ttl_us:
        yield f"ttl of {where} was {_ttl(old)}, is {_ttl(new)}"
    if old.field_name != new.field_name:
        yield f"{where} was kept as `{old.field_name}`, is kept as `{new.field_name}`"
    if _keys(old) != _keys(new):
        yield f"join keys of {where} were {_listed(_keys(old))}, are {_listed(_keys(new))}"
    before = {feature.name: feature.dtype for feature in old.features}
    after = {feature.name: feature.dtype for feature in new.features}
    for name in sorted(before.keys() | after.keys()):
        if name in before and name in after and before[name] is not after[name]:
            yield f"feature `{name}` of {where} was {before[name]}, is {after[name]}"
        elif (name in before) != (name in after):
            yield f"feature `{name}` of {where} is {'gone' if name in before else 'new'}"
    for what, marks, marks_now in (
        ("join key", {key.name: key.log for key in old.join_keys}, {key.name: key.log for key in new.join_keys}),
        ("feature", {each.name: each.log for each in old.features}, {each.name: each.log for each in new.features}),
    ):
        for name in sorted(marks.keys() & marks_now.keys()):
            yield from _mark_difference(f"{what} `{name}` of {where}", marks[name], marks_now[name])


def _mark_difference(what: str, old: LogMark, new: LogMark) -> Iterator[str]:
    if old is not new:
        yield f"the prediction log's mark of {what} was `{old}`, is `{new}`"


def _ttl(view: ViewRead) -> str:
    return f"{view.ttl_us / SECOND_US:g} s" if view.ttl_us else "unlimited"


def _keys(view: ViewRead) -> list[str]:
    # Whether a key may be null is the model's own choice, which the registry knows nothing of.
    return [f"{key.name} {key.dtype}" for key in view.join_keys]


def _listed(names: set[str] | list[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names)) or "nothing"
