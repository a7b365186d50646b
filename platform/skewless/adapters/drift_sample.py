"""Rows of the prediction log for reports: a uniform sample of some spans of time, and rows made of a baseline's counts.

The sample is what has the smallest digests of its ids under a seed: uniform, whatever the ids are, and the same rows
again for the same seed, whatever files they lie in meanwhile.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from skewless.adapters.arrow_columns import column_to_arrow
from skewless.adapters.log_reader import LogReader, days
from skewless.adapters.log_session import LogSession
from skewless.adapters.log_sources import Wanted
from skewless.adapters.log_tables import PREDICTIONS
from skewless.adapters.log_views import records_sql, since_sql
from skewless.canonical_json import Digest
from skewless.dtypes import TABLE, Column, Dtype
from skewless.features.point_in_time import literal
from skewless.statistics.alignment import single_valued
from skewless.statistics.divergence import Counts
from skewless.statistics.variable import BELOW, LISTED, NULL, Variable, counted_dtype

Span = tuple[int, int]
"""From a moment (µs) to before another."""


@dataclass(frozen=True, slots=True)
class LogSample:
    """Sampled rows as the log has them (an Arrow table), of `rows_of` rows that there are."""

    table: Any
    rows_of: int


def sample_log(
    log: LogReader, endpoint: str, bundle: Digest, role: str, spans: Sequence[Span], *, rows_max: int, seed: int = 0
) -> LogSample:
    """At most `rows_max` predictions that one bundle gave in one role with as_of in any of the spans, by as_of and id.

    Reads ids of all of them, and whole rows of the sampled ones only. Raises Unavailable where the log cannot be read.
    """
    within = " OR ".join(f"({since_sql('as_of', start, end)})" for start, end in spans) or "false"
    where = f"bundle_digest = {literal(bundle)} AND role = {literal(role)} AND ({within})"
    ends = [min(start for start, _ in spans), max(end for _, end in spans)] if spans else [0, 0]

    def ask(session: LogSession) -> LogSample:
        scans = session.scans(PREDICTIONS)
        rows = [_count(session, _ids(scan, where)) for scan in scans]
        # A bundle has one contract, and so one set of columns: others would only bring columns full of nulls.
        own = [scan for scan, count in zip(scans, rows, strict=True) if count] or scans[:1]
        chosen = " UNION ALL ".join(_ids(scan, where) for scan in own) or "SELECT '' AS prediction_id WHERE false"
        session.table(
            "sampled",
            f"SELECT prediction_id FROM ({chosen}) ORDER BY md5(prediction_id || {literal(str(seed))}), prediction_id"
            f" LIMIT {rows_max}",
        )
        picked = f"{where} AND prediction_id IN (SELECT prediction_id FROM sampled)"
        sql = records_sql(own, PREDICTIONS, where=picked)
        return LogSample(session.arrow(f"SELECT * FROM ({sql}) ORDER BY as_of, prediction_id"), sum(rows))

    return log.ask(Wanted({PREDICTIONS: days(*ends)}, endpoint), ask)


def _ids(scan: Any, where: str) -> str:
    return records_sql([scan], PREDICTIONS, where=where, only=("prediction_id",))


def _count(session: LogSession, sql: str) -> int:
    return int(session.arrow(f"SELECT count(*) FROM ({sql})").column(0)[0].as_py())


def table_of(columns: Mapping[str, Column]) -> Any:
    """Columns as an Arrow table."""
    return pa.table({name: column_to_arrow(each) for name, each in columns.items()})


def pseudo_sample(variable: Variable, rows: int) -> Column:
    """Values that fall into a variable's bins as often as its counts say, spread evenly within each bin.

    For pictures: how many rows there are is invented, and so is where in its bin a value lies. Whatever is not a
    finite number or a listed word is null. `rows` of the variable's dtype; hours and lengths are whole numbers.
    """
    if variable.vocabulary is not None:
        return _words(variable, rows)
    counts = np.array((variable.nulls + _not_finite(variable), *variable.counts[BELOW:-1]), dtype=np.float64)
    shares = apportioned(counts, rows).tolist()
    dtype, ends, single = counted_dtype(variable.dtype), _ends(variable), single_valued(variable).tolist()
    parts = [np.zeros(shares[0], dtype=TABLE[dtype].numpy)]
    for place, count in enumerate(shares[1:]):
        low, high = ends[place], ends[place + 1]
        # A bin of one number holds it at its lower end; any other number would round to one of a neighbour.
        parts.append(_within(low, low if single[place] else high, count, dtype))
    return Column(dtype, np.concatenate(parts), np.arange(rows) >= shares[0])


def _within(low: float, high: float, count: int, dtype: Dtype) -> NDArray[Any]:
    """Numbers (count,) of a dtype, spread evenly from `low` to before `high`."""
    spread = low + (high - low) * np.arange(count) / max(count, 1)
    numbers: NDArray[Any] = (np.floor(spread) if dtype in _WHOLE else spread).astype(TABLE[dtype].numpy)
    if low < high:
        numbers[numbers >= high] = low  # rounded up to the next bin
    return numbers


_WHOLE = frozenset({Dtype.BOOL, Dtype.INT32, Dtype.INT64})


def apportioned(counts: Counts, rows: int) -> NDArray[np.int64]:
    """Whole numbers (bins,) that add up to `rows`, as near to the counts' shares as can be (largest remainders).

    >>> apportioned(np.array([1.0, 1.0, 2.0]), 3).tolist()
    [1, 0, 2]
    """
    if not counts.sum():
        found = np.zeros(len(counts), dtype=np.int64)
        found[0] = rows  # nothing is known: all of them are null
        return found
    exact = counts / counts.sum() * rows
    whole: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    left = rows - int(whole.sum())
    whole[np.argsort(whole - exact, kind="stable")[:left]] += 1
    return whole


def _not_finite(variable: Variable) -> int:
    return sum(variable.counts[NULL + 1 : BELOW]) + variable.counts[-1]


def _ends(variable: Variable) -> NDArray[np.float64]:
    """Where each bin of finite numbers begins and ends (edges + 2,), the open ones at the extremes that are known."""
    moments = variable.moments
    if not variable.edges:
        low, high = (moments.minimum, moments.maximum) if moments else (0.0, 0.0)
        return np.array([low, high])
    low = min(variable.edges[0], moments.minimum) if moments else variable.edges[0]
    high = max(variable.edges[-1], moments.maximum) if moments else variable.edges[-1]
    return np.array([np.nextafter(low, -np.inf), *variable.edges, high])


def _words(variable: Variable, rows: int) -> Column:
    assert variable.vocabulary is not None
    named = np.array([variable.nulls, *variable.counts[LISTED:]], dtype=np.float64)
    others = variable.total - named.sum()
    shares = apportioned(np.array([*named, others]), rows).tolist()
    # A word without a name of its own: whatever this is called, it is no listed word, and counts as such.
    texts = ["", *variable.vocabulary.listed, "(not listed)"]
    values = np.array([text for text, count in zip(texts, shares, strict=True) for _ in range(count)], dtype=object)
    return Column(Dtype.STRING, values, np.arange(rows) >= shares[0])
