"""The entity that an outcome is about, as its caller names it and as the log keeps it.

given:      {"tail_number": "N14228", "origin": "EWR"}      every join key of the endpoint's live bundle, no other
kept:       {"origin":"EWR","tail_number":"N14228"}         canonical JSON; a log column is compared with each value
"""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from skewless import canonical_json
from skewless.dtypes import Column, Dtype, column_of
from skewless.errors import InvalidRequest
from skewless.features.contract import FeatureContract, LogMark
from skewless.serving.field_types import Mismatch, json_kind, shown
from skewless.serving.instances import InstanceField, unknown_name
from skewless.serving.log_privacy import LogPrivacy
from skewless.timestamps import format_timestamp


@dataclass(frozen=True, slots=True)
class EntityForm:
    """The join keys of one contract, and what the log may keep of each."""

    keys: tuple[InstanceField, ...]
    hashed: frozenset[str] = frozenset()
    omitted: tuple[str, ...] = ()

    @classmethod
    def of(cls, contract: FeatureContract) -> "EntityForm":
        """The form of a contract's entities."""
        keys = contract.join_keys
        return cls(
            tuple(InstanceField(key.name, key.dtype, key.nullable, "join key") for key in keys),
            frozenset(key.name for key in keys if key.log is LogMark.HASH),
            tuple(key.name for key in keys if key.log is LogMark.OMIT),
        )

    def read(self, given: object, path: str) -> dict[str, object]:
        """The value of each join key, None where null. Raises InvalidRequest at the first wrong place."""
        if self.omitted:
            raise InvalidRequest(
                f"the log does not keep the join key `{self.omitted[0]}`, so no prediction can be found by its entity",
                path=path,
                allowed="outcomes of this endpoint by `prediction_id`",
            )
        if type(given) is not dict:
            listed = ", ".join(f"`{key.name}`" for key in self.keys)
            raise InvalidRequest(f"`entity` is {json_kind(given)}", path=path, allowed=f"an object with {listed}")
        names = tuple(key.name for key in self.keys)
        for name in given:
            if name not in names:
                raise unknown_name(name, names, path=path, what="field")
        return {key.name: _value(key, given, path) for key in self.keys}

    def columns(self, values: Mapping[str, object]) -> "EntityColumns":
        """The entity as columns of one row, each made when it is looked at: most callers' scopes look at none."""
        return EntityColumns({key.name: key.dtype for key in self.keys}, values)

    def kept(self, values: Mapping[str, object], privacy: LogPrivacy) -> str:
        """Canonical JSON of the entity, with a hash in place of a value that may not be kept as it is."""
        return canonical_json.encode(
            {key.name: self._kept(key, values[key.name], privacy) for key in self.keys}
        ).decode()

    def _kept(self, key: InstanceField, value: object, privacy: LogPrivacy) -> object:
        if value is None:
            return None
        return privacy.hashed(key.dtype, value) if key.name in self.hashed else _plain(key.dtype, value)


class EntityColumns(Mapping[str, Column]):
    """See `EntityForm.columns`."""

    def __init__(self, dtypes: Mapping[str, Dtype], values: Mapping[str, object]) -> None:
        self._dtypes = dtypes
        self._values = values

    def __getitem__(self, name: str) -> Column:
        return column_of(self._dtypes[name], [self._values[name]])

    def __iter__(self) -> Iterator[str]:
        return iter(self._dtypes)

    def __len__(self) -> int:
        return len(self._dtypes)


def _value(key: InstanceField, given: Mapping[str, object], path: str) -> object:
    allowed = f"a value of dtype `{key.dtype}`" + (" or null" if key.nullable else "")
    if key.name not in given:
        raise InvalidRequest(
            f"{path} has no join key `{key.name}`", path=f"{path}.{key.name}", allowed=allowed, code="missing_field"
        )
    value = given[key.name]
    if value is None and key.nullable:
        return None
    try:
        read = key.reader(value)
        return float(np.float32(read)) if key.dtype is Dtype.FLOAT32 else read  # type: ignore[arg-type]  # a number
    except Mismatch as mismatch:
        raise InvalidRequest(
            f"join key `{key.name}` (dtype `{key.dtype}`) {mismatch.reason}: {shown(value)}",
            path=f"{path}.{key.name}",
            allowed=mismatch.allowed + (", or null" if key.nullable else ""),
            hint=mismatch.hint,
            code="mistyped_field",
        ) from mismatch


def _plain(dtype: Dtype, value: object) -> object:
    """A value as JSON has it, one text for one value."""
    if dtype is Dtype.TIMESTAMP:
        assert isinstance(value, int), "timestamps are microseconds inside"
        return format_timestamp(value)
    if dtype is Dtype.BYTES:
        assert isinstance(value, bytes), "a bytes field holds bytes"
        return base64.b64encode(value).decode("ascii")
    return value
