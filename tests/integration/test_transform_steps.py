"""Steps from outside the catalogue, ONNX models and package functions: pinned, checked, null where they must be."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from skewless import canonical_json
from skewless.adapters.onnx_steps import onnx_step
from skewless.adapters.python_steps import python_step, source_digest
from skewless.adapters.step_loader import TransformSteps
from skewless.canonical_json import Digest
from skewless.dtypes import Column, Dtype, column_of
from skewless.errors import InvalidDefinition
from skewless.transforms import Expression, FittedTransform, Transform, column
from skewless.transforms.steps import StepsOfGraph, files_of

X, Y = (column(name, Dtype.FLOAT64) for name in "xy")
SURE = column("sure", Dtype.FLOAT64, nullable=False)
CITY = column("city", Dtype.STRING)
COLUMNS = {
    "x": column_of(Dtype.FLOAT64, [1.0, None, 3.0, -2.5]),
    "y": column_of(Dtype.FLOAT64, [0.5, 2.0, None, 4.0]),
    "city": column_of(Dtype.STRING, ["Ulm", "Rom", "Ulm", None]),
}


def linear(outputs: int = 1) -> bytes:
    """An ONNX model: (rows, 2) float32 times a matrix of powers of two gives (rows, outputs)."""
    weights = np.array([[1.0, -2.0], [0.5, 4.0]], dtype=np.float32)[:, :outputs]
    return _model(
        [helper.make_node("MatMul", ["numbers", "weights"], ["result"])],
        {"numbers": (TensorProto.FLOAT, 2)},
        (TensorProto.FLOAT, outputs),
        {"weights": weights},
    )


def is_ulm() -> bytes:
    """An ONNX model: (rows, 1) string gives (rows, 1) bool."""
    return _model(
        [helper.make_node("Equal", ["city", "ulm"], ["result"])],
        {"city": (TensorProto.STRING, 1)},
        (TensorProto.BOOL, 1),
        {"ulm": np.array([["Ulm"]], dtype=object)},
        opset=19,  # the first in which strings can be compared
    )


def batch_mean() -> bytes:
    """An ONNX model that breaks the rule: it takes the mean over the batch away."""
    return _model(
        [
            helper.make_node("ReduceMean", ["numbers"], ["mean"], axes=[0], keepdims=1),
            helper.make_node("Sub", ["numbers", "mean"], ["result"]),
        ],
        {"numbers": (TensorProto.FLOAT, 1)},
        (TensorProto.FLOAT, 1),
        {},
    )


def _model(
    nodes: list[Any],
    inputs: dict[str, tuple[int, int]],
    output: tuple[int, int],
    constants: dict[str, NDArray[Any]],
    opset: int = 17,
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "step",
        [helper.make_tensor_value_info(name, kind, [None, columns]) for name, (kind, columns) in inputs.items()],
        [helper.make_tensor_value_info("result", output[0], [None, output[1]])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(made)
    data: bytes = made.SerializeToString(deterministic=True)
    return data


def risk(*, rows_together: bool = False) -> Expression:
    return onnx_step(linear(), {"numbers": [X, Y]}, rows_together=rows_together)


def fitted(output: Expression) -> FittedTransform:
    return Transform({"out": output.impute(-9.0) if output.nullable and str(output.kind) == "number" else output}).fit(
        COLUMNS, 4
    )


@pytest.mark.parametrize("rows_together", [False, True])
def test_an_onnx_step_computes_its_model_and_is_null_where_an_operand_is(rows_together: bool) -> None:
    tensor = fitted(risk(rows_together=rows_together)).prepare().apply(COLUMNS, 4)
    assert tensor[:, 0].tolist() == [1.25, -9.0, -9.0, -0.5]


def test_an_onnx_step_takes_strings_and_several_outputs_and_its_result_goes_on_being_computed_with() -> None:
    flag = onnx_step(is_ulm(), {"city": CITY}) + 1.0
    assert fitted(flag).prepare().apply(COLUMNS, 4)[:, 0].tolist() == [2.0, 1.0, 2.0, -9.0]
    both = onnx_step(linear(2), {"numbers": [X.impute(0.0), Y.impute(0.0)]}, outputs=("low", "high"))
    named = fitted(both)
    assert named.output_names == ("out[low]", "out[high]")
    assert named.prepare().apply(COLUMNS, 4)[0].tolist() == [1.25, 0.0]


def test_json_holds_the_digest_of_a_model_and_the_file_lies_beside_it() -> None:
    original = fitted(risk())
    stored = canonical_json.encode(original.to_json())
    files = files_of(original.graph)
    assert files == {canonical_json.digest_bytes(linear()): linear()}
    assert next(iter(files)).encode() in stored
    read = FittedTransform.from_json(json.loads(stored), TransformSteps(files))
    assert read == original
    assert read.prepare().apply(COLUMNS, 4).tobytes() == original.prepare().apply(COLUMNS, 4).tobytes()


def test_a_stored_step_can_be_read_without_its_model_but_not_run() -> None:
    original = fitted(risk())
    read = FittedTransform.from_json(original.to_json())
    assert read.digest == original.digest
    assert files_of(read.graph) == {}
    with pytest.raises(InvalidDefinition, match="read without what it runs") as caught:
        read.prepare().apply(COLUMNS, 4)
    assert "steps=" in caught.value.hint


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "is not with it"),
        ({canonical_json.digest_bytes(linear()): linear(2)}, "the transform names"),
    ],
)
def test_a_model_that_is_missing_or_another_is_refused(files: dict[Digest, bytes], said: str) -> None:
    with pytest.raises(InvalidDefinition, match=said):
        FittedTransform.from_json(fitted(risk()).to_json(), TransformSteps(files))


def test_a_step_whose_rows_depend_on_their_batch_is_refused_when_fitted_unless_it_runs_row_by_row() -> None:
    alone = onnx_step(batch_mean(), {"numbers": X})
    assert fitted(alone).prepare().apply(COLUMNS, 4)[:, 0].tolist() == [0.0, -9.0, 0.0, 0.0]
    with pytest.raises(InvalidDefinition, match="must depend on that row alone"):
        fitted(onnx_step(batch_mean(), {"numbers": X}, rows_together=True))


@pytest.mark.parametrize(
    ("declare", "said"),
    [
        (lambda: onnx_step(b"not a model", {"numbers": X}), "cannot load"),
        (lambda: onnx_step(linear(), {"numbers": X}), "takes 2 columns, it is given 1"),
        (lambda: onnx_step(linear(), {}), "takes 2 columns, it is given 0"),
        (lambda: onnx_step(linear(), {"numbers": [X, Y], "more": X}), "no input `more`"),
        (lambda: onnx_step(linear(), {"numbers": [X, CITY]}), "takes a number, but `city` is a string"),
        (lambda: onnx_step(linear(2), {"numbers": [X, Y]}, outputs=["one"]), "has 2 columns, and 1 names"),
        (lambda: onnx_step(linear(), {"numbers": [X, Y]}, output="other"), "takes one output"),
        (lambda: Transform({"bad": onnx_step(linear(2), {"numbers": [X, SURE]})}), "input `x` can be"),
    ],
)
def test_a_wrong_onnx_step_is_refused_where_it_is_declared(declare: Any, said: str) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        declare()
    assert said in caught.value.message


GEO = """
import numpy as np

