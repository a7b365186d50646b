"""What training leads one to expect of served rows, as a suite that Great Expectations can run.

Made from a bundle's baseline alone. Nothing in it is vacuous: an empty table fails by its row count, a column without
values by its share of nulls, and a column that training never had a value of is not expected to be anything.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from skewless.dtypes import Dtype
from skewless.quality.catalogue import BETWEEN, IN_SET, NOT_NULL, NUMBERS, ROW_COUNT
from skewless.quality.suite import Expectation, OnFailure, Severity, Suite
from skewless.statistics.baseline import Baseline
from skewless.statistics.variable import LISTED, NAN, NULL, Measure, Part, Variable
from skewless.timestamps import SECOND_US

ROWS_MIN = 20
"""Fewer rows than that say nothing."""
NULLS_BEYOND = 0.05
"""Share of values that may be null beyond training's."""
MOSTLY = 0.99
"""Share of values that must lie in training's range: training has not seen the last extreme."""
LISTED_SHARE_MIN = 0.5
"""Of an open vocabulary, listed words must make up so much of training for their share to say something."""
_MEAN = "expect_column_mean_to_be_between"


def age_column(view: str) -> str:
    """What the column with the ages of a view's rows is called, in seconds."""
    return f"age of {view} (s)"


def training_suite(endpoint: str, baseline: Baseline, *, without: frozenset[str] = frozenset()) -> Suite:
    """The suite of rows that a bundle served; columns `without` are expected nothing of.

    Columns are named as in the contract, ages by `age_column`, scores as the baseline names them.
    """
    found = [_expectation(ROW_COUNT, Severity.CRITICAL, "rows to say something", min_value=ROWS_MIN)]
    for variable in baseline.variables:
        if variable.part is Part.OUTPUT or (variable.part is Part.COLUMN and variable.name in without):
            continue
        found += _of_variable(variable)
    return Suite(f"drift of {endpoint}", endpoint, tuple(found))


def _of_variable(variable: Variable) -> Iterator[Expectation]:
    known = variable.total - _nulls(variable)
    if not known:
        return
    name = age_column(variable.name) if variable.part is Part.AGE else variable.name
    yield from _not_null(variable, name)
    if variable.part is Part.AGE:
        yield from _age(variable, name)
    elif variable.measure is Measure.WORD:
        yield from _words(variable, name)
    elif variable.measure is Measure.NUMBER and variable.dtype in NUMBERS:
        yield from _numbers(variable, name)
    elif variable.dtype is Dtype.BOOL:
        yield from _constant(variable, name)


def _nulls(variable: Variable) -> int:
    """Values that Great Expectations takes for null: NaN is one of them."""
    return variable.counts[NULL] + (0 if variable.vocabulary is not None else variable.counts[NAN])


def _not_null(variable: Variable, name: str) -> Iterator[Expectation]:
    share = _nulls(variable) / variable.total
    least = 1.0 - share - NULLS_BEYOND
    if least > 0.0:
        severity = Severity.WARNING if share else Severity.CRITICAL
        yield _expectation(NOT_NULL, severity, f"{share:.1%} null in training", column=name, mostly=_rounded(least))


def _age(variable: Variable, name: str) -> Iterator[Expectation]:
    if (moments := variable.moments) is not None:
        oldest = moments.maximum / SECOND_US
        yield _expectation(
            BETWEEN,
            Severity.WARNING,
            "no older than in training",
            column=name,
            min_value=0.0,
            max_value=oldest,
            mostly=MOSTLY,
        )


def _numbers(variable: Variable, name: str) -> Iterator[Expectation]:
    moments = variable.moments
    if moments is None:
        return
    low, high = moments.minimum, moments.maximum
    told = f"training's range, {low:.6g} to {high:.6g}"
    yield _expectation(BETWEEN, Severity.WARNING, told, column=name, min_value=low, max_value=high, mostly=MOSTLY)
    if moments.deviation:
        bounds = {"min_value": moments.mean - moments.deviation, "max_value": moments.mean + moments.deviation}
        yield _expectation(_MEAN, Severity.INFO, "within a deviation of training's mean", column=name, **bounds)


def _words(variable: Variable, name: str) -> Iterator[Expectation]:
    vocabulary = variable.vocabulary
    assert vocabulary is not None
    listed = sum(variable.counts[LISTED:]) / (variable.total - variable.nulls)
    if not vocabulary.listed or (listed < LISTED_SHARE_MIN and not vocabulary.closed):
        return
    least = listed - NULLS_BEYOND if vocabulary.rest or not vocabulary.closed else MOSTLY
    if least > 0.0:
        told = f"words that made up {listed:.1%} in training"
        words = list(vocabulary.listed)
        yield _expectation(IN_SET, Severity.WARNING, told, column=name, value_set=words, mostly=_rounded(least))


def _constant(variable: Variable, name: str) -> Iterator[Expectation]:
    """Of a boolean that was always the same."""
    moments = variable.moments
    if moments is not None and moments.minimum == moments.maximum:
        always = bool(moments.minimum)
        told = f"always {str(always).lower()} in training"
        yield _expectation(IN_SET, Severity.WARNING, told, column=name, value_set=[always], mostly=MOSTLY)


def _rounded(share: float) -> float:
    return round(min(share, 1.0), 4)


def _expectation(kind: str, severity: Severity, reason: str, **kwargs: Any) -> Expectation:
    meta: Mapping[str, Any] = {"reason": reason}
    return Expectation(kind, kwargs, severity, OnFailure.PASS, meta)
