"""Golden vectors: rows that go through every branch, every value survives its JSON, a single other bit is found."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from skewless import canonical_json
from skewless.bundles.golden import GoldenVectors, check_near, check_same_bits
from skewless.dtypes import Column, Dtype, column_of, to_python
from skewless.errors import BundleRefused
from skewless.transforms import FittedTransform, Transform, column, where
from skewless.transforms.golden_rows import GoldenRows, choose

COLUMNS: dict[str, Column] = {
    "f32": column_of(Dtype.FLOAT32, [math.nan, math.inf, -math.inf, None, 0.1]),
    "f64": column_of(Dtype.FLOAT64, [5e-324, -0.0, 0.1, None, 1e308]),
    "i32": column_of(Dtype.INT32, [-(2**31), 2**31 - 1, None, 0, 1]),
    "i64": column_of(Dtype.INT64, [-(2**63), 2**63 - 1, None, 2**53 + 1, 0]),
    "flag": column_of(Dtype.BOOL, [True, False, None, True, False]),
    "text": column_of(Dtype.STRING, ["", "NaN", "\U0001f327", None, "a\x00b"]),
    "raw": column_of(Dtype.BYTES, [b"", b"\x00\xff", None, b"NaN", b"a"]),
    "when": column_of(Dtype.TIMESTAMP, [-1, 1_700_000_000_000_001, None, 0, 1]),
}
TENSOR = np.array([[math.nan, math.inf], [-0.0, 1e-45], [0.1, -math.inf], [1, 2], [3, 4]], dtype=np.float32)


def _vectors() -> GoldenVectors:
    return GoldenVectors(COLUMNS, TENSOR, {"probabilities": TENSOR[:, :1]})


def test_every_value_survives_its_json_bit_for_bit() -> None:
    back = GoldenVectors.from_json(json.loads(canonical_json.encode(_vectors().to_json())))
    assert back.rows == 5
    for name, original in COLUMNS.items():
        assert back.columns[name].dtype is original.dtype
        assert np.array_equal(back.columns[name].valid, original.valid)
        if original.values.dtype.hasobject:
            assert to_python(back.columns[name]) == to_python(original)
        else:
            assert back.columns[name].values.tobytes() == original.values.tobytes(), name
    check_same_bits(TENSOR, back.tensor, what="tensor")
    check_same_bits(TENSOR[:, :1], back.outputs["probabilities"], what="output")


def test_reasons_survive_and_golden_vectors_of_older_bundles_have_none() -> None:
    reasons = tuple(f"row {row}" for row in range(5))
    with_reasons = GoldenVectors(COLUMNS, TENSOR, {}, reasons)
    assert GoldenVectors.from_json(json.loads(canonical_json.encode(with_reasons.to_json()))).reasons == reasons
    assert "reasons" not in _vectors().to_json()
    assert GoldenVectors.from_json(_vectors().to_json()).reasons == ()
    with pytest.raises(BundleRefused, match="1 reasons for 5 golden rows"):
        GoldenVectors.from_json({**with_reasons.to_json(), "reasons": ["one"]})


def test_scores_survive_bit_for_bit_and_have_one_for_each_row() -> None:
    scores = np.array([0.0, -0.0, 1e-45, 0.1, 1.0], dtype=np.float32)
    kept = GoldenVectors(COLUMNS, TENSOR, {}, scores=scores)
    back = GoldenVectors.from_json(json.loads(canonical_json.encode(kept.to_json())))
    assert back.scores is not None
    check_same_bits(scores, back.scores, what="scores")
    assert "scores" not in _vectors().to_json()
    with pytest.raises(BundleRefused, match=r"scores of shape \(4,\) for 5 golden rows"):
        GoldenVectors.from_json({**kept.to_json(), "scores": GoldenVectors({}, scores[:4], {}).to_json()["tensor"]})


def test_samples_are_the_values_without_nulls() -> None:
    samples = _vectors().samples
    assert samples["i64"] == [-(2**63), 2**63 - 1, 2**53 + 1, 0]
    assert {name: len(values) for name, values in samples.items()} == dict.fromkeys(COLUMNS, 4)


def test_no_rows_survive_too() -> None:
    none = GoldenVectors({"f": column_of(Dtype.FLOAT32, [])}, np.empty((0, 3), np.float32), {})
    assert GoldenVectors.from_json(none.to_json()).tensor.shape == (0, 3)


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"columns": {"f": {"dtype": "float16", "values": []}}, "tensor": {}, "outputs": {}},
        {"columns": {"f": {"dtype": "float32", "values": ["nan"]}}, "tensor": {}, "outputs": {}},
        {"columns": {}, "tensor": {"shape": [2, 2], "float32": "AAAA"}, "outputs": {}},
        {"columns": [], "tensor": {"shape": [0, 0], "float32": ""}, "outputs": {}},
    ],
)
def test_anything_else_is_refused(broken: dict[str, object]) -> None:
    with pytest.raises(BundleRefused, match=r"golden\.json"):
        GoldenVectors.from_json(broken)


def test_the_first_other_bit_is_named_by_row_and_column() -> None:
    other = TENSOR.copy()
    other[1, 0] = 0.0
    other[4, 1] = 5
    with pytest.raises(BundleRefused, match=r"the tensor differs.*2 of 10 values, first at row 1, column 0"):
        check_same_bits(TENSOR, other, what="the tensor")


def test_equal_bits_pass_in_any_memory_order() -> None:
    check_same_bits(TENSOR, np.asfortranarray(TENSOR), what="tensor")
    check_same_bits(np.asfortranarray(TENSOR), TENSOR, what="tensor")


def test_another_shape_is_refused() -> None:
    with pytest.raises(BundleRefused, match=r"shape \(5, 1\)"):
        check_same_bits(TENSOR, TENSOR[:, :1], what="tensor")


def test_a_score_that_differs_is_named_by_its_row() -> None:
    scores = np.array([0.5, 0.25], dtype=np.float32)
    with pytest.raises(BundleRefused, match=r"the score differs .* 1 of 2 values, first at row 1: expected "):
        check_same_bits(scores, np.array([0.5, 0.75], dtype=np.float32), what="the score")


def test_near_values_pass_within_the_tolerance_and_not_beyond() -> None:
    near = TENSOR.copy()
    near[2, 0] += np.float32(0.005)
    check_near(TENSOR, near, tolerance=0.01, what="an output")
    near[2, 0] += np.float32(0.01)
    with pytest.raises(BundleRefused, match=r"an output, by more than 0.01, differs .* first at row 2, column 0"):
        check_near(TENSOR, near, tolerance=0.01, what="an output")
    lost = TENSOR.copy()
    lost[3, 0] = np.nan
    with pytest.raises(BundleRefused, match="row 3, column 0"):
        check_near(TENSOR, lost, tolerance=0.01, what="an output")


def test_without_a_tolerance_a_bit_is_a_difference() -> None:
    other = TENSOR.copy()
    other.view(np.uint32)[2, 0] ^= 1
    check_near(TENSOR, other, tolerance=1e-6, what="an output")
    with pytest.raises(BundleRefused, match="row 2, column 0"):
        check_near(TENSOR, other, tolerance=0.0, what="an output")
    with pytest.raises(BundleRefused, match="shape"):
        check_near(TENSOR, TENSOR[:1], tolerance=0.1, what="an output")


X, WHOLE, WORD = column("x", Dtype.FLOAT64), column("whole", Dtype.INT64), column("word", Dtype.STRING)
MOMENT = column("moment", Dtype.TIMESTAMP, nullable=False)
TRANSFORM = Transform(
    {
        "clipped": X.clean(-5.0, 50.0).clip(0.0, 20.0).impute_median().standardise(),
        "scaled": X.clean(-5.0, 50.0).impute_mean().min_max(),
        "fixed": WHOLE.impute(3.0).bucket([0.0, 10.0, 100.0]),
        "learned": X.clean(-5.0, 50.0).impute(0.0).quantile_bucket(4),
        "word": WORD.one_hot(top_k=3),
        "place": WORD.lower().index(top_k=2),
        "usual": (WORD.impute_most_frequent() == "a"),
        "large": where(WHOLE > 50, 1.0, 2.0).impute(3.0),
        "hour": MOMENT.hour("America/New_York"),
        "log": WHOLE.clip(0.0, None).impute(0.0).log1p(),
    }
)


def training(rows: int = 400) -> dict[str, Column]:
    rng = np.random.default_rng(3)
    words = np.array(["a", "B", "c", "d", "e"], dtype=object)[rng.choice(5, rows, p=[0.4, 0.3, 0.15, 0.1, 0.05])]
    return {
        "x": Column(Dtype.FLOAT64, rng.normal(8.0, 9.0, rows), rng.random(rows) > 0.1),
        "whole": Column(Dtype.INT64, rng.integers(-5, 200, rows), rng.random(rows) > 0.1),
        "word": Column(Dtype.STRING, words, rng.random(rows) > 0.1),
        "moment": Column(
            Dtype.TIMESTAMP, rng.integers(1_362_000_000, 1_364_000_000, rows) * 1_000_000, np.ones(rows, dtype=np.bool_)
        ),
    }


def chosen() -> tuple[FittedTransform, GoldenRows]:
    fitted = TRANSFORM.fit(training(), 400)
    return fitted, choose(fitted, training(), 400)


def test_golden_rows_go_through_every_branch() -> None:
    fitted, golden = chosen()
    assert golden.rows == len(golden.reasons) <= 256
    assert {len(each) for each in golden.columns.values()} == {golden.rows}
    tensor = fitted.prepare().apply(golden.columns, golden.rows)
    outputs = {name: set(tensor[:, place].tolist()) for place, name in enumerate(fitted.output_names)}
    assert outputs["fixed"] == {0.0, 1.0, 2.0, 3.0}
    assert outputs["learned"] == {0.0, 1.0, 2.0, 3.0}
    assert all(outputs[f"word[{word}]"] == {0.0, 1.0} for word in ("a", "B", "c", "oov"))
    assert outputs["place"] == {-2.0, -1.0, 0.0, 1.0}
    assert outputs["usual"] == {0.0, 1.0}
    assert outputs["large"] == {1.0, 2.0, 3.0}
    assert outputs["hour"] >= set(map(float, range(24)))
    numbers = golden.columns["x"].values[golden.columns["x"].valid].tolist()
    assert {-5.0, 0.0, 20.0, 50.0} <= set(numbers), "the edges themselves"
    assert any(math.isnan(number) for number in numbers)
    assert any(math.isinf(number) for number in numbers)
    for name in ("x", "whole", "word"):
        assert not golden.columns[name].valid.all(), f"{name} is null in a row"


def changes(parameters: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The parameters with one of them changed a little."""
    for name, value in parameters.items():
        if isinstance(value, float):
            yield {**parameters, name: value * 1.001 + 0.001}
        elif isinstance(value, list) and value and isinstance(value[0], float):
            for place in range(len(value)):
                yield {
                    **parameters,
                    name: [*value[:place], math.nextafter(value[place], math.inf), *value[place + 1 :]],
                }
        elif isinstance(value, list) and len(value) > 1 and isinstance(value[0], str):
            yield {**parameters, name: [value[1], value[0], *value[2:]]}
            yield {**parameters, name: value[:-1]}


