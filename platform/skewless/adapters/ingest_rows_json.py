"""Rows out of JSON and NDJSON: by a typed decoder where all is well, step by step to say what is wrong.

What the typed decoder refuses is read once more, value by value: that path alone decides what is wrong and says where.
It also reads what the decoder is too strict for, such as a text with many letters of more than one byte.
"""

import base64
import binascii
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from skewless.adapters.ingest_rows import (
    Presence,
    RowBlock,
    RowField,
    RowSchema,
    check_rows,
    missing,
    mistyped,
    unknown,
)
from skewless.dtypes import ELEMENTS, Dtype
from skewless.errors import InvalidRequest
from skewless.ingest_limits import INGEST_LIST_ITEMS_MAX, INGEST_ROWS_MAX, INGEST_SLICE_BYTES
from skewless.serving.field_types import FLOAT32_MAX, READERS, Mismatch, json_kind
from skewless.serving.json_body import parse_json

_SCALARS: dict[Dtype, Any] = {
    Dtype.BOOL: bool,
    Dtype.INT32: Annotated[int, Meta(ge=-(1 << 31), le=(1 << 31) - 1)],
    Dtype.INT64: Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)],
    Dtype.FLOAT32: Annotated[float, Meta(ge=-FLOAT32_MAX, le=FLOAT32_MAX)],
    Dtype.FLOAT64: float,
    Dtype.BYTES: str,
    Dtype.TIMESTAMP: str,
}
_TEXTS = (Dtype.BYTES, Dtype.TIMESTAMP)
"""Dtypes whose values are made of a text."""
_REFUSALS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, Mismatch)
_BODY = '{"rows": [{…}, …]}'

Read = Callable[[object], object]


