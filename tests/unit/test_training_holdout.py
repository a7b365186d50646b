"""Uncertainty, reliability and slices of a hold-out, checked against known values and naive twins."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from skewless.dtypes import Column, Dtype, column_of
from skewless.errors import InvalidDefinition
from skewless.training.evaluation import auroc
from skewless.training.holdout import evaluate_holdout, evaluate_scores
from skewless.training.intervals import auroc_interval
from skewless.training.reliability import expected_calibration_error, reliability_table
from skewless.training.slices import NULL, OTHER, VALUES_MAX, Slice

SEED = 3


def scored(rows: int, seed: int = SEED) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Calibrated scores, rounded so that some are equal."""
    rng = np.random.default_rng(seed)
    scores = np.round(rng.beta(2, 3, rows), 2).astype(np.float32)
    return rng.random(rows) < scores, scores


def naive_delong_error(labels: NDArray[np.bool_], scores: NDArray[np.float32]) -> float:
    """The standard error from every pair of a positive and a negative, as DeLong wrote it down."""
    wins = np.array([[(p > n) + 0.5 * (p == n) for n in scores[~labels]] for p in scores[labels]], dtype=float)
    return float(np.sqrt(wins.mean(1).var(ddof=1) / wins.shape[0] + wins.mean(0).var(ddof=1) / wins.shape[1]))


def test_the_interval_is_that_of_all_pairs() -> None:
    labels, scores = scored(200)
    value, found = auroc(labels, scores), auroc_interval(labels, scores)
    assert value is not None
    assert found is not None
    odds = np.log(np.array([found.low, value, found.high]) / (1 - np.array([found.low, value, found.high])))
    error = naive_delong_error(labels, scores)
    assert np.diff(odds) == pytest.approx([1.959964 * error / (value * (1 - value))] * 2, rel=1e-6)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(SEED)
    truth, covered = 0.7602499, 0  # of normal scores one apart: Phi(1 / sqrt 2)
    for _ in range(400):
        labels = np.arange(200) < 80
        found = auroc_interval(labels, rng.normal(size=200) + labels)
        assert found is not None
        covered += found.low <= truth <= found.high
    # 400 tries at 0.95 give 380 with a deviation of 4.4.
    assert 362 <= covered <= 398


def test_an_interval_needs_two_rows_of_each_class_and_is_a_point_without_overlap() -> None:
    assert auroc_interval(np.array([True, False, False]), np.array([0.9, 0.1, 0.2])) is None
    found = auroc_interval(np.array([True, True, False, False]), np.array([0.9, 0.8, 0.1, 0.2]))
    assert found is not None
    assert (found.low, found.high) == (1.0, 1.0)


def test_calibrated_scores_have_a_small_error_and_shifted_ones_the_shift() -> None:
    labels, scores = scored(40_000)
    assert expected_calibration_error(reliability_table(labels, scores)) < 0.015
    shifted = np.clip(scores + np.float32(0.1), 0, 1).astype(np.float32)
    assert expected_calibration_error(reliability_table(labels, shifted)) == pytest.approx(0.1, abs=0.015)


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.25, 0.5, 1.0])), min_size=1, max_size=40),
    st.integers(1, 12),
)
def test_reliability_bins_hold_every_row_once_and_never_part_equal_scores(
    rows: list[tuple[bool, float]], bins: int
) -> None:
    labels = np.array([label for label, _ in rows])
    scores = np.array([score for _, score in rows], dtype=np.float32)
    table = reliability_table(labels, scores, bins=bins)
    assert sum(each.rows for each in table) == len(rows)
    assert len(table) <= bins
    assert sum(each.rows * each.positive_share for each in table) == pytest.approx(labels.sum())
    assert all(left.high < right.low for left, right in pairwise(table))
    assert all(each.low <= each.mean_score <= each.high for each in table)


