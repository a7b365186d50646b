"""What a drift report says about a span of time: each variable beside training and beside recent weeks.

Made of counts alone, as the monitor keeps them for all traffic; no row is needed and nothing is asked for here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skewless.canonical_json import Digest
from skewless.drift.alarms import Alarm
from skewless.drift.check import Severity, severity_of
from skewless.drift.season import WEEK_US, WEEKS_MIN, Grade
from skewless.drift.traffic import ALL
from skewless.registry.drift_records import DriftStanding, DriftWindow, UnseenWord
from skewless.statistics.baseline import Baseline
from skewless.statistics.comparison import Difference, compare_variables
from skewless.statistics.tally import Tally, TallyLayout
from skewless.statistics.variable import Part, Variable
from skewless.timestamps import DAY_US, format_timestamp

RECENT_WEEKS = 4
"""Weeks whose same hours a window is held against, as the detector has them at least."""
RECENT_DAYS = 7
"""Days whose same hours stand in where there are no four weeks."""
POINTS_MAX = 48
"""Parts that a window is cut into to show how a variable went on."""


@dataclass(frozen=True, slots=True)
class Window:
    """One counted window of one slice."""

    start_us: int
    window_us: int
    tally: Tally


@dataclass(frozen=True, slots=True)
class Calibration:
    """What alarms of an endpoint, bundle and role are worth. `height` is None without calibration.

    `days_missing` is how many more days of history it takes until they are calibrated, 0 once they are.
    """

    grade: Grade
    promise_days: float
    height: float | None
    achieved: float | None
    """Alarms that the height raises in history, per promised one."""
    history_days: float
    days_missing: float

    @classmethod
    def of(cls, standing: DriftStanding, counted: tuple[int, int] | None) -> "Calibration":
        """That of a detector; `counted` are the beginnings of its first and last counted window, None for none."""
        start, end = standing.history_start_us, standing.history_end_us
        if start is None or end is None:
            start, end = counted or (0, 0)
        days = (end - start) / DAY_US
        missing = 0.0 if standing.calibrated else max(WEEKS_MIN * WEEK_US / DAY_US - days, 0.0)
        return cls(standing.grade, standing.promise_days, standing.height, standing.achieved, days, missing)

    @property
    def words(self) -> str:
        """What that means, in a sentence."""
        if self.grade.calibrated:
            achieved = "" if self.achieved is None else f"; on history it raised {self.achieved:.2g} times as many"
            return (
                f"Calibrated on {self.history_days:.0f} days of history: one false alarm in {self.promise_days:g} days"
                f" is promised{achieved}."
            )
        reference = "the same hour of recent days" if self.grade is Grade.HOUR_OF_DAY else "training, by rules of thumb"
        return (
            f"UNCALIBRATED: {self.history_days:.1f} days of history are too few, {self.days_missing:.1f} more are"
            f" needed. Windows are compared with {reference}, and no rate of false alarms is promised."
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "calibrated": self.grade.calibrated,
            "reference": self.grade.value,
            "promise_days": self.promise_days,
            "height": self.height,
            "achieved": self.achieved,
            "history_days": self.history_days,
            "days_missing": self.days_missing,
        }


@dataclass(frozen=True, slots=True)
class Beside:
    """A variable of the window beside one reference, in the same bins."""

    reference: Variable
    difference: Difference
    severity: Severity

    @classmethod
    def of(cls, reference: Variable, current: Variable) -> "Beside":
        """The comparison of the two."""
        difference = compare_variables(reference, current)
        return cls(reference, difference, severity_of(difference, reference, current))

    def to_json(self) -> dict[str, Any]:
        """Plain data, without the counts."""
        return {"severity": self.severity.value, **self.difference.to_json()}


@dataclass(frozen=True, slots=True)
class Point:
    """A variable in one part of the window; None where it had no number, or no value."""

    start_us: int
    rows: int
    mean: float | None
    null_share: float | None


@dataclass(frozen=True, slots=True)
class Finding:
    """One variable of one slice (ALL for all rows). `recent` is None where recent weeks have no rows."""

    slice: str
    current: Variable
    training: Beside
    recent: Beside | None
    points: tuple[Point, ...]

    @property
    def severity(self) -> Severity:
        """The worse of both; of a slice, how it differs from itself in recent weeks, since training is of all rows."""
        if self.slice != ALL:
            return Severity.QUIET if self.recent is None else self.recent.severity
        both = [self.training.severity, *([] if self.recent is None else [self.recent.severity])]
        return max(both, key=lambda each: each.rank)

    def to_json(self) -> dict[str, Any]:
        """Plain data, without the counts."""
        return {
            "part": self.current.part.value,
            "name": self.current.name,
            "severity": self.severity.value,
            "training": self.training.to_json(),
            "recent": None if self.recent is None else self.recent.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Scope:
    """What a report is about: one bundle in one role, from a moment (µs) to before another."""

    endpoint: str
    bundle: Digest
    role: str
    since_us: int
    until_us: int


@dataclass(frozen=True, slots=True)
class WindowReport:
    """See the module. `findings` are of all rows and then of slices, each the furthest first.

    `hidden` says why columns that are hashed or left out in the log are not told. `recent` is what the same hours of
    recent weeks or days are called, empty where they have no rows.
    """

    scope: Scope
    rows: int
    late_rows: int
    findings: tuple[Finding, ...]
    levels: tuple[DriftWindow, ...]
    alarms: tuple[Alarm, ...]
    calibration: Calibration | None
    recent: str
    words: tuple[UnseenWord, ...]
    hidden: Mapping[str, str]

    def of(self, name: str = ALL) -> tuple[Finding, ...]:
        """The findings of a slice."""
        return tuple(each for each in self.findings if each.slice == name)

    @property
    def slices(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(each.slice for each in self.findings if each.slice != ALL))

    @property
    def broken(self) -> tuple[Mapping[str, Any], ...]:
        """Every contract that broke (as `Break.to_json`), once, as its last window has it."""
        found = {(each["rule"], each["part"], each["name"]): each for level in self.levels for each in level.breaks}
        return tuple(found.values())

    @property
    def worst(self) -> Severity:
        return max((each.severity for each in self.findings), key=lambda each: each.rank, default=Severity.QUIET)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        scope = self.scope
        return {
            "endpoint": scope.endpoint,
            "bundle": scope.bundle,
            "role": scope.role,
            "since": format_timestamp(scope.since_us),
            "until": format_timestamp(scope.until_us),
            "rows": self.rows,
            "late_rows": self.late_rows,
            "recent": self.recent,
            "worst": self.worst.value,
            "calibration": None if self.calibration is None else self.calibration.to_json(),
            "alarms": [alarm_json(each) for each in self.alarms],
            "breaks": [dict(each) for each in self.broken],
            "features": [each.to_json() for each in self.of()],
            "slices": {name: [each.to_json() for each in self.of(name)] for name in self.slices},
            "unseen_words": [word_json(each) for each in self.words],
            "left_out": dict(self.hidden),
        }


def word_json(word: UnseenWord) -> dict[str, Any]:
    """An unseen word as plain data; `over` of its rows may be another word's."""
    times = {"first": format_timestamp(word.first_us), "last": format_timestamp(word.last_us)}
    return {"feature": word.feature, "word": word.word, "rows": word.rows, "over": word.over, **times}


