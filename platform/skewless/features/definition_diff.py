"""What one set of definitions says otherwise than another, field by field, and how much that matters to readers.

words      nobody computes anything otherwise
data       rows written from now on may differ
contract   what is built from now on reads otherwise than what was built before, which stays as it is
breaking   what was built before would read values that are gone, or that mean something else
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from skewless.features.definition_metadata import (
    FRESHNESS,
    PERSONAL,
    RANGE,
    SCHEDULE,
    UNIT,
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
from skewless.timestamps import SECOND_US


class Impact(StrEnum):
    """How much a change matters, in growing order."""

    WORDS = "words"
    DATA = "data"
    CONTRACT = "contract"
    BREAKING = "breaking"

    @property
    def rank(self) -> int:
        """0 is the least."""
        return list(Impact).index(self)


class Kind(StrEnum):
    """What is defined."""

    ENTITY = "entity"
    VIEW = "feature view"
    ON_DEMAND = "on-demand view"
    SERVICE = "feature service"
    STREAM = "stream"


class Action(StrEnum):
    """What becomes of a definition."""

    ADD = "add"
    CHANGE = "change"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One thing that is said otherwise. `feature` is the feature that it is about, empty where about all of it.

    `before` is None where nothing was said, `after` where nothing is said any more.
    """

    what: str
    before: str | None
    after: str | None
    impact: Impact
    why: str
    feature: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """One definition that is added, removed or changed; what of it is changed is in `fields`."""

    action: Action
    kind: Kind
    name: str
    fields: tuple[FieldChange, ...]

    @property
    def impact(self) -> Impact:
        """That of the field that matters most."""
        return max((each.impact for each in self.fields), key=lambda impact: impact.rank, default=Impact.WORDS)


_KINDS: tuple[tuple[Kind, str], ...] = (
    (Kind.ENTITY, "entities"),
    (Kind.VIEW, "views"),
    (Kind.ON_DEMAND, "on_demand"),
    (Kind.STREAM, "streams"),
    (Kind.SERVICE, "services"),
)
_LOG: Final = "skewless.log"
_NEAR_CACHE: Final = "skewless.near_cache"
_GONE = "no row has it any more"
_OTHER_FORM = "values are stored in another form; a bundle built before reads them as invalid"
_OTHER_KEYS = "entities are stored under other keys; a bundle built before finds none of them"
_LOG_MARK = "the prediction log keeps it in another way; bundles built before go on as they were built"
_TAGS: Mapping[str, tuple[Impact, str]] = {
    UNIT: (Impact.DATA, "if values change with it, give them a name of their own: a bundle built before cannot tell"),
    RANGE: (Impact.WORDS, "what is outside is told to people, and judged by the view's quality suite alone"),
    PERSONAL: (Impact.CONTRACT, _LOG_MARK),
    FRESHNESS: (Impact.WORDS, "alerts use the new target"),
    SCHEDULE: (Impact.DATA, "it is materialized at other times"),
    _LOG: (Impact.CONTRACT, _LOG_MARK),
    _NEAR_CACHE: (Impact.CONTRACT, "gateways keep it near, or no longer, for bundles built from now on"),
}
_PLAIN_TAG = (Impact.WORDS, "")
_WORDS = ("description", "owner")


def differences(before: DefinitionSet, after: DefinitionSet) -> tuple[Change, ...]:
    """Every definition that is otherwise, each kind by name; nothing where both say the same.

    >>> old = DefinitionSet("prod", entities={"line": EntityMetadata("line", "line", "Int64")})
    >>> [(each.action.value, each.name) for each in differences(old, DefinitionSet("prod"))]
    [('remove', 'line')]
    """
    changes: list[Change] = []
    for kind, attribute in _KINDS:
        old: Mapping[str, Any] = getattr(before, attribute)
        new: Mapping[str, Any] = getattr(after, attribute)
        for name in sorted(old.keys() | new.keys()):
            if name not in old:
                changes.append(Change(Action.ADD, kind, name, (_added(kind, new[name]),)))
            elif name not in new:
                changes.append(Change(Action.REMOVE, kind, name, (_removed(kind),)))
            elif fields := tuple(_CHANGES[kind](old[name], new[name])):
                changes.append(Change(Action.CHANGE, kind, name, fields))
    return tuple(changes)


