"""How traffic stands with the drift monitor: a standing for each endpoint, bundle and role, out of the last day."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skewless.drift.alarms import Alarm
from skewless.drift.season import Grade
from skewless.drift.traffic import ALL
from skewless.errors import BundleRefused, InvalidDefinition, NotFound
from skewless.monitors.counted import CountedTraffic
from skewless.monitors.drift_rows import moved_names
from skewless.monitors.monitors import Monitors
from skewless.monitors.window_report import Calibration, Window, alarm_json, merged, word_json
from skewless.registry.drift_records import (
    DriftAlarm,
    DriftKey,
    DriftProgress,
    DriftRecount,
    DriftStanding,
    DriftWindow,
    UnseenWord,
)
from skewless.statistics.comparison import Difference, compare_variables
from skewless.statistics.variable import Part
from skewless.timestamps import DAY_US, HOUR_US, format_timestamp

TOP = 3
"""Features that are told, the furthest from training first."""
_WATCHED = (Part.COLUMN, Part.SCORE)


@dataclass(frozen=True, slots=True)
class Standing:
    """One bundle in one role. `windows` are the readings of the last day, `top` what is furthest from training in it.

    `problem` says what keeps this from being told whole, '' for nothing.
    """

    key: DriftKey
    progress: DriftProgress
    rows_hour: int
    rows_day: int
    late_rows: int
    windows: tuple[DriftWindow, ...]
    alarm: DriftAlarm | None
    calibration: Calibration | None
    top: tuple[Difference, ...]
    words: tuple[UnseenWord, ...]
    recount: DriftRecount | None
    sealed_us: int | None
    problem: str

    @property
    def breaks(self) -> tuple[Mapping[str, Any], ...]:
        """What is broken in the newest window."""
        return self.windows[-1].breaks if self.windows else ()

    def age_us(self, now_us: int) -> int | None:
        """How old the end of the newest sealed window is: at this moment for live traffic, else at its own newest."""
        if self.sealed_us is None:
            return None
        return max((now_us if self.progress.is_live else self.progress.newest_us) - self.sealed_us, 0)

    def to_json(self, now_us: int) -> dict[str, Any]:
        """Plain data."""
        age_us = self.age_us(now_us)
        return {
            "endpoint": self.key.endpoint,
            "bundle": self.key.bundle,
            "role": self.key.role,
            "rows_last_hour": self.rows_hour,
            "rows_last_day": self.rows_day,
            "late_rows_last_day": self.late_rows,
            "level": self.windows[-1].level if self.windows else None,
            "levels": [{"start": format_timestamp(each.start_us), "level": each.level} for each in self.windows],
            "alarm": None if self.alarm is None else _alarm_json(self.alarm),
            "breaks": [dict(each) for each in self.breaks],
            "calibration": None if self.calibration is None else self.calibration.to_json(),
            "furthest_from_training": [
                {"part": each.part.value, "name": each.name, "psi": each.psi, "psi_floor": each.psi_floor}
                for each in self.top
            ],
            "unseen_words": [word_json(each) for each in self.words],
            "recount": None if self.recount is None else _recount_json(self.recount),
            "newest": format_timestamp(self.progress.newest_us),
            "sealed_until": None if self.sealed_us is None else format_timestamp(self.sealed_us),
            "sealed_age_s": None if age_us is None else age_us / 1e6,
            "problem": self.problem or None,
        }


def standings(monitors: Monitors, endpoint: str | None) -> tuple[Standing, ...]:
    """Of one endpoint or of all: what was counted in the last day of its own time, or is still in alarm.

    Raises NotFound for an endpoint of which nothing is counted.
    """
    records = monitors.records
    known = {each.endpoint: each for each in records.progress()}
    if endpoint is not None and endpoint not in known:
        raise NotFound(
            "endpoint",
            endpoint,
            known=tuple(known),
            hint="the monitor has counted nothing of it: see that it runs, `skewless doctor`, and that it is asked",
        )
    found = []
    for name in [endpoint] if endpoint is not None else sorted(known):
        found += _of_endpoint(monitors, known[name])
    return tuple(found)


def fails(found: Sequence[Standing], fail_on: str) -> bool:
    """Whether something is open that `fail_on` names; an alarm counts a broken contract too."""
    if fail_on == "never":
        return False
    is_broken = any(each.breaks for each in found)
    return is_broken or (fail_on == "alarm" and any(each.alarm is not None for each in found))


def _of_endpoint(monitors: Monitors, progress: DriftProgress) -> list[Standing]:
    records, name = monitors.records, progress.endpoint
    standing = {each.key: each for each in records.standings(name)}
    alarms = {each.key: each for each in records.alarms(name, open_only=True)}
    recounts = {each.key: each for each in records.recounts(name) if not each.is_done}
    since_us = progress.newest_us + 1 - DAY_US
    found = []
    for key in records.keys(name):
        tallies = records.tallies(key, start=since_us)
        if tallies or key in alarms:
            found.append(
                _standing(monitors, progress, key, standing.get(key), alarms.get(key), recounts.get(key), since_us)
            )
    return found


def _standing(
    monitors: Monitors,
    progress: DriftProgress,
    key: DriftKey,
    detector: DriftStanding | None,
    alarm: DriftAlarm | None,
    recount: DriftRecount | None,
    since_us: int,
) -> Standing:
    records = monitors.records
    stored = [each for each in records.tallies(key, start=since_us) if not each.recounted]
    hour_us = progress.newest_us + 1 - HOUR_US
    top, problem = _furthest(monitors, key, since_us)
    return Standing(
        key=key,
        progress=progress,
        rows_hour=sum(each.rows for each in stored if each.start_us + each.window_us // 2 >= hour_us),
        rows_day=sum(each.rows for each in stored),
        late_rows=sum(each.late_rows for each in stored),
        windows=records.windows(key.endpoint, bundle=key.bundle, role=key.role, start=since_us),
        alarm=alarm,
        calibration=None if detector is None else Calibration.of(detector, records.span(key)),
        top=top,
        words=tuple(each for each in records.words(key.endpoint, key.bundle) if each.last_us >= since_us),
        recount=recount,
        sealed_us=None if detector is None else detector.next_start_us,
        problem=problem or (detector.problem if detector is not None else None) or progress.problem or "",
    )


def _furthest(monitors: Monitors, key: DriftKey, since_us: int) -> tuple[tuple[Difference, ...], str]:
    """The columns and scores that are furthest from training since then, or why they are not known."""
    try:
        counted = monitors.counted(key)
        windows = counted.windows(since_us, None, of_slice=ALL, own_only=True).get(ALL, ())
    except (BundleRefused, NotFound, InvalidDefinition) as error:
        return (), error.message
    return _ordered(counted, windows), ""


def _ordered(counted: CountedTraffic, windows: Sequence[Window]) -> tuple[Difference, ...]:
    whole = merged(counted.layout, windows)
    pairs = zip(counted.baseline.variables, counted.layout.counted(whole), strict=True)
    differences = [compare_variables(first, now) for first, now in pairs if now.part in _WATCHED and now.total]
    differences.sort(key=lambda each: -(each.psi or 0.0))
    return tuple(differences[:TOP])


def _alarm_json(stored: DriftAlarm) -> dict[str, Any]:
    alarm: Alarm = stored.alarm
    return {"id": stored.id, **alarm_json(alarm), "names": list(moved_names(stored)), "report": stored.report}


def _recount_json(recount: DriftRecount) -> dict[str, Any]:
    whole = max(recount.until_us - recount.since_us, 1)
    return {"rows": recount.rows, "done_share": min(max((recount.until_us - recount.next_us) / whole, 0.0), 1.0)}


def is_uncalibrated(standing: Standing) -> bool:
    """Whether its alarms come without a promise."""
    return standing.calibration is None or standing.calibration.grade is not Grade.HOUR_OF_WEEK
