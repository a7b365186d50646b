"""The trained and exported model: reproducible, faithful to scikit-learn, and equal for one row and many."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from skewless.adapters import tree_onnx
from skewless.adapters.model_scoring import run_model
from skewless.adapters.onnx_runtime import OnnxModel
from skewless.adapters.sklearn_trainer import train
from skewless.adapters.tree_onnx import CONVERSION_ERROR_MAX
from skewless.errors import BundleRefused, InvalidDefinition
from skewless.training.definition import BoostedTrees
from skewless.training.evaluation import auroc
from skewless.training.learner import TrainedModel, TrainingData

PARAMETERS = BoostedTrees(max_iter=60)
SEED = 11
COLUMNS = 12


def examples(rows: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    rng = np.random.default_rng(SEED)
    tensor = rng.normal(size=(rows, COLUMNS)).astype(np.float32)
    tensor[:, :4] = rng.integers(0, 5, (rows, 4))
    # Neighbouring float32 values, between which no float32 threshold lies.
    tensor[:, 4] = np.nextafter(np.float32(1.0), np.float32(2.0) * rng.integers(0, 2, rows).astype(np.float32))
    return tensor, tensor[:, 5] + (tensor[:, 4] > 1.0) + tensor[:, 0] * tensor[:, 6] + rng.normal(size=rows) > 1.0


def data(rows: int, told: list[str] | None = None) -> TrainingData:
    tensor, labels = examples(rows)
    names = tuple(f"column {number}" for number in range(COLUMNS))
    return TrainingData(
        tensor, labels, np.ones(rows), np.arange(rows), names, progress=(told if told is not None else []).append
    )


def onnx(model: TrainedModel) -> bytes:
    return model.files.files["model.onnx"]


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    return train(data(6_000), PARAMETERS)


def test_the_model_takes_features_and_gives_only_probabilities(trained: TrainedModel) -> None:
    model = OnnxModel(onnx(trained))
    assert (model.input_name, model.input_columns) == ("features", COLUMNS)
    assert (model.output_name, model.output_columns) == ("probabilities", 2)
    assert trained.signature.outputs == (("probabilities", 2),)
    assert trained.notes["conversion_error_max"] <= CONVERSION_ERROR_MAX
    assert {"scikit-learn", "skl2onnx"} < set(trained.versions)


def test_the_model_has_learned_something(trained: TrainedModel) -> None:
    tensor, labels = examples(6_000)
    found = auroc(labels, run_model(trained)(tensor)[:, 1])
    assert found is not None
    assert found > 0.85


def test_training_twice_gives_the_same_bytes_and_another_input_others(trained: TrainedModel) -> None:
    assert onnx(train(data(6_000), PARAMETERS)) == onnx(trained)
    assert onnx(train(data(5_999), PARAMETERS)) != onnx(trained)


def test_weights_change_what_is_learned(trained: TrainedModel) -> None:
    weighted = replace(data(6_000), weights=np.linspace(0.5, 1.5, 6_000))
    assert onnx(train(weighted, PARAMETERS)) != onnx(trained)


def test_one_row_and_batches_of_any_size_are_equal_bit_for_bit(trained: TrainedModel) -> None:
    model = OnnxModel(onnx(trained))
    tensor, _ = examples(3_000)
    together = model.run(tensor)
    for size in (1, 2, 3, 7, 16, 33, 50, 51, 100, 257, 1_024):
        apart = [model.run(tensor[start : start + size]) for start in range(0, len(tensor), size)]
        assert np.array_equal(np.concatenate(apart).view(np.uint32), together.view(np.uint32)), f"batches of {size}"


def test_values_never_seen_in_training_get_probabilities_too(trained: TrainedModel) -> None:
    rows = np.array([[np.nan] * COLUMNS, [np.inf] * COLUMNS, [-np.inf] * COLUMNS], dtype=np.float32)
    probabilities = OnnxModel(onnx(trained)).run(rows)
    assert np.isfinite(probabilities).all()
    assert probabilities.sum(axis=1) == pytest.approx([1.0, 1.0, 1.0])


def test_progress_is_told_step_by_step() -> None:
    told: list[str] = []
    train(data(500, told), BoostedTrees(max_iter=2))
    assert told[0] == "fitting boosted trees on 500 rows of 12 columns"
    assert len(told) == 3


@pytest.mark.parametrize(
    ("tensor", "labels", "said"),
    [
        (np.zeros((3, 2), np.float64), np.array([True, False, True]), "got float64"),
        (np.zeros((3, 2), np.float32), np.array([True, False]), "bool \\(2,\\)"),
        (np.zeros((2, 2), np.float32), np.array([True, True]), "both classes must occur"),
        (np.zeros((0, 2), np.float32), np.zeros(0, np.bool_), "both classes must occur"),
        (np.array([[0, 1], [2, np.nan]], np.float32), np.array([True, False]), "column `b` of training row 1 is nan"),
    ],
)
def test_examples_that_cannot_be_fitted_are_refused(
    tensor: NDArray[np.float32], labels: NDArray[np.bool_], said: str
) -> None:
    with pytest.raises(InvalidDefinition, match=said):
        TrainingData(tensor, labels, np.ones(len(labels)), np.arange(len(labels)), ("a", "b"))


def test_parameters_that_scikit_learn_refuses_are_refused() -> None:
    with pytest.raises(InvalidDefinition, match="max_leaf_nodes"):
        train(data(100), BoostedTrees(max_leaf_nodes=1))


def test_an_export_that_differs_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_onnx, "CONVERSION_ERROR_MAX", 1e-12)
    with pytest.raises(InvalidDefinition, match="differs from scikit-learn by"):
        train(data(500), BoostedTrees(max_iter=5))


def test_a_wrong_tensor_is_refused_and_an_empty_one_gives_no_rows(trained: TrainedModel) -> None:
    model = OnnxModel(onnx(trained))
    shapes_and_dtypes = [((1, COLUMNS + 1), np.float32), ((COLUMNS,), np.float32), ((1, COLUMNS), np.float64)]
    for shape, dtype in shapes_and_dtypes:
        with pytest.raises(InvalidDefinition, match="takes float32 of shape"):
            model.run(np.zeros(shape, dtype))
    assert model.run(np.zeros((0, COLUMNS), np.float32)).shape == (0, 2)


def test_bytes_that_are_no_model_are_refused() -> None:
    with pytest.raises(BundleRefused, match="cannot load the model"):
        OnnxModel(b"not a model")
