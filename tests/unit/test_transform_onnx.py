"""The ONNX export computes what the transform computes: the same numbers, or within the bound that is stated."""

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from skewless.adapters.onnx_export import export_onnx
from skewless.adapters.onnx_transform import OnnxTransform
from skewless.dtypes import Column, Dtype, column_of
from skewless.errors import InvalidDefinition
from skewless.transforms import Expression, FittedTransform, Transform, column, where
from skewless.transforms.catalogue import CATALOGUE
from skewless.transforms.differential import verify
from skewless.transforms.fitting import learn
from skewless.transforms.node_by_node import NodeByNode
from skewless.transforms.onnx_graph import OUTPUT, export, exported_inputs
from skewless.transforms.onnx_operations import OPERATIONS, REFUSED
from skewless.transforms.onnx_tolerance import bound
from skewless.transforms.row_generator import generate_rows

X = column("x", Dtype.FLOAT64)
Y = column("y", Dtype.FLOAT32)
I = column("i", Dtype.INT64)  # noqa: E741  # a column of whole numbers
J = column("j", Dtype.INT32, nullable=False)
B = column("b", Dtype.BOOL)
W = column("w", Dtype.STRING)
V = column("v", Dtype.STRING, nullable=False)
T = column("t", Dtype.TIMESTAMP)
U = column("u", Dtype.TIMESTAMP, nullable=False)
ZONE = "America/New_York"
ROWS = 1_000

NOT_NULL: dict[str, Expression] = {
    "is_null": X.is_null(),
    "impute": X.impute(3.0),
    "impute_mean": X.impute_mean(),
    "impute_median": Y.impute_median(),
    "impute_most_frequent_number": I.impute_most_frequent(),
    "index": W.index(top_k=3),
    "one_hot": W.one_hot(top_k=2),
    "one_hot_known": V.one_hot(categories=["a", "é", ""], oov=False),
    "target_encode": W.target_encode(),
    "cyclical": X.impute(0.5).cyclical(24.0),
}
"""By the operation that comes last, expressions that cannot be null."""
NULLABLE: dict[str, Expression] = {
    "add": X + Y, "subtract": X - I, "multiply": X * 3.0, "divide": X / Y, "modulo": X % Y, "floor_divide": X // Y,
    "minimum": X.minimum(Y), "maximum": X.maximum(0.0), "less": X < Y, "less_equal": X <= I, "greater": X > 0.5,
    "greater_equal": J >= I, "equal": X == Y, "not_equal": X != Y, "and": B & X, "or": B | X, "not": ~X,
    "where": where(X > 0, Y, I), "clip": X.clip(-0.5, 2.0), "clip_quantiles": X.clip_quantiles(0.1, 0.9),
    "clean": X.clean(-1e3, 1e3), "standardise": X.standardise(), "min_max": Y.min_max(), "robust": X.robust(),
    "log1p": X.log1p(), "exp": X.exp(), "log": X.log(), "power": X.power(0.3), "sqrt": X.sqrt(), "abs": X.abs(),
    "floor": X.floor(), "ceil": X.ceil(), "round": X.round(), "bucket": X.bucket([-1.0, 0.0, 7.5]),
    "quantile_bucket": X.quantile_bucket(4), "to_integer": X.cast(Dtype.INT32), "to_float32": X.cast(Dtype.FLOAT32),
    "text_equal": W == V, "text_not_equal": W != "a", "is_in": W.is_in(["a", "B"]), "contains": W.contains("é"),
    "starts_with": W.starts_with("a.b"), "ends_with": W.ends_with("\n"), "hour": T.hour(ZONE),
    "minute": T.minute(ZONE), "second": U.second("UTC"), "minute_of_day": T.minute_of_day(ZONE),
    "day_of_week": T.day_of_week(ZONE), "day_of_month": T.day_of_month(ZONE), "day_of_year": T.day_of_year(ZONE),
    "week_of_year": T.week_of_year(ZONE), "month": T.month(ZONE), "quarter": T.quarter(ZONE), "year": T.year(ZONE),
    "epoch_seconds": T.epoch_seconds(), "seconds_between": T.seconds_since(U),
}  # fmt: skip
"""The others."""
WITHIN = {"column", "constant", "text_constant", "local_time", "impute_text", "impute_most_frequent"}
"""Operations that come before another one: those of the expressions below, and of those above."""
MORE: Mapping[str, Expression] = {
    "powers": X.power(2.0) + X.power(3.0) + X.power(0.5) + X.power(-1.0),
    "imputed text": W.impute("a") == V,
    "frequent text": W.impute_most_frequent().index(top_k=2),
    "both sides": where(X.is_null(), 0.0, X).clip(-5, 5),
    "a side that is never null": where(X > 0, Y, 0.0) + where(X > 0, -1.0, Y),
    "a literal zero": (X / 0.0).is_null() + (X % 0.0).impute(2.0),
    "a sign of zero": X.impute(0.0).power(-1.0),
    "the other side of a literal": (1.0 / X).clip(-5, 5),
    "second sine": Y.impute(0.0).cyclical(7.0),
    "wide integer": I.cast(Dtype.INT64),
    "no items": W.is_in([]),
    "no null": J.is_null() + V.is_null(),
}


