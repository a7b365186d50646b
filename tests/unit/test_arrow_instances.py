"""Instances out of Arrow columns: what JSON accepts with the same bits, what it refuses with the same words."""

import io
import json
import math
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.bundles import contract, instance
from harness.examples import examples
from skewless.adapters.arrow_instances import WINDOW_ROWS, ArrowRows
from skewless.adapters.arrow_messages import ArrowBatches
from skewless.dtypes import Column, Dtype
from skewless.errors import InvalidRequest
from skewless.features.contract import FeatureContract, RequestField
from skewless.limits import STRING_BYTES_MAX
from skewless.serving.arrow_framing import ArrowMessages
from skewless.serving.compiled_request import RequestDecoder
from skewless.serving.instances import InstanceValidator
from skewless.timestamps import format_timestamp, parse_timestamp

VALIDATOR = InstanceValidator.compile(contract())
DECODER = RequestDecoder.compile(VALIDATOR)
NOON = datetime(2013, 5, 1, 12, 30, tzinfo=UTC)
ROWS = 3


def validator(dtype: Dtype, *, nullable: bool = False) -> InstanceValidator:
    """One field `x`."""
    fields = (RequestField("x", dtype, nullable=nullable),)
    return InstanceValidator.compile(FeatureContract("demo", (), fields, contract().definitions_digest))


def column(array: pa.Array, dtype: Dtype, *, nullable: bool = False) -> Column:
    batch = pa.record_batch([array], names=["x"])
    return next(ArrowRows.of(batch)).columns(RequestDecoder.compile(validator(dtype, nullable=nullable)))["x"]


def refusal(array: pa.Array, dtype: Dtype, *, nullable: bool = False) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as refused:
        column(array, dtype, nullable=nullable)
    return refused.value


def by_json(values: Sequence[object], dtype: Dtype, *, nullable: bool = False) -> Column:
    return validator(dtype, nullable=nullable).columns([{"x": value} for value in values])[0]["x"]


def equal(first: Column, second: Column) -> bool:
    return (
        first.dtype is second.dtype
        and first.values.dtype == second.values.dtype
        and first.valid.tolist() == second.valid.tolist()
        and first.values.tolist() == second.values.tolist()
    )


def flights(rows: int = ROWS) -> pa.Table:
    return pa.table(
        {
            "origin": pa.array(["JFK"] * rows).dictionary_encode(),
            "tailnum": pa.array(["N1", None, "N2"][:rows], pa.large_string()),
            "station": pa.array([7] * rows, pa.int16()),
            "scheduled_departure": pa.array([NOON] * rows, pa.timestamp("ns", "America/New_York")),
            "distance": pa.array([1089.5, None, 0.1][:rows]),
            "is_holiday": pa.array([False, True, False][:rows]),
            "party": pa.array([1, 2, 3][:rows], pa.uint8()),
        }
    )


def read(table: pa.Table) -> Mapping[str, Column]:
    return next(ArrowRows.of(table.combine_chunks().to_batches()[0])).columns(DECODER)


def test_a_table_gives_the_columns_of_the_same_instances_in_json() -> None:
    told = [
        instance(tailnum=tail, distance=distance, is_holiday=holiday, party=party)
        for tail, distance, holiday, party in (("N1", 1089.5, False, 1), (None, None, True, 2), ("N2", 0.1, False, 3))
    ]
    expected, _ = VALIDATOR.columns(told)
    found = read(flights())
    assert found.keys() == expected.keys()
    assert all(equal(found[name], expected[name]) for name in expected)
    shuffled = flights().select(
        ["party", "origin", "distance", "tailnum", "is_holiday", "scheduled_departure", "station"]
    )
    assert all(equal(read(shuffled)[name], expected[name]) for name in expected)


INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]


@pytest.mark.parametrize("dtype", [Dtype.INT32, Dtype.INT64])
@pytest.mark.parametrize("arrow", INTEGERS, ids=str)
def test_integers_of_any_width_are_taken_where_they_fit(arrow: Any, dtype: Dtype) -> None:
    assert equal(column(pa.array([0, 1, 127], arrow), dtype), by_json([0, 1, 127], dtype))
    with_null = column(pa.array([5, None], arrow), dtype, nullable=True)
    assert equal(with_null, by_json([5, None], dtype, nullable=True))


