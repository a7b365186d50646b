"""Training over a small offline store in memory: what the learner is shown, what the bundle says, what is refused."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from skewless.adapters.model_scoring import run_model
from skewless.bundles.bundle import Bundle, load_bundle
from skewless.bundles.model_files import ModelFiles, ModelFormat
from skewless.canonical_json import digest
from skewless.dtypes import Column, Dtype, column_of
from skewless.errors import InvalidDefinition
from skewless.features.contract import FeatureContract, FeatureField, JoinKey, RequestField, ViewRead
from skewless.features.frame import FeatureFrame
from skewless.statistics.variable import Part
from skewless.timestamps import DAY_US, HOUR_US
from skewless.training.assembly import Training
from skewless.training.calibration import CalibrationKind
from skewless.training.definition import BinaryLabels, BoostedTrees, ExampleTable, ModelDefinition, Period
from skewless.training.evaluate_bundle import evaluate_bundle
from skewless.training.examples import Examples
from skewless.training.facts import facts_of
from skewless.training.gates import MetricGate, SliceGate, gates_of
from skewless.training.imported import ImportedModel, ImportParts, import_model
from skewless.training.learner import TrainedModel, TrainingData, TrainingFunction, classifier_signature
from skewless.training.slices import Slice
from skewless.training.train import TrainingParts, train
from skewless.training.weights import RowWeights
from skewless.transforms import Transform, column

SEED = 23
DAYS = 40
PER_DAY = 25
OUTCOME_US = 36 * HOUR_US
CONTRACT = FeatureContract(
    "shop",
    (ViewRead("weather", (JoinKey("station", Dtype.STRING),), 0, (FeatureField("temp", Dtype.FLOAT32),)),),
    (RequestField("cars", Dtype.INT64),),
    digest("definitions of this test"),
)


def day(number: int) -> int:
    return number * DAY_US


@dataclass(slots=True)
class MemoryOffline:
    """Questions every hour or so, whose label follows the temperature; a few never get an outcome."""

    asked: list[Period] = field(default_factory=list)

    def examples(self, table: ExampleTable, contract: FeatureContract, period: Period) -> Examples:
        assert (table.path, contract) == ("examples.parquet", CONTRACT)
        self.asked.append(period)
        rng = np.random.default_rng(SEED)
        as_of = np.sort(rng.integers(day(0), day(DAYS), DAYS * PER_DAY))
        stations = rng.choice(np.array(["north", "south", "west"], dtype=object), len(as_of))
        cars = rng.integers(1, 9, len(as_of))
        labels = _temperature(as_of) + rng.normal(size=len(as_of)) > 0.3
        labelled = np.arange(len(as_of)) % 31 != 0
        chosen = (as_of >= period.start) & (as_of < period.end)
        return Examples(
            rows=int(chosen.sum()),
            keys={
                "station": column_of(Dtype.STRING, stations[chosen].tolist()),
                "cars": column_of(Dtype.INT64, cars[chosen].tolist()),
            },
            as_of=as_of[chosen],
            labels=labels[chosen],
            labelled=labelled[chosen],
            outcome_time=np.where(labelled, as_of + OUTCOME_US, -1)[chosen],
        )

    def features_at(
        self, contract: FeatureContract, keys: Mapping[str, Column], as_of: NDArray[np.int64]
    ) -> FeatureFrame:
        assert (contract, len(keys["station"])) == (CONTRACT, len(as_of))
        temp = Column(Dtype.FLOAT32, _temperature(as_of).astype(np.float32), as_of % 7 != 0)
        statuses = np.where(temp.valid, 0, 1).astype(np.uint8)
        return FeatureFrame(
            len(as_of), {"weather__temp": temp}, {"weather__temp": statuses}, {"weather": as_of - HOUR_US}
        )


def _temperature(as_of: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.sin(as_of / (3.3 * HOUR_US)) * 2.0


def logistic(weights: list[float], *, sharpness: float = 1.0) -> bytes:
    """An ONNX model: sigmoid(sharpness * weights . features) as the probability of the positive class."""
    nodes = [
        helper.make_node("MatMul", ["features", "weights"], ["odds"]),
        helper.make_node("Sigmoid", ["odds"], ["positive"]),
        helper.make_node("Sub", ["one", "positive"], ["negative"]),
        helper.make_node("Concat", ["negative", "positive"], ["probabilities"], axis=1),
    ]
    values = np.array(weights, dtype=np.float32).reshape(-1, 1) * np.float32(sharpness)
    graph = helper.make_graph(
        nodes,
        "logistic",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, len(weights)])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2])],
        [numpy_helper.from_array(values, "weights"), numpy_helper.from_array(np.ones((), np.float32), "one")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    data: bytes = made.SerializeToString()
    return data


def fit(data: TrainingData) -> TrainedModel:
    """Weights by the difference of class means: learned, so that other rows give another model."""
    weights = data.weights / data.weights.sum()
    share = (weights * data.labels).sum()
    centre = [np.average(data.tensor, axis=0, weights=weights * mask) for mask in (data.labels, ~data.labels)]
    learned = np.round(centre[0] - centre[1], 4).tolist()
    return _model(logistic(learned, sharpness=2.0), notes={"share": round(float(share), 6)})


def overconfident(data: TrainingData) -> TrainedModel:
    return _model(logistic([6.0] + [0.0] * (len(data.output_names) - 1)))


def _model(data: bytes, **facts: Any) -> TrainedModel:
    columns = onnx.load_model_from_string(data).graph.input[0].type.tensor_type.shape.dim[1].dim_value
    return TrainedModel(ModelFiles.onnx(data), classifier_signature(columns), versions={"onnx": "1"}, **facts)


def definition(learner: BoostedTrees | TrainingFunction = fit, **changes: Any) -> ModelDefinition:
    made = ModelDefinition(
        name="delay",
        description="",
        feature_service="delays",
        request_fields=CONTRACT.request_fields,
        transform=Transform(
            {
                "temp": column("weather__temp", Dtype.FLOAT32).impute_mean(),
                "cars": column("cars", Dtype.INT64, nullable=False),
            }
        ),
        examples=ExampleTable("examples.parquet"),
        training=Period(day(0), day(30)),  # type: ignore[arg-type]  # plain µs
        holdout=Period(day(20), day(30)),  # type: ignore[arg-type]  # plain µs
        labels=BinaryLabels("on_time", "late"),
        learner=learner,
        slices=(Slice("station"),),
        gates=(MetricGate("auroc", at_least=0.6), SliceGate("station", "auroc", 0.1, rows_min=20)),
    )
    return replace(made, **changes)


@dataclass(slots=True)
class Watched:
    """A learner that keeps what it was shown."""

    inner: TrainingFunction
    shown: list[TrainingData] = field(default_factory=list)

    def __call__(self, data: TrainingData) -> TrainedModel:
        self.shown.append(data)
        return self.inner(data)


def run(
    folder: Path, declared: ModelDefinition, learner: TrainingFunction | None = None, told: list[str] | None = None
) -> Training:
    used = learner or declared.learner
    assert not isinstance(used, BoostedTrees)
    parts = TrainingParts(MemoryOffline(), used, run_model, code={"revision": "abc", "dirty": False})
    return train(declared, CONTRACT, parts, folder, (told if told is not None else []).append)


def trained(folder: Path, declared: ModelDefinition, **options: Any) -> tuple[Training, Bundle]:
    training = run(folder, declared, **options)
    return training, load_bundle(folder, training.digest)


def test_the_learner_never_sees_the_hold_out_while_it_is_judged(tmp_path: Path) -> None:
    watched = Watched(fit)
    training, _ = trained(tmp_path, definition(), learner=watched)
    before, everything = watched.shown
    # A label counts only once it has arrived, which takes a day and a half here.
    assert before.as_of.max() <= day(20) - OUTCOME_US
    assert day(20) < everything.as_of.max() <= day(30) - OUTCOME_US
    assert training.judgement.fitted_rows == before.rows < everything.rows == training.rows


def test_a_learner_is_given_all_that_it_needs(tmp_path: Path) -> None:
    watched = Watched(fit)
    run(tmp_path, definition(seed=99), watched)
    data = watched.shown[0]
    assert (data.output_names, data.seed, data.is_weighted) == (("temp", "cars"), 99, False)
    assert data.tensor.shape == (data.rows, 2)
    newest = data.newest(0.2)
    assert newest.sum() == pytest.approx(0.2 * data.rows, abs=2)
    assert data.as_of[newest].min() > data.as_of[~newest].max()
    for share in (0.0, 1.0):
        with pytest.raises(InvalidDefinition, match="cannot be set aside"):
            data.newest(share)


def test_the_bundle_says_where_it_came_from_and_how_good_it_is(tmp_path: Path) -> None:
    training, bundle = trained(tmp_path, definition())
    told = bundle.provenance
    assert told["learner"] == {
        "kind": "function",
        "function": f"{__name__}:fit",
        "source_digest": told["learner"]["source_digest"],
        "seed": 7,
    }
    assert len(told["learner"]["source_digest"]) == 64
    assert told["code"] == {"revision": "abc", "dirty": False}
    assert told["versions"]["onnx"] == "1"
    assert told["rows"] == training.rows
    assert told["dataset_digest"] == training.dataset.digest
    assert told["holdout"]["metrics"]["auroc"] > 0.7
    assert set(told["holdout"]["slices"]["station"]) == {"north", "south", "west"}
    assert told["conversion"]["row_and_batch_differ_by"] < 1e-6
    assert gates_of(told) == definition().gates
    assert facts_of(told).dataset == training.judgement.dataset.digest


def test_training_twice_gives_the_same_bundle(tmp_path: Path) -> None:
    first, second = (run(tmp_path / name, definition()).digest for name in ("first", "second"))
    assert first == second
    assert run(tmp_path / "other", definition(seed=8)).digest != first


def test_a_function_is_pinned_with_all_in_its_module_that_it_uses() -> None:
    first = definition(fit).learner_record()
    assert definition(overconfident).learner_record()["source_digest"] != first["source_digest"]
    assert definition(fit).learner_record() == first


def test_a_function_that_cannot_be_named_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    told: list[str] = []
    with pytest.raises(InvalidDefinition, match="is a lambda") as refused:
        run(tmp_path, definition(lambda data: fit(data)), told=told)
    assert "beside the model" in refused.value.hint
    assert told == []


def test_a_calibration_is_fitted_on_the_hold_out_judged_by_cross_fitting_and_shipped(tmp_path: Path) -> None:
    plain, _ = trained(tmp_path / "plain", definition(overconfident))
    training, bundle = trained(tmp_path / "calibrated", definition(overconfident, calibration=CalibrationKind.SIGMOID))
    before, after = plain.evaluation.overall, training.evaluation.overall
    assert after.ece < before.ece
    assert after.evaluation.log_loss < before.evaluation.log_loss
    # A sigmoid changes no order, so neither does it change the metrics of order.
    assert after.evaluation.auroc == before.evaluation.auroc
    assert after.auroc_interval == before.auroc_interval
    assert training.judgement.uncalibrated == before
    assert bundle.post.calibration == training.judgement.calibration
    assert bundle.provenance["holdout"]["calibration"]["uncalibrated"] == before.to_json()
    raw = bundle.golden.outputs["probabilities"]
    _, served = bundle.post.apply({"probabilities": raw})
    assert not np.array_equal(served, raw[:, 1])


def test_the_baseline_holds_training_columns_and_scores_of_the_hold_out(tmp_path: Path) -> None:
    training, bundle = trained(tmp_path, definition())
    assert bundle.baseline.rows == training.rows
    (score,) = bundle.baseline.of(Part.SCORE)
    assert sum(score.counts) == training.evaluation.overall.evaluation.rows


def test_rows_for_which_the_model_has_no_probability_are_no_golden_rows(tmp_path: Path) -> None:
    _, bundle = trained(tmp_path / "raw", definition())
    _, cleaned = trained(
        tmp_path / "cleaned",
        definition(
            transform=Transform(
                {
                    "temp": column("weather__temp", Dtype.FLOAT32).clean(-50.0, 50.0).impute_mean(),
                    "cars": column("cars", Dtype.INT64, nullable=False).clip(0, 100),
                }
            )
        ),
    )
    assert bundle.provenance["golden"]["left_out"] > 0
    assert np.isfinite(bundle.golden.outputs["probabilities"]).all()
    assert len(bundle.golden.reasons) == bundle.golden.rows > 1
    assert cleaned.provenance["golden"]["left_out"] == 0


def test_weights_reach_the_learner_and_scale_to_a_mean_of_one(tmp_path: Path) -> None:
    watched = Watched(fit)
    run(tmp_path, definition(weights=RowWeights(half_life_days=5.0, positive=2.0, column="cars")), watched)
    weights = watched.shown[-1].weights
    assert weights.mean() == pytest.approx(1.0)
    assert weights[-50:].mean() > 4 * weights[:50].mean()


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (RowWeights(column="weather__temp"), "is null in training row|is -"),
        (RowWeights(column="station"), "no numeric column"),
        (RowWeights(column="gone"), "no numeric column"),
    ],
)
def test_weights_that_are_none_are_refused(tmp_path: Path, weights: RowWeights, said: str) -> None:
    with pytest.raises(InvalidDefinition, match=said):
        run(tmp_path, definition(weights=weights))


def _nothing(data: TrainingData) -> Any:
    return None


def _too_narrow(data: TrainingData) -> TrainedModel:
    return _model(logistic([1.0]))


def _unbounded(data: TrainingData) -> TrainedModel:
    model = onnx.load_model_from_string(logistic([9.0, 9.0]))
    del model.graph.node[:]
    model.graph.node.extend(
        [
            helper.make_node("MatMul", ["features", "weights"], ["positive"]),
            helper.make_node("Sub", ["one", "positive"], ["negative"]),
            helper.make_node("Concat", ["negative", "positive"], ["probabilities"], axis=1),
        ]
    )
    return _model(model.SerializeToString())


def _misnamed(data: TrainingData) -> TrainedModel:
    made = _model(logistic([1.0, 1.0]))
    return replace(made, signature=replace(made.signature, input_name="x"))


def _unscored(data: TrainingData) -> TrainedModel:
    files = ModelFiles(ModelFormat.XGBOOST_JSON, {"xgboost.json": b"{}"}, "xgboost.json")
    return TrainedModel(files, classifier_signature(2))


@pytest.mark.parametrize(
    ("learner", "said"),
    [
        (_nothing, "returned NoneType"),
        (_too_narrow, "takes 1 columns, the transform gives 2"),
        (_unbounded, "which are no probabilities"),
        (_misnamed, "its signature says"),
        (_unscored, "cannot be run from its files"),
    ],
)
def test_a_learner_that_gives_no_usable_model_is_refused(tmp_path: Path, learner: TrainingFunction, said: str) -> None:
    with pytest.raises(InvalidDefinition, match=said):
        run(tmp_path, definition(), learner)


def test_a_model_of_another_format_is_judged_by_its_own_scorer(tmp_path: Path) -> None:
    from skewless.training.model_checks import check_model

    model = replace(_unscored_data(), score=lambda tensor: np.full((len(tensor), 2), 0.5, np.float32))
    check_model(model, 2)
    assert run_model(model)(np.zeros((3, 2), np.float32)).shape == (3, 2)


def _unscored_data() -> TrainedModel:
    files = ModelFiles(ModelFormat.XGBOOST_JSON, {"xgboost.json": b"{}"}, "xgboost.json")
    return TrainedModel(files, classifier_signature(2))


def test_examples_of_one_class_teach_nothing(tmp_path: Path) -> None:
    with pytest.raises(InvalidDefinition, match="cannot teach or test"):
        run(tmp_path, definition(training=Period(day(0), day(2)), holdout=Period(day(1), day(2))))  # type: ignore[arg-type]  # plain µs


def test_a_gate_about_a_slice_that_is_not_declared_is_refused() -> None:
    with pytest.raises(InvalidDefinition, match="slice `station`; declared: none"):
        definition(slices=())


def test_a_bundle_is_judged_on_a_later_hold_out_but_never_on_rows_it_has_seen(tmp_path: Path) -> None:
    training, bundle = trained(tmp_path, definition())
    later = definition(training=Period(day(0), day(40)), holdout=Period(day(30), day(40)))  # type: ignore[arg-type]  # plain µs

    def scorer(found: Bundle) -> Any:
        return run_model(TrainedModel(found.read_model(), found.signature))

    offline = MemoryOffline()
    found = evaluate_bundle(bundle, later, offline, scorer, lambda _: None)
    assert offline.asked == [later.holdout]
    assert found.evaluation.overall.evaluation.rows > 200
    assert found.slices_left_out == ()
    assert found.dataset.digest == run(tmp_path / "later", later).judgement.dataset.digest
    assert found.dataset.digest != training.judgement.dataset.digest
    with pytest.raises(InvalidDefinition, match="was trained on what was known by"):
        evaluate_bundle(bundle, definition(), offline, scorer, lambda _: None)


def imported(folder: Path, names: tuple[str, ...], columns: int = 2) -> Training:
    def read(count: int) -> ImportedModel:
        assert count == 2
        return ImportedModel(_model(logistic([2.0] * columns)), {"kind": "mlflow", "flavor": "onnx"}, names)

    parts = ImportParts(MemoryOffline(), run_model)
    return import_model(read, definition(), CONTRACT, parts, folder, lambda _: None)


@pytest.mark.parametrize("names", [(), ("temp", "cars")])
def test_an_imported_model_becomes_a_bundle_that_says_so(tmp_path: Path, names: tuple[str, ...]) -> None:
    training = imported(tmp_path, names)
    bundle = load_bundle(tmp_path, training.digest)
    assert bundle.provenance["learner"] == {"kind": "mlflow", "flavor": "onnx"}
    assert bundle.provenance["holdout"]["rows_fitted"] is None
    assert "fitted elsewhere" in bundle.provenance["holdout"]["note"]


@pytest.mark.parametrize(("names", "said"), [(("cars", "temp"), "input 0 is `cars`"), (("temp", "late"), "input 1")])
def test_an_imported_model_of_other_columns_is_refused(tmp_path: Path, names: tuple[str, ...], said: str) -> None:
    with pytest.raises(InvalidDefinition, match=said):
        imported(tmp_path, names)
