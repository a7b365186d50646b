"""When a served value equals the offline one, and what makes two values equal that are not: tolerances, declared once.

Integers, strings, bytes, truth values and times are equal or not. Floats of the declared width may differ by
ULPS_MAX steps to the next representable number, for the last bit of a sum depends on its order; what comes through
the store unchanged has no difference at all. NaN equals NaN, null equals null.
"""

import json
import math
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import ELEMENTS, TABLE, Column, Dtype
from skewless.timestamps import SECOND_US

Mask = NDArray[np.bool_]

ULPS_MAX: Mapping[Dtype, int] = {Dtype.FLOAT32: 1, Dtype.FLOAT64: 4}
"""Largest distance of equal floats, in steps to the next number; 0 for every other dtype."""
_WORDS_FOR_NULL = frozenset({"", "nan", "nat", "none", "null", "<na>", "n/a"})
_DECIMALS = range(1, 7)
_UNSIGNED: Mapping[int, Any] = {4: np.uint32, 8: np.uint64}


@dataclass(frozen=True, slots=True)
class Equality:
    """Rows (rows,): `same` to the bit, or `close` enough to count as equal; what is same is close."""

    same: Mask
    close: Mask


def compare_columns(served: Column, offline: Column) -> Equality:
    """Compare two columns of one dtype row by row."""
    both = served.valid & offline.valid
    nulls = ~served.valid & ~offline.valid
    if served.values.dtype.hasobject:
        same, close = _compare_objects(served, offline, both)
    else:
        same, close = _compare_numbers(served.values, offline.values, ULPS_MAX.get(served.dtype, 0))
    return Equality(nulls | (both & same), nulls | (both & close))


def ulps_apart(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.uint64]:
    """How many steps to the next float lie between two arrays of one float dtype; 0.0 and -0.0 are one step apart.

    >>> ulps_apart(np.array([1.0, -0.0]), np.array([np.nextafter(1.0, 2.0), 0.0])).tolist()
    [1, 1]
    """
    first, second = _ordered(one), _ordered(other)
    apart: NDArray[np.uint64] = np.where(first > second, first - second, second - first).astype(np.uint64)
    return apart


def rounds_alike(served: Column, offline: Column) -> Mask:
    """Rows (rows,) of two valid columns that differ, but not after rounding to a narrower type or fewer digits."""
    return _each(served, offline, _round_arrays)


def casts_alike(served: Column, offline: Column, raw: NDArray[np.float64] | None = None) -> Mask:
    """Rows (rows,) whose values are equal once cast: text by spelling, an integer as a cut number.

    `raw` (rows,) is the source's own number of an integer feature, before its cast; NaN where there is none. A text
    that stands for null equals a null.
    """
    if served.dtype in (Dtype.INT32, Dtype.INT64) and raw is not None:
        number = served.values.astype(np.float64)
        cut = (number == np.floor(raw)) | (number == np.ceil(raw))
        return np.asarray(served.valid & cut & (raw != np.floor(raw)), dtype=np.bool_)
    if ELEMENTS.get(served.dtype, served.dtype) is not Dtype.STRING:
        return np.zeros(len(served), dtype=np.bool_)
    return np.fromiter(map(_texts_alike, _items(served), _items(offline)), dtype=np.bool_, count=len(served))


def is_stand_in(column: Column, default: object) -> Mask:
    """Rows (rows,) that hold the dtype's zero, or `default` where it is not None: what fills in for nothing."""
    fillers = [TABLE[column.dtype].zero] if default is None else [TABLE[column.dtype].zero, default]
    found = [value in fillers for value in column.values.tolist()]
    return np.array(found, dtype=np.bool_) & column.valid


def _compare_numbers(one: NDArray[Any], other: NDArray[Any], ulps_max: int) -> tuple[Mask, Mask]:
    if one.dtype.kind != "f":
        equal = np.asarray(one == other, dtype=np.bool_)
        return equal, equal
    unsigned = _UNSIGNED[one.dtype.itemsize]
    nan = np.isnan(one) & np.isnan(other)
    same = nan | (one.view(unsigned) == other.view(unsigned))
    finite = np.isfinite(one) & np.isfinite(other)
    return same, same | (finite & (ulps_apart(one, other) <= ulps_max))


