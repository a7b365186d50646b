"""Trees read from the libraries' own files decide as the libraries do, and become ONNX that decides as they do."""

import json
from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost
from numpy.typing import NDArray

from skewless.adapters.lightgbm_trainer import DETERMINISTIC as LIGHTGBM
from skewless.adapters.onnx_runtime import OnnxModel
from skewless.adapters.tree_onnx import CONVERSION_ERROR_MAX, conversion_error, tree_onnx
from skewless.adapters.xgboost_trainer import DETERMINISTIC as XGBOOST
from skewless.errors import InvalidDefinition
from skewless.training.lightgbm_text import read_lightgbm
from skewless.training.tree_ensemble import LEAF, Tree, TreeEnsemble, floor_to_float32
from skewless.training.xgboost_json import read_xgboost

SEED = 17
COLUMNS = 5
ROWS = 3_000


def examples() -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    rng = np.random.default_rng(SEED)
    tensor = rng.normal(size=(ROWS, COLUMNS)).astype(np.float32)
    tensor[:, 3] = rng.integers(0, 4, ROWS)
    # Neighbouring float32 values, between which no float32 threshold lies.
    tensor[:, 4] = np.nextafter(np.float32(1.0), np.float32(2.0) * rng.integers(0, 2, ROWS).astype(np.float32))
    return tensor, tensor[:, 0] * tensor[:, 1] + tensor[:, 3] + 2 * (tensor[:, 4] > 1) + rng.normal(size=ROWS) > 2.5


def hard_rows(ensemble: TreeEnsemble) -> NDArray[np.float32]:
    """Rows with every threshold, its neighbours, and values that no training row had."""
    rng = np.random.default_rng(SEED)
    columns = np.concatenate([tree.column for tree in ensemble.trees])
    thresholds = np.concatenate([tree.threshold for tree in ensemble.trees])
    rows = np.zeros((2_000, ensemble.columns), dtype=np.float32)
    for column in range(ensemble.columns):
        own = np.append(thresholds[columns == column], np.float32(0))
        rows[:, column] = rng.choice(own, len(rows))
        rows[::3, column] = np.nextafter(rows[::3, column], np.float32(-np.inf))
        rows[1::3, column] = np.nextafter(rows[1::3, column], np.float32(np.inf))
        rows[rng.integers(0, len(rows), 40), column] = np.nan
        rows[rng.integers(0, len(rows), 20), column] = np.inf
        rows[rng.integers(0, len(rows), 20), column] = -np.inf
    return rows


def lightgbm_booster(**parameters: Any) -> lightgbm.Booster:
    tensor, labels = examples()
    settings = {**LIGHTGBM, "objective": "binary", "num_leaves": 15, "min_data_in_leaf": 5, "seed": 1, **parameters}
    return lightgbm.train(settings, lightgbm.Dataset(tensor, labels, params={"verbose": -1}), 40)


def xgboost_booster(rounds: int = 40, **parameters: Any) -> xgboost.Booster:
    tensor, labels = examples()
    settings = {**XGBOOST, "objective": "binary:logistic", "max_depth": 4, "seed": 1, **parameters}
    return xgboost.train(settings, xgboost.DMatrix(tensor, labels, nthread=1), rounds)


def text(booster: lightgbm.Booster) -> bytes:
    return str(booster.model_to_string()).encode()


def raw(booster: xgboost.Booster) -> bytes:
    return bytes(booster.save_raw("json"))


@pytest.mark.parametrize("missing", [{}, {"use_missing": False}])
def test_trees_of_lightgbm_are_read_as_lightgbm_runs_them(missing: dict[str, bool]) -> None:
    booster = lightgbm_booster(**missing)
    ensemble = read_lightgbm(text(booster))
    rows = hard_rows(ensemble)
    expected = np.asarray(booster.predict(rows, num_threads=1))
    assert len(ensemble.trees) == 40
    assert np.abs(ensemble.probabilities(rows)[:, 1] - expected).max() < 1e-12


def test_missing_values_go_where_lightgbm_learned_to_send_them() -> None:
    tensor, labels = examples()
    tensor[::4, 0] = np.nan
    settings = {**LIGHTGBM, "objective": "binary", "seed": 1}
    booster = lightgbm.train(settings, lightgbm.Dataset(tensor, labels, params={"verbose": -1}), 30)
    ensemble = read_lightgbm(text(booster))
    sent = [tree.missing_left[tree.column == 0] for tree in ensemble.trees]
    assert set(np.concatenate(sent).tolist()) == {False, True}
    rows = hard_rows(ensemble)
    assert np.abs(ensemble.probabilities(rows)[:, 1] - np.asarray(booster.predict(rows))).max() < 1e-12


@pytest.mark.parametrize(
    "parameters", [{}, {"base_score": 0.2}, {"num_parallel_tree": 3, "subsample": 0.5}, {"max_delta_step": 1}]
)
def test_trees_of_xgboost_are_read_as_xgboost_runs_them(parameters: dict[str, Any]) -> None:
    booster = xgboost_booster(**parameters)
    ensemble = read_xgboost(raw(booster))
    rows = hard_rows(ensemble)
    rows[~np.isfinite(rows)] = np.nan  # XGBoost's matrix refuses infinities
    expected = booster.predict(xgboost.DMatrix(rows, nthread=1))
    assert np.abs(ensemble.probabilities(rows)[:, 1] - expected).max() < 1e-6


def _ensembles() -> dict[str, TreeEnsemble]:
    return {"lightgbm": read_lightgbm(text(lightgbm_booster())), "xgboost": read_xgboost(raw(xgboost_booster()))}


