"""Sentences that tell a data engineer what is wrong with a batch, and what to do about it."""

from collections.abc import Mapping
from typing import Any

from skewless.quality.catalogue import BETWEEN, IN_SET, LATER, NON_NULL_SHARE, NOT_NULL, ROW_COUNT, UNIQUE
from skewless.quality.results import ExpectationResult
from skewless.quality.suite import AS_OF, Expectation
from skewless.quality.verdict import DECLARED, Decision, Verdict

_UNITS = (
    "compare the unit of the values with the view's definition; where the range is too narrow, widen it in the suite"
)
_HINTS: Mapping[str, str] = {
    NOT_NULL: "look for a join that finds no partner, or a column that was renamed, in the job that writes the table",
    NON_NULL_SHARE: "look for a join that finds no partner, or a source that no longer sends the value",
    BETWEEN: _UNITS,
    IN_SET: "a new value that is right belongs into the suite; a wrong one is corrected where the table is written",
    UNIQUE: "have the job that writes the table keep one row per key and time; nobody can tell here which is right",
    LATER: "compare the clocks and time zones of the two columns: times without a zone are read as UTC",
    ROW_COUNT: "see whether the job that writes the table ran, ran twice, or read only a part of its source",
}
_TIME_HINT = (
    "see that times are UTC and in the right unit; rows of a moment to come would leak the future into training"
)
_ELSE = "compare the batch with an earlier one, then correct the table or, where the data is right, the suite"


def told(expectation: Expectation, result: ExpectationResult) -> str:
    """What is wrong, with the numbers and a few values."""
    about = _about(expectation)
    if expectation.type == DECLARED:
        return result.error
    if result.error:
        return f"{about} cannot be judged by {expectation.type}: {result.error}"
    seen = ""
    if result.unexpected is not None:
        seen = f"{result.unexpected:,} of {result.rows:,} rows ({result.unexpected / max(result.rows, 1):.2%})"
    elif result.observed is not None:
        seen = f"seen: {_value(result.observed)}"
    examples = f", such as {', '.join(_value(each) for each in result.examples)}" if result.examples else ""
    return f"{about} {_wanted(expectation)}; not so: {seen or 'all of it'}{examples}"


def reason(expectation: Expectation) -> str:
    """Why a row that does not meet it is set aside."""
    return f"{_about(expectation)} {_wanted(expectation)}"


def hint(expectation: Expectation) -> str:
    """What to do; a suite's own `meta.hint` goes before ours."""
    own = expectation.meta.get("hint")
    if own:
        return str(own)
    if expectation.type == BETWEEN and not _is_number(_bound(expectation.kwargs)):
        return _TIME_HINT
    return _HINTS.get(expectation.type, _ELSE)


def headline(view: str, verdict: Verdict) -> str:
    """The verdict on a batch in one sentence."""
    rows, aside, failed = len(verdict.set_aside), int(verdict.set_aside.sum()), len(verdict.failed)
    batch = f"`{view}`: {rows:,} rows"
    if verdict.decision is Decision.PASS:
        return f"{batch} pass, {len(verdict.findings)} expectations" + (f", {failed} noted" if failed else "")
    if verdict.decision is Decision.WARN:
        return f"{batch} pass with {failed} warnings"
    if verdict.decision is Decision.QUARANTINE:
        return f"{batch}: {aside:,} are set aside, {rows - aside:,} go on"
    share = "; too large a share of the rows fails for them to be set aside" if verdict.too_many else ""
    return f"{batch} stop, nothing of them goes on{share}"


def _about(expectation: Expectation) -> str:
    columns = expectation.columns[:1] if expectation.type == LATER else expectation.columns
    return " and ".join(f"`{each}`" for each in columns) or "the batch"


def _wanted(expectation: Expectation) -> str:
    """What is expected, read from the expectation's name and arguments."""
    kwargs = expectation.kwargs
    if expectation.type == LATER:
        return f"is expected to be above{' or equal to' if kwargs.get('or_equal') else ''} `{kwargs['column_B']}`"
    words = expectation.type.removeprefix("expect_")
    for prefix in ("table_", "compound_columns_", "column_", "values_"):
        words = words.removeprefix(prefix)
    given = [f"{name} {_value(value)}" for name, value in kwargs.items() if name not in ("column", "column_list")]
    return f"is expected {words.replace('_', ' ')}" + (f" ({', '.join(given)})" if given else "")


def _bound(kwargs: Mapping[str, Any]) -> Any:
    low = kwargs.get("min_value")
    return kwargs.get("max_value") if low is None else low


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return f"{value[AS_OF]} from the moment judged for" if AS_OF in value else str(dict(value))
    if isinstance(value, list | tuple):
        return " and ".join(map(_value, value)) if len(value) == 2 else ", ".join(map(_value, value))
    return str(value) if isinstance(value, int) else f"`{value}`"
