"""Parts of recorded traffic by the value of a column, or by ranges of it, found while the rows stream past.

`training.slices.Slice` cuts rows that are all there; here a value gets its code when it is first seen, and which parts
are told is decided at the end.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import NUMERIC, Column, Dtype
from skewless.errors import InvalidRequest
from skewless.limits import REPLAY_SLICE_VALUES_MAX
from skewless.training.slices import NULL, OTHER, VALUES_MAX

_NOT_A_NUMBER = "(not a number)"
_BEYOND = object()
"""Stands among the values for all that came after REPLAY_SLICE_VALUES_MAX others."""


class SliceCodes:
    """One slice: `name` is the column of the contract, `edges` the bounds of its ranges, none for one part a value."""

    def __init__(self, name: str, edges: Sequence[float] = ()) -> None:
        self.name = name
        self._edges = np.array(edges, dtype=np.float64)
        self._codes: dict[object, int] = {}
        self._names: list[str] = []

    @classmethod
    def parse(cls, text: str) -> "SliceCodes":
        """`NAME`, or `NAME:EDGE,EDGE,…` with edges that increase. Raises InvalidRequest for anything else.

        >>> SliceCodes.parse("distance:500,1000").name
        'distance'
        """
        name, _, listed = text.partition(":")
        try:
            edges = [float(each) for each in listed.split(",")] if listed else []
        except ValueError:
            edges = [math.nan]
        if not name or any(not low < high for low, high in pairwise(edges)) or not all(map(math.isfinite, edges)):
            raise InvalidRequest(
                f"`{text}` names no slice",
                path="--slice",
                allowed="a column, such as `carrier`, or a column and edges that increase, such as `distance:500,1000`",
            )
        return cls(name, edges)

    def codes(self, column: Column) -> NDArray[np.int32]:
        """The code of each row's part (rows,). Raises InvalidRequest for a column that cannot be cut so."""
        number = column.dtype in NUMERIC or column.dtype is Dtype.TIMESTAMP
        if not number and (len(self._edges) or column.dtype is not Dtype.STRING):
            raise InvalidRequest(
                f"column `{self.name}` is {column.dtype}",
                path="--slice",
                allowed="a text or a number; with edges a number",
            )
        found = self._ranges(column) if len(self._edges) else self._values(column)
        if column.values.dtype.kind == "f":
            found[np.isnan(column.values.astype(np.float64))] = self._code(math.nan, _NOT_A_NUMBER)
        found[~column.valid] = self._code(None, NULL)
        return found

    def parts(self, codes: NDArray[np.int32]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        """(name, mask (rows,)) of each part with a row: ranges from below, values by how many rows they have.

        The rarest values are told together as OTHER.
        """
        counts = np.bincount(codes, minlength=len(self._names))
        beyond = self._codes.get(_BEYOND)
        present = [code for code in range(len(self._names)) if counts[code] and code != beyond]
        if not len(self._edges):  # ranges have codes in their order
            present.sort(key=lambda code: (-int(counts[code]), self._names[code]))
        order, rare = present[:VALUES_MAX], present[VALUES_MAX:]
        if beyond is not None and counts[beyond]:
            rare.append(beyond)
        for code in order:
            yield self._names[code], codes == code
        if rare:
            yield OTHER, np.isin(codes, rare)

    def _code(self, value: object, name: str = "") -> int:
        """A value's code, made where it is new; beyond the bound all new values share one."""
        code = self._codes.get(value)
        if code is None:
            if len(self._names) >= REPLAY_SLICE_VALUES_MAX and not name:
                return self._code(_BEYOND, OTHER)
            code = self._codes[value] = len(self._names)
            self._names.append(name or str(value))
        return code

    def _values(self, column: Column) -> NDArray[np.int32]:
        values, inverse = np.unique(column.values[column.valid], return_inverse=True)
        found = np.zeros(len(column), dtype=np.int32)
        found[column.valid] = np.array([self._code(value) for value in values.tolist()], dtype=np.int32)[inverse]
        return found

    def _ranges(self, column: Column) -> NDArray[np.int32]:
        bounds = ["", *(f"{edge:g}" for edge in self._edges), ""]
        names = [
            f"{low} to {high}" if low and high else (f"below {high}" if high else f"{low} and above")
            for low, high in pairwise(bounds)
        ]
        known = np.array([self._code(name) for name in names], dtype=np.int32)
        found: NDArray[np.int32] = known[np.searchsorted(self._edges, column.values.astype(np.float64), side="right")]
        return found
