"""A bundle's baseline: the same for training rows in any order, exact on disk, small, refused where it is wrong."""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from numpy.typing import NDArray

from harness.examples import examples
from skewless import canonical_json
from skewless.dtypes import Column, Dtype, column_of
from skewless.errors import InvalidDefinition
from skewless.features.contract import FeatureContract, FeatureField, JoinKey, RequestField, ViewRead
from skewless.features.visibility import STATUS_CODE, Status
from skewless.statistics.ages import NO_AGE
from skewless.statistics.baseline import Baseline, baseline_of
from skewless.statistics.schema import baseline_schema
from skewless.statistics.variable import Part
from skewless.statistics.words import KNOWN_MAX
from skewless.transforms import FittedTransform, Transform, column

PUBLISHED = Path(__file__).parents[2] / "docs" / "schemas" / "baseline-1.json"
VALIDATOR = Draft202012Validator(baseline_schema())
SIZE_MAX = 256 * 1024
ROWS = 400
CONTRACT = FeatureContract(
    project="flights",
    views=(
        ViewRead(
            "weather",
            (JoinKey("origin", Dtype.STRING),),
            0,
            (
                FeatureField("temp", Dtype.FLOAT32),
                FeatureField("codes", Dtype.STRING_LIST),
                FeatureField("never", Dtype.FLOAT64),
                FeatureField("seen_at", Dtype.TIMESTAMP),
            ),
        ),
    ),
    request_fields=(RequestField("distance", Dtype.INT64), RequestField("tailnum", Dtype.STRING, nullable=True)),
    definitions_digest=canonical_json.digest("definitions"),
)
TRANSFORM = Transform(
    {
        "temp": column("weather__temp", Dtype.FLOAT32).impute(0.0).standardise(),
        "origin": column("origin", Dtype.STRING).one_hot(categories=["EWR", "JFK"]),
    }
)


@dataclass(frozen=True)
class Rows:
    """Training rows of CONTRACT."""

    columns: dict[str, Column]
    scores: NDArray[np.float32]
    ages_us: NDArray[np.int64]
    statuses: dict[str, NDArray[np.uint8]]

    def take(self, order: NDArray[np.intp]) -> "Rows":
        return Rows(
            {name: Column(each.dtype, each.values[order], each.valid[order]) for name, each in self.columns.items()},
            self.scores[order],
            self.ages_us[order],
            {name: codes[order] for name, codes in self.statuses.items()},
        )

    def baseline(self, transform: FittedTransform) -> Baseline:
        rows = len(self.scores)
        tensor = transform.prepare().apply(self.columns, rows)
        ages = {"weather": self.ages_us}
        return baseline_of(
            CONTRACT, transform, self.columns, tensor, {"score": self.scores}, ages, rows, statuses=self.statuses
        )


def training_rows(rows: int = ROWS, seed: int = 1) -> Rows:
    rng = np.random.default_rng(seed)

    def some(items: list[Any], null_share: float = 0.1) -> tuple[Any, ...]:
        return tuple(None if rng.random() < null_share else item for item in items)

    temperatures = rng.normal(10, 8, rows).round(1)
    temperatures[rng.random(rows) < 0.2] = 0.0
    columns = {
        "origin": column_of(Dtype.STRING, rng.choice(["EWR", "JFK", "LGA"], rows).tolist()),
        "distance": column_of(Dtype.INT64, rng.integers(80, 5000, rows).tolist()),
        "tailnum": column_of(Dtype.STRING, some([f"N{number}" for number in rng.integers(0, 9000, rows)])),
        "weather__temp": column_of(Dtype.FLOAT32, some(temperatures.tolist())),
        "weather__codes": column_of(Dtype.STRING_LIST, some([("a",) * int(n) for n in rng.poisson(1.5, rows)])),
        "weather__never": column_of(Dtype.FLOAT64, (None,) * rows),
        "weather__seen_at": column_of(Dtype.TIMESTAMP, rng.integers(10**15, 2 * 10**15, rows).tolist()),
    }
    statuses = {
        name: np.where(columns[name].valid, 0, STATUS_CODE[Status.MISSING]).astype(np.uint8)
        for name in CONTRACT.view_of_column
    }
    ages = np.where(rng.random(rows) < 0.05, NO_AGE, rng.integers(0, 4 * 3600 * 10**6, rows))
    return Rows(columns, rng.random(rows).astype(np.float32), ages, statuses)


FITTED = TRANSFORM.fit(training_rows().columns, ROWS)
BASELINE = training_rows().baseline(FITTED)


