"""Rows of the drift monitor for programs: windows of features, readings, alarms, unseen words."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from skewless.drift.streams import Kind
from skewless.monitors.window_report import Window, merged
from skewless.registry.drift_records import DriftAlarm, DriftKey, DriftWindow
from skewless.registry.drift_records import UnseenWord as StoredWord
from skewless.statistics.baseline import Baseline
from skewless.statistics.comparison import Difference, compare_variables
from skewless.statistics.tally import TallyLayout
from skewless.statistics.variable import Variable
from skewless.timestamps import from_micros


@dataclass(frozen=True, slots=True)
class DriftFeature:
    """One variable in one window of one slice ('' for all rows), beside training. Shares are 0 to 1.

    `part` is `column`, `output`, `score` or `age` (in µs). What a variable has not, or nobody counted, is None. `psi`
    is the stability index in training's bins, `psi_floor` what chance alone gives on average.
    """

    endpoint: str
    bundle: str
    role: str
    slice: str
    start: datetime
    end: datetime
    part: str
    name: str
    rows: int
    null_share: float | None
    unseen_share: float | None
    missing_share: float | None
    stale_share: float | None
    default_share: float | None
    mean: float | None
    deviation: float | None
    minimum: float | None
    maximum: float | None
    psi: float | None
    psi_floor: float | None
    jensen_shannon: float | None
    kolmogorov_smirnov: float | None
    wasserstein: float | None
    training_mean: float | None
    training_null_share: float | None


@dataclass(frozen=True, slots=True)
class DriftReading:
    """What the detector said of one sealed window. `level` is in heights: an alarm opens at 1.

    `reference` is what it was compared with, None on days that are left out; `breaks` are broken contracts, as text.
    """

    endpoint: str
    bundle: str
    role: str
    start: datetime
    end: datetime
    rows: int
    level: float
    leading: str
    is_open: bool
    reference: str | None
    calibrated: bool
    breaks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DriftAlarmRow:
    """An alarm. `closed` is None while it is open; `moved` has what moved beyond chance, the furthest first, and
    `report` where a report about it lies, None for nowhere."""

    id: str
    endpoint: str
    bundle: str
    role: str
    opened: datetime
    since: datetime
    closed: datetime | None
    peak: float
    calibrated: bool
    moved: tuple[str, ...]
    report: str | None


@dataclass(frozen=True, slots=True)
class UnseenWord:
    """A word that training never saw. It came `rows` times; up to `over` of them may be another word's."""

    endpoint: str
    feature: str
    word: str
    rows: int
    over: int
    first: datetime
    last: datetime


def features_of(
    key: DriftKey, baseline: Baseline, layout: TallyLayout, name: str, windows: Sequence[Window]
) -> Iterator[DriftFeature]:
    """Every variable of windows of one slice, counted together, beside training."""
    whole = merged(layout, windows)
    start_us, end_us = windows[0].start_us, max(each.start_us + each.window_us for each in windows)
    for training, now in zip(baseline.variables, layout.counted(whole), strict=True):
        if not now.total:
            continue
        yield _feature(key, name, (from_micros(start_us), from_micros(end_us)), now, compare_variables(training, now))


def _feature(
    key: DriftKey, name: str, span: tuple[datetime, datetime], now: Variable, difference: Difference
) -> DriftFeature:
    statuses = {status: pair.second for status, pair in difference.status_shares.items()}
    moments, ks, w1 = now.moments, difference.kolmogorov_smirnov, difference.wasserstein
    return DriftFeature(
        endpoint=key.endpoint,
        bundle=key.bundle,
        role=key.role,
        slice=name,
        start=span[0],
        end=span[1],
        part=now.part.value,
        name=now.name,
        rows=now.total,
        null_share=difference.null_share.second,
        unseen_share=difference.unseen_share.second,
        missing_share=statuses.get("missing"),
        stale_share=statuses.get("stale"),
        default_share=statuses.get("default"),
        mean=None if moments is None else moments.mean,
        deviation=None if moments is None else moments.deviation,
        minimum=None if moments is None else moments.minimum,
        maximum=None if moments is None else moments.maximum,
        psi=difference.psi,
        psi_floor=difference.psi_floor,
        jensen_shannon=difference.jensen_shannon,
        kolmogorov_smirnov=None if ks is None else ks.value,
        wasserstein=None if w1 is None else w1.value,
        training_mean=difference.mean.first,
        training_null_share=difference.null_share.first,
    )


def reading_row(window: DriftWindow) -> DriftReading:
    """A window's reading as programs get it."""
    return DriftReading(
        endpoint=window.key.endpoint,
        bundle=window.key.bundle,
        role=window.key.role,
        start=from_micros(window.start_us),
        end=from_micros(window.start_us + window.window_us),
        rows=window.rows,
        level=window.level,
        leading=window.leading,
        is_open=window.is_open,
        reference=None if window.grade is None else window.grade.value,
        calibrated=window.grade is not None and window.grade.calibrated,
        breaks=tuple(f"{each['rule']} {each['name']}".strip() for each in window.breaks),
    )


def alarm_row(stored: DriftAlarm) -> DriftAlarmRow:
    """An alarm as programs get it."""
    alarm = stored.alarm
    return DriftAlarmRow(
        id=stored.id,
        endpoint=stored.key.endpoint,
        bundle=stored.key.bundle,
        role=stored.key.role,
        opened=from_micros(alarm.opened_us),
        since=from_micros(alarm.since_us),
        closed=None if alarm.closed_us is None else from_micros(alarm.closed_us),
        peak=alarm.peak,
        calibrated=alarm.calibrated,
        moved=moved_names(stored),
        report=stored.report,
    )


def moved_names(stored: DriftAlarm) -> tuple[str, ...]:
    """What an alarm names, the furthest first: ↑ and ↓ for means, and the slice where it is one's."""
    arrows = {Kind.RISE: " ↑", Kind.FALL: " ↓"}
    return tuple(
        f"{each.stream.name}{arrows.get(each.stream.kind, '')}"
        + (f" in {each.stream.slice}" if each.stream.slice else "")
        for each in stored.alarm.named
    )


def word_row(endpoint: str, stored: StoredWord) -> UnseenWord:
    """An unseen word as programs get it."""
    first, last = from_micros(stored.first_us), from_micros(stored.last_us)
    return UnseenWord(endpoint, stored.feature, stored.word, stored.rows, stored.over, first, last)
