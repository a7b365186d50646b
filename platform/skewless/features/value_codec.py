"""Feast's stored `Value` and `Timestamp` messages, read straight from their protobuf bytes into arrays.

A Value has exactly one field set, so its bytes are one tag and one payload; an empty message is a null. Values are
read many at once: those of fixed width by one view of the joined bytes, integers by arithmetic on a matrix of their
bytes. What does not fit goes, value by value, through the careful reader, which says what is wrong with it.

    items:   [b"\\x29........", b"", None, …]     as the store gave them; None is absent, b"" is null
    values:  (items,) of the dtype's NumPy type, its zero where there is none
    codes:   (items,) of `ok`, `null`, `missing` or `invalid`; None where all are `ok`
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import TABLE, Dtype, array_of
from skewless.features.value_readers import (
    FIXED,
    NANOS_PER_MICRO,
    NULL_TIME_S,
    TIME_S_MAX,
    VARINT_BYTES_MAX,
    Malformed,
    Reader,
    event_time,
    payload_readers,
)
from skewless.features.visibility import NO_EVENT_TIME, STATUS_CODE, Status
from skewless.timestamps import SECOND_US

_VECTOR_MIN = 96
"""From here on arithmetic on a matrix beats a loop over the items (both take 20 µs; 2 cores, NumPy 2.4)."""
_SHORT_TEXT_BYTES = 130
"""Tag, a length below 128 in one byte, and the text."""

_OK = STATUS_CODE[Status.OK]
_MISSING = STATUS_CODE[Status.MISSING]
_NULL = STATUS_CODE[Status.NULL]
_INVALID = STATUS_CODE[Status.INVALID]

Items = Sequence[bytes | None]


class Decoded(NamedTuple):
    """Values of one dtype; see the head of this module. `reasons` says why an item is `invalid`, by its index.

    Made for every block of every read, and a tuple is made in a quarter of the time of a frozen dataclass.
    """

    values: NDArray[Any]
    codes: NDArray[np.uint8] | None = None
    reasons: tuple[tuple[int, str], ...] = ()


_WEIGHTS = np.uint64(1) << (np.uint64(7) * np.arange(VARINT_BYTES_MAX, dtype=np.uint64))
"""What each byte of a varint counts."""

BlockDecoder = Callable[[Items], Decoded]


@dataclass(frozen=True, slots=True)
class _Encoding:
    """How Feast writes one of its types: the number of the Value's field, and what the payload is."""

    dtype: Dtype
    number: int

    @property
    def tag(self) -> bytes:
        wire = {Dtype.FLOAT64: 1, Dtype.FLOAT32: 5, Dtype.BOOL: 0, Dtype.INT32: 0, Dtype.INT64: 0, Dtype.TIMESTAMP: 0}
        return varint(self.number << 3 | wire.get(self.dtype, 2))


def varint(value: int) -> bytes:
    """A number from 0 on in protobuf's variable length: seven bits a byte, the lowest first."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


_ENCODINGS: dict[str, _Encoding] = {
    "Bytes": _Encoding(Dtype.BYTES, 1),
    "PdfBytes": _Encoding(Dtype.BYTES, 1),
    "ImageBytes": _Encoding(Dtype.BYTES, 1),
    "String": _Encoding(Dtype.STRING, 2),
    "Int32": _Encoding(Dtype.INT32, 3),
    "Int64": _Encoding(Dtype.INT64, 4),
    "Float64": _Encoding(Dtype.FLOAT64, 5),
    "Float32": _Encoding(Dtype.FLOAT32, 6),
    "Bool": _Encoding(Dtype.BOOL, 7),
    "UnixTimestamp": _Encoding(Dtype.TIMESTAMP, 8),
    "Array(Bytes)": _Encoding(Dtype.BYTES_LIST, 11),
    "Array(String)": _Encoding(Dtype.STRING_LIST, 12),
    "Array(Int32)": _Encoding(Dtype.INT32_LIST, 13),
    "Array(Int64)": _Encoding(Dtype.INT64_LIST, 14),
    "Array(Float64)": _Encoding(Dtype.FLOAT64_LIST, 15),
    "Array(Float32)": _Encoding(Dtype.FLOAT32_LIST, 16),
    "Array(Bool)": _Encoding(Dtype.BOOL_LIST, 17),
    "Array(UnixTimestamp)": _Encoding(Dtype.TIMESTAMP_LIST, 18),
    "Json": _Encoding(Dtype.STRING, 32),
    "Array(Json)": _Encoding(Dtype.STRING_LIST, 33),
    "Uuid": _Encoding(Dtype.STRING, 36),
    "TimeUuid": _Encoding(Dtype.STRING, 37),
    "Array(Uuid)": _Encoding(Dtype.STRING_LIST, 38),
    "Array(TimeUuid)": _Encoding(Dtype.STRING_LIST, 39),
    "Decimal": _Encoding(Dtype.STRING, 44),
    "Array(Decimal)": _Encoding(Dtype.STRING_LIST, 45),
}
"""By Feast's name of the type."""


