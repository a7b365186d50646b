"""`skewless parity …`: whether what was served is what training would have seen, and why where it is not."""

import sys
from pathlib import Path
from typing import Any

import click

from skewless.cli.arguments import moment
from skewless.cli.output import print_json, say, step
from skewless.cli.workspace import Workspace
from skewless.errors import InvalidRequest
from skewless.parity.verdict import Condition, failures
from skewless.registry.repository import system_clock
from skewless.timestamps import DAY_US

FAILED = 4
"""Exit code of a check that fails a condition."""
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
_html = click.option(
    "--html",
    "html_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the report to this file as a page that needs nothing else.",
)


@click.group()
def parity() -> None:
    """Compare what was served with what the offline store gives for the same moments, value by value."""


@parity.command()
@click.option("--endpoint", required=True, metavar="NAME", help="Whose predictions.")
@click.option("--since", metavar="TIME", help="From this moment on (RFC 3339 or a date); a day before --until.")
@click.option("--until", metavar="TIME", help="Up to before this moment; now where not given.")
@click.option(
    "--sample",
    type=click.FloatRange(min=0, max=1, min_open=True),
    default=1.0,
    show_default=True,
    metavar="SHARE",
    help="Of all entities, chosen by a hash of their keys: each with all of its predictions.",
)
@click.option(
    "--fail-on",
    "fail_on",
    multiple=True,
    metavar="CAUSE[=RATE]",
    help="Exit with 4 where a view differs for this cause at a rate above RATE (0); also `fault`, `any`. Repeatable.",
)
@click.option(
    "--served",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Check this Parquet file, in the columns of the log, in place of the log.",
)
@_html
@_as_json
def check(
    endpoint: str,
    since: str | None,
    until: str | None,
    sample: float,
    fail_on: tuple[str, ...],
    served: Path | None,
    html_path: Path | None,
    as_json: bool,
) -> None:
    """Compare an endpoint's predictions with the offline store, and name a cause for every mismatch.

    Four levels: values, statuses and ages, model inputs, predictions. The report is kept in the home, for `report`.
    Exit code 4: a condition of --fail-on is met.
    """
    from skewless.cli.parity_check import Scope, run_check
    from skewless.cli.parity_reports import store_report
    from skewless.cli.parity_views import show_report

    conditions = [Condition.parse(each) for each in fail_on]
    end = system_clock() + 1 if until is None else moment(until, option="--until")
    start = end - DAY_US if since is None else moment(since, option="--since")
    if start >= end:
        raise InvalidRequest("the period is empty", path="--since", allowed="a moment before --until")
    workspace = Workspace()
    with step(f"Comparing predictions of {endpoint} with the offline store") as progress:
        found = run_check(workspace, Scope(endpoint, start, end, sample, served), progress)
    failed = failures(found, conditions)
    found["failed"] = failed
    store_report(workspace.home.root, found)
    _tell(found, as_json=as_json, html_path=html_path, show=show_report)
    for text in failed:
        say(f"failed: {text}")
    if failed:
        sys.exit(FAILED)


@parity.command()
@click.argument("endpoint")
@_html
@_as_json
def report(endpoint: str, html_path: Path | None, as_json: bool) -> None:
    """Show what the newest check of ENDPOINT found."""
    from skewless.cli.parity_reports import newest_report
    from skewless.cli.parity_views import show_report

    found = newest_report(Workspace().home.root, endpoint)
    _tell(found, as_json=as_json, html_path=html_path, show=show_report)


@parity.command()
@click.argument("endpoint", required=False)
@click.option(
    "--fail-on",
    "fail_on",
    multiple=True,
    metavar="CAUSE[=RATE]",
    help="Exit with 4 where a view differed for this cause in the last day at a rate above RATE; as of `check`.",
)
@_html
@_as_json
def status(endpoint: str | None, fail_on: tuple[str, ...], html_path: Path | None, as_json: bool) -> None:
    """Show what the running monitor found of ENDPOINT, or of all endpoints, in the last day and by day before.

    Causes are told from whole entities, shares of the traffic from the uniform sample. Exit code 4: a condition of
    --fail-on is met.
    """
    from skewless.cli.parity_status import read_status
    from skewless.cli.parity_status_page import status_page
    from skewless.cli.parity_status_views import show_status

    conditions = [Condition.parse(each) for each in fail_on]
    found = read_status(Workspace(), endpoint)
    failed = [f"{each['endpoint']}: {text}" for each in found for text in failures(each, conditions)]
    if html_path is not None:
        _write_page(html_path, status_page(found))
    if as_json:
        print_json({"endpoints": found, "failed": failed})
    else:
        show_status(found)
    for text in failed:
        say(f"failed: {text}")
    if failed:
        sys.exit(FAILED)


@parity.command()
@click.argument("prediction_id")
@_as_json
def explain(prediction_id: str, as_json: bool) -> None:
    """Show every feature of PREDICTION_ID as it was served and as it is offline, with the cause where they differ."""
    from skewless.adapters.served_rows import bundle_of
    from skewless.cli.parity_check import open_checker
    from skewless.cli.parity_views import explanation_json, show_explanation
    from skewless.parity.explanation import explain_row

    workspace = Workspace()
    with (
        step(f"Computing prediction {prediction_id} again"),
        workspace.log() as log,
        open_checker(workspace) as checker,
    ):
        table = log.find(prediction_id)
        checked, contract = checker.check(bundle_of(table), table)
    told = explain_row(checked, contract, 0)
    if as_json:
        print_json(explanation_json(checked, told))
    else:
        show_explanation(checked, told)


def _tell(found: dict[str, Any], *, as_json: bool, html_path: Path | None, show: Any) -> None:
    if html_path is not None:
        from skewless.cli.parity_html import page

        _write_page(html_path, page(found))
    if as_json:
        print_json(found)
    else:
        show(found)


def _write_page(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    say(f"wrote {path}")