def variable(name: str, part: Part = Part.COLUMN) -> Any:
    return next(each for each in BASELINE.variables if each.key == (part, name))


def test_a_baseline_has_every_column_output_score_and_view() -> None:
    assert [each.name for each in BASELINE.of(Part.COLUMN)] == [name for name, _ in CONTRACT.columns]
    assert tuple(each.name for each in BASELINE.of(Part.OUTPUT)) == FITTED.output_names
    assert [each.key for each in BASELINE.variables[-2:]] == [(Part.SCORE, "score"), (Part.AGE, "weather")]
    assert BASELINE.rows == ROWS


def test_training_has_nothing_that_it_never_saw() -> None:
    assert {each.unseen for each in BASELINE.variables} <= {0, None}
    assert all(each.total == ROWS for each in BASELINE.variables)


def test_a_zero_of_many_rows_has_a_bin_of_its_own() -> None:
    temperature, column_ = variable("weather__temp"), training_rows().columns["weather__temp"]
    zeros = int(np.count_nonzero((column_.values == 0) & column_.valid))
    own = 3 + sum(edge <= 0.0 for edge in temperature.edges)
    assert temperature.counts[own] == zeros
    assert temperature.nulls == np.count_nonzero(~column_.valid)


def test_moments_are_of_the_values_that_are_there() -> None:
    column_ = training_rows().columns["weather__temp"]
    values = column_.values[column_.valid].astype(np.float64)
    moments = variable("weather__temp").moments
    assert moments.count == len(values)
    assert moments.mean == pytest.approx(values.mean(), rel=1e-12)
    assert moments.deviation == pytest.approx(values.std(), rel=1e-12)
    assert (moments.minimum, moments.maximum) == (values.min(), values.max())


def test_a_column_that_is_always_null_has_one_bin_and_no_moments() -> None:
    never = variable("weather__never")
    assert never.edges == ()
    assert never.moments is None
    assert never.counts == (ROWS, 0, 0, 0, 0)


def test_times_are_counted_by_their_hour_and_lists_by_their_length() -> None:
    rows = training_rows()
    hours = np.bincount(rows.columns["weather__seen_at"].values.astype(np.int64) // 3_600_000_000 % 24, minlength=24)
    assert variable("weather__seen_at").finite_counts.tolist() == hours.tolist()
    lengths = [len(item) for item in rows.columns["weather__codes"].values if isinstance(item, tuple)]
    assert variable("weather__codes").moments.maximum == max(lengths)


def test_statuses_are_those_of_training_and_only_of_stored_features() -> None:
    assert variable("weather__never").statuses == {"missing": ROWS}
    assert variable("origin").statuses is None
    assert sum(variable("weather__temp").statuses.values()) == ROWS


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_the_rows_does_not_show(seed: int) -> None:
    order = np.random.default_rng(seed).permutation(ROWS)
    assert training_rows().take(order).baseline(FITTED).digest == BASELINE.digest


def test_no_rows_have_a_baseline() -> None:
    empty = training_rows().take(np.array([], dtype=np.intp)).baseline(FITTED)
    assert {each.total for each in empty.variables} == {0}
    assert Baseline.from_json(json.loads(canonical_json.encode(empty.to_json()))) == empty


def test_scores_may_be_of_other_rows() -> None:
    rows = training_rows()
    tensor = FITTED.prepare().apply(rows.columns, ROWS)
    scores = {"score": rows.scores[:50], "margin": rows.scores}
    baseline = baseline_of(CONTRACT, FITTED, rows.columns, tensor, scores, {}, ROWS)
    assert [(each.name, each.total) for each in baseline.of(Part.SCORE)] == [("score", 50), ("margin", ROWS)]
    assert Baseline.from_json(baseline.to_json()) == baseline


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda given: given["columns"].pop("distance"), "column `distance` of the contract is missing"),
        (
            lambda given: given["columns"].update(distance=column_of(Dtype.INT32, (1,) * ROWS)),
            "column `distance` is `int32`",
        ),
        (lambda given: given["columns"].update(distance=column_of(Dtype.INT64, (1,))), "column `distance` has 1 rows"),
        (lambda given: given.update(tensor=given["tensor"][:, :1]), "the tensor has shape"),
        (lambda given: given.update(tensor=given["tensor"][1:]), "the tensor has shape"),
        (lambda given: given.update(ages_us={"weather": np.array([1])}), "age `weather` has 1 rows"),
        (lambda given: given.update(statuses={"weather__temp": np.zeros(ROWS, dtype=np.uint8)}), "status of feature"),
    ],
)
def test_rows_that_do_not_fit_are_refused(change: Callable[[dict[str, Any]], object], message: str) -> None:
    rows = training_rows()
    given_: dict[str, Any] = {
        "columns": dict(rows.columns),
        "tensor": FITTED.prepare().apply(rows.columns, ROWS),
        "scores": {"score": rows.scores},
        "ages_us": {"weather": rows.ages_us},
        "statuses": rows.statuses,
    }
    change(given_)
    with pytest.raises(InvalidDefinition, match=message):
        baseline_of(contract=CONTRACT, transform=FITTED, rows=ROWS, **given_)


