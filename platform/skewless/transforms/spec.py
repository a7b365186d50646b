"""Transforms as declared and as fitted: their canonical JSON, their digests, and fitting."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from skewless.canonical_json import Digest, digest
from skewless.dtypes import Column, Dtype
from skewless.errors import InvalidDefinition
from skewless.transforms.execution import PreparedTransform
from skewless.transforms.expressions import Expression
from skewless.transforms.fitting import Batch, Batches, check_learned, chunks, learn_from, require_rows
from skewless.transforms.graph import Graph
from skewless.transforms.operation import Kind, Settings
from skewless.transforms.plan import Plan, compile_plan
from skewless.transforms.semantics import SEMANTICS_VERSION, version_of
from skewless.transforms.step_operations import StepLoader
from skewless.transforms.stored_form import DECLARED_FIELDS, FITTED_FIELDS, check_form, parse

__all__ = ["SEMANTICS_VERSION", "FittedTransform", "Transform"]


class Transform:
    """A declared transform: named outputs, in order, as expressions of columns. Immutable; equal by digest."""

    def __init__(self, outputs: Mapping[str, Expression]) -> None:
        for name, output in outputs.items():
            if not isinstance(output, Expression):
                raise InvalidDefinition(f"output `{name}` must be an expression, got {output!r}")
        self._graph = Graph.of(outputs)

    @property
    def graph(self) -> Graph:
        """The declared expressions as a graph."""
        return self._graph

    @property
    def inputs(self) -> tuple[tuple[str, Dtype], ...]:
        """Name and dtype of every column read, in order of first use."""
        return tuple((each.name, each.dtype) for each in self._graph.inputs)

    @property
    def not_null_inputs(self) -> frozenset[str]:
        """Columns declared `nullable=False`: whoever feeds the transform must never have a null there."""
        return frozenset(each.name for each in self._graph.inputs if not each.nullable)

    @cached_property
    def digest(self) -> Digest:
        """SHA-256 of the canonical JSON."""
        return digest(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Plain data for `canonical_json.encode`."""
        return {"semantics_version": _version(self._graph), **self._graph.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], steps: StepLoader | None = None) -> "Transform":
        """The inverse of `to_json`; `steps` binds the steps that lie outside of the catalogue.

        Raises InvalidDefinition, with the path of what is wrong, for anything that `to_json` cannot have written.
        """
        check_form(data, DECLARED_FIELDS)
        graph = Graph.from_json(data, steps)
        return cls({name: graph.nodes[index] for name, index in graph.outputs})

    def fit(self, columns: Mapping[str, Column], rows: int, *, target: Column | None = None) -> "FittedTransform":
        """Learn every operation's parameters from training rows in memory; see `fit_batches`."""
        return self.fit_batches((Batch(columns, rows, target),))

    def fit_batches(self, batches: Batches) -> "FittedTransform":
        """Learn every operation's parameters; neither order nor batching of the rows matters, bit for bit.

        The batches are gone through several times: once or twice for each operation that learns on top of another,
        and once to check the outputs. Memory beyond one batch is bounded (ADR 12). Raises InvalidDefinition, naming
        the expression, for rows that cannot teach it, and for an output that is NaN or infinite, or that leaves the
        range of float32, in any training row.
        """
        fitted = FittedTransform(self._graph, learn_from(self._graph, batches))
        _check_finite(fitted, batches)
        return fitted

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Transform) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"<Transform of {len(self.inputs)} columns to {len(self._graph.outputs)} outputs, {self.digest[:12]}>"


