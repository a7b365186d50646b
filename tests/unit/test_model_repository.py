"""The model repository: models complete or not there, the same whoever writes them, verified before, retired whole."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from harness.bundles import BuiltBundle, build_bundle, content
from skewless.bundles.bundle import write_bundle
from skewless.bundles.model_files import ModelFiles, ModelFormat
from skewless.bundles.model_repository import deploy, model_name, retire
from skewless.bundles.serving_profile import ServingProfile, Target
from skewless.errors import BundleRefused

NOW_S = 1_000_000.0
HOUR_S = 3_600.0


@pytest.fixture
def built(tmp_path: Path) -> BuiltBundle:
    return build_bundle(tmp_path / "artifacts")


def files(folder: Path) -> dict[str, bytes]:
    return {each.relative_to(folder).as_posix(): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


def aged(folder: Path, age_s: float) -> str:
    """A model's folder that was deployed so long ago; its name."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.pbtxt").write_text("")
    os.utime(folder, (NOW_S - age_s, NOW_S - age_s))
    return folder.name


def test_a_deployed_model_is_its_configuration_its_code_its_warm_up_and_the_bundles_own_file(
    built: BuiltBundle, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    name = deploy(built.folder, built.digest, models)
    assert name == model_name(built.digest) == f"bundle_{built.digest[:16]}"
    written = files(models / name)
    assert written.keys() == {
        "config.pbtxt",
        "warmup/rows_1",
        "warmup/rows_64",
        "1/model.py",
        "1/skewless_tensors.py",
        "1/model.onnx",
    }
    assert written["1/model.onnx"] == (built.folder / "model/model.onnx").read_bytes()
    assert b"class TritonPythonModel" in written["1/model.py"]
    assert f'name: "{name}"' in written["config.pbtxt"].decode()
    golden = built.bundle.golden.tensor
    assert [written["warmup/rows_1"], written["warmup/rows_64"]] == [golden[0].tobytes(), golden[1].tobytes()]


def test_a_model_is_deployed_as_its_bundles_profile_says(tmp_path: Path) -> None:
    profile = ServingProfile(instances=3, overrides={Target.GPU_ONNXRUNTIME: ServingProfile(instances=5)})
    folder = tmp_path / "bundle"
    digest = write_bundle(replace(content(), serving=profile), folder)
    for target, instances in ((Target.EMBEDDED_CPU, 3), (Target.GPU_ONNXRUNTIME, 5)):
        name = deploy(folder, digest, tmp_path / target, target=target)
        assert f"count: {instances}\n" in (tmp_path / target / name / "config.pbtxt").read_text()


def test_deploying_again_changes_no_file(built: BuiltBundle, tmp_path: Path) -> None:
    models = tmp_path / "models"
    first = deploy(built.folder, built.digest, models)
    stamp = (models / first / "config.pbtxt").stat().st_mtime_ns
    compiled = models / first / "1" / "__pycache__" / "model.cpython-311.pyc"
    compiled.parent.mkdir()
    compiled.write_bytes(b"Python leaves this when it imports a model")
    assert deploy(built.folder, built.digest, models) == first
    assert (models / first / "config.pbtxt").stat().st_mtime_ns == stamp
    assert compiled.exists()
    assert [each.name for each in models.iterdir()] == [first]


def test_processes_that_deploy_at_once_leave_one_complete_model(built: BuiltBundle, tmp_path: Path) -> None:
    models = tmp_path / "models"
    with ThreadPoolExecutor(8) as pool:
        names = set(pool.map(lambda _: deploy(built.folder, built.digest, models), range(8)))
    assert len(names) == 1
    assert [each.name for each in models.iterdir()] == list(names)
    assert len(files(models / names.pop())) == 6


def test_an_outdated_or_torn_model_is_replaced(built: BuiltBundle, tmp_path: Path) -> None:
    models = tmp_path / "models"
    name = deploy(built.folder, built.digest, models)
    expected = files(models / name)
    (models / name / "1" / "model.py").write_text("an older template")
    (models / name / "1" / "left_by_it.py").write_text("")
    deploy(built.folder, built.digest, models)
    assert files(models / name) == expected


def test_a_model_deployed_for_another_target_is_replaced(built: BuiltBundle, tmp_path: Path) -> None:
    models = tmp_path / "models"
    name = deploy(built.folder, built.digest, models)
    assert deploy(built.folder, built.digest, models, target=Target.GPU_ONNXRUNTIME) == name
    assert files(models / name).keys() == {"config.pbtxt", "warmup/rows_1", "warmup/rows_64", "1/model.onnx"}


def test_a_bundle_that_does_not_verify_is_not_deployed(built: BuiltBundle, tmp_path: Path) -> None:
    (built.folder / "model" / "model.onnx").write_bytes(b"torn")
    with pytest.raises(BundleRefused, match=r"model/model\.onnx"):
        deploy(built.folder, built.digest, tmp_path / "models")
    with pytest.raises(BundleRefused):
        deploy(built.folder, "0" * 64, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_a_bundle_that_a_target_cannot_run_is_not_deployed_there(tmp_path: Path) -> None:
    plan = ModelFiles(ModelFormat.TENSORRT_PLAN, {"model.plan": b"ftrt" + bytes(60)}, "model.plan")
    folder = tmp_path / "bundle"
    digest = write_bundle(replace(content(), model=plan), folder)
    with pytest.raises(BundleRefused, match="`embedded-cpu` cannot run a model of format `tensorrt_plan`"):
        deploy(folder, digest, tmp_path / "models")
    assert not (tmp_path / "models").exists()
    name = deploy(folder, digest, tmp_path / "models", target=Target.GPU_TENSORRT)
    assert "1/model.plan" in files(tmp_path / "models" / name)


def test_models_that_nothing_names_are_retired_once_they_are_old_enough(tmp_path: Path) -> None:
    kept = aged(tmp_path / model_name("a" * 64), 9 * HOUR_S)
    old = aged(tmp_path / model_name("b" * 64), 9 * HOUR_S)
    young = aged(tmp_path / model_name("c" * 64), HOUR_S / 2)
    assert retire(tmp_path, frozenset({kept}), older_than_s=HOUR_S, now_s=NOW_S) == (old,)
    assert {each.name for each in tmp_path.iterdir()} == {kept, young}
    assert retire(tmp_path, frozenset({kept}), older_than_s=HOUR_S, now_s=NOW_S) == ()


def test_a_model_deployed_again_is_young_again(built: BuiltBundle, tmp_path: Path) -> None:
    models = tmp_path / "models"
    name = deploy(built.folder, built.digest, models)
    os.utime(models / name, (1.0, 1.0))
    deploy(built.folder, built.digest, models)
    now_s = (models / name).stat().st_mtime
    assert retire(models, frozenset(), older_than_s=HOUR_S, now_s=now_s + 60) == ()
    assert (models / name / "1" / "model.onnx").exists()


def test_what_a_killed_deployment_left_behind_is_cleared_and_what_others_put_there_is_not(tmp_path: Path) -> None:
    aged(tmp_path / ".incoming-bundle_0123456789abcdef-77", 9 * HOUR_S)
    in_progress = aged(tmp_path / ".incoming-bundle_0123456789abcdef-78", 1)
    somebodys = aged(tmp_path / "resnet", 9 * HOUR_S)
    (tmp_path / "notes.txt").write_text("ours")
    assert retire(tmp_path, frozenset(), older_than_s=HOUR_S, now_s=NOW_S) == ()
    assert {each.name for each in tmp_path.iterdir()} == {in_progress, somebodys, "notes.txt"}


def test_retiring_from_a_folder_that_is_not_there_does_nothing(tmp_path: Path) -> None:
    assert retire(tmp_path / "models", frozenset(), older_than_s=0.0, now_s=NOW_S) == ()
    assert not (tmp_path / "models").exists()
