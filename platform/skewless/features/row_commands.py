"""Commands that write rows of a view, packed column by column: what is the same for all rows is packed once.

A command is joined from pieces, a list of them per field (rows,). A piece is what stands before the value in every row,
such as the field's name, then the value in the Redis protocol: `$<length>\\r\\n<bytes>\\r\\n`. Values of one width come
out of one matrix of bytes; so a row of eight numbers costs 3 microseconds and not 20.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import Column, Dtype
from skewless.features.contract import FeatureField, ViewRead
from skewless.features.feature_rows import FeatureRows
from skewless.features.redis_layout import KeyTemplate, feature_field, timestamp_field
from skewless.features.row_order import layout_of, row_time_field, stored_row_times
from skewless.features.value_codec import value_tag
from skewless.features.value_encoding import stored_event_time, stored_values
from skewless.features.value_readers import FIXED, VARINT_BYTES_MAX
from skewless.timestamps import SECOND_US

_END = b"\r\n"
_NOTHING = b"$0\r\n\r\n"
_INTEGERS = frozenset({Dtype.INT32, Dtype.INT64, Dtype.TIMESTAMP})

Pieces = list[bytes]
ColumnPacker = Callable[[Column], Pieces]


def bulk(data: bytes) -> bytes:
    """One argument of a command in the Redis protocol.

    >>> bulk(b"ab")
    b'$2\\r\\nab\\r\\n'
    """
    return b"$%d\r\n%b\r\n" % (len(data), data)


def bulks(items: Sequence[bytes]) -> Pieces:
    """Each item as an argument; equal ones are made once."""
    made = {item: bulk(item) for item in set(items)}
    return [made[item] for item in items]


@dataclass(frozen=True, slots=True)
class RowPacker:
    """Packs rows of one view: their keys, and the fields that they set."""

    template: KeyTemplate
    key_names: tuple[str, ...]
    fields: int
    """How many fields a row sets."""
    _time_head: bytes
    _row_time_head: bytes
    """Empty where the view keeps no times of rows."""
    _layout: bytes
    _columns: tuple[tuple[str, ColumnPacker], ...]

    @classmethod
    def compile(cls, view: ViewRead, project: str, *, has_created_time: bool) -> "RowPacker":
        """For all features of a view under its own join keys. Raises InvalidDefinition as `KeyTemplate` does."""
        template = KeyTemplate.compile(view.join_keys, project)
        columns = tuple((each.name, _column_packer(view, each)) for each in view.features)
        row_time = bulk(row_time_field(view.field_name)) if has_created_time else b""
        return cls(
            template=template,
            key_names=template.names,
            fields=1 + has_created_time + len(columns),
            _time_head=bulk(timestamp_field(view.field_name)),
            _row_time_head=row_time,
            _layout=layout_of(view),
            _columns=columns,
        )

    def keys(self, rows: FeatureRows) -> list[bytes]:
        """The Redis key of each row."""
        listed = [rows.keys[name].values.tolist() for name in self.key_names]
        if not listed:
            return self.template.keys(range(rows.rows))
        return self.template.keys(listed[0] if len(listed) == 1 else zip(*listed, strict=True))

    def field_pieces(self, rows: FeatureRows) -> list[Pieces]:
        """Lists of pieces (rows,) that together set all fields of each row: name and value, name and value."""
        times = {each: self._time_head + bulk(stored_event_time(each)) for each in set(rows.event_times.tolist())}
        pieces = [[times[each] for each in rows.event_times.tolist()]]
        if self._row_time_head:
            head = self._row_time_head
            stored = stored_row_times(rows.event_times, rows.created_times, self._layout)
            pieces.append([head + bulk(each) for each in stored])
        return pieces + [pack(rows.values[name]) for name, pack in self._columns]


def _column_packer(view: ViewRead, feature: FeatureField) -> ColumnPacker:
    head = bulk(feature_field(view.field_name, feature.name))
    dtype, tag = feature.dtype, value_tag(feature.dtype, feature.feast_type)
    if dtype in FIXED:
        return _fixed_packer(head, tag, dtype)
    if dtype in _INTEGERS:
        return _integer_packer(head, tag, dtype)

    def pack(column: Column) -> Pieces:
        values = stored_values(column, feature.feast_type)
        made = {value: head + bulk(value) for value in set(values)}
        return [made[value] for value in values]

    return pack


def _fixed_packer(head: bytes, tag: bytes, dtype: Dtype) -> ColumnPacker:
    """Numbers of one width: a matrix with the same bytes around every value, cut into rows."""
    size, payload = FIXED[dtype]
    before = head + b"$%d\r\n" % size + tag
    width = len(before) + np.dtype(payload).itemsize + len(_END)
    line = np.dtype([("before", f"V{len(before)}"), ("value", payload), ("end", "V2")])
    null = head + _NOTHING

    def pack(column: Column) -> Pieces:
        matrix = np.empty(len(column), dtype=line)
        matrix["before"], matrix["value"], matrix["end"] = np.void(before), column.values, np.void(_END)
        data = matrix.tobytes()
        return _with_nulls([data[at : at + width] for at in range(0, len(data), width)], column.valid, null)

    return pack


def _integer_packer(head: bytes, tag: bytes, dtype: Dtype) -> ColumnPacker:
    """Integers, seven bits a byte: as many bytes as each needs out of a matrix of ten."""
    heads = [head + b"$%d\r\n" % (len(tag) + length) + tag for length in range(VARINT_BYTES_MAX + 1)]
    null = head + _NOTHING

    def pack(column: Column) -> Pieces:
        values = column.values.astype(np.int64)
        matrix, lengths = varints(values // SECOND_US if dtype is Dtype.TIMESTAMP else values)
        data = matrix.tobytes()
        starts = range(0, len(data), VARINT_BYTES_MAX)
        made = [heads[size] + data[at : at + size] + _END for at, size in zip(starts, lengths.tolist(), strict=True)]
        return _with_nulls(made, column.valid, null)

    return pack


def varints(values: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Protobuf's varints of integers (rows,): a matrix (rows, 10) of bytes, and how many of each row count.

    >>> matrix, lengths = varints(np.array([300, -1]))
    >>> bytes(matrix[0, :2]).hex(), lengths.tolist()
    ('ac02', [2, 10])
    """
    bits = values.astype(np.int64).view(np.uint64)
    shifts = np.uint64(7) * np.arange(VARINT_BYTES_MAX, dtype=np.uint64)
    groups = bits[:, np.newaxis] >> shifts
    more = groups[:, 1:] != 0
    matrix = (groups & np.uint64(0x7F)).astype(np.uint8)
    matrix[:, :-1] |= more.astype(np.uint8) << 7
    return matrix, more.sum(axis=1) + 1


def _with_nulls(pieces: Pieces, valid: NDArray[np.bool_], null: bytes) -> Pieces:
    for place in np.flatnonzero(~valid).tolist():
        pieces[place] = null
    return pieces
