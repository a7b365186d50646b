"""`skewless log query|outcomes|maturity`: the prediction log asked in SQL, and what became of its outcomes."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from rich.table import Table

from skewless.cli.arguments import moment
from skewless.cli.output import print_json, say, step
from skewless.cli.rollout_views import duration, print_table
from skewless.cli.workspace import Workspace
from skewless.errors import InvalidRequest
from skewless.serving.label_maturity import LabelMaturity
from skewless.serving.outcome_terms import OutcomeTerms
from skewless.timestamps import SECOND_US, Micros

if TYPE_CHECKING:
    from skewless.adapters.log_rows import LogRows

ROWS_SHOWN = 100
"""Rows of an answer that a terminal is shown; files get all of them."""
_CELL_CHARACTERS = 40
_since = click.option("--since", metavar="TIME", help="From this moment on.")
_until = click.option("--until", metavar="TIME", help="Before this moment.")
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")


@click.command()
@click.argument("sql")
@click.option("--endpoint", help="`predictions` has those of this endpoint; of all where not given.")
@_since
@_until
@_as_json
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV on standard output.")
@click.option("--parquet", type=click.Path(dir_okay=False, path_type=Path), help="Write all rows to this Parquet file.")
def query(
    sql: str,
    endpoint: str | None,
    since: str | None,
    until: str | None,
    as_json: bool,
    as_csv: bool,
    parquet: Path | None,
) -> None:
    """Ask the prediction log one SELECT (DuckDB's SQL).

    Views: predictions, outcomes, outcomes_classed, outcomes_final, predictions_with_outcomes, tallies; docs/outcomes.md
    lists their columns. --since and --until bound the as_of of predictions. Nothing can be changed by a query.
    """
    if as_json + as_csv + (parquet is not None) > 1:
        raise InvalidRequest("there is one answer", path="--json", allowed="one of --json, --csv and --parquet")
    from skewless.adapters.log_rows import LogRows

    start, end = _bounds(since, until)
    with Workspace().log() as log:
        rows = LogRows(log.sql(sql, endpoint=endpoint, start=start, end=end))
        if as_json:
            _print_rows(rows)
        elif as_csv:
            rows.write_csv(Path("-"))
        elif parquet is not None:
            with step(f"Writing {parquet}") as progress:
                progress.note(f"{rows.write_parquet(parquet):,} rows")
        else:
            _show_rows(rows)


@click.command()
@click.argument("endpoint", required=False)
@_since
@_until
@_as_json
def outcomes(endpoint: str | None, since: str | None, until: str | None, as_json: bool) -> None:
    """Count the outcomes that were received (of ENDPOINT, or of all), by what each did.

    first: of its prediction; duplicate: says what the one before it said; corrected: says something else; unknown: its
    prediction is not in the log; late: of these, received after the endpoint's label horizon.
    """
    start, end = _bounds(since, until)
    with Workspace().log() as log:
        counts = log.outcome_counts(endpoint, start, end).to_pylist()
    by_endpoint: dict[str | None, dict[str, int]] = {}
    for each in counts:
        of_endpoint = by_endpoint.setdefault(
            each["endpoint"], {"first": 0, "duplicate": 0, "corrected": 0, "unknown": 0, "late": 0}
        )
        of_endpoint[each["class"]] += each["outcomes"]
        of_endpoint["late"] += each["outcomes"] if each["is_late"] else 0
    if as_json:
        print_json([{"endpoint": name, **of_endpoint} for name, of_endpoint in by_endpoint.items()])
        return
    if not by_endpoint:
        say("no outcomes were received: callers tell them by POST /v1/outcomes")
        return
    table = Table("endpoint", "first", "duplicate", "corrected", "unknown", "late")
    for name, of_endpoint in by_endpoint.items():
        table.add_row(name or "(of no known prediction)", *(f"{count:,}" for count in of_endpoint.values()))
    print_table(table)


@click.command()
@click.argument("endpoint")
@_since
@_until
@_as_json
def maturity(endpoint: str, since: str | None, until: str | None, as_json: bool) -> None:
    """Show how complete the outcomes of ENDPOINT are: by the age of its predictions, by delay, and by day.

    A day is mature once all its predictions are older than the label horizon: the one that `skewless endpoint set`
    declares, else the age by which 99 % of the outcomes that came had come.
    """
    from skewless.adapters.outcome_maturity import label_maturity
    from skewless.registry.repository import system_clock

    start, end = _bounds(since, until)
    workspace = Workspace()
    terms = workspace.outcome_terms().get(endpoint, OutcomeTerms())
    with workspace.log() as log:
        found = label_maturity(log, endpoint, now=system_clock(), terms=terms, start=start, end=end)
    if as_json:
        print_json(found.to_json())
        return
    _show_maturity(found)


QUERY_COMMANDS = (query, outcomes, maturity)
"""What the group `skewless log` has from here."""


def _bounds(since: str | None, until: str | None) -> tuple[Micros | None, Micros | None]:
    return (
        None if since is None else moment(since, option="--since"),
        None if until is None else moment(until, option="--until"),
    )


def _print_rows(rows: "LogRows") -> None:
    """A JSON array with a row on each line, written as it is read."""
    write = sys.stdout.write
    separator = "[\n"
    for row in rows.plain():
        write(separator + msgspec.json.encode(row).decode())
        separator = ",\n"
    write("[]\n" if separator == "[\n" else "\n]\n")


def _show_rows(rows: "LogRows") -> None:
    table = Table(*rows.columns)
    count = 0
    for row in rows.plain():
        count += 1
        if count > ROWS_SHOWN:
            break
        table.add_row(*(_cell(value) for value in row.values()))
    print_table(table)
    if count > ROWS_SHOWN:
        say(f"the first {ROWS_SHOWN} rows; --json, --csv and --parquet FILE give all of them")


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= _CELL_CHARACTERS else text[: _CELL_CHARACTERS - 1] + "…"


def _show_maturity(found: LabelMaturity) -> None:
    ages = Table("age", "predictions that old", "with an outcome by then", "share")
    for each in found.ages:
        share = "" if each.share is None else f"{each.share:.1%}"
        ages.add_row(duration(each.age_us), f"{each.predictions:,}", f"{each.with_outcome:,}", share)
    print_table(ages)
    if found.delays_us:
        words = ", ".join(f"{quantile:.0%} within {_seconds(delay)}" for quantile, delay in found.delays_us.items())
        say(f"of the outcomes that came, {words}")
    horizon = found.horizon_us
    if horizon is not None:
        source = "measured" if found.declared_horizon_us is None else "declared"
        say(f"label horizon: {_seconds(horizon)} ({source})")
    days = Table("day", "predictions", "with an outcome", "share", "mature")
    for day in found.days:
        share = f"{day.with_outcome / day.predictions:.1%}"
        is_mature = "yes" if found.is_mature(day) else "no"
        days.add_row(day.day, f"{day.predictions:,}", f"{day.with_outcome:,}", share, is_mature)
    print_table(days)


def _seconds(span_us: float) -> str:
    return duration(round(span_us)) if span_us >= 60 * SECOND_US else f"{span_us / SECOND_US:.1f}s"
