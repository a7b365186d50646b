"""A calibration never changes which row is likelier, is the same for a row in any batch, and makes scores honest."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from skewless import canonical_json
from skewless.errors import InvalidDefinition
from skewless.training.calibration import (
    KNOTS_MAX,
    NO_CALIBRATION,
    Calibration,
    CalibrationKind,
    cross_fitted,
    fit_calibration,
)
from skewless.training.evaluation import log_loss
from skewless.training.reliability import expected_calibration_error, reliability_table

SEED = 5
FITTED = (CalibrationKind.SIGMOID, CalibrationKind.ISOTONIC)
each_kind = pytest.mark.parametrize("kind", FITTED)


def overconfident(rows: int, *, seed: int = SEED) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Labels of a true probability, and scores whose log-odds are twice as far from 0, and shifted."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(size=rows)
    labels = rng.random(rows) < 1.0 / (1.0 + np.exp(-odds))
    return labels, (1.0 / (1.0 + np.exp(-(2.0 * odds + 0.7)))).astype(np.float32)


@pytest.fixture(scope="module")
def fitted() -> dict[CalibrationKind, Calibration]:
    return {kind: fit_calibration(kind, *overconfident(20_000)) for kind in FITTED}


def test_the_sigmoid_finds_the_slope_and_intercept_that_undo_the_overconfidence() -> None:
    found = fit_calibration(CalibrationKind.SIGMOID, *overconfident(60_000))
    assert found.slope == pytest.approx(0.5, abs=0.02)
    assert found.intercept == pytest.approx(-0.35, abs=0.03)


@each_kind
def test_calibrated_scores_are_closer_to_the_truth_on_rows_not_fitted(
    kind: CalibrationKind, fitted: dict[CalibrationKind, Calibration]
) -> None:
    calibration = fitted[kind]
    labels, scores = overconfident(20_000, seed=SEED + 1)
    calibrated = calibration.apply(scores)
    errors = [expected_calibration_error(reliability_table(labels, each)) for each in (scores, calibrated)]
    assert errors[1] < 0.02 < 0.08 < errors[0]
    assert log_loss(labels, calibrated) < log_loss(labels, scores)


@each_kind
@given(scores=st.lists(st.floats(0.0, 1.0, width=32), min_size=2, max_size=50))
def test_a_higher_score_is_never_calibrated_lower(
    kind: CalibrationKind, fitted: dict[CalibrationKind, Calibration], scores: list[float]
) -> None:
    calibrated = fitted[kind].apply(np.sort(np.array(scores, dtype=np.float32)))
    assert (np.diff(calibrated) >= 0.0).all()
    assert ((calibrated >= 0.0) & (calibrated <= 1.0)).all()


@each_kind
def test_a_row_is_calibrated_to_the_same_bits_alone_and_in_any_batch(
    kind: CalibrationKind, fitted: dict[CalibrationKind, Calibration]
) -> None:
    calibration = fitted[kind]
    _, scores = overconfident(1_000, seed=SEED + 2)
    together = calibration.apply(scores)
    for size in (1, 2, 3, 7, 64, 333):
        apart = [calibration.apply(scores[start : start + size]) for start in range(0, len(scores), size)]
        assert np.array_equal(np.concatenate(apart).view(np.uint32), together.view(np.uint32)), f"batches of {size}"
    strided = np.repeat(scores, 2)[::2]
    assert np.array_equal(calibration.apply(strided).view(np.uint32), together.view(np.uint32))


@each_kind
def test_the_order_of_the_rows_does_not_matter(kind: CalibrationKind) -> None:
    labels, scores = overconfident(2_000)
    order = np.random.default_rng(SEED).permutation(len(labels))
    assert fit_calibration(kind, labels, scores) == fit_calibration(kind, labels[order], scores[order])


@each_kind
def test_a_calibration_survives_json(kind: CalibrationKind) -> None:
    found = fit_calibration(kind, *overconfident(5_000))
    assert Calibration.from_json(found.to_json()) == found
    assert len(canonical_json.encode(found.to_json())) < 16_384


def test_no_calibration_gives_the_scores_themselves() -> None:
    _, scores = overconfident(10)
    assert NO_CALIBRATION.apply(scores) is scores
    assert Calibration.from_json(NO_CALIBRATION.to_json()) == NO_CALIBRATION
    assert fit_calibration(CalibrationKind.NONE, np.ones(10, np.bool_), scores) == NO_CALIBRATION


def test_an_isotonic_calibration_has_bounded_knots_and_is_never_certain() -> None:
    labels, scores = overconfident(50_000)
    found = fit_calibration(CalibrationKind.ISOTONIC, labels, scores)
    assert 10 < len(found.inputs) <= KNOTS_MAX
    separable = fit_calibration(CalibrationKind.ISOTONIC, scores > 0.5, scores)
    assert 0.0 < min(separable.outputs) < max(separable.outputs) < 1.0


def test_pooling_gives_what_scikit_learn_gives_on_the_same_groups() -> None:
    labels, scores = overconfident(50_000)
    scores = np.round(scores * 20).astype(np.float32) / np.float32(20)
    found = fit_calibration(CalibrationKind.ISOTONIC, labels, scores)
    levels = np.unique(scores)
    expected = IsotonicRegression().fit(scores, labels).predict(levels)
    # Not equal: each block of ours has one row more at the base rate, which is little among thousands.
    assert np.interp(levels, found.inputs, found.outputs) == pytest.approx(expected, abs=2e-3)


def test_a_separable_set_keeps_the_sigmoid_finite() -> None:
    scores = np.linspace(0.01, 0.99, 50, dtype=np.float32)
    found = fit_calibration(CalibrationKind.SIGMOID, scores > 0.5, scores)
    assert 0.0 < found.slope < 100.0


def test_a_score_that_says_the_opposite_is_refused() -> None:
    labels, scores = overconfident(2_000)
    with pytest.raises(InvalidDefinition, match="slope above 0"):
        fit_calibration(CalibrationKind.SIGMOID, ~labels, scores)


@each_kind
def test_labels_of_one_class_calibrate_nothing(kind: CalibrationKind) -> None:
    with pytest.raises(InvalidDefinition, match="needs both classes"):
        fit_calibration(kind, np.ones(3, np.bool_), np.array([0.1, 0.2, 0.3], np.float32))


@each_kind
def test_cross_fitting_scores_each_row_by_what_the_others_teach(kind: CalibrationKind) -> None:
    labels, scores = overconfident(1_000)
    calibrated = cross_fitted(kind, labels, scores)
    others = np.arange(1_000) >= 200
    expected = fit_calibration(kind, labels[others], scores[others]).apply(scores[~others])
    assert np.array_equal(calibrated[~others], expected)
    assert cross_fitted(CalibrationKind.NONE, labels, scores).tolist() == scores.tolist()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"kind": "beta"}, "not a calibration"),
        ([], "not a calibration"),
        ({"kind": "none", "slope": 2.0}, "no slope"),
        ({"kind": "sigmoid", "slope": 0.0, "intercept": 0.0}, "slope above 0"),
        ({"kind": "sigmoid", "slope": float("nan"), "intercept": 0.0}, "slope above 0"),
        ({"kind": "sigmoid", "slope": 1.0}, "has the fields"),
        ({"kind": "sigmoid", "slope": 1.0, "intercept": 0.0, "inputs": [0.1]}, "no knots"),
        ({"kind": "isotonic", "inputs": [0.1, 0.2], "outputs": [0.5]}, "as many of each"),
        ({"kind": "isotonic", "inputs": [], "outputs": []}, "as many of each"),
        ({"kind": "isotonic", "inputs": [0.2, 0.1], "outputs": [0.1, 0.2]}, "increasing inputs"),
        ({"kind": "isotonic", "inputs": [0.1, 0.2], "outputs": [0.3, 0.2]}, "never decrease"),
        ({"kind": "isotonic", "inputs": [0.1, 1.2], "outputs": [0.1, 0.2]}, "lie in 0 to 1"),
        ({"kind": "isotonic", "inputs": [0.1, float("nan")], "outputs": [0.1, 0.2]}, "lie in 0 to 1"),
    ],
)
def test_what_is_no_calibration_is_refused(data: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidDefinition, match=said):
        Calibration.from_json(data)


def test_saturated_scores_are_calibrated_all_the_same() -> None:
    labels, scores = overconfident(2_000)
    saturated = np.where(scores > 0.5, np.float32(1.0), np.float32(0.0))
    found = fit_calibration(CalibrationKind.SIGMOID, labels, saturated)
    above = float(labels[saturated > 0.5].mean())
    assert found.apply(np.array([1.0], np.float32))[0] == pytest.approx(above, abs=0.01)


def test_scores_that_are_all_alike_are_calibrated_to_the_base_rate() -> None:
    labels, _ = overconfident(1_000)
    same = np.full(1_000, 0.25, np.float32)
    for kind in FITTED:
        calibrated = fit_calibration(kind, labels, same).apply(same)
        assert calibrated[0] == pytest.approx(labels.mean(), abs=0.005)
