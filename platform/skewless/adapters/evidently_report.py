"""Evidently's page about a window beside a reference, out of rows. The only importer of Evidently.

Evidently takes raw rows and no counts, and by itself chooses bins over both sides together, drops what is null or
infinite without a word, and gives up where a column is empty. So here the method is pinned to the stability index in
the bins of training, nulls are counted by a metric of their own, and what cannot be compared is said in `notes`.

The import takes 4 to 10 s and 300 MB: only processes that write a report pay for it.
"""

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import Column, Dtype
from skewless.statistics.counter import Counter
from skewless.statistics.divergence import population_stability, stability_limit
from skewless.statistics.forms import measured
from skewless.statistics.observed import Observed
from skewless.statistics.variable import BELOW, NULL, Measure, Part, Variable

DRIFT_SCORE = 0.1
"""Stability index from which a column is called drifted, where chance does not reach it."""
NULLS_BEYOND = 0.05
"""Share of values that may be missing beyond the reference's before Evidently's test fails."""
UNLISTED = "(not listed)"
"""What stands for every word without a bin of its own: pages tell frequent words only, and stay small."""
_POLICY = (
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src 'unsafe-inline'"
    " 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:\">"
)
"""Evidently's page holds all that it needs; with this a browser asks nobody for more, whatever the scripts name."""


@dataclass(frozen=True, slots=True)
class ComparedColumn:
    """A column on both sides. `bins` is the variable of the baseline, whose bins are used; its counts are not."""

    bins: Variable
    reference: Column
    current: Column


@dataclass(frozen=True, slots=True)
class EvidentlyPage:
    """The page's text, the score of each column by name, and what the reader must know about it."""

    html: str
    scores: dict[str, float]
    notes: tuple[str, ...]


def evidently_page(columns: Sequence[ComparedColumn], *, title: str) -> EvidentlyPage:
    """Evidently's report of columns, current beside reference. At least one column must be given.

    Takes about 20 ms a column at 5,000 rows, after the import. What is sent anywhere: nothing, see docs/reports.md.
    """
    os.environ.setdefault("DO_NOT_TRACK", "1")  # before the import, which reads it
    with warnings.catch_warnings():
        # Of Evidently and its dependencies, about themselves: deprecated names and empty columns.
        warnings.simplefilter("ignore")
        return _page(columns, title)


def _page(columns: Sequence[ComparedColumn], title: str) -> EvidentlyPage:
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import MissingValueCount, ValueDrift
    from evidently.tests import lte

    notes: list[str] = []
    series = {each.bins.name: _both_series(each, notes) for each in columns}
    words = [each.bins.name for each in columns if each.bins.measure is Measure.WORD]
    definition = DataDefinition(
        numerical_columns=[name for name in series if name not in words], categorical_columns=words
    )
    reference, current = (
        Dataset.from_pandas(pd.DataFrame(_of(series, place)), data_definition=definition) for place in (0, 1)
    )
    metrics: list[Any] = []
    compared = [each for each in columns if _is_comparable(series[each.bins.name], each.bins.name, notes)]
    for place, each in enumerate(compared):
        method, limit = _registered(place, each.bins), _chance_limit(each.bins, series[each.bins.name])
        metrics.append(ValueDrift(column=each.bins.name, method=method, threshold=max(DRIFT_SCORE, limit)))
    for each in columns:
        allowed = min(_null_share(series[each.bins.name][0]) + NULLS_BEYOND, 1.0)
        metrics.append(MissingValueCount(column=each.bins.name, share_tests=[lte(allowed)]))
    snapshot = Report(metrics, include_tests=True).run(current, reference, name=title)
    scores = [float(metric["value"]) for metric in snapshot.dict()["metrics"][: len(compared)]]
    html = snapshot.get_html_str(as_iframe=False).replace("<head>", f"<head>{_POLICY}", 1)
    by_name = {each.bins.name: score for each, score in zip(compared, scores, strict=True)}
    return EvidentlyPage(html, by_name, tuple(notes))


def _of(series: dict[str, tuple[Any, Any]], place: int) -> dict[str, Any]:
    return {name: both[place] for name, both in series.items()}


def _both_series(column: ComparedColumn, notes: list[str]) -> tuple[Any, Any]:
    """Reference and current as pandas has them: floats with NaN for missing, or words with None."""
    both = (column.reference, column.current)
    if column.bins.measure is Measure.WORD:
        return _words(column.bins, column.reference), _words(column.bins, column.current)
    numbers = [_numbers(column.bins, each) for each in both]
    for side, values, given in zip(("reference", "current"), numbers, both, strict=True):
        lost = int(np.count_nonzero(np.isnan(values))) - int(np.count_nonzero(~given.valid))
        if lost:
            notes.append(f"`{column.bins.name}`: {lost:,} values of the {side} rows are infinite or NaN; here missing")
    return _drawn(column.bins, numbers[0], notes), _drawn(column.bins, numbers[1], notes)


