"""Counts what the log holds from before a bundle answered in that bundle's bins, so that its alarms are calibrated."""

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

from skewless.adapters.drift_counting import DriftCounting
from skewless.adapters.drift_recount import DriftRecounting, RecountedBundle, recount_all
from skewless.adapters.log_store import open_log_store
from skewless.adapters.watched_bundles import WatchedBundles
from skewless.cli.output import Step
from skewless.cli.workspace import Workspace
from skewless.errors import BundleRefused
from skewless.registry.consumed_segments import ConsumedSegments
from skewless.registry.database import engine
from skewless.registry.drift_records import DriftKey, DriftRecount
from skewless.registry.drift_recounts import DriftRecounts
from skewless.registry.drift_scores import DriftScores
from skewless.registry.repository import system_clock
from skewless.rollout.routes import Role
from skewless.timestamps import DAY_US, format_timestamp


def backfill(
    workspace: Workspace, endpoint: str, progress: Step, *, bundle: str = "", since_us: int | None = None
) -> DriftRecount:
    """Count earlier rows, from the day before the bundle's first own ones back to `since_us`; how far it came.

    `bundle` is what the digest begins with, that of the live one where empty. Ctrl-C ends it, and the days
    that are counted stay: run again, it goes on. Raises NotFound for an endpoint or bundle that does not exist, or that
    has no rows of its own yet.
    """
    with workspace.registry() as registry:
        record = registry.endpoint(endpoint)
        digest = registry.bundle(bundle).digest if bundle else record.route.live
    policy = record.monitoring.drift
    with ExitStack() as opened:
        database = engine(workspace.settings.registry_url)
        scores = opened.enter_context(closing(DriftScores(database)))
        bundles = WatchedBundles(workspace.artifacts)
        watched = bundles.get(digest)
        if watched is None:
            raise BundleRefused(bundles.gone[digest], hint="`skewless artifact list` says what is kept")
        counting = DriftCounting(ConsumedSegments(database), bundles, lambda _endpoint: policy, clock=system_clock)
        recounted = RecountedBundle(watched, policy, counting.slicings(endpoint, watched, policy.slices))
        store = open_log_store(workspace.settings.log_store_address)
        recounting = DriftRecounting(store, DriftRecounts(database), scores)
        stop = opened.enter_context(_interrupted())
        return recount_all(
            recounting,
            DriftKey(endpoint, digest, Role.LIVE.value),
            recounted,
            since_us=since_us,
            progress=lambda recount: _tell(progress, recount),
            stopping=stop.is_set,
        )


def _tell(progress: Step, recount: DriftRecount) -> None:
    progress.update(
        (recount.until_us - recount.next_us) / DAY_US, max((recount.until_us - recount.since_us) / DAY_US, 1.0)
    )
    progress.note(f"{recount.rows:,} rows, back to {format_timestamp(recount.next_us)[:10]}")


@contextmanager
def _interrupted() -> Iterator[threading.Event]:
    """Set by Ctrl-C instead of an exception: what is counted of a day is kept in one transaction."""
    stop = threading.Event()

    def note(_number: int, _frame: Any) -> None:
        stop.set()

    before = signal.signal(signal.SIGINT, note)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
