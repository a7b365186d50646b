"""Rows that callers bring, as an Arrow table of the declared types: from JSON, NDJSON or Arrow, refused alike.

    body ──typed decoder──▶ values by field ──▶ `RowBlock` ──several of them──▶ one table with the source's columns

Values mean what they mean in a prediction request (`serving/field_types.py`): integers must fit, numbers for a float32
are rounded to the nearest one and refused beyond its range, NaN and infinities are refused, times are RFC 3339. A row
is whole or refused: a column that is left out is no null, because a row replaces all of an entity's features.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import pyarrow as pa

from skewless.adapters.arrow_columns import ARROW_TYPES, column_from_arrow
from skewless.dtypes import ELEMENTS, TABLE, Column, Dtype, column_of
from skewless.errors import InvalidRequest, LimitExceeded
from skewless.ingest_limits import INGEST_ROWS_MAX, INGEST_VALUE_BYTES_MAX
from skewless.limits import STRING_BYTES_MAX
from skewless.quality.view_schema import Role, ViewSchema
from skewless.serving.field_types import shown

MISSING, UNKNOWN, MISTYPED = "missing_field", "unknown_field", "mistyped_field"
WHOLE_ROWS = "a row replaces all features of its entity, so there are no partial updates: give null where it has none"


class Form(StrEnum):
    """How the rows of a body are written."""

    JSON = "json"
    NDJSON = "ndjson"
    ARROW = "arrow"


class Presence(StrEnum):
    """Whether a field must be in a row."""

    REQUIRED = "required"
    NULLABLE = "nullable"
    """It must be there, and may be null."""
    OPTIONAL = "optional"
    """It may be left out, which is the same as null."""


@dataclass(frozen=True, slots=True)
class RowField:
    """One field of a row. `name` is what callers call it, `column` what the source does."""

    name: str
    column: str
    dtype: Dtype
    role: str
    presence: Presence
    bytes_max: int = INGEST_VALUE_BYTES_MAX
    """Of one text or bytes value."""

    @property
    def required(self) -> bool:
        """Whether a null is refused."""
        return self.presence is Presence.REQUIRED

    def json_schema(self) -> dict[str, Any]:
        """What JSON may stand there."""
        schema = dict(TABLE[self.dtype].json_schema)
        if self.dtype in (Dtype.INT32, Dtype.INT64):
            bits = 31 if self.dtype is Dtype.INT32 else 63
            schema |= {"minimum": -(1 << bits), "maximum": (1 << bits) - 1}
        if not self.required:
            schema["type"] = [schema["type"], "null"]
        return {**schema, "description": f"{self.role}, {self.dtype}"}


@dataclass(frozen=True)
class RowSchema:
    """The fields of a view's or stream's rows, in the order of the table's columns."""

    name: str
    fields: tuple[RowField, ...]
    keys: tuple[str, ...] = ()
    """Fields that name the entity."""
    created: str = ""
    """The field that says when a row became known; empty where rows have none."""
    by_name: Mapping[str, RowField] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {each.name: each for each in self.fields})

    @property
    def arrow(self) -> Any:
        """The schema of the table."""
        return pa.schema([(each.column, ARROW_TYPES[each.dtype]) for each in self.fields])

    def json_schema(self) -> dict[str, Any]:
        """The JSON Schema of one row."""
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "additionalProperties": False,
            "required": [each.name for each in self.fields if each.presence is not Presence.OPTIONAL],
            "properties": {each.name: each.json_schema() for each in self.fields},
        }


def row_schema(schema: ViewSchema) -> RowSchema:
    """The rows of a view, by the names that the view has for its join keys and features, and its source for times."""
    fields = tuple(
        RowField(
            each.served_name,
            each.name,
            each.dtype,
            each.role.value,
            _PRESENCE[each.role],
            STRING_BYTES_MAX if each.role is Role.KEY else INGEST_VALUE_BYTES_MAX,
        )
        for each in schema.columns
    )
    created = next((each.name for each in schema.columns if each.role is Role.CREATED_TIME), "")
    keys = tuple(each.served_name for each in schema.columns if each.role is Role.KEY)
    return RowSchema(schema.view, fields, keys, created)


_PRESENCE = {
    Role.KEY: Presence.REQUIRED,
    Role.FEATURE: Presence.NULLABLE,
    Role.EVENT_TIME: Presence.REQUIRED,
    Role.CREATED_TIME: Presence.OPTIONAL,
}


