"""Scores windows as they are sealed, key by key and day by day, and calibrates each detector once a day of traffic.

A portion is the windows of one key up to the end of their day, or to the last one that is sealed. What it says, the
state of the detector and its calibration are kept in one transaction; everything before is computed outside of it.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from skewless.drift.alarms import Alarm
from skewless.drift.calibration import WATCHED, calibrate
from skewless.drift.calibration_form import Calibrated, from_bytes, to_bytes
from skewless.drift.contract_breaks import ContractRules
from skewless.drift.history import LazySeries, Lookback, on_days, series_of, watched_placement, without
from skewless.drift.season import Grade
from skewless.drift.slicing import Slicing
from skewless.drift.streams import Ruler
from skewless.drift.tally_form import unpacked
from skewless.drift.traffic import ALL, Series
from skewless.drift.watch import (
    Watch,
    achieved,
    first_watch,
    is_better,
    level_name,
    recalibrated_watch,
    restored_watch,
    slices_within,
)
from skewless.drift.watched_bundle import Placement, WatchedBundle
from skewless.errors import InvalidDefinition
from skewless.monitor_limits import DRIFT_HISTORY_DAYS, DRIFT_LEVELS_MAX, DRIFT_WATCHES_KEPT
from skewless.registry.drift_records import DriftKey
from skewless.registry.drift_scores import CalibrationFacts, DriftScores, Reached, ScoredWindows, StoredWatch
from skewless.serving.monitoring_policy import DriftPolicy
from skewless.timestamps import DAY_US

SlicesOf = Callable[[str, WatchedBundle, tuple[str, ...]], tuple[Slicing, ...]]


@dataclass(slots=True)
class _Held:
    """A key's watch in memory, as it was kept last."""

    watched: WatchedBundle
    placement: Placement
    watch: Watch
    stored: StoredWatch


@dataclass(frozen=True, slots=True)
class _Fresh:
    """A calibration that was made now; `problem` says what it leaves out."""

    calibrated: Calibrated
    facts: CalibrationFacts
    problem: str | None


@dataclass(frozen=True, slots=True)
class Scored:
    """A portion that was scored: whose, how many windows, and the alarms that it opened."""

    key: DriftKey
    windows: int
    opened: tuple[Alarm, ...]
    calibrated: bool
    """Whether it was calibrated anew before."""


