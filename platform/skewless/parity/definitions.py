"""Which views of a bundle are defined otherwise today than when it was built."""

from dataclasses import replace

from skewless.features.compiled_registry import CompiledRegistry
from skewless.features.contract import FeatureContract
from skewless.features.contract_changes import definition_differences

_SOURCES = "its source, its event or created time, or its columns' names are others"


def changed_views(contract: FeatureContract, registry: CompiledRegistry | None) -> dict[str, str]:
    """By stored view, in words what has changed; empty where nothing has, or where there is no registry to ask.

    A contract does not name its feature service, so the nearest one is asked, as admission does. What is registered
    with another digest and no difference in words differs in what contracts do not hold; that may be any view.
    """
    if registry is None or not registry.contracts:
        return {}
    services = registry.contracts.values()
    wanted = {view.name for view in contract.views}
    same = [each for each in services if each.definitions_digest == contract.definitions_digest]
    present = max(same or services, key=lambda each: len(wanted & {view.name for view in each.views}))
    changed = {}
    for view in contract.views:
        mine = replace(contract, views=(view,), on_demand=())
        theirs = replace(present, views=tuple(each for each in present.views if each.name == view.name), on_demand=())
        told = [text for text in definition_differences(mine, theirs) if not text.endswith("is new")]
        if told:
            changed[view.name] = "; ".join(told)
    if changed or same or any(definition_differences(contract, present)):
        return changed
    return dict.fromkeys(sorted(wanted), _SOURCES)