@dataclass(frozen=True, slots=True, eq=False)
class RowBlock:
    """Rows of one body. Either `lists`, a list (rows,) of Python values per field, or `table`."""

    schema: RowSchema
    rows: int
    lists: Sequence[Sequence[object]] | None
    table: Any = None
    has_created: bool = False
    """Whether any row says when it became known."""

    def key_columns(self) -> dict[str, Column]:
        """The join keys, (rows,) each, by their names."""
        places = [(place, each) for place, each in enumerate(self.schema.fields) if each.name in self.schema.keys]
        if self.lists is not None:
            return {each.name: column_of(each.dtype, list(self.lists[place])) for place, each in places}
        return {each.name: column_from_arrow(self.table.column(each.column), each.dtype) for _, each in places}

    def to_table(self) -> Any:
        """The table with the source's columns."""
        return table_of([self])


def table_of(blocks: Sequence[RowBlock]) -> Any:
    """One table of the rows of several blocks of one schema, in order."""
    schema = blocks[0].schema
    parts: list[Any] = []
    run: list[RowBlock] = []
    for block in blocks:
        if block.lists is None:
            parts += _built(schema, run)
            run = []
            parts.append(block.table)
        else:
            run.append(block)
    parts += _built(schema, run)
    return parts[0] if len(parts) == 1 else pa.concat_tables(parts)


def _built(schema: RowSchema, run: Sequence[RowBlock]) -> list[Any]:
    """One table of blocks of Python values: Arrow is asked once per column, however many blocks there are."""
    if not run:
        return []
    arrays = []
    for place, each in enumerate(schema.fields):
        values: list[object] = []
        for block in run:
            assert block.lists is not None, "only such blocks come here"
            values += block.lists[place]
        arrays.append(array_of(values, each.dtype))
    return [pa.Table.from_arrays(arrays, schema=schema.arrow)]


def array_of(values: Sequence[object], dtype: Dtype) -> Any:
    """The Arrow array of a dtype's Python values, None where null; times are microseconds."""
    if dtype is Dtype.TIMESTAMP:
        return pa.array(values, pa.int64()).cast(ARROW_TYPES[dtype])
    if dtype is Dtype.TIMESTAMP_LIST:
        return pa.array(values, pa.list_(pa.int64())).cast(ARROW_TYPES[dtype])
    return pa.array(values, ARROW_TYPES[dtype], from_pandas=False)


def check_rows(rows: int) -> None:
    """Raises InvalidRequest for a body without rows, LimitExceeded for one with too many."""
    allowed = f"1 to {INGEST_ROWS_MAX:,} rows"
    if rows == 0:
        raise InvalidRequest("the body has no row", path="$.rows", allowed=allowed, code=MISSING)
    if rows > INGEST_ROWS_MAX:
        raise LimitExceeded(
            f"the body has {rows:,} rows", path="$.rows", allowed=allowed, hint="send them in several requests"
        )


def missing(each: RowField, path: str) -> InvalidRequest:
    """The refusal of rows that lack a field."""
    return InvalidRequest(
        f"{path} has no {each.role} `{each.name}` ({each.dtype})",
        path=f"{path}.{each.name}",
        allowed=_must_be(each),
        hint=WHOLE_ROWS if each.presence is Presence.NULLABLE else "every row has its join keys and its event time",
        code=MISSING,
    )


def unknown(name: str, schema: RowSchema, path: str) -> InvalidRequest:
    """The refusal of a field that rows do not have."""
    close = difflib.get_close_matches(name[:100], schema.by_name, n=1)
    return InvalidRequest(
        f"{path} has {shown(name)}, which is no field of `{schema.name}`",
        path=f"{path}.{name[:100]}",
        allowed=", ".join(f"`{each}`" for each in schema.by_name),
        hint=f"did you mean `{close[0]}`?" if close else "leave it out; a new feature is declared in features.py first",
        code=UNKNOWN,
    )


def mistyped(each: RowField, path: str, reason: str, *, value: object, allowed: str, hint: str = "") -> InvalidRequest:
    """The refusal of one value."""
    return InvalidRequest(
        f"{each.role} `{each.name}` ({each.dtype}) {reason}: {shown(value)}",
        path=path,
        allowed=allowed + ("" if each.required else ", or null"),
        hint=hint,
        code=MISTYPED,
    )


def element_of(dtype: Dtype) -> Dtype:
    """The dtype of a list's elements; of anything else itself."""
    return ELEMENTS.get(dtype, dtype)


def _must_be(each: RowField) -> str:
    return f"{each.dtype}" + ("" if each.required else ", or null")
