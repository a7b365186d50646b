"""Segments cut into parts: joined again they are what they were, within every bound; what is no part is refused."""

import random
import zlib
from itertools import groupby
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.examples import examples
from skewless.adapters.log_tables import LogTable, plain
from skewless.adapters.segment_parts import (
    FORMAT,
    CutSegment,
    DamagedPart,
    SegmentPart,
    cut_segment,
    read_part,
    rows_of,
)
from skewless.errors import InvalidDefinition
from skewless.limits import (
    MIB,
    STREAM_HEAD_BYTES_MAX,
    STREAM_PART_BYTES_MAX,
    STREAM_PART_RAW_BYTES_MAX,
    STREAM_ROW_BYTES_MAX,
)


def log_table(table: Any, kind: str = "outcomes", endpoint: str = "") -> LogTable:
    return LogTable(kind, endpoint, "0123456789ab", table)


def cut(*tables: LogTable) -> CutSegment:
    return cut_segment("segment", tables, source="tests", sequence=7)


def sent(part: SegmentPart) -> SegmentPart:
    return read_part(part.head_bytes(), part.data)


def bytes_rows(*sizes: int, seed: int = 1) -> Any:
    """A row of bytes that cannot be compressed, for each size."""
    generator = np.random.default_rng(seed)
    return pa.table({"row": pa.array(range(len(sizes)), pa.int64()), "raw": [generator.bytes(size) for size in sizes]})


NUMBERS = st.one_of(st.none(), st.floats(width=32), st.just(float("nan")), st.just(-0.0))
ROW = st.fixed_dictionaries(
    {
        "text": st.one_of(st.none(), st.text(max_size=20)),
        "raw": st.one_of(st.none(), st.binary(max_size=60_000)),
        "score": NUMBERS,
        "time": st.one_of(st.none(), st.integers(-(1 << 50), 1 << 50)),
        "list": st.one_of(st.none(), st.lists(st.floats(width=32), max_size=3)),
        "map": st.lists(st.tuples(st.text(max_size=3), st.floats()), max_size=2),
        "word": st.sampled_from(["ok", "missing", None]),
    }
)
SCHEMA = pa.schema(
    [
        ("text", pa.string()),
        ("raw", pa.binary()),
        ("score", pa.float32()),
        ("time", pa.timestamp("us", tz="UTC")),
        ("list", pa.list_(pa.float32())),
        ("map", pa.map_(pa.string(), pa.float64())),
        ("word", pa.dictionary(pa.int8(), pa.string())),
    ]
)


@settings(max_examples=examples(40), deadline=None)
@given(st.lists(st.lists(ROW, max_size=4), max_size=3), st.integers(1, 400), st.integers(0, 1 << 30))
def test_parts_joined_in_any_order_are_the_segment(drawn: list[list[dict[str, Any]]], repeat: int, seed: int) -> None:
    tables = [
        log_table(pa.Table.from_pylist(rows * repeat, schema=SCHEMA), "predictions", f"endpoint-{number}")
        for number, rows in enumerate(drawn)
    ]
    made = cut(*tables)
    assert made.rows_left_out == 0
    parts = [sent(part) for part in made.parts]
    assert [part.head.part for part in parts] == list(range(len(parts)))
    assert {part.head.parts for part in parts} <= {len(parts)}
    assert all(len(part.data) <= STREAM_PART_BYTES_MAX for part in parts)
    endpoints = [each.endpoint for each in tables]
    places = [(endpoints.index(part.head.endpoint), part.head.first) for part in parts]
    assert places == sorted(places), "rows go out in order"
    random.Random(seed).shuffle(parts)
    found = {
        table: pa.concat_tables([rows_of(part) for part in group])
        for table, group in groupby(
            sorted(parts, key=lambda part: (part.head.table, part.head.first)), key=lambda part: part.head.table
        )
    }
    wanted = {f"predictions/{each.endpoint}/{each.columns}": plain(each.table) for each in tables if len(each.table)}
    assert found.keys() == wanted.keys()
    for name, table in wanted.items():
        # Bytes of buffers below nulls are nobody's; what is compared is what a reader sees.
        assert found[name].schema == table.schema
        assert found[name].to_pylist().__repr__() == table.to_pylist().__repr__()


def test_parts_of_large_rows_are_within_their_bound_and_well_filled() -> None:
    made = cut(log_table(bytes_rows(*[40_000] * 200)))
    assert all(len(part.data) <= STREAM_PART_BYTES_MAX for part in made.parts)
    assert sum(len(part.data) for part in made.parts) > 0.6 * len(made.parts) * STREAM_PART_BYTES_MAX


