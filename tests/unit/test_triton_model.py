"""What is written for Triton, read back by its own message definition: every format on every target that runs it."""

import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2

from skewless.bundles.model_files import ModelFiles, ModelFormat
from skewless.bundles.serving_profile import (
    Precision,
    QueuePolicy,
    ServingProfile,
    Target,
    TimeoutAction,
    VersionPolicy,
)
from skewless.bundles.triton_model import BACKENDS, targets_of, triton_files
from skewless.errors import BundleRefused
from skewless.serving.ports import ModelSignature

SIGNATURE = ModelSignature("features", 3, (("probabilities", 2), ("score", 1)))
ROWS = np.array([[1.0, 2.0, 3.0], [4.0, np.nan, -0.0]], dtype=np.float32)
DOCUMENT = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
GPU = (Target.GPU_ONNXRUNTIME, Target.GPU_TENSORRT)
RUNNABLE = [(target, form) for target, formats in BACKENDS.items() for form in formats]
everywhere = pytest.mark.parametrize(("target", "form"), RUNNABLE)


def model(form: ModelFormat, **beside: bytes) -> ModelFiles:
    return ModelFiles(form, {"entry.py": b"content", **beside}, "entry.py")


def written(
    target: Target,
    form: ModelFormat = ModelFormat.ONNX,
    profile: ServingProfile | None = None,
    signature: ModelSignature = SIGNATURE,
) -> dict[str, bytes]:
    return triton_files("bundle_x", model(form), signature, profile or ServingProfile(), ROWS, target)


def config(files: dict[str, bytes]) -> model_config_pb2.ModelConfig:
    """The configuration as Triton reads it; a field or a value that Triton does not know fails."""
    return text_format.Parse(files["config.pbtxt"].decode(), model_config_pb2.ModelConfig())


@everywhere
def test_name_tensors_and_batches_are_the_same_on_every_target(target: Target, form: ModelFormat) -> None:
    read = config(written(target, form, ServingProfile(batch_rows_max=2_048)))
    assert read.name == "bundle_x"
    assert read.max_batch_size == 2_048
    assert [(each.name, list(each.dims)) for each in read.input] == [("features", [3])]
    assert [(each.name, list(each.dims)) for each in read.output] == [("probabilities", [2]), ("score", [1])]
    assert {each.data_type for each in (*read.input, *read.output)} == {model_config_pb2.TYPE_FP32}
    assert read.HasField("dynamic_batching")


@everywhere
def test_the_backend_finds_the_model_under_the_name_it_looks_for(target: Target, form: ModelFormat) -> None:
    files = written(target, form)
    expected = {
        ModelFormat.ONNX: ("python" if target is Target.EMBEDDED_CPU else "onnxruntime", "1/model.onnx"),
        ModelFormat.TENSORRT_PLAN: ("tensorrt", "1/model.plan"),
        ModelFormat.TORCHSCRIPT: ("pytorch", "1/model.pt"),
        ModelFormat.TENSORFLOW_SAVEDMODEL: ("tensorflow", "1/model.savedmodel/saved_model.pb"),
        ModelFormat.XGBOOST_JSON: ("fil", "1/xgboost.json"),
        ModelFormat.XGBOOST_UBJ: ("fil", "1/xgboost.ubj"),
        ModelFormat.LIGHTGBM_TEXT: ("fil", "1/model.txt"),
        ModelFormat.PYTHON: ("python", "1/python/entry.py"),
    }
    backend, path = expected[form]
    assert config(files).backend == backend
    assert files[path] == b"content"
    assert ("1/model.py" in files) == (backend == "python")


@everywhere
def test_instances_run_where_the_target_computes(target: Target, form: ModelFormat) -> None:
    (group,) = config(written(target, form, ServingProfile(instances=3))).instance_group
    cpu = model_config_pb2.ModelInstanceGroup.KIND_CPU
    assert group.kind == (cpu if target is Target.EMBEDDED_CPU else model_config_pb2.ModelInstanceGroup.KIND_GPU)
    assert group.count == 3


