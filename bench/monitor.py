"""What watching costs: predictions counted per second of one core, bytes that are kept, and the gateway beside it.

Counting is all of it: Parquet files of the log store are found, read, decoded, counted by window in the bundle's bins
(40 features of 6 views, 60 outputs, statuses, ages, scores) and committed to SQLite with the ledger.
"""

import time
from pathlib import Path

from sqlalchemy import select

from bench.gateway_stack import gateway_stack
from bench.load_timing import load_generator
from bench.monitor_beside import beside_case, beside_goals
from bench.monitor_rows import ENDPOINT, ROLE, ship, watched_bundle
from bench.parity_sample import sample_case, sample_goals
from bench.report import Case, Goal, Options, SuiteResult, single
from skewless.adapters.drift_counting import GROUP, DriftCounting
from skewless.adapters.log_following import LogFollower
from skewless.adapters.log_store import open_log_store
from skewless.adapters.watched_bundles import WatchedBundles
from skewless.canonical_json import Digest
from skewless.drift.watched_bundle import WatchedBundle
from skewless.registry import database
from skewless.registry.consumed_segments import ConsumedSegments
from skewless.registry.drift_files import DriftFiles
from skewless.registry.drift_records import DriftKey, DriftRecords
from skewless.registry.drift_tables import DriftTallyRow
from skewless.registry.repository import system_clock
from skewless.serving.monitoring_policy import DriftPolicy

PER_CPU_S_MIN = 20_000.0
"""Predictions wanted per second of processor time."""
ROWS, QUICK_ROWS = 1_000_000, 100_000
SEGMENT_ROWS = 10_000
COUNTED = "predictions counted per processor second"
WINDOW_BYTES = "window, bytes in the database"


class OneBundle(WatchedBundles):
    """Has one bundle, in no artifact store."""

    def __init__(self, bundle: WatchedBundle) -> None:
        self.bundle = bundle
        self.gone = {}

    def get(self, digest: Digest) -> WatchedBundle | None:
        """The bundle, whichever is asked for."""
        return self.bundle if digest == self.bundle.digest else None


def run(options: Options) -> SuiteResult:
    """Measure. The full suite takes about fifteen minutes, the quick one about three on a quiet machine."""
    counted = counted_case(options)
    with gateway_stack(options.scratch / "gateways", options.progress) as stack, load_generator() as generator:
        beside, sampled = beside_case(stack, generator, options), sample_case(stack, generator, options)
    return SuiteResult(
        suite="monitor",
        cases=(counted, beside, sampled),
        goals=(
            Goal(COUNTED, single(counted.facts[COUNTED]), PER_CPU_S_MIN, "predictions"),
            *beside_goals(beside),
            *sample_goals(sampled),
        ),
        notes=("Counting is of one process and one core: processor time is divided, not elapsed time.",),
    )


def counted_case(options: Options) -> Case:
    """Count a log store's rows, once."""
    rows = QUICK_ROWS if options.quick else ROWS
    folder = options.scratch / "counted"
    folder.mkdir()
    bundle = watched_bundle()
    store = open_log_store(str(folder / "store"), scratch=folder / "scratch")
    options.progress(f"making {rows:,} predictions")
    ship(store, bundle, rows=rows, segments=rows // SEGMENT_ROWS)
    options.progress("counting")
    seconds, windows, size = _count(folder, bundle, rows)
    facts = {COUNTED: rows / seconds, WINDOW_BYTES: size / windows, "windows": float(windows)}
    return Case("counted", {"predictions": rows, "features": 40, "outputs": 60}, {}, facts=facts)


def _count(folder: Path, bundle: WatchedBundle, rows: int) -> tuple[float, int, int]:
    """Processor seconds, windows that were counted, and the bytes of their counts."""
    url = f"sqlite:///{folder / 'registry.db'}"
    database.upgrade(url)
    opened = database.engine(url)
    ledger = ConsumedSegments(opened)
    store = open_log_store(str(folder / "store"), scratch=folder / "scratch")
    follower = LogFollower(store, ledger, DriftFiles(opened), group=GROUP, clock=system_clock)
    counting = DriftCounting(ledger, OneBundle(bundle), lambda _: DriftPolicy(), clock=system_clock)
    began_s = time.process_time()
    while counting.take(follower, stopping=lambda: False) is not None:
        pass
    seconds = time.process_time() - began_s
    key = DriftKey(ENDPOINT, bundle.digest, ROLE)
    kept = DriftRecords(opened).tallies(key)
    assert sum(each.rows for each in kept) == rows, "every row is counted once"
    with opened.connect() as connection:
        size = sum(len(counts) for (counts,) in connection.execute(select(DriftTallyRow.counts)))
    opened.dispose()
    return seconds, len(kept), size
