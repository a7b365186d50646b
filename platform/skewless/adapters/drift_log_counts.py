"""Counts of the log's rows made on the spot, as the monitor makes them, for a time that it keeps no counts of."""

from collections.abc import Iterator, Sequence

from skewless.adapters.counted_rows import by_bundle_and_role, counted_columns, logged_parts
from skewless.adapters.drift_sample import Span
from skewless.adapters.log_reader import LogReader
from skewless.canonical_json import Digest
from skewless.drift.batch_counts import BatchCounts
from skewless.drift.watched_bundle import WatchedBundle
from skewless.errors import InvalidRequest
from skewless.monitor_limits import DRIFT_REPORT_LOG_ROWS_MAX
from skewless.statistics.tally import Tally

_ROWS_OF_BUNDLES = (
    "SELECT bundle_digest, count(*) AS rows FROM predictions WHERE role = $1 AND starts_with(bundle_digest, $2)"
    " GROUP BY bundle_digest ORDER BY rows DESC, bundle_digest"
)
_NEWEST = "SELECT epoch_us(max(as_of)) AS newest FROM predictions"


def newest_logged(log: LogReader, endpoint: str) -> int | None:
    """The greatest as_of (µs) of an endpoint's rows; None where there are none."""
    found: int | None = log.sql(_NEWEST, endpoint=endpoint).read_all().column("newest")[0].as_py()
    return found


def busiest_logged(log: LogReader, endpoint: str, role: str, bundle: str, span: Span) -> Digest | None:
    """The bundle (whose digest begins with `bundle`) that has most rows in a role and time; None where none has any."""
    found = log.sql(_ROWS_OF_BUNDLES, [role, bundle], endpoint=endpoint, start=span[0], end=span[1]).read_all()
    return Digest(found.column("bundle_digest")[0].as_py()) if found.num_rows else None


def count_log(
    log: LogReader, endpoint: str, watched: WatchedBundle, role: str, spans: Sequence[Span], *, window_us: int
) -> Iterator[tuple[str, int, Tally]]:
    """Slice, beginning of the window and counts of what one bundle answered in one role, of all rows.

    About 20,000 rows a second. Raises InvalidRequest for more than DRIFT_REPORT_LOG_ROWS_MAX rows of the endpoint.
    """
    counts, rows = BatchCounts(watched, window_us), 0
    for start, end in spans:
        for table in log.prediction_batches(endpoint, start, end, apart=True):
            rows += table.num_rows
            if rows > DRIFT_REPORT_LOG_ROWS_MAX:
                raise InvalidRequest(
                    f"the monitor keeps no counts of this time, and the log has more than {rows:,} rows of it",
                    path="--since, --until",
                    allowed=f"{DRIFT_REPORT_LOG_ROWS_MAX:,} rows",
                    hint="choose a shorter time, or have it counted: `skewless drift backfill`",
                )
            for digest, of_role, chosen in by_bundle_and_role(table.select(counted_columns(table.column_names))):
                if digest == watched.digest and of_role == role:
                    for part in logged_parts(chosen, watched):
                        counts.add(part)
    yield from counts.tallies()
