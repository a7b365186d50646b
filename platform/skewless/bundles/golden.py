"""Golden vectors: a few rows with the exact tensor and outputs that they must give wherever the bundle runs.

inputs:   {column: values}          before the transform, nulls included
tensor:   float32 (rows, columns)   after the transform, kept as its bytes
outputs:  {name: float32 (rows, columns)} of the model, kept as their bytes
scores:   float32 (rows,)           after post-processing, kept as their bytes; absent outside of bundles
reasons:  a sentence per row, why it is one of them; absent where rows were not chosen for their branches
"""

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import Column, Dtype, column_of, to_python
from skewless.errors import BundleRefused

_LITTLE_ENDIAN = np.dtype("<f4")
_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_FLOATS = (Dtype.FLOAT32, Dtype.FLOAT64)


@dataclass(frozen=True, slots=True)
class GoldenVectors:
    """See the module. `columns` holds every input column of the transform, each (rows,)."""

    columns: Mapping[str, Column]
    tensor: NDArray[np.float32]
    outputs: Mapping[str, NDArray[np.float32]]
    reasons: tuple[str, ...] = ()
    """One for each row, or none at all; see `transforms.golden_rows`."""
    scores: NDArray[np.float32] | None = None
    """What callers are told of each row (rows,); None where there is no post-processing."""

    def __post_init__(self) -> None:
        if self.reasons and len(self.reasons) != len(self.tensor):
            raise ValueError(f"{len(self.reasons)} reasons for {len(self.tensor)} golden rows")
        if self.scores is not None and self.scores.shape != (len(self.tensor),):
            raise ValueError(f"scores of shape {self.scores.shape} for {len(self.tensor)} golden rows")

    @property
    def rows(self) -> int:
        """How many rows."""
        return len(self.tensor)

    @property
    def samples(self) -> dict[str, list[object]]:
        """Values of the rows by column, without nulls: typical ones for the differential check of a transform."""
        return {name: [item for item in to_python(each) if item is not None] for name, each in self.columns.items()}

    def to_json(self) -> dict[str, Any]:
        """Plain data for `canonical_json.encode`."""
        return {
            "columns": {
                name: {"dtype": column.dtype.value, "values": [_plain(item) for item in to_python(column)]}
                for name, column in self.columns.items()
            },
            "tensor": _array_json(self.tensor),
            "outputs": {name: _array_json(output) for name, output in self.outputs.items()},
            **({} if self.scores is None else {"scores": _array_json(self.scores)}),
            **({"reasons": list(self.reasons)} if self.reasons else {}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "GoldenVectors":
        """The inverse of `to_json`. Raises BundleRefused for anything else."""
        try:
            return cls(
                columns={name: _column(entry) for name, entry in data["columns"].items()},
                tensor=_array(data["tensor"]),
                outputs={name: _array(entry) for name, entry in data["outputs"].items()},
                reasons=tuple(str(reason) for reason in data.get("reasons", ())),
                scores=_array(data["scores"]) if "scores" in data else None,
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise BundleRefused(f"golden.json does not hold golden vectors: {error!r}") from error


def check_same_bits(expected: NDArray[np.float32], actual: NDArray[np.float32], *, what: str) -> None:
    """Raises BundleRefused naming the first row and column whose bits differ; `what` says whose they are."""
    if expected.shape != actual.shape:
        raise BundleRefused(f"{what} has shape {actual.shape}, golden vectors have {expected.shape}")
    differing = np.argwhere(_bits(expected) != _bits(actual))
    if len(differing):
        raise _difference(expected, actual, differing, what)


def check_near(expected: NDArray[np.float32], actual: NDArray[np.float32], *, tolerance: float, what: str) -> None:
    """As `check_same_bits`, where values may be up to `tolerance` apart; 0.0 is bit for bit."""
    if not tolerance or expected.shape != actual.shape:
        check_same_bits(expected, actual, what=what)
        return
    with np.errstate(invalid="ignore"):
        near = np.abs(expected.astype(np.float64) - actual) <= tolerance
    differing = np.argwhere(~(near | (_bits(expected) == _bits(actual))))
    if len(differing):
        raise _difference(expected, actual, differing, f"{what}, by more than {tolerance:g},")


def _bits(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    return np.ascontiguousarray(values).view(np.uint32)


def _difference(
    expected: NDArray[np.float32], actual: NDArray[np.float32], differing: NDArray[np.intp], what: str
) -> BundleRefused:
    place = tuple(differing[0].tolist())
    named = ", ".join(f"{axis} {at}" for axis, at in zip(("row", "column"), place, strict=False))
    return BundleRefused(
        f"{what} differs from the golden vectors in {len(differing)} of {expected.size} values, first at "
        f"{named}: expected {expected[place]!r}, got {actual[place]!r}",
        hint="the bundle was built by another version of this code or its libraries; train it again here",
    )


def _plain(item: object) -> object:
    if isinstance(item, float) and not math.isfinite(item):
        return "NaN" if math.isnan(item) else ("Infinity" if item > 0 else "-Infinity")
    return base64.b64encode(item).decode() if isinstance(item, bytes) else item


def _column(entry: Mapping[str, Any]) -> Column:
    dtype = Dtype(entry["dtype"])
    items: list[object] = list(entry["values"])
    if dtype in _FLOATS:
        items = [_NON_FINITE[item] if isinstance(item, str) else item for item in items]
    elif dtype is Dtype.BYTES:
        items = [base64.b64decode(item) if isinstance(item, str) else None for item in items]
    return column_of(dtype, items)


def _array_json(array: NDArray[np.float32]) -> dict[str, Any]:
    data = np.ascontiguousarray(array, dtype=_LITTLE_ENDIAN).tobytes()
    return {"shape": list(array.shape), "float32": base64.b64encode(data).decode()}


def _array(entry: Mapping[str, Any]) -> NDArray[np.float32]:
    flat = np.frombuffer(base64.b64decode(entry["float32"]), dtype=_LITTLE_ENDIAN)
    return flat.reshape(entry["shape"]).astype(np.float32)
