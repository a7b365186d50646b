"""The differential check finds what differs and tells it by the smallest row; its rows hold what makes a difference."""

import json
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from skewless.dtypes import Column, Dtype, column_of, to_python
from skewless.transforms import FittedTransform, Transform, column
from skewless.transforms.differential import ONNX, ONNX_ALONE, Report, compare, verify
from skewless.transforms.execution import PreparedTransform
from skewless.transforms.row_generator import LANDMARKS_MAX, generate_rows, landmarks

Change = Callable[[Mapping[str, Column], NDArray[np.float32]], None]
"""Spoils a tensor in place."""


def fitted() -> FittedTransform:
    amount = column("amount", Dtype.FLOAT64)
    count = column("count", Dtype.INT64, nullable=False)
    word = column("word", Dtype.STRING)
    moment = column("moment", Dtype.TIMESTAMP)
    transform = Transform(
        {
            "amount": amount.clip(-7.25, 99.5).impute_median(),
            "log": amount.clean(0.0, 1e9).impute(0.0).log1p().standardise(),
            "count": count + 0.0,
            "word": word.one_hot(categories=["JFK", "LGA"]),
            "hour": moment.hour("America/New_York").impute(12.0),
        }
    )
    return transform.fit(
        {
            "amount": column_of(Dtype.FLOAT64, [1.0, 2.0, None]),
            "count": column_of(Dtype.INT64, [1, 2, 3]),
            "word": column_of(Dtype.STRING, ["JFK", None, "LGA"]),
            "moment": column_of(Dtype.TIMESTAMP, [0, 1, None]),
        },
        3,
    )


def values(column: Column) -> NDArray[np.float64]:
    """Numbers, NaN where null."""
    return np.where(column.valid, column.values.astype(np.float64), np.nan)


def spoiled(prepared: PreparedTransform, change: Change) -> Callable[[Mapping[str, Column], int], NDArray[np.float32]]:
    """An execution that is right but for a change."""

    def run(columns: Mapping[str, Column], rows: int) -> NDArray[np.float32]:
        tensor = prepared.apply(columns, rows)
        change(columns, tensor)
        return tensor

    return run


def check(change: Change, *, rows: int = 200, seed: int = 3) -> Report:
    return verify(fitted(), rows=rows, seed=seed, onnx=spoiled(fitted().prepare(), change))


def test_executions_that_agree_are_named() -> None:
    report = verify(fitted())
    assert report.equal
    assert report.differences == ()
    assert {"row alone", "table of blocks", "stored and read again", "expression by expression"} <= set(
        report.executions
    )
    assert ONNX not in report.executions
    assert "agree" in report.text()
    assert report == verify(fitted()), "the same seed gives the same report"


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_so_few_rows_are_enough(rows: int) -> None:
    assert verify(fitted(), rows=rows, onnx=fitted().prepare().apply).equal


def test_a_difference_is_told_by_the_value_that_makes_it() -> None:
    def beyond_the_bound(columns: Mapping[str, Column], tensor: NDArray[np.float32]) -> None:
        tensor[np.flatnonzero(values(columns["amount"]) > 99.5), 0] += np.float32(0.5)

    report = check(beyond_the_bound)
    assert not report.equal
    assert {each.execution for each in report.differences} == {ONNX, ONNX_ALONE}
    for difference in report.differences:
        assert difference.output == "amount"
        amount = difference.row["amount"]
        assert isinstance(amount, float)
        assert amount > 99.5
        assert difference.row == {"amount": amount, "count": 0, "word": None, "moment": None}
        assert (difference.expected, difference.found, difference.allowed) == (99.5, 100.0, 0.0)
    assert f"`amount` is 100.0, not 99.5, for amount={amount!r}, count=0, null in all other columns" in report.text()


def test_a_difference_between_two_columns_keeps_both() -> None:
    def both(columns: Mapping[str, Column], tensor: NDArray[np.float32]) -> None:
        known = (columns["word"].values == "LGA") & columns["moment"].valid
        tensor[np.flatnonzero(known & (values(columns["count"]) < 0)), 4] = 7.0

    difference = check(both, rows=2_000).differences[0]
    assert difference.output == "word[LGA]"
    assert difference.row["word"] == "LGA"
    assert difference.row["amount"] is None
    assert difference.row["moment"] == 0, "the plainest of those that differ"
    count = difference.row["count"]
    assert isinstance(count, int)
    assert count < 0


def test_a_difference_that_takes_other_rows_is_found() -> None:
    def last_of_several(columns: Mapping[str, Column], tensor: NDArray[np.float32]) -> None:
        if len(tensor) > 5:
            tensor[5, 2] = -1.0

    differences = check(last_of_several).differences
    assert [(each.execution, each.output) for each in differences] == [(ONNX, "count")]
    assert differences[0].found == -1.0


