"""Stored values read in blocks: the same as one by one, and whatever the bytes are, a status and no crash."""

import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skewless.dtypes import FEAST_ALIASES, TABLE, Dtype
from skewless.features.value_codec import Decoded, block_decoder, event_times_of
from skewless.features.visibility import NO_EVENT_TIME, STATUS_CODES, Status
from skewless.timestamps import SECOND_US

MANY = 120
"""More items than the loops are for, so that the arithmetic on whole blocks is what runs."""


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def sized(data: bytes) -> bytes:
    return varint(len(data)) + data


ENCODE: dict[Dtype, Callable[[Any], bytes]] = {
    Dtype.BYTES: lambda value: b"\x0a" + sized(value),
    Dtype.STRING: lambda value: b"\x12" + sized(value.encode()),
    Dtype.INT32: lambda value: b"\x18" + varint(value),
    Dtype.INT64: lambda value: b"\x20" + varint(value),
    Dtype.FLOAT64: lambda value: b"\x29" + struct.pack("<d", value),
    Dtype.FLOAT32: lambda value: b"\x35" + struct.pack("<f", value),
    Dtype.BOOL: lambda value: b"\x38" + varint(value),
    Dtype.TIMESTAMP: lambda value: b"\x40" + varint(value // SECOND_US),
}
INT64 = st.integers(-(2**63), 2**63 - 1) | st.integers(-300, 300)
SECONDS = st.integers(-(2**33), 2**35)
VALUES: dict[Dtype, st.SearchStrategy[Any]] = {
    Dtype.BYTES: st.binary(min_size=1, max_size=200),
    Dtype.STRING: st.text(st.characters(codec="utf-8"), max_size=150),
    Dtype.INT32: st.integers(-(2**31), 2**31 - 1) | st.integers(-300, 300),
    Dtype.INT64: INT64,
    Dtype.FLOAT64: st.floats(allow_nan=False),
    Dtype.FLOAT32: st.floats(allow_nan=False, width=32),
    Dtype.BOOL: st.booleans(),
    Dtype.TIMESTAMP: SECONDS.map(lambda seconds: seconds * SECOND_US),
}


def statuses(decoded: Decoded, count: int) -> list[Status]:
    codes = np.zeros(count, dtype=np.uint8) if decoded.codes is None else decoded.codes
    return [STATUS_CODES[code] for code in codes]


@pytest.mark.parametrize("dtype", VALUES)
@pytest.mark.parametrize("gaps", [False, True])
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_what_was_written_is_read_and_gaps_keep_their_status(dtype: Dtype, gaps: bool, data: st.DataObject) -> None:
    some = data.draw(st.lists(VALUES[dtype], min_size=1, max_size=12))
    values = [some[index % len(some)] for index in range(data.draw(st.sampled_from([len(some), MANY])))]
    items: list[bytes | None] = [ENCODE[dtype](value) for value in values]
    if gaps:
        items[0], items[-1] = None, b""
    decoded = block_decoder(dtype)(items)
    expected = [
        TABLE[dtype].zero if not item else value + 0.0 if dtype in (Dtype.FLOAT32, Dtype.FLOAT64) else value
        for item, value in zip(items, values, strict=True)
    ]
    assert decoded.values.dtype == TABLE[dtype].numpy
    assert decoded.values.tolist() == expected
    assert statuses(decoded, len(items)) == [
        Status.MISSING if item is None else Status.NULL if item == b"" else Status.OK for item in items
    ]


@pytest.mark.parametrize("dtype", VALUES)
@pytest.mark.parametrize("count", [1, 40, MANY])
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_foreign_bytes_harm_nobody_else(dtype: Dtype, count: int, data: st.DataObject) -> None:
    good = ENCODE[dtype](data.draw(VALUES[dtype]))
    broken = data.draw(
        st.binary(min_size=1, max_size=30)
        | st.integers(1, len(good)).map(lambda cut: good[:-cut])
        | st.binary(min_size=1, max_size=3).map(lambda tail: good + tail)
    )
    place = data.draw(st.integers(0, count - 1))
    items: list[bytes | None] = [good] * count
    items[place] = broken
    together, alone = block_decoder(dtype)(items), block_decoder(dtype)([broken])
    assert statuses(together, count)[place] is statuses(alone, 1)[0]
    assert together.values[place] == alone.values[0] or alone.values[0] != alone.values[0]
    assert [reason for _, reason in together.reasons] == [reason for _, reason in alone.reasons]
    fine = [index for index in range(count) if index != place]
    assert all(statuses(together, count)[index] is Status.OK for index in fine)
    assert together.values[fine].tolist() == block_decoder(dtype)([good] * len(fine)).values.tolist()


@pytest.mark.parametrize(
    ("dtype", "item", "reason"),
    [
        (Dtype.INT64, b"\x20", "an integer without an end"),
        (Dtype.INT64, b"\x20\xff\xff", "an integer without an end"),
        (Dtype.INT64, b"\x20\x07\x07", "1 bytes too many"),
        (Dtype.INT64, b"\x18\x07", "declared `int64`"),
        (Dtype.INT32, b"\x18" + varint(2**31), "no 32-bit integer"),
        (Dtype.FLOAT64, b"\x29\x00\x00", "3 bytes instead of 9"),
        (Dtype.STRING, b"\x12\x05hi", "says it has 5 bytes and has 2"),
        (Dtype.STRING, b"\x12\x01\xff", "not UTF-8"),
        (Dtype.TIMESTAMP, b"\x40" + varint(2**60), "no date"),
        (Dtype.FLOAT32_LIST, b"\x82\x01\x04\x0a\x02\x00\x00", "cut off"),
        (Dtype.STRING_LIST, b"\x62\x03\x0a\x05h", "cut off"),
        (Dtype.INT64_LIST, b"\x72\x02\x12\x00", "tag 0x12"),
    ],
)
def test_what_is_wrong_with_a_value_is_said(dtype: Dtype, item: bytes, reason: str) -> None:
    decoded = block_decoder(dtype)([item])
    assert statuses(decoded, 1) == [Status.INVALID]
    ((index, said),) = decoded.reasons
    assert index == 0
    assert reason in said


def test_a_null_time_is_stored_as_a_number_and_read_as_null() -> None:
    assert statuses(block_decoder(Dtype.TIMESTAMP)([b"\x40" + varint(-(1 << 63))]), 1) == [Status.NULL]
    many = block_decoder(Dtype.TIMESTAMP)([b"\x40" + varint(-(1 << 63)), *[b"\x40\x01"] * MANY])
    assert statuses(many, 2)[:2] == [Status.NULL, Status.OK]


def test_empty_bytes_are_null_as_they_are_offline() -> None:
    assert statuses(block_decoder(Dtype.BYTES)([b"\x0a\x00", b"\x0a\x01x"]), 2) == [Status.NULL, Status.OK]


def test_minus_zero_is_zero_as_it_is_offline() -> None:
    for dtype in (Dtype.FLOAT32, Dtype.FLOAT64):
        assert not np.signbit(block_decoder(dtype)([ENCODE[dtype](-0.0)]).values[0])


@pytest.mark.parametrize(
    ("dtype", "tag", "elements"),
    [
        (Dtype.FLOAT32_LIST, b"\x82\x01", [1.5, -2.0]),
        (Dtype.FLOAT64_LIST, b"\x7a", [1.5, float("inf")]),
        (Dtype.INT64_LIST, b"\x72", [-1, 2**40]),
        (Dtype.INT32_LIST, b"\x6a", [-1, 7]),
        (Dtype.BOOL_LIST, b"\x8a\x01", [True, False]),
        (Dtype.STRING_LIST, b"\x62", ["", "ä"]),
        (Dtype.BYTES_LIST, b"\x5a", [b"", b"\xff"]),
        (Dtype.TIMESTAMP_LIST, b"\x92\x01", [5 * SECOND_US, 0]),
    ],
)
def test_lists_are_tuples_and_an_empty_list_is_not_a_null(dtype: Dtype, tag: bytes, elements: Sequence[Any]) -> None:
    payloads: dict[Dtype, Callable[[], bytes]] = {
        Dtype.FLOAT32_LIST: lambda: b"\x0a" + sized(struct.pack(f"<{len(elements)}f", *elements)),
        Dtype.FLOAT64_LIST: lambda: b"\x0a" + sized(struct.pack(f"<{len(elements)}d", *elements)),
        Dtype.STRING_LIST: lambda: b"".join(b"\x0a" + sized(each.encode()) for each in elements),
        Dtype.BYTES_LIST: lambda: b"".join(b"\x0a" + sized(each) for each in elements),
        Dtype.TIMESTAMP_LIST: lambda: b"\x0a" + sized(b"".join(varint(each // SECOND_US) for each in elements)),
    }
    message = payloads.get(dtype, lambda: b"\x0a" + sized(b"".join(varint(int(each)) for each in elements)))()
    decoded = block_decoder(dtype)([tag + sized(message), tag + b"\0", b""])
    assert decoded.values.tolist() == [tuple(elements), (), ()]
    assert statuses(decoded, 3) == [Status.OK, Status.OK, Status.NULL]


@pytest.mark.parametrize("feast_type", FEAST_ALIASES)
def test_a_feast_type_with_its_own_tag_is_not_taken_for_another(feast_type: str) -> None:
    dtype = FEAST_ALIASES[feast_type]
    own = block_decoder(dtype, feast_type)
    if feast_type in ("PdfBytes", "ImageBytes"):
        assert own([b"\x0a\x01x"]).values.tolist() == [b"x"]
    else:
        plain = b"\x12\x01x" if dtype is Dtype.STRING else b"\x62\x03\x0a\x01x"
        assert statuses(own([plain]), 1) == [Status.INVALID]


def timestamp(micros: int) -> bytes:
    seconds, rest = divmod(micros, SECOND_US)
    parts = (b"\x08" + varint(seconds) if seconds else b"", b"\x10" + varint(rest * 1_000) if rest else b"")
    return b"".join(parts)


@settings(max_examples=25, deadline=None)
@given(
    moments=st.lists(
        st.none() | st.integers(0, 2**51) | st.sampled_from([0, 1, SECOND_US, 10**15, 10**15 + 1]), min_size=1
    ),
    repeats=st.sampled_from([1, MANY]),
)
def test_event_times_are_read_alike_in_ones_and_in_many(moments: list[int | None], repeats: int) -> None:
    items = [None if moment is None else timestamp(moment) for moment in moments] * repeats
    times, faults = event_times_of(items)
    assert times.tolist() == [NO_EVENT_TIME if moment is None else moment for moment in moments] * repeats
    assert faults == ()


@pytest.mark.parametrize("count", [1, MANY])
def test_an_event_time_that_cannot_be_read_is_none_and_is_named(count: int) -> None:
    times, faults = event_times_of([timestamp(7 * SECOND_US)] * count + [b"\x08\xff", b"junk"])
    assert times.tolist() == [7 * SECOND_US] * count + [NO_EVENT_TIME] * 2
    assert [index for index, _ in faults] == [count, count + 1]