@everywhere
def test_a_loading_model_is_warmed_up_with_golden_rows(target: Target, form: ModelFormat) -> None:
    files = written(target, form, ServingProfile(warm_up_rows=(1, 64, 7)))
    read = config(files)
    assert [each.batch_size for each in read.model_warmup] == [1, 64, 7]
    warmed = []
    for sample in read.model_warmup:
        tensor = sample.inputs["features"]
        assert list(tensor.dims) == [3]
        warmed.append(files[f"warmup/{tensor.input_data_file}"])
    assert warmed == [ROWS[0].tobytes(), ROWS[1].tobytes(), ROWS[0].tobytes()]


def test_a_profile_without_warm_up_writes_none() -> None:
    files = written(Target.EMBEDDED_CPU, profile=ServingProfile(warm_up_rows=()))
    assert not config(files).model_warmup
    assert not [path for path in files if path.startswith("warmup/")]


@pytest.mark.parametrize("target", Target)
def test_batching_waits_only_as_the_profile_says(target: Target) -> None:
    batching = config(written(target)).dynamic_batching
    assert batching.max_queue_delay_microseconds == 0
    assert not batching.preferred_batch_size
    profile = ServingProfile(max_queue_delay_us=250, preferred_batch_rows=(64, 128))
    batching = config(written(target, profile=profile)).dynamic_batching
    assert batching.max_queue_delay_microseconds == 250
    assert list(batching.preferred_batch_size) == [64, 128]


def test_there_is_no_queue_policy_with_which_triton_would_sleep_on_a_request() -> None:
    asked = ServingProfile(queue=QueuePolicy(5_000))
    for target, profile in ((Target.EMBEDDED_CPU, asked), *((each, ServingProfile()) for each in Target)):
        batching = config(written(target, profile=profile)).dynamic_batching
        assert not batching.HasField("default_queue_policy")
        assert batching.priority_levels == 0
    text = written(Target.EMBEDDED_CPU, profile=asked)["config.pbtxt"].decode()
    assert "# The profile's queue policy is left out here" in text


@pytest.mark.parametrize("target", GPU)
def test_a_gpu_server_gets_the_queue_policy_that_a_profile_asks_for(target: Target) -> None:
    policy = QueuePolicy(5_000, TimeoutAction.DELAY, allow_override=True, requests_max=64)
    files = written(target, profile=ServingProfile(queue=policy))
    read = config(files).dynamic_batching.default_queue_policy
    assert read.timeout_action == model_config_pb2.ModelQueuePolicy.DELAY
    assert read.default_timeout_microseconds == 5_000
    assert read.allow_timeout_override
    assert read.max_queue_size == 64
    assert "can sleep for up to 500 ms" in files["config.pbtxt"].decode()


@pytest.mark.parametrize("policy", VersionPolicy)
def test_version_one_is_served_under_every_policy(policy: VersionPolicy) -> None:
    read = config(written(Target.EMBEDDED_CPU, profile=ServingProfile(version_policy=policy))).version_policy
    assert read.WhichOneof("policy_choice") == policy
    assert read.latest.num_versions == (policy is VersionPolicy.LATEST)
    assert list(read.specific.versions) == ([1] if policy is VersionPolicy.SPECIFIC else [])


def test_an_override_holds_on_its_target_alone() -> None:
    profile = ServingProfile(overrides={Target.GPU_TENSORRT: ServingProfile(batch_rows_max=4_096)})
    sizes = {target: config(written(target, profile=profile)).max_batch_size for target in Target}
    assert sizes == {Target.EMBEDDED_CPU: 1_024, Target.GPU_ONNXRUNTIME: 1_024, Target.GPU_TENSORRT: 4_096}


def test_onnx_runs_in_tensorrt_with_one_engine_for_all_batches() -> None:
    profile = ServingProfile(precision=Precision.FP16, output_tolerance=0.01, batch_rows_max=2_048)
    read = config(written(Target.GPU_TENSORRT, profile=profile))
    (accelerator,) = read.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.name == "tensorrt"
    assert dict(accelerator.parameters) == {
        "precision_mode": "FP16",
        "trt_profile_min_shapes": "features:1x3",
        "trt_profile_opt_shapes": "features:64x3",
        "trt_profile_max_shapes": "features:2048x3",
    }
    assert not config(written(Target.GPU_ONNXRUNTIME, profile=profile)).HasField("optimization")