def _numbers(bins: Variable, column: Column) -> NDArray[np.float64]:
    """What is counted of each value (rows,), NaN for null, NaN and infinite."""
    numbers = np.full(len(column), np.nan)
    numbers[column.valid] = measured(bins.measure, column.values[column.valid])
    numbers[~np.isfinite(numbers)] = np.nan
    return numbers


def _drawn(bins: Variable, numbers: NDArray[np.float64], notes: list[str]) -> NDArray[np.float64]:
    """Numbers within reach of training's: one outlier would squeeze every plot into one bar.

    The bins at both ends are open, so that no count of a bin changes.
    """
    if bins.moments is None:
        return numbers
    span = (bins.moments.maximum - bins.moments.minimum) or max(abs(bins.moments.maximum), 1.0)
    low, high = bins.moments.minimum - span, bins.moments.maximum + span
    beyond = int(np.count_nonzero((numbers < low) | (numbers > high)))
    if beyond:
        notes.append(f"`{bins.name}`: {beyond:,} values beyond {low:.6g} to {high:.6g} are drawn at those ends")
    return np.clip(numbers, low, high)


def _words(bins: Variable, column: Column) -> NDArray[np.object_]:
    listed = frozenset(bins.vocabulary.listed) if bins.vocabulary else frozenset()
    words = [word if word in listed else UNLISTED for word in column.values.tolist()]
    return np.array([word if ok else None for word, ok in zip(words, column.valid.tolist(), strict=True)], dtype=object)


def _is_comparable(both: tuple[Any, Any], name: str, notes: list[str]) -> bool:
    """Whether both sides have a value at all: Evidently gives its whole report up for a column that has none."""
    empty = [side for side, values in zip(("reference", "current"), both, strict=True) if _null_share(values) == 1.0]
    if empty:
        notes.append(f"`{name}`: every value of the {' and '.join(empty)} rows is missing; not compared")
    return not empty


def _null_share(values: Any) -> float:
    if values.dtype == object:
        return sum(value is None for value in values.tolist()) / max(len(values), 1)
    return float(np.isnan(values).mean()) if len(values) else 1.0


def _registered(place: int, bins: Variable) -> str:
    """The name of a method of Evidently's that gives the stability index in a variable's bins.

    Registered anew for each report: names are of this process alone.
    """
    from evidently.legacy.calculations.stattests.registry import StatTest, register_stattest
    from evidently.legacy.core import ColumnType

    name = f"psi_in_bins_of_training_{place}"
    test = StatTest(
        name=name,
        display_name="PSI in the bins of training",
        allowed_feature_types=[ColumnType.Numerical, ColumnType.Categorical],
        default_threshold=DRIFT_SCORE,
    )
    register_stattest(test, default_impl=_stability(bins))
    return name


def _stability(bins: Variable) -> Callable[[Any, Any, Any, float], tuple[float, bool]]:
    def impl(reference: Any, current: Any, _kind: Any, threshold: float) -> tuple[float, bool]:
        score = population_stability(*(_counts(bins, each.to_numpy()) for each in (reference, current))) or 0.0
        return score, score >= threshold

    return impl


def _chance_limit(bins: Variable, both: tuple[Any, Any]) -> float:
    return stability_limit(*(_counts(bins, each) for each in both)) or 0.0


def _counts(bins: Variable, values: Any) -> NDArray[np.float64]:
    """How often each bin but that of nulls was hit by values as `_both_series` gives them."""
    if bins.measure is Measure.WORD:
        known = [value is not None and value == value for value in values.tolist()]  # pandas may make None a NaN
        column = Column(Dtype.STRING, np.where(known, values, ""), np.array(known, dtype=np.bool_))
    else:
        numbers = values.astype(np.float64)
        column = Column(Dtype.FLOAT64, np.nan_to_num(numbers), ~np.isnan(numbers))
    # What is counted are numbers already (hours and lengths too), compared as float64 as the bins' own are.
    plain = replace(bins, part=Part.COLUMN, dtype=column.dtype, statuses=None)
    counter = Counter([plain])
    tally = counter.empty()
    counter.add(Observed(len(column), {bins.name: column}), tally)
    counts = np.array(counter.layout.counted(tally)[0].counts, dtype=np.float64)
    return counts[NULL + 1 :] if bins.measure is Measure.WORD else counts[BELOW:-1]
