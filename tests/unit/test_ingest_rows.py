"""Rows that callers bring: JSON, NDJSON and Arrow mean the same, and whatever is wrong is named, never a fault."""

import base64
import io
import json
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from skewless.adapters.ingest_rows import Presence, RowField, RowSchema, table_of
from skewless.adapters.ingest_rows_arrow import arrow_rows
from skewless.adapters.ingest_rows_json import JsonRows
from skewless.dtypes import ELEMENTS, Dtype
from skewless.errors import InvalidRequest, LimitExceeded
from skewless.ingest_limits import (
    INGEST_DECODED_BYTES_MAX,
    INGEST_LIST_ITEMS_MAX,
    INGEST_ROWS_MAX,
    INGEST_SLICE_BYTES,
)
from skewless.timestamps import format_timestamp

KEY = RowField("user", "uid", Dtype.STRING, "join key", Presence.REQUIRED, 64)
EVENT = RowField("at", "at", Dtype.TIMESTAMP, "event time", Presence.REQUIRED)
CREATED = RowField("known", "known", Dtype.TIMESTAMP, "created time", Presence.OPTIONAL)
FEATURES = tuple(RowField(f"f_{each.value}", f"c_{each.value}", each, "feature", Presence.NULLABLE) for each in Dtype)
SCHEMA = RowSchema("things", (KEY, *FEATURES, EVENT, CREATED), ("user",), "known")
SMALL = RowSchema(
    "small",
    (KEY, RowField("count", "count", Dtype.INT32, "feature", Presence.NULLABLE),
     RowField("rate", "rate", Dtype.FLOAT32, "feature", Presence.NULLABLE), EVENT, CREATED),
    ("user",), "known",
)  # fmt: skip
GOOD: dict[str, Any] = {"user": "ann", "count": 3, "rate": 0.5, "at": "2024-01-01T00:00:00Z"}


def a_value(dtype: Dtype, chosen: random.Random) -> Any:
    """A Python value, as Arrow takes it; times are µs."""
    if dtype in ELEMENTS:
        return [a_value(ELEMENTS[dtype], chosen) for _ in range(chosen.randrange(4))]
    made: dict[Dtype, Callable[[], Any]] = {
        Dtype.BOOL: lambda: chosen.random() < 0.5,
        Dtype.INT32: lambda: chosen.choice([0, -(2**31), 2**31 - 1, chosen.randrange(1000)]),
        Dtype.INT64: lambda: chosen.choice([0, -(2**63), 2**63 - 1, chosen.randrange(1000)]),
        Dtype.FLOAT32: lambda: chosen.choice([0.1, -0.0, 3.4e38, chosen.random()]),
        Dtype.FLOAT64: lambda: chosen.choice([0.1, 1.7e308, -1e-310, chosen.random()]),
        Dtype.STRING: lambda: chosen.choice(["", "é", "ß" * 20, "a\nb", "\u2028", "😀"]),
        Dtype.BYTES: lambda: chosen.randbytes(chosen.randrange(9)),
        Dtype.TIMESTAMP: lambda: chosen.randrange(-(10**15), 4 * 10**15),
    }
    return made[dtype]()


def as_json(dtype: Dtype, value: Any) -> Any:
    """The same value as JSON has it."""
    if value is None:
        return None
    if dtype in ELEMENTS:
        return [as_json(ELEMENTS[dtype], each) for each in value]
    if dtype is Dtype.TIMESTAMP:
        return format_timestamp(value)
    return base64.b64encode(value).decode() if dtype is Dtype.BYTES else value


