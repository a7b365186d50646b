"""`train`, and `bundle compare|evaluate|gates|import-mlflow`, as a user runs them, in one home."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from harness.feature_repository import FEAST_WARNS, MODEL, SmallRepository, small_repository
from skewless.cli.main import main

pytestmark = FEAST_WARNS
MLFLOW = Path(__file__).parent / "mlflow_models"

_MODELS = '''\
"""Answers to the question of `delay` by other learners, and by the same one a day later."""

from dataclasses import replace

from PACKAGE.models.delay import delay
from skewless.training.calibration import CalibrationKind
from skewless.training.definition import Period
from skewless.training.gates import AgainstLive, LatencyGate, MetricGate, SliceGate
from skewless.training.learner import TrainedModel, TrainingData
from skewless.training.slices import Slice

GATES = (
    MetricGate("auroc", at_least=0.1),
    AgainstLive("auroc", tolerance=0.5),
    SliceGate("station", "auroc", no_worse_than=0.9, rows_min=5),
    LatencyGate(p99_ms=1_000.0, rows=8),
)


def fit(data: TrainingData) -> TrainedModel:
    import lightgbm

    from skewless.adapters import lightgbm_trainer

    parameters = {**lightgbm_trainer.DETERMINISTIC, "objective": "binary", "num_leaves": 4, "seed": data.seed}
    return lightgbm_trainer.to_onnx(lightgbm.train(parameters, lightgbm_trainer.dataset(data), 5), data)


def broken(data: TrainingData) -> TrainedModel:
    return None


by_function = replace(
    delay,
    name="by-function",
    learner=fit,
    slices=(Slice("station"), Slice("cars", edges=(3.0, 6.0))),
    gates=GATES,
    calibration=CalibrationKind.ISOTONIC,
)
later = replace(
    by_function,
    name="later",
    training=Period.between("2024-01-01", "2024-01-10"),
    holdout=Period.between("2024-01-09", "2024-01-10"),
)
strict = replace(by_function, name="strict", gates=(MetricGate("auroc", at_least=0.99),))
elsewhere = replace(later, name="elsewhere", feature_service="network_only")
not_a_model = replace(delay, name="not-a-model", learner=broken)
'''


@dataclass(frozen=True, slots=True)
class Shop:
    """A repository with its definitions applied, and what `train` printed for each model."""

    repository: SmallRepository
    trained: dict[str, dict[str, Any]]

    def digest(self, model: str) -> str:
        return str(self.trained[model]["bundle"])


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("models")
    with small_repository(folder, "small_models", project="models") as small, pytest.MonkeyPatch.context() as patch:
        (small.folder / "models" / "others.py").write_text(_MODELS.replace("PACKAGE", small.folder.name))
        features = small.folder / "features.py"
        features.write_text(
            features.read_text() + 'network_only = FeatureService(name="network_only", features=[network])\n'
        )
        patch.setenv("SKEWLESS_HOME", str(folder / "home"))
        patch.setenv("SKEWLESS_REPO", str(small.folder))
        _json("apply")
        names = (MODEL, "by-function", "later", "strict")
        yield Shop(small, {name: _json("train", name) for name in names})


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def _json(*arguments: str, code: int = 0) -> Any:
    done = _run(*arguments, "--json")
    assert done.exit_code == code, (done.output, done.exception)
    return json.loads(done.stdout)


def _refused(code: int, *arguments: str) -> str:
    done = _run(*arguments)
    assert done.exit_code == code, (done.output, done.exception)
    return done.output


def test_a_training_function_beside_the_features_makes_a_registered_bundle(shop: Shop) -> None:
    made = shop.trained["by-function"]
    assert set(made["slices"]) == {"station", "cars"}
    assert made["calibration"]["kind"] == "isotonic"
    assert made["holdout"]["auroc_low"] <= made["holdout"]["auroc"] <= made["holdout"]["auroc_high"]
    shown = _json("bundle", "show", made["bundle"])["provenance"]
    assert shown["learner"]["function"] == f"{shop.repository.folder.name}.models.others:fit"
    assert {"lightgbm", "onnxruntime", "skewless"} < set(shown["versions"])
    assert shown["dataset_digest"] == made["dataset"]
    # The repository of this test lies in no git work tree.
    assert shown["code"] == {"revision": None, "dirty": None}


def test_training_tells_the_worst_part_of_each_slice_and_how_sure_the_metrics_are(shop: Shop) -> None:
    told = _run("train", "by-function").output
    assert re.search(r"held out: AUROC 0\.\d{4} \(0\.\d{4} to 0\.\d{4}\), Brier .*, ECE ", told)
    assert re.search(r"worst station of \d: ", told)
    assert re.search(r"worst cars of 3: ", told)
    assert shop.digest("by-function") in told


def test_a_function_that_gives_no_model_is_refused_and_registers_nothing(shop: Shop) -> None:
    assert "returned NoneType, it must return a TrainedModel" in _refused(2, "train", "not-a-model")
    assert _json("bundle", "list", "--name", "not-a-model") == []


def test_bundles_of_one_hold_out_are_compared_side_by_side(shop: Shop) -> None:
    found = _json("bundle", "compare", shop.digest(MODEL), shop.digest("by-function"))
    assert found["metrics"]["comparable"] is True
    auroc = next(row for row in found["metrics"]["rows"] if row["name"] == "auroc")
    assert auroc["better"] is (auroc["after"] > auroc["before"])
    assert found["contract"] == []
    assert found["transform"]["equal"] is True
    stated = {row["name"]: (row["before"], row["after"]) for row in found["stated"]}
    assert stated["learner.kind"] == ("BoostedTrees", "function")
    assert stated["post_processing.calibration.kind"] == ("none", "isotonic")
    told = _run("bundle", "compare", shop.digest(MODEL), shop.digest("by-function")).stdout
    for title in (
        "metrics:",
        "slices (AUROC):",
        "contract:\n  no difference",
        "transform:\n  no difference",
        "baseline:",
    ):
        assert title in told
    assert re.search(r"learner\.kind +BoostedTrees +function", told)


def test_a_bundle_compared_with_itself_has_no_difference(shop: Shop) -> None:
    told = _run("bundle", "compare", shop.digest(MODEL), shop.digest(MODEL)).stdout
    assert "one and the same" in told


def test_gates_of_a_first_bundle_pass_and_those_out_of_reach_do_not(shop: Shop) -> None:
    report = _json("bundle", "gates", shop.digest("by-function"))
    assert report["passed"] is True
    assert len(report["lines"]) == 4
    told = _refused(4, "bundle", "gates", shop.digest("strict"))
    assert re.search(r"failed  auroc ≥ 0\.99: it is 0\.\d{4}", told)
    assert "no gate is declared" in _run("bundle", "gates", shop.digest(MODEL)).stdout


def test_a_later_candidate_is_compared_with_a_live_bundle_once_that_is_judged_on_its_rows(shop: Shop) -> None:
    candidate, live = shop.digest("later"), shop.digest("by-function")
    report = _json("bundle", "gates", candidate, "--against", live, code=4)
    undecided = [line["gate"] for line in report["lines"] if line["outcome"] == "undecided"]
    assert len(undecided) == 2
    assert _json("bundle", "compare", live, candidate)["metrics"]["comparable"] is False
    evaluated = _json("bundle", "evaluate", live, "--model", "later")
    assert evaluated["dataset"] == shop.trained["later"]["holdout_dataset"]
    report = _json("bundle", "gates", candidate, "--against", live)
    assert report["passed"] is True, report
    found = _json("bundle", "compare", live, candidate)["metrics"]
    assert (found["comparable"], found["note"]) == (True, "both on the second bundle's hold-out")


def test_a_bundle_is_never_judged_on_rows_that_it_was_trained_on(shop: Shop) -> None:
    told = _refused(2, "bundle", "evaluate", shop.digest("by-function"))
    assert "was trained on what was known by" in told


def test_a_bundle_is_judged_only_where_all_that_it_reads_has_a_source(shop: Shop) -> None:
    told = _refused(2, "bundle", "evaluate", shop.digest("by-function"), "--model", "elsewhere")
    assert "reads view `leg`, which feature service `network_only` of model `elsewhere` does not have" in told


def test_gates_are_checked_against_what_an_endpoint_serves(shop: Shop) -> None:
    assert _run("endpoint", "create", "trains", "--bundle", shop.digest("by-function")).exit_code == 0
    report = _json("bundle", "gates", shop.digest("strict"), "--endpoint", "trains", code=4)
    assert [line["outcome"] for line in report["lines"]] == ["failed"]
    assert "not both" in _refused(2, "bundle", "gates", "0" * 8, "--endpoint", "a", "--against", "b")


@pytest.mark.parametrize("name", ["lightgbm", "xgboost_ubj", "onnx"])
def test_a_model_that_mlflow_logged_becomes_a_bundle(shop: Shop, name: str) -> None:
    made = _json("bundle", "import-mlflow", str(MLFLOW / name), "--model", MODEL)
    shown = _json("bundle", "show", made["bundle"])["provenance"]
    assert shown["learner"]["kind"] == "mlflow"
    assert "fitted elsewhere" in shown["holdout"]["note"]
    found = _json("bundle", "compare", shop.digest(MODEL), made["bundle"])
    assert found["transform"]["equal"] is True


def test_a_model_is_imported_with_the_transform_that_it_was_fitted_on(shop: Shop, tmp_path: Path) -> None:
    bundle = _json("bundle", "show", shop.digest("later"))
    home = shop.repository.folder.parent / "home"
    (transform,) = home.glob(f"artifacts/{shop.digest('later')}/transform.json")
    made = _json("bundle", "import-mlflow", str(MLFLOW / "onnx"), "--model", MODEL, "--transform", str(transform))
    shown = _json("bundle", "show", made["bundle"])
    assert shown["transform"]["digest"] == bundle["transform"]["digest"]


def test_a_pickle_is_never_imported(shop: Shop) -> None:
    told = _refused(2, "bundle", "import-mlflow", str(MLFLOW / "sklearn"), "--model", MODEL)
    assert "log the model as ONNX" in told