class DriftScoring:
    """See the module. Not for threads."""

    def __init__(
        self,
        scores: DriftScores,
        bundle_of: Callable[[str], WatchedBundle | None],
        policy_of: Callable[[str], DriftPolicy],
        slices_of: SlicesOf,
    ) -> None:
        self._scores = scores
        self._bundle_of = bundle_of
        self._policy_of = policy_of
        self._slices_of = slices_of
        self._held: dict[DriftKey, _Held] = {}
        self._tried: dict[DriftKey, int] = {}
        """The day (µs) up to which history was looked at last."""

    def score_due(self, keys: Iterable[DriftKey], *, active: frozenset[DriftKey]) -> Iterator[Scored]:
        """Score portions of each key until nothing sealed is left. Keys that are not `active` end with their last rows.

        Only what has something to be scored is opened: keys are of all bundles whose counts are kept, and most of them
        are of the past. Whoever asks may stop after any portion, and go on by asking again. Raises Unavailable, and
        Conflict where another monitor scores the same.
        """
        sealed, reached = self._scores.sealed(), self._scores.reached()
        for key in sorted(keys):
            sealed_us, is_active = sealed.get(key.endpoint, 0), key in active
            if not self._is_due(key, reached.get(key), sealed_us, is_active=is_active):
                continue
            while (scored := self._score(key, sealed_us, is_active=is_active)) is not None:
                yield scored

    def forget(self, key: DriftKey | None = None) -> None:
        """Read a key's state and history anew, or everybody's: after a failure, or once there is more history."""
        if key is None:
            self._held.clear()
            self._tried.clear()
        else:
            self._tried.pop(key, None)

    def _is_due(self, key: DriftKey, reached: Reached | None, sealed_us: int, *, is_active: bool) -> bool:
        """Whether there is anything to do for a key, as the database says without its bundle, state and calibration."""
        policy = self._policy_of(key.endpoint)
        if reached is None:
            first_us = self._scores.first_rows(key)
            if first_us is None:
                return False
            start_us = first_us // policy.window_us * policy.window_us
        elif (reached.window_us, reached.slices) != (policy.window_us, policy.slices):
            return True  # it is begun anew, and an alarm that is open ends
        else:
            start_us = reached.next_start_us
        return self._until(key, start_us, sealed_us, policy.window_us, is_active=is_active) > start_us

    def _until(self, key: DriftKey, start_us: int, sealed_us: int, window_us: int, *, is_active: bool) -> int:
        """Until when a key's windows can be scored; `start_us` or less where none can."""
        until_us = sealed_us // window_us * window_us
        if is_active or until_us <= start_us:
            return until_us
        last_us = self._scores.last_rows(key)
        return min(until_us, start_us if last_us is None else last_us // window_us * window_us + window_us)

    def _score(self, key: DriftKey, sealed_us: int, *, is_active: bool) -> Scored | None:
        policy = self._policy_of(key.endpoint)
        held = self._opened(key, policy)
        if held is None:
            return None
        start_us = held.stored.next_start_us
        until_us = self._until(key, start_us, sealed_us, policy.window_us, is_active=is_active)
        if until_us <= start_us:
            return None
        end_us = min(until_us, start_us // DAY_US * DAY_US + DAY_US)
        try:
            return self._portion(key, held, policy, end_us, is_behind=until_us - start_us > DAY_US)
        except BaseException:
            self._held.pop(key, None)  # a detector that was advanced in vain says nothing any more
            self._tried.pop(key, None)
            raise

    def _portion(self, key: DriftKey, held: _Held, policy: DriftPolicy, end_us: int, *, is_behind: bool) -> Scored:
        before, stored = held.watch.alarms, held.stored
        fresh = self._calibrated(key, held, policy)
        watch = held.watch
        if fresh is not None:
            watch = recalibrated_watch(held.watch, fresh.calibrated)
            stored = replace(stored, facts=fresh.facts, promise_days=policy.promise_days, problem=fresh.problem)
        span = stored.next_start_us, end_us
        scored = self._advanced(key, held, watch, span, policy, is_behind=is_behind)
        changed = tuple(each for each in watch.alarms if each not in before)
        stored = replace(stored, next_start_us=end_us, levels=_levels(watch), state=watch.to_json())
        kept = replace(scored, alarms=changed)
        version = self._scores.keep(key, stored, kept, recalibrated=fresh is not None)
        held.watch, held.stored = watch, replace(stored, version=version)
        known = {each.opened_us for each in before}
        opened = tuple(each for each in changed if each.opened_us not in known)
        return Scored(key, len(scored.readings), opened, fresh is not None)

    def _opened(self, key: DriftKey, policy: DriftPolicy) -> _Held | None:
        """The key's watch, begun where there is none yet, or anew where the policy has changed what is watched."""
        held = self._held.get(key)
        if held is None:
            watched = self._bundle_of(key.bundle)
            if watched is None:
                return None
            held = self._restored(key, watched, policy)
            if held is None:
                return None
            self._held[key] = held
            if len(self._held) > DRIFT_WATCHES_KEPT:
                del self._held[next(iter(self._held))]
        if (held.stored.window_us, held.stored.slices) != (policy.window_us, policy.slices):
            self._begin_anew(key, held, policy)
        return held

    def _restored(self, key: DriftKey, watched: WatchedBundle, policy: DriftPolicy) -> _Held | None:
        placement, stored = watched_placement(watched), self._scores.watch(key)
        if stored is None:
            first_us = self._scores.first_rows(key)
            if first_us is None:
                return None
            stored = _new(first_us // policy.window_us * policy.window_us, policy)
            return _Held(watched, placement, first_watch(placement), stored)
        try:
            watch = restored_watch(placement, _calibration(placement, stored.facts), stored.state)
        except InvalidDefinition:  # forgotten, or written by another version: what it remembers is of other variables
            watch, stored = first_watch(placement), replace(stored, facts=CalibrationFacts(Grade.TRAINING))
        return _Held(watched, placement, watch, stored)

    def _begin_anew(self, key: DriftKey, held: _Held, policy: DriftPolicy) -> None:
        """Windows or slices are others now: an open alarm ends, and history is looked at anew."""
        next_us = -(-held.stored.next_start_us // policy.window_us) * policy.window_us
        ended = [replace(each, closed_us=next_us) for each in held.watch.alarms[-1:] if each.closed_us is None]
        watch = first_watch(held.placement)
        stored = replace(_new(next_us, policy), version=held.stored.version, state=watch.to_json())
        version = self._scores.keep(key, stored, ScoredWindows((), (), (), ended), recalibrated=True)
        held.watch, held.stored = watch, replace(stored, version=version)
        self._tried.pop(key, None)

    def _advanced(
        self, key: DriftKey, held: _Held, watch: Watch, span: tuple[int, int], policy: DriftPolicy, *, is_behind: bool
    ) -> ScoredWindows:
        """The readings of the windows of a span (µs); a day without rows says nothing of a past `is_behind`."""
        window_us = policy.window_us
        series = {name: self._series(key, held, name, span, window_us) for name in watch.slices}
        whole = series[ALL]
        left_out = on_days(whole.windows, window_us, policy.excluded_days)
        if is_behind and not whole.rows.any():
            left_out[:] = True  # the bundle had no part in the traffic then
        shapes: dict[int, dict[str, int]] = {}
        for start_us, of_window in self._scores.shapes(key, span).items():
            into = shapes.setdefault(start_us // window_us * window_us, {})
            for name, rows in of_window.items():
                into[name] = into.get(name, 0) + rows
        readings = watch.advance(series, left_out, shapes)
        return ScoredWindows((whole.windows * window_us).tolist(), readings, whole.rows.tolist(), ())

    def _series(self, key: DriftKey, held: _Held, name: str, span: tuple[int, int], window_us: int) -> Series:
        layout = held.watched.layout
        found = self._scores.counts(key, layout.digest, span, of_slice=name, window_us=window_us)
        tallies = ((start_us, unpacked(layout, counts)) for start_us, counts in found)
        return series_of(held.placement, window_us, (span[0] // window_us, span[1] // window_us), tallies)

    def _calibrated(self, key: DriftKey, held: _Held, policy: DriftPolicy) -> _Fresh | None:
        """A calibration on what came before the day of the next window; None where it is not due, or allows nothing."""
        day_us = held.stored.next_start_us // DAY_US * DAY_US
        known_us = held.stored.facts.history_end_us
        is_due = known_us is None or day_us > known_us or held.stored.promise_days != policy.promise_days
        if not is_due or self._tried.get(key) == day_us:
            return None
        self._tried[key] = day_us
        days = self._scores.days_with_rows(key, day_us - DRIFT_HISTORY_DAYS * DAY_US, day_us)
        lookback = Lookback.of(days, policy.window_us, day_us, DRIFT_HISTORY_DAYS)
        return self._made(key, held, policy, lookback) if is_better(lookback.grade, held.watch.grade) else None

    def _made(self, key: DriftKey, held: _Held, policy: DriftPolicy, lookback: Lookback) -> _Fresh:
        window_us = policy.window_us
        span = lookback.first * window_us, lookback.stop * window_us
        windows = np.arange(lookback.first, lookback.stop, dtype=np.int64)
        left_out = on_days(windows, window_us, policy.excluded_days)
        slicings = self._slices_of(key.endpoint, held.watched, policy.slices)
        every = (ALL, *(name for slicing in slicings for name in slicing.names))
        streams = len(Ruler(held.placement.layout, WATCHED).streams(ALL))
        names = slices_within(every, len(windows), streams)
        history = LazySeries(names, lambda name: without(self._series(key, held, name, span, window_us), left_out))
        calibration = calibrate(history, promise_days=policy.promise_days)
        calibrated = Calibrated(calibration, ContractRules.of(history[ALL], WATCHED))
        promises = calibration.grade.calibrated
        facts = CalibrationFacts(
            calibration.grade,
            calibration.threshold.height,
            len(calibration.streams),
            achieved(calibration, window_us) if promises else None,
            *span,
            to_bytes(calibrated),
        )
        left = len(every) - len(names)
        problem = f"{left} slices of {len(every) - 1} are too many to be watched by themselves" if left else None
        return _Fresh(calibrated, facts, problem)


def _calibration(placement: Placement, facts: CalibrationFacts) -> Calibrated | None:
    """What was kept; None before any. Raises InvalidDefinition where it is of other variables, or was forgotten."""
    if facts.data is not None:
        return from_bytes(placement.layout, facts.data)
    if facts.grade is not Grade.TRAINING:
        raise InvalidDefinition("its calibration was forgotten while no route named it")
    return None


def _new(next_start_us: int, policy: DriftPolicy) -> StoredWatch:
    facts = CalibrationFacts(Grade.TRAINING)
    return StoredWatch(policy.window_us, policy.slices, next_start_us, policy.promise_days, facts, {}, None, {})


def _levels(watch: Watch) -> dict[str, float]:
    """The highest levels by name."""
    ordered = sorted(watch.detector.levels.items(), key=lambda each: -each[1])
    return {level_name(variable): round(level, 4) for variable, level in ordered[:DRIFT_LEVELS_MAX]}