def test_a_baseline_fits_its_own_contract_and_transform_only() -> None:
    BASELINE.check_fits(CONTRACT, FITTED)
    renamed = FeatureContract("p", CONTRACT.views, (RequestField("miles", Dtype.INT64),), CONTRACT.definitions_digest)
    with pytest.raises(
        InvalidDefinition, match="at place 1 it has `distance` as `int64` instead of `miles` as `int64`"
    ):
        BASELINE.check_fits(renamed, FITTED)
    other = Transform({"x": column("weather__temp", Dtype.FLOAT32).impute(0.0)}).fit(training_rows().columns, ROWS)
    with pytest.raises(InvalidDefinition, match="outputs are others"):
        BASELINE.check_fits(CONTRACT, other)
    data = BASELINE.to_json()
    data["ages"][0]["name"] = "elsewhere"
    with pytest.raises(InvalidDefinition, match="ages of view `elsewhere`"):
        Baseline.from_json(data).check_fits(CONTRACT, FITTED)


def test_what_is_read_back_is_what_was_written() -> None:
    read = Baseline.from_json(json.loads(canonical_json.encode(BASELINE.to_json())))
    assert read == BASELINE
    assert read.to_json() == BASELINE.to_json()
    assert read.digest == BASELINE.digest
    assert read.counter().layout.digest == BASELINE.counter().layout.digest


@settings(max_examples=examples(60), deadline=None)
@given(
    st.lists(st.none() | st.floats(width=32), max_size=20),
    st.lists(st.none() | st.floats(), max_size=20),
    st.lists(st.none() | st.text(), max_size=20),
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=20),
)
def test_any_values_are_written_and_read_back(
    singles: list[Any], doubles: list[Any], texts: list[Any], wholes: list[Any]
) -> None:
    rows = min(map(len, (singles, doubles, texts, wholes)))
    assume(rows > 0)  # no transform can be fitted on none
    dtypes = (Dtype.FLOAT32, Dtype.FLOAT64, Dtype.STRING, Dtype.INT64)
    fields = tuple(RequestField(f"{dtype}", dtype, nullable=True) for dtype in dtypes)
    contract = FeatureContract("p", (), fields, CONTRACT.definitions_digest)
    columns = {
        field.name: column_of(field.dtype, items[:rows])
        for field, items in zip(fields, (singles, doubles, texts, wholes), strict=True)
    }
    fitted = Transform({"missing": column("float32", Dtype.FLOAT32).is_null()}).fit(columns, rows)
    tensor = fitted.prepare().apply(columns, rows)
    baseline = baseline_of(contract, fitted, columns, tensor, {}, {}, rows)
    data = json.loads(canonical_json.encode(baseline.to_json()))
    assert Baseline.from_json(data) == baseline
    assert Baseline.from_json(data).to_json() == data
    assert list(VALIDATOR.iter_errors(data)) == []


def _places(data: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path, *(place for key, each in items for place in _places(each, (*path, key)))]


def _changed(path: tuple[str | int, ...], value: Any) -> Any:
    """The stored baseline with another value at a path, or without it where the value is KeyError."""
    data: Any = copy.deepcopy(STORED)
    if not path:
        return value
    holder = data
    for key in path[:-1]:
        holder = holder[key]
    if value is KeyError:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    return data


STORED = json.loads(canonical_json.encode(BASELINE.to_json()))
PLACES = _places(STORED)


