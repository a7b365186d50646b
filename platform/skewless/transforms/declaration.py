"""Checks of an expression where it is declared: its settings, its operands, and the line that wrote it.

Everything here raises InvalidDefinition with the expression's text and `file:line`.
"""

import inspect
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from skewless.errors import InvalidDefinition
from skewless.transforms.operation import Kind, Operation, Settings

_LIBRARY = str(Path(__file__).parents[1]) + os.sep
_TEXT_MAX = 160


class Declared(Protocol):
    """What checks and null proofs know of an expression."""

    @property
    def operation(self) -> Operation: ...
    @property
    def operands(self) -> "tuple[Declared, ...]": ...
    @property
    def settings(self) -> Settings: ...
    @property
    def kind(self) -> Kind: ...
    @property
    def nullable(self) -> bool: ...
    @property
    def text(self) -> str: ...
    @property
    def location(self) -> str: ...


def source_location() -> str:
    """`file:line` of the nearest caller outside this library."""
    frame: FrameType | None = inspect.currentframe()
    while frame is not None and frame.f_code.co_filename.startswith(_LIBRARY):
        frame = frame.f_back
    return "an unknown line" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


def at(location: str) -> str:
    """` at file:line`, or nothing for an expression without a location."""
    return f" at {location}" if location else ""


def expression_text(operation: Operation, operands: Sequence[str], settings: Settings) -> str:
    """How the expression is written in errors, with its middle cut out where it is long.

    Shared sub-expressions would otherwise double it at every step.
    """
    try:
        text = operation.text(operands, settings)
    except IndexError:
        return operation.name  # too few operands, which `check_operands` refuses
    return text if len(text) <= _TEXT_MAX else f"{text[: _TEXT_MAX // 2]} … {text[-_TEXT_MAX // 2 :]}"


def check_settings(
    operation: Operation, settings: Mapping[str, Any], operands: Sequence[str], location: str
) -> dict[str, Any]:
    """The settings in their stored form; `operands` are texts."""
    where_text = f"`{operation.name}` of {', '.join(f'`{each}`' for each in operands) or 'a transform'}{at(location)}"
    if settings.keys() != operation.settings.keys():
        raise InvalidDefinition(f"{where_text} has settings {sorted(settings)}, it takes {sorted(operation.settings)}")
    checked: dict[str, Any] = {}
    for name, check in operation.settings.items():
        try:
            checked[name] = check(settings[name])
        except ValueError as error:
            raise InvalidDefinition(f"{where_text}: {name} {error}") from error
    try:
        operation.check_together(checked)
    except ValueError as error:
        raise InvalidDefinition(f"{where_text}: {error}") from error
    return checked


def check_operands(
    operation: Operation, operands: Sequence[Declared], settings: Settings, text: str, location: str
) -> None:
    """Every operand is there and of a kind that the operation takes."""
    kinds = operation.operand_kinds(settings)
    if len(operands) != len(kinds):
        raise InvalidDefinition(f"`{operation.name}`{at(location)} takes {len(kinds)} operands, got {len(operands)}")
    for operand, allowed in zip(operands, kinds, strict=True):
        if operand.kind not in allowed:
            takes = " or ".join(f"a {kind}" for kind in sorted(allowed))
            several = operand.kind is Kind.SEVERAL
            raise InvalidDefinition(
                f"`{text}`{at(location)}: `{operation.name}` takes {takes}, but `{operand.text}` is"
                f" {'' if several else 'a '}{operand.kind}{_elsewhere(operand.location, location)}",
                hint=_HINTS.get((operand.kind, next(iter(sorted(allowed)), operand.kind)), ""),
            )


def _elsewhere(operand: str, location: str) -> str:
    """Where the operand was written, unless that is the line that is named already."""
    return f", written{at(operand)}" if operand and operand != location else ""


_SEVERAL_HINT = "give an output of several numbers a name of its own in the transform's outputs"
_HINTS: dict[tuple[Kind, Kind], str] = {
    **{(Kind.SEVERAL, kind): _SEVERAL_HINT for kind in Kind},
    (Kind.STRING, Kind.NUMBER): "to_number() reads a number; one_hot(), index() and hash_bucket() encode a category",
    (Kind.NUMBER, Kind.STRING): "cast(Dtype.STRING) writes a number as a string",
    (Kind.TIMESTAMP, Kind.NUMBER): "take a part with hour(tz) and so on, or seconds_since(other), or epoch_seconds()",
}
"""What to do, by the kind that was given and the kind that is wanted."""
