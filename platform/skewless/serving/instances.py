"""Request instances, checked and turned into columns by a validator compiled once per bundle.

instances:  [{"origin": "JFK", "scheduled_departure": "2013-05-01T09:30:00Z"}, …]
columns:    {"origin": Column (rows,), "scheduled_departure": Column (rows,)}
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from skewless.dtypes import TABLE, Column, Dtype, column_of
from skewless.errors import InvalidDefinition, InvalidRequest, LimitExceeded
from skewless.features.contract import FeatureContract
from skewless.limits import ROWS_MAX, STRING_BYTES_MAX
from skewless.serving.field_types import READERS, FieldReader, Mismatch, json_kind, shown


@dataclass(frozen=True, slots=True)
class InstanceField:
    """One thing a caller gives with every instance: a join key or a request field."""

    name: str
    dtype: Dtype
    nullable: bool
    role: str
    """`join key` or `request field`, as messages call it."""

    @property
    def reader(self) -> FieldReader:
        """What turns its JSON into its value."""
        return READERS[self.dtype]


@dataclass(frozen=True, slots=True)
class InstanceValidator:
    """Turns instances into columns, or says which field of which instance is wrong."""

    fields: tuple[InstanceField, ...]
    _names: frozenset[str]

    @classmethod
    def compile(cls, contract: FeatureContract) -> "InstanceValidator":
        """The validator of a contract. Raises InvalidDefinition where a name is declared twice and differently."""
        fields: dict[str, InstanceField] = {}
        declared = [(key.name, key.dtype, key.nullable, "join key") for key in contract.join_keys]
        declared += [(field.name, field.dtype, field.nullable, "request field") for field in contract.request_fields]
        for name, dtype, nullable, role in declared:
            earlier = fields.setdefault(name, InstanceField(name, dtype, nullable, role))
            if (earlier.dtype, earlier.nullable) != (dtype, nullable):
                raise InvalidDefinition(
                    f"`{name}` is declared as {earlier.role} `{earlier.dtype}` and as {role} `{dtype}`; "
                    "an instance holds one value of that name",
                    hint="give the request field another name, or the same dtype and nullability",
                )
        return cls(tuple(fields.values()), frozenset(fields))

    def columns(self, instances: object) -> tuple[dict[str, Column], int]:
        """A Column (rows,) per field, and the number of rows.

        Raises InvalidRequest at the first wrong place, LimitExceeded for more than ROWS_MAX instances.
        """
        rows = _rows_of(instances)
        for index, row in enumerate(rows):
            if type(row) is not dict or row.keys() != self._names:
                raise self._wrong_shape(row, f"$.instances[{index}]")
        return {field.name: _column(field, rows) for field in self.fields}, len(rows)

    def json_schema(self) -> dict[str, Any]:
        """JSON Schema of one instance."""
        return {
            "type": "object",
            "properties": {field.name: _schema_of(field) for field in self.fields},
            "required": [field.name for field in self.fields],
            "additionalProperties": False,
        }

    def _wrong_shape(self, row: object, path: str) -> InvalidRequest:
        listed = ", ".join(f"`{field.name}`" for field in self.fields)
        if type(row) is not dict:
            return InvalidRequest(f"{path} is {json_kind(row)}", path=path, allowed=f"an object with {listed}")
        for field in self.fields:
            if field.name not in row:
                hint = "give null when the row has none" if field.nullable else ""
                return InvalidRequest(
                    f"{path} has no {field.role} `{field.name}`",
                    path=f"{path}.{field.name}",
                    allowed=_allowed(field),
                    hint=hint,
                    code="missing_field",
                )
        unknown = next(name for name in row if name not in self._names)
        return unknown_name(unknown, tuple(field.name for field in self.fields), path=path, what="field")


def unknown_name(name: str, known: Sequence[str], *, path: str, what: str) -> InvalidRequest:
    """The refusal of a name that is not among `known`, with the closest one as a hint."""
    close = difflib.get_close_matches(name[:100], known, n=1)
    return InvalidRequest(
        f"{path} has an unknown {what} {shown(name)}",
        path=f"{path}.{name[:100]}",
        allowed=", ".join(f"`{each}`" for each in known),
        hint=f"did you mean `{close[0]}`?" if close else f"remove the {what}",
        code=f"unknown_{what}",
    )


def _rows_of(instances: object) -> list[Any]:
    allowed = f"an array of 1 to {ROWS_MAX} objects"
    path = "$.instances"
    if type(instances) is not list:
        raise InvalidRequest(f"`instances` is {json_kind(instances)}", path=path, allowed=allowed)
    if not instances:
        raise InvalidRequest("`instances` is empty", path=path, allowed=allowed, hint="send at least one instance")
    if len(instances) > ROWS_MAX:
        raise LimitExceeded(
            f"`instances` has {len(instances)} elements",
            path=path,
            allowed=allowed,
            hint=f"send them in requests of at most {ROWS_MAX}",
        )
    return instances


def _column(field: InstanceField, rows: list[dict[str, object]]) -> Column:
    read, name = field.reader, field.name
    values: list[object] = []
    for index, row in enumerate(rows):
        given = row[name]
        if given is None and field.nullable:
            values.append(None)
            continue
        try:
            values.append(read(given))
        except Mismatch as mismatch:
            raise InvalidRequest(
                f"{field.role} `{name}` (dtype `{field.dtype}`) {mismatch.reason}: {shown(given)}",
                path=f"$.instances[{index}].{name}",
                allowed=mismatch.allowed + (", or null" if field.nullable else ""),
                hint=mismatch.hint,
                code="mistyped_field",
            ) from mismatch
    return column_of(field.dtype, values)


def _allowed(field: InstanceField) -> str:
    return f"a value of dtype `{field.dtype}`" + (" or null" if field.nullable else "")


_INTEGER_BITS = {Dtype.INT32: 32, Dtype.INT64: 64}


def _schema_of(field: InstanceField) -> dict[str, Any]:
    schema: dict[str, Any] = dict(TABLE[field.dtype].json_schema)
    if field.dtype in _INTEGER_BITS:
        bits = _INTEGER_BITS[field.dtype]
        schema |= {"minimum": -(1 << (bits - 1)), "maximum": (1 << (bits - 1)) - 1}
    if field.dtype is Dtype.STRING:
        schema["maxLength"] = STRING_BYTES_MAX
    if field.nullable:
        schema["type"] = [schema["type"], "null"]
    schema["description"] = f"{field.role}, dtype {field.dtype}"
    return schema
