"""Model files: each format accepted as its library writes it, everything else refused by a sentence that names it."""

import json
import re
from contextlib import suppress
from pathlib import Path

import lightgbm
import numpy as np
import onnx
import pytest
import xgboost
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from skewless.bundles.model_files import ModelFiles, ModelFormat, check_model
from skewless.errors import BundleRefused, InvalidDefinition
from skewless.serving.ports import ModelSignature

STORED = Path(__file__).parent / "stored_models"
COLUMNS = 5
SOURCE = b"def load(folder):\n    return lambda tensor: {'p': tensor}\n"
SAVED_MODEL = {
    path.relative_to(STORED / "saved_model").as_posix(): path.read_bytes()
    for path in (STORED / "saved_model").rglob("*")
    if path.is_file()
}


def signature(given: str = "features", columns: int = COLUMNS, **outputs: int) -> ModelSignature:
    return ModelSignature(given, columns, tuple(outputs.items()) or (("p", 2),))


def trees(columns: int = COLUMNS, **outputs: int) -> ModelSignature:
    return signature("input__0", columns, **outputs or {"output__0": 2})


def one(form: ModelFormat, entry: str, data: bytes) -> ModelFiles:
    return ModelFiles(form, {entry: data}, entry)


def onnx_model() -> bytes:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["features"], ["p"])],
        "identity",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, COLUMNS])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, [None, COLUMNS])],
    )
    data: bytes = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    return data


