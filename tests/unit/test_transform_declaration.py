"""What may be declared, and what a wrong declaration says."""

import inspect
import math
from collections.abc import Callable

import pytest

from skewless.dtypes import Dtype
from skewless.errors import InvalidDefinition
from skewless.transforms import Expression, Transform, column, where

TEMP = column("temp", Dtype.FLOAT32)
CARRIER = column("carrier", Dtype.STRING)
ASKED = column("asked", Dtype.TIMESTAMP)
SURE = column("sure", Dtype.FLOAT64, nullable=False)


@pytest.mark.parametrize(
    ("declare", "said"),
    [
        (lambda: CARRIER.log1p(), "`log1p` takes a number, but `carrier` is a string"),
        (lambda: CARRIER + TEMP, "`add` takes a number, but `carrier` is a string"),
        (lambda: TEMP < CARRIER, "`less` takes a number, but `carrier` is a string"),
        (lambda: TEMP.one_hot(top_k=3), "`one_hot` takes a string, but `temp` is a number"),
        (lambda: TEMP.hour("UTC"), "`local_time` takes a timestamp, but `temp` is a number"),
        (lambda: ASKED - ASKED, "`subtract` takes a number, but `asked` is a timestamp"),
        (lambda: where(CARRIER, 1.0, 0.0), "`where` takes a number, but `carrier` is a string"),
        (lambda: TEMP.cyclical(24).clip(0, 1), "is several numbers"),
        (lambda: TEMP.impute(math.nan), "value must be a finite number, got nan"),
        (lambda: TEMP.impute("x"), "value must be a finite number, got 'x'"),
        (lambda: TEMP + True, "value must be a finite number, got True"),
        (lambda: TEMP == None, "value must be a finite number, got None"),  # noqa: E711
        (lambda: CARRIER.impute(3.0), "value must be a string, got 3.0"),
        (lambda: TEMP.clip(3, 2), "low=3.0 is above high=2.0"),
        (lambda: TEMP.cyclical(0), "period must be above 0, got 0"),
        (lambda: TEMP.bucket([1.0, 1.0]), "each above the one before"),
        (lambda: TEMP.bucket([]), "each above the one before"),
        (lambda: TEMP.quantile_bucket(1), "count must be at least 2"),
        (lambda: CARRIER.one_hot(), "exactly one of them"),
        (lambda: CARRIER.one_hot(top_k=2, categories=["AA"]), "exactly one of them"),
        (lambda: CARRIER.one_hot(categories=["AA", "AA"]), "differ from one another"),
        (lambda: CARRIER.index(top_k=0), "top_k must be a whole number from 1"),
        (lambda: ASKED.hour("America/New_Yorck"), "no time zone `America/New_Yorck`"),
        (lambda: ASKED.hour(""), "IANA time zone"),
        (lambda: column("raw", Dtype.BYTES), "dtype must be one of"),
        (lambda: CARRIER.contains(""), "text must not be empty"),
        (lambda: CARRIER.contains("\ud800"), "half of a surrogate pair"),
        (lambda: CARRIER.cross(), "takes at least two strings"),
        (lambda: CARRIER.cross(TEMP), "`cross` takes a string, but `temp` is a number"),
        (lambda: CARRIER.hash_bucket(0), "buckets must be a whole number from 1"),
        (lambda: CARRIER.hash_bucket(8, seed=-1), "seed must be a whole number, 0 or more"),
        (lambda: CARRIER.hash_bucket(8, seed=2**32), "seed must be at most"),
        (lambda: CARRIER.target_encode(smoothing=-1.0), "smoothing must be 0 or more"),
        (lambda: CARRIER.target_encode(folds=1), "folds must be at least 2"),
        (lambda: CARRIER.cast(Dtype.BYTES), "a number cannot be cast to bytes"),
        (lambda: TEMP.cast(Dtype.TIMESTAMP), "a number cannot be cast to timestamp"),
        (lambda: TEMP.clip_quantiles(0.9, 0.1), "must be below"),
        (lambda: TEMP.clip_quantiles(0.1, 1.1), "high_share must be from 0 to 1"),
        (lambda: TEMP.power(math.inf), "exponent must be a finite number"),
        (lambda: TEMP.seconds_since(ASKED), "`seconds_between` takes a timestamp, but `temp` is a number"),
        (lambda: ASKED & TEMP, "`and` takes a number, but `asked` is a timestamp"),
        (lambda: column("", Dtype.INT64), "name must not be empty"),
    ],
)
def test_a_wrong_declaration_is_refused_with_its_file_and_line(declare: Callable[[], object], said: str) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        declare()
    assert said in caught.value.message
    assert f"{__file__}:{inspect.getsourcelines(declare)[1]}" in caught.value.message


def test_a_refusal_says_where_the_operand_was_written_when_that_is_another_line() -> None:
    wrong = CARRIER.lower()
    with pytest.raises(InvalidDefinition) as caught:
        TEMP + wrong
    here = inspect.currentframe()
    assert here is not None
    assert f"`carrier.lower()` is a string, written at {__file__}:{here.f_lineno - 5}" in caught.value.message
    assert "index()" in caught.value.hint