def _added(kind: Kind, new: Any) -> FieldChange:
    told = {
        Kind.ENTITY: lambda: f"join key {new.join_key} {new.feast_type}",
        Kind.VIEW: lambda: f"{_count(len(new.features))} by {_listed(name for name, _ in new.join_keys)}",
        Kind.ON_DEMAND: lambda: f"{_count(len(new.features))} of {_listed(new.inputs)}",
        Kind.SERVICE: lambda: (
            f"{_count(sum(len(use.features) for use in new.uses))} of {_listed(use.view for use in new.uses)}"
        ),
        Kind.STREAM: lambda: f"feeds feature view {new.view}",
    }[kind]()
    return FieldChange("", None, told, Impact.WORDS, "")


def _removed(kind: Kind) -> FieldChange:
    why = {
        Kind.VIEW: "nothing writes its features any more",
        Kind.ON_DEMAND: "nothing computes its features any more",
        Kind.STREAM: "nothing feeds its view any more",
    }
    if kind in why:
        return FieldChange("", "", None, Impact.BREAKING, why[kind])
    told = "models ask for it by name when they are trained" if kind is Kind.SERVICE else ""
    return FieldChange("", "", None, Impact.CONTRACT if kind is Kind.SERVICE else Impact.WORDS, told)


def _entity(old: EntityMetadata, new: EntityMetadata) -> Iterator[FieldChange]:
    yield from _said("join key", old.join_key, new.join_key, Impact.BREAKING, _OTHER_KEYS)
    yield from _said("dtype", old.feast_type, new.feast_type, Impact.BREAKING, _OTHER_KEYS)
    yield from _words(old, new)
    yield from _tags(old.tags, new.tags)


def _view(old: ViewMetadata, new: ViewMetadata) -> Iterator[FieldChange]:
    yield from _said("join keys", _keys(old), _keys(new), Impact.BREAKING, _OTHER_KEYS)
    yield from _features(old.features, new.features)
    yield from _said(
        "ttl",
        _ttl(old.ttl_us),
        _ttl(new.ttl_us),
        Impact.CONTRACT,
        "bundles keep the ttl that they were built with; training and parity ask with the new one",
    )
    yield from _said(
        "stored as", old.stored_name or old.name, new.stored_name or new.name, Impact.BREAKING, "a bundle built before "
        "reads the old place, which nothing writes any more"
    )  # fmt: skip
    yield from _said("online", _flag(old.online), _flag(new.online), Impact.BREAKING, "it is not materialized any more")
    yield from _said("kind", old.kind, new.kind, Impact.DATA, "its rows come in another way")
    yield from _source(old.source, new.source)
    yield from _words(old, new)
    yield from _tags(old.tags, new.tags)


def _features(old: tuple[FeatureMetadata, ...], new: tuple[FeatureMetadata, ...]) -> Iterator[FieldChange]:
    before, after = ({each.name: each for each in features} for features in (old, new))
    for name in [*before, *(name for name in after if name not in before)]:
        if name not in after:
            was = before[name].feast_type
            yield FieldChange("feature", was, None, Impact.BREAKING, _GONE, name)
        elif name not in before:
            why = "rows have it from the next materialization on"
            yield FieldChange("feature", None, after[name].feast_type, Impact.DATA, why, name)
        else:
            yield from _feature(before[name], after[name])
    kept = [name for name in before if name in after]
    if kept != [name for name in after if name in before]:
        yield FieldChange("order of features", ", ".join(before), ", ".join(after), Impact.WORDS, "")


def _feature(old: FeatureMetadata, new: FeatureMetadata) -> Iterator[FieldChange]:
    yield from _said("dtype", old.feast_type, new.feast_type, Impact.BREAKING, _OTHER_FORM, old.name)
    yield from _said("description", old.description, new.description, Impact.WORDS, "", old.name)
    yield from _tags(old.tags, new.tags, old.name)


def _source(old: SourceMetadata | None, new: SourceMetadata | None) -> Iterator[FieldChange]:
    if old is None or new is None:
        if old is not new:
            before, after = ("" if each is None else each.name for each in (old, new))
            yield from _said("source", before, after, Impact.BREAKING, "its rows come from elsewhere, or from nowhere")
        return
    same_rows = "rows mean something else where this differs"
    yield from _said("source", old.name, new.name, Impact.WORDS, "")
    yield from _said("source kind", old.kind, new.kind, Impact.DATA, "rows are read from elsewhere")
    yield from _said("source path", old.path, new.path, Impact.DATA, "rows are read from elsewhere")
    yield from _said("source format", old.format, new.format, Impact.DATA, "rows are read in another way")
    yield from _said("event time", old.event_time, new.event_time, Impact.BREAKING, same_rows)
    yield from _said("created time", old.created_time, new.created_time, Impact.BREAKING, same_rows)
    yield from _said("columns", _pairs(old.field_mapping), _pairs(new.field_mapping), Impact.BREAKING, same_rows)
    for change in _words(old, new):
        yield FieldChange(f"source {change.what}", change.before, change.after, change.impact, change.why)


