"""Training functions of the example: boosters become models that every target runs, faithful to their libraries."""

import json

import lightgbm
import numpy as np
import pytest
import xgboost

from feature_repo.models.flight_delay_lightgbm import flight_delay_lightgbm
from feature_repo.models.flight_delay_torch import flight_delay_torch
from feature_repo.models.flight_delay_xgboost import flight_delay_xgboost
from skewless.adapters import lightgbm_trainer, xgboost_trainer
from skewless.adapters.declared_learners import learner_of
from skewless.adapters.model_latency import measure_latency
from skewless.adapters.model_scoring import run_model
from skewless.bundles.model_files import ModelFormat, check_model
from skewless.errors import InvalidDefinition
from skewless.training.definition import ModelDefinition
from skewless.training.evaluation import auroc
from skewless.training.learner import TrainedModel, TrainingData

SEED = 31
ROWS = 4_000
NAMES = ("a", "b", "c", "d")


def data(rows: int = ROWS) -> TrainingData:
    rng = np.random.default_rng(SEED)
    tensor = rng.normal(size=(rows, len(NAMES))).astype(np.float32)
    labels = tensor[:, 0] + tensor[:, 1] * tensor[:, 2] + rng.normal(size=rows) > 0.5
    return TrainingData(tensor, labels, np.ones(rows), np.arange(rows), NAMES)


def weighted() -> TrainingData:
    plain = data()
    return TrainingData(plain.tensor, plain.labels, np.linspace(0.2, 1.8, ROWS), plain.as_of, NAMES)


def files(model: TrainedModel) -> bytes:
    return model.files.files[model.files.entry]


each_booster = pytest.mark.parametrize(
    "definition", [flight_delay_lightgbm, flight_delay_xgboost], ids=["lightgbm", "xgboost"]
)


@each_booster
def test_a_training_function_of_the_example_gives_a_faithful_onnx_model(definition: ModelDefinition) -> None:
    model = learner_of(definition)(data())
    assert model.files.format is ModelFormat.ONNX
    check_model(model.files, model.signature)
    assert 0.0 <= model.notes["conversion_error_max"] < 1e-6
    assert model.notes["library"] in definition.name
    found = auroc(data().labels, run_model(model)(data().tensor)[:, 1])
    assert found is not None
    assert found > 0.8


@each_booster
def test_a_training_function_of_the_example_gives_the_same_bytes_twice(definition: ModelDefinition) -> None:
    fit = learner_of(definition)
    assert files(fit(data())) == files(fit(data()))
    assert files(fit(weighted())) != files(fit(data()))


@each_booster
def test_a_row_scores_the_same_alone_and_in_a_batch(definition: ModelDefinition) -> None:
    run = run_model(learner_of(definition)(data()))
    together = run(data().tensor)
    alone = np.concatenate([run(data().tensor[row : row + 1]) for row in range(300)])
    assert np.array_equal(alone.view(np.uint32), together[:300].view(np.uint32))


def test_a_booster_that_stopped_early_ships_its_best_trees_only() -> None:
    rows = data()
    newest = rows.newest(0.25)
    booster = xgboost.train(
        {**xgboost_trainer.DETERMINISTIC, "objective": "binary:logistic"},
        xgboost_trainer.matrix(rows, ~newest),
        200,
        evals=[(xgboost_trainer.matrix(rows, newest), "newest")],
        early_stopping_rounds=3,
        verbose_eval=False,
    )
    model = xgboost_trainer.to_onnx(booster, rows)
    assert model.notes["trees"] == booster.best_iteration + 1 < booster.num_boosted_rounds()


def test_boosters_in_their_own_form_are_for_the_fil_backend() -> None:
    rows = data()
    light = lightgbm.train({**lightgbm_trainer.DETERMINISTIC, "objective": "binary"}, lightgbm_trainer.dataset(rows), 5)
    extreme = xgboost.train(
        {**xgboost_trainer.DETERMINISTIC, "objective": "binary:logistic"}, xgboost_trainer.matrix(rows), 5
    )
    for model, form in (
        (lightgbm_trainer.to_text(light, rows), ModelFormat.LIGHTGBM_TEXT),
        (xgboost_trainer.to_json(extreme, rows), ModelFormat.XGBOOST_JSON),
    ):
        assert model.files.format is form
        check_model(model.files, model.signature)
        outputs = run_model(model)(rows.tensor)
        assert outputs.shape == (ROWS, 2)
        assert outputs.sum(axis=1) == pytest.approx(np.ones(ROWS), abs=1e-6)
    assert (
        json.loads(files(xgboost_trainer.to_json(extreme, rows)))["learner"]["objective"]["name"] == "binary:logistic"
    )


def test_the_binary_form_of_xgboost_becomes_its_json() -> None:
    booster = xgboost.train(
        {**xgboost_trainer.DETERMINISTIC, "objective": "binary:logistic"}, xgboost_trainer.matrix(data()), 3
    )
    assert xgboost_trainer.json_of(bytes(booster.save_raw("ubj"))) == bytes(booster.save_raw("json"))
    with pytest.raises(InvalidDefinition, match="XGBoost cannot read the model"):
        xgboost_trainer.json_of(b"{L nonsense")


def test_without_pytorch_its_example_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(InvalidDefinition, match="needs PyTorch") as refused:
        learner_of(flight_delay_torch)(data())
    assert "pip install torch" in refused.value.hint


def test_latencies_of_two_models_are_measured_in_turns_of_one_run() -> None:
    slow_calls: list[int] = []

    def slow(
        tensor: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        slow_calls.append(len(tensor))
        return np.sort(np.tile(tensor, (200, 1)), axis=0)

    run = run_model(learner_of(flight_delay_xgboost)(data(500)))
    tensor = data(50).tensor
    found = measure_latency({"fast": (run, tensor), "slow": (slow, tensor)}, 64, calls=60)
    assert {each.calls for each in found.values()} == {60}
    assert set(slow_calls) == {64}
    assert found["fast"].rows == 64
    assert 0.0 < found["fast"].p50_ms <= found["fast"].p99_ms
    assert found["fast"].p50_ms < found["slow"].p50_ms
    with pytest.raises(InvalidDefinition, match="no golden row"):
        measure_latency({"fast": (run, tensor[:0])}, 64)
