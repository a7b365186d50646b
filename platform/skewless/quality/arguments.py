"""Whether an expectation's arguments are ones it takes, and fit the types of the columns it is about."""

import difflib
import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime
from typing import Any

from skewless.dtypes import Dtype
from skewless.quality.binding import offset_us
from skewless.quality.catalogue import NON_NULL_SHARE, Argument, ExpectationType
from skewless.quality.suite import AS_OF
from skewless.quality.view_schema import ViewSchema
from skewless.timestamps import parse_timestamp

Wrong = tuple[tuple[str, ...], str, str]
"""The field within the arguments, what is wrong, and what is allowed."""
_EXACT = 2**53
_FLOATS = frozenset({Dtype.FLOAT32, Dtype.FLOAT64})


def check_arguments(kind: ExpectationType, kwargs: Mapping[str, Any], schema: ViewSchema | None) -> Iterator[Wrong]:
    """Everything that is wrong; a view's columns and their types are looked at where the view is known."""
    for name in sorted(set(kind.required) - set(kwargs)):
        yield (name,), f"`{name}` is missing", kind.arguments[name].value
    for name, value in kwargs.items():
        argument = kind.arguments.get(name)
        if argument is None:
            near = difflib.get_close_matches(str(name), kind.arguments, n=1, cutoff=0.5)
            meant = f", did you mean `{near[0]}`?" if near else ""
            yield (str(name),), f"`{name}` is no argument of it{meant}", ", ".join(kind.arguments)
        elif not _FITS[argument](value):
            yield (name,), f"`{name}` is {value!r}", argument.value
    if kind.one_of and all(kwargs.get(name) is None for name in kind.one_of):
        yield (), "without a bound it can never fail", f"at least one of {', '.join(sorted(kind.one_of))}"
    yield from _empty_range(kwargs)
    if schema is not None:
        yield from _columns(kind, kwargs, schema)


def _columns(kind: ExpectationType, kwargs: Mapping[str, Any], schema: ViewSchema) -> Iterator[Wrong]:
    for name, argument in kind.arguments.items():
        given = kwargs.get(name)
        named = [given] if argument is Argument.COLUMN else given if argument is Argument.COLUMNS else []
        for column in named if isinstance(named, list) else []:
            if not isinstance(column, str):
                continue
            known = schema.by_name.get(column)
            if known is None:
                yield (name,), f"view `{schema.view}` has no column `{column}`", _listed(schema, column)
            elif known.dtype not in kind.dtypes:
                allowed = f"a column of {', '.join(sorted(each.value for each in kind.dtypes))}"
                yield (name,), f"column `{column}` is {known.dtype}, which it cannot judge", allowed
            else:
                yield from _values(kind, kwargs, column, known.dtype)


def _values(kind: ExpectationType, kwargs: Mapping[str, Any], column: str, dtype: Dtype) -> Iterator[Wrong]:
    """Bounds and sets of a type that the column's values never have would always fail, or never."""
    for name, argument in kind.arguments.items():
        value = kwargs.get(name)
        if value is None:
            continue
        if argument is Argument.BOUND and (dtype is Dtype.TIMESTAMP) is (_is_number(value)):
            allowed = "a time or {as_of: +5m}" if dtype is Dtype.TIMESTAMP else "a number"
            yield (name,), f"`{name}` is {value!r}, and column `{column}` is {dtype}", allowed
        if argument is Argument.VALUES and isinstance(value, list):
            odd = [each for each in value if not _is_value(each, dtype)]
            if odd:
                quoted = "; YAML reads unquoted words such as NO and on as booleans: quote them"
                told = f"{odd[0]!r} is no value of column `{column}`, which is {dtype}"
                yield (name,), told, f"values of {dtype}{quoted if dtype is Dtype.STRING else ''}"


