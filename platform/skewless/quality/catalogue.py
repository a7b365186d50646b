"""The expectations that a suite may have: a part of Great Expectations' own, with their arguments.

Great Expectations drops an expectation of a type that it does not know, without an error, and takes seconds to import.
So what is allowed is written down here, and a test holds it against Great Expectations itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from skewless.dtypes import ELEMENTS, NUMERIC, Dtype

ORDERED = frozenset({*NUMERIC, Dtype.TIMESTAMP}) - {Dtype.BOOL}
COUNTABLE = frozenset({*NUMERIC, Dtype.TIMESTAMP, Dtype.STRING})
TEXT = frozenset({Dtype.STRING})
NUMBERS = frozenset(NUMERIC) - {Dtype.BOOL}
ANY = frozenset(Dtype)
SINGLE = ANY - frozenset(ELEMENTS)


class Judged(StrEnum):
    """What an expectation is about, and so what may follow from it."""

    ROWS = "rows"
    """Every row by itself: rows that fail can be set aside."""
    BATCH = "batch"
    """The batch as a whole: it passes, warns or stops."""


class Argument(StrEnum):
    """What an argument may be."""

    COLUMN = "a column of the view"
    COLUMNS = "a list of two columns of the view or more"
    BOUND = (
        "a number, whole ones up to 2**53; of a timestamp column a time such as 2013-01-01T00:00:00Z, or {as_of: +5m}"
    )
    NUMBER = "a number"
    COUNT = "a whole number, 0 or more"
    SHARE = "a number from 0 to 1"
    MOSTLY = "a number above 0 and up to 1"
    SWITCH = "true or false"
    VALUES = "a list of values of the column's type, not empty"
    PATTERN = "a regular expression"
    QUANTILES = "{quantiles: [0.5, …], value_ranges: [[low, high], …]}, as many ranges as quantiles"


@dataclass(frozen=True, slots=True)
class ExpectationType:
    """One expectation. Of `one_of` at least one must be given; `dtypes` are those of columns that it can judge."""

    judged: Judged
    arguments: Mapping[str, Argument]
    required: frozenset[str] = frozenset()
    one_of: frozenset[str] = frozenset()
    dtypes: frozenset[Dtype] = ANY


_BOUNDS = {
    "min_value": Argument.BOUND,
    "max_value": Argument.BOUND,
    "strict_min": Argument.SWITCH,
    "strict_max": Argument.SWITCH,
}
_EITHER = frozenset({"min_value", "max_value"})
_COLUMN = {"column": Argument.COLUMN}


def _rows(
    arguments: Mapping[str, Argument],
    *,
    dtypes: frozenset[Dtype] = ANY,
    required: frozenset[str] = frozenset(),
    one_of: frozenset[str] = frozenset(),
) -> ExpectationType:
    """Of one column, row by row."""
    given = {**_COLUMN, **arguments, "mostly": Argument.MOSTLY}
    return ExpectationType(Judged.ROWS, given, required | {"column"}, one_of, dtypes)


def _aggregate(bound: Argument, dtypes: frozenset[Dtype]) -> ExpectationType:
    """A number about one column, between bounds."""
    given = {**_COLUMN, **_BOUNDS, "min_value": bound, "max_value": bound}
    return ExpectationType(Judged.BATCH, given, frozenset({"column"}), _EITHER, dtypes)


def _values(required: str) -> ExpectationType:
    """The distinct values of one column."""
    given = {**_COLUMN, required: Argument.VALUES}
    return ExpectationType(Judged.BATCH, given, frozenset({"column", required}), dtypes=SINGLE)


NOT_NULL = "expect_column_values_to_not_be_null"
NON_NULL_SHARE = "expect_column_proportion_of_non_null_values_to_be_between"
ROW_COUNT = "expect_table_row_count_to_be_between"
BETWEEN = "expect_column_values_to_be_between"
IN_SET = "expect_column_values_to_be_in_set"
UNIQUE = "expect_compound_columns_to_be_unique"
UNIQUE_COLUMN = "expect_column_values_to_be_unique"
LATER = "expect_column_pair_values_a_to_be_greater_than_b"
MEDIAN = "expect_column_median_to_be_between"
INCREASING = "expect_column_values_to_be_increasing"

CATALOGUE: Mapping[str, ExpectationType] = {
    NOT_NULL: _rows({}),
    "expect_column_values_to_be_null": _rows({}),
    BETWEEN: _rows(_BOUNDS, dtypes=ORDERED, one_of=_EITHER),
    IN_SET: _rows({"value_set": Argument.VALUES}, dtypes=SINGLE, required=frozenset({"value_set"})),
    "expect_column_values_to_not_be_in_set": _rows(
        {"value_set": Argument.VALUES}, dtypes=SINGLE, required=frozenset({"value_set"})
    ),
    UNIQUE_COLUMN: _rows({}, dtypes=SINGLE),
    "expect_column_values_to_match_regex": _rows(
        {"regex": Argument.PATTERN}, dtypes=TEXT, required=frozenset({"regex"})
    ),
    "expect_column_values_to_not_match_regex": _rows(
        {"regex": Argument.PATTERN}, dtypes=TEXT, required=frozenset({"regex"})
    ),
    "expect_column_value_lengths_to_be_between": _rows(
        {**_BOUNDS, "min_value": Argument.COUNT, "max_value": Argument.COUNT}, dtypes=TEXT, one_of=_EITHER
    ),
    LATER: ExpectationType(
        Judged.ROWS,
        {
            "column_A": Argument.COLUMN,
            "column_B": Argument.COLUMN,
            "or_equal": Argument.SWITCH,
            "mostly": Argument.MOSTLY,
        },
        frozenset({"column_A", "column_B"}),
        dtypes=ORDERED,
    ),
    UNIQUE: ExpectationType(
        Judged.ROWS,
        {"column_list": Argument.COLUMNS, "mostly": Argument.MOSTLY},
        frozenset({"column_list"}),
        dtypes=SINGLE,
    ),
    INCREASING: ExpectationType(
        Judged.BATCH,  # a row is out of order only beside another, and it is not known which of the two is wrong
        {**_COLUMN, "strictly": Argument.SWITCH, "mostly": Argument.MOSTLY},
        frozenset({"column"}),
        dtypes=ORDERED,
    ),
    ROW_COUNT: ExpectationType(
        Judged.BATCH, {**_BOUNDS, "min_value": Argument.COUNT, "max_value": Argument.COUNT}, one_of=_EITHER
    ),
    NON_NULL_SHARE: _aggregate(Argument.SHARE, ANY),
    "expect_column_proportion_of_unique_values_to_be_between": _aggregate(Argument.SHARE, SINGLE),
    "expect_column_unique_value_count_to_be_between": _aggregate(Argument.COUNT, SINGLE),
    "expect_column_min_to_be_between": _aggregate(Argument.BOUND, ORDERED),
    "expect_column_max_to_be_between": _aggregate(Argument.BOUND, ORDERED),
    "expect_column_mean_to_be_between": _aggregate(Argument.NUMBER, NUMBERS),
    MEDIAN: _aggregate(Argument.NUMBER, NUMBERS),
    "expect_column_stdev_to_be_between": _aggregate(Argument.NUMBER, NUMBERS),
    "expect_column_sum_to_be_between": _aggregate(Argument.NUMBER, NUMBERS),
    "expect_column_distinct_values_to_be_in_set": _values("value_set"),
    "expect_column_distinct_values_to_contain_set": _values("value_set"),
    "expect_column_quantile_values_to_be_between": ExpectationType(
        Judged.BATCH,
        {**_COLUMN, "quantile_ranges": Argument.QUANTILES},
        frozenset({"column", "quantile_ranges"}),
        dtypes=NUMBERS,
    ),
}
"""By Great Expectations' name."""
