"""Fields of a stored document, read strictly: what is missing, unknown or of another type is refused with its path."""

from collections.abc import Mapping, Sequence
from typing import Any

from skewless.errors import InvalidDefinition

_NAMES = {str: "text", float: "a number", int: "an integer", bool: "true or false", list: "an array", dict: "an object"}


def read_fields(
    data: object, path: str, required: Mapping[str, type], optional: Mapping[str, type] | None = None
) -> dict[str, Any]:
    """The named fields of an object of JSON, in the order given; optional ones that are absent are left out.

    A type is one of str, float (which takes integers), int, bool, list and dict. Raises InvalidDefinition.

    >>> read_fields({"share": 1}, "$", {"share": float}, {"salt": str})
    {'share': 1.0}
    """
    if not isinstance(data, Mapping):
        raise InvalidDefinition(f"{path} is {type(data).__name__}; allowed: an object")
    known = {**required, **(optional or {})}
    unknown = [name for name in data if name not in known]
    if unknown:
        raise InvalidDefinition(f"{path} has no field {unknown[0]!r}. Fields: {', '.join(known)}")
    fields: dict[str, Any] = {}
    for name, kind in known.items():
        if name in data:
            fields[name] = _typed(data[name], kind, f"{path}.{name}")
        elif name in required:
            raise InvalidDefinition(f"{path}.{name} is missing; allowed: {_NAMES[kind]}")
    return fields


def read_texts(items: Sequence[object], path: str) -> tuple[str, ...]:
    """A tuple of an array of texts. Raises InvalidDefinition."""
    return tuple(_typed(item, str, f"{path}[{index}]") for index, item in enumerate(items))


def _typed(value: object, kind: type, path: str) -> Any:
    """`value`, as a float where a number is asked for; true and false are no numbers."""
    if kind is float and type(value) is int:
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InvalidDefinition(f"{path} is {value!r}; allowed: {_NAMES[kind]}")
    return value
