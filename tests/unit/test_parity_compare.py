"""Served rows against offline ones: what is equal, and the cause named for what is not."""

import math
from typing import Any

import numpy as np
import pytest

from skewless.canonical_json import Digest
from skewless.dtypes import Column, Dtype, column_of
from skewless.features.contract import FeatureContract, FeatureField, JoinKey, ViewRead
from skewless.features.frame import NO_EVENT_TIME, FeatureFrame
from skewless.parity.causes import Cause
from skewless.parity.compare import Comparison, Difference, Scored, compare

KEY = (JoinKey("k", Dtype.STRING),)
CONTRACT = FeatureContract(
    "p",
    (
        ViewRead("v", KEY, 0, (FeatureField("f", Dtype.FLOAT32), FeatureField("s", Dtype.STRING))),
        ViewRead("w", KEY, 0, (FeatureField("n", Dtype.INT64),)),
    ),
    (),
    Digest("0" * 64),
)


def _scored(**changes: Any) -> Scored:
    """One row; `f`, `s`, `n` are values, `v` and `w` event times, `tensor` and `output` its numbers."""
    given = {"f": 1.5, "s": "a", "n": 7, "v": 10, "w": 20, "tensor": [1.0, 2.0], "output": [0.25, 0.75], **changes}
    columns: dict[str, Column] = {
        "v__f": column_of(Dtype.FLOAT32, [given["f"]]),
        "v__s": column_of(Dtype.STRING, [given["s"]]),
        "w__n": column_of(Dtype.INT64, [given["n"]]),
    }
    times = {view: np.array([given[view]], dtype=np.int64) for view in ("v", "w")}
    statuses = {name: np.zeros(1, dtype=np.uint8) for name in columns}
    frame = FeatureFrame(1, columns, statuses, times)
    return Scored(frame, np.array([given["tensor"]], dtype=np.float32), np.array([given["output"]], dtype=np.float32))


def _compare(served: Scored, offline: Scored) -> Comparison:
    return compare(CONTRACT, ["id-1"], served, offline)


def _only(served: Scored, offline: Scored) -> Difference:
    (difference,) = _compare(served, offline).differences
    return difference


def test_equal_rows_are_counted_at_every_level_and_have_no_difference() -> None:
    assert _compare(_scored(), _scored()) == Comparison(1, 1, 1, 1, ())


@pytest.mark.parametrize(
    ("served_time", "offline_time", "cause"),
    [
        (10, 10, Cause.PIPELINES_DIFFER),
        (NO_EVENT_TIME, 10, Cause.MISSING_ONLINE),
        (10, NO_EVENT_TIME, Cause.EXTRA_ONLINE),
        (9, 10, Cause.MATERIALIZATION_LAG),
        (11, 10, Cause.FUTURE_LEAK),
    ],
)
def test_event_times_tell_why_a_feature_differs(served_time: int, offline_time: int, cause: Cause) -> None:
    found = _only(_scored(f=2.5, v=served_time), _scored(v=offline_time))
    assert found == Difference("id-1", cause, "v__f", "2.5", "1.5")


def test_a_tensor_that_differs_over_equal_features_is_the_transforms() -> None:
    assert _only(_scored(tensor=[1.0, 3.0]), _scored()) == Difference(
        "id-1", Cause.TRANSFORM, "", "[1.0, 3.0]", "[1.0, 2.0]"
    )


def test_an_output_that_differs_over_an_equal_tensor_is_the_models() -> None:
    found = _compare(_scored(output=[0.5, 0.5]), _scored())
    assert (found.features_equal, found.tensors_equal, found.outputs_equal) == (1, 1, 0)
    assert found.differences == (Difference("id-1", Cause.MODEL, "", "[0.5, 0.5]", "[0.25, 0.75]"),)


def test_a_feature_is_named_before_a_tensor_and_a_tensor_before_an_output() -> None:
    everything = _scored(n=8, tensor=[0.0, 0.0], output=[1.0, 0.0])
    assert _only(everything, _scored()).column == "w__n"
    assert _only(_scored(tensor=[0.0, 0.0], output=[1.0, 0.0]), _scored()).cause is Cause.TRANSFORM


def test_the_first_differing_column_is_named_with_the_cause_of_its_own_view() -> None:
    assert _only(_scored(n=8, w=21, v=9), _scored()) == Difference("id-1", Cause.FUTURE_LEAK, "w__n", "8", "7")
    assert _only(_scored(s="b", n=8, w=21), _scored()).column == "v__s"


def test_nan_equals_nan() -> None:
    nan = _scored(f=math.nan, tensor=[math.nan, 0.0], output=[math.nan, 0.0])
    assert _compare(nan, _scored(f=math.nan, tensor=[math.nan, 0.0], output=[math.nan, 0.0])).differences == ()
    assert _only(nan, _scored()).served == "nan"


def test_negative_zero_differs_from_zero() -> None:
    assert _only(_scored(f=-0.0), _scored(f=0.0)).cause is Cause.DECLARED_PRECISION
    assert _only(_scored(tensor=[-0.0, 1.0]), _scored(tensor=[0.0, 1.0])).cause is Cause.TRANSFORM
    assert _only(_scored(output=[-0.0, 1.0]), _scored(output=[0.0, 1.0])).cause is Cause.MODEL


@pytest.mark.parametrize(("name", "value", "zero"), [("f", 1.5, 0.0), ("s", "a", ""), ("n", 7, 0)])
def test_a_null_differs_from_every_value_and_equals_a_null(name: str, value: object, zero: object) -> None:
    for other in (value, zero):
        assert _only(_scored(**{name: None}), _scored(**{name: other})).served == "null"
        assert _only(_scored(**{name: other}), _scored(**{name: None})).offline == "null"
    assert _compare(_scored(**{name: None}), _scored(**{name: None})).differences == ()


def test_what_stands_under_a_null_is_not_compared() -> None:
    served = _scored(f=None, s=None)
    served.frame.columns["v__f"].values[:] = 9
    served.frame.columns["v__s"].values[:] = "junk"
    assert _compare(served, _scored(f=None, s=None)).differences == ()


def test_texts_are_compared_as_they_are() -> None:
    assert _only(_scored(s="é"), _scored(s="e\u0301")).column == "v__s"


def test_no_rows_are_no_differences() -> None:
    columns = {name: column_of(each.dtype, []) for name, each in _scored().frame.columns.items()}
    none = Scored(
        FeatureFrame(
            0,
            columns,
            dict.fromkeys(columns, np.empty(0, np.uint8)),
            {view: np.empty(0, np.int64) for view in ("v", "w")},
        ),
        np.empty((0, 2), np.float32),
        np.empty((0, 2), np.float32),
    )
    assert compare(CONTRACT, [], none, none) == Comparison(0, 0, 0, 0, ())