def _empty_range(kwargs: Mapping[str, Any]) -> Iterator[Wrong]:
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    if _is_number(low) and _is_number(high) and low > high:  # type: ignore[operator]  # both are numbers
        yield ("min_value",), f"min_value {low} is above max_value {high}", "a range that something lies in"
    switches = [each for each in ("strict_min", "strict_max") if each in kwargs]
    for name in switches:
        if kwargs.get(f"{name[-3:]}_value") is None:
            yield (name,), f"`{name}` says nothing without {name[-3:]}_value", "both, or none of the two"


def cannot_fail(name: str, kwargs: Mapping[str, Any]) -> bool:
    """Whether bounds hold for every share or count there is."""
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    if name == NON_NULL_SHARE or name.startswith("expect_column_proportion"):
        return (low is None or low <= 0) and (high is None or high >= 1) and not _strict(kwargs)
    return False


def _strict(kwargs: Mapping[str, Any]) -> bool:
    return bool(kwargs.get("strict_min") or kwargs.get("strict_max"))


def _listed(schema: ViewSchema, column: str) -> str:
    near = difflib.get_close_matches(column, schema.names(), n=1, cutoff=0.6)
    meant = f" (did you mean `{near[0]}`?)" if near else ""
    return ", ".join(f"`{each}`" for each in schema.names()) + meant


def _is_number(value: object) -> bool:
    """Great Expectations makes floats of bounds, so that a whole number must be one exactly."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= _EXACT if isinstance(value, int) else math.isfinite(value)


def _is_value(value: object, dtype: Dtype) -> bool:
    if dtype is Dtype.BOOL:
        return isinstance(value, bool)
    if dtype is Dtype.STRING:
        return isinstance(value, str)
    if dtype in _FLOATS:
        return _is_number(value)
    if dtype in (Dtype.INT32, Dtype.INT64):
        return isinstance(value, int) and not isinstance(value, bool)
    return False


def _is_bound(value: object) -> bool:
    if isinstance(value, dict):
        offset = value.get(AS_OF)
        return list(value) == [AS_OF] and isinstance(offset, str) and _parses(offset_us, offset)
    if isinstance(value, str):
        return _parses(parse_timestamp, value)
    return value is None or isinstance(value, date | datetime) or _is_number(value)


def _parses(parse: Callable[[str], object], text: str) -> bool:
    try:
        parse(text)
    except (ValueError, OverflowError):
        return False
    return True


def _is_pattern(value: object) -> bool:
    if not isinstance(value, str) or not value:
        return False
    try:
        re.compile(value)
    except re.error:
        return False
    return True


def _is_quantiles(value: object) -> bool:
    if not isinstance(value, dict) or set(value) != {"quantiles", "value_ranges"}:
        return False
    quantiles, ranges = value["quantiles"], value["value_ranges"]
    if not isinstance(quantiles, list) or not isinstance(ranges, list) or len(quantiles) != len(ranges):
        return False
    return bool(quantiles) and all(_is_share(each) for each in quantiles) and all(_is_range(each) for each in ranges)


def _is_range(value: object) -> bool:
    if not isinstance(value, list) or len(value) != 2:
        return False
    return any(each is not None for each in value) and all(each is None or _is_number(each) for each in value)


def _is_share(value: object) -> bool:
    return _is_number(value) and 0 <= value <= 1  # type: ignore[operator]  # it is a number


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_columns(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) >= 2
        and all(isinstance(each, str) for each in value)
        and len(set(value)) == len(value)
    )


_FITS: Mapping[Argument, Callable[[object], bool]] = {
    Argument.COLUMN: lambda value: isinstance(value, str) and bool(value),
    Argument.COLUMNS: _is_columns,
    Argument.BOUND: _is_bound,
    Argument.NUMBER: lambda value: value is None or _is_number(value),
    Argument.COUNT: lambda value: value is None or _is_count(value),
    Argument.SHARE: lambda value: value is None or _is_share(value),
    Argument.MOSTLY: lambda value: _is_share(value) and value != 0,
    Argument.SWITCH: lambda value: isinstance(value, bool),
    Argument.VALUES: lambda value: isinstance(value, list) and bool(value) and None not in value,
    Argument.PATTERN: _is_pattern,
    Argument.QUANTILES: _is_quantiles,
}
