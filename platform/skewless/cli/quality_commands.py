"""`skewless quality …`: suites of feature views, what they find in batches, and rows that were set aside."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from skewless.cli.arguments import actor, moment
from skewless.cli.output import print_json, say
from skewless.cli.workspace import Workspace
from skewless.registry.transactions import system_clock
from skewless.timestamps import Micros

if TYPE_CHECKING:
    from skewless.adapters.quality_gate import Judgement
    from skewless.registry.quality_results import QuarantineRecord, RunRecord

_REFUSED = 4
"""Exit code of a check that found something; see `skewless --help`."""
FAIL_ON = ("warn", "quarantine", "stop", "never")
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
_html = click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="HTML file to write as well.")
_as_of = click.option("--as-of", "as_of", metavar="TIME", help="Moment to judge for; now where not given.")
_unreviewed = click.option("--allow-unreviewed", is_flag=True, help="Rely on suites that nobody has reviewed.")
_fail_on = click.option(
    "--fail-on",
    type=click.Choice(FAIL_ON),
    default="quarantine",
    show_default=True,
    help="What is answered by exit code 4: this verdict, or a worse one.",
)


@click.group()
def quality() -> None:
    """Whether batches of feature rows are as their view's reviewed suite expects."""


@quality.command("check")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--view", help="Feature view whose rows the file has.")
@click.option(
    "--suite", type=click.Path(dir_okay=False, path_type=Path), help="Suite file; the view's own if not given."
)
@click.option("--training", is_flag=True, help="The file is a training set: every view's features in it, as warnings.")
@_as_of
@_unreviewed
@_fail_on
@_html
@_as_json
def check(
    file: Path,
    view: str | None,
    suite: Path | None,
    training: bool,
    as_of: str | None,
    allow_unreviewed: bool,
    fail_on: str,
    html: Path | None,
    as_json: bool,
) -> None:
    """Judge a Parquet FILE as a batch of a view. Looks only: nothing is recorded, set aside or written online."""
    from skewless.cli.quality_check import Asked, checked, checked_training

    if training is (view is not None) or (training and suite is not None):
        raise click.UsageError("give either --view, with --suite where it is not the view's own, or --training")
    workspace, as_of_us = Workspace(), _moment(as_of)
    if view is None:
        judgements = checked_training(workspace, file, as_of_us)
    else:
        judgements = checked(workspace, Asked(file, view, suite, as_of_us, allow_unreviewed))
    _tell_judgements(judgements, html=html, as_json=as_json, fail_on=fail_on)


@quality.command("run")
@click.option("--view", "views", multiple=True, help="Only this feature view; may be given again.")
@_as_of
@_unreviewed
@_fail_on
@_html
@_as_json
def run(
    views: tuple[str, ...],
    as_of: str | None,
    allow_unreviewed: bool,
    fail_on: str,
    html: Path | None,
    as_json: bool,
) -> None:
    """Judge what the sources of all views with a suite hold, and record it, as `materialize` does before it writes.

    Nothing is set aside: rows that would be stay where they are.
    """
    from skewless.cli.quality_sources import judged_sources

    runs = judged_sources(Workspace(), views, _moment(as_of), allow_unreviewed=allow_unreviewed)
    _tell_runs(runs, html=html, as_json=as_json)
    _fail(runs, fail_on)


@quality.command("suggest")
@click.argument("view")
@click.option(
    "--from", "file", type=click.Path(path_type=Path), help="Parquet to learn from; the view's source if not given."
)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write; quality/VIEW.yaml if not given."
)
def suggest(view: str, file: Path | None, out: Path | None) -> None:
    """Draft a suite of VIEW from data. The draft is marked as unreviewed: gates do not rely on it yet."""
    from skewless.cli.quality_check import drafted

    path, suite = drafted(Workspace(), view, file=file, out=out)
    say(f"wrote {path}, {len(suite.expectations)} expectations: read it, then set meta.reviewed to today's date")


@quality.command("report")
@click.argument("run_id", metavar="[RUN]", required=False)
@click.option("--view", help="Only this feature view.")
@click.option("--history", is_flag=True, help="Every run that is kept, newest first, and not the last of each view.")
@_html
@_as_json
def report(run_id: str | None, view: str | None, history: bool, html: Path | None, as_json: bool) -> None:
    """Show the last run of every view with what is not met and what to do, or RUN alone by the beginning of its id."""
    from skewless.cli.quality_gate import quality_results
    from skewless.cli.quality_views import aligned, run_json, run_table

    with quality_results(Workspace(), create=True) as results:
        if history:
            kept = results.runs(view)
            if as_json:
                print_json([run_json(each) for each in kept])
            else:
                click.echo(aligned(run_table(kept)))
            return
        runs = [results.run(run_id)] if run_id else [each for each in results.last_runs() if view in (None, each.view)]
        held = results.quarantined(view)
    _tell_runs(runs, html=html, as_json=as_json, held=held)