def stream(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def some_rows(seed: int, count: int) -> list[dict[str, Any]]:
    chosen = random.Random(seed)
    rows = []
    for _ in range(count):
        row = {each.name: a_value(each.dtype, chosen) for each in SCHEMA.fields}
        row |= {each.name: None for each in FEATURES if chosen.random() < 0.2}
        row["known"] = None if chosen.random() < 0.5 else row["known"]
        rows.append(row)
    return rows


def as_table(rows: list[dict[str, Any]]) -> pa.Table:
    """With the callers' names and the declared types."""
    arrays = []
    for each, declared in zip(SCHEMA.fields, SCHEMA.arrow, strict=True):
        values = [row[each.name] for row in rows]
        if each.dtype in (Dtype.TIMESTAMP, Dtype.TIMESTAMP_LIST):
            plain = pa.int64() if each.dtype is Dtype.TIMESTAMP else pa.list_(pa.int64())
            arrays.append(pa.array(values, plain).cast(declared.type))
        else:
            arrays.append(pa.array(values, declared.type))
    return pa.table(arrays, names=[each.name for each in SCHEMA.fields])


@pytest.mark.parametrize("seed", range(4))
def test_json_ndjson_and_arrow_give_equal_tables_with_the_sources_names(seed: int) -> None:
    rows = some_rows(seed, 30)
    plain = [{each.name: as_json(each.dtype, row[each.name]) for each in SCHEMA.fields} for row in rows]
    for row in plain:
        if row["known"] is None and seed % 2:
            del row["known"]  # left out, which is the same
    decoder = JsonRows(SCHEMA)
    whole = decoder.json(json.dumps({"rows": plain}).encode())
    lines = decoder.ndjson("\n".join(json.dumps(row) for row in plain).encode() + b"\n\n")
    columns = arrow_rows(SCHEMA, stream(as_table(rows)))
    expected = as_table(rows).rename_columns([each.column for each in SCHEMA.fields])
    for block in (whole, lines, columns):
        assert block.rows == 30
        assert block.has_created
        assert block.to_table().schema == SCHEMA.arrow
        assert block.to_table().equals(expected.combine_chunks())
    joined = table_of([whole, columns, lines, lines])
    assert joined.combine_chunks().equals(pa.concat_tables([expected] * 4).combine_chunks())


def test_numbers_for_a_float32_are_rounded_to_the_nearest_one_in_every_form() -> None:
    given = [0.1, 16_777_217, 3.4028234e38, -1e-50]
    rows = [{**GOOD, "rate": each} for each in given]
    table = pa.table(
        {"user": ["ann"] * 4, "count": pa.array([3] * 4, pa.int64()), "rate": pa.array(given, pa.float64()),
         "at": pa.array([0] * 4, pa.timestamp("ms", tz="Europe/Berlin"))}
    )  # fmt: skip
    for block in (JsonRows(SMALL).json(json.dumps({"rows": rows}).encode()), arrow_rows(SMALL, stream(table))):
        assert block.to_table().column("rate").to_pylist() == np.array(given, np.float32).tolist()


def test_arrow_columns_of_other_widths_and_units_become_the_declared_ones() -> None:
    table = pa.table(
        {
            "at": pa.array([-1, 1_500], pa.timestamp("ns", tz="UTC")),
            "count": pa.array([1, None], pa.uint8()),
            "rate": pa.array([1, 2], pa.int16()),
            "user": pa.array(["a", "b"]).dictionary_encode(),
        }
    )
    made = arrow_rows(SMALL, stream(table)).to_table()
    assert made.column("at").cast(pa.int64()).to_pylist() == [-1, 1], "earlier, never later"
    assert made.column("count").to_pylist() == [1, None]
    assert made.column("uid").to_pylist() == ["a", "b"]


WRONG: list[tuple[str, dict[str, Any], str, str]] = [
    ("a key that is null", {"user": None}, "mistyped_field", "user"),
    ("a key that is too long", {"user": "x" * 65}, "mistyped_field", "user"),
    ("an event time that is null", {"at": None}, "mistyped_field", "at"),
    ("an event time without a zone", {"at": "2024-01-01T00:00:00"}, "mistyped_field", "at"),
    ("an integer beyond its range", {"count": 2**31}, "mistyped_field", "count"),
    ("an integer as a float", {"count": 1.0}, "mistyped_field", "count"),
    ("an integer as text", {"count": "1"}, "mistyped_field", "count"),
    ("a boolean for a number", {"count": True}, "mistyped_field", "count"),
    ("a number beyond a float32", {"rate": 3.5e38}, "mistyped_field", "rate"),
    ("an unknown field", {"rates": 1}, "unknown_field", "rates"),
]


@pytest.mark.parametrize(("_what", "change", "code", "field"), WRONG, ids=[each[0] for each in WRONG])
def test_what_is_wrong_with_a_row_is_named_by_path_and_the_same_in_lines(
    _what: str, change: dict[str, Any], code: str, field: str
) -> None:
    rows = [GOOD, {**GOOD, **change}]
    with pytest.raises(InvalidRequest) as refused:
        JsonRows(SMALL).json(json.dumps({"rows": rows}).encode())
    assert (refused.value.code, refused.value.path) == (code, f"$.rows[1].{field}")
    assert refused.value.allowed
    with pytest.raises(InvalidRequest) as in_lines:
        JsonRows(SMALL).ndjson(b"\n".join([b"", *(json.dumps(row).encode() for row in rows)]))
    assert (in_lines.value.code, in_lines.value.path) == (code, f"$[line 3].{field}")


@pytest.mark.parametrize("field", ["user", "count", "at"])
def test_a_row_without_a_column_is_no_partial_update_but_refused(field: str) -> None:
    part = {name: value for name, value in GOOD.items() if name != field}
    with pytest.raises(InvalidRequest) as refused:
        JsonRows(SMALL).json(json.dumps({"rows": [part]}).encode())
    assert (refused.value.code, refused.value.path) == ("missing_field", f"$.rows[0].{field}")
    assert ("partial" in refused.value.hint) == (field == "count")
    table = pa.Table.from_pylist([{**GOOD, "at": None}]).drop_columns([field])
    with pytest.raises(InvalidRequest) as in_arrow:
        arrow_rows(SMALL, stream(table))
    assert (in_arrow.value.code, in_arrow.value.path) == ("missing_field", f"$.columns.{field}")


ODD_COLUMNS = [
    ("count", pa.array([1, 2**40]), "$.rows[1].count"),
    ("count", pa.array([1, 2**63], pa.uint64()), "$.rows[1].count"),
    ("count", pa.array([1.0, 2.0]), "$.columns.count"),
    ("rate", pa.array([1.0, float("nan")]), "$.rows[1].rate"),
    ("rate", pa.array([float("inf"), 1.0]), "$.rows[0].rate"),
    ("rate", pa.array([1.0, 1e39]), "$.rows[1].rate"),
    ("rate", pa.array(["1", "2"]), "$.columns.rate"),
    ("user", pa.array(["a", None]), "$.rows[1].user"),
    ("user", pa.array(["a", "x" * 65]), "$.rows[1].user"),
    ("user", pa.array([1, 2]), "$.columns.user"),
    ("at", pa.array([0, 1], pa.timestamp("us")), "$.columns.at"),
    ("at", pa.array([0, 2**62], pa.timestamp("s", tz="UTC")), "$.rows[1].at"),
    ("at", pa.nulls(2), "$.rows[0].at"),
]


@pytest.mark.parametrize(("name", "column", "path"), ODD_COLUMNS, ids=lambda each: str(each)[:30])
def test_what_is_wrong_in_arrow_is_named_by_column_and_row(name: str, column: pa.Array, path: str) -> None:
    columns: dict[str, Any] = {
        "user": pa.array(["a", "b"]),
        "count": pa.array([1, 2]),
        "rate": pa.array([1.0, 2.0]),
        "at": pa.array([0, 1], pa.timestamp("us", tz="UTC")),
    }
    assert arrow_rows(SMALL, stream(pa.table(columns))).rows == 2
    with pytest.raises(InvalidRequest) as refused:
        arrow_rows(SMALL, stream(pa.table({**columns, name: column})))
    assert refused.value.path == path
    assert refused.value.code == "mistyped_field"


LONG, WORD = "x" * 20_000, RowField("tag", "tag", Dtype.STRING, "feature", Presence.NULLABLE, 30_000)
SHARED = {
    "dictionary": pa.DictionaryArray.from_arrays(pa.array(np.zeros(5_000, np.int8)), pa.array([LONG])),
    "large dictionary": pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(5_000, np.int8)), pa.array([LONG], pa.large_string())
    ),
}


