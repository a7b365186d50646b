"""`skewless drift …`: what moved between two files, and when."""

import re
from pathlib import Path

import click

from skewless.cli.output import print_json, say
from skewless.drift.check import CheckReport, Severity
from skewless.errors import InvalidRequest
from skewless.timestamps import DAY_US, HOUR_US, MINUTE_US

_REFUSED = 4
"""Exit code of a check that found something; see `skewless --help`."""
_UNITS_US = {"m": MINUTE_US, "h": HOUR_US, "d": DAY_US}
_WINDOW = re.compile(r"(\d{1,4})([mhd])")
FAIL_ON = ("broken", "large", "small", "alarm", "never")
_path = click.Path(path_type=Path)


@click.group()
def drift() -> None:
    """Whether rows still look as they did, and since when they do not."""


@drift.command("check")
@click.option("--reference", type=_path, required=True, help="Parquet that everything is compared with.")
@click.option("--current", type=_path, required=True, help="Parquet to look at.")
@click.option("--time-column", help="Column of times: windows are followed in order, and alarms raised.")
@click.option("--by", help="Column whose values are looked at one by one, so that none is averaged away.")
@click.option("--window", metavar="LENGTH", help="Length of a window, such as 5m, 1h or 1d; chosen where not given.")
@click.option(
    "--false-alarm-days",
    type=click.FloatRange(1.0, 3_650.0),
    default=30.0,
    show_default=True,
    help="Mean days between two false alarms.",
)
@click.option(
    "--fail-on",
    type=click.Choice(FAIL_ON),
    help="What is answered by exit code 4: a difference as bad as this or worse, or an alarm. Where not given, `alarm`"
    " with --time-column, else `large`.",
)
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="HTML file to write as well.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
def check(
    reference: Path,
    current: Path,
    time_column: str | None,
    by: str | None,
    window: str | None,
    false_alarm_days: float,
    fail_on: str | None,
    html: Path | None,
    as_json: bool,
) -> None:
    """Compare two Parquet files (or folders of them), column by column; no stack is needed.

    Bins come from the reference, as a bundle's baseline chooses them from training. With --time-column the windows of
    the current file are also followed one by one, beside the same hours of the week in the reference.
    """
    from skewless.cli.drift_check import Asked, checked
    from skewless.cli.drift_page import page
    from skewless.cli.drift_table import print_report

    if window is not None and time_column is None:
        raise click.UsageError("--window needs --time-column")
    asked = Asked(reference, current, time_column, by, window_us(window), false_alarm_days)
    report = checked(asked)
    if html is not None:
        html.write_text(page(report, reference=str(reference), current=str(current)), encoding="utf-8")
        say(f"wrote {html}")
    if as_json:
        print_json(report.to_json())
    else:
        print_report(report)
    if fails(report, fail_on or ("large" if time_column is None else "alarm")):
        raise click.exceptions.Exit(_REFUSED)


def window_us(text: str | None) -> int | None:
    """The length that `5m`, `1h` or `1d` says, in µs. Raises InvalidRequest for anything else.

    >>> window_us("1h")
    3600000000
    """
    if text is None:
        return None
    if (found := _WINDOW.fullmatch(text)) is None:
        raise InvalidRequest(f"`{text}` is no length of a window", path="--window", allowed="such as 5m, 1h or 1d")
    return int(found.group(1)) * _UNITS_US[found.group(2)]


def fails(report: CheckReport, fail_on: str) -> bool:
    """Whether a report has what `fail_on` names. An alarm is one of the detector, or a contract that broke in time."""
    if fail_on == "never":
        return False
    if fail_on == "alarm":
        timeline = report.timeline
        broke = timeline is not None and (timeline.alarms or any(each.breaks for each in timeline.readings))
        return bool(broke) or report.columns.broken
    return report.worst.rank >= Severity(fail_on).rank