def test_an_expression_is_no_truth_value() -> None:
    with pytest.raises(InvalidDefinition, match="truth value") as caught:
        bool(TEMP < 3)
    assert "where(" in caught.value.hint


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (TEMP, "input `temp` can be"),
        (TEMP.standardise() + SURE, "input `temp` can be"),
        (TEMP < 3, "input `temp` can be"),
        (where(TEMP.impute(0.0), TEMP, 0.0), "input `temp` can be"),
        (where(TEMP, 1.0, 0.0), "input `temp` can be"),
        (TEMP.cyclical(24), "input `temp` can be"),
        (CARRIER.strip().length(), "input `carrier` can be"),
        (ASKED.hour("UTC"), "input `asked` can be"),
        (SURE / SURE, "`(sure / sure)` makes nulls"),
        (1.0 / SURE, "`(1.0 / sure)` makes nulls"),
        (SURE / 0.0, "`(sure / 0.0)` makes nulls"),
        (SURE.clean(), "`sure.clean()` makes nulls"),
        (SURE % SURE, "`(sure % sure)` makes nulls"),
        (SURE.cast(Dtype.INT32), "makes nulls"),
        (SURE.cast(Dtype.STRING).cast(Dtype.FLOAT64), "makes nulls"),
    ],
)
def test_an_output_that_can_be_null_is_refused_with_the_reason(output: Expression, reason: str) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        Transform({"fine": SURE, "bad": output})
    assert "output `bad`" in caught.value.message
    assert reason in caught.value.message
    assert __file__ in caught.value.message
    assert "impute" in caught.value.hint


@pytest.mark.parametrize(
    "output",
    [
        SURE,
        SURE / 2.0,
        SURE.log1p(),
        TEMP.impute(0.0),
        TEMP.impute_mean(),
        TEMP.impute_median(),
        TEMP.is_null(),
        CARRIER.is_null(),
        ASKED.is_null(),
        CARRIER.index(top_k=3),
        CARRIER.one_hot(top_k=3),
        CARRIER.impute_most_frequent().length(),
        (CARRIER == "AA").impute(0.0),
        TEMP.impute_most_frequent(),
        CARRIER.target_encode(),
        CARRIER.one_hot(top_k=3, oov=False),
        ~TEMP.is_null() | TEMP.is_null(),
        SURE % 2.0,
        where(TEMP.is_null(), 0.0, TEMP),
        where(TEMP.is_null(), 0.0, SURE),
        (SURE / SURE).impute(0.0),
        -SURE,
    ],
)
def test_an_output_that_cannot_be_null_is_taken(output: Expression) -> None:
    assert Transform({"fine": output}).digest


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        ({}, "no outputs"),
        ({"x": CARRIER.impute("")}, "a string; outputs are numbers"),
        ({"": SURE}, "must be a string that is not empty"),
        ({"x": 1.0}, "must be an expression, got 1.0"),
        ({"x": SURE, "y": column("sure", Dtype.FLOAT32).is_null()}, "declared as float64, not nullable"),
    ],
)
def test_outputs_that_are_none_are_refused(outputs: dict[str, Expression], said: str) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        Transform(outputs)
    assert said in caught.value.message


def test_inputs_are_listed_once_in_order_of_first_use() -> None:
    transform = Transform({"b": TEMP.impute(0.0) + SURE, "a": TEMP.is_null(), "c": CARRIER.index(top_k=2)})
    assert transform.inputs == (("temp", Dtype.FLOAT32), ("sure", Dtype.FLOAT64), ("carrier", Dtype.STRING))
    assert transform.not_null_inputs == {"sure"}


def test_a_sub_expression_written_twice_is_one_node_and_the_digest_is_that_of_sharing_it() -> None:
    shared = TEMP.impute_median()
    once = Transform({"a": shared + 1.0, "b": shared * 2.0})
    again = column("temp", Dtype.FLOAT32).impute_median() + 1
    twice = Transform({"a": again, "b": TEMP.impute_median() * 2})
    assert once == twice
    assert [node["operation"] for node in once.to_json()["nodes"]].count("impute_median") == 1


def test_order_of_outputs_names_and_settings_change_the_digest() -> None:
    a, b = SURE.clip(0.0, 1.0), SURE.log1p()
    digests = {
        Transform(outputs).digest
        for outputs in ({"a": a, "b": b}, {"b": b, "a": a}, {"a": b, "b": a}, {"a": SURE.clip(0.0, 2.0), "b": b})
    }
    assert len(digests) == 4


def test_deep_and_wide_expressions_stay_cheap() -> None:
    doubled = SURE
    for _ in range(3_000):
        doubled = doubled + doubled
    assert len(doubled.text) < 200
    assert len(Transform({"x": doubled}).to_json()["nodes"]) == 3_001
