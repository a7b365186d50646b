"""Feature contracts: exactly which feature-store columns and request fields a bundle reads, in order."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from skewless.canonical_json import Digest, digest
from skewless.dtypes import Dtype
from skewless.errors import InvalidDefinition


class Action(StrEnum):
    """What a reader does for a feature that is missing or stale."""

    NULL = "null"
    """Hand the transform a null, which it imputes as in training."""
    DEFAULT = "default"
    REJECT = "reject"


@dataclass(frozen=True, slots=True)
class Policy:
    """An action, with the value that `default` fills in (of the feature's dtype; None otherwise)."""

    action: Action = Action.NULL
    value: bool | int | float | str | None = None

    def __post_init__(self) -> None:
        if (self.action is Action.DEFAULT) != (self.value is not None):
            raise InvalidDefinition(
                f"policy `{self.action}` has value {self.value!r}; `default` takes a value and no other action does"
            )


class LogMark(StrEnum):
    """What the prediction log keeps of a value; declared beside the value, by a tag of its Feast definition."""

    KEEP = "keep"
    HASH = "hash"
    """A keyed hash of it, as text: equal values stay equal, and only who has the key can try values out."""
    OMIT = "omit"
    """Nothing: it is null in the log."""


@dataclass(frozen=True, slots=True)
class JoinKey:
    """One key of an entity. `nullable` lets a request say that the row has no such entity."""

    name: str
    """What a caller calls it."""
    dtype: Dtype
    nullable: bool = False
    stored_name: str = ""
    """What the entity calls it in the store, where a join-key map renames it; empty where it does not."""
    log: LogMark = LogMark.KEEP

    @property
    def key_name(self) -> str:
        """The join key's name within stored keys and sources."""
        return self.stored_name or self.name


@dataclass(frozen=True, slots=True)
class FeatureField:
    """One feature of a view as the bundle reads it."""

    name: str
    dtype: Dtype
    on_missing: Policy = Policy()
    on_stale: Policy = Policy()
    feast_type: str = ""
    """Feast's type where it is one of `dtypes.FEAST_ALIASES`, such as `Json`; empty where the dtype says it."""
    log: LogMark = LogMark.KEEP


@dataclass(frozen=True, slots=True)
class ViewRead:
    """The features read from one Feast feature view. `ttl_us` 0 is unlimited; join keys are sorted by name."""

    view: str
    join_keys: tuple[JoinKey, ...]
    ttl_us: int
    features: tuple[FeatureField, ...]
    alias: str = ""
    """The name the feature service uses it under (`with_name`, or `view@vN` where it pins a version), if another."""
    stored_name: str = ""
    """What the store calls the view where its features are kept by version (`view_v2`); empty where `view`."""
    near_cache: bool = False
    """Whether a gateway may keep its hashes near and be told of changes."""

    @property
    def name(self) -> str:
        """The view's name in columns, receipts and logs."""
        return self.alias or self.view

    @property
    def field_name(self) -> str:
        """The view's name within the store's hash fields."""
        return self.stored_name or self.view


class Mode(StrEnum):
    """How an on-demand function is called; both are given whole columns, never single rows."""

    PYTHON = "python"
    """A dict of lists, None where null; it returns a dict of lists."""
    PANDAS = "pandas"
    """A pandas DataFrame; it returns one with the same index."""


@dataclass(frozen=True, slots=True)
class OnDemandView:
    """Features computed when they are asked for, by a function of an importable module.

    The function is named and its source pinned; nothing is unpickled. Policies do not apply to its results.
    """

    name: str
    mode: Mode
    function: str
    """`module:qualified.name`."""
    source_digest: Digest
    """SHA-256 of the text of the function and of all in its module that it uses."""
    inputs: tuple[tuple[str, str], ...]
    """(name the function knows, contract column) in order."""
    features: tuple[FeatureField, ...]


@dataclass(frozen=True, slots=True)
class RequestField:
    """A value that the caller gives with each instance."""

    name: str
    dtype: Dtype
    nullable: bool = False
    log: LogMark = LogMark.KEEP


@dataclass(frozen=True, slots=True)
class FeatureContract:
    """Ordered reads of one bundle. `definitions_digest` is over the Feast definitions it was built from."""

    project: str
    views: tuple[ViewRead, ...]
    request_fields: tuple[RequestField, ...]
    definitions_digest: Digest
    on_demand: tuple[OnDemandView, ...] = ()

    @property
    def join_keys(self) -> tuple[JoinKey, ...]:
        """Every join key once, in order of first use; a caller gives each of them with every instance."""
        return tuple({key.name: key for view in self.views for key in view.join_keys}.values())

    @property
    def columns(self) -> tuple[tuple[str, Dtype], ...]:
        """Name and dtype of every column a transform may read: join keys, request fields, `view__feature`.

        Features of on-demand views come last.
        """
        keys = tuple((key.name, key.dtype) for key in self.join_keys)
        request = tuple((field.name, field.dtype) for field in self.request_fields)
        listed = [(view.name, view.features) for view in self.views]
        listed += [(computed.name, computed.features) for computed in self.on_demand]
        stored = tuple(
            (column_name(view, feature.name), feature.dtype) for view, features in listed for feature in features
        )
        return keys + request + stored

    @property
    def view_of_column(self) -> dict[str, str]:
        """The view whose event time gives the age of each `view__feature`, in the order of `columns`."""
        listed = [(view.name, view.features) for view in self.views]
        listed += [(computed.name, computed.features) for computed in self.on_demand]
        return {column_name(view, feature.name): view for view, features in listed for feature in features}

    @property
    def not_null_columns(self) -> frozenset[str]:
        """Columns in which a null can never occur: join keys and request fields that a caller must give."""
        keys = frozenset(key.name for key in self.join_keys if not key.nullable)
        return keys | {field.name for field in self.request_fields if not field.nullable}

    def to_json(self) -> dict[str, Any]:
        """Plain data for `canonical_json.encode`. What has its default is left out, so old digests stay theirs."""
        data: dict[str, Any] = {
            "project": self.project,
            "definitions_digest": self.definitions_digest,
            "request_fields": [_request_field_json(field) for field in self.request_fields],
            "views": [_view_json(view) for view in self.views],
        }
        if self.on_demand:
            data["on_demand"] = [_on_demand_json(view) for view in self.on_demand]
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_json`. Raises InvalidDefinition for data that is not a contract."""
        try:
            return cls(
                project=data["project"],
                definitions_digest=data["definitions_digest"],
                request_fields=tuple(
                    RequestField(field["name"], Dtype(field["dtype"]), field["nullable"], _mark_from_json(field))
                    for field in data["request_fields"]
                ),
                views=tuple(_view_from_json(view) for view in data["views"]),
                on_demand=tuple(_on_demand_from_json(view) for view in data.get("on_demand", ())),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidDefinition(f"this is not a feature contract: {error!r}") from error

    @property
    def digest(self) -> Digest:
        """SHA-256 of the canonical JSON."""
        return digest(self.to_json())


def column_name(view: str, feature: str) -> str:
    """What a stored feature is called in transforms, receipts and logs (Feast's full feature name)."""
    return f"{view}__{feature}"


def _request_field_json(field: RequestField) -> dict[str, Any]:
    return {"name": field.name, "dtype": field.dtype.value, "nullable": field.nullable, **_mark_json(field.log)}


def _view_json(view: ViewRead) -> dict[str, Any]:
    return {
        "view": view.view,
        "ttl_us": view.ttl_us,
        "join_keys": [_join_key_json(key) for key in view.join_keys],
        "features": [_feature_json(feature) for feature in view.features],
        **_given(alias=view.alias, stored_name=view.stored_name, near_cache=view.near_cache),
    }


def _join_key_json(key: JoinKey) -> dict[str, Any]:
    plain = {"name": key.name, "dtype": key.dtype.value, "nullable": key.nullable}
    return {**plain, **_given(stored_name=key.stored_name), **_mark_json(key.log)}


def _feature_json(feature: FeatureField) -> dict[str, Any]:
    return {
        "name": feature.name,
        "dtype": feature.dtype.value,
        "on_missing": {"action": feature.on_missing.action.value, "value": feature.on_missing.value},
        "on_stale": {"action": feature.on_stale.action.value, "value": feature.on_stale.value},
        **_given(feast_type=feature.feast_type),
        **_mark_json(feature.log),
    }


def _on_demand_json(view: OnDemandView) -> dict[str, Any]:
    return {
        "name": view.name,
        "mode": view.mode.value,
        "function": view.function,
        "source_digest": view.source_digest,
        "inputs": [list(each) for each in view.inputs],
        "features": [_feature_json(feature) for feature in view.features],
    }


def _given(**values: str | bool) -> dict[str, str | bool]:
    return {name: value for name, value in values.items() if value}


def _mark_json(mark: LogMark) -> dict[str, str]:
    return {} if mark is LogMark.KEEP else {"log": mark.value}


def _mark_from_json(data: dict[str, Any]) -> LogMark:
    return LogMark(data.get("log", LogMark.KEEP))


def _view_from_json(data: dict[str, Any]) -> ViewRead:
    return ViewRead(
        view=data["view"],
        ttl_us=data["ttl_us"],
        join_keys=tuple(
            JoinKey(key["name"], Dtype(key["dtype"]), key["nullable"], key.get("stored_name", ""), _mark_from_json(key))
            for key in data["join_keys"]
        ),
        features=tuple(_feature_from_json(feature) for feature in data["features"]),
        alias=data.get("alias", ""),
        stored_name=data.get("stored_name", ""),
        near_cache=data.get("near_cache", False),
    )


def _feature_from_json(data: dict[str, Any]) -> FeatureField:
    return FeatureField(
        data["name"],
        Dtype(data["dtype"]),
        _policy_from_json(data["on_missing"]),
        _policy_from_json(data["on_stale"]),
        data.get("feast_type", ""),
        _mark_from_json(data),
    )


def _on_demand_from_json(data: dict[str, Any]) -> OnDemandView:
    return OnDemandView(
        name=data["name"],
        mode=Mode(data["mode"]),
        function=data["function"],
        source_digest=data["source_digest"],
        inputs=tuple((argument, column) for argument, column in data["inputs"]),
        features=tuple(_feature_from_json(feature) for feature in data["features"]),
    )


def _policy_from_json(data: dict[str, Any]) -> Policy:
    return Policy(Action(data["action"]), data["value"])
