"""Bodies of the Open Inference Protocol over HTTP: JSON, and the binary tensors that may follow it.

    {"inputs": [{"name", "datatype", "shape", "data" | "parameters": {"binary_data_size"}}, …], …}<bytes><bytes>…

The header Inference-Header-Content-Length says where the JSON ends; the tensors' bytes follow in the order of the JSON.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from skewless.errors import InvalidRequest
from skewless.serving.answer_tensors import AnswerTensor
from skewless.serving.field_tensors import GivenTensor
from skewless.serving.field_types import json_kind, shown
from skewless.serving.instances import unknown_name
from skewless.serving.json_body import parse_json
from skewless.serving.request_parameters import check_parameter

JSON_LENGTH_HEADER = b"inference-header-content-length"
_FIELDS = ("id", "parameters", "inputs", "outputs", "model_name", "model_version")
"""The last two are what some clients repeat of the path."""
_INPUT_FIELDS = ("name", "datatype", "shape", "parameters", "data")
_OUTPUT_FIELDS = ("name", "parameters")
_LENGTH_DIGITS_MAX = 10
_BINARY_SIZE = "binary_data_size"
_BINARY_OUTPUT = "binary_data_output"
_BINARY = "binary_data"


@dataclass(slots=True)
class OipBody:
    """A request's body, taken apart but not checked against a model. `outputs` is empty where all are wanted."""

    id: str
    model_name: str
    """Empty where the body repeats none; so is the next."""
    model_version: str
    parameters: Mapping[str, object]
    tensors: list[GivenTensor]
    outputs: list[str]
    binary: frozenset[str] | None
    """Names of the outputs that are wanted as bytes; None: all."""


def read_body(body: bytes, json_length: bytes | None) -> OipBody:
    """The parts of a body; `json_length` is the header's value. Raises InvalidRequest with a path."""
    length = len(body) if json_length is None else _json_length(json_length, len(body))
    document = _object(parse_json(body[:length]), "$", _FIELDS)
    if "inputs" not in document:
        raise InvalidRequest("the body has no `inputs`", path="$.inputs", allowed="an array", code="missing_field")
    parameters = dict(_optional_object(document, "parameters", "$"))
    all_binary = _flag(parameters.pop(_BINARY_OUTPUT, False), f"$.parameters.{_BINARY_OUTPUT}")
    names, binary = _outputs(document.get("outputs"), all_binary=all_binary)
    return OipBody(
        _text(document, "id"),
        _text(document, "model_name"),
        _text(document, "model_version"),
        parameters,
        _tensors(document["inputs"], memoryview(body)[length:]),
        names,
        None if all_binary and not names else frozenset(binary),
    )


def written(
    document: dict[str, Any], tensors: Sequence[AnswerTensor], binary: frozenset[str] | None
) -> tuple[bytes, int]:
    """The body of an answer and the length of its JSON, which is all of it where no tensor is wanted as bytes.

    `document` is the answer without its outputs; `binary` as in `OipBody`.
    """
    outputs: list[dict[str, Any]] = []
    contents: list[bytes] = []
    for tensor in tensors:
        output: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
        if binary is None or tensor.name in binary:
            contents.append(tensor.raw())
            output["parameters"] = {_BINARY_SIZE: len(contents[-1])}
        else:
            output["data"] = tensor.data()
        outputs.append(output)
    head = msgspec.json.encode(document | {"outputs": outputs})
    return b"".join((head, *contents)), len(head)


def _json_length(given: bytes, size: int) -> int:
    # Python refuses to read thousands of digits, and no length has them.
    if given.isdigit() and len(given) <= _LENGTH_DIGITS_MAX and 0 < int(given) <= size:
        return int(given)
    raise InvalidRequest(
        f"the header Inference-Header-Content-Length is {shown(given.decode('latin-1'))}, the body has {size} bytes",
        path="$",
        allowed=f"the length of the JSON at the body's beginning, from 1 to {size}",
        code="invalid_tensor",
    )


