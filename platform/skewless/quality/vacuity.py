"""Whether a suite can fail where it must: on a batch without rows, and on columns that hold nothing but nulls.

Nearly every expectation holds of no values at all, so a suite of ranges alone passes an empty table and a column that
a broken join left null (vacuous truth).
"""

from collections.abc import Iterator

from skewless.quality.arguments import cannot_fail
from skewless.quality.catalogue import NON_NULL_SHARE, NOT_NULL, ROW_COUNT
from skewless.quality.faults import Fault
from skewless.quality.suite import Expectation, OnFailure, Suite
from skewless.quality.view_schema import Role, ViewSchema

_ACTS = frozenset({OnFailure.WARN, OnFailure.QUARANTINE, OnFailure.STOP})
_HOLDS_BACK = frozenset({OnFailure.QUARANTINE, OnFailure.STOP})


def vacuous(suite: Suite, schema: ViewSchema) -> Iterator[Fault]:
    """Every reason why the suite lets pass what it must not."""
    for each in suite.expectations:
        if cannot_fail(each.type, each.kwargs):
            yield Fault(
                each.line, each.type, "its bounds hold for whatever comes", "bounds that something is outside of"
            )
    if not any(_needs_rows(each) for each in suite.expectations):
        yield Fault(
            1,
            "expectations",
            "an empty batch would pass",
            f"an `{ROW_COUNT}` with min_value 1 or more that warns or stops",
            "nearly every expectation holds of no rows; say how many rows a batch has at least",
        )
    for name in schema.names(Role.KEY, Role.EVENT_TIME):
        if not any(_forbids_nulls(each, name) for each in suite.expectations):
            role = schema.by_name[name].role
            yield Fault(
                1,
                "expectations",
                f"rows without {role} `{name}` would pass",
                f"`{NOT_NULL}` of `{name}` without `mostly`, with on_failure quarantine or stop",
                "a row without key or event time cannot be served",
            )
    for name in schema.names(Role.FEATURE):
        if not any(_notices_nulls(each, name) for each in suite.expectations):
            yield Fault(
                1,
                "expectations",
                f"feature `{name}` could be null in every row and would pass",
                f"`{NOT_NULL}` (`mostly` where nulls are usual) or `{NON_NULL_SHARE}` of `{name}`, warning at least",
                "say which share of a feature may be null; ranges hold of nulls",
            )


def _needs_rows(each: Expectation) -> bool:
    return each.type == ROW_COUNT and (each.kwargs.get("min_value") or 0) >= 1 and each.on_failure in _ACTS


def _forbids_nulls(each: Expectation, column: str) -> bool:
    return (
        each.type == NOT_NULL
        and each.kwargs["column"] == column
        and each.kwargs.get("mostly", 1.0) == 1.0
        and each.on_failure in _HOLDS_BACK
    )


def _notices_nulls(each: Expectation, column: str) -> bool:
    if each.kwargs.get("column") != column or each.on_failure not in _ACTS:
        return False
    return each.type == NOT_NULL or (each.type == NON_NULL_SHARE and (each.kwargs.get("min_value") or 0) > 0)