@pytest.mark.parametrize(
    ("value", "arrow", "dtype"),
    [
        (1 << 31, pa.int64(), Dtype.INT32),
        (-(1 << 31) - 1, pa.int64(), Dtype.INT32),
        (1 << 31, pa.uint32(), Dtype.INT32),
        ((1 << 64) - 1, pa.uint64(), Dtype.INT32),
        (1 << 63, pa.uint64(), Dtype.INT64),
    ],
)
def test_an_integer_that_does_not_fit_is_refused_by_its_row_in_jsons_words(
    value: int, arrow: Any, dtype: Dtype
) -> None:
    refused = refusal(pa.array([0, 1, value, value], arrow), dtype)
    with pytest.raises(InvalidRequest) as expected:
        by_json([0, 1, value], dtype)
    assert (refused.message, refused.path) == (expected.value.message, "$.instances[2].x")
    assert (refused.allowed, refused.code) == (expected.value.allowed, "mistyped_field")


@settings(deadline=None, max_examples=examples(200))
@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False, width=64) | st.integers(-(1 << 62), 1 << 62), min_size=1)
)
def test_floats_are_rounded_as_json_rounds_them_or_refused_at_the_same_row(values: list[float]) -> None:
    is_integers = all(type(value) is int for value in values)
    arrow = pa.int64() if is_integers else pa.float64()
    told = values if is_integers else [float(value) for value in values]
    for dtype in (Dtype.FLOAT32, Dtype.FLOAT64):
        expected = _told(partial(by_json, told, dtype))
        found = _told(partial(column, pa.array(told, arrow), dtype))
        assert (
            equal(found, expected) if isinstance(found, Column) and isinstance(expected, Column) else found == expected
        )


def _told(read: Callable[[], Column]) -> Column | str:
    """The column, or the path of what is refused."""
    try:
        return read()
    except InvalidRequest as refused:
        return refused.path


@pytest.mark.parametrize("arrow", [pa.float16(), pa.float32(), pa.float64()], ids=str)
def test_narrow_floats_are_taken_and_nothing_that_is_not_finite(arrow: Any) -> None:
    values = np.array([0.5, -0.0, 2.0], dtype=arrow.to_pandas_dtype())
    assert equal(column(pa.array(values, arrow), Dtype.FLOAT32), by_json([0.5, -0.0, 2.0], Dtype.FLOAT32))
    for wrong in (math.nan, math.inf, -math.inf):
        array = pa.array(np.array([0.5, wrong], dtype=arrow.to_pandas_dtype()), arrow, from_pandas=False)
        refused = refusal(array, Dtype.FLOAT32)
        assert refused.path == "$.instances[1].x"
        assert "is too large" in refused.message


TEXTS = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.dictionary(pa.int8(), pa.string()),
    pa.dictionary(pa.uint32(), pa.large_string()),
]


@pytest.mark.parametrize("arrow", TEXTS, ids=str)
def test_text_is_taken_however_it_is_laid_out(arrow: Any) -> None:
    words = ["JFK", "", "Zürich ✈", "JFK"]
    assert equal(column(pa.array(words).cast(arrow), Dtype.STRING), by_json(words, Dtype.STRING))
    assert equal(
        column(pa.array([None, *words]).cast(arrow)[1:], Dtype.STRING, nullable=True),
        by_json(words, Dtype.STRING, nullable=True),
    )
    nulls = column(pa.array([None, "a", None]).cast(arrow), Dtype.STRING, nullable=True)
    assert equal(nulls, by_json([None, "a", None], Dtype.STRING, nullable=True))
    long = "é" * (STRING_BYTES_MAX // 2) + "x"
    refused = refusal(pa.array(["a", long]).cast(arrow), Dtype.STRING)
    assert refused.path == "$.instances[1].x"
    assert f"has {STRING_BYTES_MAX + 1} UTF-8 bytes" in refused.message


@pytest.mark.parametrize(
    "arrow",
    [pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(2), pa.dictionary(pa.int8(), pa.binary())],
    ids=str,
)
def test_bytes_are_taken_however_they_are_laid_out(arrow: Any) -> None:
    values = [b"ab", b"\x00\xff"]
    assert column(pa.array(values).cast(arrow), Dtype.BYTES).values.tolist() == values
    if not pa.types.is_fixed_size_binary(arrow):
        refused = refusal(pa.array([b"", b"x" * (STRING_BYTES_MAX + 1)]).cast(arrow), Dtype.BYTES)
        assert f"has {STRING_BYTES_MAX + 1} bytes" in refused.message


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "+05:30"])
def test_timestamps_of_any_unit_and_zone_are_the_moment_that_they_say(unit: str, zone: str) -> None:
    moments = [
        NOON,
        datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC),
        datetime(2100, 1, 1, tzinfo=timezone(timedelta(hours=-9))),
    ]
    found = column(pa.array(moments, pa.timestamp(unit, zone)), Dtype.TIMESTAMP)
    assert equal(found, by_json([moment.isoformat() for moment in moments], Dtype.TIMESTAMP))