def value_tag(dtype: Dtype, feast_type: str = "") -> bytes:
    """What a stored value of a declared dtype begins with; `feast_type` where Feast's own name of it differs.

    >>> value_tag(Dtype.INT64)
    b' '
    """
    return _ENCODINGS[feast_type or TABLE[dtype].feast].tag


def block_decoder(dtype: Dtype, feast_type: str = "") -> BlockDecoder:
    """What decodes stored values of a declared dtype; `feast_type` where Feast's own name of it differs.

    Never raises for what is stored: an item that is not such a value is `invalid` and says why.

    >>> decoded = block_decoder(Dtype.INT64)([bytes.fromhex("2007"), b"", None, b"junk"])
    >>> decoded.values.tolist(), decoded.codes.tolist(), len(decoded.reasons)
    ([7, 0, 0, 0], [0, 1, 2, 6], 1)
    """
    encoding = _ENCODINGS[feast_type or TABLE[dtype].feast]
    assert encoding.dtype is dtype, f"{feast_type} is not stored as {dtype}"
    read = payload_readers()[dtype]
    tag = encoding.tag

    def careful(items: Items) -> Decoded:
        return _decode_each(items, dtype, tag, read)

    if dtype in FIXED:
        return _fixed_decoder(dtype, tag, careful)
    if dtype in (Dtype.INT32, Dtype.INT64, Dtype.TIMESTAMP):
        return _integer_decoder(dtype, tag, careful)
    if dtype is Dtype.STRING and len(tag) == 1:
        return _text_decoder(tag, careful)
    return careful


def event_times_of(items: Items) -> tuple[NDArray[np.int64], tuple[tuple[int, str], ...]]:
    """Microseconds of stored google.protobuf.Timestamps, NO_EVENT_TIME for absent ones, and what cannot be read.

    Nanoseconds below one microsecond are cut, as Feast cuts them offline.

    >>> event_times_of([bytes.fromhex("0801"), None])[0].tolist()
    [1000000, -1]
    """
    if len(items) >= _VECTOR_MIN:
        times = _event_times_vectorised(items)
        if times is not None:
            return times, ()
    faults = []
    listed = []
    for index, item in enumerate(items):
        try:
            listed.append(NO_EVENT_TIME if item is None else event_time(item))
        except Malformed as error:
            listed.append(NO_EVENT_TIME)
            faults.append((index, f"its view's event time {error}"))
    return np.array(listed, dtype=np.int64), tuple(faults)


# --- values of fixed width -------------------------------------------------------------------------------------------


def _fixed_decoder(dtype: Dtype, tag: bytes, careful: BlockDecoder) -> BlockDecoder:
    size, payload = FIXED[dtype]
    packed = np.dtype([("tag", "u1"), ("value", payload)])
    zero = np.zeros((), dtype=payload)

    def decode(items: Items) -> Decoded:
        count = len(items)
        try:
            data = b"".join(items)  # type: ignore[arg-type]  # a None among them is what the except is for
        except TypeError:
            return _some_absent(items)
        if len(data) == size * count and data[::size].count(tag) == count:
            return Decoded(_payload(data))
        return _some_absent(items)

    def _some_absent(items: Items) -> Decoded:
        """Nulls and absent items stand in as zeros; anything else than values of the right width goes one by one."""
        blank = bytes(size)
        data = b"".join([item or blank for item in items])
        codes = _absence_codes(items)
        empty = len(items) - codes.count(0)
        # The tags of the stand-ins are zero, and no value's is.
        if len(data) != size * len(items) or data[::size].count(tag) + empty != len(items):
            return careful(items)
        return Decoded(_payload(data), np.frombuffer(codes, dtype=np.uint8))

    def _payload(data: bytes) -> NDArray[Any]:
        values: NDArray[Any] = np.frombuffer(data, dtype=packed)["value"]
        # Adding 0.0 makes -0.0 the 0.0 that it is everywhere offline: DuckDB loses the sign when it joins.
        decoded: NDArray[Any] = values != 0 if dtype is Dtype.BOOL else values + zero
        return decoded

    return decode