class JsonRows:
    """Decodes the JSON and NDJSON bodies of one schema."""

    def __init__(self, schema: RowSchema) -> None:
        self._schema = schema
        self._readers: list[Read] = [reader_of(each) for each in schema.fields]
        self._created = next((place for place, each in enumerate(schema.fields) if each.name == schema.created), None)
        row = _row_type(schema.fields)
        self._whole: Callable[[bytes], Any] | None = None
        self._lines: Callable[[Any], list[Any]] | None = None
        self._take: Callable[[Any], tuple[Any, ...]] = _taker(len(schema.fields))
        if row is not None:
            body = msgspec.defstruct("Body", [("rows", _list_of(row))], forbid_unknown_fields=True)
            self._whole = msgspec.json.Decoder(body).decode
            self._lines = msgspec.json.Decoder(row).decode_lines

    def json(self, body: bytes) -> RowBlock:
        """The rows of `{"rows": […]}`. Raises InvalidRequest with the path of the first wrong thing."""
        if not body.strip():
            raise InvalidRequest("the body is empty", path="$", allowed=_BODY, code="malformed_json")
        if self._whole is not None:
            try:
                decoded = self._whole(body).rows
                if 0 < len(decoded) <= INGEST_ROWS_MAX:
                    return self._block(self._columns(decoded), len(decoded))
            except _REFUSALS:
                pass
        return self._read_rows(_rows_of(parse_json(body)), lambda row: f"$.rows[{row}]")

    def ndjson(self, body: bytes) -> RowBlock:
        """The rows of one JSON object per line. Raises InvalidRequest with the line of the first wrong thing."""
        if self._lines is not None:
            try:
                columns: list[list[Any]] = [[] for _ in self._schema.fields]
                rows = 0
                for piece in _slices(body):
                    decoded = self._lines(piece)
                    rows += len(decoded)
                    check_rows(max(rows, 1))
                    if decoded:
                        for column, more in zip(columns, self._columns(decoded), strict=True):
                            column += more
                if rows:
                    return self._block(columns, rows)
            except _REFUSALS:
                pass
        return self._read_lines(body)

    def _columns(self, decoded: Sequence[Any]) -> list[Sequence[Any]]:
        """A column per field of typed rows. Raises Mismatch for a text that is no value."""
        columns: list[Sequence[Any]] = list(zip(*map(self._take, decoded), strict=True))
        for place, each in enumerate(self._schema.fields):
            if each.presence is Presence.OPTIONAL:
                columns[place] = [None if item is UNSET else item for item in columns[place]]
            if each.dtype in _TEXTS:
                columns[place] = _read_each(self._readers[place], columns[place])
            elif each.dtype is Dtype.STRING or each.dtype in ELEMENTS:
                columns[place] = [None if item is None else self._readers[place](item) for item in columns[place]]
        return columns

    def _block(self, columns: Sequence[Sequence[Any]], rows: int) -> RowBlock:
        created = self._created
        has_created = created is not None and any(each is not None for each in columns[created])
        return RowBlock(self._schema, rows, columns, has_created=has_created)

    def _read_lines(self, body: bytes) -> RowBlock:
        rows: list[object] = []
        numbers: list[int] = []
        for number, line in enumerate(body.split(b"\n"), start=1):
            if not line.strip():
                continue
            check_rows(len(rows) + 1)
            try:
                rows.append(parse_json(line))
            except InvalidRequest as error:
                raise InvalidRequest(
                    f"line {number}: {error.message}", path=f"$[line {number}]", allowed="one JSON object on each line",
                    hint=error.hint, code=error.code,
                ) from error  # fmt: skip
            numbers.append(number)
        check_rows(len(rows))
        return self._read_rows(rows, lambda row: f"$[line {numbers[row]}]")

    def _read_rows(self, rows: Sequence[object], path_of: Callable[[int], str]) -> RowBlock:
        """Value by value. Raises InvalidRequest at the first that is wrong."""
        check_rows(len(rows))
        columns: list[list[Any]] = [[] for _ in self._schema.fields]
        for index, row in enumerate(rows):
            path = path_of(index)
            if type(row) is not dict:
                raise InvalidRequest(f"{path} is {json_kind(row)}", path=path, allowed="an object", code="mistyped_row")
            for name in row:
                if name not in self._schema.by_name:
                    raise unknown(name, self._schema, path)
            for column, each, read in zip(columns, self._schema.fields, self._readers, strict=True):
                column.append(_read_one(each, read, row, path))
        return self._block(columns, len(rows))


def reader_of(each: RowField) -> Read:
    """What makes a field's value of a JSON value that is not null. Raises Mismatch."""
    element = ELEMENTS.get(each.dtype)
    if element is None:
        return _scalar_reader(each.dtype, each.bytes_max)
    read = _scalar_reader(element, each.bytes_max)

    def read_list(value: object) -> object:
        allowed = f"an array of at most {INGEST_LIST_ITEMS_MAX} values, none of them null"
        if type(value) is not list:
            raise Mismatch(f"is {json_kind(value)}", allowed=allowed)
        if len(value) > INGEST_LIST_ITEMS_MAX:
            raise Mismatch(f"has {len(value)} items", allowed=allowed)
        items = []
        for place, item in enumerate(value):
            try:
                items.append(read(item))
            except Mismatch as error:
                raise Mismatch(
                    f"has an item {place} that {error.reason}", allowed=f"{allowed}; each {error.allowed}"
                ) from error
        return items

    return read_list


def _scalar_reader(dtype: Dtype, bytes_max: int) -> Read:
    if dtype is Dtype.STRING:
        return _text_reader(bytes_max)
    if dtype is Dtype.BYTES:
        return _bytes_reader(bytes_max)
    return READERS[dtype]


def _text_reader(bytes_max: int) -> Read:
    allowed = f"a string of at most {bytes_max} UTF-8 bytes"

    def read(value: object) -> object:
        if type(value) is not str:
            raise Mismatch(f"is {json_kind(value)}", allowed=allowed)
        # A character is at most four bytes, so most strings need no encoding to be measured.
        if len(value) * 4 > bytes_max and len(value.encode()) > bytes_max:
            raise Mismatch(f"has {len(value.encode())} UTF-8 bytes", allowed=allowed)
        return value

    return read


