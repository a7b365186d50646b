"""Checks of single settings and learned values, for declarations and stored JSON alike.

A check returns the value in its one stored form and raises ValueError with what is allowed.
"""

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from skewless.dtypes import NUMERIC, Dtype

Check = Callable[[Any], Any]
Checks = Mapping[str, Check]

COLUMN_DTYPES = (*sorted(NUMERIC), Dtype.STRING, Dtype.TIMESTAMP)
VOCABULARY_MAX = 1_000_000
"""Entries of a learned vocabulary: they are stored as JSON and held in memory by every gateway process."""
OUTPUTS_MAX = 4_096
"""Outputs of one one-hot encoding, and buckets of one column: a wider tensor is a declaration gone wrong."""


def finite(value: object) -> float:
    """A finite number, as a float.

    >>> finite(3)
    3.0
    """
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        raise ValueError(f"must be a finite number, got {value!r}")  # noqa: TRY004  # one error for a wrong value
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"must be a finite number, got {value!r}")
    return number


def finite_or_none(value: object) -> float | None:
    """A finite number, or None for no bound."""
    return None if value is None else finite(value)


def positive(value: object) -> float:
    """A finite number above zero."""
    number = finite(value)
    if number <= 0.0:
        raise ValueError(f"must be above 0, got {value!r}")
    return number


def count_up_to(most: int) -> Check:
    """A check for a whole number from 1 to `most`."""

    def check(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise ValueError(f"must be a whole number from 1 to {most:,}, got {value!r}")
        return value

    return check


def optional(check: Check) -> Check:
    """The same check, for a value that may be None as well."""
    return lambda value: None if value is None else check(value)


def text(value: object) -> str:
    """Any string."""
    if not isinstance(value, str):
        raise ValueError(f"must be a string, got {value!r}")  # noqa: TRY004
    return value


def name(value: object) -> str:
    """A string that is not empty."""
    if not text(value):
        raise ValueError("must not be empty")
    return str(value)


def flag(value: object) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"must be True or False, got {value!r}")  # noqa: TRY004
    return value


def column_dtype(value: object) -> str:
    """The name of a dtype that a transform can read."""
    if value not in COLUMN_DTYPES:
        raise ValueError(f"must be one of {', '.join(COLUMN_DTYPES)}, got {value!r}")
    return Dtype(str(value)).value


def edges(value: object) -> list[float]:
    """Finite numbers, each above the one before; at least one."""
    numbers = [finite(item) for item in _items(value)]
    if not 1 <= len(numbers) < OUTPUTS_MAX or any(low >= high for low, high in pairwise(numbers)):
        raise ValueError(f"must be 1 to {OUTPUTS_MAX - 1:,} numbers, each above the one before, got {value!r}")
    return numbers


def vocabulary(value: object) -> list[str]:
    """Distinct strings; their order is kept."""
    words = [text(item) for item in _items(value)]
    if len(words) > VOCABULARY_MAX or len(set(words)) != len(words):
        raise ValueError(f"must be up to {VOCABULARY_MAX:,} strings that differ from one another")
    return words


def seconds(value: object) -> list[int]:
    """Whole numbers of seconds."""
    items = list(_items(value))
    if any(isinstance(item, bool) or not isinstance(item, int) for item in items):
        raise ValueError("must be whole numbers of seconds")
    return items


def _items(value: object) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"must be a list, got {value!r}")  # noqa: TRY004
    return list(value)
