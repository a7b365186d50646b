"""Requests that are wrong in one known place, out of one readable table: kind of wrong × place × protocol.

Each carries what must be answered: status, stable code, and the path of the place. Values are written as JSON text, so
that what no encoder would write (NaN, 1e999, a lone surrogate) is among them.
"""

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from harness.bundles import instance
from harness.gateways import ENDPOINT
from harness.protocols import FIELDS, JSON_LENGTH, OIP, TENSORFLOW, VERTEX, binary_tensors, json_tensors
from skewless.dtypes import Dtype
from skewless.limits import BODY_BYTES_MAX, DEADLINE_MS_MAX, ROWS_MAX, STRING_BYTES_MAX

REST = f"/v1/endpoints/{ENDPOINT}/predict"
BATCH = f"{REST}:batch"
JSON, NDJSON = "application/json", "application/x-ndjson"
ARROW, BYTES = "application/vnd.apache.arrow.stream", "application/octet-stream"
ROWS = 5
PLACES = (0, 2, ROWS - 1)
_MARK = '"\u0001place\u0001"'
"""Stands in a body for the value that is put there as text."""


@dataclass(frozen=True, slots=True)
class BadInput:
    """One request, and what must be answered. `path` None: the answer names no place."""

    name: str
    target: str
    body: bytes
    status: int
    code: str
    path: str | None
    content_type: str = JSON
    headers: Mapping[str, str] | None = None


