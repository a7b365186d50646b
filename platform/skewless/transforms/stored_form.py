"""The form of a stored transform: what is checked of its JSON before anything is made of it.

Everything wrong is an InvalidDefinition with the JSON path of the place, the value seen and what is allowed. Nothing
stored is ever run or imported here: an operation is a name to look up in the catalogue.
"""

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from skewless.errors import InvalidDefinition
from skewless.transforms.catalogue import operation_named
from skewless.transforms.operation import Operation
from skewless.transforms.semantics import SEMANTICS_VERSION, version_of

STORED_BYTES_MAX = 1 << 30
"""A vocabulary of a million words is about 20 MB; more than this is not read at all."""
NODES_MAX = 100_000
DECLARED_FIELDS = frozenset({"semantics_version", "nodes", "outputs"})
FITTED_FIELDS = DECLARED_FIELDS | {"learned", "digest"}
_NODE_FIELDS = frozenset({"operation", "operands", "settings"})
_OUTPUT_FIELDS = frozenset({"name", "node"})
_SEEN_MAX = 120
_DIGEST_DIGITS = 64
_NEWER = "serve it with the version of Skewless that wrote it, or fit it again with this one"
_EDITED = "do not edit a stored transform; declare and fit it again"


def parse(data: bytes) -> Any:
    """Plain data of the JSON text, which names no field twice. Raises InvalidDefinition."""
    if len(data) > STORED_BYTES_MAX:
        raise InvalidDefinition(f"a stored transform has {len(data):,} bytes; at most {STORED_BYTES_MAX:,} are read")
    try:
        return json.loads(data, object_pairs_hook=_without_repetition, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        # RecursionError: lists in lists, thousands deep.
        reason = str(error) if isinstance(error, ValueError) else "it is nested too deeply"
        raise InvalidDefinition(f"a stored transform is not JSON: {reason}", hint=_EDITED) from error


def check_form(data: object, fields: frozenset[str]) -> None:
    """Raise InvalidDefinition, with the path, unless `data` has the form of a transform with these fields."""
    if not isinstance(data, Mapping) or set(data) != fields:
        seen = sorted(map(str, data)) if isinstance(data, Mapping) else type(data).__name__
        raise InvalidDefinition(f"$: a stored transform must have the fields {sorted(fields)}, got {_seen(seen)}")
    _check_version(data["semantics_version"])
    operations = [_check_node(node, index) for index, node in enumerate(_list(data["nodes"], "$.nodes", NODES_MAX))]
    needed = version_of(operation.name for operation in operations)
    if data["semantics_version"] != needed:
        raise InvalidDefinition(
            f"$.semantics_version: is semantics version {data['semantics_version']}, but the operations used are of"
            f" version {needed}",
            hint=_EDITED,
        )
    _check_outputs(_list(data["outputs"], "$.outputs", None), len(operations))
    if "learned" in fields:
        _check_learned(data["learned"], operations)
        _check_digest(data["digest"])


def _check_version(version: object) -> None:
    if type(version) is not int or not 1 <= version <= SEMANTICS_VERSION:
        raise InvalidDefinition(
            f"$.semantics_version: a stored transform has semantics version {_seen(version)}; this version of Skewless"
            f" computes 1 to {SEMANTICS_VERSION}",
            hint=_NEWER,
        )


def _check_node(node: object, index: int) -> Operation:
    path = f"$.nodes[{index}]"
    entry = _object(node, path, _NODE_FIELDS)
    try:
        operation = operation_named(entry["operation"])
    except InvalidDefinition as error:
        raise InvalidDefinition(f"{path}.operation: {error.message}", hint=error.hint) from error
    operands = entry["operands"]
    if not isinstance(operands, list) or not all(type(each) is int and 0 <= each < index for each in operands):
        raise InvalidDefinition(
            f"{path}.operands: must be a list of indexes of earlier nodes, 0 to {index - 1}, got {_seen(operands)}"
        )
    settings = entry["settings"]
    if not isinstance(settings, Mapping) or settings.keys() != operation.settings.keys():
        raise InvalidDefinition(
            f"{path}.settings: `{operation.name}` must have the settings {sorted(operation.settings)},"
            f" got {_seen(settings)}"
        )
    for name, check in operation.settings.items():
        try:
            check(settings[name])
        except (ValueError, TypeError) as error:
            raise InvalidDefinition(f"{path}.settings.{name}: of `{operation.name}` {error}") from error
    return operation


def _check_outputs(outputs: list[Any], nodes: int) -> None:
    names: set[str] = set()
    for index, output in enumerate(outputs):
        path = f"$.outputs[{index}]"
        entry = _object(output, path, _OUTPUT_FIELDS)
        name, node = entry["name"], entry["node"]
        if not isinstance(name, str) or not name or name in names:
            raise InvalidDefinition(f"{path}.name: must be a name that no output before it has, got {_seen(name)}")
        if type(node) is not int or not 0 <= node < nodes:
            raise InvalidDefinition(f"{path}.node: must be the index of a node, 0 to {nodes - 1}, got {_seen(node)}")
        names.add(name)


def _check_learned(learned: object, operations: list[Operation]) -> None:
    if not isinstance(learned, list) or len(learned) != len(operations):
        raise InvalidDefinition(
            f"$.learned: a fitted transform must have one `learned` entry for each of {len(operations)} nodes"
        )
    for index, (entry, operation) in enumerate(zip(learned, operations, strict=True)):
        if not operation.learned and entry is not None:
            raise InvalidDefinition(f"$.learned[{index}]: `{operation.name}` learns nothing, got {_seen(entry)}")


def _check_digest(digest: object) -> None:
    if not isinstance(digest, str) or len(digest) != _DIGEST_DIGITS or set(digest) - set("0123456789abcdef"):
        raise InvalidDefinition(f"$.digest: must be 64 lower-case hexadecimal digits, got {_seen(digest)}")


def _object(value: object, path: str, fields: frozenset[str]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or set(value) != fields:
        seen = sorted(map(str, value)) if isinstance(value, Mapping) else value
        raise InvalidDefinition(f"{path}: must be an object with the fields {sorted(fields)}, got {_seen(seen)}")
    return value


def _list(value: object, path: str, most: int | None) -> list[Any]:
    if not isinstance(value, list) or not value or (most is not None and len(value) > most):
        amount = "one item or more" if most is None else f"1 to {most:,} items"
        raise InvalidDefinition(f"{path}: must be a list of {amount}, got {_seen(value)}")
    return value


def _seen(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SEEN_MAX else f"{text[:_SEEN_MAX]} …"


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the field {next(name for name in names if names.count(name) > 1)!r} is there twice")
    return fields


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
