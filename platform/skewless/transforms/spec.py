"""Transforms as declared and as fitted: their canonical JSON, their digests, and fitting."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from skewless.canonical_json import Digest, digest
from skewless.dtypes import Column, Dtype
from skewless.errors import InvalidDefinition
from skewless.transforms.execution import PreparedTransform, check_columns, compile_plan
from skewless.transforms.expressions import Expression
from skewless.transforms.fitting import check_learned, learn
from skewless.transforms.graph import Graph
from skewless.transforms.operation import Settings

SEMANTICS_VERSION = 1
"""Meaning of all operations together. Raised when any stored transform would compute something else."""


class Transform:
    """A declared transform: named outputs, in order, as expressions of columns. Immutable; equal by digest."""

    def __init__(self, outputs: Mapping[str, Expression]) -> None:
        for name, output in outputs.items():
            if not isinstance(output, Expression):
                raise InvalidDefinition(f"output `{name}` must be an expression, got {output!r}")
        self._graph = Graph.of(outputs)

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
        return {"semantics_version": SEMANTICS_VERSION, **self._graph.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Transform":
        """The inverse of `to_json`. Raises InvalidDefinition for another semantics version and for anything else."""
        _check_fields(data, {"semantics_version", "nodes", "outputs"})
        graph = Graph.from_json(data)
        return cls({name: graph.nodes[index] for name, index in graph.outputs})

    def fit(self, columns: Mapping[str, Column], rows: int) -> "FittedTransform":
        """Learn every operation's parameters from training rows; their order does not matter, bit for bit.

        Raises InvalidDefinition, naming the expression, for rows that cannot teach it, and for an output that is
        NaN or infinite, or that leaves the range of float32, in any training row.
        """
        graph = self._graph
        check_columns(graph.inputs, columns, rows)
        if not rows:
            raise InvalidDefinition("a transform cannot be fitted on 0 rows")
        fitted = FittedTransform(graph, learn(graph, columns, rows))
        _check_finite(fitted, columns, rows)
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
        self._learned = dict(learned)
        self._plan = compile_plan(graph, self._learned)
        names = self._plan.output_names
        if len(set(names)) != len(names):
            repeated = sorted({name for name in names if names.count(name) > 1})
            raise InvalidDefinition(f"outputs have the same name: {', '.join(f'`{name}`' for name in repeated)}")

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the tensor's columns; several of one expression are `name[category]`, `name[sin]` and so on."""
        return self._plan.output_names

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
    def from_json(cls, data: Mapping[str, Any]) -> "FittedTransform":
        """The inverse of `to_json`.

        Raises InvalidDefinition for another semantics version, an unknown operation, missing or unknown fields,
        values out of their range, and for content that does not have the digest it states.
        """
        _check_fields(data, {"semantics_version", "nodes", "outputs", "learned", "digest"})
        graph = Graph.from_json(data)
        entries = data["learned"]
        if not isinstance(entries, list) or len(entries) != len(graph.nodes):
            raise InvalidDefinition(
                f"a fitted transform must have one `learned` entry for each of {len(graph.nodes)} nodes"
            )
        learned = {
            index: check_learned(graph.nodes[index], entry)
            for index, entry in enumerate(entries)
            if graph.nodes[index].operation.learned or entry is not None
        }
        fitted = cls(graph, learned)
        if fitted.digest != data["digest"]:
            raise InvalidDefinition(
                f"a fitted transform states the digest {data['digest']!r}, its content has {fitted.digest}",
                hint="it was changed after it was written; take the original, or fit it again",
            )
        return fitted

    def prepare(self) -> PreparedTransform:
        """The transform ready to run, with everything that rows do not decide resolved."""
        return PreparedTransform(self._plan)

    def _content(self) -> dict[str, Any]:
        entries = (self._learned.get(index) for index in range(len(self._graph.nodes)))
        return {
            "semantics_version": SEMANTICS_VERSION,
            **self._graph.to_json(),
            "learned": [None if entry is None else dict(entry) for entry in entries],
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FittedTransform) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"<FittedTransform to {len(self.output_names)} outputs, {self.digest[:12]}>"


def _check_fields(data: object, fields: set[str]) -> None:
    if not isinstance(data, Mapping) or set(data) != fields:
        seen = sorted(map(str, data)) if isinstance(data, Mapping) else type(data).__name__
        raise InvalidDefinition(f"a stored transform must have the fields {sorted(fields)}, got {seen}")
    version = data["semantics_version"]
    if type(version) is not int or version != SEMANTICS_VERSION:
        raise InvalidDefinition(
            f"a stored transform has semantics version {version!r}; this version of Skewless computes"
            f" {SEMANTICS_VERSION}",
            hint="serve it with the version of Skewless that wrote it, or fit it again with this one",
        )


def _check_finite(fitted: FittedTransform, columns: Mapping[str, Column], rows: int) -> None:
    tensor = fitted.prepare().apply(columns, rows)
    bad = ~np.isfinite(tensor)
    if bad.any():
        output = int(bad.any(axis=0).argmax())
        row = int(bad[:, output].argmax())
        raise InvalidDefinition(
            f"output `{fitted.output_names[output]}` is {tensor[row, output]} in training row {row}, and not finite"
            f" in {int(bad[:, output].sum()):,} of {rows:,} rows",
            hint="clean() the column, which turns NaN, infinities and values out of range into nulls, then impute",
        )