def _bytes_reader(bytes_max: int) -> Read:
    allowed = f"base64 of at most {bytes_max} bytes"

    def read(value: object) -> object:
        if type(value) is not str:
            raise Mismatch(f"is {json_kind(value)}", allowed=allowed)
        try:
            data = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError) as error:
            raise Mismatch(f"is not base64: {error}", allowed=allowed) from error
        if len(data) > bytes_max:
            raise Mismatch(f"has {len(data)} bytes", allowed=allowed)
        return data

    return read


def _read_one(each: RowField, read: Read, row: dict[str, object], path: str) -> object:
    if each.name not in row:
        if each.presence is Presence.OPTIONAL:
            return None
        raise missing(each, path)
    value = row[each.name]
    if value is None and not each.required:
        return None
    try:
        return read(value)
    except Mismatch as error:
        raise mistyped(
            each, f"{path}.{each.name}", error.reason, value=value, allowed=error.allowed, hint=error.hint
        ) from error


def _read_each(read: Read, items: Sequence[Any]) -> list[object]:
    """The value of each text; rows that come together often share one, which is then read once."""
    known: dict[Any, object] = {None: None}
    for item in set(items):
        if item is not None:
            known[item] = read(item)
    return [known[item] for item in items]


def _rows_of(body: object) -> list[Any]:
    if type(body) is not dict:
        raise InvalidRequest(f"the body is {json_kind(body)}", path="$", allowed=_BODY, code="mistyped_body")
    for name in body:
        if name != "rows":
            raise InvalidRequest(
                f"the body has an unknown member `{name[:100]}`", path=f"$.{name[:100]}", allowed=_BODY,
                hint="what belongs to a row goes into the row", code="unknown_field",
            )  # fmt: skip
    rows = body.get("rows")
    if type(rows) is not list:
        seen = "has no `rows`" if "rows" not in body else f"has `rows` that are {json_kind(rows)}"
        raise InvalidRequest(f"the body {seen}", path="$.rows", allowed=_BODY, code="missing_field")
    return rows


def _slices(body: bytes) -> Iterator[memoryview]:
    """The body in pieces of whole lines, so that no piece keeps the interpreter for long."""
    view, start = memoryview(body), 0
    while start < len(body):
        stop = body.find(b"\n", start + INGEST_SLICE_BYTES)
        stop = len(body) if stop < 0 else stop + 1
        yield view[start:stop]
        start = stop


def _row_type(fields: Sequence[RowField]) -> Any:
    """The type of one decoded row; None where a name cannot be part of a schema."""
    types: list[Any] = []
    for place, each in enumerate(fields):
        given = _json_type(each)
        if each.presence is Presence.OPTIONAL:
            types.append((f"field{place}", given | None | UnsetType, UNSET))
        else:
            types.append((f"field{place}", given | None if each.presence is Presence.NULLABLE else given))
    # Those with a default come last for msgspec, whatever their place in the table.
    types.sort(key=len)
    names = {f"field{place}": each.name for place, each in enumerate(fields)}
    try:
        return msgspec.defstruct("Row", types, rename=names, forbid_unknown_fields=True, gc=False)
    except ValueError:
        return None


def _json_type(each: RowField) -> Any:
    if each.dtype in ELEMENTS:
        element = ELEMENTS[each.dtype]
        return _list_of(str if element is Dtype.STRING else _SCALARS[element])
    return str if each.dtype is Dtype.STRING else _SCALARS[each.dtype]


def _list_of(element: Any) -> Any:
    return list[element]


def _taker(count: int) -> Callable[[Any], tuple[Any, ...]]:
    """All values of one decoded row, in order; attrgetter gives no tuple of fewer than two."""
    names = [f"field{place}" for place in range(count)]
    if count == 1:
        single = attrgetter(names[0])
        return lambda row: (single(row),)
    return attrgetter(*names)