@pytest.mark.parametrize("library", ["lightgbm", "xgboost"])
def test_onnx_decides_as_the_trees_do_and_the_same_for_one_row_and_many(library: str) -> None:
    ensemble = _ensembles()[library]
    data = tree_onnx(ensemble)
    rows = hard_rows(ensemble)
    assert conversion_error(data, rows, ensemble.probabilities(rows), library=library) < 1e-6
    model = OnnxModel(data)
    assert (model.input_name, model.input_columns, model.output_name) == ("features", COLUMNS, "probabilities")
    together = model.run(rows)
    alone = np.concatenate([model.run(rows[row : row + 1]) for row in range(200)])
    assert np.array_equal(alone.view(np.uint32), together[:200].view(np.uint32))
    assert tree_onnx(ensemble) == data


@pytest.mark.parametrize("parameters", [{"base_score": 0.001}, {"base_score": 0.999}])
def test_trees_whose_leaves_all_have_one_sign_keep_their_sigmoid(parameters: dict[str, float]) -> None:
    booster = xgboost_booster(rounds=1, max_depth=1, learning_rate=0.01, **parameters)
    ensemble = read_xgboost(raw(booster))
    rows = hard_rows(ensemble)
    assert conversion_error(tree_onnx(ensemble), rows, ensemble.probabilities(rows), library="XGBoost") < 1e-6


def test_a_tree_that_is_one_leaf_is_a_constant() -> None:
    booster = lightgbm_booster(min_data_in_leaf=ROWS)
    ensemble = read_lightgbm(text(booster))
    assert {len(tree) for tree in ensemble.trees} == {1}
    rows = np.zeros((3, COLUMNS), np.float32)
    expected = np.asarray(booster.predict(rows))
    assert np.abs(ensemble.probabilities(rows)[:, 1] - expected).max() < 1e-12
    assert np.abs(OnnxModel(tree_onnx(ensemble)).run(rows)[:, 1] - expected).max() < 1e-6


def test_a_conversion_that_differs_is_refused_with_its_row() -> None:
    ensemble = _ensembles()["xgboost"]
    rows = np.zeros((4, COLUMNS), np.float32)
    expected = ensemble.probabilities(rows)
    expected[2] += 10 * CONVERSION_ERROR_MAX
    with pytest.raises(InvalidDefinition, match=r"differs from XGBoost by 1\.0.e-04 in row 2"):
        conversion_error(tree_onnx(ensemble), rows, expected, library="XGBoost")


def test_thresholds_are_rounded_down_and_never_past_a_float32() -> None:
    exact = np.array([0.1, 1.0, np.nextafter(1.0, 2.0), -0.1, 1e300, -1e300, np.inf, -np.inf, 0.0])
    floored = floor_to_float32(exact)
    with np.errstate(over="ignore"):
        above = np.nextafter(floored, np.float32(np.inf)).astype(np.float64)
    assert (floored.astype(np.float64) <= exact).all()
    assert ((above > exact) | ~np.isfinite(exact)).all()


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"objective": "regression"}, "no binary classifier"),
        ({"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}, "random forest"),
        ({"linear_tree": True}, "linear leaves"),
        ({"zero_as_missing": True}, "zero for a missing value"),
    ],
)
def test_what_onnx_cannot_say_of_lightgbm_is_refused(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidDefinition, match=said):
        read_lightgbm(text(lightgbm_booster(**parameters)))


def test_a_categorical_split_of_lightgbm_is_refused_with_what_to_do() -> None:
    tensor, labels = examples()
    labels = np.isin(tensor[:, 3], [0, 2])
    rows = lightgbm.Dataset(tensor, labels, categorical_feature=[3], params={"verbose": -1})
    booster = lightgbm.train({**LIGHTGBM, "objective": "binary", "max_cat_to_onehot": 1}, rows, 3)
    with pytest.raises(InvalidDefinition, match="categorical") as refused:
        read_lightgbm(text(booster))
    assert "encode categories in the transform" in refused.value.hint


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"objective": "reg:squarederror"}, "no binary classifier"),
        ({"booster": "dart"}, "`dart` cannot be converted"),
        ({"objective": "binary:hinge"}, "no binary classifier"),
    ],
)
def test_what_onnx_cannot_say_of_xgboost_is_refused(parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidDefinition, match=said):
        read_xgboost(raw(xgboost_booster(rounds=2, **parameters)))


@pytest.mark.parametrize("data", [b"", b"{}", b"tree\n", b"[1]", b"\x80\x04", b'{"learner": {}}', b"null"])
def test_what_is_no_model_is_refused(data: bytes) -> None:
    for read in (read_lightgbm, read_xgboost):
        with pytest.raises(InvalidDefinition, match="this is no"):
            read(data)


def test_a_broken_tree_is_refused() -> None:
    learner = json.loads(raw(xgboost_booster(rounds=1)))
    tree = learner["learner"]["gradient_booster"]["model"]["trees"][0]
    tree["left_children"][0] = 0
    with pytest.raises(InvalidDefinition, match="must come after it"):
        read_xgboost(json.dumps(learner).encode())
    tree["left_children"][0] = 1
    tree["split_indices"][0] = COLUMNS
    with pytest.raises(InvalidDefinition, match=f"reads column {COLUMNS}"):
        read_xgboost(json.dumps(learner).encode())


def test_a_leaf_that_is_not_a_number_is_refused() -> None:
    leaf = np.zeros(1, np.int64)
    tree = Tree(leaf + LEAF, np.zeros(1, np.float32), leaf, leaf, np.zeros(1, np.bool_), np.array([np.nan]))
    with pytest.raises(InvalidDefinition, match="not a number"):
        TreeEnsemble(1, (tree,), 0.0, less_or_equal=True)
