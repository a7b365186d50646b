"""Bundles as Triton models: complete or not there, the same whoever writes them, and verified before."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.bundles import BuiltBundle, build_bundle
from skewless.bundles.model_repository import deploy, model_name, render_config
from skewless.errors import BundleRefused
from skewless.limits import MODEL_BATCH_ROWS_MAX
from skewless.serving.ports import ModelSignature


@pytest.fixture
def built(tmp_path: Path) -> BuiltBundle:
    return build_bundle(tmp_path / "artifacts")


def files(folder: Path) -> dict[str, bytes]:
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


def test_a_deployed_model_is_its_configuration_its_code_and_the_bundles_own_file(
    built: BuiltBundle, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    name = deploy(built.folder, built.digest, models)
    assert name == model_name(built.digest) == f"bundle_{built.digest[:16]}"
    written = files(models / name)
    assert written.keys() == {"config.pbtxt", "1/model.py", "1/model.onnx"}
    assert written["1/model.onnx"] == (built.folder / "model/model.onnx").read_bytes()
    assert b"class TritonPythonModel" in written["1/model.py"]


def test_the_configuration_states_tensors_batching_and_warm_up() -> None:
    text = render_config("bundle_x", ModelSignature("features", 7, (("probabilities", 2), ("score", 1))))
    assert 'name: "features" data_type: TYPE_FP32 dims: [ 7 ]' in text
    assert 'name: "probabilities" data_type: TYPE_FP32 dims: [ 2 ]' in text
    assert 'name: "score" data_type: TYPE_FP32 dims: [ 1 ]' in text
    assert f"max_batch_size: {MODEL_BATCH_ROWS_MAX}" in text
    for part in ("dynamic_batching", "KIND_CPU", "version_policy", "model_warmup"):
        assert part in text
    assert text.count("{") == text.count("}")


def test_there_is_no_queue_policy_with_which_triton_would_sleep_on_a_request() -> None:
    text = render_config("bundle_x", ModelSignature("features", 7, (("probabilities", 2),)))
    settings = "".join(line for line in text.splitlines() if not line.strip().startswith("#"))
    assert "dynamic_batching" in settings
    assert not any(word in settings for word in ("queue_policy", "priority_levels", "max_queue_size"))


def test_deploying_again_changes_nothing(built: BuiltBundle, tmp_path: Path) -> None:
    models = tmp_path / "models"
    first = deploy(built.folder, built.digest, models)
    stamp = (models / first / "config.pbtxt").stat().st_mtime_ns
    assert deploy(built.folder, built.digest, models) == first
    assert (models / first / "config.pbtxt").stat().st_mtime_ns == stamp
    assert [each.name for each in models.iterdir()] == [first]


def test_processes_that_deploy_at_once_leave_one_complete_model(built: BuiltBundle, tmp_path: Path) -> None:
    models = tmp_path / "models"
    with ThreadPoolExecutor(8) as pool:
        names = set(pool.map(lambda _: deploy(built.folder, built.digest, models), range(8)))
    assert len(names) == 1
    assert [each.name for each in models.iterdir()] == list(names)
    assert len(files(models / names.pop())) == 3


def test_an_outdated_or_torn_model_is_replaced(built: BuiltBundle, tmp_path: Path) -> None:
    models = tmp_path / "models"
    name = deploy(built.folder, built.digest, models)
    expected = files(models / name)
    (models / name / "1" / "model.py").write_text("an older template")
    deploy(built.folder, built.digest, models)
    assert files(models / name) == expected


def test_a_bundle_that_does_not_verify_is_not_deployed(built: BuiltBundle, tmp_path: Path) -> None:
    (built.folder / "model" / "model.onnx").write_bytes(b"torn")
    with pytest.raises(BundleRefused, match=r"model/model\.onnx"):
        deploy(built.folder, built.digest, tmp_path / "models")
    with pytest.raises(BundleRefused):
        deploy(built.folder, "0" * 64, tmp_path / "models")
    assert not (tmp_path / "models").exists()
