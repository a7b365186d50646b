"""The compiled decoder and the careful reader accept the same bodies, with equal columns, and refuse in one voice."""

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.examples import examples
from skewless.column_table import ColumnLayout
from skewless.dtypes import TABLE, Dtype
from skewless.errors import InvalidRequest
from skewless.limits import DEADLINE_MS_MAX, ROWS_MAX
from skewless.serving.compiled_request import RequestDecoder
from skewless.serving.field_types import READERS
from skewless.serving.instances import InstanceField, InstanceValidator
from skewless.serving.json_body import parse_json
from skewless.serving.request import PredictRequest, ReceiptLevel, read_request

NAMES = ("origin", "a b", "größe", "x.y", "instances", "type", "field1", "Ⅷ")


class Raw(str):
    """A piece of JSON that is written as it is."""

    __slots__ = ()


def validator(*fields: tuple[str, Dtype, bool]) -> InstanceValidator:
    made = tuple(InstanceField(name, dtype, nullable, "request field") for name, dtype, nullable in fields)
    return InstanceValidator(made, frozenset(field.name for field in made))


def outcome(read: Any, body: bytes) -> PredictRequest | str:
    """What a body comes to: the request, or the words of its refusal."""
    try:
        request: PredictRequest = read(body)
    except InvalidRequest as error:
        return f"{error.code} {error.path} {error.message} {error.hint} {getattr(error, 'allowed', '')}"
    return request


def assert_both_agree(fields: InstanceValidator, body: bytes, *, as_of_allowed: bool = False) -> PredictRequest | str:
    """Both readers, compared; what they agree on."""
    decoder = RequestDecoder.compile(fields)
    fast = outcome(lambda given: decoder.read(given, as_of_allowed=as_of_allowed), body)
    careful = outcome(lambda given: read_request(parse_json(given), fields, as_of_allowed=as_of_allowed), body)
    if isinstance(fast, str) or isinstance(careful, str):
        assert fast == careful
        return fast
    assert fast.rows == careful.rows
    assert fast.options == careful.options
    assert list(fast.columns) or not careful.columns
    assert set(fast.columns) == set(careful.columns)
    for name, expected in careful.columns.items():
        seen = fast.columns[name]
        assert seen.dtype is expected.dtype
        assert seen.values.dtype == expected.values.dtype == TABLE[expected.dtype].numpy
        assert seen.valid.tolist() == expected.valid.tolist()
        assert seen.values.flags.c_contiguous
        if expected.values.dtype.hasobject:
            assert list(map(type, seen.values.tolist())) == list(map(type, expected.values.tolist()))
            assert seen.values.tolist() == expected.values.tolist()
        else:
            assert seen.values.tobytes() == expected.values.tobytes(), name  # -0.0 is not 0.0
    return fast


