"""What a scrape of the drift monitor tells, read from the database and computed anew every some seconds."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from skewless.adapters.log_following import FilesWaiting
from skewless.adapters.watched_bundles import WatchedBundles
from skewless.drift.shown import DAY, HOUR, FeatureShown, ViewShown, features_shown, total, views_shown
from skewless.drift.tally_form import unpacked
from skewless.monitor_limits import DRIFT_SHOWN_KEYS_MAX
from skewless.registry.drift_records import (
    DriftKey,
    DriftProgress,
    DriftRecords,
    DriftRecount,
    DriftStanding,
    DriftWindow,
)
from skewless.serving.monitoring_policy import DriftPolicy
from skewless.timestamps import DAY_US, HOUR_US


@dataclass(frozen=True, slots=True)
class KeyShown:
    """One bundle in one role. `window` is the newest that was scored, None before one."""

    standing: DriftStanding
    window: DriftWindow | None
    is_active: bool
    features: tuple[FeatureShown, ...] = ()
    views: tuple[ViewShown, ...] = ()


@dataclass(frozen=True, slots=True)
class EndpointShown:
    """One endpoint: how far it is counted, and how many unseen words are known of each feature."""

    progress: DriftProgress
    policy: DriftPolicy
    words: Mapping[str, int]
    slice_problem: str | None
    recounts: tuple[DriftRecount, ...]


@dataclass(frozen=True, slots=True)
class DriftShown:
    """Everything; `keys_left_out` are bundles in roles whose features are not shown, since they are too many.

    `waiting_since_s` (Unix time) is when the oldest file came that is not counted, None where none waits.
    """

    endpoints: tuple[EndpointShown, ...] = ()
    keys: tuple[KeyShown, ...] = ()
    keys_left_out: int = 0
    files_waiting: int = 0
    waiting_since_s: float | None = None


class Snapshots:
    """See the module. Not for threads."""

    def __init__(self, records: DriftRecords, bundles: WatchedBundles, policy_of: Callable[[str], DriftPolicy]) -> None:
        self._records = records
        self._bundles = bundles
        self._policy_of = policy_of

    def taken(
        self, active: frozenset[DriftKey], slice_problems: Mapping[str, str], *, waiting: FilesWaiting
    ) -> DriftShown:
        """What there is now. Features of keys in service come first; those of no more than are bounded are shown."""
        progress = {each.endpoint: each for each in self._records.progress()}
        standings = sorted(self._records.standings(), key=lambda each: (each.key not in active, each.key))
        shown = [self._key(each, progress.get(each.key.endpoint), active) for each in standings[:DRIFT_SHOWN_KEYS_MAX]]
        endpoints = tuple(
            EndpointShown(
                each,
                self._policy_of(name),
                _counted(word.feature for word in self._records.words(name)),
                slice_problems.get(name),
                self._records.recounts(name),
            )
            for name, each in progress.items()
        )
        left_out = max(len(standings) - len(shown), 0)
        return DriftShown(endpoints, tuple(shown), left_out, waiting.count, waiting.since_s)

    def _key(self, standing: DriftStanding, progress: DriftProgress | None, active: frozenset[DriftKey]) -> KeyShown:
        key, window_us = standing.key, standing.window_us
        is_active = key in active
        last = self._records.windows(
            key.endpoint,
            bundle=key.bundle,
            role=key.role,
            start=standing.next_start_us - window_us,
            end=standing.next_start_us,
        )
        window = last[-1] if last else None
        watched = self._bundles.get(key.bundle) if is_active else None
        if watched is None or progress is None:
            return KeyShown(standing, window, is_active)
        end_us = progress.newest_us // window_us * window_us + window_us
        starts = {HOUR: end_us - max(HOUR_US, window_us), DAY: end_us - max(DAY_US, window_us)}
        tallies = [
            (each.start_us, unpacked(watched.layout, each.counts))
            for each in self._records.tallies(key, start=starts[DAY], end=end_us)
            if each.layout == watched.layout.digest
        ]
        spans = {
            name: total(watched, [tally for start_us, tally in tallies if start_us >= since])
            for name, since in starts.items()
        }
        features = features_shown(watched, spans, dict(standing.levels))
        return KeyShown(standing, window, is_active, features, views_shown(watched, spans[HOUR]))


def _counted(names: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name in names:
        found[name] = found.get(name, 0) + 1
    return found
