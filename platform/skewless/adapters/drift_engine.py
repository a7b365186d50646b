"""All that the drift monitor does, put together: count, seal, score, calibrate, recount, keep within bounds, show.

A turn scores what is sealed, then takes the next rows, and so on until nothing is new or its time is over: whatever was
sealed is scored before anything more is counted, so that a monitor that is killed and started anew says the same.
"""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field

from skewless.adapters.drift_counting import GROUP, DriftCounting
from skewless.adapters.drift_recount import DriftRecounting, recounted_bundle
from skewless.adapters.drift_scoring import DriftScoring, Scored
from skewless.adapters.drift_snapshot import DriftShown, Snapshots
from skewless.adapters.log_following import LogFollower
from skewless.adapters.log_store import LogStore
from skewless.adapters.segment_consumer import PartRows, SegmentConsumer
from skewless.adapters.segment_stream import SegmentStream
from skewless.adapters.watched_bundles import WatchedBundles
from skewless.bundles.artifact_store import ArtifactStore
from skewless.canonical_json import Digest
from skewless.errors import Conflict, SkewlessError
from skewless.monitor_limits import (
    DRIFT_RETRY_S,
    DRIFT_ROUTES_EVERY_S,
    DRIFT_SHOWN_EVERY_S,
    DRIFT_STREAM_SETTLED_S,
    DRIFT_STREAM_TURN_S,
    DRIFT_TURN_S,
)
from skewless.registry.consumed_segments import ConsumedSegments, Transaction
from skewless.registry.database import engine as open_database
from skewless.registry.drift_counts import Sealing
from skewless.registry.drift_files import DriftFiles
from skewless.registry.drift_records import DriftKey, DriftRecords
from skewless.registry.drift_recounts import DriftRecounts
from skewless.registry.drift_scores import DriftScores
from skewless.registry.drift_upkeep import DriftUpkeep
from skewless.registry.repository import Registry, system_clock
from skewless.rollout.routes import Role, Route
from skewless.serving.monitoring_policy import DriftPolicy
from skewless.timestamps import Micros

_UPKEEP_EVERY_S = 3_600.0
_CONSUMER = "drift-1"

Clock = Callable[[], Micros]


@dataclass(slots=True)
class _Routes:
    """What the registry says of endpoints, as of a moment (s)."""

    policies: dict[str, DriftPolicy] = field(default_factory=dict)
    active: frozenset[DriftKey] = frozenset()
    read_at_s: float = float("-inf")


