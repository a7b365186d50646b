"""Target encoding: what it learns is the smoothed mean, and no training row is encoded by its own target."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import TargetEncoder

from harness.examples import examples
from skewless.dtypes import Column, Dtype, column_of
from skewless.errors import InvalidDefinition
from skewless.transforms import Transform, column, out_of_fold
from skewless.transforms.folds import folds_of

WORD = column("word", Dtype.STRING)
X = column("x", Dtype.FLOAT64)
bounded = settings(max_examples=examples(40), deadline=None)
ROWS = st.lists(
    st.tuples(st.none() | st.sampled_from("abcd"), st.none() | st.floats(-1e6, 1e6)), min_size=1, max_size=40
)


def words(items: list[str | None]) -> dict[str, Column]:
    return {"word": column_of(Dtype.STRING, list(items))}


@bounded
@given(ROWS, st.floats(0, 50))
def test_an_encoding_is_the_mean_drawn_towards_the_mean_of_all(
    rows: list[tuple[str | None, float | None]], smoothing: float
) -> None:
    table, target = words([word for word, _ in rows]), column_of(Dtype.FLOAT64, [value for _, value in rows])
    transform = Transform({"out": WORD.target_encode(smoothing=smoothing)})
    taught = [(word, value) for word, value in rows if value is not None]
    if not taught:
        with pytest.raises(InvalidDefinition, match="finite target"):
            transform.fit(table, len(rows), target=target)
        return
    prior = math.fsum(value for _, value in taught) / len(taught)
    served = ["a", "b", "c", "d", "unseen", None]
    expected = []
    for word in served:
        own = [value for each, value in taught if each == word and word is not None]
        expected.append((math.fsum(own) + smoothing * prior) / (len(own) + smoothing) if own else prior)
    fitted = transform.fit(table, len(rows), target=target)
    actual = fitted.prepare().apply(words(served), len(served))[:, 0]
    assert actual.tolist() == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_an_encoding_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(5)
    items, values = rng.choice(list("abcde"), 300).astype(object), rng.random(300)
    oracle = TargetEncoder(smooth=7.0, target_type="continuous").fit(items.reshape(-1, 1), values)
    target = Column(Dtype.FLOAT64, values, np.ones(300, dtype=np.bool_))
    fitted = Transform({"out": WORD.target_encode(smoothing=7.0)}).fit(words(items.tolist()), 300, target=target)
    expected = oracle.transform(np.array([*"abcde", "z"], dtype=object).reshape(-1, 1))
    np.testing.assert_allclose(fitted.prepare().apply(words([*"abcde", "z"]), 6), expected, rtol=1e-6)


def test_fitting_without_a_target_is_refused_and_says_what_to_give() -> None:
    with pytest.raises(InvalidDefinition, match="target") as caught:
        Transform({"out": WORD.target_encode()}).fit(words(["a"]), 1)
    assert "target=" in caught.value.hint


def sample(rows: int = 600) -> tuple[dict[str, Column], Column]:
    """Words, a number that makes rows differ, and a target that is pure noise."""
    rng = np.random.default_rng(3)
    table = {
        "word": column_of(
            Dtype.STRING, rng.choice([f"w{place}" for place in range(150)], rows).astype(object).tolist()
        ),
        "x": column_of(Dtype.FLOAT64, rng.normal(size=rows).tolist()),
    }
    return table, column_of(Dtype.FLOAT64, rng.integers(0, 2, rows).astype(float).tolist())


TRANSFORM = Transform({"word": WORD.target_encode(smoothing=1.0, folds=4), "x": X.impute_mean().standardise()})


def test_each_training_row_is_encoded_by_the_other_folds_alone() -> None:
    table, target = sample()
    fitted, tensor = out_of_fold(TRANSFORM, table, 600, target)
    folds = folds_of(table, 600, 4)
    for fold in range(4):
        others = folds != fold
        part = {name: Column(each.dtype, each.values[others], each.valid[others]) for name, each in table.items()}
        taught = Transform({"word": WORD.target_encode(smoothing=1.0, folds=4)}).fit(
            part, int(others.sum()), target=Column(target.dtype, target.values[others], target.valid[others])
        )
        expected = taught.prepare().apply(table, 600)
        assert (tensor[~others, 0] == expected[~others, 0]).all()
    assert (tensor[:, 1] == fitted.prepare().apply(table, 600)[:, 1]).all()
    assert fitted == TRANSFORM.fit(table, 600, target=target)


def test_out_of_fold_encoding_does_not_tell_the_target_where_the_fitted_one_does() -> None:
    table, target = sample()
    fitted, tensor = out_of_fold(TRANSFORM, table, 600, target)
    leaking = np.corrcoef(fitted.prepare().apply(table, 600)[:, 0], target.values.astype(float))[0, 1]
    honest = np.corrcoef(tensor[:, 0], target.values.astype(float))[0, 1]
    assert leaking > 0.3
    assert honest < 0.1


def test_the_training_tensor_does_not_depend_on_the_order_of_rows() -> None:
    table, target = sample()
    _, tensor = out_of_fold(TRANSFORM, table, 600, target)
    order = np.random.default_rng(1).permutation(600)
    turned = {name: Column(each.dtype, each.values[order], each.valid[order]) for name, each in table.items()}
    _, again = out_of_fold(TRANSFORM, turned, 600, Column(target.dtype, target.values[order], target.valid[order]))
    assert again.tobytes() == np.ascontiguousarray(tensor[order]).tobytes()


def test_folds_are_of_like_size_and_equal_rows_are_in_one() -> None:
    table = {"x": column_of(Dtype.FLOAT64, [float(place % 1_000) for place in range(5_000)])}
    folds = folds_of(table, 5_000, 5)
    assert (folds[:1_000] == folds[1_000:2_000]).all()
    assert np.bincount(folds, minlength=5).min() > 800


def test_without_a_target_encoding_the_training_tensor_is_the_fitted_ones() -> None:
    table, target = sample()
    fitted, tensor = out_of_fold(Transform({"x": X.impute(0.0)}), table, 600, target)
    assert tensor.tobytes() == fitted.prepare().apply(table, 600).tobytes()


@pytest.mark.parametrize(
    ("outputs", "rows", "said"),
    [
        ({"a": WORD.target_encode(folds=3), "b": WORD.lower().target_encode(folds=4)}, 600, r"folds=\[3, 4\]"),
        ({"a": WORD.target_encode()}, 1, "all training rows are alike"),
    ],
)
def test_what_cannot_be_encoded_out_of_fold_is_refused(outputs: dict[str, object], rows: int, said: str) -> None:
    table, target = sample(rows)
    with pytest.raises(InvalidDefinition, match=said):
        out_of_fold(Transform(outputs), table, rows, target)  # type: ignore[arg-type]  # outputs are expressions