COLUMNS: dict[str, Column] = {
    "carrier": column_of(Dtype.STRING, ["AA", "DL", "AA", None, "HA", "AA"]),
    "distance": column_of(Dtype.FLOAT32, [100.0, 500.0, 499.5, None, float("nan"), 2500.0]),
    "seats": column_of(Dtype.INT64, [1, 2, 1, 2, None, 1]),
    "tags": column_of(Dtype.STRING_LIST, [(), (), (), (), (), ()]),
}


def parts(cut: Slice) -> dict[str, list[int]]:
    return {name: np.flatnonzero(mask).tolist() for name, mask in cut.parts(COLUMNS)}


def test_a_slice_has_a_part_for_each_value_and_one_for_nulls() -> None:
    assert parts(Slice("carrier")) == {"AA": [0, 2, 5], "DL": [1], "HA": [4], NULL: [3]}
    assert parts(Slice("seats")) == {"1": [0, 2, 5], "2": [1, 3], NULL: [4]}


def test_named_values_leave_the_rest_together() -> None:
    assert parts(Slice("by carrier", "carrier", values=("DL", "AA"))) == {
        "DL": [1],
        "AA": [0, 2, 5],
        OTHER: [4],
        NULL: [3],
    }


def test_edges_cut_ranges_that_hold_their_lower_end() -> None:
    assert parts(Slice("distance", edges=(100.0, 500.0))) == {
        "100 to 500": [0, 2],
        "500 and above": [1, 5],
        "(not a number)": [4],
        NULL: [3],
    }


def test_rare_values_beyond_the_bound_are_told_together() -> None:
    names = [f"v{number:03}" for number in range(VALUES_MAX + 10)]
    column = column_of(Dtype.STRING, [*names, *names[:VALUES_MAX]])
    found = dict(Slice("many").parts({"many": column}))
    assert len(found) == VALUES_MAX + 1
    assert int(found[OTHER].sum()) == 10


@pytest.mark.parametrize("cut", [Slice("carrier"), Slice("distance", edges=(300.0,)), Slice("seats", values=(2,))])
def test_the_parts_of_a_slice_are_all_rows_once(cut: Slice) -> None:
    assert sorted(row for rows in parts(cut).values() for row in rows) == list(range(6))


@pytest.mark.parametrize(
    ("cut", "said"),
    [
        (Slice("gone"), "none of: carrier"),
        (Slice("carrier", edges=(1.0,)), "has edges"),
        (Slice("tags"), "cannot be cut"),
    ],
)
def test_a_slice_that_cannot_be_cut_is_refused(cut: Slice, said: str) -> None:
    with pytest.raises(InvalidDefinition, match=said):
        parts(cut)


def test_a_slice_is_declared_with_values_or_edges_in_order() -> None:
    with pytest.raises(InvalidDefinition, match="not both"):
        Slice("a", values=("x",), edges=(1.0,))
    with pytest.raises(InvalidDefinition, match="must increase"):
        Slice("a", edges=(2.0, 1.0))
    with pytest.raises(InvalidDefinition, match="each once"):
        Slice("a", values=("x", "x"))


def test_each_part_is_judged_as_if_it_were_alone() -> None:
    labels, scores = scored(300)
    column = column_of(Dtype.STRING, ["even" if row % 2 == 0 else "odd" for row in range(300)])
    found = evaluate_holdout(labels, scores, {"parity": column}, [Slice("parity")])
    assert found.slices["parity"]["odd"] == evaluate_scores(labels[1::2], scores[1::2])
    assert found.overall == evaluate_scores(labels, scores)
    data = found.to_json()
    assert data["metrics"]["auroc_low"] < data["metrics"]["auroc"] < data["metrics"]["auroc_high"]
    assert data["slices"]["parity"]["even"]["rows"] == 150
    assert sum(each["rows"] for each in data["reliability"]) == 300


def test_a_part_of_one_class_has_no_auroc() -> None:
    found = evaluate_scores(np.zeros(3, np.bool_), np.array([0.1, 0.2, 0.3], np.float32))
    assert (found.evaluation.auroc, found.auroc_interval) == (None, None)
    assert found.to_json()["auroc_low"] is None