def training() -> tuple[dict[str, Column], Column]:
    """Eight rows that teach everything, and their target."""
    columns = {
        "x": column_of(Dtype.FLOAT64, [1.0, -2.0, 0.5, None, 7.5, 3.0, 0.0, 2.0]),
        "y": column_of(Dtype.FLOAT32, [0.5, 2.0, None, -1.0, 8.0, 0.0, 1.0, 3.0]),
        "i": column_of(Dtype.INT64, [1, 2, 2, None, 9, 0, -3, 4]),
        "j": column_of(Dtype.INT32, [1, 2, 3, 4, 5, 6, 7, 8]),
        "b": column_of(Dtype.BOOL, [True, False, None, True, False, True, True, False]),
        "w": column_of(Dtype.STRING, ["a", "é", None, "a", "B", "", "a", "é"]),
        "v": column_of(Dtype.STRING, ["a", "b", "a", "é", "é", "", "B", "a"]),
        "t": column_of(Dtype.TIMESTAMP, [0, 1_362_900_000_000_000, None, 1, 2, 3, 4, 5]),
        "u": column_of(Dtype.TIMESTAMP, [0, 1, 2, 3, 4, 5, 6, 7]),
    }
    return columns, column_of(Dtype.FLOAT64, [1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0])


def fitted(outputs: Mapping[str, Expression]) -> FittedTransform:
    columns, target = training()
    not_null = {name: each.impute(-1.0) if each.nullable else each for name, each in outputs.items()}
    graph = Transform(not_null).graph
    return FittedTransform(graph, learn(graph, columns, 8, target=target))  # outputs need not be finite here


def rows_of(transform: FittedTransform, rows: int = ROWS) -> dict[str, Column]:
    """Generated rows, with numbers of every size among the typical ones."""
    rng = np.random.default_rng(5)
    sizes = np.exp(rng.uniform(-40, 40, 400)) * rng.choice([-1.0, 1.0], 400)
    near = rng.normal(size=400)
    samples = {"x": [*sizes.tolist(), *near.tolist()], "y": near.astype(np.float32).astype(np.float64).tolist()}
    return generate_rows(transform, rows=rows, seed=3, samples=samples)


def double_outputs(transform: FittedTransform, columns: Mapping[str, Column], rows: int) -> NDArray[np.float64]:
    """What the export computes before it rounds to float32: the same model with its last cast taken back."""
    model = onnx.load_from_string(export_onnx(transform))
    assert model.graph.node[-1].output[0] == OUTPUT
    model.graph.node[-1].attribute[0].i = onnx.TensorProto.DOUBLE
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs: NDArray[np.float64] = session.run([OUTPUT], exported_inputs(transform.graph.inputs, columns, rows))[0]
    return outputs


def test_every_operation_is_exported_or_refused_with_a_reason() -> None:
    assert OPERATIONS.keys() | REFUSED.keys() | {"column", "constant", "text_constant"} == CATALOGUE.keys()
    assert not OPERATIONS.keys() & REFUSED.keys()
    assert NOT_NULL.keys() | NULLABLE.keys() | WITHIN == CATALOGUE.keys() - REFUSED.keys()
    for name, each in (NULLABLE | NOT_NULL).items():
        assert each.operation.name == name