# --- integers and times ----------------------------------------------------------------------------------------------


def _integer_decoder(dtype: Dtype, tag: bytes, careful: BlockDecoder) -> BlockDecoder:
    forms = _varint_forms(tag)

    def decode(items: Items) -> Decoded:
        known = _short_varints(items, forms) if len(items) < _VECTOR_MIN else _varints(items, tag)
        if known is None:
            return careful(items)
        numbers, codes = known
        if dtype is Dtype.INT64:
            return Decoded(numbers, codes)
        if dtype is Dtype.INT32:
            narrow = numbers.astype(np.int32)
            return Decoded(narrow, codes) if (narrow == numbers).all() else careful(items)
        null = numbers == NULL_TIME_S
        if null.any():
            numbers = np.where(null, 0, numbers)
            codes = np.where(null, _NULL, 0 if codes is None else codes).astype(np.uint8)
        if numbers.min(initial=0) < -TIME_S_MAX or numbers.max(initial=0) > TIME_S_MAX:
            return careful(items)
        return Decoded(numbers * SECOND_US, codes)

    return decode


def _varint_forms(tag: bytes) -> dict[int, tuple[int, int, tuple[tuple[int, int], ...]]]:
    """By length of a whole item taken as one little-endian number: mask, pattern and places of its digits.

    Masked, the number must be the pattern: the tag, and the high bit in every byte but the last.
    """
    forms = {}
    for digits in range(1, VARINT_BYTES_MAX):
        mask, pattern = 0xFF, tag[0]
        for place in range(1, digits + 1):
            mask |= 0x80 << 8 * place
            pattern |= (0x80 if place < digits else 0) << 8 * place
        places = tuple((8 + place, 0x7F << 7 * place) for place in range(digits))
        forms[1 + digits] = (mask, pattern, places)
    return forms


def _short_varints(
    items: Items, forms: Mapping[int, tuple[int, int, tuple[tuple[int, int], ...]]]
) -> tuple[NDArray[np.int64], NDArray[np.uint8] | None] | None:
    """As `_varints`, for few items of up to nine bytes each."""
    listed = []
    form_of = forms.get
    absent = False
    for item in items:
        if not item:
            absent = True
            listed.append(0)
            continue
        form = form_of(len(item))
        if form is None:
            return None
        mask, pattern, places = form
        whole = int.from_bytes(item, "little")
        if whole & mask != pattern:
            return None
        number = 0
        for shift, keep in places:
            number |= whole >> shift & keep
        listed.append(number)
    codes = np.frombuffer(_absence_codes(items), dtype=np.uint8) if absent else None
    return np.array(listed, dtype=np.int64), codes


def _varints(items: Items, tag: bytes) -> tuple[NDArray[np.int64], NDArray[np.uint8] | None] | None:
    """The integers of items that are each a tag and one varint, absent or null; None where one is anything else."""
    codes = None
    try:
        lengths = np.fromiter(map(len, items), dtype=np.int64, count=len(items))  # type: ignore[arg-type]  # see except
    except TypeError:
        lengths = np.array([0 if item is None else len(item) for item in items], dtype=np.int64)
    width = int(lengths.max())
    if width < 2 or width > 1 + VARINT_BYTES_MAX:
        return None
    if not lengths.all():
        codes = np.frombuffer(_absence_codes(items), dtype=np.uint8)
        items = [item or tag + b"\0" for item in items]
        lengths[lengths == 0] = 2
    if int(lengths.min()) < 2:
        return None
    matrix = np.array(items, dtype=f"S{width}").view(np.uint8).reshape(len(items), width)
    if not (matrix[:, 0] == tag[0]).all():
        return None
    numbers = _varint_at(matrix, 1, lengths)
    return None if numbers is None else (numbers, codes)


