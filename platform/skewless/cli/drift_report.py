"""Composes a drift report: what the monitor counted of a window, rows of the log for pictures, and where it is kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skewless.adapters.drift_log_counts import busiest_logged, newest_logged
from skewless.adapters.log_reader import LogReader
from skewless.adapters.recorded_rows import not_kept
from skewless.cli.drift_evidence import Evidence, evidence_of
from skewless.cli.drift_report_page import report_page
from skewless.cli.drift_reports import INDEX, REPORT_JSON, as_json, keep, keep_in_home
from skewless.cli.output import Step
from skewless.cli.workspace import Workspace
from skewless.drift.alarms import Alarm
from skewless.drift.season import Grade
from skewless.drift.traffic import ALL
from skewless.errors import InvalidRequest, NotFound
from skewless.monitor_limits import DRIFT_REPORT_SPAN_DAYS
from skewless.monitors.counted import Counts, LoggedTraffic
from skewless.monitors.monitors import Monitors
from skewless.monitors.window_report import Calibration, Scope, WindowReport, findings_of, merged, recent_spans
from skewless.registry.drift_records import DriftAlarm, DriftKey, DriftRecords, DriftStanding
from skewless.registry.repository import system_clock
from skewless.timestamps import DAY_US, HOUR_US, MINUTE_US, format_timestamp

_AROUND_ALARM_US = 6 * HOUR_US
"""Shown of the time before an alarm's beginning, so that the change can be seen."""
_SPAN_US_MAX = int(DRIFT_REPORT_SPAN_DAYS * DAY_US)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a report is asked for: an alarm by its id, or a time (None: the last day); the rest where not the usual.

    `without` are parts that are left out: `evidently`, `expectations`.
    """

    endpoint: str
    alarm: str | None = None
    since_us: int | None = None
    until_us: int | None = None
    bundle: str = ""
    role: str = "live"
    out: Path | None = None
    without: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class MadeReport:
    """A report and the folder that it lies in."""

    folder: Path
    report: WindowReport
    files: tuple[str, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        files = {"folder": str(self.folder), "files": list(self.files), "notes": list(self.notes)}
        return {**files, "report": self.report.to_json()}


def make_report(workspace: Workspace, monitors: Monitors, asked: Asked, progress: Step) -> MadeReport:
    """Make and keep a report. Raises NotFound where there are no rows, InvalidRequest for a time that is too long."""
    progress.note(f"counts of {asked.endpoint}")
    with workspace.log() as log:
        scope, counted = _counts(monitors, log, asked)
        bundle = monitors.bundle(scope.bundle)
        report, spans = window_report(monitors.records, counted, scope, not_kept(bundle.contract))
        evidence = Evidence()
        if {"evidently", "expectations"} - asked.without:
            progress.note("rows out of the log")
            evidence = evidence_of(log, bundle, report, spans, asked.without)
    notes = [*([_UNCOUNTED] if isinstance(counted, LoggedTraffic) else []), *evidence.notes]
    document = as_json(report.to_json())
    titles = {**evidence.titles, REPORT_JSON: "everything above, as JSON"}
    files = {INDEX: report_page(report, titles, notes), REPORT_JSON: document, **evidence.files}
    folder = (
        keep_in_home(files, workspace.home.root, scope.endpoint, system_clock())
        if asked.out is None
        else keep(files, asked.out)
    )
    return MadeReport(folder, report, tuple(files), tuple(notes))


_UNCOUNTED = (
    "The monitor keeps no counts of this time: they were made of the log's rows for this report, without slices, alarms"
    " and broken contracts."
)


def _counts(monitors: Monitors, log: LogReader, asked: Asked) -> tuple[Scope, Counts]:
    """What is asked for, and its counts: those that the monitor keeps, else such as are made of the log's rows."""
    if asked.alarm is not None:
        scope = _scope_of(monitors.records, monitors.records.alarm(asked.alarm), asked)
        return scope, monitors.counted(DriftKey(scope.endpoint, scope.bundle, scope.role))
    newest_us = _newest(monitors.records, log, asked.endpoint)
    until_us = newest_us if asked.until_us is None else asked.until_us
    since_us = until_us - DAY_US if asked.since_us is None else asked.since_us
    if not 0 < until_us - since_us <= _SPAN_US_MAX:
        raise InvalidRequest(
            f"the time has {(until_us - since_us) / DAY_US:g} days",
            path="--since, --until",
            allowed=f"more than none, and up to {DRIFT_REPORT_SPAN_DAYS:g} days",
        )
    if (key := _busiest(monitors.records, asked, since_us, until_us)) is not None:
        return _scope(key, since_us, until_us), monitors.counted(key)
    digest = busiest_logged(log, asked.endpoint, asked.role, asked.bundle, (since_us, until_us))
    if digest is None:
        raise NotFound(
            "predictions",
            f"of {asked.endpoint} in the role {asked.role} {f'by bundle {asked.bundle} ' if asked.bundle else ''}"
            f"from {format_timestamp(since_us)} to {format_timestamp(until_us)}",
            hint="`skewless drift status` says what there is; choose another --since and --until, --bundle or --role",
        )
    key = DriftKey(asked.endpoint, digest, asked.role)
    return _scope(key, since_us, until_us), LoggedTraffic(log, key, monitors.bundle(digest))


