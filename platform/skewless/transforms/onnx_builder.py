"""Writes down an ONNX graph node by node: names, literals, and how many columns each value has."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

BOOL, DOUBLE, FLOAT, INT32, INT64, STRING = "BOOL", "DOUBLE", "FLOAT", "INT32", "INT64", "STRING"
"""Element types by ONNX's names."""
ML = "ai.onnx.ml"
"""The domain of ONNX's operators for classical models."""
_OPSET = 17
_OPSET_OF = {"RegexFullMatch": 20, "StringConcat": 20}
"""Operators newer than `_OPSET`, with the version that brought them."""
_OPSET_OF_TEXT_EQUAL = 19


@dataclass(frozen=True, slots=True)
class OnnxNode:
    """One operator with its inputs and its one output by name; attributes are plain data or element types."""

    operator: str
    domain: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Any]


class Operand(NamedTuple):
    """Values (rows, columns) by name, and where they are not null (None where they never are)."""

    values: str
    valid: str | None


@dataclass(slots=True)
class Builder:
    """The nodes so far. Names made here begin with `skewless/`."""

    nodes: list[OnnxNode] = field(default_factory=list)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    opset: int = _OPSET
    shape_source: str = ""
    """An input of the graph: how many rows there are."""
    _width: dict[str, int] = field(default_factory=dict)
    _one_row: set[str] = field(default_factory=set)
    """Literals and what is computed from literals alone."""
    _name_of: dict[tuple[object, ...], str] = field(default_factory=dict)

    def add(
        self,
        operator: str,
        *inputs: str,
        domain: str = "",
        columns: int | None = None,
        name: str = "",
        **attributes: Any,
    ) -> str:
        """A node; returns the name of its output. The same node asked for again is the one that was made.

        `columns` says how many columns it has where it is not the widest input's.
        """
        key = (operator, domain, inputs, repr(attributes))
        if not name and key in self._name_of:
            return self._name_of[key]
        output = name or f"skewless/{len(self.nodes) + len(self.constants)}"
        self.nodes.append(OnnxNode(operator, domain, inputs, output, attributes))
        self.opset = max(self.opset, _OPSET_OF.get(operator, _OPSET))
        self._width[output] = max(map(self.width, inputs)) if columns is None else columns
        if operator != "Expand" and self._one_row.issuperset(inputs):
            self._one_row.add(output)
        self._name_of[key] = output
        return output

    def constant(self, array: NDArray[Any]) -> str:
        """A literal; the same one asked for again is the one that was made."""
        content = tuple(array.ravel().tolist()) if array.dtype == object else array.tobytes()
        key = ("constant", array.dtype.str, array.shape, content)
        if key not in self._name_of:
            name = f"skewless/{len(self.nodes) + len(self.constants)}"
            self.constants[name] = array
            self._width[name] = array.shape[-1] if array.ndim else 1
            self._one_row.add(name)
            self._name_of[key] = name
        return self._name_of[key]

    def number(self, value: float) -> str:
        """A float64 literal that broadcasts."""
        return self.constant(np.array([[value]], dtype=np.float64))

    def whole(self, value: int) -> str:
        """An int64 literal that broadcasts."""
        return self.constant(np.array([[value]], dtype=np.int64))

    def filled(self, array: NDArray[Any]) -> str:
        """A (1, 1) literal in every row."""
        return self.add("Expand", self.constant(array), self.add("Shape", self.shape_source), columns=1)

    def width(self, value: str) -> int:
        """How many columns a value has; an input of the graph has one."""
        return self._width.get(value, 1)

    def cast(self, value: str, to: str) -> str:
        """As another element type."""
        return self.add("Cast", value, to=to)

    def truth(self, condition: str) -> str:
        """1 where the condition holds, else 0, as float64."""
        return self.cast(condition, DOUBLE)

    def both(self, *conditions: str | None) -> str | None:
        """Where all hold, in every row; one that is None always does."""
        known = [each for each in conditions if each is not None]
        if not known:
            return None
        if self._one_row.issuperset(known):
            known.append(self.filled(np.array([[True]])))
        held = known[0]
        for each in known[1:]:
            held = self.add("And", held, each)
        return held

    def text_equal(self, left: str, right: str) -> str:
        """Where two strings are equal."""
        self.opset = max(self.opset, _OPSET_OF_TEXT_EQUAL)
        return self.add("Equal", left, right)

    def count(self, conditions: str) -> str:
        """How many columns of each row hold, as int64 (rows, 1)."""
        axis = self.constant(np.array([1], dtype=np.int64))
        return self.add("ReduceSum", self.cast(conditions, INT64), axis, keepdims=1, columns=1)

    def floor_divide(self, value: str, divisor: int) -> str:
        """An int64 by a whole number above 0, rounded down; ONNX rounds towards zero."""
        towards_zero = self.add("Div", value, self.whole(divisor))
        rest = self.add("Equal", self.modulo(value, divisor), self.whole(0))
        below = self.add("And", self.add("Less", value, self.whole(0)), self.add("Not", rest))
        return self.add("Sub", towards_zero, self.cast(below, INT64))

    def modulo(self, value: str, divisor: int) -> str:
        """The remainder of `floor_divide`, never below 0."""
        return self.add("Mod", value, self.whole(divisor))