def test_nanoseconds_are_cut_to_microseconds_as_rfc_3339_is() -> None:
    ticks = pa.array([1_367_411_400_000_000_999, -1], pa.int64()).cast(pa.timestamp("ns", "UTC"))
    found = column(ticks, Dtype.TIMESTAMP).values.tolist()
    assert found == [
        parse_timestamp("2013-05-01T12:30:00.000000999Z"),
        parse_timestamp("1969-12-31T23:59:59.999999999Z"),
    ]


@pytest.mark.parametrize(("unit", "year"), [("s", 10_000), ("s", 0), ("us", 10_000), ("ms", -5), ("s", 200_000_000)])
def test_a_moment_that_no_receipt_could_show_is_refused(unit: str, year: int) -> None:
    per_second = {"s": 1, "ms": 1_000, "us": 1_000_000}[unit]
    ticks = int((year - 1970) * 365.2425 * 86_400) * per_second
    refused = refusal(pa.array([0, ticks], pa.int64()).cast(pa.timestamp(unit, "UTC")), Dtype.TIMESTAMP)
    assert refused.path == "$.instances[1].x"
    assert "years 1 to 9999" in refused.message
    edge = pa.array([format_timestamp(-62_135_596_800_000_000)]).cast(pa.timestamp("us", "UTC"))
    assert column(edge, Dtype.TIMESTAMP).values.tolist() == [-62_135_596_800_000_000]


WRONG = [
    (pa.array(["1"]), Dtype.INT64, "integers of any width"),
    (pa.array([1.0]), Dtype.INT64, "integers of any width"),
    (pa.array([True]), Dtype.INT32, "integers of any width"),
    (pa.array([1]), Dtype.BOOL, "bool"),
    (pa.array(["1.5"]), Dtype.FLOAT32, "floats or integers of any width"),
    (pa.array([True]), Dtype.FLOAT64, "floats or integers of any width"),
    (pa.array([7]), Dtype.STRING, "string, large_string"),
    (pa.array([b"JFK"]), Dtype.STRING, "string, large_string"),
    (pa.array([7]).dictionary_encode(), Dtype.STRING, "string, large_string"),
    (pa.array(["JFK"]), Dtype.BYTES, "binary, large_binary"),
    (pa.array([0]), Dtype.TIMESTAMP, "with a time zone"),
    (pa.array(["2013-05-01T00:00:00Z"]), Dtype.TIMESTAMP, "with a time zone"),
    (pa.array([[1]]), Dtype.INT64, "integers of any width"),
    (pa.array([{"a": 1}]), Dtype.STRING, "string, large_string"),
    (pa.array([None]), Dtype.STRING, "string, large_string"),
    (pa.array([1], pa.decimal128(5, 2)), Dtype.FLOAT64, "floats or integers of any width"),
    (pa.RunEndEncodedArray.from_arrays([1], ["JFK"]), Dtype.STRING, "string, large_string"),
]


@pytest.mark.parametrize(("array", "dtype", "allowed"), WRONG, ids=lambda each: str(getattr(each, "type", each)))
def test_a_column_of_another_type_is_refused_by_its_name_with_what_is_allowed(
    array: pa.Array, dtype: Dtype, allowed: str
) -> None:
    refused = refusal(array, dtype)
    assert (refused.path, refused.code) == ("$.columns.x", "mistyped_field")
    assert allowed in refused.allowed
    assert f"dtype `{dtype}`" in refused.message


def test_a_timestamp_without_a_zone_is_not_guessed() -> None:
    refused = refusal(pa.array([NOON.replace(tzinfo=None)], pa.timestamp("us")), Dtype.TIMESTAMP)
    assert "UTC" in refused.hint


@pytest.mark.parametrize("dtype", [each for each in Dtype if not each.endswith("list")])
def test_a_column_of_nulls_is_null_where_it_may_be_and_a_null_is_named_where_not(dtype: Dtype) -> None:
    found = column(pa.nulls(2), dtype, nullable=True)
    assert found.valid.tolist() == [False, False]
    typed = {Dtype.STRING: pa.string(), Dtype.BYTES: pa.binary(), Dtype.BOOL: pa.bool_()}
    arrow = typed.get(dtype, pa.timestamp("ms", "UTC") if dtype is Dtype.TIMESTAMP else pa.int32())
    assert equal(column(pa.nulls(2, arrow), dtype, nullable=True), found)
    refused = refusal(pa.nulls(2, arrow), dtype)
    assert refused.path == "$.instances[0].x"
    assert "is null" in refused.message