@pytest.fixture(scope="module")
def tree_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Small tree models by name, each as its own library writes it."""
    folder = tmp_path_factory.mktemp("trees")
    rows = np.random.default_rng(7).random((200, COLUMNS), dtype=np.float32)
    labels = {"binary": rows[:, 0] > 0.5, "classes": (rows[:, 0] * 3).astype(int), "regression": rows[:, 0].copy()}
    objectives = {"binary": "binary:logistic", "classes": "multi:softprob", "regression": "reg:squarederror"}
    for name, label in labels.items():
        data = xgboost.DMatrix(rows, label)
        settings = {"objective": objectives[name], "max_depth": 2, "nthread": 1}
        more = {"num_class": 3} if name == "classes" else {}
        booster = xgboost.train({**settings, **more}, data, 2)
        booster.save_model(folder / f"{name}.json")
        booster.save_model(folder / f"{name}.ubj")
        kind = {"binary": "binary", "classes": "multiclass", "regression": "regression"}[name]
        settings = {"objective": kind, "num_leaves": 3, "num_threads": 1, "verbose": -1, **more}
        lightgbm.train(settings, lightgbm.Dataset(rows, label.astype(float)), 2).save_model(folder / f"{name}.txt")
    linear = {"objective": "regression", "linear_tree": True, "num_threads": 1, "verbose": -1}
    lightgbm.train(linear, lightgbm.Dataset(rows, labels["regression"]), 2).save_model(folder / "linear.txt")
    booster = xgboost.train({"booster": "gblinear", "nthread": 1}, xgboost.DMatrix(rows, rows[:, 0]), 2)
    booster.save_model(folder / "linear.json")
    booster.save_model(folder / "linear.ubj")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


TREE_FORMATS = {
    ".json": ModelFormat.XGBOOST_JSON,
    ".ubj": ModelFormat.XGBOOST_UBJ,
    ".txt": ModelFormat.LIGHTGBM_TEXT,
}
each_tree_format = pytest.mark.parametrize("suffix", TREE_FORMATS)


def tree(files: dict[str, bytes], name: str, suffix: str) -> ModelFiles:
    return one(TREE_FORMATS[suffix], f"trees{suffix}", files[name + suffix])


def test_every_format_is_accepted_as_its_library_writes_it(tree_files: dict[str, bytes]) -> None:
    check_model(ModelFiles.onnx(onnx_model()), signature())
    check_model(one(ModelFormat.PYTHON, "net.py", SOURCE), signature())
    check_model(one(ModelFormat.TENSORRT_PLAN, "model.plan", b"ftrt" + bytes(100)), signature())
    torch = signature("INPUT__0", 3, OUTPUT__0=2)
    check_model(one(ModelFormat.TORCHSCRIPT, "model.pt", (STORED / "torchscript.pt").read_bytes()), torch)
    check_model(one(ModelFormat.TORCHSCRIPT, "model.pt", (STORED / "traced.pt").read_bytes()), torch)
    saved = {**SAVED_MODEL, "assets/words.txt": b"a\nb\n"}
    check_model(ModelFiles(ModelFormat.TENSORFLOW_SAVEDMODEL, saved, "saved_model.pb"), signature())
    for suffix in TREE_FORMATS:
        check_model(tree(tree_files, "binary", suffix), trees())


@each_tree_format
def test_a_tree_model_takes_the_columns_of_its_signature(tree_files: dict[str, bytes], suffix: str) -> None:
    with pytest.raises(BundleRefused, match=rf"trees{suffix}` takes 5 features, its signature says 6"):
        check_model(tree(tree_files, "binary", suffix), trees(6))


@each_tree_format
@pytest.mark.parametrize(("name", "allowed"), [("binary", {1, 2}), ("classes", {3}), ("regression", {1})])
def test_a_tree_model_gives_the_columns_of_its_signature(
    tree_files: dict[str, bytes], suffix: str, name: str, allowed: set[int]
) -> None:
    for columns in (1, 2, 3, 4):
        fitting = trees(output__0=columns)
        if columns in allowed:
            check_model(tree(tree_files, name, suffix), fitting)
        else:
            with pytest.raises(BundleRefused, match=rf"its signature says {columns}"):
                check_model(tree(tree_files, name, suffix), fitting)


def test_what_the_forest_backend_cannot_run_is_refused(tree_files: dict[str, bytes]) -> None:
    with pytest.raises(BundleRefused, match="linear leaves"):
        check_model(tree(tree_files, "linear", ".txt"), trees(output__0=1))
    for suffix in (".json", ".ubj"):
        with pytest.raises(BundleRefused, match="gblinear"):
            check_model(tree(tree_files, "linear", suffix), trees(output__0=1))
    several = json.loads(tree_files["regression.json"])
    several["learner"]["learner_model_param"]["num_target"] = "2"
    with pytest.raises(BundleRefused, match="2 targets"):
        check_model(one(ModelFormat.XGBOOST_JSON, "x.json", json.dumps(several).encode()), trees(output__0=1))


@pytest.mark.parametrize(
    ("form", "entry", "fitting"),
    [
        (ModelFormat.XGBOOST_JSON, "xgboost.json", trees()),
        (ModelFormat.XGBOOST_UBJ, "xgboost.ubj", trees()),
        (ModelFormat.LIGHTGBM_TEXT, "model.txt", trees()),
        (ModelFormat.ONNX, "model.onnx", signature()),
        (ModelFormat.TENSORRT_PLAN, "model.plan", signature()),
        (ModelFormat.TENSORFLOW_SAVEDMODEL, "saved_model.pb", signature()),
        (ModelFormat.TORCHSCRIPT, "model.pt", signature("INPUT__0", 3, OUTPUT__0=2)),
        (ModelFormat.PYTHON, "net.py", signature()),
    ],
)
@pytest.mark.parametrize("content", [b"", b"{}", b"hello there\n", b"\x00" * 64, b"PK\x03\x04torn"])
def test_another_file_than_the_format_says_is_refused_by_name(
    form: ModelFormat, entry: str, fitting: ModelSignature, content: bytes
) -> None:
    with pytest.raises(BundleRefused, match=entry):
        check_model(one(form, entry, content), fitting)


@given(cut=st.integers(0, 200))
def test_a_torn_onnx_file_is_refused_or_ends_with_a_field(cut: int) -> None:
    whole = onnx_model()
    torn = whole[: min(cut, len(whole) - 1)]
    with suppress(DecodeError):
        # Protobuf has no end mark: a cut between two fields leaves a message, at which ONNX Runtime then looks.
        if onnx.ModelProto.FromString(torn).HasField("graph"):
            return
    with pytest.raises(BundleRefused, match=r"model\.onnx"):
        check_model(ModelFiles.onnx(torn), signature())


def test_a_model_of_trees_or_torch_has_its_backends_tensor_names(tree_files: dict[str, bytes]) -> None:
    with pytest.raises(BundleRefused, match="`features` → p; its backend knows `input__0` → output__0"):
        check_model(tree(tree_files, "binary", ".txt"), signature())
    scripted = one(ModelFormat.TORCHSCRIPT, "model.pt", (STORED / "torchscript.pt").read_bytes())
    with pytest.raises(BundleRefused, match="its backend knows `INPUT__0` → OUTPUT__0, OUTPUT__1"):
        check_model(scripted, signature("INPUT__0", 3, OUTPUT__1=2, OUTPUT__0=2))


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../model.onnx", "a/../b", "a//b", "a/", ".hidden", "a\\b", "a b", "ü.onnx", "a\nb"]
)
def test_a_path_that_could_lead_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(InvalidDefinition, match="a model's file is called"):
        ModelFiles(ModelFormat.ONNX, {"model.onnx": b"", path: b""}, "model.onnx")


def test_the_names_that_a_bundle_keeps_for_itself_are_refused() -> None:
    with pytest.raises(InvalidDefinition, match=r"`model\.json`, which a bundle keeps for itself"):
        one(ModelFormat.XGBOOST_JSON, "model.json", b"{}")


def test_the_entry_is_one_of_the_files_and_ends_as_its_format_does() -> None:
    with pytest.raises(InvalidDefinition, match=r"entry is `net\.onnx`, which is none of its files: model\.onnx"):
        ModelFiles(ModelFormat.ONNX, {"model.onnx": b""}, "net.onnx")
    with pytest.raises(BundleRefused, match=r"is `net\.bin`; its name ends in `\.onnx`"):
        check_model(one(ModelFormat.ONNX, "net.bin", onnx_model()), signature())


def test_the_entry_lies_at_the_top() -> None:
    with pytest.raises(BundleRefused, match=r"lies in a folder, `net/model\.onnx`"):
        check_model(one(ModelFormat.ONNX, "net/model.onnx", onnx_model()), signature())


def test_a_format_of_one_file_has_no_others() -> None:
    plan = {"model.plan": b"ftrt" + bytes(60), "notes.txt": b"hello"}
    with pytest.raises(BundleRefused, match=r"`notes\.txt` beside `model\.plan`"):
        check_model(ModelFiles(ModelFormat.TENSORRT_PLAN, plan, "model.plan"), signature())
    saved = {**SAVED_MODEL, "run.sh": b"true"}
    with pytest.raises(BundleRefused, match=r"`run\.sh` beside `saved_model\.pb`"):
        check_model(ModelFiles(ModelFormat.TENSORFLOW_SAVEDMODEL, saved, "saved_model.pb"), signature())


def test_a_torn_saved_model_is_refused() -> None:
    torn = {**SAVED_MODEL, "saved_model.pb": SAVED_MODEL["saved_model.pb"][:-7]}
    with pytest.raises(BundleRefused, match=r"`saved_model\.pb` is not a TensorFlow SavedModel, or is torn: it ends 7"):
        check_model(ModelFiles(ModelFormat.TENSORFLOW_SAVEDMODEL, torn, "saved_model.pb"), signature())


def test_onnx_keeps_its_external_data_beside_it() -> None:
    check_model(ModelFiles(ModelFormat.ONNX, {"model.onnx": onnx_model(), "w/0.bin": b"\1"}, "model.onnx"), signature())


@pytest.mark.parametrize("form", list(ModelFormat))
def test_a_description_reads_back_as_it_was(form: ModelFormat) -> None:
    files = {"a/x.bin": b"\1"}
    model = ModelFiles(form, files, "a/x.bin")
    assert ModelFiles.from_json(json.loads(json.dumps(model.to_json())), files) == model


@pytest.mark.parametrize(
    "data", [[], {}, {"format": "onnx"}, {"format": "pickle", "entry": "m"}, {"format": "onnx", "entry": "m", "x": 1}]
)
def test_another_description_is_refused(data: object) -> None:
    with pytest.raises(InvalidDefinition):
        ModelFiles.from_json(data, {"m": b""})


def test_an_unknown_format_names_those_that_are_known() -> None:
    with pytest.raises(InvalidDefinition, match=r"'keras'. Formats: onnx, .*python") as caught:
        ModelFiles.from_json({"format": "keras", "entry": "m"}, {"m": b""})
    assert "ONNX" in caught.value.hint


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (b"def predict(x): return x\n", "defines no function `load`. Its functions: predict"),
        (b"def load(folder:\n", "is no Python source"),
        (b"x = '\xff'\n", "is no Python source"),
        (b"x = " + b"-" * 100_000 + b"1\n", "is no Python source"),
        (b"import pickle\n" + SOURCE, "imports `pickle` in line 1"),
        (SOURCE + b"def f():\n    from joblib import load as x\n", "imports `joblib` in line 4"),
        (SOURCE + b"import numpy, dill.source\n", "imports `dill.source` in line 3"),
        (SOURCE + b"x = __import__('cloudpickle')\n", "imports `cloudpickle` in line 3"),
        (SOURCE + b"import importlib\nx = importlib.import_module('shelve')\n", "imports `shelve` in line 4"),
    ],
)
def test_the_source_of_a_python_model_defines_load_and_imports_no_pickles(source: bytes, said: str) -> None:
    with pytest.raises(BundleRefused) as caught:
        check_model(one(ModelFormat.PYTHON, "net.py", source), signature())
    assert said in caught.value.message


def test_every_module_of_a_python_model_is_looked_at() -> None:
    model = ModelFiles(ModelFormat.PYTHON, {"net.py": SOURCE, "inner/side.py": b"import marshal\n"}, "net.py")
    with pytest.raises(BundleRefused, match=r"`inner/side\.py` imports `marshal`"):
        check_model(model, signature())


@given(
    form=st.sampled_from(ModelFormat), data=st.binary(max_size=200), at=st.integers(0, 4_000), flip=st.integers(1, 255)
)
def test_damaged_or_random_files_are_refused_or_let_through_and_nothing_else_happens(
    tree_files: dict[str, bytes], form: ModelFormat, data: bytes, at: int, flip: int
) -> None:
    entries = {
        ModelFormat.ONNX: ("model.onnx", onnx_model()),
        ModelFormat.XGBOOST_JSON: ("x.json", tree_files["binary.json"]),
        ModelFormat.XGBOOST_UBJ: ("x.ubj", tree_files["binary.ubj"]),
        ModelFormat.LIGHTGBM_TEXT: ("x.txt", tree_files["binary.txt"]),
        ModelFormat.TENSORFLOW_SAVEDMODEL: ("saved_model.pb", SAVED_MODEL["saved_model.pb"]),
        ModelFormat.TORCHSCRIPT: ("x.pt", (STORED / "traced.pt").read_bytes()),
        ModelFormat.PYTHON: ("x.py", SOURCE),
        ModelFormat.TENSORRT_PLAN: ("x.plan", b"ftrt"),
    }
    entry, whole = entries[form]
    damaged = bytearray(whole)
    damaged[at % len(damaged)] ^= flip
    names = {ModelFormat.TORCHSCRIPT: signature("INPUT__0", 3, OUTPUT__0=2), ModelFormat.ONNX: signature()}
    for content in (bytes(damaged), data):
        with suppress(BundleRefused):
            check_model(one(form, entry, content), names.get(form, trees()))


def test_the_documented_python_model_is_one() -> None:
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    (source,) = (
        block for block in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE) if "def load" in block
    )
    check_model(one(ModelFormat.PYTHON, "net.py", source.encode()), signature())