@pytest.mark.parametrize("kind", SHARED)
def test_words_that_rows_share_are_counted_for_each_before_they_are_copied(kind: str) -> None:
    schema = RowSchema("s", (KEY, WORD), ("user",))
    table = pa.table({"user": ["a"] * 5_000, "tag": SHARED[kind]})
    body = stream(table)
    assert len(body) < 100_000 < INGEST_DECODED_BYTES_MAX < table.num_rows * len(LONG)
    before = pa.total_allocated_bytes()
    with pytest.raises(LimitExceeded) as refused:
        arrow_rows(schema, body)
    assert refused.value.path == "$.columns.tag"
    assert pa.total_allocated_bytes() - before < INGEST_DECODED_BYTES_MAX
    assert arrow_rows(schema, stream(table.slice(0, 1_000))).to_table().column("tag").to_pylist() == [LONG] * 1_000
    narrow = RowSchema("s", (KEY, RowField("tag", "tag", Dtype.STRING, "feature", Presence.NULLABLE, 10)), ("user",))
    with pytest.raises(InvalidRequest, match="too long"):
        arrow_rows(narrow, body)


def test_lists_of_nothing_and_of_shared_words_are_counted_before_they_are_spread() -> None:
    rows = 4_000
    numbers = RowSchema("s", (KEY, RowField("v", "v", Dtype.FLOAT32_LIST, "feature", Presence.NULLABLE)), ("user",))
    nothing = pa.FixedSizeListArray.from_arrays(pa.nulls(rows * INGEST_LIST_ITEMS_MAX), INGEST_LIST_ITEMS_MAX)
    words = RowSchema(
        "s", (KEY, RowField("v", "v", Dtype.STRING_LIST, "feature", Presence.NULLABLE, 30_000)), ("user",)
    )
    shared = pa.ListArray.from_arrays(pa.array(range(5_001), pa.int32()), SHARED["dictionary"])
    for schema, column in ((numbers, nothing), (words, shared)):
        with pytest.raises(LimitExceeded):
            arrow_rows(schema, stream(pa.table({"user": ["a"] * len(column), "v": column})))


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
def test_lengths_of_texts_are_those_of_their_bytes_in_every_layout(kind: pa.DataType) -> None:
    schema = RowSchema("s", (KEY, RowField("tag", "tag", Dtype.STRING, "feature", Presence.NULLABLE, 14)), ("user",))
    values = ["é" * 7, None, "", "a", "longer than 14"]
    plain = pa.table({"user": list("abcde"), "tag": pa.array(values, kind)})
    assert arrow_rows(schema, stream(plain)).to_table().column("tag").to_pylist() == values
    assert arrow_rows(schema, stream(plain.slice(2))).to_table().column("tag").to_pylist() == values[2:]
    odd = pa.table({"user": ["a", "b"], "tag": pa.array([None, "é" * 7 + "a"], kind)})
    with pytest.raises(InvalidRequest) as refused:
        arrow_rows(schema, stream(odd))
    assert refused.value.path == "$.rows[1].tag"