def test_missing_unknown_and_doubled_columns_are_named() -> None:
    def refused(table: pa.Table) -> InvalidRequest:
        with pytest.raises(InvalidRequest) as found:
            read(table)
        return found.value

    missing = refused(flights().drop_columns("tailnum"))
    assert (missing.path, missing.code) == ("$.columns.tailnum", "missing_field")
    assert "column of nulls" in missing.hint
    unknown = refused(flights().append_column("orgin", pa.array(["JFK"] * ROWS)))
    assert (unknown.path, unknown.code) == ("$.columns.orgin", "unknown_field")
    assert unknown.hint == "did you mean `origin`?"
    doubled = pa.Table.from_arrays([*flights().columns, flights()["party"]], names=[*flights().column_names, "party"])
    assert "2 columns `party`" in refused(doubled).message


def test_a_slice_is_read_from_its_own_rows() -> None:
    table = flights().combine_chunks()
    rows = next(ArrowRows.of(table.to_batches()[0])).part(1, 3)
    assert len(rows) == 2
    found = rows.columns(DECODER)
    expected = read(table)
    for name, whole in expected.items():
        assert found[name].values.tolist() == whole.values[1:].tolist()
        assert found[name].valid.tolist() == whole.valid[1:].tolist()


def test_rows_of_many_windows_are_those_of_the_batch_and_a_wrong_one_spoils_only_its_own_part() -> None:
    values = list(range(WINDOW_ROWS + 300))
    values[40] = 1 << 40
    batch = pa.record_batch([pa.array(values)], names=["x"])
    decoder = RequestDecoder.compile(validator(Dtype.INT32))
    first, second = ArrowRows.of(batch)
    assert (len(first), len(second)) == (WINDOW_ROWS, 300)
    assert second.columns(decoder)["x"].values.tolist() == values[WINDOW_ROWS:]
    assert first.part(41, 50).columns(decoder)["x"].values.tolist() == values[41:50]
    with pytest.raises(InvalidRequest) as refused:
        first.part(30, 50).columns(decoder)
    assert refused.value.path == "$.instances[10].x"
    with pytest.raises(InvalidRequest) as refused:
        first.part(30, 50).part(5, 20).columns(decoder)
    assert refused.value.path == "$.instances[5].x"


def test_rows_are_converted_anew_for_another_bundle() -> None:
    (rows,) = ArrowRows.of(pa.record_batch([pa.array([1, 2])], names=["x"]))
    for dtype in (Dtype.INT32, Dtype.FLOAT32, Dtype.INT32):
        assert rows.columns(RequestDecoder.compile(validator(dtype)))["x"].dtype is dtype


def test_reading_and_answering_in_arrow_loads_no_pandas() -> None:
    code = """
import io, sys
import numpy as np, pyarrow as pa
stream = open(sys.argv[1], "rb").read()
from harness.bundles import contract
from skewless.adapters.arrow_answers import ArrowAnswers
from skewless.adapters.arrow_instances import ArrowRows
from skewless.adapters.arrow_messages import ArrowBatches
from skewless.serving.arrow_framing import ArrowMessages
from skewless.serving.compiled_request import RequestDecoder
from skewless.serving.instances import InstanceValidator
decoder, batches = RequestDecoder.compile(InstanceValidator.compile(contract())), ArrowBatches()
for message in ArrowMessages().feed(stream):
    batch = batches.read(message)
    for rows in ArrowRows.of(batch) if batch is not None else ():
        rows.columns(decoder)
answers = ArrowAnswers()
answers.answered(0, ["a"], ["late"], np.zeros(1, np.float32), "normal"), answers.failed(1, b"{}"), answers.finish({})
print("pandas" in sys.modules)
"""
    with tempfile.NamedTemporaryFile() as file:
        with pa.ipc.new_stream(file, flights().schema) as writer:
            writer.write_table(flights())
        file.flush()
        done = subprocess.run(
            [sys.executable, "-c", code, file.name],
            env={"PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
    assert done.stdout == "False\n"


def test_any_damage_to_a_stream_is_a_refusal_in_words_or_other_rows_and_never_a_fault() -> None:
    seed = 20260
    chance = random.Random(seed)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, flights().schema) as writer:
        writer.write_table(flights(), max_chunksize=2)
    data = sink.getvalue()
    refusals = 0
    for _ in range(2_000):
        damaged = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        messages, batches = ArrowMessages(), ArrowBatches()
        try:
            for message in messages.feed(bytes(damaged)):
                batch = batches.read(message)
                if batch is not None:
                    json.dumps(
                        [column.values.tolist() for column in next(ArrowRows.of(batch)).columns(DECODER).values()]
                    )
            messages.finish()
        except InvalidRequest:
            refusals += 1
    assert refusals > 500, f"seed {seed}: most damage is seen"
