"""Everything that is declared about a project's features, as plain data: what a set of definitions says, and in JSON.

Feast keeps owner and description itself; the rest stands in tags, so that it survives a plain `feast apply`:

    feature view       freshness   "2h": how old its newest row may be          schedule   "5 * * * *": cron, UTC
    field of a view    unit        "km/h"      range  "0..100", ".." is open    personal   "true"
    entity             personal    "true": its keys are a person's

Tags are kept as they were written and read when asked for. What is written wrongly is a finding of
`definition_metadata_checks.py`, and reads as if it were not there.
"""

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Final, Self

from skewless.canonical_json import Digest, digest
from skewless.dtypes import Dtype, from_feast
from skewless.errors import InvalidDefinition
from skewless.timestamps import DAY_US, HOUR_US, MINUTE_US, SECOND_US

FRESHNESS: Final = "freshness"
SCHEDULE: Final = "schedule"
UNIT: Final = "unit"
RANGE: Final = "range"
PERSONAL: Final = "personal"

_UNITS = {"s": SECOND_US, "m": MINUTE_US, "h": HOUR_US, "d": DAY_US}
_NUMBER = r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?"
_RANGE = re.compile(rf"\s*({_NUMBER})?\s*\.\.\s*({_NUMBER})?\s*")


@dataclass(frozen=True, slots=True)
class ValueRange:
    """Values that a feature may have, ends included; None where there is no end."""

    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        ends = ["" if each is None else f"{each:g}" for each in (self.low, self.high)]
        return "..".join(ends)

    def holds(self, value: float) -> bool:
        """Whether a value lies within."""
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


@dataclass(frozen=True, slots=True)
class FeatureMetadata:
    """One feature of a view. `feast_type` is Feast's name of its type, such as `Float32`, empty where undeclared."""

    name: str
    feast_type: str
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def dtype(self) -> Dtype:
        """Raises InvalidDefinition for a type that cannot be read online."""
        return from_feast(self.feast_type, where=f"feature `{self.name}`")

    @property
    def unit(self) -> str:
        """What its values count, empty where nobody said."""
        return self.tags.get(UNIT, "")

    @property
    def range(self) -> ValueRange | None:
        """The values that it may have; None where nobody said, or said it wrongly."""
        return read_range(self.tags.get(RANGE, ""))

    @property
    def is_personal(self) -> bool:
        """Whether its values say something about a person."""
        return read_flag(self.tags.get(PERSONAL, "")) is True


@dataclass(frozen=True, slots=True)
class EntityMetadata:
    """What rows of features are about. `join_key` is the column; `feast_type` its type, empty where undeclared."""

    name: str
    join_key: str
    feast_type: str
    description: str = ""
    owner: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_personal(self) -> bool:
        """Whether its keys are a person's."""
        return read_flag(self.tags.get(PERSONAL, "")) is True


@dataclass(frozen=True, slots=True)
class SourceMetadata:
    """Where the offline rows of a view lie. `kind` is Feast's class, `path` empty where the kind has none.

    `format` is `parquet` or `delta`, empty where Feast does not say. `created_time` is empty where rows have none.
    `field_mapping` has (column of the source, name in the view).
    """

    name: str
    kind: str
    path: str = ""
    format: str = ""
    event_time: str = ""
    created_time: str = ""
    field_mapping: tuple[tuple[str, str], ...] = ()
    description: str = ""
    owner: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ViewMetadata:
    """A feature view that is stored: batch, push or stream. `ttl_us` 0 is unlimited.

    `join_keys` has (column as stored, Feast's name of its type) by name. A plain Feast view has no `source` only where
    rows come by push alone.
    """

    name: str
    entities: tuple[str, ...]
    join_keys: tuple[tuple[str, str], ...]
    features: tuple[FeatureMetadata, ...]
    ttl_us: int
    source: SourceMetadata | None
    stored_name: str = ""
    """What the online store calls it where it keeps versions; empty where `name`."""
    online: bool = True
    kind: str = "FeatureView"
    description: str = ""
    owner: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def freshness_us(self) -> int | None:
        """How old its newest row may be, in µs; None where nobody said, or said it wrongly."""
        return read_duration(self.tags.get(FRESHNESS, ""))

    @property
    def schedule(self) -> str | None:
        """When it is materialized, as a cron expression in UTC; None where nobody said."""
        return self.tags.get(SCHEDULE, "").strip() or None

    def feature(self, name: str) -> FeatureMetadata | None:
        """A feature by name; None where it has no such one."""
        return next((each for each in self.features if each.name == name), None)


@dataclass(frozen=True, slots=True)
class OnDemandMetadata:
    """Features that a function computes when they are asked for. `inputs` are the stored views that it reads."""

    name: str
    features: tuple[FeatureMetadata, ...]
    inputs: tuple[str, ...]
    request_fields: tuple[tuple[str, str], ...] = ()
    """(name, Feast's name of its type) of what its request sources take."""
    mode: str = "python"
    function: str = ""
    source_digest: str = ""
    description: str = ""
    owner: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ViewUse:
    """What a feature service reads of one view. `name` is the one that it uses it under."""

    view: str
    name: str
    features: tuple[str, ...]
    join_key_map: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ServiceMetadata:
    """A feature service: what models ask for by name."""

    name: str
    uses: tuple[ViewUse, ...]
    description: str = ""
    owner: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StreamMetadata:
    """Aggregates over a stream of events, that feed one view. `declaration` is their own plain data."""

    name: str
    view: str
    declaration: Mapping[str, Any]
    description: str = ""
    owner: str = ""