def test_a_null_word_of_a_dictionary_is_no_value_of_a_required_field() -> None:
    users = pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int8()), pa.array(["a", None]))
    schema = RowSchema("s", (KEY, WORD), ("user",))
    with pytest.raises(InvalidRequest) as refused:
        arrow_rows(schema, stream(pa.table({"user": users, "tag": ["x", "y"]})))
    assert (refused.value.path, refused.value.code) == ("$.rows[1].user", "mistyped_field")
    none = pa.DictionaryArray.from_arrays(pa.array([None, 1], pa.int8()), pa.array(["a", None]))
    told = arrow_rows(schema, stream(pa.table({"user": ["a", "b"], "tag": none})))
    assert told.to_table().column("tag").to_pylist() == [None, None]


def test_dictionaries_that_no_index_can_join_and_lists_of_a_dictionary_are_refused() -> None:
    schema = RowSchema("s", (KEY, WORD), ("user",))
    kind = pa.dictionary(pa.int8(), pa.string())
    batches = [
        pa.record_batch({"user": [f"{part}-{each}" for each in range(100)],
                         "tag": pa.array([f"{part}-{each}" for each in range(100)]).cast(kind)})
        for part in "ab"
    ]  # fmt: skip
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    with pytest.raises(InvalidRequest) as refused:
        arrow_rows(schema, sink.getvalue())
    assert (refused.value.path, refused.value.code) == ("$.columns.tag", "mistyped_field")


