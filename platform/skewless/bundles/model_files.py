"""Model files of a bundle: their format, and whether they are what the format says.

    model/model.json      {"format", "entry"}
    model/<entry>         the file that a model server is pointed at
    model/…               what it needs beside it: external data of ONNX, variables of a SavedModel, modules of Python

Everything here reads bytes and runs nothing. What a file computes is proven by golden vectors alone.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from skewless.bundles.pickle_scan import refuse_pickles
from skewless.bundles.python_source import check_source
from skewless.bundles.torchscript import check_torchscript
from skewless.bundles.tree_models import (
    FIL_INPUT,
    FIL_OUTPUT,
    check_lightgbm_text,
    check_xgboost_json,
    check_xgboost_ubj,
)
from skewless.errors import BundleRefused, InvalidDefinition
from skewless.serving.ports import ModelSignature

RESERVED = frozenset({"model.json", "signature.json"})
"""What a bundle keeps beside the model's own files."""
FILES_MAX = 10_000
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
_SAVED_MODEL_FILES = re.compile(
    r"saved_model\.pb|fingerprint\.pb|keras_metadata\.pb|variables/variables\.(index|data-\d+-of-\d+)"
    r"|assets(\.extra)?/.+"
)


class ModelFormat(StrEnum):
    """What a model is written in; docs/models.md says which targets run it."""

    ONNX = "onnx"
    TENSORRT_PLAN = "tensorrt_plan"
    TORCHSCRIPT = "torchscript"
    TENSORFLOW_SAVEDMODEL = "tensorflow_savedmodel"
    XGBOOST_JSON = "xgboost_json"
    XGBOOST_UBJ = "xgboost_ubj"
    LIGHTGBM_TEXT = "lightgbm_text"
    PYTHON = "python"


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model's files by their path below `model/`, POSIX and relative. Raises InvalidDefinition for a bad path."""

    format: ModelFormat
    files: Mapping[str, bytes]
    entry: str

    def __post_init__(self) -> None:
        for path in self.files:
            check_path(path)
        if self.entry not in self.files:
            raise InvalidDefinition(
                f"a model's entry is `{self.entry}`, which is none of its files: {', '.join(sorted(self.files)[:10])}"
            )
        if len(self.files) > FILES_MAX:
            raise InvalidDefinition(f"a model has {len(self.files):,} files; at most {FILES_MAX:,} are kept")

    @classmethod
    def onnx(cls, data: bytes) -> "ModelFiles":
        """A model that is one ONNX file, under its usual name."""
        return cls(ModelFormat.ONNX, {"model.onnx": data}, "model.onnx")

    def to_json(self) -> dict[str, Any]:
        """Plain data of model/model.json; the files are named by the bundle's manifest."""
        return {"format": self.format.value, "entry": self.entry}

    @classmethod
    def from_json(cls, data: object, files: Mapping[str, bytes]) -> "ModelFiles":
        """The inverse of `to_json`, given the files. Raises InvalidDefinition for anything else."""
        if not isinstance(data, Mapping) or data.keys() != {"format", "entry"}:
            raise InvalidDefinition(f"a model is described by `format` and `entry`, got {data!r}")
        if data["format"] not in list(ModelFormat):
            raise InvalidDefinition(
                f"a model has format {data['format']!r}. Formats: {', '.join(ModelFormat)}",
                hint="a model of another format can be exported to ONNX",
            )
        return cls(ModelFormat(data["format"]), files, str(data["entry"]))


def check_path(path: str) -> None:
    """Raises InvalidDefinition for a path that is not relative, POSIX, of plain names, or is one of `RESERVED`."""
    if path in RESERVED:
        raise InvalidDefinition(
            f"a model's file is called `{path}`, which a bundle keeps for itself",
            hint="give the file another name, such as `xgboost.json` for XGBoost",
        )
    if not all(_NAME.fullmatch(part) for part in path.split("/")):
        raise InvalidDefinition(
            f"a model's file is called {path!r}; allowed are names of letters, digits, `.`, `_` and `-` joined by `/`"
        )


def check_model(model: ModelFiles, signature: ModelSignature) -> None:
    """Raises BundleRefused naming the file that is no such model, holds a pickle, or does not fit the signature.

    Checked against the signature is what can be read without the model's library: names that a backend prescribes,
    and the columns of tree models. Golden vectors check the rest.
    """
    rules = _RULES[model.format]
    data = model.files[model.entry]
    for path, content in model.files.items():
        if not (path == model.entry and model.format is ModelFormat.TORCHSCRIPT):
            refuse_pickles(path, content)
        if path != model.entry and not rules.beside.fullmatch(path):
            raise BundleRefused(
                f"a model of format `{model.format}` has a file `{path}` beside `{model.entry}`",
                hint="leave out what the model does not need",
            )
    if "/" in model.entry:
        raise BundleRefused(
            f"the entry of the model lies in a folder, `{model.entry}`",
            hint="put it at the top and the files that it names beside it; it is deployed under a name of the server's",
        )
    if not model.entry.endswith(rules.suffix):
        raise BundleRefused(
            f"the entry of a model of format `{model.format}` is `{model.entry}`; its name ends in `{rules.suffix}`"
        )
    rules.check_names(model.format, signature)
    rules.check(model, data, signature)


