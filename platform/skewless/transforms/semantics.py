"""Versions of what operations mean, so that a stored transform computes the same bytes for ever.

A meaning is never changed: a new one gets a new operation, and a new version brings it. A transform has the lowest
version that knows all its operations, so that a later version changes no digest of what did not need it, and an older
Skewless refuses what it does not know instead of guessing.
"""

from collections.abc import Iterable

SEMANTICS_VERSION = 2
"""The newest version that this code computes; it computes all from 1 on."""

_OF_VERSION_1 = frozenset(
    {
        "add", "bucket", "clean", "clip", "column", "constant", "cyclical", "day_of_week", "divide", "equal",
        "greater", "greater_equal", "hour", "impute", "impute_mean", "impute_median", "impute_most_frequent",
        "impute_text", "index", "is_null", "length", "less", "less_equal", "local_time", "log1p", "lower", "min_max",
        "minute_of_day", "month", "multiply", "not_equal", "one_hot", "quantile_bucket", "standardise", "strip",
        "subtract", "text_constant", "text_equal", "text_not_equal", "where", "year",
    }
)  # fmt: skip
"""Everything else came with version 2."""


def version_of(operations: Iterable[str]) -> int:
    """The lowest version that knows all these operations.

    >>> version_of(["column", "clip"])
    1
    """
    return 1 if _OF_VERSION_1.issuperset(operations) else 2