@quality.group("quarantine")
def quarantine() -> None:
    """Rows that were set aside: list, show, replay after a fix, drop."""


@quarantine.command("list")
@click.option("--view", help="Only this feature view.")
@click.option("--all", "every", is_flag=True, help="Also batches that were replayed or dropped.")
@_as_json
def list_quarantine(view: str | None, every: bool, as_json: bool) -> None:
    """List batches of rows that wait."""
    from skewless.cli.quality_gate import quality_results
    from skewless.cli.quality_views import aligned, batch_json, quarantine_table
    from skewless.registry.quality_results import QuarantineState

    with quality_results(Workspace(), create=True) as results:
        batches = results.quarantined(view, state=None if every else QuarantineState.HELD)
    if as_json:
        print_json([batch_json(each) for each in batches])
    elif batches:
        click.echo(aligned(quarantine_table(batches)))
    else:
        say("nothing is set aside")


@quarantine.command("show")
@click.argument("batch")
@click.option("--rows", "rows_max", type=click.IntRange(1, 1000), default=10, show_default=True, help="Rows to show.")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Parquet file to copy all rows to, to mend them."
)
@_as_json
def show_quarantine(batch: str, rows_max: int, out: Path | None, as_json: bool) -> None:
    """Show rows of BATCH with the reasons why each was set aside; BATCH may be the beginning or end of its id."""
    from skewless.cli.quality_quarantine import copied, shown

    workspace = Workspace()
    document = shown(workspace, batch, rows_max)
    if out is not None:
        copied(workspace, batch, out)
        say(f"wrote {out}: mend it, then `skewless quality quarantine replay {document['id']} --from {out}`")
    if as_json:
        print_json(document)
        return
    say(f"{document['rows']:,} rows of {document['view']}, {document['state']} since {document['since']}")
    for row in document["shown"]:
        click.echo(", ".join(f"{name}={value}" for name, value in row["values"].items()))
        for reason in row["reasons"]:
            click.echo(f"  {reason}")


@quarantine.command("replay")
@click.argument("batch")
@click.option(
    "--from", "mended", type=click.Path(dir_okay=False, path_type=Path), help="Parquet with the rows, mended."
)
@_as_of
@_unreviewed
@_as_json
def replay_quarantine(
    batch: str, mended: Path | None, as_of: str | None, allow_unreviewed: bool, as_json: bool
) -> None:
    """Judge the rows of BATCH again and write those that pass into the online store; the others stay set aside."""
    from skewless.cli.quality_quarantine import replayed

    done = replayed(Workspace(), batch, mended=mended, as_of=_moment(as_of), allow_unreviewed=allow_unreviewed)
    still = 0 if done.held is None else done.held.rows
    if as_json:
        held = None if done.held is None else done.held.id
        print_json({"released": done.released, "still_set_aside": still, "batch": held})
    else:
        say(f"{done.released:,} rows went on" + (f", {still:,} stay set aside as {done.held.id}" if done.held else ""))


@quarantine.command("drop")
@click.argument("batch")
@click.option("--reason", required=True, help="Why the rows are not wanted; kept in the audit trail.")
def drop_quarantine(batch: str, reason: str) -> None:
    """Remove the rows of BATCH: they are not wanted, for example because the source has them right by now."""
    from skewless.cli.quality_gate import quality_results, quarantine_of

    workspace = Workspace()
    with quality_results(workspace) as results:
        record = results.quarantined_batch(batch)
        results.drop(record.id, actor=actor(), reason=reason)
        quarantine_of(workspace).remove(record.file)
    say(f"dropped {record.rows:,} rows of {record.view}")


def _moment(as_of: str | None) -> Micros:
    return system_clock() if as_of is None else moment(as_of, option="--as-of")


def _tell_judgements(judgements: "Sequence[Judgement]", *, html: Path | None, as_json: bool, fail_on: str) -> None:
    from skewless.adapters.quality_gate import run_record

    _tell_runs(runs := [run_record(each) for each in judgements], html=html, as_json=as_json)
    _fail(runs, fail_on)


def _tell_runs(
    runs: "Sequence[RunRecord]", *, html: Path | None, as_json: bool, held: "Sequence[QuarantineRecord]" = ()
) -> None:
    from skewless.cli.quality_page import page
    from skewless.cli.quality_views import run_json, run_lines

    if html is not None:
        html.write_text(page(runs, held), encoding="utf-8")
        say(f"wrote {html}")
    if as_json:
        print_json([run_json(each) for each in runs])
        return
    for each in runs:
        click.echo("\n".join(run_lines(each)))
    if not runs:
        say("nothing was judged yet: `skewless quality run` judges every view that has a suite")


def _fail(runs: "Sequence[RunRecord]", fail_on: str) -> None:
    from skewless.quality.verdict import Decision

    if fail_on != "never" and any(each.decision.rank >= Decision(fail_on).rank for each in runs):
        raise click.exceptions.Exit(_REFUSED)