def written(value: object) -> str:
    """JSON of a value, pieces that are no JSON among it."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{written(name)}: {written(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(written, value)) + "]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else json.dumps(value)


BOUNDS = [
    sign * (1 << bits) + off for bits in (0, 7, 24, 31, 32, 53, 63, 64, 100, 127, 128, 1_023) for sign in (1, -1)
    for off in (-1, 0, 1)
]  # fmt: skip
WORDS = (
    "1e400", "-1e400", "1e-400", "-0", "-0.0", "0.0", "1.0", "1e2", "3.4028235677973366e38", "3.5e38", "1e39",
    "3.402823466385288598e38", "-3.4028234663852886e+38", "16777217", "9007199254740993", "12345678901234567890123",
    "1" + "0" * 400, "NaN", "Infinity", "-Infinity", "01", "+1", "1.", ".5", "0x1", "true", "null", '"\\ud800"',
    '"\\udc00\\ud800"', '"\\ud83d\\ude00"', '"\\u0000"', '"\\u004a\\u0046K"', "[]", "{}", "[1]", "'JFK'", "",
    "2.2250738585072011e-308", "4.9e-324", "1.7976931348623157e308", "1.7976931348623159e308", "1E5", "1e+5", "1e05",
)  # fmt: skip
TIMES = (
    "2013-05-01T09:30:00Z", "2013-05-01", "20130501", "2013-05-01T09:30:00", "2013-05-01T09:30+02:00", "2013-W18-3",
    "0001-01-01T00:00:00+01:00", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59-12:00",
    "2013-05-01T24:00:00Z", "2013-05-01t09:30:00z", "2013-05-01 09:30:00.123456789Z", "soon", "",
)  # fmt: skip
TEXTS = st.one_of(
    st.text(max_size=30),
    st.sampled_from(TIMES),
    st.binary(max_size=20).map(lambda data: base64.b64encode(data).decode()),
    st.sampled_from(
        ["x" * 1024, "x" * 1025, "ä" * 256, "ä" * 257, "ä" * 512, "ä" * 513, "QQ==", "QQ", "Q===", "QQ==\n"]
    ),
)
ANY = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(BOUNDS),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    TEXTS,
    st.sampled_from(WORDS).map(Raw),
    st.lists(st.integers(), max_size=2),
)
FITTING: dict[Dtype, st.SearchStrategy[Any]] = {
    Dtype.BOOL: st.booleans(),
    Dtype.INT32: st.integers(-(1 << 31), (1 << 31) - 1),
    Dtype.INT64: st.integers(-(1 << 63), (1 << 63) - 1),
    Dtype.FLOAT32: st.one_of(
        st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(-(10**30), 10**30)
    ),
    Dtype.FLOAT64: st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(BOUNDS)),
    Dtype.STRING: TEXTS,
    Dtype.BYTES: st.binary(max_size=20).map(lambda data: base64.b64encode(data).decode()),
    Dtype.TIMESTAMP: st.sampled_from(TIMES),
}


@st.composite
def bodies(draw: st.DrawFn) -> tuple[InstanceValidator, bytes]:
    """A contract, and a body that fits it but for a few places."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True))
    fields = [(name, draw(st.sampled_from(list(READERS))), draw(st.booleans())) for name in names]
    spoiled = draw(st.booleans())

    def value(dtype: Dtype, *, nullable: bool) -> object:
        if spoiled and draw(st.integers(0, 5)) == 0:
            return draw(ANY)
        return draw(st.none()) if nullable and draw(st.integers(0, 3)) == 0 else draw(FITTING[dtype])

    rows: list[Any] = []
    for _ in range(draw(st.integers(0 if spoiled else 1, 4))):
        items = [f"{written(name)}: {written(value(dtype, nullable=nullable))}" for name, dtype, nullable in fields]
        if spoiled and draw(st.integers(0, 5)) == 0:
            items.append(f"{written(draw(st.sampled_from(NAMES)))}: {written(draw(ANY))}")  # twice, or unknown
        if spoiled and draw(st.integers(0, 8)) == 0:
            del items[draw(st.integers(0, len(items) - 1))]
        rows.append(Raw("{" + ",".join(draw(st.permutations(items))) + "}"))
    members = [f'"instances": {written(rows)}']
    if draw(st.booleans()):
        options = draw(st.dictionaries(st.sampled_from(["deadline_ms", "receipt"]), option_values(spoiled=spoiled)))
        members.append(f'"options": {written(options)}')
    body = ("{" + ", ".join(draw(st.permutations(members))) + "}").encode("utf-8", "surrogatepass")
    return validator(*fields), body


def option_values(*, spoiled: bool) -> st.SearchStrategy[Any]:
    fitting = st.sampled_from([1, 50, DEADLINE_MS_MAX, "none", "summary", "full"])
    return st.one_of(fitting, ANY) if spoiled else fitting


@settings(max_examples=examples(400), deadline=None)
@given(bodies())
def test_both_readers_agree_on_bodies_that_nearly_fit(case: tuple[InstanceValidator, bytes]) -> None:
    assert_both_agree(*case)


@settings(max_examples=examples(200), deadline=None)
@given(bodies(), st.data())
def test_both_readers_agree_on_damaged_bytes(case: tuple[InstanceValidator, bytes], data: st.DataObject) -> None:
    fields, body = case
    damaged = bytearray(body)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    assert_both_agree(fields, bytes(damaged))
    assert_both_agree(fields, bytes(damaged[:cut]))


@pytest.mark.parametrize("dtype", READERS)
@pytest.mark.parametrize("nullable", [False, True])
def test_both_readers_agree_on_every_odd_value(dtype: Dtype, nullable: bool) -> None:
    fields = validator(("value", dtype, nullable), ("other", dtype, False))
    odd = [*map(Raw, WORDS), *BOUNDS, *TIMES, "x" * 1024, "x" * 1025, "ä" * 512, "ä" * 513, "QQ==", "QQ", "A" * 1368]
    for value in odd:
        body = '{"instances": [{"value": %s, "other": %s}]}' % ((written(value),) * 2)  # full of braces
        assert_both_agree(fields, body.encode())


@pytest.mark.parametrize(
    "body",
    [
        b"", b" ", b"null", b"[]", b"{}", b'{"instances": null}', b'{"instances": []}', b'{"instances": [null]}',
        b'{"instances": [{"n": 1}], "instances": [{"n": 2}]}', b'{"instances": [{"n": 1, "n": 2}]}',
        b'{"instances": [{"n": "x", "n": 2}]}', b'{"instances": [{"n": 2, "n": "x"}]}', b'{"instances": [{"N": 1}]}',
        b'{"instances": [{"n": 1}], "options": null}', b'{"instances": [{"n": 1}], "options": {}}',
        b'{"instances": [{"n": 1}], "options": {"as_of": "2013-05-01"}}', b'{"instances": [{"n": 1}]} x',
        b'{"instances": [{"n": 1}]}\n', b'\xef\xbb\xbf{"instances": [{"n": 1}]}', b'{"instances": [{"\xff": 1}]}',
        b'{"instances": [{"n": 1}], "options": {"receipt": "Full"}}', b'{"instances": [{"n": 1}], "\\u0069": 1}',
        b'{"\\u0069nstances": [{"\\u006e": 1}]}', b"[" * 100_000, b'{"instances":' * 20_000,
        b'{"instances": [{"n": ' + b"[" * 20_000,
    ],
)  # fmt: skip
def test_both_readers_agree_on_the_shape_of_a_body(body: bytes) -> None:
    fields = validator(("n", Dtype.INT64, False))
    assert_both_agree(fields, body)
    assert_both_agree(fields, body, as_of_allowed=True)


