"""Checks of single settings and learned values, for declarations and stored JSON alike.

A check returns the value in its one stored form and raises ValueError with what is allowed.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class CountUpTo:
    """A check for a whole number from 1 to `most`."""

    most: int

    def __call__(self, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= self.most:
            raise ValueError(f"must be a whole number from 1 to {self.most:,}, got {value!r}")
        return value


@dataclass(frozen=True, slots=True)
class Optional:
    """The same check, for a value that may be None as well."""

    check: Check

    def __call__(self, value: object) -> Any:
        return None if value is None else self.check(value)


def count_from_zero(value: object) -> int:
    """A whole number, 0 or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"must be a whole number, 0 or more, got {value!r}")
    return value


def share(value: object) -> float:
    """A number from 0 to 1."""
    number = finite(value)
    if not 0.0 <= number <= 1.0:
        raise ValueError(f"must be from 0 to 1, got {value!r}")
    return number


def not_negative(value: object) -> float:
    """A finite number, 0 or more."""
    number = finite(value)
    if number < 0.0:
        raise ValueError(f"must be 0 or more, got {value!r}")
    return number


def text(value: object) -> str:
    """Any string that has a UTF-8 form, as half of a surrogate pair has not: what is stored is text."""
    if not isinstance(value, str):
        raise ValueError(f"must be a string, got {value!r}")  # noqa: TRY004
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError(f"must be text that can be stored as UTF-8, got {value!r} with half of a surrogate pair")
    return value


def name(value: object) -> str:
    """A string that is not empty."""
    if not text(value):
        raise ValueError("must not be empty")
    return str(value)


def sha256(value: object) -> str:
    """A SHA-256 as 64 lower-case hexadecimal digits."""
    if not isinstance(value, str) or re.fullmatch("[0-9a-f]{64}", value) is None:
        raise ValueError(f"must be a SHA-256 as 64 lower-case hexadecimal digits, got {value!r}")
    return value


@dataclass(frozen=True, slots=True)
class OneOf:
    """A check for one of some words."""

    allowed: tuple[str, ...]

    def __call__(self, value: object) -> str:
        if not isinstance(value, str) or value not in self.allowed:
            raise ValueError(f"must be one of {', '.join(self.allowed)}, got {value!r}")
        return str(value)  # a member of an enum becomes the plain string that is stored


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


def numbers(value: object) -> list[float]:
    """Finite numbers; may be none."""
    return [finite(item) for item in _items(value)]


def names(value: object) -> list[str]:
    """One or more distinct strings, none empty; up to `OUTPUTS_MAX`."""
    found = [name(item) for item in _items(value)]
    if not 1 <= len(found) <= OUTPUTS_MAX or len(set(found)) != len(found):
        raise ValueError(f"must be 1 to {OUTPUTS_MAX:,} names that differ from one another, got {value!r}")
    return found


@dataclass(frozen=True, slots=True)
class ListOf:
    """A check for 1 to `most` items that each pass `check`."""

    check: Check
    most: int

    def __call__(self, value: object) -> list[Any]:
        items = [self.check(item) for item in _items(value)]
        if not 1 <= len(items) <= self.most:
            raise ValueError(f"must have 1 to {self.most:,} items, got {len(items):,}")
        return items


@dataclass(frozen=True, slots=True)
class FixedList:
    """A check for a list with one item for each name, each of which passes its own check."""

    items: tuple[tuple[str, Check], ...]

    def __call__(self, value: object) -> list[Any]:
        found = _items(value)
        if len(found) != len(self.items):
            raise ValueError(f"must be [{', '.join(name for name, _ in self.items)}], got {value!r}")
        return [check(item) for (_, check), item in zip(self.items, found, strict=True)]


def count_up_to(most: int) -> Check:
    """A check for a whole number from 1 to `most`."""
    return CountUpTo(most)


def optional(check: Check) -> Check:
    """The same check, for a value that may be None as well."""
    return Optional(check)


def one_of(*allowed: str) -> Check:
    """A check for one of some words."""
    return OneOf(allowed)


def list_of(check: Check, *, most: int) -> Check:
    """A check for 1 to `most` items that each pass `check`."""
    return ListOf(check, most)


def fixed_list(**items: Check) -> Check:
    """A check for a list with one item for each name, each of which passes its own check."""
    return FixedList(tuple(items.items()))


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
