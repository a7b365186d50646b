"""Bodies of prediction requests, decoded by a schema that was compiled for one contract.

    body     bytes ──typed decoder──▶ a structure per instance, every value of its JSON type and within its range
    rows     one call per dtype takes its fields out of the structures, one makes an array of them
    columns  blocks by dtype, as the transform reads them

What the decoder refuses is read once more, step by step (`serving/request.py`): that path alone decides what is wrong
and says so. It also reads what the decoder is too strict for, such as a long string or a request's own `as_of`. Both
give equal columns: `tests/unit/test_compiled_request.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType
from numpy.typing import NDArray

from skewless.column_table import ColumnLayout, ColumnTable
from skewless.dtypes import TABLE, Dtype
from skewless.limits import DEADLINE_MS_MAX, ROWS_MAX, STRING_BYTES_MAX
from skewless.serving.field_types import FLOAT32_MAX, READERS, Mismatch
from skewless.serving.instances import InstanceField, InstanceValidator
from skewless.serving.json_body import parse_json
from skewless.serving.request import DEFAULT_OPTIONS, PredictOptions, PredictRequest, ReceiptLevel, read_request

_LETTERS_MAX = STRING_BYTES_MAX // 4
"""A string of so many letters has few enough bytes, whatever the letters are."""
_JSON_TYPES: dict[Dtype, Any] = {
    Dtype.BOOL: bool,
    Dtype.INT32: Annotated[int, Meta(ge=-(1 << 31), le=(1 << 31) - 1)],
    Dtype.INT64: Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)],
    Dtype.FLOAT32: Annotated[float, Meta(ge=-FLOAT32_MAX, le=FLOAT32_MAX)],
    Dtype.FLOAT64: float,
    Dtype.STRING: Annotated[str, Meta(max_length=_LETTERS_MAX)],
    Dtype.BYTES: str,
    Dtype.TIMESTAMP: str,
}
_READ_FROM_TEXT = (Dtype.BYTES, Dtype.TIMESTAMP)
_REFUSALS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, Mismatch)
_LEVELS = {str(level): level for level in ReceiptLevel}

_Rows = Sequence[Any]
"""Decoded instances, one structure each."""


class _Options(msgspec.Struct, forbid_unknown_fields=True):
    deadline_ms: Annotated[int, Meta(ge=1, le=DEADLINE_MS_MAX)] | UnsetType = UNSET
    receipt: Literal["none", "summary", "full"] = "summary"

    def read(self) -> PredictOptions:
        deadline_ms = None if self.deadline_ms is UNSET else self.deadline_ms
        return PredictOptions(deadline_ms, _LEVELS[self.receipt])


@dataclass(frozen=True, slots=True)
class RequestDecoder:
    """Reads the bodies of one bundle's requests."""

    validator: InstanceValidator
    _decode: Callable[[bytes], Any] | None
    _decode_lines: Callable[[bytes], list[Any]] | None
    _columns: "_Columns"

    @classmethod
    def compile(cls, validator: InstanceValidator) -> "RequestDecoder":
        """The decoder of a validator's instances. Names that no schema can have are read step by step."""
        instance = _instance(validator.fields)
        columns = _Columns.compile(validator.fields)
        if instance is None:
            return cls(validator, None, None, columns)
        return cls(validator, _decoder(instance), msgspec.json.Decoder(instance).decode_lines, columns)

    def read(self, body: bytes, *, as_of_allowed: bool) -> PredictRequest:
        """The request in a JSON body. Raises InvalidRequest with the path of the first wrong thing."""
        if self._decode is not None:
            try:
                plain = self._decode(body)
                rows = plain.instances
                columns = self._columns.of(rows)
            except _REFUSALS:
                pass
            else:
                options = DEFAULT_OPTIONS if plain.options is UNSET else plain.options.read()
                return PredictRequest(columns, len(rows), options)
        return read_request(parse_json(body), self.validator, as_of_allowed=as_of_allowed)

    def lines(self, body: bytes) -> tuple[ColumnTable, int] | None:
        """The columns of instances that stand one in a line, and their number.

        None where anything is not as declared; `InstanceValidator.columns` then says what, or that it may be so.
        """
        if self._decode_lines is None:
            return None
        try:
            rows = self._decode_lines(body)
            return self._columns.of(rows), len(rows)
        except _REFUSALS:
            return None


def _instance(fields: Sequence[InstanceField]) -> Any:
    """The type of one decoded instance; None where a name cannot be part of a schema."""
    types: list[tuple[str, Any]] = [
        (_attribute(number), _JSON_TYPES[field.dtype] | None if field.nullable else _JSON_TYPES[field.dtype])
        for number, field in enumerate(fields)
    ]
    names = {_attribute(number): field.name for number, field in enumerate(fields)}
    try:
        # Rows hold no cycles, and a thousand of them would otherwise be looked at by every garbage collection.
        return msgspec.defstruct("Instance", types, rename=names, forbid_unknown_fields=True, gc=False)
    except ValueError:
        return None