def _tensors(inputs: object, contents: memoryview) -> list[GivenTensor]:
    """The inputs; those without `data` take their bytes from `contents`, one after the other."""
    if type(inputs) is not list:
        raise InvalidRequest(f"`inputs` is {json_kind(inputs)}", path="$.inputs", allowed="an array of objects")
    tensors: list[GivenTensor] = []
    offset = 0
    for index, given in enumerate(inputs):
        path = f"$.inputs[{index}]"
        entry = _object(given, path, _INPUT_FIELDS)
        size = _binary_size(_optional_object(entry, "parameters", path), path)
        if (size is None) == ("data" not in entry):
            raise InvalidRequest(
                f"{path} has {'neither' if size is None else 'both'} `data` and `parameters.{_BINARY_SIZE}`",
                path=path,
                allowed="either of them",
                code="invalid_tensor",
            )
        raw: memoryview | None = None
        if size is not None:
            raw, offset = contents[offset : offset + size], offset + size
        tensors.append(_tensor(entry, path, raw))
    if offset != len(contents):
        raise InvalidRequest(
            f"{len(contents)} bytes follow the JSON, its inputs announce {offset}",
            path="$.inputs",
            allowed=f"as many bytes as every `{_BINARY_SIZE}` together",
            hint="send the header Inference-Header-Content-Length with the length of the JSON",
            code="invalid_tensor",
        )
    return tensors


def _tensor(entry: Mapping[str, Any], path: str, raw: memoryview | None) -> GivenTensor:
    kinds = {"name": str, "datatype": str, "shape": list}
    if raw is None:
        kinds["data"] = list
    for field, kind in kinds.items():
        if type(entry.get(field)) is not kind:
            seen = f"is {json_kind(entry[field])}" if field in entry else "is missing"
            raise InvalidRequest(
                f"`{field}` of {path} {seen}",
                path=f"{path}.{field}",
                allowed="an array" if kind is list else "a string",
                code="mistyped_field" if field in entry else "missing_field",
            )
    return GivenTensor(entry["name"], entry["datatype"], entry["shape"], path, entry.get("data"), raw)


def _binary_size(parameters: Mapping[str, object], path: str) -> int | None:
    size: int | None = None
    for name, value in parameters.items():
        if name != _BINARY_SIZE:
            check_parameter(name, value, path=f"{path}.parameters", allowed=(_BINARY_SIZE,))
        elif type(value) is int and value >= 0:
            size = value
        else:
            raise InvalidRequest(
                f"`{_BINARY_SIZE}` is {shown(value)}",
                path=f"{path}.parameters.{_BINARY_SIZE}",
                allowed="a number of bytes",
                code="invalid_option",
            )
    return size


def _outputs(given: object, *, all_binary: bool) -> tuple[list[str], list[str]]:
    """The names of the wanted outputs in order, and of those among them that are wanted as bytes."""
    if given is None:
        return [], []
    if type(given) is not list:
        raise InvalidRequest(f"`outputs` is {json_kind(given)}", path="$.outputs", allowed="an array of objects")
    names: list[str] = []
    binary: list[str] = []
    for index, each in enumerate(given):
        path = f"$.outputs[{index}]"
        entry = _object(each, path, _OUTPUT_FIELDS)
        names.append(_text(entry, "name", path))
        parameters = dict(_optional_object(entry, "parameters", path))
        if _flag(parameters.pop(_BINARY, all_binary), f"{path}.parameters.{_BINARY}"):
            binary.append(names[-1])
        for parameter, value in parameters.items():
            # Such as `classification`, which would have the labels sorted by score.
            check_parameter(parameter, value, path=f"{path}.parameters", allowed=(_BINARY,))
    return names, binary


def _object(value: object, path: str, known: tuple[str, ...]) -> dict[str, Any]:
    if type(value) is not dict:
        raise InvalidRequest(f"{path} is {json_kind(value)}", path=path, allowed="an object")
    for name in value:
        if name not in known:
            raise unknown_name(name, known, path=path, what="field")
    return value


def _optional_object(document: Mapping[str, Any], name: str, path: str) -> Mapping[str, Any]:
    """An object that may be left out or null."""
    value = document.get(name)
    if value is None:
        return {}
    if type(value) is not dict:
        raise InvalidRequest(f"`{name}` is {json_kind(value)}", path=f"{path}.{name}", allowed="an object")
    return value


def _text(document: Mapping[str, Any], name: str, path: str = "$") -> str:
    """A string that may be left out or null; then it is empty."""
    value = document.get(name)
    if value is None:
        return ""
    if type(value) is not str:
        raise InvalidRequest(f"`{name}` is {json_kind(value)}", path=f"{path}.{name}", allowed="a string")
    return value


def _flag(value: object, path: str) -> bool:
    if type(value) is not bool:
        raise InvalidRequest(f"{path} is {shown(value)}", path=path, allowed="true or false", code="invalid_option")
    return value
