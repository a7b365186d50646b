"""Two tables beside each other: what moved, how far, and whether that is more than chance; and over time, when."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from skewless.drift.alarms import Alarm, Reading
from skewless.drift.calibration import WATCHED, calibrate
from skewless.drift.contract_breaks import EXCESS_SHARE, ContractRules
from skewless.drift.detector import Detector
from skewless.drift.rule_of_thumb import RuleOfThumb
from skewless.drift.season import Grade, grade_of
from skewless.drift.streams import ROWS_MIN
from skewless.drift.traffic import ALL, Traffic
from skewless.errors import InvalidDefinition
from skewless.statistics.comparison import Difference, compare_variables
from skewless.statistics.tally import Tally, TallyLayout
from skewless.statistics.variable import Variable
from skewless.timestamps import format_timestamp

SMALL, LARGE = 0.1, 0.25
"""Population stability from which a difference is usually called small, and large."""


class Severity(StrEnum):
    """How much a variable differs, in ascending order."""

    QUIET = "quiet"
    """No more than chance gives, or too little to matter."""
    SMALL = "small"
    LARGE = "large"
    BROKEN = "broken"
    """It emptied, stands still or is full of what the reference never saw."""

    @property
    def rank(self) -> int:
        return list(Severity).index(self)


@dataclass(frozen=True, slots=True)
class Finding:
    """One variable of a slice (ALL for all rows), with its counts on both sides in the same bins."""

    slice: str
    severity: Severity
    difference: Difference
    reference: Variable
    current: Variable

    def to_json(self) -> dict[str, Any]:
        """Plain data, without the counts."""
        return {"severity": self.severity.value, **self.difference.to_json()}


@dataclass(frozen=True, slots=True)
class Timeline:
    """What the detector said window by window. `height` is None without calibration."""

    window_us: int
    grade: Grade
    promise_days: float
    height: float | None
    readings: tuple[Reading, ...]
    alarms: tuple[Alarm, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data; times as text."""
        return {
            "window_us": self.window_us,
            "reference": self.grade.value,
            "calibrated": self.grade.calibrated,
            "days_between_false_alarms": self.promise_days if self.grade.calibrated else None,
            "height": self.height,
            "windows": len(self.readings),
            "alarms": [_told(each.to_json()) for each in self.alarms],
            "breaks": [
                {"start": format_timestamp(reading.start_us), **each.to_json()}
                for reading in self.readings
                for each in reading.breaks
            ],
        }


def _told(alarm: dict[str, Any]) -> dict[str, Any]:
    return {
        **alarm,
        "opened": format_timestamp(alarm["opened_us"]),
        "since": format_timestamp(alarm["since_us"]),
        "closed": None if alarm["closed_us"] is None else format_timestamp(alarm["closed_us"]),
    }


@dataclass(frozen=True, slots=True)
class Columns:
    """What the columns of two tables have in common. `retyped` are of types that cannot be compared: name, both types;
    `left_out` are compared by nothing here: name and type."""

    only_in_reference: tuple[str, ...] = ()
    only_in_current: tuple[str, ...] = ()
    retyped: tuple[tuple[str, str, str], ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()

    @property
    def broken(self) -> bool:
        """Whether a reader of the reference's columns would fail on the current ones."""
        return bool(self.only_in_reference or self.retyped)


@dataclass(frozen=True, slots=True)
class CheckReport:
    """See the module. `findings` are of all rows, the furthest first, then those of slices."""

    rows: tuple[int, int]
    columns: Columns
    findings: tuple[Finding, ...]
    timeline: Timeline | None = None

    def of(self, name: str = ALL) -> tuple[Finding, ...]:
        """The findings of a slice."""
        return tuple(each for each in self.findings if each.slice == name)

    @property
    def slices(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(each.slice for each in self.findings if each.slice != ALL))

    @property
    def worst(self) -> Severity:
        """The worst of all findings, slices and columns included."""
        worst = max((each.severity for each in self.findings), key=lambda each: each.rank, default=Severity.QUIET)
        return Severity.BROKEN if self.columns.broken else worst

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "rows": {"reference": self.rows[0], "current": self.rows[1]},
            "worst": self.worst.value,
            "only_in_reference": list(self.columns.only_in_reference),
            "only_in_current": list(self.columns.only_in_current),
            "retyped": [list(each) for each in self.columns.retyped],
            "left_out": [list(each) for each in self.columns.left_out],
            "columns": [each.to_json() for each in self.of()],
            "slices": {name: [each.to_json() for each in self.of(name)] for name in self.slices},
            "timeline": None if self.timeline is None else self.timeline.to_json(),
        }


