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


@dataclass(frozen=True, slots=True)
class JoinKey:
    """One key of an entity. `nullable` lets a request say that the row has no such entity."""

    name: str
    dtype: Dtype
    nullable: bool = False


@dataclass(frozen=True, slots=True)
class FeatureField:
    """One feature of a view as the bundle reads it."""

    name: str
    dtype: Dtype
    on_missing: Policy = Policy()
    on_stale: Policy = Policy()


@dataclass(frozen=True, slots=True)
class ViewRead:
    """The features read from one Feast feature view. `ttl_us` 0 is unlimited; join keys are sorted by name."""

    view: str
    join_keys: tuple[JoinKey, ...]
    ttl_us: int
    features: tuple[FeatureField, ...]


@dataclass(frozen=True, slots=True)
class RequestField:
    """A value that the caller gives with each instance."""

    name: str
    dtype: Dtype
    nullable: bool = False


@dataclass(frozen=True, slots=True)
class FeatureContract:
    """Ordered reads of one bundle. `definitions_digest` is over the Feast definitions it was built from."""

    project: str
    views: tuple[ViewRead, ...]
    request_fields: tuple[RequestField, ...]
    definitions_digest: Digest

    @property
    def join_keys(self) -> tuple[JoinKey, ...]:
        """Every join key once, in order of first use; a caller gives each of them with every instance."""
        return tuple({key.name: key for view in self.views for key in view.join_keys}.values())

    @property
    def columns(self) -> tuple[tuple[str, Dtype], ...]:
        """Name and dtype of every column a transform may read: join keys, request fields, `view__feature`."""
        keys = tuple((key.name, key.dtype) for key in self.join_keys)
        request = tuple((field.name, field.dtype) for field in self.request_fields)
        stored = tuple(
            (column_name(view.view, feature.name), feature.dtype) for view in self.views for feature in view.features
        )
        return keys + request + stored

    @property
    def not_null_columns(self) -> frozenset[str]:
        """Columns in which a null can never occur: join keys and request fields that a caller must give."""
        keys = frozenset(key.name for key in self.join_keys if not key.nullable)
        return keys | {field.name for field in self.request_fields if not field.nullable}

    def to_json(self) -> dict[str, Any]:
        """Plain data for `canonical_json.encode`."""
        return {
            "project": self.project,
            "definitions_digest": self.definitions_digest,
            "request_fields": [_request_field_json(field) for field in self.request_fields],
            "views": [_view_json(view) for view in self.views],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_json`. Raises InvalidDefinition for data that is not a contract."""
        try:
            return cls(
                project=data["project"],
                definitions_digest=data["definitions_digest"],
                request_fields=tuple(
                    RequestField(field["name"], Dtype(field["dtype"]), field["nullable"])
                    for field in data["request_fields"]
                ),
                views=tuple(_view_from_json(view) for view in data["views"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidDefinition(f"this is not a feature contract: {error!r}") from error

    @property
    def digest(self) -> Digest:
        """SHA-256 of the canonical JSON."""
        return digest(self.to_json())


def column_name(view: str, feature: str) -> str:
    """What a stored feature is called in transforms, receipts and logs (Feast's full feature name)."""
    return f"{view}__{feature}"


def _request_field_json(field: RequestField) -> dict[str, Any]:
    return {"name": field.name, "dtype": field.dtype.value, "nullable": field.nullable}


def _view_json(view: ViewRead) -> dict[str, Any]:
    return {
        "view": view.view,
        "ttl_us": view.ttl_us,
        "join_keys": [{"name": key.name, "dtype": key.dtype.value, "nullable": key.nullable} for key in view.join_keys],
        "features": [
            {
                "name": feature.name,
                "dtype": feature.dtype.value,
                "on_missing": {"action": feature.on_missing.action.value, "value": feature.on_missing.value},
                "on_stale": {"action": feature.on_stale.action.value, "value": feature.on_stale.value},
            }
            for feature in view.features
        ],
    }


def _view_from_json(data: dict[str, Any]) -> ViewRead:
    return ViewRead(
        view=data["view"],
        ttl_us=data["ttl_us"],
        join_keys=tuple(JoinKey(key["name"], Dtype(key["dtype"]), key["nullable"]) for key in data["join_keys"]),
        features=tuple(
            FeatureField(
                feature["name"],
                Dtype(feature["dtype"]),
                _policy_from_json(feature["on_missing"]),
                _policy_from_json(feature["on_stale"]),
            )
            for feature in data["features"]
        ),
    )


def _policy_from_json(data: dict[str, Any]) -> Policy:
    return Policy(Action(data["action"]), data["value"])
