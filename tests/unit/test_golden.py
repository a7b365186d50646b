"""Golden vectors: every value survives its JSON, and a single other bit is found."""

import json
import math

import numpy as np
import pytest

from skewless import canonical_json
from skewless.bundles.golden import GoldenVectors, check_same_bits
from skewless.dtypes import Column, Dtype, column_of, to_python
from skewless.errors import BundleRefused

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
    for name, column in COLUMNS.items():
        assert back.columns[name].dtype is column.dtype
        assert np.array_equal(back.columns[name].valid, column.valid)
        if column.values.dtype.hasobject:
            assert to_python(back.columns[name]) == to_python(column)
        else:
            assert back.columns[name].values.tobytes() == column.values.tobytes(), name
    check_same_bits(TENSOR, back.tensor, what="tensor")
    check_same_bits(TENSOR[:, :1], back.outputs["probabilities"], what="output")


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