_LONG = json.dumps("x" * (STRING_BYTES_MAX + 1))
_LONG_IN_BYTES = json.dumps("ü" * (STRING_BYTES_MAX // 2 + 1), ensure_ascii=False)
_NO_SCALARS = {"an array": "[]", "an array of it": "[1]", "an object": "{}", "nested": "[" * 50 + "]" * 50}
_INTEGERS = {
    **_NO_SCALARS, "true": "true", "a text": '"7"', "an empty text": '""', "a fraction": "7.5", "an exponent": "7e0",
    "one too many": "{max_plus_1}", "one too few": "{min_minus_1}",
}  # fmt: skip
_FLOATS = {
    **_NO_SCALARS, "false": "false", "a text": '"1.5"', "infinity as text": '"inf"', "too large": "1e39",
    "too small": "-1e39", "nan as text": '"NaN"',
}  # fmt: skip
_TEXTS = {
    **_NO_SCALARS, "a number": "7", "a fraction": "1.5", "true": "true", "too long": _LONG,
    "too long in bytes": _LONG_IN_BYTES,
}  # fmt: skip
WRONG_VALUES: Mapping[Dtype, Mapping[str, str]] = {
    Dtype.STRING: _TEXTS,
    Dtype.INT64: {name: text.format(max_plus_1=2**63, min_minus_1=-(2**63) - 1) if "{m" in text else text
                  for name, text in _INTEGERS.items()},
    Dtype.INT32: {name: text.format(max_plus_1=2**31, min_minus_1=-(2**31) - 1) if "{m" in text else text
                  for name, text in _INTEGERS.items()},
    Dtype.FLOAT32: _FLOATS,
    Dtype.BOOL: {**_NO_SCALARS, "a number": "1", "a text": '"true"', "zero": "0", "an empty text": '""'},
    Dtype.TIMESTAMP: {
        **_NO_SCALARS, "a number": "1367411400", "true": "true", "an empty text": '""',
        "no zone": '"2013-05-01T12:30:00"',
        "a thirteenth month": '"2013-13-01T12:30:00Z"', "no day": '"2013-02-30T12:30:00Z"',
        "year 10000": '"10000-01-01T00:00:00Z"', "year 0": '"0000-01-01T00:00:00Z"', "words": '"yesterday"',
        "a NUL": '"2013-05-01T12:30:00Z\\u0000"',
        "words behind a NUL": '"2013-05-01T12:30:00Z\\u0000 or so"', "other digits": '"\uff12\uff1013-05-01T12:30:00Z"',
    },
}  # fmt: skip
"""JSON text of values that a field of a dtype cannot hold, by what is wrong about them."""
WRONG_MICROSECONDS = {**WRONG_VALUES[Dtype.INT64], "year 10000": "253402300800000000", "year 0": "-62135596800000001"}
NO_JSON: Mapping[str, str] = {
    "NaN": "NaN", "Infinity": "Infinity", "-Infinity": "-Infinity", "1e999": "1e999", "-1e999": "-1e999", "plus": "+1",
    "a zero first": "01", "a point first": ".5", "a point last": "5.", "hexadecimal": "0x10", "a lone quote": '"',
    "single quotes": "'a'", "nothing": "", "a comment": "1 /* one */", "a bare word": "undefined", "True": "True",
    "a control character": '"\u0002"', "a half escape": '"\\u12"', "a bad escape": '"\\x41"', "a tab": '"\t"',
}  # fmt: skip
"""Text in the place of a value that makes the whole body no JSON."""


def _instances(count: int = ROWS) -> list[dict[str, object]]:
    return [instance(station=number) for number in range(count)]


def _with(document: object, text: str) -> bytes:
    """The document as JSON, with text in the marked place. A lone surrogate half cannot be written, and is not."""
    written = json.dumps(document, ensure_ascii=False)
    mark = json.dumps(json.loads(_MARK.replace("\u0001", "\\u0001")), ensure_ascii=False)
    assert written.count(mark) == 1, "one place is wrong"
    return written.replace(mark, text).encode()


_MARKED: Any = json.loads(_MARK.replace("\u0001", "\\u0001"))


def _rows(field: str, row: int) -> list[dict[str, object]]:
    rows = _instances()
    rows[row][field] = _MARKED
    return rows


def _rest(field: str, row: int) -> tuple[str, object, str]:
    return REST, {"instances": _rows(field, row)}, f"$.instances[{row}].{field}"


def _tensorflow_rows(field: str, row: int) -> tuple[str, object, str]:
    return f"{TENSORFLOW}:predict", {"instances": _rows(field, row)}, f"$.instances[{row}].{field}"


def _tensorflow_columns(field: str, row: int) -> tuple[str, object, str]:
    rows = _rows(field, row)
    columns = {name: [each[name] for each in rows] for name in rows[0]}
    return f"{TENSORFLOW}:predict", {"inputs": columns}, f"$.inputs.{field}[{row}]"


def _vertex(field: str, row: int) -> tuple[str, object, str]:
    return VERTEX.predict_route, {"instances": _rows(field, row)}, f"$.instances[{row}].{field}"


def _oip(field: str, row: int) -> tuple[str, object, str]:
    inputs = json_tensors(_instances())
    (place,) = (number for number, each in enumerate(inputs) if each["name"] == field)
    inputs[place]["data"][row] = _MARKED
    return f"{OIP}/infer", {"inputs": inputs}, f"$.inputs[{place}].data[{row}]"


Put = Callable[[str, int], tuple[str, object, str]]
"""Where a field of a row stands: the route, the document with that place marked, and the place's path."""
PROTOCOLS: Mapping[str, Put] = {
    "rest": _rest,
    "tensorflow rows": _tensorflow_rows,
    "tensorflow columns": _tensorflow_columns,
    "vertex": _vertex,
    "oip": _oip,
}


def wrong_values() -> Iterator[BadInput]:
    """Every wrong value of every field, in the first row, in the middle and in the last, by every JSON protocol."""
    for protocol, put in PROTOCOLS.items():
        for field in FIELDS:
            for name, text in _wrong_texts(field.dtype, nullable=field.nullable, protocol=protocol).items():
                for row in PLACES:
                    target, document, path = put(field.name, row)
                    label = f"{protocol}: {field.name}[{row}] is {name}"
                    yield BadInput(label, target, _with(document, text), 400, "mistyped_field", path)


def _wrong_texts(dtype: Dtype, *, nullable: bool, protocol: str) -> Mapping[str, str]:
    texts = dict(WRONG_MICROSECONDS if protocol == "oip" and dtype is Dtype.TIMESTAMP else WRONG_VALUES[dtype])
    if protocol == "oip":
        texts.pop("an array of it", None)  # which is how a tensor of shape [rows, 1] may be written
    return texts if nullable else {**texts, "null": "null"}


def no_json() -> Iterator[BadInput]:
    """Text that is no JSON in the place of a value, by every JSON protocol; and bodies that are none at all."""
    for protocol, put in PROTOCOLS.items():
        for name, text in NO_JSON.items():
            target, document, _ = put("distance", 2)
            yield BadInput(f"{protocol}: {name}", target, _with(document, text), 400, "malformed_json", "$")
        target, document, _ = put("distance", 2)
        whole = _with(document, "1.5")
        for name, body in {
            "an empty body": b"",
            "blanks": b" \r\n\t ",
            "half a body": whole[: len(whole) // 2],
            "all but the end": whole[:-1],
            "more behind it": whole + b"{}",
            "a NUL behind it": whole + b"\x00",
            "a NUL before it": b"\x00" + whole,
            "bytes that are no UTF-8": whole.replace(b"N1", b"N\xff", 1),
            "half a character": whole.replace(b"N1", b"N\xe2\x82", 1),
            "UTF-16": whole.decode().encode("utf-16"),
            "gzip": b"\x1f\x8b\x08\x00" + whole,
            "an endless array": b"[" * 100_000,
            "an endless object": b'{"instances":' * 50_000,
        }.items():
            yield BadInput(f"{protocol}: {name}", target, body, 400, "malformed_json", "$")


def _rows_documents() -> Iterator[tuple[str, str, bool]]:
    """Routes that take instances: name, path, and whether they take options."""
    yield "rest", REST, True
    yield "tensorflow", f"{TENSORFLOW}:predict", False
    yield "vertex", VERTEX.predict_route, False


def wrong_shapes() -> Iterator[BadInput]:
    """Documents of the wrong shape, where instances are sent as rows."""
    for protocol, target, _ in _rows_documents():
        bad = partial(_document, protocol, target)
        for kind, body in (("null", None), ("a list", []), ("a number", 1), ("a text", "instances"), ("true", True)):
            yield bad(f"the body is {kind}", body, "invalid_request", "$")
            yield bad(f"the instances are {kind}", {"instances": body}, "invalid_request", "$.instances")
            for row in PLACES:
                rows: list[Any] = _instances()
                rows[row] = body
                yield bad(f"instance {row} is {kind}", {"instances": rows}, "invalid_request", f"$.instances[{row}]")
        yield bad("an object for the instances", {"instances": {}}, "invalid_request", "$.instances")
        yield bad("a field that is unknown", {"instances": _instances(), "x": 1}, "unknown_field", "$.x")
        many: dict[str, list[object]] = {"instances": [{}] * (ROWS_MAX + 1)}
        yield bad("too many instances", many, "limit_exceeded", "$.instances", status=413)
        for row in PLACES:
            for field in FIELDS:
                yield _without(protocol, target, field.name, row)
            yield _with_more(protocol, target, row)


def _without(protocol: str, target: str, field: str, row: int) -> BadInput:
    rows = _instances()
    del rows[row][field]
    path = f"$.instances[{row}].{field}"
    return _document(protocol, target, f"no {field} in {row}", {"instances": rows}, "missing_field", path)


def _with_more(protocol: str, target: str, row: int) -> BadInput:
    rows = _instances()
    rows[row]["origins"] = "JFK"
    path = f"$.instances[{row}].origins"
    return _document(protocol, target, f"more in {row}", {"instances": rows}, "unknown_field", path)


def _document(
    protocol: str, target: str, name: str, document: object, code: str, path: str | None, *, status: int = 400
) -> BadInput:
    return BadInput(f"{protocol}: {name}", target, json.dumps(document).encode(), status, code, path)


def wrong_options() -> Iterator[BadInput]:
    """Options of the REST API and the parameters that stand for them elsewhere."""
    wrong: dict[str, Sequence[Any]] = {
        "deadline_ms": (0, -1, DEADLINE_MS_MAX + 1, 1.5, "50", None, True, [], {}, 2**70),
        "receipt": ("", "SUMMARY", "all", 1, None, True, [], {}),
        "as_of": ("2013-05-01T12:30:00Z",),
        "deadline": (50,),
    }
    codes = {"as_of": "as_of_not_allowed", "deadline": "unknown_option"}
    document: dict[str, object]
    for option, values in wrong.items():
        for value in values:
            document = {"instances": _instances(), "options": {option: value}}
            path = f"$.options.{option}"
            yield _document("rest", REST, f"{option} is {value!r}", document, codes.get(option, "invalid_option"), path)
    no_objects: Sequence[object] = (None, [], 1, "fast", True)
    for no_options in no_objects:
        document = {"instances": _instances(), "options": no_options}
        yield _document("rest", REST, f"options are {no_options!r}", document, "invalid_request", "$.options")
    for name, value, code in (
        ("timeout", 999, "invalid_option"), ("timeout", "1", "invalid_option"), ("deadline_ms", 0, "invalid_option"),
        ("as_of", "2013-05-01T12:30:00Z", "as_of_not_allowed"), ("sequence_id", 1, "unknown_parameter"),
        ("priority", 1, "unknown_parameter"), ("classification", 1, "unknown_parameter"),
        ("binary_data_output", 1, "invalid_option"), ("content_type", "jpg", "unknown_parameter"),
    ):  # fmt: skip
        document = {"inputs": json_tensors(_instances()), "parameters": {name: value}}
        yield _document("oip", f"{OIP}/infer", f"{name} is {value!r}", document, code, f"$.parameters.{name}")


def wrong_heads() -> Iterator[BadInput]:
    """Right bodies under a head that is wrong: content types, encodings, deadlines, sizes, routes."""
    body = json.dumps({"instances": _instances()}).encode()
    for content_type in ("text/plain", "application/xml", "application/jsonp", "", "application/json; charset=latin-1"):
        for protocol, target, _ in _rows_documents():
            name = f"{protocol}: content type {content_type!r}"
            yield BadInput(name, target, body, 415, "unsupported_media_type", "$", content_type)
    for protocol, target, _ in _rows_documents():
        for encoding in ("gzip", "br", "deflate, gzip"):
            yield BadInput(
                f"{protocol}: content encoding {encoding}", target, body, 415, "unsupported_media_type", "$",
                headers={"Content-Encoding": encoding},
            )  # fmt: skip
        for timeout in ("0", "-5", "soon", "1.5", "", "0x10", "99999999999"):
            yield BadInput(
                f"{protocol}: timeout {timeout!r}", target, body, 400, "invalid_option", "$",
                headers={"X-Request-Timeout-Ms": timeout},
            )  # fmt: skip
        large = body + b" " * BODY_BYTES_MAX
        yield BadInput(f"{protocol}: a body too large", target, large, 413, "limit_exceeded", "$")
    for target in (
        "/v1/endpoints/nobody/predict", "/v2/models/nobody/infer", "/v1/models/nobody:predict",
        f"{OIP}/versions/7/infer", f"{TENSORFLOW}/versions/7:predict", f"{OIP}/nowhere",
        "/v2/systemsharedmemory/status",
    ):  # fmt: skip
        yield BadInput(f"nothing at {target}", target, body, 404, "not_found", None)


def wrong_tensors() -> Iterator[BadInput]:
    """Tensors of the Open Inference Protocol that are wrong in form, as JSON and as bytes."""
    yield from _wrong_json_tensors()
    yield from _wrong_binary_tensors()


_FORMS: Sequence[tuple[str, str, Any, str]] = (
    ("name", "is unknown", "origins", "unknown_input"), ("name", "is a number", 7, "mistyped_field"),
    ("datatype", "is another", "FP16", "mistyped_field"), ("datatype", "is null", None, "mistyped_field"),
    ("shape", "is too long", [ROWS, 1, 1], "invalid_tensor"), ("shape", "is empty", [], "invalid_tensor"),
    ("shape", "has no rows", [0, 1], "invalid_tensor"), ("shape", "is negative", [-1, 1], "invalid_tensor"),
    ("shape", "has two columns", [ROWS, 2], "invalid_tensor"), ("shape", "is a text", "5", "mistyped_field"),
    ("shape", "holds text", ["5", 1], "invalid_tensor"), ("shape", "holds a fraction", [5.0, 1], "invalid_tensor"),
    ("shape", "has other rows", [ROWS + 1, 1], "invalid_tensor"), ("data", "is too short", [], "invalid_tensor"),
    ("data", "is null", None, "mistyped_field"), ("data", "is a text", "JFK", "mistyped_field"),
    ("data", "is an object", {}, "mistyped_field"),
)  # fmt: skip


def _wrong_json_tensors() -> Iterator[BadInput]:
    for place, field in enumerate(FIELDS):
        for part, how, value, code in _FORMS:
            inputs = json_tensors(_instances())
            inputs[place][part] = value
            path = "$.inputs.origins" if code == "unknown_input" else f"$.inputs[{place}].{part}"
            if (part, how, place) == ("shape", "has other rows", 0):
                path = "$.inputs[1].shape"  # the first input says how many rows there are
            name = f"oip: {part} of {field.name} {how}"
            yield _document("oip", f"{OIP}/infer", name, {"inputs": inputs}, code, path)
        inputs = json_tensors(_instances())
        del inputs[place]
        path = f"$.inputs.{field.name}"
        yield _document("oip", f"{OIP}/infer", f"no {field.name}", {"inputs": inputs}, "missing_field", path)


def _wrong_binary_tensors() -> Iterator[BadInput]:
    for place, field in enumerate(FIELDS):
        for how, change in (("too few", -1), ("too many", 1)):
            tensors = binary_tensors(_instances())
            head, content = tensors[place]
            changed = content[:change] if change < 0 else content + b"\x00" * change
            head["parameters"]["binary_data_size"] = len(changed)
            tensors[place] = head, changed
            path = f"$.inputs[{place}].data"
            yield _binary(f"{how} bytes of {field.name}", tensors, "invalid_tensor", path)
        tensors = binary_tensors(_instances())
        tensors[place][0]["parameters"]["binary_data_size"] = "many"
        path = f"$.inputs[{place}].parameters.binary_data_size"
        yield _binary(f"size of {field.name} is text", tensors, "invalid_option", path)
    yield _binary("bytes too many behind", [*binary_tensors(_instances())], "invalid_tensor", "$.inputs", more=b"x")
    for length in ("0", "-1", "999999999", "five", "", "1.5", "9" * 400):
        name = f"length of the JSON is {length[:20]!r}"
        yield _binary(name, binary_tensors(_instances()), "invalid_tensor", "$", length=length)


def _binary(
    name: str,
    tensors: Sequence[tuple[dict[str, Any], bytes]],
    code: str,
    path: str,
    *,
    more: bytes = b"",
    length: str | None = None,
) -> BadInput:
    head = json.dumps({"inputs": [each for each, _ in tensors]}).encode()
    body = head + b"".join(content for _, content in tensors) + more
    told = {JSON_LENGTH: str(len(head)) if length is None else length}
    return BadInput(f"oip binary: {name}", f"{OIP}/infer", body, 400, code, path, BYTES, told)


def wrong_batches() -> Iterator[BadInput]:
    """Batch bodies, as NDJSON and as Arrow, whose first chunk is wrong and which are refused by a status."""
    for field in FIELDS:
        for name, text in _wrong_texts(field.dtype, nullable=field.nullable, protocol="batch").items():
            for row in PLACES:
                lines = [json.dumps(each).encode() for each in _instances()]
                lines[row] = _with(_rows(field.name, row)[row], text)
                path = f"$.instances[{row}].{field.name}"
                label = f"ndjson: {field.name}[{row}] is {name}"
                yield BadInput(label, BATCH, b"\n".join(lines), 400, "mistyped_field", path, NDJSON)
    for row in PLACES:
        lines = [json.dumps(each).encode() for each in _instances()]
        lines[row] = lines[row][:-1]
        path = f"$.instances[{row}]"
        yield BadInput(f"ndjson: row {row} is cut", BATCH, b"\n".join(lines), 400, "malformed_json", path, NDJSON)
    yield from _wrong_arrow()


_ARROW_TYPES = {
    Dtype.STRING: pa.string(), Dtype.INT64: pa.int64(), Dtype.INT32: pa.int32(), Dtype.FLOAT32: pa.float32(),
    Dtype.BOOL: pa.bool_(), Dtype.TIMESTAMP: pa.timestamp("us", "UTC"),
}  # fmt: skip


def _arrow_columns() -> dict[str, pa.Array]:
    rows = binary_rows()
    return {field.name: pa.array(rows[field.name], _ARROW_TYPES[field.dtype]) for field in FIELDS}


def binary_rows() -> dict[str, list[Any]]:
    """Right values by field, timestamps as microseconds."""
    return {each["name"]: list(each["data"]) for each in json_tensors(_instances())}


def _stream(columns: Mapping[str, pa.Array]) -> bytes:
    batch = pa.record_batch(dict(columns))
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def _wrong_arrow() -> Iterator[BadInput]:
    right = _arrow_columns()
    for field in FIELDS:
        for name, wrong_type in (("a list", pa.list_(pa.int8())), ("a date", pa.date32()), ("nothing", pa.null())):
            if name == "nothing" and field.nullable:
                continue
            columns = {**right, field.name: pa.nulls(ROWS, wrong_type)}
            label = f"arrow: {field.name} is {name}"
            yield BadInput(label, BATCH, _stream(columns), 400, "mistyped_field", f"$.columns.{field.name}", ARROW)
        columns = {name: each for name, each in right.items() if name != field.name}
        label = f"arrow: no {field.name}"
        yield BadInput(label, BATCH, _stream(columns), 400, "missing_field", f"$.columns.{field.name}", ARROW)
        for row in () if field.nullable else PLACES:
            values = binary_rows()[field.name]
            values[row] = None
            columns = {**right, field.name: pa.array(values, _ARROW_TYPES[field.dtype])}
            path = f"$.instances[{row}].{field.name}"
            yield BadInput(f"arrow: {path} is null", BATCH, _stream(columns), 400, "mistyped_field", path, ARROW)
    more = {**right, "origins": right["origin"]}
    yield BadInput("arrow: more columns", BATCH, _stream(more), 400, "unknown_field", "$.columns.origins", ARROW)
    whole = _stream(right)
    for name, body in {
        "no Arrow": b"not arrow at all, but long enough to be looked at as a message",
        "half of it": whole[: len(whole) // 2],
        "JSON": json.dumps(_instances()).encode(),
        "a file": b"ARROW1\x00\x00" + whole,
    }.items():
        yield BadInput(f"arrow: {name}", BATCH, body, 400, "malformed_arrow", "$", ARROW)


def bad_inputs() -> list[BadInput]:
    """All of them."""
    groups = (wrong_values, no_json, wrong_shapes, wrong_options, wrong_heads, wrong_tensors, wrong_batches)
    return [each for group in groups for each in group()]
