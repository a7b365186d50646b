"""A stream of events and the features that are computed from it, as a feature repository declares them.

::

    aircraft_activity = StreamAggregates(
        name="movements",
        view="aircraft_activity",
        keys={"tailnum": Dtype.STRING},
        fields={"arr_delay": Dtype.FLOAT32, "dest": Dtype.STRING},
        aggregates=[
            count(sliding("1h", every="5m")),
            mean("arr_delay", tumbling("1d")),
            distinct("dest", sliding("7d", every="1d")),
        ],
        lateness="10m",
    )

Beside it stands the Feast view of that name, with a Delta table for its source, which
`skewless.adapters.feast_aggregates.feature_view` makes of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from skewless.aggregates.aggregation import Aggregate
from skewless.aggregates.windows import duration, parse_duration
from skewless.canonical_json import Digest, digest
from skewless.dtypes import ELEMENTS, TABLE, Dtype
from skewless.errors import InvalidDefinition
from skewless.features.contract import FeatureField, JoinKey, ViewRead
from skewless.features.definition_metadata import ViewMetadata
from skewless.features.feature_checks import Finding, Severity
from skewless.ingest_limits import AGGREGATE_FEATURES_MAX, AGGREGATE_LATENESS_S_MAX
from skewless.timestamps import SECOND_US

CREATED_TIME = "created_time"
BATCH_ROW = "batch_row"
VERDICT = "verdict"
"""Columns that the stream's table of events has beside the events' own."""
RESERVED = frozenset({CREATED_TIME, BATCH_ROW, VERDICT})
_KEY_DTYPES = frozenset({Dtype.STRING, Dtype.INT32, Dtype.INT64, Dtype.BYTES})
_ID_DTYPES = frozenset({Dtype.STRING, Dtype.INT32, Dtype.INT64, Dtype.BYTES})
_FORM = 1
"""Version of the plain form."""


@dataclass(frozen=True, init=False, eq=False)
class StreamAggregates:
    """What events of one stream look like, and which features of one view are computed from them."""

    name: str
    view: str
    keys: tuple[tuple[str, Dtype], ...]
    """Join keys of the view, in order of their names."""
    fields: tuple[tuple[str, Dtype], ...]
    aggregates: tuple[Aggregate, ...]
    event_time: str
    event_id: str
    """A field that says which event it is, empty where none does; a second one of an entity is left out."""
    lateness_us: int
    description: str
    owner: str

    def __init__(
        self,
        *,
        name: str,
        view: str,
        keys: Mapping[str, Dtype],
        fields: Mapping[str, Dtype],
        aggregates: Sequence[Aggregate],
        event_time: str = "event_time",
        event_id: str = "",
        lateness: str = "10m",
        description: str = "",
        owner: str = "",
    ) -> None:
        """`lateness` is how long after it happened an event may become known; later ones are kept and not counted.

        Raises InvalidDefinition for what cannot be computed.
        """
        chosen: dict[str, Any] = {
            "name": name,
            "view": view,
            "keys": tuple(sorted(keys.items())),
            "fields": tuple(fields.items()),
            "aggregates": tuple(aggregates),
            "event_time": event_time,
            "event_id": event_id,
            "lateness_us": parse_duration(lateness, where=f"the lateness of stream `{name}`"),
            "description": description,
            "owner": owner,
        }
        for field, value in chosen.items():
            object.__setattr__(self, field, value)
        _check(self)

    @property
    def event_columns(self) -> tuple[tuple[str, Dtype, bool], ...]:
        """Name, dtype and whether it may be null, of every column that an event is sent with."""
        fields = [(name, dtype, name != self.event_id) for name, dtype in self.fields]
        return (
            *((name, dtype, False) for name, dtype in self.keys),
            *fields,
            (self.event_time, Dtype.TIMESTAMP, False),
        )

    @cached_property
    def columns(self) -> Mapping[str, Dtype]:
        """What aggregates can be of: fields and join keys."""
        return {**dict(self.keys), **dict(self.fields)}

    @cached_property
    def features(self) -> tuple[tuple[str, Dtype], ...]:
        """Name and dtype of each feature, in the order of the aggregates."""
        return tuple((each.name, each.feature_dtype(self.columns.get(each.column))) for each in self.aggregates)

    @property
    def retention_us(self) -> int:
        """How long an event can matter: its longest window, and the time in which late ones may change that."""
        longest = max(each.window.size_us + 2 * each.window.every_us for each in self.aggregates)
        return longest + self.lateness_us

    @property
    def join_keys(self) -> tuple[JoinKey, ...]:
        """The keys as the view has them."""
        return tuple(JoinKey(name, dtype) for name, dtype in self.keys)

    @property
    def view_read(self) -> ViewRead:
        """The view that it feeds, with all of its features."""
        return ViewRead(self.view, self.join_keys, 0, tuple(FeatureField(name, dtype) for name, dtype in self.features))

    def to_json(self) -> dict[str, Any]:
        """Plain data for `canonical_json.encode`."""
        return {
            "aggregates": [each.to_json() for each in self.aggregates],
            "description": self.description,
            "event_id": self.event_id,
            "event_time": self.event_time,
            "fields": [[name, str(dtype)] for name, dtype in self.fields],
            "form": _FORM,
            "keys": [[name, str(dtype)] for name, dtype in self.keys],
            "lateness_us": self.lateness_us,
            "name": self.name,
            "owner": self.owner,
            "view": self.view,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`. Raises InvalidDefinition for what it cannot have written."""
        try:
            if data["form"] != _FORM:
                raise InvalidDefinition(f"stream `{data['name']}` is declared in form {data['form']}; known is {_FORM}")
            return cls(
                name=data["name"],
                view=data["view"],
                keys={name: Dtype(dtype) for name, dtype in data["keys"]},
                fields={name: Dtype(dtype) for name, dtype in data["fields"]},
                aggregates=[Aggregate.from_json(each) for each in data["aggregates"]],
                event_time=data["event_time"],
                event_id=data["event_id"],
                lateness=duration(data["lateness_us"]),
                description=data["description"],
                owner=data["owner"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidDefinition(
                f"a stored stream cannot be read: {type(error).__name__}: {error}", hint="run `skewless apply`"
            ) from error

    @cached_property
    def digest(self) -> Digest:
        """SHA-256 of what changes values: state and rows of another digest were computed by other rules."""
        meaning = {name: value for name, value in self.to_json().items() if name not in ("description", "owner")}
        return digest(meaning)

    def problems(self, view: ViewMetadata) -> list[Finding]:
        """What the declaration and its Feast view disagree about; nothing where they fit."""
        return [
            Finding(Severity.ERROR, "stream_view", f"stream `{self.name}` and view `{view.name}`: {said}", hint)
            for said, hint in _disagreements(self, view)
        ]


def events_path(source_path: str) -> str:
    """Where the events of a stream are kept: a Delta table beside the one of its view's rows.

    >>> events_path("tables/aircraft_activity/")
    'tables/aircraft_activity_events'
    """
    return source_path.rstrip("/") + "_events"


def _check(stream: StreamAggregates) -> None:
    said = f"stream `{stream.name}`"
    names = [name for name, *_ in stream.event_columns]
    twice = sorted({name for name in names if names.count(name) > 1} | (set(names) & RESERVED))
    if twice:
        raise InvalidDefinition(
            f"{said}: columns are named twice or reserved: {', '.join(twice)}. Reserved: {', '.join(sorted(RESERVED))}"
        )
    if not stream.name or not stream.view or not stream.keys or not stream.aggregates:
        raise InvalidDefinition(f"{said} needs a name, a view, a key and an aggregate")
    for name, dtype in stream.keys:
        if dtype not in _KEY_DTYPES:
            raise InvalidDefinition(f"{said}: key `{name}` is {dtype}. Allowed: {', '.join(sorted(_KEY_DTYPES))}")
    for name, dtype in stream.fields:
        if dtype in ELEMENTS:
            raise InvalidDefinition(f"{said}: field `{name}` is {dtype}; lists cannot be aggregated")
    if stream.event_id and dict(stream.fields).get(stream.event_id) not in _ID_DTYPES:
        raise InvalidDefinition(
            f"{said}: `{stream.event_id}` names the event and is no field of {', '.join(sorted(_ID_DTYPES))}"
        )
    if stream.lateness_us > AGGREGATE_LATENESS_S_MAX * SECOND_US:
        allowed = duration(AGGREGATE_LATENESS_S_MAX * SECOND_US)
        raise InvalidDefinition(
            f"{said}: events may be {duration(stream.lateness_us)} late. Allowed: up to {allowed}",
            hint="what comes later goes into training by `skewless aggregates backfill`",
        )
    _check_features(stream, said)


def _check_features(stream: StreamAggregates, said: str) -> None:
    features = [each.name for each in stream.aggregates]
    twice = sorted({name for name in features if features.count(name) > 1})
    if twice:
        raise InvalidDefinition(f"{said}: features have the same name: {', '.join(twice)}", hint="name one of them")
    if clash := sorted({*features} & ({name for name, _ in stream.keys} | {stream.event_time, CREATED_TIME})):
        raise InvalidDefinition(f"{said}: features are called as a key or a time: {', '.join(clash)}")
    if len(features) > AGGREGATE_FEATURES_MAX:
        raise InvalidDefinition(f"{said} has {len(features)} features. Allowed: {AGGREGATE_FEATURES_MAX}")
    for each in stream.aggregates:
        each.check(stream.columns, said)


def _disagreements(stream: StreamAggregates, view: ViewMetadata) -> list[tuple[str, str]]:
    hint = "make the view by skewless.adapters.feast_aggregates.feature_view, or declare it alike"
    found = []
    keys = [(name, TABLE[dtype].feast) for name, dtype in stream.keys]
    if sorted(view.join_keys) != keys:
        found.append((f"keys are {keys} and {sorted(view.join_keys)}", hint))
    declared = {name: TABLE[dtype].feast for name, dtype in stream.features}
    registered = {each.name: each.feast_type for each in view.features}
    found += [
        (f"feature `{name}` is {declared.get(name)} there and {registered.get(name)} here", hint)
        for name in sorted(declared.keys() | registered.keys())
        if declared.get(name) != registered.get(name)
    ]
    if view.source is None or view.source.format != "delta":
        found.append(("the view's source is no Delta table", hint))
    elif not view.source.created_time:
        found.append(("the view's source has no created time", hint))
    return found