def test_lists_have_a_bound_and_no_nulls_in_every_form() -> None:
    schema = RowSchema("s", (KEY, RowField("v", "v", Dtype.FLOAT32_LIST, "feature", Presence.NULLABLE)), ("user",))
    for odd in ([1.0, None], [0.0] * (INGEST_LIST_ITEMS_MAX + 1), [1e39]):
        with pytest.raises(InvalidRequest, match="feature `v`"):
            JsonRows(schema).json(json.dumps({"rows": [{"user": "a", "v": odd}]}).encode())
        table = pa.table({"user": ["z", "a"], "v": pa.array([[1.0], odd], pa.large_list(pa.float64()))})
        with pytest.raises(InvalidRequest) as refused:
            arrow_rows(schema, stream(table))
        assert refused.value.path == "$.rows[1].v"
    sliced = pa.table({"user": ["z", "a"], "v": pa.array([[1.0, 2.0], [3.0]])}).slice(1)
    assert arrow_rows(schema, stream(sliced)).to_table().column("v").to_pylist() == [[3.0]]


def test_a_body_without_rows_or_with_too_many_is_refused() -> None:
    decoder = JsonRows(SMALL)
    for empty in (b"", b" ", b'{"rows":[]}', b"{}", b"[]", b"null"):
        with pytest.raises(InvalidRequest):
            decoder.json(empty)
    for empty in (b"", b"\n \n"):
        with pytest.raises(InvalidRequest):
            decoder.ndjson(empty)
    line = json.dumps(GOOD).encode() + b"\n"
    with pytest.raises(LimitExceeded):
        decoder.ndjson(line * (INGEST_ROWS_MAX + 1))
    assert decoder.ndjson(line * 2_000).rows == 2_000
    assert len(line) * 2_000 < INGEST_SLICE_BYTES < len(line) * 6_000
    assert decoder.ndjson(line * 6_000).rows == 6_000, "in several slices"


@pytest.mark.parametrize("seed", range(3))
def test_any_bytes_are_read_or_refused_and_never_a_fault(seed: int) -> None:
    chosen = random.Random(seed)
    good = [
        json.dumps({"rows": [GOOD, GOOD]}).encode(),
        json.dumps(GOOD).encode() + b"\n" + json.dumps(GOOD).encode(),
        stream(pa.table({"user": ["a"], "count": pa.array([1], pa.int32()), "rate": pa.array([1.0], pa.float32()),
                         "at": pa.array([0], pa.timestamp("us", tz="UTC"))})),
    ]  # fmt: skip
    decoder = JsonRows(SMALL)
    reads: list[Callable[[bytes], Any]] = [decoder.json, decoder.ndjson, lambda body: arrow_rows(SMALL, body)]
    refused = 0
    for _ in range(400):
        body = bytearray(chosen.choice(good))
        for _ in range(chosen.randrange(1, 6)):
            place = chosen.randrange(len(body))
            body[place : place + chosen.randrange(3)] = chosen.randbytes(chosen.randrange(4))
        for read in reads:
            try:
                read(bytes(body))
            except InvalidRequest:
                refused += 1
    assert refused > 400