@pytest.mark.parametrize("target", GPU)
@pytest.mark.parametrize(("columns", "classifier"), [(1, "false"), (2, "true"), (5, "true")])
def test_a_forest_gives_probabilities_where_it_has_a_column_for_each_class(
    target: Target, columns: int, classifier: str
) -> None:
    signature = ModelSignature("input__0", 3, (("output__0", columns),))
    read = config(written(target, ModelFormat.LIGHTGBM_TEXT, signature=signature)).parameters
    assert {key: value.string_value for key, value in read.items()} == {
        "model_type": "lightgbm",
        "output_class": classifier,
        "is_classifier": classifier,
        "predict_proba": classifier,
        "threshold": "0.5",
    }


@pytest.mark.parametrize("form", list(ModelFormat))
def test_a_target_that_cannot_run_a_format_says_what_it_runs_and_which_target_can(form: ModelFormat) -> None:
    assert targets_of(form)
    for target in Target:
        if target in targets_of(form):
            written(target, form)
            continue
        with pytest.raises(BundleRefused) as caught:
            written(target, form)
        assert f"target `{target}` cannot run a model of format `{form}`; it runs " in caught.value.message
        assert all(f"`{other}`" in caught.value.hint for other in targets_of(form))


def test_the_embedded_target_runs_onnx_and_python_and_nothing_else() -> None:
    assert BACKENDS[Target.EMBEDDED_CPU].keys() == {ModelFormat.ONNX, ModelFormat.PYTHON}


def test_files_beside_the_entry_keep_their_place() -> None:
    beside = {"weights/0.bin": b"w", "side.py": b"s"}
    onnx = triton_files(
        "x", model(ModelFormat.ONNX, **beside), SIGNATURE, ServingProfile(), ROWS, Target.GPU_ONNXRUNTIME
    )
    assert (onnx["1/weights/0.bin"], onnx["1/side.py"]) == (b"w", b"s")
    python = triton_files(
        "x", model(ModelFormat.PYTHON, **beside), SIGNATURE, ServingProfile(), ROWS, Target.EMBEDDED_CPU
    )
    assert (python["1/python/weights/0.bin"], python["1/python/side.py"]) == (b"w", b"s")
    assert b"class TritonPythonModel" in python["1/model.py"]


@pytest.mark.parametrize("name", ["model.py", "model.onnx", "skewless_tensors.py"])
def test_a_file_that_would_take_the_place_of_another_is_refused(name: str) -> None:
    with pytest.raises(BundleRefused, match=f"`{name}` would take the place"):
        triton_files(
            "x", model(ModelFormat.ONNX, **{name: b""}), SIGNATURE, ServingProfile(), ROWS, Target.EMBEDDED_CPU
        )


@given(name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_name_of_a_tensor_reaches_triton_as_it_is(name: str) -> None:
    signature = ModelSignature(name, 3, ((name, 2),))
    read = config(written(Target.EMBEDDED_CPU, signature=signature))
    assert (read.input[0].name, read.output[0].name) == (name, name)
    assert name in read.model_warmup[0].inputs


def test_the_documentation_says_which_target_runs_which_format() -> None:
    cells = {
        form: [cell.strip() != "" for cell in row.split("|")[3:6]]
        for row in DOCUMENT.splitlines()
        if row.startswith("| `") and row.count("|") == 6
        for form in re.findall(r"`(\w+)`", row.split("|")[1])
        if form in list(ModelFormat)
    }
    assert cells.keys() >= set(ModelFormat)
    for form in ModelFormat:
        assert cells[form] == [target in targets_of(form) for target in Target], form


def test_the_documentation_lists_every_field_of_the_profile() -> None:
    documented = set(re.findall(r"^\| `(\w+)` \| .* \| .* \|$", DOCUMENT, re.MULTILINE))
    assert {each.name for each in fields(ServingProfile)} <= documented


def test_the_same_bundle_is_written_the_same_every_time() -> None:
    for target, form in RUNNABLE:
        assert written(target, form) == written(target, form)