def _on_demand(old: OnDemandMetadata, new: OnDemandMetadata) -> Iterator[FieldChange]:
    pinned = "a bundle built before has its function pinned, and is not loaded where that differs"
    yield from _said("function", old.function, new.function, Impact.BREAKING, pinned)
    if old.source_digest != new.source_digest:
        yield FieldChange(
            "source of the function", old.source_digest[:12], new.source_digest[:12], Impact.BREAKING, pinned
        )
    yield from _said("mode", old.mode, new.mode, Impact.BREAKING, pinned)
    yield from _said("inputs", ", ".join(old.inputs), ", ".join(new.inputs), Impact.BREAKING, pinned)
    yield from _said("request fields", _pairs(old.request_fields), _pairs(new.request_fields), Impact.BREAKING, pinned)
    yield from _features(old.features, new.features)
    yield from _words(old, new)
    yield from _tags(old.tags, new.tags)


def _service(old: ServiceMetadata, new: ServiceMetadata) -> Iterator[FieldChange]:
    why = "bundles built before keep what they read; new ones read this"
    before, after = ({use.name: use for use in service.uses} for service in (old, new))
    for name in [*before, *(name for name in after if name not in before)]:
        was, now = before.get(name), after.get(name)
        if was != now:
            yield from _said(f"reads of {name}", _use(was), _use(now), Impact.CONTRACT, why)
    if list(before) != list(after) and before.keys() == after.keys():
        yield FieldChange("order of views", ", ".join(before), ", ".join(after), Impact.CONTRACT, why)
    yield from _words(old, new)
    yield from _tags(old.tags, new.tags)


def _stream(old: StreamMetadata, new: StreamMetadata) -> Iterator[FieldChange]:
    yield from _said("view", old.view, new.view, Impact.BREAKING, "its old view is fed no more")
    why = "its features are computed in another way under the same names"
    for name in sorted(old.declaration.keys() | new.declaration.keys()):
        if name not in ("name", "view", *_WORDS):
            was, now = (_text(each.declaration.get(name)) for each in (old, new))
            yield from _said(name.replace("_", " "), was, now, Impact.BREAKING, why)
    yield from _words(old, new)


_CHANGES: Mapping[Kind, Any] = {
    Kind.ENTITY: _entity,
    Kind.VIEW: _view,
    Kind.ON_DEMAND: _on_demand,
    Kind.SERVICE: _service,
    Kind.STREAM: _stream,
}


def _said(what: str, before: str, after: str, impact: Impact, why: str, feature: str = "") -> Iterator[FieldChange]:
    """The change of one text; an empty one says nothing."""
    if before != after:
        yield FieldChange(what, before or None, after or None, impact, why, feature)


def _words(old: Any, new: Any) -> Iterator[FieldChange]:
    for name in _WORDS:
        yield from _said(name, getattr(old, name), getattr(new, name), Impact.WORDS, "")


def _tags(old: Mapping[str, str], new: Mapping[str, str], feature: str = "") -> Iterator[FieldChange]:
    for name in sorted(old.keys() | new.keys()):
        impact, why = _TAGS.get(name, _PLAIN_TAG)
        yield from _said(name, old.get(name, ""), new.get(name, ""), impact, why, feature)


def _keys(view: ViewMetadata) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in view.join_keys)


def _ttl(ttl_us: int) -> str:
    return f"{ttl_us / SECOND_US:g} s" if ttl_us else "unlimited"


def _flag(value: bool) -> str:
    return "yes" if value else "no"


def _pairs(pairs: tuple[tuple[str, str], ...]) -> str:
    return ", ".join(f"{first} as {second}" for first, second in pairs)


def _use(use: ViewUse | None) -> str:
    if use is None:
        return ""
    keys = f" by {_pairs(use.join_key_map)}" if use.join_key_map else ""
    return f"{', '.join(use.features)}{'' if use.view == use.name else f' of {use.view}'}{keys}"


def _listed(names: Any) -> str:
    return ", ".join(names) or "no entity"


def _count(features: int) -> str:
    return f"{features} feature{'s' if features != 1 else ''}"


def _text(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else repr(value)