def test_an_exact_output_may_not_move_and_an_inexact_one_only_a_little() -> None:
    def moved(place: int, units: int) -> Change:
        def change(columns: Mapping[str, Column], tensor: NDArray[np.float32]) -> None:
            some = np.flatnonzero((values(columns["amount"]) > 0.5) & (values(columns["amount"]) < 99.0))
            tensor[some, place] += units * np.spacing(tensor[some, place])

        return change

    assert not check(moved(0, 1)).equal
    assert check(moved(1, 1)).equal, "one unit of float32 in an output of log1p"
    wrong = check(moved(1, 3)).differences[0]
    assert wrong.output == "log"
    assert 0.0 < wrong.allowed < abs(wrong.found - wrong.expected)


def test_signs_of_zero_and_bits_of_nan_do_not_count_against_onnx() -> None:
    def negative_zero(columns: Mapping[str, Column], tensor: NDArray[np.float32]) -> None:
        tensor[tensor == 0.0] = -0.0

    assert check(negative_zero).equal


def test_a_report_is_plain_data() -> None:
    def nothing_is_right(columns: Mapping[str, Column], tensor: NDArray[np.float32]) -> None:
        tensor[:, 0] = np.nan
        tensor[:, 2] = np.inf

    report = check(nothing_is_right)
    data = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert data["equal"] is False
    assert data["transform"] == fitted().digest
    assert data["differences"][0]["found"] == "nan"
    assert data["differences"][1]["found"] == "inf"
    assert data["differences"][0]["row"] == {"amount": None, "count": 0, "word": None, "moment": None}
    assert len(report.text().splitlines()) == 1 + len(report.differences)


def test_given_rows_can_be_compared() -> None:
    columns = generate_rows(fitted(), rows=9)
    assert compare(fitted(), columns, 9, onnx=fitted().prepare().apply).rows == 9


def test_generated_rows_hold_what_makes_a_difference() -> None:
    columns = generate_rows(fitted(), rows=3_000, seed=1)
    amounts = columns["amount"].values.astype(np.float64)
    known = columns["amount"].valid
    for value in (math.inf, -math.inf, 5e-324, -5e-324, 0.0, float(np.finfo(np.float64).max)):
        assert (known & (amounts == value)).any(), value
    assert np.isnan(amounts).any()
    assert (np.signbit(amounts) & (amounts == 0.0) & known).any(), "-0.0"
    for bound in (-7.25, 99.5, 0.0, 1e9):
        for near in (bound, np.nextafter(bound, -np.inf), np.nextafter(bound, np.inf)):
            assert (known & (amounts == near)).any(), near
    counts = set(to_python(columns["count"]))
    assert {0, -1, 2**63 - 1, -(2**63), 2**53 + 1} <= counts
    assert None not in counts, "a column declared not nullable has no null"
    words = set(to_python(columns["word"]))
    assert {None, "", "JFK", "jfk".upper(), " LGA ", "JFKx", "é", "e\u0301", "\U0010ffff"} <= words
    moments = set(to_python(columns["moment"]))
    spring = 1_362_898_800_000_000  # 2013-03-10T07:00:00Z: New York's clocks go forward
    assert {None, 0, -1, 2**63 - 1, -(2**63), spring, spring - 1, 1_483_228_799_999_999} <= moments


def test_the_same_seed_gives_the_same_rows_and_another_seed_others() -> None:
    first, again, other = (generate_rows(fitted(), rows=100, seed=seed) for seed in (1, 1, 2))
    assert all(repr(to_python(first[name])) == repr(to_python(again[name])) for name in first)
    assert any(repr(to_python(first[name])) != repr(to_python(other[name])) for name in first)


def test_samples_are_among_the_typical_values() -> None:
    samples: dict[str, Sequence[object]] = {"count": [424_242], "word": ["ZZZ"], "unknown": [1]}
    columns = generate_rows(fitted(), rows=500, samples=samples)
    assert 424_242 in to_python(columns["count"])
    assert "ZZZ" in to_python(columns["word"])
    assert set(columns) == {"amount", "count", "word", "moment"}


def test_landmarks_are_found_through_every_operation_and_bounded() -> None:
    assert {-7.25, 99.5, 1e9} <= set(landmarks(fitted(), "amount"))
    assert set(landmarks(fitted(), "word")) == {"JFK", "LGA"}
    assert len(landmarks(fitted(), "moment")) <= LANDMARKS_MAX
    ratio = column("a", Dtype.FLOAT64) / column("b", Dtype.FLOAT64) < 0.125
    columns = {name: column_of(Dtype.FLOAT64, [1.0, 2.0]) for name in "ab"}
    assert 0.125 in landmarks(Transform({"r": ratio.impute(0.0)}).fit(columns, 2), "b"), "literals compared with"