@settings(max_examples=examples(300), deadline=None)
@given(st.sampled_from(PLACES), st.sampled_from([None, True, -1, 1.5, "a", [], {}, 10**400, KeyError]))
def test_any_other_json_is_refused_or_is_a_baseline(path: tuple[str | int, ...], value: Any) -> None:
    if value is KeyError and not path:
        return
    changed = _changed(path, value)
    try:
        read = Baseline.from_json(changed)
    except InvalidDefinition:
        return
    assert Baseline.from_json(read.to_json()) == read


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ((), [], "the baseline is"),
        (("format",), 2, "format 2; this version reads 1"),
        (("rows",), ROWS + 1, r"`origin` \(columns\[0\]\) counts 400 values of the baseline's 401 rows"),
        (("rows",), -1, "whole numbers from 0"),
        (("extra",), 1, "unknown field `extra`"),
        (("columns", 0, "words", 0), "JFK", "each once"),
        (("columns", 0, "words", 0), "x" * 65, "64 bytes"),
        (("columns", 0, "rest"), "AAA", "32-bit numbers in base64"),
        (("columns", 0, "rest"), "/////wAAAAA=", "ascending"),
        (("columns", 0, "closed"), 1, "closed is 1"),
        (("columns", 0, "dtype"), "int64", "is `int64` and has words"),
        (("columns", 1, "dtype"), "decimal", "dtype is 'decimal'"),
        (("columns", 1, "edges", 0), 10**9, "strictly ascending"),
        (("columns", 1, "edges", 0), 79.5, "of `int64` only whole numbers"),
        (("columns", 1, "counts"), [], "has 0 counts of the"),
        (("columns", 1, "moments"), None, "moments of another number of values"),
        (("columns", 1, "moments", "deviation"), -1.0, "moments are those of no numbers"),
        (("columns", 3, "statuses", "ok"), 1, "statuses count"),
        (("columns", 3, "statuses", "lost"), 1, "unknown field `lost`"),
        (("outputs", 0, "dtype"), "float64", "allowed: float32"),
        (("outputs", 0, "edges", 0), 1e39, "finite numbers"),
        (("outputs", 0, "statuses"), {}, "unknown field `statuses`"),
        (("outputs", 1, "name"), "temp", "two variables of one part and name"),
    ],
)
def test_a_wrong_baseline_is_refused_with_its_place(path: tuple[str | int, ...], value: Any, message: str) -> None:
    with pytest.raises(InvalidDefinition, match=message):
        Baseline.from_json(_changed(path, value))


def test_the_published_schema_is_current_and_a_schema() -> None:
    assert json.loads(PUBLISHED.read_text()) == baseline_schema(), (
        "write json.dumps(skewless.statistics.schema.baseline_schema(), indent=2, ensure_ascii=False) into it again"
    )
    Draft202012Validator.check_schema(baseline_schema())


def test_a_baseline_is_valid_by_the_published_schema() -> None:
    assert [error.json_path for error in VALIDATOR.iter_errors(STORED)] == []


@settings(max_examples=examples(100), deadline=None)
@given(st.sampled_from(PLACES), st.sampled_from([True, -1, 1.5, "a", [], {}]))
def test_what_the_loader_takes_is_valid_by_the_schema(path: tuple[str | int, ...], value: Any) -> None:
    changed = _changed(path, value)
    try:
        Baseline.from_json(changed)
    except InvalidDefinition:
        return
    assert [error.json_path for error in VALIDATOR.iter_errors(changed)] == []


@pytest.mark.parametrize("strings", [20, 120])
def test_a_baseline_of_120_columns_is_small(strings: int) -> None:
    """In the worst case: every number distinct, with all digits, and vocabularies as large as are kept."""
    rows, rng = 2_000, np.random.default_rng(9)
    words = [f"category number {place:04d}" for place in range(KNOWN_MAX)]
    columns: dict[str, Column] = {}
    for place in range(120):
        if place < strings:
            columns[f"a_rather_long_view__column_{place:03d}"] = column_of(
                Dtype.STRING, tuple(words[index] for index in rng.integers(0, len(words), rows))
            )
        else:
            values = rng.lognormal(0, 3, rows)
            columns[f"a_rather_long_view__column_{place:03d}"] = Column(
                Dtype.FLOAT64, values, np.ones(rows, dtype=np.bool_)
            )
    fields = tuple(RequestField(name, each.dtype, nullable=True) for name, each in columns.items())
    contract = FeatureContract("p", (), fields, CONTRACT.definitions_digest)
    name = next(iter(columns))
    fitted = Transform({"x": column(name, Dtype.STRING).is_null()}).fit(columns, rows)
    baseline = baseline_of(contract, fitted, columns, fitted.prepare().apply(columns, rows), {}, {}, rows)
    assert len(canonical_json.encode(baseline.to_json())) <= SIZE_MAX