class FittedTransform:
    """A transform with everything learned: self-contained, immutable, equal by digest."""

    def __init__(self, graph: Graph, learned: Mapping[int, Settings]) -> None:
        self._graph = graph
        self._learned = {index: dict(settings) for index, settings in learned.items()}
        self._output_names = tuple(name for names in self.names_by_output.values() for name in names)
        names = self._output_names
        if len(set(names)) != len(names):
            repeated = sorted({name for name in names if names.count(name) > 1})
            raise InvalidDefinition(f"outputs have the same name: {', '.join(f'`{name}`' for name in repeated)}")

    @property
    def graph(self) -> Graph:
        """The declared expressions as a graph."""
        return self._graph

    @property
    def learned(self) -> Mapping[int, Settings]:
        """What each node that learns has learned, by node."""
        return self._learned

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the tensor's columns; several of one expression are `name[category]`, `name[sin]` and so on."""
        return self._output_names

    @cached_property
    def names_by_output(self) -> Mapping[str, tuple[str, ...]]:
        """The tensor's columns of each declared output, in order."""
        return {name: self._names(name, index) for name, index in self._graph.outputs}

    def _names(self, name: str, index: int) -> tuple[str, ...]:
        node = self._graph.nodes[index]
        if node.kind is not Kind.SEVERAL:
            return (name,)
        suffixes = node.operation.suffixes({**node.settings, **self._learned.get(index, {})})
        return tuple(f"{name}[{suffix}]" for suffix in suffixes)

    @property
    def inputs(self) -> tuple[tuple[str, Dtype], ...]:
        """Name and dtype of every column read, in order of first use."""
        return tuple((each.name, each.dtype) for each in self._graph.inputs)

    @property
    def not_null_inputs(self) -> frozenset[str]:
        """Columns declared `nullable=False`."""
        return frozenset(each.name for each in self._graph.inputs if not each.nullable)

    @cached_property
    def digest(self) -> Digest:
        """SHA-256 of the canonical JSON without its own field."""
        return digest(self._content())

    def to_json(self) -> dict[str, Any]:
        """Plain data for `canonical_json.encode`, with the digest in it."""
        return {**self._content(), "digest": self.digest}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], steps: StepLoader | None = None) -> "FittedTransform":
        """The inverse of `to_json`; without `steps`, one with steps from outside the catalogue can only be looked at.

        Raises InvalidDefinition, with the path of what is wrong: a newer semantics version, an unknown operation,
        missing or unknown fields, values out of their range, and content that does not have the digest it states.
        """
        check_form(data, FITTED_FIELDS)
        graph = Graph.from_json(data, steps)
        learned = {
            index: check_learned(node, data["learned"][index], path=f"$.learned[{index}]")
            for index, node in enumerate(graph.nodes)
            if node.operation.learned
        }
        fitted = cls(graph, learned)
        if fitted.digest != data["digest"]:
            raise InvalidDefinition(
                f"a fitted transform states the digest {data['digest']!r}, its content has {fitted.digest}",
                hint="it was changed after it was written; take the original, or fit it again",
            )
        return fitted

    @classmethod
    def from_bytes(cls, data: bytes, steps: StepLoader | None = None) -> "FittedTransform":
        """A fitted transform from the bytes of its JSON, as in `transform.json` of a bundle. Raises as `from_json`."""
        return cls.from_json(parse(data), steps)

    def prepare(self) -> PreparedTransform:
        """The transform ready to run, with everything that rows do not decide resolved."""
        return PreparedTransform(self._plan)

    @cached_property
    def _plan(self) -> Plan:
        return compile_plan(self._graph, self._learned)

    def _content(self) -> dict[str, Any]:
        entries = (self._learned.get(index) for index in range(len(self._graph.nodes)))
        return {
            "semantics_version": _version(self._graph),
            **self._graph.to_json(),
            "learned": [None if entry is None else dict(entry) for entry in entries],
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FittedTransform) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"<FittedTransform to {len(self.output_names)} outputs, {self.digest[:12]}>"


def _version(graph: Graph) -> int:
    return version_of(node.operation.name for node in graph.nodes)


def _check_finite(fitted: FittedTransform, batches: Batches) -> None:
    """Raise InvalidDefinition, naming the first output and row, where a training row gives what is not finite."""
    prepared = fitted.prepare()
    outputs = len(fitted.output_names)
    bad_rows = np.zeros(outputs, dtype=np.int64)
    first: dict[int, tuple[int, float]] = {}
    rows = 0
    for chunk in chunks(fitted.graph, batches):
        tensor = prepared.apply(chunk.columns, chunk.rows)
        bad = ~np.isfinite(tensor)
        if bad.any():
            bad_rows += bad.sum(axis=0)
            for output in np.flatnonzero(bad.any(axis=0)).tolist():
                row = int(bad[:, output].argmax())
                first.setdefault(output, (rows + row, float(tensor[row, output])))
        rows += chunk.rows
    require_rows(rows)
    if first:
        output = min(first)
        row, value = first[output]
        raise InvalidDefinition(
            f"output `{fitted.output_names[output]}` is {value} in training row {row}, and not finite"
            f" in {int(bad_rows[output]):,} of {rows:,} rows",
            hint="clean() the column, which turns NaN, infinities and values out of range into nulls, then impute",
        )
