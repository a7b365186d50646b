"""All that a project keeps in the online store, out of Feast's registry: its views whole, and what lies beside them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from skewless.adapters.feast_contract import Use, stored_join_keys, stored_view_read, used_views
from skewless.adapters.feast_definitions import Registered
from skewless.errors import InvalidDefinition, NotFound
from skewless.features.contract import ViewRead
from skewless.features.point_in_time import OfflineSource
from skewless.features.redis_layout import feature_field, timestamp_field
from skewless.features.stored_hashes import Fields, KnownHashes
from skewless.timestamps import to_micros

_PRECOMPUTED = "__precomputed__{service}"
_VECTOR = "vector"

SourceOf = Callable[[Any, str], OfflineSource]
"""Where the rows of a view of Feast's lie, given the name it is used under. Raises InvalidDefinition."""


@dataclass(frozen=True, slots=True)
class StoredView:
    """A view as the store keeps it: `read` has all of its features under its own join keys, `source` their rows.

    `runs` has the (start, end) of each materialization in µs, none where it is only pushed to.
    """

    read: ViewRead
    source: OfflineSource
    runs: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class StoredProject:
    """What a project keeps online. `lifetime_s` is how long Feast has a hash live after a write, 0 for ever."""

    project: str
    views: Mapping[str, StoredView]
    """By name in the store; of every version that is kept, the one in use and those that services pin."""
    unreadable: Mapping[str, str]
    """Views kept online whose rows cannot be compared, with the reason."""
    aliases: Mapping[str, str]
    """By each name that a view is used under, its name in the store."""
    lifetime_s: int
    _registered: Registered

    def reading(self, files: Mapping[str, Path]) -> "StoredProject":
        """The same, with the rows of some views, by name in the store, out of other files."""
        moved = {
            name: replace(each, source=replace(each.source, path=str(files[name]))) if name in files else each
            for name, each in self.views.items()
        }
        return replace(self, views=moved)

    def stored_name(self, name: str) -> str:
        """What the store calls a view that is known by a name. Raises NotFound, InvalidDefinition where unreadable."""
        stored = name if name in self.views else self.aliases.get(name, name)
        if stored in self.unreadable:
            raise InvalidDefinition(f"feature view `{name}` cannot be repaired: {self.unreadable[stored]}")
        if stored not in self.views:
            raise NotFound("stored feature view", name, known=tuple(self.views), hint="`skewless features list`")
        return stored

    def known_hashes(self, others: Iterable[ViewRead]) -> KnownHashes:
        """Every field that a reader of the project may ask for; `others` are views that bundles in service read."""
        registered = self._registered
        fields = [_fields(registered, use) for use in _uses(registered, versions=True)]
        fields += [Fields.of(view) for view in others]
        for view in registered.on_demand.values():
            if getattr(view, "write_to_online_store", False):
                fields += _computed(registered, view)
        vectors = [_PRECOMPUTED.format(service=name) for name in registered.services]
        everywhere = [field for name in vectors for field in (feature_field(name, _VECTOR), timestamp_field(name))]
        return KnownHashes(fields, everywhere)


def stored_project(registered: Registered, source_of: SourceOf, *, lifetime_s: int) -> StoredProject:
    """Everything that is kept online now."""
    views: dict[str, StoredView] = {}
    unreadable: dict[str, str] = {}
    aliases: dict[str, str] = {}
    for use in _uses(registered):
        name = registered.stored_name(use.view, use.projection)
        aliases.setdefault(str(use.projection.name_to_use()), name)
        if name in views or not (use.view.online and use.view.enabled and use.view.batch_source):
            continue
        intervals = use.view.materialization_intervals
        runs = tuple((to_micros(start), to_micros(end)) for start, end in intervals)
        try:
            read = stored_view_read(registered, use)
            views[name] = StoredView(read, source_of(use.view, read.name), runs)
        except InvalidDefinition as error:
            unreadable[name] = error.message
    return StoredProject(registered.project, dict(sorted(views.items())), unreadable, aliases, lifetime_s, registered)


def _uses(registered: Registered, *, versions: bool = False) -> Iterator[Use]:
    """Every stored view as it is now, in the versions that services pin, and with `versions` in all that there were."""
    for view in registered.views.values():
        yield Use(view, view.projection)
    for service in registered.services:
        with suppress(InvalidDefinition):  # nobody reads by a service that cannot be compiled
            yield from used_views(registered, service)[0].values()
    for view in registered.views.values() if versions and registered.versioned else ():
        for number in range(int(view.current_version_number or 0) + 1):
            with suppress(InvalidDefinition):  # a version that Feast has forgotten
                yield Use(registered.view(str(view.name), number), SimpleNamespace(version_tag=number))


def _fields(registered: Registered, use: Use) -> Fields:
    """By names alone, so that a feature of a type that nobody can read here is known as well."""
    features = [str(each.name) for each in use.view.features]
    stored_name = registered.stored_name(use.view, use.projection)
    return Fields.named(stored_name, features, stored_join_keys(registered, use.view))


def _computed(registered: Registered, view: Any) -> list[Fields]:
    """An on-demand view whose results are written: they lie in the hashes of its sources' entities."""
    names = [str(each.name) for each in view.features]
    sources = [
        registered.view(str(each.name), each.version_tag) for each in view.source_feature_view_projections.values()
    ]
    return [Fields.named(str(view.name), names, stored_join_keys(registered, each)) for each in sources]
