"""Expectations that rows plainly meet are seen without Great Expectations, and only those."""

import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from harness.naive_suites import NaiveRunner
from skewless.adapters.ingest_sure_runner import SureRunner
from skewless.quality.catalogue import BETWEEN, IN_SET, LATER, NOT_NULL, UNIQUE, UNIQUE_COLUMN
from skewless.quality.results import ExpectationResult
from skewless.quality.suite import Expectation, Suite
from skewless.timestamps import HOUR_US, parse_timestamp

AS_OF = parse_timestamp("2024-01-01")
TIME = pa.timestamp("us", tz="UTC")
TIMES = frozenset({"at", "known"})
SUITE = Suite(
    "s",
    "s",
    (
        Expectation(NOT_NULL, {"column": "key"}),
        Expectation(NOT_NULL, {"column": "rate", "mostly": 0.5}),
        Expectation(BETWEEN, {"column": "rate", "min_value": 0.1, "max_value": 0.9}),
        Expectation(BETWEEN, {"column": "rate", "max_value": 0.3, "strict_max": True}),
        Expectation(BETWEEN, {"column": "count", "min_value": 0, "max_value": 2**60}),
        Expectation(BETWEEN, {"column": "at", "max_value": {"as_of": "+1h"}}),
        Expectation(IN_SET, {"column": "key", "value_set": ["a", "b", "c"]}),
        Expectation(UNIQUE, {"column_list": ["key", "at"]}),
        Expectation(UNIQUE_COLUMN, {"column": "count"}),
        Expectation(LATER, {"column_A": "known", "column_B": "at"}),
        Expectation("expect_column_values_to_match_regex", {"column": "key", "regex": "^[a-c]$"}),
    ),
)


class Counting(NaiveRunner):
    """Notes which expectations it is asked about."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def run(self, suite: Suite, table: pa.Table, *, as_of: int, times: frozenset[str]) -> tuple[ExpectationResult, ...]:
        self.asked += [each.type for each in suite.expectations]
        return super().run(suite, table, as_of=as_of, times=times)


def a_table(rows: list[tuple[Any, ...]]) -> pa.Table:
    names = ("key", "rate", "count", "at", "known")
    types = (pa.string(), pa.float32(), pa.int64(), TIME, TIME)
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    return pa.table([pa.array(column, kind) for column, kind in zip(columns, types, strict=True)], names=names)


@pytest.mark.parametrize("seed", range(60))
def test_what_is_met_and_which_rows_fail_is_the_same_as_without_it(seed: int) -> None:
    chosen = random.Random(seed)
    odd = chosen.random() < 0.7
    rows = []
    for number in range(chosen.randrange(8)):
        at = AS_OF + chosen.randrange(-3, 3 if odd else 1) * HOUR_US
        # Values on the bounds too, where a float32 and a float64 disagree about which side they are on.
        rate = chosen.choice([0.1, 0.3, 0.9, float(np.float32(0.1)), float("nan"), None] if odd else [0.2, 0.25])
        count = chosen.choice([number, 2**60, -1, None] if odd else [number])
        key = chosen.choice(["a", "b", "z", None] if odd else ["a", "b"])
        rows.append((key, rate, count, at, at + chosen.randrange(-1 if odd else 1, 3)))
    table = a_table(rows)
    expected = NaiveRunner().run(SUITE, table, as_of=AS_OF, times=TIMES)
    found = SureRunner(NaiveRunner()).run(SUITE, table, as_of=AS_OF, times=TIMES)
    assert [(each.position, each.success, each.rows) for each in found] == [
        (each.position, each.success, each.rows) for each in expected
    ]
    for one, other in zip(found, expected, strict=True):
        assert one.failing_rows is not None
        assert other.failing_rows is not None
        assert one.failing_rows.tolist() == other.failing_rows.tolist(), SUITE.expectations[one.position]


def test_rows_without_anything_wrong_are_judged_by_nobody_else_but_for_what_is_not_looked_at() -> None:
    inner = Counting()
    rows = [("a", 0.2, number, AS_OF - number * HOUR_US, AS_OF) for number in range(1, 50)]
    results = SureRunner(inner).run(SUITE, a_table(rows), as_of=AS_OF, times=TIMES)
    assert all(each.success for each in results)
    assert inner.asked == [BETWEEN, "expect_column_values_to_match_regex"], "whole numbers beyond a float, and patterns"


def test_an_expectation_that_one_row_may_not_meet_is_judged_and_the_others_are_not() -> None:
    inner = Counting()
    rows = [("a", 0.2, 1, AS_OF, AS_OF + 1), ("a", 0.1, 2, AS_OF - 1, AS_OF)]
    SureRunner(inner).run(SUITE, a_table(rows), as_of=AS_OF, times=TIMES)
    assert inner.asked.count(BETWEEN) == 2, "a value on its bound"
    assert NOT_NULL not in inner.asked