from our_geo import scale


def distance(x, y):
    return np.hypot(x, y) * scale.FACTOR


def both(x, y):
    return np.stack([x + y, x - y])


def lengths(words):
    return [len(word) for word in words]


def centred(x):
    return x - x.mean()


def broken(x):
    raise RuntimeError("no")


def short(x):
    return x[:-1]
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package `our-geo` 1.2 installed in a folder of its own."""
    folder, info = tmp_path / "our_geo", tmp_path / "our_geo-1.2.dist-info"
    folder.mkdir()
    info.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "scale.py").write_text("FACTOR = 2.0\n")
    (folder / "distances.py").write_text(GEO)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: our-geo\nVersion: 1.2\n")
    (info / "RECORD").write_text("our_geo/__init__.py,,\nour_geo/scale.py,,\nour_geo/distances.py,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "our_geo"]:
        del sys.modules[name]


def functions() -> Any:
    from our_geo import distances  # type: ignore[import-not-found]  # the fixture has just written it

    return distances


def test_a_python_step_runs_the_function_on_rows_without_null(package: Path) -> None:
    step = python_step(functions().distance, [X, Y], package="our-geo")
    assert fitted(step).prepare().apply(COLUMNS, 4)[:, 0] == pytest.approx([2 * 1.25**0.5, -9.0, -9.0, 2 * 22.25**0.5])
    words = python_step(functions().lengths, [CITY], package="our-geo")
    assert fitted(words).prepare().apply(COLUMNS, 4)[:, 0].tolist() == [3.0, 3.0, 3.0, -9.0]
    both = python_step(functions().both, [X.impute(0), Y.impute(0)], package="our-geo", outputs=("sum", "gap"))
    assert fitted(both).output_names == ("out[sum]", "out[gap]")


def test_a_stored_python_step_runs_only_where_its_package_is_allowed_and_unchanged(package: Path) -> None:
    original = fitted(python_step(functions().distance, [X, Y], package="our-geo"))
    stored = original.to_json()
    read = FittedTransform.from_json(stored, TransformSteps({}, packages={"our-geo"}))
    assert read.prepare().apply(COLUMNS, 4).tobytes() == original.prepare().apply(COLUMNS, 4).tobytes()
    with pytest.raises(InvalidDefinition, match="not allowed here; allowed: none"):
        FittedTransform.from_json(stored, TransformSteps({}))
    (package / "our_geo" / "scale.py").write_text("FACTOR = 3.0\n")
    with pytest.raises(InvalidDefinition, match=r"pinned to `our-geo` 1\.2 with the sources") as caught:
        FittedTransform.from_json(stored, TransformSteps({}, packages={"our-geo"}))
    assert "install the version" in caught.value.hint


def test_comparing_the_sources_of_a_package_does_not_import_it(package: Path) -> None:
    before = source_digest("our_geo.distances")
    assert "our_geo" not in sys.modules
    (package / "our_geo" / "distances.py").write_text(GEO + "\n")
    assert source_digest("our_geo.distances") != before


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("centred", "must depend on that row alone"),
        ("broken", r"failed on 3 rows: RuntimeError\('no'\)"),
        ("short", r"shape \(1, 2\) for 3 rows"),
    ],
)
def test_a_function_that_breaks_the_contract_is_refused_when_fitted(package: Path, name: str, said: str) -> None:
    with pytest.raises(InvalidDefinition, match=said):
        fitted(python_step(getattr(functions(), name), [X], package="our-geo"))


@pytest.mark.parametrize(
    ("function", "distribution", "said"),
    [
        (lambda x: x, "our-geo", "no Python function that can be found again"),
        (np.hypot, "numpy", "no Python function"),
        (len, "our-geo", "no Python function"),
        (json.dumps, "our-geo", "does not belong to the installed package `our-geo`"),
        (json.dumps, "no-such-package", "no package `no-such-package` is installed"),
    ],
)
def test_a_function_that_cannot_be_pinned_is_refused(
    package: Path, function: Any, distribution: str, said: str
) -> None:
    with pytest.raises(InvalidDefinition, match=said):
        python_step(function, [X, Y], package=distribution)


def test_a_step_checks_the_same_rows_in_any_order_of_training_rows() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(size=1_000)
    transform = Transform({"out": onnx_step(linear(), {"numbers": [SURE, SURE]}, rows_together=True)})
    digests = set()
    for order in (slice(None), slice(None, None, -1)):
        column_ = Column(Dtype.FLOAT64, np.ascontiguousarray(values[order]), np.ones(1_000, dtype=np.bool_))
        digests.add(transform.fit({"sure": column_}, 1_000).digest)
    assert len(digests) == 1


def test_a_copy_of_a_transform_runs_the_steps_that_the_original_has_bound(package: Path) -> None:
    numbers = [X.impute(0.0), Y.impute(0.0)]
    steps = {
        "model": onnx_step(linear(), {"numbers": numbers}),
        "function": python_step(functions().distance, numbers, package="our-geo"),
    }
    original = Transform(steps).fit(COLUMNS, 4)
    copy = FittedTransform.from_json(original.to_json(), StepsOfGraph(original.graph))
    assert copy.prepare().apply(COLUMNS, 4).tobytes() == original.prepare().apply(COLUMNS, 4).tobytes()
    with pytest.raises(InvalidDefinition, match="is not bound in the graph"):
        FittedTransform.from_json(original.to_json(), StepsOfGraph(fitted(X.impute(0.0)).graph))