_Check = Callable[[ModelFiles, bytes, ModelSignature], None]


def _check_onnx(model: ModelFiles, data: bytes, _: ModelSignature) -> None:
    # ModelProto: ir_version = 1 (varint), graph = 7 and opset_import = 8 (messages).
    _check_message(model.entry, data, {(1, 0), (7, 2), (8, 2)}, "an ONNX model")


def _check_saved_model(model: ModelFiles, data: bytes, _: ModelSignature) -> None:
    # SavedModel: saved_model_schema_version = 1 (varint), meta_graphs = 2 (messages).
    _check_message(model.entry, data, {(1, 0), (2, 2)}, "a TensorFlow SavedModel")


def _check_plan(model: ModelFiles, data: bytes, _: ModelSignature) -> None:
    if not data.startswith(b"ftrt"):
        raise BundleRefused(
            f"`{model.entry}` is no TensorRT plan: it begins with {data[:4]!r} and not with b'ftrt'",
            hint="serialize the engine by trtexec --saveEngine, on the GPU and version that will run it",
        )


def _check_torchscript(model: ModelFiles, data: bytes, _: ModelSignature) -> None:
    check_torchscript(model.entry, data)


def _check_python(model: ModelFiles, _: bytes, __: ModelSignature) -> None:
    for path, content in model.files.items():
        if path.endswith(".py"):
            check_source(path, content, is_entry=path == model.entry)


def _check_message(path: str, data: bytes, expected: set[tuple[int, int]], what: str) -> None:
    """Raises BundleRefused where the bytes are no protobuf message with at least these (field number, wire type)."""
    try:
        missing = expected - set(_fields(data))
    except (IndexError, ValueError) as error:
        raise BundleRefused(f"`{path}` is not {what}, or is torn: {error}") from error
    if missing:
        raise BundleRefused(f"`{path}` is not {what}: it lacks field {min(missing)[0]} of its message")


def _fields(data: bytes) -> Iterator[tuple[int, int]]:
    """(number, wire type) of the fields of a protobuf message, whose content is skipped."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        if key & 7 == 0:
            _, at = _varint(data, at)
        elif key & 7 == 2:
            length, at = _varint(data, at)
            at += length
        elif key & 7 in (1, 5):
            at += 8 if key & 7 == 1 else 4
        else:
            raise ValueError(f"no field begins at byte {at - 1}")
        if at > end:
            raise ValueError(f"it ends {at - end} bytes early")
        yield key >> 3, key & 7


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError(f"no number ends at byte {at}")


def _any_names(_: ModelFormat, __: ModelSignature) -> None:
    """The names are the model's own."""


def _fil_names(form: ModelFormat, signature: ModelSignature) -> None:
    _check_names(form, signature, FIL_INPUT, (FIL_OUTPUT,))


def _torch_names(form: ModelFormat, signature: ModelSignature) -> None:
    _check_names(form, signature, "INPUT__0", tuple(f"OUTPUT__{index}" for index in range(len(signature.outputs))))


def _check_names(form: ModelFormat, signature: ModelSignature, given: str, outputs: tuple[str, ...]) -> None:
    seen = tuple(name for name, _ in signature.outputs)
    if (signature.input_name, seen) != (given, outputs):
        raise BundleRefused(
            f"the signature of a model of format `{form}` names `{signature.input_name}` → {', '.join(seen)}; its"
            f" backend knows `{given}` → {', '.join(outputs)}",
            hint="tensors carry the backend's names in the signature, and post-processing reads the output by its name",
        )


@dataclass(frozen=True, slots=True)
class _Rules:
    suffix: str
    check: _Check
    check_names: Callable[[ModelFormat, ModelSignature], None] = _any_names
    beside: re.Pattern[str] = re.compile(r"(?!)")
    """Files that may lie beside the entry; none."""


def _tree_rules(suffix: str, check: Callable[[str, bytes, ModelSignature], None]) -> _Rules:
    return _Rules(suffix, lambda model, data, signature: check(model.entry, data, signature), _fil_names)


_ANYTHING = re.compile(r".+")
_RULES = {
    ModelFormat.ONNX: _Rules(".onnx", _check_onnx, beside=_ANYTHING),
    ModelFormat.TENSORRT_PLAN: _Rules(".plan", _check_plan),
    ModelFormat.TORCHSCRIPT: _Rules(".pt", _check_torchscript, _torch_names),
    ModelFormat.TENSORFLOW_SAVEDMODEL: _Rules("saved_model.pb", _check_saved_model, beside=_SAVED_MODEL_FILES),
    ModelFormat.XGBOOST_JSON: _tree_rules(".json", check_xgboost_json),
    ModelFormat.XGBOOST_UBJ: _tree_rules(".ubj", check_xgboost_ubj),
    ModelFormat.LIGHTGBM_TEXT: _tree_rules(".txt", check_lightgbm_text),
    ModelFormat.PYTHON: _Rules(".py", _check_python, beside=_ANYTHING),
}