def compare(reference: Traffic, current: Traffic, columns: Columns) -> CheckReport:
    """All windows of both together, for all rows and slice by slice. Both were counted in the same bins."""
    rows = reference.total().rows, current.total().rows
    found = []
    for name in (ALL, *(each for each in current.slices if each != ALL)):
        first, second = (each.total(name) for each in (reference, current))
        of_slice = [*_findings(name, reference.counter.layout, first, second)]
        found += sorted(of_slice, key=lambda each: -(each.difference.psi or 0.0))
    return CheckReport(rows, columns, tuple(found))


def follow(reference: Traffic, current: Traffic, *, promise_days: float, seed: int = 0) -> Timeline:
    """The windows of `current` in order, beside the same hours of `reference`, which is its history.

    Raises InvalidDefinition where either has no rows.
    """
    history_span, span = reference.span, current.span
    if history_span is None or span is None:
        raise InvalidDefinition("there are no rows with a time to make windows of")
    names = [ALL, *(each for each in reference.slices if each != ALL)]
    history = {name: reference.series(name, history_span) for name in names}
    windows = {name: current.series(name, span) for name in names}
    grade = grade_of(len(history[ALL]) * reference.window_us)
    rules = ContractRules.of(history[ALL], WATCHED)
    if grade is Grade.TRAINING:
        thumb = RuleOfThumb({name: reference.total(name) for name in names}, rules, WATCHED)
        readings = thumb.advance(windows)
        return Timeline(reference.window_us, grade, promise_days, None, readings, thumb.alarms)
    calibration = calibrate(history, promise_days=promise_days, seed=seed)
    detector = Detector(calibration, rules)
    readings = detector.advance(windows)
    height = calibration.threshold.height
    return Timeline(reference.window_us, grade, promise_days, height, readings, detector.alarms)


def severity_of(difference: Difference, first: Variable, second: Variable) -> Severity:
    """How much a variable differs. A difference that chance explains is quiet, however large its index."""
    if _is_broken(difference, first, second):
        return Severity.BROKEN
    index, limit = difference.psi, difference.psi_limit
    if index is None or limit is None or index <= limit or index < SMALL:
        return Severity.QUIET
    return Severity.SMALL if index < LARGE else Severity.LARGE


def _is_broken(difference: Difference, first: Variable, second: Variable) -> bool:
    if second.total < ROWS_MIN:
        return False
    excess = max(difference.null_share.change or 0.0, difference.unseen_share.change or 0.0)
    return excess >= EXCESS_SHARE or _stands_still(first, second)


def _stands_still(first: Variable, second: Variable) -> bool:
    before, after = first.moments, second.moments
    if before is None or after is None or after.count < ROWS_MIN:
        return False
    return before.minimum < before.maximum and after.minimum == after.maximum


def _findings(name: str, layout: TallyLayout, first: Tally, second: Tally) -> Iterator[Finding]:
    pairs: Sequence[tuple[Variable, Variable]] = list(zip(layout.counted(first), layout.counted(second), strict=True))
    for reference, current in pairs:
        difference = compare_variables(reference, current)
        yield Finding(name, severity_of(difference, reference, current), difference, reference, current)
