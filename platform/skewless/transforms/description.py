"""A transform in words: what each output is made of, for whoever reviews one or looks for a reason.

    origin_weather__temp → impute_median 12.2 → standardise offset 12.5, scale 5.1

Numbers are shortened to five digits and long lists to their ends; the exact ones are in the stored JSON.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skewless.dtypes import Dtype
from skewless.transforms.catalogue import COLUMN
from skewless.transforms.graph import Graph
from skewless.transforms.number_operations import CONSTANT
from skewless.transforms.operation import Settings
from skewless.transforms.spec import FittedTransform
from skewless.transforms.text_operations import TEXT_CONSTANT

_WORDS_MAX = 400
_LISTED = 3


@dataclass(frozen=True, slots=True)
class Step:
    """One operation on the way to an output, operands before what uses them."""

    text: str
    """The operation with what was declared and learned."""
    meaning: str
    """What the operation means, as its own documentation says."""


@dataclass(frozen=True, slots=True)
class OutputDescription:
    """A declared output: its columns in the tensor, what it reads, and how it is computed."""

    name: str
    columns: tuple[str, ...]
    first_column: int
    """Index in the tensor of the first of `columns`, which are neighbours."""
    reads: tuple[tuple[str, Dtype, bool], ...]
    """Name, dtype and nullability of each input below it."""
    words: str
    steps: tuple[Step, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "name": self.name,
            "columns": list(self.columns),
            "first_column": self.first_column,
            "reads": [
                {"name": name, "dtype": str(dtype), "nullable": nullable} for name, dtype, nullable in self.reads
            ],
            "words": self.words,
            "steps": [{"text": step.text, "meaning": step.meaning} for step in self.steps],
        }


def describe(fitted: FittedTransform) -> tuple[OutputDescription, ...]:
    """Every output in the order of the tensor."""
    words = node_words(fitted.graph, fitted.learned)
    described: list[OutputDescription] = []
    first = 0
    for name, index in fitted.graph.outputs:
        columns = fitted.names_by_output[name]
        below = fitted.graph.ancestors(index)
        read = {
            fitted.graph.nodes[each].settings["name"] for each in below if fitted.graph.nodes[each].operation is COLUMN
        }
        described.append(
            OutputDescription(
                name=name,
                columns=columns,
                first_column=first,
                reads=tuple(
                    (each.name, each.dtype, each.nullable) for each in fitted.graph.inputs if each.name in read
                ),
                words=shortened(words[index]),
                steps=tuple(_step(fitted, each, words) for each in below if not _is_leaf(fitted.graph, each)),
            )
        )
        first += len(columns)
    return tuple(described)


def node_words(graph: Graph, learned: Mapping[int, Settings]) -> list[str]:
    """Each node in words, by index, cut where long."""
    words: list[str] = []
    chains: set[int] = set()
    for index, node in enumerate(graph.nodes):
        if _is_leaf(graph, index):
            words.append(node.text)
            continue
        operands = [words[operand] for operand in graph.operands[index]]
        own = step_words(node.operation.name, {**node.settings, **learned.get(index, {})})
        if len(operands) == 1:
            words.append(shortened(f"{operands[0]} → {own}"))
            chains.add(index)
        else:
            inner = [f"[{words[each]}]" if each in chains else words[each] for each in graph.operands[index]]
            known = parameters_words(learned.get(index, {}))
            words.append(shortened(f"{node.operation.text(inner, node.settings)}{f' with {known}' if known else ''}"))
    return words


def step_words(name: str, parameters: Settings) -> str:
    """An operation with its parameters.

    >>> step_words("clip", {"low": -60.0, "high": None})
    'clip low -60'
    """
    said = parameters_words(parameters)
    return f"{name} {said}" if said else name


def parameters_words(parameters: Settings) -> str:
    """Parameters in words; a single `value` needs no name.

    Not said are those that are None, for not given, and long tables of whole numbers, such as a time zone's.
    """
    known = {name: value for name, value in parameters.items() if value is not None and not _is_table(value)}
    if list(known) == ["value"]:
        return value_words(known["value"])
    return ", ".join(f"{name.replace('_', ' ')} {value_words(value)}" for name, value in known.items())


def value_words(value: object) -> str:
    """A value, shortened.

    >>> value_words([1.0, 2.0, 3.0, 4.0, 5.123456])
    '(5: 1, 2 … 5.1235)'
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, list | tuple):
        return _list_words(value)
    return repr(value) if isinstance(value, str) else str(value)


def shortened(text: str) -> str:
    """A middle cut out of a long text."""
    return text if len(text) <= _WORDS_MAX else f"{text[: _WORDS_MAX // 2]} … {text[-_WORDS_MAX // 2 :]}"


def _is_table(value: object) -> bool:
    return isinstance(value, list) and len(value) > _LISTED and all(type(item) is int for item in value)


def _list_words(items: Sequence[object]) -> str:
    if len(items) <= _LISTED:
        return f"({', '.join(value_words(item) for item in items)})"
    ends = [value_words(item) for item in (*items[: _LISTED - 1], items[-1])]
    return f"({len(items)}: {', '.join(ends[:-1])} … {ends[-1]})"


def _is_leaf(graph: Graph, index: int) -> bool:
    return graph.nodes[index].operation in (COLUMN, CONSTANT, TEXT_CONSTANT)


def _step(fitted: FittedTransform, index: int, words: Sequence[str]) -> Step:
    node = fitted.graph.nodes[index]
    own = step_words(node.operation.name, {**node.settings, **fitted.learned.get(index, {})})
    operands = ", ".join(shortened(words[operand]) for operand in fitted.graph.operands[index])
    meaning = " ".join((type(node.operation).__doc__ or "").partition("\n\n")[0].split())
    return Step(f"{own} of {operands}", meaning)
