"""Models out of directories that MLflow itself wrote (scripts/make_mlflow_models.py), without MLflow or a pickle."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from skewless.adapters.mlflow_import import read_mlflow
from skewless.adapters.model_scoring import run_model
from skewless.bundles.model_files import ModelFormat, check_model
from skewless.errors import InvalidDefinition

MODELS = Path(__file__).parent / "mlflow_models"
COLUMNS = 3
EXPECTED: dict[str, Any] = json.loads((MODELS / "expected.json").read_text())
ROWS: NDArray[np.float32] = np.array(EXPECTED["rows"], dtype=np.float32)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A directory of the test's own, to be spoilt."""
    return Path(shutil.copytree(MODELS / "lightgbm", tmp_path / "model"))


def describe(folder: Path, change: dict[str, Any]) -> None:
    """Change the settings of the directory's flavour."""
    path = folder / "MLmodel"
    description = yaml.safe_load(path.read_text())
    description["flavors"]["lightgbm"].update(change)
    path.write_text(yaml.safe_dump(description))


@pytest.mark.parametrize(
    ("name", "library", "flavor"),
    [
        ("lightgbm", "lightgbm", "lightgbm"),
        ("xgboost_json", "xgboost", "xgboost"),
        ("xgboost_ubj", "xgboost", "xgboost"),
        ("onnx", "onnx", "onnx"),
    ],
)
def test_a_logged_model_scores_as_its_library_did(name: str, library: str, flavor: str) -> None:
    imported = read_mlflow(MODELS / name, COLUMNS)
    assert imported.model.files.format is ModelFormat.ONNX
    check_model(imported.model.files, imported.model.signature)
    outputs = run_model(imported.model)(ROWS)
    assert outputs.shape == (len(ROWS), 2)
    assert outputs[:, 1] == pytest.approx(np.array(EXPECTED[library]), abs=1e-6)
    assert imported.source["flavor"] == flavor
    assert imported.source["mlflow_version"].startswith("3.")
    assert len(imported.source["sha256"]) == 64
    assert imported.source["utc_time_created"]


def test_the_two_forms_of_xgboost_give_the_same_model() -> None:
    first, second = (read_mlflow(MODELS / name, COLUMNS).model.files for name in ("xgboost_json", "xgboost_ubj"))
    assert first == second


def test_names_of_the_inputs_are_told_where_the_model_has_them() -> None:
    assert read_mlflow(MODELS / "lightgbm", COLUMNS).input_names == ("temp", "late", "cars")
    assert read_mlflow(MODELS / "onnx", COLUMNS).input_names == ()


def test_importing_twice_gives_the_same_bytes() -> None:
    assert read_mlflow(MODELS / "onnx", COLUMNS) == read_mlflow(MODELS / "onnx", COLUMNS)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sklearn", "has the flavours sklearn; allowed: onnx, lightgbm, xgboost"),
        ("lightgbm_wrapped", "`lightgbm.sklearn.LGBMClassifier`, which MLflow keeps as a pickle"),
    ],
)
def test_what_only_a_pickle_could_bring_is_refused_with_what_to_do(name: str, said: str) -> None:
    with pytest.raises(InvalidDefinition, match=said) as refused:
        read_mlflow(MODELS / name, COLUMNS)
    assert "log the model as ONNX" in refused.value.hint


def test_a_pickle_under_the_name_of_a_text_model_is_refused(copied: Path) -> None:
    shutil.copyfile(MODELS / "sklearn" / "model.pkl", copied / "model.lgb")
    with pytest.raises(InvalidDefinition, match="no LightGBM text model"):
        read_mlflow(copied, COLUMNS)


def test_an_onnx_model_that_gives_maps_is_refused_with_how_to_export_it() -> None:
    with pytest.raises(InvalidDefinition, match="`output_probability` \\(sequence\\)") as refused:
        read_mlflow(MODELS / "onnx_maps", COLUMNS)
    assert "'zipmap': False" in refused.value.hint


@pytest.mark.parametrize("name", ["lightgbm", "xgboost_json", "onnx"])
def test_a_model_of_another_width_is_refused(name: str) -> None:
    with pytest.raises(InvalidDefinition, match=r"3 columns|of 4 columns"):
        read_mlflow(MODELS / name, 4)


@pytest.mark.parametrize("path", ["../outside.lgb", "/etc/hostname", None, 7])
def test_nothing_outside_of_the_directory_is_read(copied: Path, path: object) -> None:
    (copied.parent / "outside.lgb").write_text("tree")
    describe(copied, {"data": path})
    with pytest.raises(InvalidDefinition, match="within the directory"):
        read_mlflow(copied, COLUMNS)


def test_a_link_that_leads_out_of_the_directory_is_refused(copied: Path) -> None:
    (copied / "model.lgb").rename(copied.parent / "outside.lgb")
    (copied / "model.lgb").symlink_to(copied.parent / "outside.lgb")
    with pytest.raises(InvalidDefinition, match="leads out of the directory"):
        read_mlflow(copied, COLUMNS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "no YAML"),
        ("just words", "describes no model"),
        ("artifact_path: model", "names no flavours"),
        ("flavors: {python_function: {}}", "has the flavours none"),
        ("flavors: !!python/object/apply:os.getcwd []", "no YAML"),
    ],
)
def test_a_description_that_is_none_is_refused(copied: Path, text: str, said: str) -> None:
    (copied / "MLmodel").write_text(text)
    with pytest.raises(InvalidDefinition, match=said):
        read_mlflow(copied, COLUMNS)


def test_a_folder_without_a_description_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(InvalidDefinition, match=r"`MLmodel` of .* cannot be read") as refused:
        read_mlflow(tmp_path, COLUMNS)
    assert "the file `MLmodel`" in refused.value.hint


def test_a_missing_model_file_is_named(copied: Path) -> None:
    (copied / "model.lgb").unlink()
    with pytest.raises(InvalidDefinition, match=r"`model\.lgb` of `model` cannot be read"):
        read_mlflow(copied, COLUMNS)
