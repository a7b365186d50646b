"""One bundle in one role being watched: by a detector once there is history, by a rule of thumb until then."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.drift.alarms import Alarm, Reading
from skewless.drift.calibration import WATCHED, Calibration
from skewless.drift.calibration_form import Calibrated
from skewless.drift.contract_breaks import Break, ContractRules, Rule, Runs
from skewless.drift.detector import Detector
from skewless.drift.history import training_tally
from skewless.drift.rule_of_thumb import RuleOfThumb
from skewless.drift.season import Grade
from skewless.drift.threshold import is_open
from skewless.drift.traffic import ALL, Series
from skewless.drift.watched_bundle import Placement
from skewless.monitor_limits import DRIFT_STREAM_WINDOWS_MAX
from skewless.statistics.variable import Part
from skewless.timestamps import DAY_US

_RANKS = (Grade.TRAINING, Grade.HOUR_OF_DAY, Grade.HOUR_OF_WEEK)


@dataclass(frozen=True, slots=True)
class Watch:
    """See the module. `calibrated` is None while the rule of thumb stands in."""

    detector: Detector | RuleOfThumb
    calibrated: Calibrated | None = None

    @property
    def grade(self) -> Grade:
        """What windows are compared with."""
        return Grade.TRAINING if self.calibrated is None else self.calibrated.calibration.grade

    @property
    def slices(self) -> tuple[str, ...]:
        """Slices that are watched by themselves, ALL first."""
        return (ALL,) if self.calibrated is None else tuple(self.calibrated.calibration.slices)

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """Every alarm so far, the newest last; it may be open."""
        return self.detector.alarms

    def advance(
        self,
        series: Mapping[str, Series],
        left_out: NDArray[np.bool_],
        shapes: Mapping[int, Mapping[str, int]],
    ) -> list[Reading | None]:
        """Take the windows that follow those taken before; None for those that are `left_out` (windows,).

        `shapes` has by the beginning of a window how many rows had a part of another shape, by its name.
        """
        whole = series[ALL]
        found: list[Reading | None] = []
        changes: list[int] = (np.flatnonzero(np.diff(left_out)) + 1).tolist()
        for start, stop in pairwise([0, *changes, len(whole)] if len(whole) else []):
            if left_out[start]:
                self.detector.skip(stop - start)
                found += [None] * (stop - start)
                continue
            cut = {name: each.between(whole.first + start, whole.first + stop) for name, each in series.items()}
            found += [_with_shapes(each, shapes.get(each.start_us, {}), whole) for each in self.detector.advance(cut)]
        return found

    def to_json(self) -> dict[str, Any]:
        """What the detector remembers, as plain data."""
        return self.detector.to_json()


def first_watch(placement: Placement) -> Watch:
    """A watch of a bundle of which there is no history: beside its training."""
    rules = ContractRules(placement.layout, WATCHED, Runs.none(len(placement.layout.variables)))
    return Watch(RuleOfThumb({ALL: training_tally(placement)}, rules, WATCHED))


def calibrated_watch(calibrated: Calibrated) -> Watch:
    """A watch that has taken nothing yet."""
    return Watch(Detector(calibrated.calibration, calibrated.rules), calibrated)


def restored_watch(placement: Placement, calibrated: Calibrated | None, state: Mapping[str, Any]) -> Watch:
    """A watch that goes on where `to_json` was taken."""
    watch = first_watch(placement) if calibrated is None else calibrated_watch(calibrated)
    watch.detector.restore(state)
    return watch


def recalibrated_watch(before: Watch, calibrated: Calibrated) -> Watch:
    """A watch by a newer calibration, with the sums, runs and alarms of the one before.

    Sums go on where windows are compared with the same kind of history; of another kind they say nothing, and begin at
    0. Runs and alarms go on in any case.
    """
    after = Detector(calibrated.calibration, calibrated.rules)
    state = before.to_json()
    if before.calibrated is not None and before.grade is calibrated.calibration.grade:
        after.carry(state, before.calibrated.calibration.streams)
    else:
        after.carry({**state, "sums": [], "onsets": []}, ())
    return Watch(after, calibrated)


def is_better(offered: Grade, current: Grade) -> bool:
    """Whether history allows as much as it did when it was calibrated last, and more than nothing."""
    return offered is not Grade.TRAINING and _RANKS.index(offered) >= _RANKS.index(current)


def achieved(calibration: Calibration, window_us: int) -> float:
    """How many alarms the height raises in what it was calibrated on, per promised one."""
    statistic = (calibration.history_sums / calibration.threshold.weights).max(axis=1)
    was, count = np.zeros(1, dtype=np.bool_), 0
    for largest in statistic:
        now = is_open(was, np.array([largest]), calibration.threshold.height)
        count += int(now[0] and not was[0])
        was = now
    promised = len(statistic) * window_us / (calibration.threshold.days * DAY_US)
    return count / promised if promised else 0.0


def slices_within(names: Sequence[str], windows: int, streams_of_one: int) -> tuple[str, ...]:
    """As many of the slices, ALL first, as can be calibrated over so many windows in bounded memory."""
    most = max(DRIFT_STREAM_WINDOWS_MAX // max(windows * streams_of_one, 1), 1)
    return tuple(names[:most])


def level_name(variable: tuple[str, Part, str]) -> str:
    """What a variable of a slice is called where levels are kept by name.

    >>> level_name(("", Part.COLUMN, "temp")), level_name(("origin=JFK", Part.SCORE, "score"))
    ('column:temp', 'origin=JFK|score:score')
    """
    of_slice, part, name = variable
    return f"{of_slice}|{part.value}:{name}" if of_slice else f"{part.value}:{name}"


def _with_shapes(reading: Reading, shapes: Mapping[str, int], whole: Series) -> Reading:
    if not shapes:
        return reading
    window = reading.start_us // whole.window_us
    broken = [
        Break(Rule.SHAPE, None, name, window, 1, rows / max(reading.rows, 1), 0.0)
        for name, rows in sorted(shapes.items())
    ]
    return replace(reading, breaks=(*reading.breaks, *broken))