def window_report(
    records: DriftRecords, counted: Counts, scope: Scope, hidden: dict[str, str]
) -> tuple[WindowReport, list[tuple[int, int]]]:
    """What counts say about a window, and the spans of the same hours before it that have rows.

    `hidden` are columns that the log does not hold as they were, and why.
    """
    windows = counted.own(scope.since_us, scope.until_us)
    recent, spans, told = _recent(counted, scope)
    standing = _standing(records, counted.key)
    alarms = records.alarms(scope.endpoint)
    return (
        WindowReport(
            scope=scope,
            rows=merged(counted.layout, windows.get(ALL, ())).rows,
            late_rows=counted.late_rows(scope.since_us, scope.until_us),
            findings=findings_of(
                counted.baseline,
                counted.layout,
                windows,
                recent,
                (scope.since_us, scope.until_us),
                frozenset(hidden),
            ),
            levels=records.windows(
                scope.endpoint,
                bundle=scope.bundle,
                role=scope.role,
                start=scope.since_us,
                end=scope.until_us,
            ),
            alarms=tuple(each.alarm for each in alarms if each.key == counted.key and _overlaps(each.alarm, scope)),
            calibration=None if standing is None else Calibration.of(standing, records.span(counted.key)),
            recent=told,
            words=tuple(
                each
                for each in records.words(scope.endpoint, scope.bundle)
                if each.feature not in hidden and each.first_us < scope.until_us and each.last_us >= scope.since_us
            ),
            hidden=hidden,
        ),
        spans,
    )


def _recent(counted: Counts, scope: Scope) -> tuple[dict[str, Sequence[Any]], list[tuple[int, int]], str]:
    """Windows of the same hours of recent weeks, else of recent days, with their spans and what they are called."""
    for grade, called in (
        (Grade.HOUR_OF_WEEK, "the same hours of recent weeks"),
        (Grade.HOUR_OF_DAY, "the same hours of recent days"),
    ):
        spans = recent_spans(scope.since_us, scope.until_us, grade)
        found = counted.within(spans)
        if any(each.tally.rows for each in found.get(ALL, ())):
            return dict(found), spans, called
    return {}, [], ""


def _scope(key: DriftKey, since_us: int, until_us: int) -> Scope:
    return Scope(key.endpoint, key.bundle, key.role, since_us, until_us)


def _scope_of(records: DriftRecords, stored: DriftAlarm, asked: Asked) -> Scope:
    """From before an alarm's beginning until it was closed, or until now, as far as a report may reach."""
    if stored.key.endpoint != asked.endpoint:
        raise InvalidRequest(
            f"alarm {stored.id} is of endpoint `{stored.key.endpoint}`", path="--alarm", allowed="an alarm of ENDPOINT"
        )
    alarm, counted = stored.alarm, records.progress(asked.endpoint)
    end_us = alarm.closed_us
    if end_us is None:
        end_us = _minute_after(counted[0].newest_us) if counted else alarm.opened_us
    since_us = alarm.since_us - _AROUND_ALARM_US
    return _scope(stored.key, since_us, max(min(end_us, since_us + _SPAN_US_MAX), alarm.opened_us))


def _newest(records: DriftRecords, log: LogReader, endpoint: str) -> int:
    """The end of the minute in which an endpoint's newest prediction was asked for, as counted, else as logged."""
    counted = records.progress(endpoint)
    newest_us = counted[0].newest_us if counted else newest_logged(log, endpoint)
    if newest_us is None:
        raise NotFound(
            "endpoint",
            endpoint,
            known=tuple(sorted({*log.endpoints(), *(each.endpoint for each in records.progress())})),
            hint="the log has no prediction of it; `skewless log status` says what waits",
        )
    return _minute_after(newest_us)


def _minute_after(moment_us: int) -> int:
    return (moment_us // MINUTE_US + 1) * MINUTE_US


def _busiest(records: DriftRecords, asked: Asked, since_us: int, until_us: int) -> DriftKey | None:
    """Of the bundles in a role the one with most counted rows in a time; None where nothing is counted."""
    keys = [each for each in records.keys(asked.endpoint) if each.role == asked.role]
    rows = {
        key: sum(each.rows for each in records.tallies(key, start=since_us, end=until_us) if not each.recounted)
        for key in keys
        if key.bundle.startswith(asked.bundle)
    }
    counted = [key for key in rows if rows[key]]
    return max(counted, key=lambda key: (rows[key], key), default=None)


def _standing(records: DriftRecords, key: DriftKey) -> DriftStanding | None:
    return next((each for each in records.standings(key.endpoint) if each.key == key), None)


def _overlaps(alarm: Alarm, scope: Scope) -> bool:
    return alarm.since_us < scope.until_us and (alarm.closed_us is None or alarm.closed_us >= scope.since_us)
