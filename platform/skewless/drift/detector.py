"""Follows windows as they are completed, and says when something changed, since when, and what.

One alarm per model: it opens where any stream's sum passes the calibrated height, so that the promised rate of false
alarms is that of all streams together. Only then is it asked which ones moved; that orders and names, and never
raises an alarm. Contract breaks are told beside it, at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from skewless.drift.alarms import ALARMS_KEPT, Alarm, Moved, Reading
from skewless.drift.calibration import Calibration
from skewless.drift.contract_breaks import ContractRules, Runs
from skewless.drift.localisation import joined, moved_streams
from skewless.drift.streams import Stream
from skewless.drift.threshold import RELEASE, Sums, increments
from skewless.drift.traffic import ALL, Series
from skewless.errors import InvalidDefinition
from skewless.statistics.tally import ROWS
from skewless.statistics.variable import Part

CAP = 3.0
"""Sums stop at so many heights, so that an alarm closes soon after its cause is gone."""


@dataclass(slots=True)
class _State:
    """All that a detector remembers between windows."""

    next_window: int | None
    sums: Sums
    onsets: np.ndarray[Any, np.dtype[np.int64]]
    runs: Runs
    alarms: list[Alarm] = field(default_factory=list)


class Detector:
    """See the module. Not to be shared by threads. Windows come in order, each once, those without rows included."""

    def __init__(self, calibration: Calibration, rules: ContractRules) -> None:
        self.calibration = calibration
        self._rules = rules
        streams = len(calibration.streams)
        self._state = _State(
            None,
            np.zeros(streams, dtype=np.float32),
            np.zeros(streams, dtype=np.int64),
            Runs.none(len(rules.layout.variables)),
        )

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """Every alarm so far, the newest last; it may be open."""
        return tuple(self._state.alarms)

    def advance(self, series: Mapping[str, Series]) -> tuple[Reading, ...]:
        """Take the windows that follow those taken before, of every slice. Raises InvalidDefinition for others."""
        whole = series[ALL]
        if self._state.next_window not in (None, whole.first):
            raise InvalidDefinition(
                f"the next window is {self._state.next_window}, given are windows from {whole.first} on",
                hint="give every window once, in order, also those without rows",
            )
        steps = increments(self.calibration.scores(series))
        self._state.next_window = whole.first + len(whole)
        return tuple(self._step(whole, place, steps[place]) for place in range(len(whole)))

    def skip(self, windows: int) -> None:
        """Leave out windows that follow those taken before: nothing is learnt from them, for better or worse."""
        if self._state.next_window is not None:
            self._state.next_window += windows

    @property
    def levels(self) -> dict[tuple[str, Part, str], float]:
        """How high each variable of each slice stands, in heights; those that stand at 0 are left out."""
        threshold, found = self.calibration.threshold, dict[tuple[str, Part, str], float]()
        levels = self._state.sums / (threshold.weights * threshold.height)
        for at in np.flatnonzero(levels > 0).tolist():
            variable = self.calibration.streams[at].variable
            found[variable] = max(found.get(variable, 0.0), float(levels[at]))
        return found

    def _step(self, whole: Series, place: int, step: Sums) -> Reading:
        state, threshold = self._state, self.calibration.threshold
        window = whole.first + place
        state.onsets[state.sums <= 0] = window
        limit = CAP * threshold.height * threshold.weights
        state.sums = np.clip(state.sums + step, 0.0, limit, dtype=np.float32)
        levels = state.sums / (threshold.weights * threshold.height)
        leading = int(np.argmax(levels))
        level = float(levels[leading])
        end_us = (window + 1) * whole.window_us
        self._follow(level, leading, levels, end_us, whole.window_us)
        reference = self.calibration.slices[ALL]
        slot = int(self.calibration.season.slots_of(np.array([window]))[0])
        usual_rows = float(reference.profile[slot, ROWS] / max(reference.windows[slot], 1.0))
        breaks = self._rules.step(whole, place, reference.profile[slot], usual_rows, state.runs)
        name = self.calibration.streams[leading].name if level > 0 else ""
        return Reading(window * whole.window_us, int(whole.rows[place]), level, name, self._is_open, breaks)

    @property
    def _is_open(self) -> bool:
        return bool(self._state.alarms) and self._state.alarms[-1].closed_us is None

    def _follow(self, level: float, leading: int, levels: Sums, end_us: int, window_us: int) -> None:
        """Open, raise or close the alarm."""
        alarms = self._state.alarms
        if not self._is_open:
            if level >= 1.0:
                since_us = int(self._state.onsets[leading]) * window_us
                alarms.append(
                    Alarm(end_us, since_us, None, level, self.calibrated, self._moved(levels, window_us, end_us))
                )
        elif level < RELEASE:
            alarms[-1] = replace(alarms[-1], closed_us=end_us)
        elif level >= 1.0:
            moved = alarms[-1].moved
            if self._others_reached(levels, moved):
                moved = joined(moved, self._moved(levels, window_us, end_us))
            alarms[-1] = replace(alarms[-1], peak=max(alarms[-1].peak, level), moved=moved)

    def _others_reached(self, levels: Sums, moved: tuple[Moved, ...]) -> bool:
        """Whether something is high enough by itself that the alarm does not list so yet."""
        listed = {each.stream.variable for each in moved if each.reached_us is not None}
        streams = self.calibration.streams
        return any(streams[at].variable not in listed for at in np.flatnonzero(levels >= 1.0).tolist())

    def _moved(self, levels: Sums, window_us: int, now_us: int) -> tuple[Moved, ...]:
        onsets_us = self._state.onsets * window_us
        return moved_streams(self.calibration, self._state.sums, levels, onsets_us, now_us)

    @property
    def calibrated(self) -> bool:
        """Whether alarms come with the promised rate."""
        return self.calibration.grade.calibrated

    def to_json(self) -> dict[str, Any]:
        """What is remembered, as plain data: with it, and the same calibration, another process goes on."""
        state = self._state
        return {
            "next_window": state.next_window,
            "sums": [float(each) for each in state.sums],
            "onsets": state.onsets.tolist(),
            "runs": state.runs.to_json(),
            "alarms": [each.to_json() for each in state.alarms[-ALARMS_KEPT:]],
        }

    def carry(self, data: Mapping[str, Any], streams: Sequence[Stream]) -> None:
        """Go on with what a detector of the same variables and an older calibration remembered: sums of its `streams`
        go to the same ones here, others begin at 0."""
        place_of = {stream: place for place, stream in enumerate(streams)}
        places = [place_of.get(stream) for stream in self.calibration.streams]
        self.restore(
            {
                **data,
                "sums": [0.0 if place is None else data["sums"][place] for place in places],
                "onsets": [data["next_window"] or 0 if place is None else data["onsets"][place] for place in places],
            }
        )

    def restore(self, data: Mapping[str, Any]) -> None:
        """Go on where `to_json` was taken. Raises InvalidDefinition for the state of another calibration."""
        if len(data["sums"]) != len(self.calibration.streams):
            raise InvalidDefinition(
                f"the state has {len(data['sums'])} streams, the calibration {len(self.calibration.streams)}",
                hint="begin anew after another calibration",
            )
        self._state = _State(
            data["next_window"],
            np.array(data["sums"], dtype=np.float32),
            np.array(data["onsets"], dtype=np.int64),
            Runs.from_json(data["runs"]),
            [Alarm.from_json(each) for each in data["alarms"]],
        )
