"""A bundle's model as the files of a Triton model, for one target.

    config.pbtxt           tensors, batching, instances, warm-up: bundles/triton_config.py
    warmup/rows_64         the golden row, as raw float32, that the warm-up call of 64 rows repeats
    1/<file>               the model, under the name that its backend looks for

Between targets only these files differ; the model's name, its tensors and all that a gateway does stay the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from skewless.bundles.model_files import ModelFiles, ModelFormat
from skewless.bundles.serving_profile import ServingProfile, Target
from skewless.bundles.tree_models import fil_parameters
from skewless.bundles.triton_config import WARM_UP_FOLDER, ModelConfig, Symbol
from skewless.errors import BundleRefused
from skewless.serving.ports import ModelSignature

CONFIG = "config.pbtxt"
VERSION = "1"
"""A bundle is immutable, so its model has one version for ever; another bundle is another model."""
OPTIMAL_BATCH_ROWS = 64
"""Rows for which TensorRT tunes its kernels: a well-filled batch of small requests."""
_TEMPLATES = "skewless_triton"
"""The package that holds the model templates, named and not imported: the library must not depend on services."""
_TENSORS = "skewless_tensors.py"
_PYTHON_FOLDER = "python"
"""Where the files of a Python model lie, below the version, so that none of them can be taken for Triton's model.py."""


@dataclass(frozen=True, slots=True)
class _Backend:
    """How one format runs on one target."""

    name: str
    file: str
    """Path below the version's folder that the backend loads; of a folder, the path of its entry."""
    platform: str = ""
    template: str = ""
    """Folder of the model.py that runs the model in the Python backend."""
    accelerated: bool = False
    """By TensorRT, within ONNX Runtime."""
    parameters: Mapping[str, str] = field(default_factory=dict)


def _fil(model_type: str, file: str) -> _Backend:
    return _Backend("fil", file, parameters={"model_type": model_type})


_PYTHON = _Backend("python", f"{_PYTHON_FOLDER}/", template="python_model")
_GPU = {
    ModelFormat.ONNX: _Backend("onnxruntime", "model.onnx", platform="onnxruntime_onnx"),
    ModelFormat.TORCHSCRIPT: _Backend("pytorch", "model.pt", platform="pytorch_libtorch"),
    ModelFormat.TENSORFLOW_SAVEDMODEL: _Backend(
        "tensorflow", "model.savedmodel/saved_model.pb", platform="tensorflow_savedmodel"
    ),
    ModelFormat.XGBOOST_JSON: _fil("xgboost_json", "xgboost.json"),
    ModelFormat.XGBOOST_UBJ: _fil("xgboost_ubj", "xgboost.ubj"),
    ModelFormat.LIGHTGBM_TEXT: _fil("lightgbm", "model.txt"),
    ModelFormat.PYTHON: _PYTHON,
}
BACKENDS: Mapping[Target, Mapping[ModelFormat, _Backend]] = {
    Target.EMBEDDED_CPU: {
        ModelFormat.ONNX: _Backend("python", "model.onnx", template="embedded_cpu"),
        ModelFormat.PYTHON: _PYTHON,
    },
    Target.GPU_ONNXRUNTIME: _GPU,
    Target.GPU_TENSORRT: {
        **_GPU,
        ModelFormat.ONNX: _Backend("onnxruntime", "model.onnx", platform="onnxruntime_onnx", accelerated=True),
        ModelFormat.TENSORRT_PLAN: _Backend("tensorrt", "model.plan", platform="tensorrt_plan"),
    },
}
"""Which target runs which format, and by what; docs/models.md says what each needs."""


def targets_of(form: ModelFormat) -> tuple[Target, ...]:
    """The targets that run a format.

    >>> targets_of(ModelFormat.TENSORRT_PLAN)
    (<Target.GPU_TENSORRT: 'gpu-tensorrt'>,)
    """
    return tuple(target for target, formats in BACKENDS.items() if form in formats)


def check_target(form: ModelFormat, target: Target) -> None:
    """Raises BundleRefused where the target cannot run the format, saying which can."""
    if form in BACKENDS[target]:
        return
    others = " or ".join(f"`{each}`" for each in targets_of(form))
    raise BundleRefused(
        f"target `{target}` cannot run a model of format `{form}`; it runs {', '.join(BACKENDS[target])}",
        hint=f"deploy the bundle to {others}, or export the model to ONNX, which every target runs",
    )