def _decoder(instance: Any) -> Callable[[bytes], Any]:
    """Decodes a body into a structure with `instances` and `options`."""
    instances = Annotated[list[instance], Meta(min_length=1, max_length=ROWS_MAX)]
    body = msgspec.defstruct(
        "Body",
        [("instances", instances), ("options", _Options | UnsetType, UNSET)],
        forbid_unknown_fields=True,
    )
    return msgspec.json.Decoder(body).decode


def _attribute(number: int) -> str:
    return f"field{number}"


@dataclass(frozen=True, slots=True)
class _Block:
    """Fields of one dtype, side by side in the values of an instance, and how they become an array."""

    numpy: np.dtype[np.generic]
    zero: object
    start: int
    stop: int
    read: Callable[[object], object] | None
    """Makes the value of its text; None where JSON has the value itself."""

    def array(self, items: Sequence[Any], rows: int) -> NDArray[Any]:
        """Values (lines, rows) of items without a null, line by line. Raises Mismatch for a text that is no value."""
        given = items if self.read is None else _read_each(self.read, items)
        return np.array(given, dtype=self.numpy).reshape(self.stop - self.start, rows)

    def arrays(self, items: Sequence[Any], rows: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Values and validity (lines, rows) of items, nulls among them."""
        shape = self.stop - self.start, rows
        if None not in items:
            return self.array(items, rows), np.ones(shape, dtype=np.bool_)
        valid = np.array([item is not None for item in items], dtype=np.bool_)
        given: NDArray[Any] = np.empty(len(items), dtype=self.numpy)
        given.fill(self.zero)
        present = [item for item in items if item is not None]
        given[valid] = present if self.read is None else _read_each(self.read, present)
        return given.reshape(shape), valid.reshape(shape)


def _read_each(read: Callable[[object], object], items: Sequence[Any]) -> list[object]:
    """The value of each text. Instances that are asked for together often share one: it is read once."""
    if len(items) == 1:
        return [read(items[0])]
    known = {item: read(item) for item in set(items)}
    return [known[item] for item in items]


@dataclass(frozen=True, slots=True)
class _Columns:
    """How decoded instances become a table."""

    layout: ColumnLayout
    take: Callable[[Any], tuple[Any, ...]]
    """All values of one instance, block by block."""
    blocks: tuple[_Block, ...]
    nullable: bool
    one_row_valid: tuple[NDArray[np.bool_], ...]
    """(lines, 1) per block, read-only, as all single instances without a null share them."""

    @classmethod
    def compile(cls, fields: Sequence[InstanceField]) -> "_Columns":
        layout = ColumnLayout.of([(field.name, field.dtype) for field in fields])
        attributes = {field.name: _attribute(number) for number, field in enumerate(fields)}
        blocks: list[_Block] = []
        shared: list[NDArray[np.bool_]] = []
        start = 0
        for dtype, names in layout.blocks:
            stop = start + len(names)
            read = READERS[dtype] if dtype in _READ_FROM_TEXT else None
            blocks.append(_Block(TABLE[dtype].numpy, TABLE[dtype].zero, start, stop, read))
            valid = np.ones((len(names), 1), dtype=np.bool_)
            valid.flags.writeable = False
            shared.append(valid)
            start = stop
        ordered = [attributes[name] for _, names in layout.blocks for name in names]
        nullable = any(field.nullable for field in fields)
        return cls(layout, _taker(ordered), tuple(blocks), nullable, tuple(shared))

    def of(self, rows: _Rows) -> ColumnTable:
        """A column (rows,) per field."""
        if len(rows) == 1:
            items = self.take(rows[0])
            if not self.nullable or None not in items:
                values = [block.array(items[block.start : block.stop], 1) for block in self.blocks]
                return ColumnTable(self.layout, values, self.one_row_valid, 1)
        lines = list(zip(*map(self.take, rows), strict=True))
        arrays = [
            block.arrays(list(chain.from_iterable(lines[block.start : block.stop])), len(rows)) for block in self.blocks
        ]
        return ColumnTable(self.layout, [values for values, _ in arrays], [valid for _, valid in arrays], len(rows))


def _taker(attributes: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    """All attributes of one structure; attrgetter gives no tuple of fewer than two."""
    if not attributes:
        return lambda _row: ()
    if len(attributes) == 1:
        single = attrgetter(attributes[0])
        return lambda row: (single(row),)
    return attrgetter(*attributes)
