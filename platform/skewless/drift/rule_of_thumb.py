"""Stands in for a detector where there is too little history to calibrate one: training, and a rule of thumb.

Population stability beyond 0.25 is usually called large. With seasons in the traffic, and training from another season,
it may stand there for ever; so its alarms are marked uncalibrated, and no rate is promised.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from skewless.drift.alarms import ALARMS_KEPT, Alarm, Moved, Reading
from skewless.drift.contract_breaks import ContractRules, Runs
from skewless.drift.localisation import MOVED_MAX, joined
from skewless.drift.streams import ROWS_MIN, Floats, Kind, Stream
from skewless.drift.threshold import RELEASE
from skewless.drift.traffic import ALL, Series
from skewless.errors import InvalidDefinition
from skewless.statistics.divergence import population_stability, stability_limit
from skewless.statistics.tally import Tally
from skewless.statistics.variable import Part

LARGE = 0.25
RUN_MIN = 2
"""Windows in a row."""


class RuleOfThumb:
    """Follows windows as `detector.Detector` does, beside the tallies of training, one for each slice."""

    def __init__(self, training: Mapping[str, Tally], rules: ContractRules, parts: frozenset[Part]) -> None:
        self._training = training
        self._rules = rules
        self._watched = [place for place, each in enumerate(rules.layout.variables) if each.part in parts]
        self._runs = Runs.none(len(rules.layout.variables))
        self._high = 0
        self._alarms: list[Alarm] = []
        self._next_window: int | None = None
        self._levels: dict[tuple[str, Part, str], float] = {}

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """Every alarm so far, the newest last; it may be open."""
        return tuple(self._alarms)

    @property
    def _is_open(self) -> bool:
        return bool(self._alarms) and self._alarms[-1].closed_us is None

    @property
    def levels(self) -> dict[tuple[str, Part, str], float]:
        """How high each variable of each slice stood in the last window; only the furthest are told."""
        return dict(self._levels)

    def advance(self, series: Mapping[str, Series]) -> tuple[Reading, ...]:
        """Take the windows that follow those taken before, of every slice. Raises InvalidDefinition for others."""
        whole = series[ALL]
        if self._next_window not in (None, whole.first):
            raise InvalidDefinition(
                f"the next window is {self._next_window}, given are windows from {whole.first} on",
                hint="give every window once, in order, also those without rows",
            )
        self._next_window = whole.first + len(whole)
        return tuple(self._step(series, place) for place in range(len(whole)))

    def skip(self, windows: int) -> None:
        """Leave out windows that follow those taken before."""
        if self._next_window is not None:
            self._next_window += windows

    def to_json(self) -> dict[str, Any]:
        """What is remembered, as plain data: with it, and the same training, another process goes on."""
        return {
            "next_window": self._next_window,
            "high": self._high,
            "runs": self._runs.to_json(),
            "alarms": [each.to_json() for each in self._alarms[-ALARMS_KEPT:]],
        }

    def restore(self, data: Mapping[str, Any]) -> None:
        """Go on where `to_json` was taken."""
        self._next_window, self._high = data["next_window"], data["high"]
        self._runs = Runs.from_json(data["runs"])
        self._alarms = [Alarm.from_json(each) for each in data["alarms"]]

    def _step(self, series: Mapping[str, Series], place: int) -> Reading:
        whole = series[ALL]
        window_us, window = whole.window_us, whole.first + place
        moved = self._moved(series, place)
        self._levels = {each.stream.variable: each.level for each in moved if each.level > 0}
        level = moved[0].level if moved else 0.0
        self._high = self._high + 1 if level >= 1.0 else 0
        if not self._is_open and self._high >= RUN_MIN:
            since_us = (window - self._high + 1) * window_us
            self._alarms.append(Alarm((window + 1) * window_us, since_us, None, level, False, moved))
        elif self._is_open and level < RELEASE:
            self._alarms[-1] = replace(self._alarms[-1], closed_us=(window + 1) * window_us)
        elif self._is_open and level >= 1.0:
            alarm = self._alarms[-1]
            self._alarms[-1] = replace(alarm, peak=max(alarm.peak, level), moved=joined(alarm.moved, moved))
        usual = self._training[ALL].counts.astype(np.float64)
        breaks = self._rules.step(whole, place, usual, 0.0, self._runs)  # how many rows are usual is not known
        leading = moved[0].stream.name if moved else ""
        return Reading(window * window_us, int(whole.rows[place]), level, leading, self._is_open, breaks)

    def _moved(self, series: Mapping[str, Series], place: int) -> tuple[Moved, ...]:
        """Every variable by its stability index over LARGE (and over what chance gives), the furthest first."""
        since_us = (series[ALL].first + place) * series[ALL].window_us
        now_us = since_us + series[ALL].window_us
        found = []
        for name, training in self._training.items():
            if name not in series:
                continue
            counts, reference = series[name].counts[place], training.counts
            for at in self._watched:
                variable = self._rules.layout.variables[at]
                cells = slice(self._rules.layout.starts[at], self._rules.layout.starts[at] + variable.size)
                level = _level(reference[cells].astype(np.float64), counts[cells].astype(np.float64))
                stream = Stream(name, variable.part, variable.name, Kind.DISTRIBUTION)
                reached_us = now_us if level >= 1.0 else None
                found.append(Moved(stream, level, since_us, None, level >= 1.0, reached_us))
        found.sort(key=lambda each: -each.level)
        return tuple(found[:MOVED_MAX])


def _level(reference: Floats, current: Floats) -> float:
    """The stability index over what is called large, or over what chance alone exceeds once in a thousand times."""
    if current.sum() < ROWS_MIN:
        return 0.0
    index, limit = population_stability(reference, current), stability_limit(reference, current)
    return 0.0 if index is None or limit is None else index / (LARGE + limit)
