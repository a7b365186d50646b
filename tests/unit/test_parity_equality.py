"""When values are equal, and what makes values equal that are not."""

import math
from typing import Any

import numpy as np
import pytest

from skewless.dtypes import Dtype, column_of
from skewless.parity.equality import ULPS_MAX, casts_alike, compare_columns, is_stand_in, rounds_alike, ulps_apart

ROWS = 1_000_000


def _equal(dtype: Dtype, one: Any, other: Any) -> tuple[bool, bool]:
    found = compare_columns(column_of(dtype, [one]), column_of(dtype, [other]))
    return bool(found.same[0]), bool(found.close[0])


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        (Dtype.FLOAT32, [0.1, -0.0, 3.4e38, math.inf, -math.inf, math.nan, 1e-45, None]),
        (Dtype.FLOAT64, [0.1, 5e-324, 1e300, math.nan, -math.inf, None]),
        (Dtype.INT64, [0, -1, 2**53 + 1, 2**63 - 1, None]),
        (Dtype.BOOL, [True, False, None]),
        (Dtype.STRING, ["", "süd \N{CLOUD WITH RAIN}", "a\x00b", "e\u0301", None]),
        (Dtype.BYTES, [b"", b"\x00\xff", None]),
        (Dtype.TIMESTAMP, [0, -1, 1_700_000_000_000_001, None]),
        (Dtype.FLOAT32_LIST, [(), (0.1, math.nan), (math.inf,), None]),
        (Dtype.STRING_LIST, [(), ("",), ("a", "ü"), None]),
        (Dtype.TIMESTAMP_LIST, [(), (1, 2), None]),
    ],
)
def test_a_value_equals_itself_and_no_other(dtype: Dtype, values: list[Any]) -> None:
    for one in values:
        for other in values:
            assert _equal(dtype, one, other)[0] == (one is other), (one, other)


@pytest.mark.parametrize("dtype", [Dtype.FLOAT32, Dtype.FLOAT64])
def test_floats_are_close_within_their_ulps_and_not_beyond(dtype: Dtype) -> None:
    number = np.float32(0.1) if dtype is Dtype.FLOAT32 else np.float64(0.1)
    for start in (number, -number):
        near = start
        for _ in range(ULPS_MAX[dtype]):
            near = np.nextafter(near, number * 0 - 1)
        assert _equal(dtype, float(start), float(near)) == (False, True)
        far = np.nextafter(near, number * 0 - 1)
        assert _equal(dtype, float(start), float(far)) == (False, False)


def test_ulps_are_counted_as_steps_to_the_next_float() -> None:
    random = np.random.default_rng(3)
    starts = random.normal(0, 1e3, 200).astype(np.float32)
    steps = random.integers(0, 6, 200)
    ends = starts.copy()
    for step in range(6):
        ends = np.where(step < steps, np.nextafter(ends, np.float32(np.inf)), ends)
    assert np.array_equal(ulps_apart(starts, ends), steps.astype(np.uint64))
    assert int(ulps_apart(np.array([-math.inf]), np.array([math.inf]))[0]) > 2**60


def test_a_million_honest_values_through_float32_storage_give_no_alarm() -> None:
    """What both sides have after the cast to the declared dtype, whatever the source's own width."""
    random = np.random.default_rng(11)
    source = random.lognormal(0, 8, ROWS)
    source[random.random(ROWS) < 0.05] = math.nan
    valid = random.random(ROWS) > 0.1
    with np.errstate(over="ignore"):
        served = source.astype(np.float32)
    zero = np.float32(0)
    columns = [column_of(Dtype.FLOAT32, []) for _ in range(2)]
    for side in range(2):
        columns[side] = type(columns[side])(Dtype.FLOAT32, np.where(valid, served.copy(), zero), valid.copy())
    found = compare_columns(*columns)
    assert found.same.all()


@pytest.mark.parametrize(
    ("dtype", "served", "offline", "alike"),
    [
        (Dtype.FLOAT64, float(np.float32(1013.1)), 1013.1, True),
        (Dtype.FLOAT64, 1013.12, 1013.1234567, True),
        (Dtype.FLOAT64, 1014.0, 1013.0, False),
        (Dtype.FLOAT64, 1.0, None, False),
        (Dtype.FLOAT32, float(np.float16(0.1)), 0.1, True),
        (Dtype.FLOAT32, 21.5, 70.7, False),
        (Dtype.INT64, 2**53, 2**53 + 1, True),
        (Dtype.INT64, 3, 4, False),
        (Dtype.TIMESTAMP, 5_000_000, 5_000_400, True),
        (Dtype.TIMESTAMP, 5_000_000, 7_000_000, False),
        (Dtype.STRING, "a", "A", False),
        (Dtype.FLOAT64_LIST, (0.5, float(np.float32(0.1))), (0.5, 0.1), True),
        (Dtype.FLOAT64_LIST, (0.5,), (0.5, 0.1), False),
    ],
)
def test_rounding_explains_what_it_explains(dtype: Dtype, served: Any, offline: Any, *, alike: bool) -> None:
    assert bool(rounds_alike(column_of(dtype, [served]), column_of(dtype, [offline]))[0]) is alike


@pytest.mark.parametrize(
    ("served", "offline", "alike"),
    [
        (" Clear", "clear", True),
        ("cafe\u0301", "caf\u00e9", True),
        ("12.0", "12", True),
        ('{"a": 1}', '{"a":1}', True),
        ("nan", None, True),
        ("", None, True),
        ("clear", "cloudy", False),
        ("x", None, False),
        ("nan", "nan.", False),
    ],
)
def test_spelling_explains_what_it_explains(served: Any, offline: Any, *, alike: bool) -> None:
    one, other = (column_of(Dtype.STRING, [each]) for each in (served, offline))
    assert bool(casts_alike(one, other)[0]) is alike
    one, other = (column_of(Dtype.STRING_LIST, [None if each is None else (each,)]) for each in (served, offline))
    assert bool(casts_alike(one, other)[0]) is (alike and offline is not None)


def test_an_integer_that_was_cut_or_rounded_from_a_number_is_a_coercion() -> None:
    served, offline = column_of(Dtype.INT64, [3, 4, 5, 3]), column_of(Dtype.INT64, [4, 4, 4, 4])
    raw = np.array([3.7, 3.7, 3.7, np.nan])
    assert casts_alike(served, offline, raw).tolist() == [True, True, False, False]


def test_a_stand_in_is_the_zero_of_its_dtype_or_the_declared_default() -> None:
    assert is_stand_in(column_of(Dtype.INT64, [0, 90, 7, None]), 90).tolist() == [True, True, False, False]
    assert is_stand_in(column_of(Dtype.STRING, ["", "none"]), None).tolist() == [True, False]
    assert is_stand_in(column_of(Dtype.FLOAT64_LIST, [(), (0.0,)]), None).tolist() == [True, False]