def alarm_json(alarm: Alarm) -> dict[str, Any]:
    """An alarm as plain data, with its times as text too."""
    closed = None if alarm.closed_us is None else format_timestamp(alarm.closed_us)
    times = {"opened": format_timestamp(alarm.opened_us), "since": format_timestamp(alarm.since_us), "closed": closed}
    return {**alarm.to_json(), **times}


def recent_spans(since_us: int, until_us: int, grade: Grade) -> list[tuple[int, int]]:
    """The same hours of recent weeks, or of recent days where `grade` has no weeks; the latest first.

    A window longer than its period is held against so many weeks (or days) before it that none overlaps it.

    >>> recent_spans(30 * DAY_US, 31 * DAY_US, Grade.HOUR_OF_WEEK)[0] == (23 * DAY_US, 24 * DAY_US)
    True
    """
    weekly = grade is Grade.HOUR_OF_WEEK
    period = WEEK_US if weekly else DAY_US
    step = -(-(until_us - since_us) // period) * period
    count = RECENT_WEEKS if weekly else RECENT_DAYS
    return [(since_us - back * step, until_us - back * step) for back in range(1, count + 1)]


def findings_of(
    baseline: Baseline,
    layout: TallyLayout,
    current: Mapping[str, Sequence[Window]],
    recent: Mapping[str, Sequence[Window]],
    span: tuple[int, int],
    hidden: frozenset[str],
) -> tuple[Finding, ...]:
    """Every variable of every slice beside training, and beside the windows of `recent` where there are any.

    `layout` is that of the tallies, with the baseline's bins; a slice is held against training of all rows.
    """
    found: list[Finding] = []
    for name, windows in current.items():
        whole = merged(layout, windows)
        if not whole.rows:
            continue
        before = merged(layout, recent.get(name, ()))
        usual = layout.counted(before) if before.rows else None
        points = _points(layout, windows, span)
        of_slice = [
            Finding(
                name,
                now,
                Beside.of(baseline.variables[place], now),
                None if usual is None else Beside.of(usual[place], now),
                tuple(each[place] for each in points),
            )
            for place, now in enumerate(layout.counted(whole))
            if not (now.part is Part.COLUMN and now.name in hidden) and now.total
        ]
        found += sorted(of_slice, key=_distance, reverse=True)
    return tuple(found)


def merged(layout: TallyLayout, windows: Sequence[Window]) -> Tally:
    """All windows together."""
    whole = layout.empty()
    for each in windows:
        whole = whole.merged(each.tally)
    return whole


def _distance(finding: Finding) -> tuple[int, float]:
    """How far a variable is from recent weeks, where there are any, else from training."""
    beside = finding.training if finding.recent is None else finding.recent
    return finding.severity.rank, beside.difference.psi or 0.0


def _points(layout: TallyLayout, windows: Sequence[Window], span: tuple[int, int]) -> list[tuple[Point, ...]]:
    """For each part of the span that has rows: a point of every variable."""
    length = max(-(-(span[1] - span[0]) // POINTS_MAX), 1)
    parts: dict[int, list[Window]] = {}
    for each in windows:
        parts.setdefault((each.start_us - span[0]) // length, []).append(each)
    return [
        tuple(_point(span[0] + place * length, each) for each in layout.counted(merged(layout, parts[place])))
        for place in sorted(parts)
    ]


def _point(start_us: int, variable: Variable) -> Point:
    mean = None if variable.moments is None else variable.moments.mean
    return Point(start_us, variable.total, mean, variable.nulls / variable.total if variable.total else None)
