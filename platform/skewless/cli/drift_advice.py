"""What to do about a drift report, in order of urgency: each step with the command that takes it."""

from collections.abc import Iterator
from dataclasses import dataclass

from skewless.drift.check import Severity
from skewless.drift.contract_breaks import Rule
from skewless.monitors.window_report import Finding, WindowReport
from skewless.statistics.variable import Part

_SHARE_MOVED = 0.05
"""Change of a share of statuses that is worth a look."""
_NAMES = 3
_AGE_FACTOR = 2.0


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do. `command` is empty where no command does it."""

    text: str
    command: str = ""


def next_steps(report: WindowReport) -> tuple[Step, ...]:
    """At least one step; the first one is the most urgent."""
    steps = [*_broken(report), *_served(report), *_moved(report), *_unseen(report), *_uncalibrated(report)]
    # What a step above says already: one command is asked for once.
    first = {each.command: each for each in reversed(steps) if each.command}
    steps = [each for each in steps if not each.command or first[each.command] is each]
    return tuple(steps) or (Step("Nothing to do: no variable moved beyond what chance and usual weeks give."),)


def _broken(report: WindowReport) -> Iterator[Step]:
    rules = {Rule(each["rule"]) for each in report.broken}
    names = ", ".join(dict.fromkeys(f"`{each['name']}`" for each in report.broken if each["name"]))
    if Rule.NO_TRAFFIC in rules:
        yield Step(
            "No traffic came in some windows: see that gateways are up and callers reach them.", "skewless doctor"
        )
    if rules & {Rule.NULLS, Rule.CONSTANT}:
        yield Step(
            f"{names} emptied or stands still: look for a source that stopped, or a materialization that failed.",
            f"skewless parity check --endpoint {report.scope.endpoint}",
        )


def _served(report: WindowReport) -> Iterator[Step]:
    """Of stored features: values that are missing or stale, and rows that are older than in training."""
    away = [each for each in report.of() if _status_moved(each, "missing") or _status_moved(each, "stale")]
    old = [each for each in report.of() if each.current.part is Part.AGE and _is_older(each)]
    if away:
        yield Step(
            f"{_names(away)} are missing or stale more often than in training: materialize, and see why it did not"
            " run.",
            "skewless materialize",
        )
    if old:
        yield Step(
            f"Rows of {_names(old)} are older than in training: the model sees another past than it learned from.",
            f"skewless parity check --endpoint {report.scope.endpoint}",
        )


def _moved(report: WindowReport) -> Iterator[Step]:
    endpoint = report.scope.endpoint
    moved = [each for each in report.of() if each.severity is not Severity.QUIET and each.current.part is Part.COLUMN]
    scores = [each for each in report.of() if each.severity is not Severity.QUIET and each.current.part is Part.SCORE]
    if report.alarms or moved:
        yield Step(
            "Decide whether the world changed or the data did: parity says whether what was served is what training"
            " would have seen.",
            f"skewless parity check --endpoint {endpoint}",
        )
    if scores:
        yield Step(
            "Scores moved with it: see how the model does once outcomes are there.",
            f"skewless model-metrics show {endpoint}",
        )
    if moved and (report.alarms or scores):
        yield Step(
            f"Where it is the world ({_names(moved)}), train on recent rows and compare the bundles.", "skewless train"
        )


def _unseen(report: WindowReport) -> Iterator[Step]:
    if report.words:
        names = ", ".join(dict.fromkeys(f"`{each.feature}`" for each in report.words))
        yield Step(
            f"{names} has words that training never saw: a new kind of thing, or a source that spells otherwise."
            " The transform takes them all for one."
        )


def _uncalibrated(report: WindowReport) -> Iterator[Step]:
    calibration = report.calibration
    if calibration is not None and not calibration.grade.calibrated:
        yield Step(
            f"Alarms are uncalibrated for {calibration.days_missing:.1f} more days; if the log reaches further back,"
            " count it now.",
            f"skewless drift backfill {report.scope.endpoint}",
        )


def _status_moved(finding: Finding, status: str) -> bool:
    pair = finding.training.difference.status_shares.get(status)
    return pair is not None and (pair.second or 0.0) - (pair.first or 0.0) >= _SHARE_MOVED


def _is_older(finding: Finding) -> bool:
    mean = finding.training.difference.mean
    return mean.first is not None and mean.second is not None and mean.second > _AGE_FACTOR * max(mean.first, 1.0)


def _names(findings: list[Finding]) -> str:
    listed = ", ".join(f"`{each.current.name}`" for each in findings[:_NAMES])
    return listed if len(findings) <= _NAMES else f"{listed} and {len(findings) - _NAMES} more"