@dataclass(frozen=True, slots=True)
class DefinitionSet:
    """All definitions of one project at one moment, each kind by name."""

    project: str
    entities: Mapping[str, EntityMetadata] = field(default_factory=dict)
    views: Mapping[str, ViewMetadata] = field(default_factory=dict)
    on_demand: Mapping[str, OnDemandMetadata] = field(default_factory=dict)
    services: Mapping[str, ServiceMetadata] = field(default_factory=dict)
    streams: Mapping[str, StreamMetadata] = field(default_factory=dict)

    @property
    def digest(self) -> Digest:
        """SHA-256 of the canonical JSON."""
        return digest(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Plain data for `canonical_json.encode`. What has its default is left out."""
        return {
            "project": self.project,
            "entities": [_plain(self.entities[name]) for name in sorted(self.entities)],
            "views": [_plain(self.views[name]) for name in sorted(self.views)],
            "on_demand": [_plain(self.on_demand[name]) for name in sorted(self.on_demand)],
            "services": [_plain(self.services[name]) for name in sorted(self.services)],
            "streams": [_plain(self.streams[name]) for name in sorted(self.streams)],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`. Raises InvalidDefinition for data that is no set of definitions."""
        try:
            return cls(
                project=str(data["project"]),
                entities=_by_name(EntityMetadata(**each) for each in data["entities"]),
                views=_by_name(_view(each) for each in data["views"]),
                on_demand=_by_name(_computed(each) for each in data["on_demand"]),
                services=_by_name(_service(each) for each in data["services"]),
                streams=_by_name(StreamMetadata(**each) for each in data["streams"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidDefinition(
                f"this is no set of feature definitions: {error!r}",
                hint="it was written by another version of Skewless; `skewless apply` writes it anew",
            ) from error


def read_duration(text: str) -> int | None:
    """Microseconds of a duration such as `90s`, `15m`, `2h` or `7d`; None for any other text.

    >>> read_duration("2h"), read_duration("soon")
    (7200000000, None)
    """
    found = re.fullmatch(r"(\d{1,9})([smhd])", text.strip())
    return int(found[1]) * _UNITS[found[2]] if found and int(found[1]) else None


def read_range(text: str) -> ValueRange | None:
    """The values from one number to another, either of which may be left out; None for any other text.

    >>> read_range("0..100"), read_range("-1.5.."), read_range("100..0")
    (ValueRange(low=0.0, high=100.0), ValueRange(low=-1.5, high=None), None)
    """
    found = _RANGE.fullmatch(text)
    if found is None or found[1] is found[2] is None:
        return None
    low, high = (None if each is None else float(each) for each in found.groups())
    return None if low is not None and high is not None and low > high else ValueRange(low, high)


def read_flag(text: str) -> bool | None:
    """Whether a tag says `true` or `false`; None for any other text.

    >>> read_flag("true"), read_flag("yes")
    (True, None)
    """
    return {"true": True, "false": False}.get(text.strip())


def _plain(item: Any) -> dict[str, Any]:
    """The fields of a metadata object that are not at their default, as plain data."""
    data: dict[str, Any] = {}
    for each in fields(item):
        value = getattr(item, each.name)
        default = each.default if each.default_factory is MISSING else each.default_factory()
        if default is MISSING or value != default:
            data[each.name] = _plain_value(value)
    return data


def _plain_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain_value(each) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return [_plain_value(each) for each in value]
    return _plain(value) if hasattr(value, "__dataclass_fields__") else value


def _pairs(data: Any) -> tuple[tuple[str, str], ...]:
    return tuple((str(first), str(second)) for first, second in data)


def _features(data: Any) -> tuple[FeatureMetadata, ...]:
    return tuple(FeatureMetadata(**each) for each in data)


def _view(data: Mapping[str, Any]) -> ViewMetadata:
    source = data.get("source")
    read = {
        "entities": tuple(data.get("entities", ())),
        "join_keys": _pairs(data.get("join_keys", ())),
        "features": _features(data.get("features", ())),
        "ttl_us": int(data.get("ttl_us", 0)),
        "source": None
        if source is None
        else SourceMetadata(**{**source, "field_mapping": _pairs(source.get("field_mapping", ()))}),
    }
    return ViewMetadata(**{**data, **read})


def _computed(data: Mapping[str, Any]) -> OnDemandMetadata:
    read = {
        "features": _features(data.get("features", ())),
        "inputs": tuple(data.get("inputs", ())),
        "request_fields": _pairs(data.get("request_fields", ())),
    }
    return OnDemandMetadata(**{**data, **read})


def _service(data: Mapping[str, Any]) -> ServiceMetadata:
    uses = tuple(
        ViewUse(each["view"], each["name"], tuple(each.get("features", ())), _pairs(each.get("join_key_map", ())))
        for each in data.get("uses", ())
    )
    return ServiceMetadata(**{**data, "uses": uses})


def _by_name(items: Any) -> dict[str, Any]:
    return {each.name: each for each in items}