def test_one_large_row_among_small_ones_costs_the_small_ones_no_part_each() -> None:
    made = cut(log_table(bytes_rows(*[100] * 500, STREAM_PART_BYTES_MAX + 1, *[100] * 500)))
    assert made.rows_left_out == 0
    assert sum(part.head.rows for part in made.parts) == 1_001
    (alone,) = [part for part in made.parts if len(part.data) > STREAM_PART_BYTES_MAX]
    assert (alone.head.first, alone.head.rows) == (500, 1)
    assert len(made.parts) < 40


def test_a_row_that_no_stream_takes_is_left_out_and_counted_and_its_place_stays_free() -> None:
    made = cut(log_table(bytes_rows(10, STREAM_ROW_BYTES_MAX + 1, 10)))
    assert made.rows_left_out == 1
    assert [(part.head.first, part.head.rows) for part in made.parts] == [(0, 1), (2, 1)]
    assert {part.head.segment_rows for part in made.parts} == {3}
    assert [rows_of(sent(part)).column("row").to_pylist() for part in made.parts] == [[0], [2]]


def test_rows_that_repeat_themselves_are_bounded_by_what_they_take_unpacked() -> None:
    table = pa.table({"text": pa.array(["x" * 1_000] * 50_000)})
    made = cut(log_table(table))
    assert len(made.parts) >= 50_000 * 1_000 // STREAM_PART_RAW_BYTES_MAX
    assert all(0 < part.head.raw_bytes <= STREAM_PART_RAW_BYTES_MAX for part in made.parts)
    assert sum(len(rows_of(sent(part))) for part in made.parts) == 50_000


def test_a_part_names_its_bundle_where_its_rows_have_one() -> None:
    def bundle_of(*digests: str | None) -> str:
        (part,) = cut(log_table(pa.table({"bundle_digest": pa.array(digests, pa.string())}))).parts
        return part.head.bundle

    assert bundle_of("a", "a") == "a"
    assert bundle_of("a", "b") == ""
    assert bundle_of(None) == ""
    (part,) = cut(log_table(bytes_rows(1))).parts
    assert part.head.bundle == ""


def test_a_segment_without_rows_has_no_parts() -> None:
    assert cut() == CutSegment((), 0)
    assert cut(log_table(bytes_rows())).parts == ()


def test_the_head_of_the_longest_names_is_within_its_bound() -> None:
    table = LogTable("predictions", "e" * 63, "0" * 12, bytes_rows(1))
    (part,) = cut_segment("s" * 200, [table], source="x" * 64, sequence=1 << 60).parts
    assert len(part.head_bytes()) < STREAM_HEAD_BYTES_MAX
    assert sent(part) == part


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_bytes_that_are_no_part_are_refused(head: bytes, data: bytes) -> None:
    with pytest.raises(DamagedPart):
        read_part(head, data)


@given(st.data())
def test_a_part_with_any_byte_changed_is_refused(data: st.DataObject) -> None:
    (part,) = cut(log_table(bytes_rows(20, 30))).parts
    at = data.draw(st.integers(0, len(part.data) - 1))
    flipped = bytes([part.data[at] ^ data.draw(st.integers(1, 255))])
    with pytest.raises(DamagedPart, match="not what was published"):
        read_part(part.head_bytes(), part.data[:at] + flipped + part.data[at + 1 :])


@pytest.mark.parametrize(
    "lie",
    [
        {"first": -1}, {"rows": 0}, {"rows": 3}, {"segment_rows": 1}, {"sequence": 0}, {"segment": ""}, {"format": 0},
        {"raw_bytes": 0}, {"raw_bytes": STREAM_PART_RAW_BYTES_MAX + 1}, {"raw_bytes": 17}, {"raw_bytes": 5 * MIB},
        {"checksum": 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_head_that_lies_is_refused(lie: dict[str, Any]) -> None:
    (part,) = cut(log_table(bytes_rows(20, 30))).parts
    lied = SegmentPart(msgspec.structs.replace(part.head, **lie), part.data)
    with pytest.raises(DamagedPart):
        rows_of(sent(lied))


def test_data_that_is_no_arrow_is_refused() -> None:
    (part,) = cut(log_table(bytes_rows(20, 30))).parts
    raw = b"no arrow at all, though its checksum is right" * 10
    data = pa.Codec("zstd").compress(raw, asbytes=True)
    head = msgspec.structs.replace(part.head, raw_bytes=len(raw), checksum=zlib.crc32(data))
    with pytest.raises(DamagedPart, match="rows cannot be read"):
        rows_of(sent(SegmentPart(head, data)))


def test_a_part_of_a_newer_format_is_not_taken_for_damaged() -> None:
    (part,) = cut(log_table(bytes_rows(20))).parts
    newer = msgspec.json.encode({"format": FORMAT + 1, "whatever": True})
    with pytest.raises(InvalidDefinition, match="reads formats up to"):
        read_part(newer, part.data)