def _varint_at(matrix: NDArray[np.uint8], start: int, stops: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Varints (rows,) that begin at column `start` and end before column `stops`; None where one does not end so."""
    digits = matrix[:, start : start + VARINT_BYTES_MAX]
    columns = np.arange(start, start + digits.shape[1])
    # Of the bytes before a number's last one each has the high bit set, and its last one has not.
    goes_on = columns < (stops[:, np.newaxis] - 1)
    inside = columns < stops[:, np.newaxis]
    if not np.array_equal((digits >= 0x80) & inside, goes_on & inside):
        return None
    if digits.shape[1] == VARINT_BYTES_MAX and (digits[:, -1] > 1)[inside[:, -1]].any():
        return None  # more than 64 bits
    sevens = ((digits & 0x7F) * inside).astype(np.uint64)
    numbers: NDArray[np.uint64] = sevens @ _WEIGHTS[: digits.shape[1]]
    return numbers.view(np.int64)


def _event_times_vectorised(items: Items) -> NDArray[np.int64] | None:
    """As `event_times_of` where all seconds have one width, which those of 1978 to 3058 have; None otherwise."""
    filled = [item or b"" for item in items]
    lengths = np.fromiter(map(len, filled), dtype=np.int64, count=len(filled))
    width = int(lengths.max())
    if not 2 <= width <= 2 * (1 + VARINT_BYTES_MAX):
        return None
    matrix = np.array(filled, dtype=f"S{width}").view(np.uint8).reshape(len(filled), width)
    known = np.flatnonzero(lengths)
    matrix, ends = matrix[known], lengths[known]
    seconds_end = 2 + int((matrix[0, 1:] >= 0x80).argmin())
    if not (matrix[:, 0] == 0x08).all() or int(ends.min()) < seconds_end:
        return None
    seconds = _varint_at(matrix[:, :seconds_end], 1, np.full(len(known), seconds_end))
    if seconds is None or int(abs(seconds).max()) > TIME_S_MAX:
        return None
    times = np.full(len(filled), NO_EVENT_TIME, dtype=np.int64)
    times[known] = seconds * SECOND_US
    times[[index for index, item in enumerate(items) if item == b""]] = 0
    finer = np.flatnonzero(ends > seconds_end)
    if len(finer):
        nanos = _varint_at(matrix[finer], seconds_end + 1, ends[finer])
        if nanos is None or not (matrix[finer, seconds_end] == 0x10).all():
            return None
        times[known[finer]] += nanos // NANOS_PER_MICRO
    return times


# --- text ------------------------------------------------------------------------------------------------------------


def _text_decoder(tag: bytes, careful: BlockDecoder) -> BlockDecoder:
    first = tag[0]

    @lru_cache(maxsize=8_192)
    def short_text(item: bytes) -> str | None:
        """The text of an item whose length is one byte; None where it is not. Categories come again and again."""
        if item[0] != first or len(item) < 2 or item[1] != len(item) - 2:
            return None
        try:
            return item[2:].decode()
        except UnicodeDecodeError:
            return None

    def decode(items: Items) -> Decoded:
        listed = [short_text(item) if item and len(item) < _SHORT_TEXT_BYTES else None for item in items]
        codes = None
        if None in listed:
            codes = _absence_codes(items)
            if listed.count(None) != len(items) - codes.count(0):
                return careful(items)
            listed = [text or "" for text in listed]
        values = np.empty(len(items), dtype=object)
        values[:] = listed
        return Decoded(values, None if codes is None else np.frombuffer(codes, dtype=np.uint8))

    return decode


def _absence_codes(items: Items) -> bytearray:
    """The code of each item that is absent or null; `ok` for the others."""
    return bytearray([_OK if item else _MISSING if item is None else _NULL for item in items])


# --- one by one ------------------------------------------------------------------------------------------------------


def _decode_each(items: Items, dtype: Dtype, tag: bytes, read: Reader) -> Decoded:
    zero = TABLE[dtype].zero
    start = len(tag)
    values: list[Any] = []
    unusual: list[tuple[int, int]] = []
    reasons = []
    for index, item in enumerate(items):
        value = None
        if not item:
            unusual.append((index, _MISSING if item is None else _NULL))
        elif not item.startswith(tag):
            unusual.append((index, _INVALID))
            reasons.append((index, f"is declared `{dtype}` (tag {tag.hex()}) but is stored as {item[:12].hex()}…"))
        else:
            try:
                value = read(item, start)
                if value is None:
                    unusual.append((index, _NULL))
            except Malformed as error:
                unusual.append((index, _INVALID))
                reasons.append((index, str(error)))
        values.append(zero if value is None else value)
    if not unusual:
        return Decoded(array_of(dtype, values))
    codes = np.zeros(len(values), dtype=np.uint8)
    for index, code in unusual:
        codes[index] = code
    return Decoded(array_of(dtype, values), codes, tuple(reasons))
