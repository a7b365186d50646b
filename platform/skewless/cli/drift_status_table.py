"""How traffic stands with the drift monitor, as a table for a terminal."""

import math
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from skewless.cli.drift_plots import duration, minute
from skewless.cli.drift_status import Standing, is_uncalibrated
from skewless.cli.drift_table import spark
from skewless.monitors.drift_rows import moved_names
from skewless.statistics.comparison import Difference

_CELLS = 10
_TOP_LEVEL = 2.0
_WORDS = 5
NOTHING = (
    "Nothing is counted yet.",
    "The monitor counts predictions as they reach the log: start it with `skewless up`, ask an endpoint with",
    "`skewless predict`, and look again after some minutes. `skewless doctor` says what is missing;",
    "`skewless drift backfill ENDPOINT` counts what the log already holds.",
)
"""What is said where there is no traffic at all."""


def print_status(found: Sequence[Standing], now_us: int) -> None:
    """Write standings to standard output: a line each, then what there is to say about it."""
    console = Console()
    if not found:
        for line in NOTHING:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        return
    console.print(_table(found, now_us))
    for each in found:
        for line in remarks(each):
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def remarks(standing: Standing) -> Iterator[str]:
    """What is open about a bundle in a role and what to do about it, and what is furthest from training."""
    key = standing.key
    name = f"{key.endpoint} {key.role} {key.bundle[:8]}"
    if (stored := standing.alarm) is not None:
        mark = "" if stored.alarm.calibrated else " (uncalibrated)"
        yield f"{name}: alarm{mark} since about {minute(stored.alarm.since_us)} UTC: {', '.join(moved_names(stored))}"
        yield f"  skewless drift report {key.endpoint} --alarm {stored.id}" + (
            f"   (already made: {stored.report})" if stored.report else ""
        )
    for each in standing.breaks:
        about = f" of `{each['name']}`" if each["name"] else ""
        yield f"{name}: contract broken: {each['rule']}{about}"
    for feature in dict.fromkeys(each.feature for each in standing.words):
        words = [each.word for each in standing.words if each.feature == feature]
        more = f" and {len(words) - _WORDS} more" if len(words) > _WORDS else ""
        yield f"{name}: `{feature}` has words that training never saw: {', '.join(words[:_WORDS])}{more}"
    if standing.top:
        told = ", ".join(map(_distance, standing.top))
        yield f"{name}: furthest from training in the last day, by PSI: {told}"
    if standing.late_rows:
        yield f"{name}: {standing.late_rows:,} of {standing.rows_day:,} rows came when their window was sealed"
    if standing.recount is not None:
        yield f"{name}: earlier rows are being counted in its bins: {standing.recount.rows:,} so far"
    elif standing.calibration is not None and is_uncalibrated(standing):
        yield f"{name}: {standing.calibration.words}"
    if standing.problem:
        yield f"{name}: {standing.problem}"


_COLUMNS = (
    ("endpoint", False),
    ("bundle", False),
    ("role", False),
    ("rows/h", True),
    ("last day", False),
    ("level", True),
    ("alarm", True),
    ("calib.", False),
    ("sealed", True),
)


def _table(found: Sequence[Standing], now_us: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", caption=_CAPTION, caption_justify="left")
    for title, right in _COLUMNS:
        table.add_column(
            title,
            justify="right" if right else "left",
            no_wrap=title != "endpoint",
            overflow="fold",
            min_width=12 if title == "endpoint" else None,
        )
    for each in found:
        table.add_row(*map(Text, _cells(each, now_us)), style=_style(each))
    return table


_CAPTION = (
    "last day: a full bar is twice the height of an alarm; alarm: open for; sealed: age of the newest sealed window"
)


def _style(standing: Standing) -> str:
    if standing.breaks:
        return "bold red"
    if standing.alarm is not None:
        return "red"
    return "yellow" if is_uncalibrated(standing) else ""


def _cells(standing: Standing, now_us: int) -> tuple[str, ...]:
    age_us, calibration = standing.age_us(now_us), standing.calibration
    levels = [each.level for each in standing.windows]
    if calibration is None:
        calibrated = "not scored"
    else:
        calibrated = "yes" if calibration.grade.calibrated else f"in {math.ceil(calibration.days_missing)} d"
    return (
        standing.key.endpoint,
        standing.key.bundle[:8],
        standing.key.role,
        f"{standing.rows_hour:,}",
        spark(levels, _CELLS, top=_TOP_LEVEL),
        f"{levels[-1]:.2f}" if levels else "",
        "" if standing.alarm is None else duration(standing.progress.newest_us - standing.alarm.alarm.since_us),
        calibrated,
        "" if age_us is None else duration(age_us),
    )


def _distance(difference: Difference) -> str:
    if difference.psi is None or difference.psi_floor is None:
        return difference.name
    return f"{difference.name} {difference.psi:.2g} ({difference.psi_floor:.2g} by chance)"
