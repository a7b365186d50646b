"""Ages that callers got, out of what the drift monitor counted, and the moment that each view's traffic lives in."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from skewless.adapters.watched_bundles import WatchedBundles
from skewless.canonical_json import Digest
from skewless.drift.shown import total
from skewless.drift.tally_form import unpacked
from skewless.drift.watched_bundle import WatchedBundle
from skewless.features.freshness import Clock, ServedAges, binned_quantile
from skewless.ingest_limits import FRESHNESS_KEYS_MAX, FRESHNESS_SERVED_S
from skewless.registry.drift_records import DriftKey, DriftProgress, DriftRecords
from skewless.registry.endpoints import Endpoints
from skewless.rollout.routes import Role, Route
from skewless.statistics.edges import AGE_EDGES_US
from skewless.statistics.variable import Part
from skewless.timestamps import SECOND_US

_SERVED_US = int(FRESHNESS_SERVED_S * SECOND_US)
_MEDIAN, _P99 = 0.5, 0.99


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is known of traffic, by view: ages of the last hour of it, and the greatest `as_of` of what replays a past.

    A view is in `replayed` only where all endpoints with traffic that read it replay.
    """

    served: Mapping[str, ServedAges] = field(default_factory=dict)
    replayed: Mapping[str, int] = field(default_factory=dict)
    problem: str = ""

    def clock(self, view: str, now: int) -> tuple[int, Clock]:
        """The moment (µs) at which a view's ages are told, and what it is."""
        replayed = self.replayed.get(view)
        return (now, Clock.WALL) if replayed is None else (replayed, Clock.REPLAY)


class ServedTraffic:
    """Reads the counts of bundles that answer. Not for threads."""

    def __init__(self, endpoints: Endpoints, records: DriftRecords, bundles: WatchedBundles) -> None:
        self._endpoints = endpoints
        self._records = records
        self._bundles = bundles

    def look(self) -> Traffic:
        """What there is now. Raises Unavailable while the database is away."""
        progress = {each.endpoint: each for each in self._records.progress()}
        keys = [key for each in self._endpoints.endpoints() for key in answering(each.route)]
        keys = [key for key in keys if key.endpoint in progress]
        counts: dict[str, NDArray[np.int64]] = {}
        clocks: dict[str, list[DriftProgress]] = {}
        for key in keys[:FRESHNESS_KEYS_MAX]:
            watched = self._bundles.get(key.bundle)
            if watched is None:
                continue  # its files are gone, which the drift job tells
            for view, found in self._ages(key, watched, progress[key.endpoint]):
                counts[view] = found if view not in counts else counts[view] + found
            for read in watched.contract.views:
                clocks.setdefault(read.view, []).append(progress[key.endpoint])
        left_out = len(keys) - FRESHNESS_KEYS_MAX
        problem = f"ages that {left_out} more bundles served are not looked at" if left_out > 0 else ""
        served = {view: ages for view, found in counts.items() if (ages := served_ages(found)) is not None}
        return Traffic(served, _replayed(clocks), problem)

    def _ages(
        self, key: DriftKey, watched: WatchedBundle, progress: DriftProgress
    ) -> Iterable[tuple[str, NDArray[np.int64]]]:
        """By view, how many rows of the last hour of a bundle's traffic had an age in each bin of AGE_EDGES_US."""
        end_us = progress.newest_us + 1
        stored = self._records.tallies(key, start=end_us - _SERVED_US, end=end_us)
        tallies = [unpacked(watched.layout, each.counts) for each in stored if each.layout == watched.layout.digest]
        views = {each.name: each.view for each in watched.contract.views}
        for variable in watched.layout.counted(total(watched, tallies)):
            if variable.part is Part.AGE and variable.edges == AGE_EDGES_US and variable.name in views:
                yield views[variable.name], variable.finite_counts


def answering(route: Route) -> tuple[DriftKey, ...]:
    """The bundles of a route that answer callers, the live one first."""
    bundles = [(Digest(route.live), Role.LIVE)]
    if route.canary is not None:
        bundles.append((Digest(route.canary.bundle), Role.CANARY))
    if route.experiment is not None:
        bundles += [(Digest(arm.bundle), Role.ARM) for arm in route.experiment.arms]
    return tuple(DriftKey(route.endpoint, bundle, role.value) for bundle, role in bundles)


def served_ages(counts: NDArray[np.int64]) -> ServedAges | None:
    """Quantiles of ages that were counted in the bins of AGE_EDGES_US; None where none was."""
    median, p99 = (binned_quantile(AGE_EDGES_US, counts, share) for share in (_MEDIAN, _P99))
    if median is None or p99 is None:
        return None
    return ServedAges(int(counts.sum()), int(median), int(p99))


def _replayed(clocks: Mapping[str, Iterable[DriftProgress]]) -> dict[str, int]:
    found = {}
    for view, progress in clocks.items():
        listed = list(progress)
        if not any(each.is_live for each in listed):
            found[view] = max(each.newest_us for each in listed)
    return found
