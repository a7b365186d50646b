"""Finding definitions by words: names, descriptions, owners, units and tags, the best match first.

Every word must occur somewhere. A word counts most where it is a whole name, less where it is a part of one, and least
in descriptions; what is found in its view only counts less than what is found in itself.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skewless.features.definition_metadata import DefinitionSet, FeatureMetadata

_PARTS = re.compile(r"[^\W_]+")
WHOLE_NAME, NAME_PART, NAME_INSIDE, LABEL, TEXT, OF_PARENT = 100.0, 40.0, 15.0, 10.0, 5.0, 1.0
"""What a word is worth that is the whole name, a part of it between underscores, inside of it; that is in an owner,
unit or tag; in a description; in the view that a feature is of."""


@dataclass(frozen=True, slots=True)
class Found:
    """One definition. `name` of a feature is `view:feature`; `score` is only worth comparing within one search."""

    kind: str
    name: str
    description: str
    owner: str
    score: float

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"kind": self.kind, "name": self.name, "description": self.description, "owner": self.owner}


@dataclass(frozen=True, slots=True)
class _Entry:
    """One definition with its texts in lower case."""

    kind: str
    name: str
    description: str
    owner: str
    labels: str
    """Owner, unit and tags."""
    parent: str = ""
    """Name, description, owner and tags of what it is a part of."""


def search(definitions: DefinitionSet, words: Sequence[str], *, limit: int = 20) -> tuple[Found, ...]:
    """Definitions in which every word occurs, best first, at most `limit`; none where no word is given.

    >>> from skewless.features.definition_metadata import EntityMetadata
    >>> known = DefinitionSet("prod", entities={"line": EntityMetadata("line", "line", "Int64", "a bus line")})
    >>> [found.name for found in search(known, ["bus"])]
    ['line']
    """
    wanted = [word for text in words for word in text.lower().split()]
    if not wanted:
        return ()
    found = []
    for entry in _entries(definitions):
        worths = [_worth(entry, word) for word in wanted]
        if all(worths):
            score = sum(worths)
            found.append(Found(entry.kind, entry.name, entry.description, entry.owner, score))
    return tuple(sorted(found, key=lambda each: (-each.score, len(each.name), each.name))[:limit])


def _worth(entry: _Entry, word: str) -> float:
    """What one word is worth for an entry; 0 where it does not occur."""
    own = entry.name.rpartition(":")[2].lower()
    if word == own:
        return WHOLE_NAME
    if word in _PARTS.findall(own):
        return NAME_PART
    if word in own:
        return NAME_INSIDE
    if word in entry.labels:
        return LABEL
    if word in entry.description.lower():
        return TEXT
    return OF_PARENT if word in entry.parent else 0.0


def _entries(definitions: DefinitionSet) -> Iterator[_Entry]:
    for entity in definitions.entities.values():
        labels = _labels(entity.owner, entity.tags, entity.join_key)
        yield _Entry("entity", entity.name, entity.description, entity.owner, labels)
    for kind, views in (("view", definitions.views), ("on-demand view", definitions.on_demand)):
        views_of_kind: Mapping[str, Any] = views
        for view in views_of_kind.values():
            labels = _labels(view.owner, view.tags, *_keys(view))
            yield _Entry(kind, view.name, view.description, view.owner, labels)
            parent = f"{view.name} {view.description} {labels}".lower()
            for feature in view.features:
                yield _feature(view.name, view.owner, feature, parent)
    for service in definitions.services.values():
        labels = _labels(service.owner, service.tags)
        yield _Entry("feature service", service.name, service.description, service.owner, labels)
    for stream in definitions.streams.values():
        yield _Entry("stream", stream.name, stream.description, stream.owner, _labels(stream.owner, {}, stream.view))


def _feature(view: str, owner: str, feature: FeatureMetadata, parent: str) -> _Entry:
    labels = _labels("", feature.tags, feature.feast_type, "personal" if feature.is_personal else "")
    return _Entry("feature", f"{view}:{feature.name}", feature.description, owner, labels, parent)


def _labels(owner: str, tags: Mapping[str, str], *others: str) -> str:
    said = [owner, *others, *(f"{name} {text}" for name, text in tags.items())]
    return " ".join(said).lower()


def _keys(view: Any) -> list[str]:
    return [name for name, _ in getattr(view, "join_keys", ())]