@pytest.mark.parametrize("name", [*NULLABLE, *NOT_NULL])
def test_every_operation_is_within_its_bound(name: str) -> None:
    """Measured in float64, where the bound is stated."""
    transform = fitted({name: (NULLABLE | NOT_NULL)[name]})
    columns = rows_of(transform)
    ours = NodeByNode(transform.graph, transform.learned).outputs(columns, ROWS)
    theirs = double_outputs(transform, columns, ROWS)
    same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    with np.errstate(invalid="ignore"):
        far = np.where(same, 0.0, np.abs(ours - theirs))
    allowed = bound(OPERATIONS[name], ours)
    worst = int(np.nan_to_num(far - allowed, nan=np.inf).max(axis=1).argmax())
    row = {each: columns[each].values[worst] for each in columns}
    assert (far <= allowed).all(), f"{row}: {ours[worst]} here, {theirs[worst]} in ONNX, allowed {allowed[worst]}"


def test_a_transform_of_every_operation_agrees_with_its_export() -> None:
    transform = fitted({**NULLABLE, **NOT_NULL, **MORE})
    report = verify(transform, rows=400, seed=11, onnx=OnnxTransform(transform).apply)
    assert report.equal, report.text()
    assert report.executions[-2:] == ("ONNX", "ONNX, row alone")


@pytest.mark.parametrize("name", MORE)
def test_forms_that_an_operation_takes_beside_others_agree_alone(name: str) -> None:
    transform = fitted({name: MORE[name]})
    report = verify(transform, rows=200, onnx=OnnxTransform(transform).apply)
    assert report.equal, report.text()


def test_the_model_says_what_it_is() -> None:
    transform = fitted({"x": X, "w": W.one_hot(top_k=2)})
    data = export_onnx(transform)
    assert data == export_onnx(transform), "the same transform gives the same bytes"
    model = onnx.load_from_string(data)
    inputs = [(each.name, each.type.tensor_type.elem_type) for each in model.graph.input]
    kinds = onnx.TensorProto
    expected = [("x", kinds.DOUBLE), ("x__valid", kinds.BOOL), ("w", kinds.STRING), ("w__valid", kinds.BOOL)]
    assert inputs == expected
    assert [each.name for each in model.graph.output] == [OUTPUT]
    properties = {each.key: each.value for each in model.metadata_props}
    assert properties == {"transform_digest": transform.digest, "outputs": "\n".join(transform.output_names)}
    assert export(transform).output_names == transform.output_names


def test_an_empty_batch_gives_an_empty_tensor() -> None:
    transform = fitted({"x": X, "w": W.one_hot(top_k=2)})
    columns = generate_rows(transform, rows=0)
    assert OnnxTransform(transform).apply(columns, 0).shape == (0, len(transform.output_names))


def test_one_refusal_names_everything_that_cannot_be_exported() -> None:
    transform = fitted({"a": W.lower().index(top_k=2), "b": W.length(), "c": W.upper().length(), "d": X})
    with pytest.raises(InvalidDefinition) as refused:
        export_onnx(transform)
    said = str(refused.value)
    for operation in ("`lower` in `w.lower()`", "`length` in `w.length()`", "`upper` in `w.upper()`"):
        assert operation in said
    assert said.count("`length`") == 1, "each operation is named once"


def test_columns_whose_names_would_meet_are_refused() -> None:
    meeting = column("x__valid", Dtype.FLOAT64, nullable=False)
    with pytest.raises(InvalidDefinition, match="`x__valid`"):
        export(Transform({"a": X.impute(0.0), "b": meeting}).fit(_columns("x", "x__valid"), 2))
    with pytest.raises(InvalidDefinition, match="`tensor`"):
        export(Transform({"a": column("tensor", Dtype.FLOAT64).impute(0.0)}).fit(_columns("tensor"), 2))


def _columns(*names: str) -> dict[str, Column]:
    return {name: column_of(Dtype.FLOAT64, [1.0, 2.0]) for name in names}
