"""Suites run by Great Expectations: the only module that imports it.

Importing it takes seconds, so processes that serve or start commands never do: `quality_worker.py` runs this module in
a child process and hands it one batch after another.

Great Expectations looks at pandas frames. A column becomes what its Arrow type says: integers and booleans with nulls
become pandas' nullable types, so that none of them passes through a float; NaN counts as null. Bounds are floats there,
so whole numbers beyond 2**53 are compared as the nearest float.
"""

import contextlib
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from typing import Any

# Asked for before the import: earlier versions sent usage statistics as soon as they were loaded.
os.environ["GX_ANALYTICS_ENABLED"] = "false"

import numpy as np
import pandas as pd
import pyarrow as pa

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own dependencies; nothing that a user of suites can change
    import great_expectations as gx
    from great_expectations.core.expectation_suite import ExpectationSuite

from skewless.errors import InvalidDefinition
from skewless.monitor_limits import QUALITY_EXAMPLES, QUALITY_TEXT_CHARACTERS_MAX
from skewless.quality.catalogue import CATALOGUE, LATER, Judged
from skewless.quality.results import ExpectationResult
from skewless.quality.suite import Expectation, OnFailure, Suite

_POSITION = "skewless_position"
_NULLABLE: Mapping[Any, Any] = {
    pa.bool_(): pd.BooleanDtype(),
    pa.int8(): pd.Int8Dtype(),
    pa.int16(): pd.Int16Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.uint8(): pd.UInt8Dtype(),
    pa.uint16(): pd.UInt16Dtype(),
    pa.uint32(): pd.UInt32Dtype(),
    pa.uint64(): pd.UInt64Dtype(),
}


_VALUES = frozenset({"min_value", "max_value", "value_set"})
_ALWAYS: Mapping[str, Mapping[str, Any]] = {LATER: {"ignore_row_if": "either_value_is_missing"}}
"""Arguments that are not a suite's to choose: of a pair with one null Great Expectations would say that it fails."""


def run_suite(suite: Suite, table: pa.Table) -> tuple[ExpectationResult, ...]:
    """What came of each expectation, in the suite's order.

    Numbers of failing rows are told for expectations whose failing rows are to be quarantined. Bounds that move with
    the moment must be bound before (`quality.binding`). Raises InvalidDefinition for a type or argument that Great
    Expectations does not take; what cannot be judged on this table (a column that is missing) is a result with
    `error`. Takes about 0.3 s for 100,000 rows and 20 expectations, and three times the table's memory.
    """
    for each in suite.expectations:
        if each.type not in CATALOGUE:
            raise InvalidDefinition(f"suite `{suite.name}` has the unknown expectation `{each.type}`")
    with _quiet():
        # A context for each batch: one that is kept would keep every batch's metrics with it.
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False}  # type: ignore[assignment]  # it takes a dict, documented
        asset = context.data_sources.add_pandas("batches").add_dataframe_asset("batch")
        batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": _frame(table)})
        validated = batch.validate(_suite(suite, table), result_format={"result_format": "COMPLETE"})
    found = {each.expectation_config.meta[_POSITION]: each for each in validated.results}
    return tuple(
        _result(position, each, found[position], table.num_rows) for position, each in enumerate(suite.expectations)
    )


def _suite(suite: Suite, table: pa.Table) -> Any:
    """Great Expectations' own suite; results come back in another order, so each expectation carries its place."""
    singles = {name for name in table.column_names if pa.types.is_float32(table.schema.field(name).type)}
    listed = [
        {
            "type": each.type,
            "kwargs": {**_as_stored(each, singles), **_ALWAYS.get(each.type, {})},
            "severity": each.severity.value,
            "meta": {_POSITION: position},
        }
        for position, each in enumerate(suite.expectations)
    ]
    try:
        made = ExpectationSuite(name=suite.name, expectations=listed)
    except (ValueError, TypeError) as error:
        raise InvalidDefinition(f"Great Expectations refuses suite `{suite.name}`: {error}") from error
    # What it does not know it drops, and the suite would be weaker and green.
    assert len(made.expectations) == len(suite.expectations), "an expectation of the catalogue was dropped"
    return made


def _as_stored(expectation: Expectation, singles: set[str]) -> dict[str, Any]:
    """Arguments with numbers as a float32 column would have them: its 0.1 lies above the 0.1 that YAML reads."""
    if expectation.kwargs.get("column") not in singles:
        return dict(expectation.kwargs)
    return {name: _single(value) if name in _VALUES else value for name, value in expectation.kwargs.items()}


def _single(value: Any) -> Any:
    if isinstance(value, list):
        return [_single(each) for each in value]
    return float(np.float32(value)) if isinstance(value, float) else value


def _frame(table: pa.Table) -> pd.DataFrame:
    columns = {}
    for name in table.column_names:
        column = table.column(name)
        mapper = _NULLABLE.get if column.null_count else None
        columns[name] = column.to_pandas(types_mapper=mapper)
    return pd.DataFrame(columns, index=pd.RangeIndex(table.num_rows))


def _result(position: int, expectation: Expectation, told: Any, rows: int) -> ExpectationResult:
    found = told.result or {}
    error = _error(told)
    wanted = expectation.on_failure is OnFailure.QUARANTINE and CATALOGUE[expectation.type].judged is Judged.ROWS
    failing = np.asarray(found.get("unexpected_index_list") or [], dtype=np.int64)
    return ExpectationResult(
        position=position,
        # A few kinds answer with NumPy's own booleans, which JSON does not take.
        success=bool(told.success) and not error,
        rows=rows,
        missing=_count(found.get("missing_count")),
        unexpected=_count(found.get("unexpected_count")),
        observed=plain(found.get("observed_value")),
        examples=_examples(found.get("partial_unexpected_list") or []),
        error=error,
        failing_rows=np.sort(failing) if wanted and not error else None,
    )


def _examples(values: list[Any]) -> tuple[object, ...]:
    """The first few different values that say something; of nulls there is nothing to tell."""
    told = [each for each in map(plain, values) if each is not None and each != "nan"]
    return tuple(each for place, each in enumerate(told) if each not in told[:place])[:QUALITY_EXAMPLES]


def _error(told: Any) -> str:
    """Why it could not be judged, in one line; empty where it was."""
    if told.result or told.success:
        return ""
    for each in [told.exception_info, *told.exception_info.values()]:
        if isinstance(each, Mapping) and each.get("exception_message"):
            return str(each["exception_message"]).splitlines()[0][:QUALITY_TEXT_CHARACTERS_MAX]
    return "it could not be judged on this batch"


def _count(value: object) -> int | None:
    return None if value is None else int(str(value))


def plain(value: Any) -> object:
    """A value of NumPy, pandas or Python as plain data; text is cut, what is not finite becomes text."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or value is pd.NaT or value is pd.NA:
        return None
    if isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | np.ndarray):
        return [plain(each) for each in list(value)[:QUALITY_EXAMPLES]]
    return str(value)[:QUALITY_TEXT_CHARACTERS_MAX]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