def _ordered(values: NDArray[Any]) -> NDArray[Any]:
    """Unsigned integers in the order of the floats, neighbours one apart."""
    unsigned = _UNSIGNED[values.dtype.itemsize]
    bits = np.ascontiguousarray(values).view(unsigned)
    sign = unsigned(1 << (8 * values.dtype.itemsize - 1))
    ordered: NDArray[Any] = np.where(bits & sign, ~bits, bits | sign)
    return ordered


def _compare_objects(served: Column, offline: Column, both: Mask) -> tuple[Mask, Mask]:
    same = np.asarray(served.values == offline.values, dtype=np.bool_)
    if ELEMENTS.get(served.dtype) not in ULPS_MAX:
        return same, same
    # Lists of floats: a tuple with NaN is equal to none, and one with 0.0 to one with -0.0.
    element = ELEMENTS[served.dtype]
    same, close = same.copy(), same.copy()
    for row in np.flatnonzero(both).tolist():
        one, other = _as_array(served.values[row], element), _as_array(offline.values[row], element)
        if len(one) != len(other):
            continue
        equal, near = _compare_numbers(one, other, ULPS_MAX[element])
        same[row], close[row] = bool(equal.all()), bool(near.all())
    return same, close


def _as_array(items: Any, element: Dtype) -> NDArray[Any]:
    return np.array(items, dtype=TABLE[element].numpy)


def _each(served: Column, offline: Column, alike: Callable[[NDArray[Any], NDArray[Any], Dtype], Mask]) -> Mask:
    """`alike` of plain columns at once; of lists of one length, each with its elements."""
    if served.dtype not in ELEMENTS:
        return alike(served.values, offline.values, served.dtype) & served.valid & offline.valid
    element = ELEMENTS[served.dtype]
    found = np.zeros(len(served), dtype=np.bool_)
    for row in np.flatnonzero(served.valid & offline.valid).tolist():
        one, other = served.values[row], offline.values[row]
        if len(one) == len(other) and element not in (Dtype.STRING, Dtype.BYTES):
            first, second = _as_array(one, element), _as_array(other, element)
            found[row] = bool((alike(first, second, element) | (first == second)).all())
    return found


def _round_arrays(one: NDArray[Any], other: NDArray[Any], dtype: Dtype) -> Mask:
    nowhere = np.zeros(len(one), dtype=np.bool_)
    if dtype is Dtype.TIMESTAMP:
        coarse = (one // SECOND_US == other // SECOND_US) | (one // 1_000 == other // 1_000)
        return np.asarray(coarse & (one != other), dtype=np.bool_)
    if dtype in (Dtype.INT32, Dtype.INT64):
        # Neighbours beyond 2**24 and 2**53 are one float.
        floats = (one.astype(np.float32) == other.astype(np.float32)) | (
            one.astype(np.float64) == other.astype(np.float64)
        )
        return np.asarray(floats & (one != other), dtype=np.bool_)
    if dtype not in ULPS_MAX:
        return nowhere
    with np.errstate(over="ignore", invalid="ignore"):
        alike = (one.astype(np.float32) == other.astype(np.float32)) if dtype is Dtype.FLOAT64 else nowhere
        alike |= one.astype(np.float16) == other.astype(np.float16) if dtype is Dtype.FLOAT32 else nowhere
        for digits in _DECIMALS:
            alike |= (np.round(other, digits) == one) | (np.round(one, digits) == other)
    return np.asarray(alike & (one != other) & np.isfinite(one) & np.isfinite(other), dtype=np.bool_)


def _items(column: Column) -> list[Any]:
    return [item if ok else None for item, ok in zip(column.values.tolist(), column.valid.tolist(), strict=True)]


def _texts_alike(one: Any, other: Any) -> bool:
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_texts_alike, one, other))
    if one is None or other is None:
        text = one if other is None else other
        return isinstance(text, str) and text.strip().casefold() in _WORDS_FOR_NULL
    if not isinstance(one, str) or not isinstance(other, str):
        return False
    plain = [unicodedata.normalize("NFC", text).strip().casefold() for text in (one, other)]
    return plain[0] == plain[1] or _read(one) == _read(other)


def _read(text: str) -> object:
    """The number or JSON document that a text spells; an object that equals nothing where it spells none."""
    try:
        return float(text)
    except ValueError:
        try:
            value = json.loads(text)
        except ValueError:
            return math.nan
        return value if isinstance(value, dict | list) else math.nan
