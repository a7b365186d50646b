"""Fitted scikit-learn preprocessing becomes a transform that computes the same, or is refused by name."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer, make_column_selector, make_column_transformer
from sklearn.impute import KNNImputer, MissingIndicator, SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)

from skewless.adapters.sklearn_import import SklearnImport, columns_of, import_sklearn
from skewless.dtypes import Dtype
from skewless.errors import InvalidDefinition
from skewless.transforms import FittedTransform

SEED = 11
ROWS = 400


def frame(seed: int = SEED) -> pd.DataFrame:
    """Numbers with gaps and without, whole numbers, and categories with gaps."""
    rng = np.random.default_rng(seed)
    gap = rng.random((2, ROWS)) < 0.15
    return pd.DataFrame(
        {
            "age": np.where(gap[0], np.nan, rng.gamma(3.0, 12.0, ROWS)),
            "income": rng.lognormal(3.0, 1.0, ROWS),
            "score": rng.normal(0.0, 2.0, ROWS),
            "rooms": rng.integers(1, 6, ROWS),
            "city": np.where(gap[1], np.nan, rng.choice(["Ulm", "Rom", "oov", "a|b", ""], ROWS).astype(object)),
            "kind": rng.choice(["x", "y", "z"], ROWS).astype(object),
        }
    )


DTYPES = {
    "age": Dtype.FLOAT64,
    "income": Dtype.FLOAT64,
    "score": Dtype.FLOAT64,
    "rooms": Dtype.INT64,
    "city": Dtype.STRING,
    "kind": Dtype.STRING,
}
FULL = ["income", "score"]
TARGET = np.random.default_rng(SEED).random(ROWS)


def imported(estimator: Any, names: list[str], target: Any = None) -> SklearnImport:
    """The estimator fitted on some columns, imported, compared on other rows than it was fitted on."""
    estimator.fit(frame()[names], target)
    not_null = [name for name in names if name not in ("age", "city")]
    return import_sklearn(estimator, {name: DTYPES[name] for name in names}, frame(SEED + 1)[names], not_null=not_null)


@pytest.mark.parametrize(
    ("step", "names"),
    [
        (StandardScaler(), FULL),
        (StandardScaler(with_mean=False), FULL),
        (StandardScaler(with_std=False), FULL),
        (MinMaxScaler(), FULL),
        (MinMaxScaler(feature_range=(-1, 3), clip=True), FULL),
        (MaxAbsScaler(), FULL),
        (RobustScaler(), FULL),
        (RobustScaler(quantile_range=(10.0, 90.0), unit_variance=True), FULL),
        (RobustScaler(with_centering=False), FULL),
        (Normalizer(), FULL),
        (Normalizer(norm="l1"), FULL),
        (Normalizer(norm="max"), FULL),
        (Binarizer(threshold=0.5), FULL),
        (PolynomialFeatures(degree=3), FULL),
        (PolynomialFeatures(degree=2, interaction_only=True, include_bias=False), [*FULL, "rooms"]),
        (KBinsDiscretizer(n_bins=4, encode="ordinal", quantile_method="averaged_inverted_cdf"), FULL),
        (KBinsDiscretizer(n_bins=3, encode="onehot", quantile_method="averaged_inverted_cdf"), FULL),
        (PowerTransformer(), FULL),
        (PowerTransformer(method="box-cox", standardize=False), ["income"]),
        (FunctionTransformer(np.log1p), ["income"]),
        (FunctionTransformer(), FULL),
        (SimpleImputer(), ["age", "score"]),
        (SimpleImputer(strategy="median", add_indicator=True), ["age", "score"]),
        (SimpleImputer(strategy="constant", fill_value=-1.0), ["age"]),
        (SimpleImputer(strategy="most_frequent"), ["age", "rooms"]),
        (SimpleImputer(missing_values=3, strategy="mean"), ["rooms"]),
        (MissingIndicator(), ["age", "score"]),
        (OneHotEncoder(handle_unknown="ignore"), ["kind"]),
        (OneHotEncoder(), ["kind", "rooms"]),
        (OneHotEncoder(drop="first"), ["kind", "rooms"]),
        (OneHotEncoder(sparse_output=False), ["city"]),
        (OrdinalEncoder(), ["kind", "rooms"]),
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-5, encoded_missing_value=-6), ["city"]),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_a_step_computes_what_scikit_learn_computes_on_rows_it_has_not_seen(step: Any, names: list[str]) -> None:
    result = imported(step, names)
    assert result.rows == ROWS
    assert max(each.error_max for each in result.outputs) <= 1e-5
    assert type(step).__name__ in result.report


@pytest.mark.parametrize("name", ["city", "kind"])
def test_a_target_encoder_is_taken_over_with_what_it_learned(name: str) -> None:
    result = imported(TargetEncoder(smooth=20.0, target_type="continuous"), [name], TARGET)
    assert [each["operation"] for each in result.transform.to_json()["nodes"]][-1] == "target_encode"


def nested() -> ColumnTransformer:
    """What a project has: imputation and scaling of numbers, encoding of categories, the rest handed on."""
    numbers = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
    words = Pipeline(
        [("fill", SimpleImputer(strategy="most_frequent")), ("encode", OneHotEncoder(handle_unknown="ignore"))]
    )
    union = FeatureUnion(
        [("log", FunctionTransformer(np.log1p, feature_names_out="one-to-one")), ("rank", MinMaxScaler())],
        transformer_weights={"rank": 3},
    )
    return ColumnTransformer(
        [
            ("numbers", numbers, ["age", "score"]),
            ("both", union, [1]),
            ("words", words, make_column_selector(dtype_include=object)),
            ("gone", "drop", ["rooms"]),
        ],
        remainder="passthrough",
    )


def test_a_nested_column_transformer_is_taken_over_whole() -> None:
    result = imported(nested(), list(DTYPES))
    names = result.transform.output_names
    assert [each.sklearn_name for each in result.outputs][:3] == [
        "numbers__age",
        "numbers__score",
        "numbers__missingindicator_age",
    ]
    assert "words__city[Rom]" in names
    assert 'words__city["oov"]' in names
    assert len(names) == len(result.outputs) == 3 + 2 + 5 + 3
    assert "both: FeatureUnion / rank: MinMaxScaler on income: min_max" in result.report


def test_columns_can_be_named_by_place_mask_and_slice() -> None:
    for chosen in ([0, 1], slice(0, 2), [True, True, False], slice("income", "score")):
        estimator = make_column_transformer((StandardScaler(), chosen), remainder="passthrough")
        assert len(imported(estimator, ["income", "score", "rooms"]).outputs) == 3


def test_an_imported_transform_is_stored_read_and_fitted_like_any_other() -> None:
    result = imported(nested(), list(DTYPES))
    read = FittedTransform.from_json(result.transform.to_json())
    columns = columns_of(frame(), DTYPES, not_null=read.not_null_inputs)
    inputs = {name: columns[name] for name, _ in read.inputs}
    assert read.prepare().apply(inputs, ROWS).tobytes() == result.transform.prepare().apply(inputs, ROWS).tobytes()


def test_steps_that_cannot_be_imported_are_all_named_in_one_refusal() -> None:
    estimator = make_column_transformer(
        (make_pipeline(KNNImputer(), QuantileTransformer(n_quantiles=9)), ["age"]),
        (SplineTransformer(), ["income"]),
        (FunctionTransformer(lambda table: table * 2), ["score"]),
        (StandardScaler(), ["rooms"]),
    )
    with pytest.raises(InvalidDefinition) as caught:
        imported(estimator, ["age", "income", "score", "rooms"])
    for said in ("4 of scikit-learn's steps", "KNNImputer", "QuantileTransformer", "SplineTransformer", "lambda"):
        assert said in caught.value.message
    assert "StandardScaler` " not in caught.value.message
    assert "onnx_step" in caught.value.hint


def test_a_pipeline_that_lets_a_null_through_is_refused_with_its_way() -> None:
    with pytest.raises(InvalidDefinition, match="input `age` can be") as caught:
        imported(make_pipeline(StandardScaler()), ["age"])
    assert "standardise" in caught.value.message


@pytest.mark.parametrize(
    ("dtypes", "said"),
    [
        ({"score": Dtype.FLOAT64, "income": Dtype.FLOAT64}, "fitted on the columns"),
        ({"income": Dtype.FLOAT64, "score": Dtype.TIMESTAMP}, "column `score` is timestamp"),
        ({"income": Dtype.FLOAT64, "score": Dtype.STRING}, "takes numbers, and `score` is a string"),
    ],
)
def test_columns_that_do_not_fit_the_estimator_are_refused(dtypes: dict[str, Dtype], said: str) -> None:
    estimator = StandardScaler().fit(frame()[FULL])
    with pytest.raises(InvalidDefinition) as caught:
        import_sklearn(estimator, dtypes, frame()[FULL], not_null=FULL)
    assert said in caught.value.message


def test_an_estimator_that_was_changed_after_fitting_shows_in_the_comparison() -> None:
    class Odd(StandardScaler):  # type: ignore[misc]  # scikit-learn ships no types
        def transform(self, table: Any, copy: Any = None) -> Any:
            return super().transform(table, copy) + 1.0

    Odd.__name__ = "StandardScaler"
    with pytest.raises(InvalidDefinition, match="in row 0, scikit-learn gives"):
        imported(Odd(), FULL)
