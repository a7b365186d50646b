"""What Feast does not check when definitions are registered: pure functions over plain data.

Feast keeps all views of an entity in one Redis hash, under 32-bit hashes of their names; two names with one hash
overwrite each other without an error. It finds the keys of a project by their end, and takes types that were not
declared from whatever the source holds on the day.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from skewless.features.contract import column_name
from skewless.features.redis_layout import feature_field, timestamp_field

UNDECLARED = frozenset({"", "Invalid"})
"""What Feast calls the type of something whose type nobody declared."""


class Severity(StrEnum):
    """Whether a finding refuses the definitions."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. `code` is stable, for machines; `hint` says what to do."""

    severity: Severity
    code: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class ViewDefinition:
    """A feature view as it is registered, without Feast's own objects."""

    name: str
    join_keys: tuple[tuple[str, str], ...]
    """(join key as stored, Feast's name of its type); the type is in UNDECLARED where nobody gave one."""
    features: tuple[tuple[str, str], ...]
    """(feature, Feast's name of its type)."""
    stored_names: tuple[str, ...] = ()
    """What hash fields call the view: one name per version that the store may hold; empty where `name` alone."""
    aliases: tuple[str, ...] = ()
    """Names under which feature services use it."""
    on_demand: bool = False
    """Whether its features are computed when asked for; such a view has no hash."""

    @property
    def entity(self) -> tuple[str, ...]:
        """The stored join keys in order: views with equal ones share a hash."""
        return tuple(sorted(name for name, _ in self.join_keys))


def check_definitions(definitions: Sequence[ViewDefinition], projects: Sequence[str]) -> list[Finding]:
    """Everything wrong with all views of one project; `projects` are all that share its Redis. Errors come first.

    >>> check_definitions([ViewDefinition("weather", (("station", "String"),), (("temp", "Float32"),))], ["prod"])
    []
    """
    findings = [
        *_hash_collisions(definitions),
        *_mismatched_join_keys(definitions),
        *_undeclared_types(definitions),
        *_ambiguous_columns(definitions),
        *_suffix_projects(projects),
    ]
    return sorted(findings, key=lambda finding: finding.severity is not Severity.ERROR)


def hash_sizes(definitions: Sequence[ViewDefinition]) -> dict[tuple[str, ...], int]:
    """How many fields a full hash of each entity has, times included, by the stored join keys in order.

    >>> hash_sizes([ViewDefinition("weather", (("station", "String"),), (("temp", "Float32"),))])
    {('station',): 2}
    """
    fields: dict[tuple[str, ...], set[bytes]] = {}
    for definition in definitions:
        if not definition.on_demand:
            fields.setdefault(definition.entity, set()).update(field for field, _ in _hash_fields(definition))
    return {entity: len(found) for entity, found in fields.items()}


def _hash_fields(definition: ViewDefinition) -> Iterator[tuple[bytes, str]]:
    """Every field that the view may have in its hash, with what is kept there."""
    for view in definition.stored_names or (definition.name,):
        yield timestamp_field(view), f"the event time of `{view}`"
        for feature, _ in definition.features:
            yield feature_field(view, feature), f"feature `{view}:{feature}`"


def _hash_collisions(definitions: Sequence[ViewDefinition]) -> Iterator[Finding]:
    owners: dict[tuple[tuple[str, ...], bytes], str] = {}
    for definition in definitions:
        if definition.on_demand:
            continue
        for field, owner in _hash_fields(definition):
            other = owners.setdefault((definition.entity, field), owner)
            if other != owner:
                yield Finding(
                    Severity.ERROR,
                    "hash_collision",
                    f"{other} and {owner} share the Redis hash field {field.hex()} of entity "
                    f"{_listed(definition.entity)}; one overwrites the other",
                    "rename one of the two",
                )


def _mismatched_join_keys(definitions: Sequence[ViewDefinition]) -> Iterator[Finding]:
    declared: dict[str, dict[str, str]] = {}
    for definition in definitions:
        for key, feast_type in definition.join_keys:
            if feast_type not in UNDECLARED:
                declared.setdefault(key, {}).setdefault(feast_type, definition.name)
    for key, views in declared.items():
        if len(views) > 1:
            told = ", ".join(f"{feast_type} in view `{view}`" for feast_type, view in views.items())
            yield Finding(
                Severity.ERROR,
                "join_key_types",
                f"join key `{key}` has more than one type: {told}; one entity would have several keys in the store",
                "declare one entity with one value_type and use it in all views",
            )


def _undeclared_types(definitions: Sequence[ViewDefinition]) -> Iterator[Finding]:
    reason = "Another day's data may give another type, and with it other keys and values"
    for definition in definitions:
        where = f"view `{definition.name}`"
        if not definition.features:
            yield Finding(
                Severity.ERROR, "undeclared_type", f"{where} declares no features. {reason}", "give it a schema"
            )
        for key, feast_type in definition.join_keys:
            if feast_type in UNDECLARED:
                told = f"join key `{key}` of {where} has no declared type. {reason}"
                yield Finding(Severity.ERROR, "undeclared_type", told, "give its entity a value_type")
        for feature, feast_type in definition.features:
            if feast_type in UNDECLARED:
                told = f"feature `{feature}` of {where} has no declared type. {reason}"
                yield Finding(Severity.ERROR, "undeclared_type", told, "give its Field a dtype")


def _ambiguous_columns(definitions: Sequence[ViewDefinition]) -> Iterator[Finding]:
    owners: dict[str, str] = {}
    for definition in definitions:
        for view in (definition.name, *definition.aliases):
            for feature, _ in definition.features:
                column, owner = column_name(view, feature), f"`{definition.name}:{feature}`"
                other = owners.setdefault(column, owner)
                if other != owner:
                    yield Finding(
                        Severity.WARNING,
                        "ambiguous_column",
                        f"{other} and {owner} are both called `{column}`; no feature service can use both",
                        "leave out the double underscore in names of views and features",
                    )


def _suffix_projects(projects: Sequence[str]) -> Iterator[Finding]:
    """Feast finds a project's keys by the pattern `*project`, which also finds those of every longer name."""
    for shorter in sorted(set(projects)):
        for longer in sorted(set(projects)):
            if longer != shorter and longer.endswith(shorter):
                yield Finding(
                    Severity.WARNING,
                    "project_suffix",
                    f"project `{longer}` ends like project `{shorter}`: where Feast deletes a view or all of "
                    f"`{shorter}`, it deletes keys of `{longer}` in the same Redis too",
                    "give each project a Redis database of its own, or a name that no other one ends with",
                )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"
