"""`skewless drift …`: what moved between two files, and in traffic; since when, and what the monitor makes of it."""

import re
from pathlib import Path

import click

from skewless.cli.arguments import moment
from skewless.cli.output import print_json, say, step
from skewless.drift.check import CheckReport, Severity
from skewless.errors import InvalidRequest
from skewless.timestamps import DAY_US, HOUR_US, MINUTE_US, format_timestamp

_REFUSED = 4
"""Exit code of a check that found something; see `skewless --help`."""
_UNITS_US = {"m": MINUTE_US, "h": HOUR_US, "d": DAY_US}
_WINDOW = re.compile(r"(\d{1,4})([mhd])")
FAIL_ON = ("broken", "large", "small", "alarm", "never")
STATUS_FAIL_ON = ("alarm", "broken", "never")
_PARTS = ("evidently", "expectations")
_path = click.Path(path_type=Path)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")


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


@drift.command("report")
@click.argument("endpoint")
@click.option("--since", metavar="TIME", help="From this moment on; a day before --until where not given.")
@click.option("--until", metavar="TIME", help="Up to before this moment; the newest prediction where not given.")
@click.option("--alarm", metavar="ID", help="The time of this alarm, from six hours before it began.")
@click.option("--bundle", default="", metavar="DIGEST", help="A bundle; that with most rows where not given.")
@click.option("--role", default="live", show_default=True, help="The role that it answered in.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder to write; one in the home else.")
@click.option(
    "--without", multiple=True, type=click.Choice(_PARTS), help="A part to leave out: each takes some 10 s. Repeatable."
)
@_as_json
def report(
    endpoint: str,
    since: str | None,
    until: str | None,
    alarm: str | None,
    bundle: str,
    role: str,
    out: Path | None,
    without: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write a report about a time of ENDPOINT's traffic: what moved, since when, and what to do about it.

    Three views: all rows as the monitor counted them, Evidently on a sample, and what training lets expect as Great
    Expectations judges it. Pages need nothing from elsewhere.
    """
    from skewless.cli.drift_report import Asked, make_report
    from skewless.cli.workspace import Workspace
    from skewless.monitors import open_monitors

    if alarm is not None and (since is not None or until is not None):
        raise click.UsageError("--alarm has a time of its own; leave --since and --until out")
    asked = Asked(
        endpoint,
        alarm,
        None if since is None else moment(since, option="--since"),
        None if until is None else moment(until, option="--until"),
        bundle,
        role,
        out,
        frozenset(without),
    )
    with step(f"Report about {endpoint}") as progress, open_monitors() as monitors:
        made = make_report(Workspace(), monitors, asked, progress)
        progress.note(f"{len(made.files)} files")
    if as_json:
        print_json(made.to_json())
        return
    for note in made.notes:
        say(note)
    click.echo(str(made.folder / "index.html"))


@drift.command("status")
@click.argument("endpoint", required=False)
@click.option(
    "--fail-on",
    type=click.Choice(STATUS_FAIL_ON),
    default="never",
    show_default=True,
    help="What is answered by exit code 4: an open alarm or a broken contract, or a broken contract alone.",
)
@_as_json
def status(endpoint: str | None, fail_on: str, as_json: bool) -> None:
    """Show how ENDPOINT (all where not given) stands: levels, alarms, broken contracts, distance from training."""
    from skewless.cli.drift_status import Standing, standings
    from skewless.cli.drift_status import fails as is_failed
    from skewless.cli.drift_status_table import print_status
    from skewless.cli.workspace import Workspace
    from skewless.monitors import open_monitors
    from skewless.registry.repository import system_clock

    settings = Workspace().settings
    if endpoint is None and settings.database_url is None and not settings.folders.database.exists():
        found: tuple[Standing, ...] = ()  # a home that nobody has used yet
    else:
        with open_monitors() as monitors:
            found = standings(monitors, endpoint)
    now_us = system_clock()
    if as_json:
        print_json({"standings": [each.to_json(now_us) for each in found]})
    else:
        print_status(found, now_us)
    if is_failed(found, fail_on):
        raise click.exceptions.Exit(_REFUSED)


@drift.command("backfill")
@click.argument("endpoint")
@click.option("--bundle", default="", metavar="DIGEST", help="A bundle; the live one where not given.")
@click.option("--since", metavar="TIME", help="How far back; as far as the detector looks where not given.")
@_as_json
def backfill(endpoint: str, bundle: str, since: str | None, as_json: bool) -> None:
    """Count what the log store holds from before a bundle of ENDPOINT answered in that bundle's own bins.

    A new bundle has bins of its own, and so no history to be calibrated on. The monitor does this by itself, a day at a
    time; this does it now, and further back. Ctrl-C stops it; run again, it goes on.
    """
    from skewless.cli.drift_backfill import backfill as run
    from skewless.cli.workspace import Workspace

    since_us = None if since is None else moment(since, option="--since")
    with step(f"Counting earlier rows of {endpoint}", total=1) as progress:
        recount = run(Workspace(), endpoint, progress, bundle=bundle, since_us=since_us)
    if as_json:
        first, last = format_timestamp(recount.next_us), format_timestamp(recount.until_us)
        told = {"bundle": recount.key.bundle, "rows": recount.rows, "from": first, "until": last}
        print_json({"endpoint": endpoint, **told, "done": recount.is_done})
    elif not recount.is_done:
        say("stopped; run it again to go on")


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