def triton_files(
    name: str,
    model: ModelFiles,
    signature: ModelSignature,
    profile: ServingProfile,
    rows: NDArray[np.float32],
    target: Target,
) -> dict[str, bytes]:
    """Content by path below the model's folder. `rows` (≥ 1, input columns) are tensors to warm up with.

    `profile` is the bundle's; what it overrides for the target holds. Raises BundleRefused as `check_target`.
    """
    check_target(model.format, target)
    backend, held = BACKENDS[target][model.format], profile.on(target)
    warm_up = {count: f"rows_{count}" for count in held.warm_up_rows}
    config = ModelConfig(
        name=name,
        backend=backend.name,
        platform=backend.platform,
        kind=Symbol.CPU if target is Target.EMBEDDED_CPU else Symbol.GPU,
        signature=signature,
        profile=held,
        warm_up_files=warm_up,
        queue=None if target is Target.EMBEDDED_CPU else held.queue,
        parameters=_parameters(backend, model, signature),
        tensorrt=_tensorrt(signature, held) if backend.accelerated else None,
        comments=_comments(held, target),
    )
    return {
        CONFIG: config.text().encode(),
        **{f"{WARM_UP_FOLDER}/{file}": _row(rows, index) for index, file in enumerate(warm_up.values())},
        **{f"{VERSION}/{path}": data for path, data in _version_files(backend, model).items()},
    }


def _comments(profile: ServingProfile, target: Target) -> tuple[str, ...]:
    written = f"Written by Skewless for `{target}`. Another deployment writes it again: change the serving profile."
    if profile.queue is None:
        return (written,)
    if target is Target.EMBEDDED_CPU:
        return (
            written,
            "The profile's queue policy is left out here: with one, calls sleep in Triton (docs/adr/0004).",
        )
    return (written, "With a queue policy a call can sleep for up to 500 ms in Triton (docs/adr/0004).")


def _parameters(backend: _Backend, model: ModelFiles, signature: ModelSignature) -> dict[str, str]:
    if backend.name == "fil":
        return {**backend.parameters, **fil_parameters(signature)}
    if model.format is ModelFormat.PYTHON:
        # The tensors reach the model as NumPy arrays, so they have to lie in the host's memory.
        return {"entry": f"{_PYTHON_FOLDER}/{model.entry}", "FORCE_CPU_ONLY_INPUT_TENSORS": "yes"}
    return dict(backend.parameters)


def _tensorrt(signature: ModelSignature, profile: ServingProfile) -> dict[str, str]:
    """One engine for all numbers of rows: without stated shapes TensorRT builds another one for each larger batch."""

    def shape(rows: int) -> str:
        return f"{signature.input_name}:{rows}x{signature.input_columns}"

    return {
        "precision_mode": profile.precision.value,
        "trt_profile_min_shapes": shape(1),
        "trt_profile_opt_shapes": shape(OPTIMAL_BATCH_ROWS),
        "trt_profile_max_shapes": shape(profile.batch_rows_max),
    }


def _version_files(backend: _Backend, model: ModelFiles) -> dict[str, bytes]:
    """Files below the version's folder: the entry where the backend looks for it, others beside it as they are."""
    folder = backend.file.rpartition("/")[0]
    entry = f"{folder}/{model.entry}" if model.format is ModelFormat.PYTHON else backend.file
    content = {entry: model.files[model.entry]}
    for path, data in model.files.items():
        if path == model.entry:
            continue
        placed = f"{folder}/{path}" if folder else path
        if placed in (entry, "model.py", _TENSORS):
            raise BundleRefused(
                f"the model's file `{path}` would take the place of `{placed}` in Triton's model repository",
                hint="give the file another name",
            )
        content[placed] = data
    if backend.template:
        content["model.py"] = (files(_TEMPLATES) / backend.template / "model.py").read_bytes()
        content[_TENSORS] = (files(_TEMPLATES) / _TENSORS).read_bytes()
    return content


def _row(rows: NDArray[np.float32], index: int) -> bytes:
    """Another row for each warm-up call, as long as there are some, little-endian."""
    data: bytes = rows[index % len(rows)].astype("<f4").tobytes()
    return data