@pytest.mark.parametrize("rows", [ROWS_MAX, ROWS_MAX + 1])
def test_both_readers_agree_on_the_most_rows(rows: int) -> None:
    agreed = assert_both_agree(validator(("n", Dtype.INT64, False)), written({"instances": [{"n": 1}] * rows}).encode())
    assert isinstance(agreed, str) == (rows > ROWS_MAX)


def test_an_ordinary_body_never_takes_the_careful_path() -> None:
    """Or it would be checked twice; the careful path is given a validator here that refuses everything."""
    fields = [(dtype.value, dtype, True) for dtype in READERS]
    decoder = RequestDecoder.compile(validator(*fields))
    blind = replace(decoder, validator=validator())
    row = {
        "bool": True, "int32": 5, "int64": None, "float32": 1, "float64": -0.0, "string": "JFK", "bytes": "QQ==",
        "timestamp": "2013-05-01T09:30:00Z",
    }  # fmt: skip
    body = {"instances": [row, dict.fromkeys(row)], "options": {"receipt": "full", "deadline_ms": 7}}
    request = blind.read(json.dumps(body).encode(), as_of_allowed=True)
    assert (request.rows, request.options.deadline_ms, request.options.receipt) == (2, 7, ReceiptLevel.FULL)
    assert [column.valid.tolist() for column in request.columns.values()] == [
        [name != "int64", False] for name in request.columns
    ]
    assert math.copysign(1, float(request.columns["float64"].values[0])) == -1
    assert request.columns["bytes"].values[0] == b"A"


@settings(max_examples=examples(100), deadline=None)
@given(bodies())
def test_lines_are_read_as_the_instances_of_a_body_or_not_at_all(case: tuple[InstanceValidator, bytes]) -> None:
    fields, body = case
    decoder = RequestDecoder.compile(fields)
    try:
        careful = read_request(parse_json(body), fields, as_of_allowed=False)
        rows = json.loads(body)["instances"]
    except (InvalidRequest, ValueError):
        return
    read = decoder.lines("\n".join(map(json.dumps, rows)).encode())
    if read is None:  # a long string
        return
    columns, count = read
    assert count == careful.rows
    for name, expected in careful.columns.items():
        assert columns[name].values.tolist() == expected.values.tolist()
        assert columns[name].valid.tolist() == expected.valid.tolist()


@pytest.mark.parametrize("line", [b"null", b"[]", b"{}", b'{"n": "1"}', b'{"n": 1, "m": 2}', b'{"n": 1', b"\xff"])
def test_lines_with_anything_unusual_are_left_to_whoever_can_say_what_it_is(line: bytes) -> None:
    decoder = RequestDecoder.compile(validator(("n", Dtype.INT64, False)))
    assert decoder.lines(b'{"n": 1}\n' + line) is None
    read = decoder.lines(b'{"n": 1}\n{"n": 2}\n')
    assert read is not None
    assert (read[0]["n"].values.tolist(), read[1]) == ([1, 2], 2)


def test_single_rows_share_nothing_that_could_be_written() -> None:
    decoder = RequestDecoder.compile(validator(("n", Dtype.INT64, True), ("x", Dtype.FLOAT32, False)))
    body = b'{"instances": [{"n": 1, "x": 2}]}'
    first, second = (decoder.read(body, as_of_allowed=False).columns for _ in range(2))
    for name in first:
        assert not np.shares_memory(first[name].values, second[name].values)
        assert not first[name].valid.flags.writeable


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb"])
def test_a_field_name_that_no_schema_can_have_is_read_all_the_same(name: str) -> None:
    fields = validator((name, Dtype.INT64, False))
    agreed = assert_both_agree(fields, json.dumps({"instances": [{name: 5}]}).encode())
    assert not isinstance(agreed, str)
    assert agreed.columns[name].values.tolist() == [5]


def test_the_layout_is_the_one_that_the_careful_path_leads_to() -> None:
    """The transform is prepared once per layout, so that two of them would be prepared twice."""
    fields: Sequence[tuple[str, Dtype, bool]] = [
        ("a", Dtype.INT64, False), ("b", Dtype.STRING, False), ("c", Dtype.INT64, True),
    ]  # fmt: skip
    decoder = RequestDecoder.compile(validator(*fields))
    columns = decoder.read(b'{"instances": [{"a": 1, "b": "x", "c": null}]}', as_of_allowed=False).columns
    assert columns.layout == ColumnLayout.of([(name, dtype) for name, dtype, _ in fields])  # type: ignore[attr-defined]  # a table