def test_no_parameter_can_change_without_the_golden_rows_showing_it() -> None:
    fitted, golden = chosen()
    expected = fitted.prepare().apply(golden.columns, golden.rows)
    tried = 0
    for index, learned in fitted.learned.items():
        for changed in changes(learned):
            other = FittedTransform(fitted.graph, {**fitted.learned, index: changed})
            tensor = other.prepare().apply(golden.columns, golden.rows)
            same = tensor.shape == expected.shape and tensor.tobytes() == expected.tobytes()
            assert not same, f"{fitted.graph.nodes[index].text}: {changed}"
            tried += 1
    assert tried > 12


def test_the_same_training_rows_give_the_same_golden_rows() -> None:
    one, other = chosen()[1], chosen()[1]
    assert one.reasons == other.reasons
    assert all(to_python(one.columns[name])[:50] == to_python(other.columns[name])[:50] for name in ("whole", "word"))


def test_golden_rows_are_bounded_and_begin_with_a_training_row() -> None:
    fitted = TRANSFORM.fit(training(), 400)
    few = choose(fitted, training(), 400, rows_max=5)
    assert few.rows == 5
    assert few.reasons[0] == "a training row"
    assert to_python(few.columns["word"])[0] == to_python(training()["word"])[0]
    assert all(": " in reason for reason in few.reasons[1:])