class DriftEngine:
    """See the module. For one thread; `shown` may be read by any."""

    def __init__(
        self,
        database_url: str,
        artifacts: ArtifactStore,
        store: LogStore,
        *,
        stream: Callable[[], SegmentStream] | None = None,
        clock: Clock = system_clock,
        on_scored: Callable[[Scored], None] = lambda _scored: None,
        on_problem: Callable[[str], None] = lambda _problem: None,
    ) -> None:
        """`stream` opens the stream of segments, where it is followed; `on_problem` is told what is tried again.

        Raises InvalidSettings for an address of a database that cannot be used; nothing is connected yet.
        """
        engine = open_database(database_url)
        self._registry = Registry(engine, clock=clock)
        self._ledger = ConsumedSegments(engine, clock=clock)
        self._scores = DriftScores(engine, clock=clock)
        self._records = DriftRecords(engine, clock=clock)
        self._files = DriftFiles(engine, clock=clock)
        self._recounts = DriftRecounts(engine, clock=clock)
        self._upkeep = DriftUpkeep(engine, clock=clock)
        self._bundles = WatchedBundles(artifacts)
        self._counting = DriftCounting(self._ledger, self._bundles, self._policy_of, clock=clock)
        self._scoring = DriftScoring(
            self._scores, lambda digest: self._bundles.get(Digest(digest)), self._policy_of, self._counting.slicings
        )
        self._recounting = DriftRecounting(store, self._recounts, self._scores)
        settled_s = 0.0 if stream is None else DRIFT_STREAM_SETTLED_S
        self._follower = LogFollower(store, self._ledger, self._files, group=GROUP, clock=clock, settled_s=settled_s)
        self._snapshots = Snapshots(self._records, self._bundles, self._policy_of)
        self._stream = stream
        self._on_scored = on_scored
        self._on_problem = on_problem
        self._routes = _Routes()
        self._keys: set[DriftKey] | None = None
        """Keys that may have windows to be scored; None: not known yet."""
        self._recount_at_s: dict[DriftKey, float] = {}
        """When earlier rows that could not be counted are tried again."""
        self._shown_at_s = self._upkeep_at_s = float("-inf")
        self._has_changed = False
        self.shown = DriftShown()
        """What a scrape tells; replaced as a whole."""

    def run_once(self, stop: threading.Event) -> bool:
        """A turn; whether there is more to do at once. Raises Unavailable; then a later turn goes on."""
        turn = _Turn(stop, DRIFT_TURN_S)
        self._read_routes()
        try:
            more = self._take(stop, turn)
            self._seal_by_clock()
            more = turn.is_set() or self._score(turn) or more
            if not more and not stop.is_set():
                more = self._in_spare_time(stop)
        except BaseException:
            self._scoring.forget()
            self._keys = None
            raise
        if (self._has_changed and not more) or time.monotonic() >= self._shown_at_s + DRIFT_SHOWN_EVERY_S:
            self._show()
        return more

    def close(self) -> None:
        """Give back the database's connections."""
        for part in (self._registry, self._ledger, self._scores, self._records, self._files, self._recounts):
            part.close()

    def _take(self, stop: threading.Event, turn: "_Turn") -> bool:
        """Take what is new, until nothing is or the time is over; whether there is more."""
        while not stop.is_set():
            if self._score(turn):
                return True
            streamed = self._stream is not None and self._take_stream(stop)
            try:
                taken = self._counting.take(self._follower, stopping=stop.is_set)
            except Conflict as error:  # another monitor was faster: what is left is looked for anew
                self._on_problem(error.message)
                return True
            if taken is None and not streamed:
                return False
            if turn.is_set():
                return True
        return False

    def _take_stream(self, stop: threading.Event) -> bool:
        """Take parts of the stream for a while, or until windows are sealed; whether there were any."""
        assert self._stream is not None
        turn = _Turn(stop, DRIFT_STREAM_TURN_S)

        def handle(rows: PartRows, transaction: Transaction) -> None:
            if self._counting.handle(rows, transaction):
                turn.set()

        with closing(self._stream()) as stream:
            consumer = SegmentConsumer(stream, self._ledger, group=GROUP, name=_CONSUMER, on_problem=self._on_problem)
            consumer.run(handle, stop=turn, idle_s=0.0)
        return consumer.counts.parts > 0

    def _score(self, turn: "_Turn") -> bool:
        """Score what is sealed, one portion at least; whether the turn ended before all of it was."""
        if self._keys is None:
            self._keys = set(self._records.keys())
        self._keys |= self._counting.touched
        self._counting.touched.clear()
        for scored in self._scoring.score_due(self._keys, active=self._routes.active):
            self._has_changed = True
            self._on_scored(scored)
            if turn.is_set():
                return True
        return False

    def _seal_by_clock(self) -> None:
        for progress in self._records.progress():
            if progress.is_live:
                policy = self._policy_of(progress.endpoint)
                self._scores.seal_by_clock(progress.endpoint, Sealing(policy.window_us, policy.lateness_us))

    def _in_spare_time(self, stop: threading.Event) -> bool:
        """A day of a recount, or a piece of upkeep; whether there is more of either."""
        if self._recount(stop):
            return True
        if time.monotonic() >= self._upkeep_at_s:
            if self._upkeep.merge_next():
                return True
            self._upkeep.forget(self._routes.active)
            self._keys = None
            self._files.forget_partials()
            while self._ledger.forget(GROUP) and not stop.is_set():
                pass
            self._upkeep_at_s = time.monotonic() + _UPKEEP_EVERY_S
        return False

    def _recount(self, stop: threading.Event) -> bool:
        """Count a day of earlier rows in the bins of a bundle that is live and new; whether there was one."""
        for key in sorted(self._routes.active):
            if key.role != Role.LIVE or time.monotonic() < self._recount_at_s.get(key, float("-inf")):
                continue
            try:
                if self._recount_key(key, stop):
                    return not stop.is_set()
            except SkewlessError as error:
                # One old day that cannot be read is no reason to show nothing, nor to leave other endpoints waiting.
                self._recount_at_s[key] = time.monotonic() + DRIFT_RETRY_S
                self._on_problem(f"earlier rows of {key.endpoint} cannot be counted now: {error.message}")
            else:
                self._recount_at_s.pop(key, None)
        return False

    def _recount_key(self, key: DriftKey, stop: threading.Event) -> bool:
        """Count a day of earlier rows for a key; False where none is left, or nothing is known to begin with."""
        recount = self._recounts.find(key)
        if recount is not None and recount.is_done:
            return False
        policy, watched = self._policy_of(key.endpoint), self._bundles.get(key.bundle)
        if watched is None or (recount := recount or self._recounting.begin(key, policy)) is None or recount.is_done:
            return False
        after = self._recounting.step(recount, recounted_bundle(watched, policy), stopping=stop.is_set)
        if after.is_done:
            self._scoring.forget(key)
        return True

    def _read_routes(self) -> None:
        if time.monotonic() < self._routes.read_at_s + DRIFT_ROUTES_EVERY_S:
            return
        records = self._registry.endpoints()
        policies = {each.name: each.monitoring.drift for each in records}
        active = frozenset(key for each in records for key in keys_of(each.route))
        self._routes = _Routes(policies, active, time.monotonic())

    def _policy_of(self, endpoint: str) -> DriftPolicy:
        return self._routes.policies.get(endpoint) or DriftPolicy()

    def _show(self) -> None:
        problems: Mapping[str, str] = self._counting.slice_problems
        self.shown = self._snapshots.taken(self._routes.active, problems, waiting=self._follower.waiting)
        self._shown_at_s, self._has_changed = time.monotonic(), False


class _Turn(threading.Event):
    """Set once another event is, or the time is over, or by whoever has a reason."""

    def __init__(self, stop: threading.Event, seconds: float) -> None:
        super().__init__()
        self._stop = stop
        self._ends_at_s = time.monotonic() + seconds

    def is_set(self) -> bool:
        return super().is_set() or self._stop.is_set() or time.monotonic() >= self._ends_at_s

    def wait(self, timeout: float | None = None) -> bool:
        left_s = max(self._ends_at_s - time.monotonic(), 0.0)
        self._stop.wait(left_s if timeout is None else min(timeout, left_s))
        return self.is_set()


def keys_of(route: Route) -> frozenset[DriftKey]:
    """The bundles that a route has answer or score, each in its role."""
    found = {DriftKey(route.endpoint, route.live, Role.LIVE.value)}
    if route.canary is not None:
        found.add(DriftKey(route.endpoint, route.canary.bundle, Role.CANARY.value))
    if route.shadow is not None:
        found.add(DriftKey(route.endpoint, route.shadow.bundle, Role.SHADOW.value))
    if route.experiment is not None:
        found |= {DriftKey(route.endpoint, arm.bundle, Role.ARM.value) for arm in route.experiment.arms}
    return frozenset(found)
