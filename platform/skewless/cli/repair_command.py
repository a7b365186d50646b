"""`skewless features repair`: the online store compared with the offline store, and what differs mended."""

from pathlib import Path
from typing import Any

import click

from skewless.cli.arguments import moment
from skewless.cli.output import print_json, say
from skewless.cli.workspace import Workspace
from skewless.errors import InvalidRequest
from skewless.monitor_limits import REPAIR_ROWS_PER_S
from skewless.registry.repository import system_clock

_CHOICES = "one of --all, --view, --entities and --from-check says what is looked at"


@click.command("repair")
@click.option("--all", "everything", is_flag=True, help="Every view, and what nobody reads any more.")
@click.option("--view", "views", multiple=True, metavar="VIEW", help="Only this view; repeatable.")
@click.option(
    "--entities",
    "entities_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Only these entities: join keys as JSON lines, or as Parquet.",
)
@click.option(
    "--from-check",
    "report_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="REPORT",
    help="The views and causes that a parity check found, as its --json wrote them; all entities of those views.",
)
@click.option(
    "--cause",
    "causes",
    multiple=True,
    metavar="CAUSE",
    help="Only this cause, or `any`; repeatable. Without it what passes by itself is left alone, and with --as-of also "
    "what is newer than that moment.",
)
@click.option("--as-of", "as_of", metavar="TIME", help="As of this moment (RFC 3339 or a date); now where not given.")
@click.option("--dry-run", is_flag=True, help="Say what is wrong and what would be done; change nothing.")
@click.option(
    "--rate",
    "rows_per_s",
    type=click.FloatRange(min=0),
    default=REPAIR_ROWS_PER_S,
    show_default=True,
    metavar="ROWS",
    help="Hashes read or changed a second at most, so that serving is not disturbed; 0: no bound.",
)
@click.option("--allow-unreviewed", is_flag=True, help="Rely on quality suites that nobody has reviewed.")
@click.option("--reason", default="repair", show_default=True, help="Why; it is kept in the audit trail.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
def repair(
    everything: bool,
    views: tuple[str, ...],
    entities_file: Path | None,
    report_file: Path | None,
    causes: tuple[str, ...],
    as_of: str | None,
    dry_run: bool,
    rows_per_s: float,
    allow_unreviewed: bool,
    reason: str,
    as_json: bool,
) -> None:
    """Make the online store what the offline store says it should be, for what materialization cannot mend.

    Corrections under an equal event time, rows of entities that are gone or expired, nulls of a push, rows of the
    future, keys of another type, fields of features that are no more. A row is changed only if it is still what was
    looked at, so a fresher one that arrives meanwhile stays; stopping at any moment is safe, and running again does the
    rest. Views with a quality suite are judged first, as by `materialize`: rows that fail are written by neither. The
    report is kept in the home.
    """
    from skewless.cli.repair_run import RepairScope, run_repair
    from skewless.cli.repair_views import show_repair

    if (everything and (views or entities_file or report_file)) or (report_file and (views or entities_file)):
        raise InvalidRequest("more than one thing says what is looked at", path="--all", allowed=_CHOICES)
    if not (everything or views or entities_file or report_file):
        raise InvalidRequest("nothing says what is looked at", path="--all", allowed=_CHOICES)
    began = system_clock()
    scope = RepairScope(
        as_of=began if as_of is None else moment(as_of, option="--as-of"),
        began=began,
        views=views,
        entities=entities_file,
        report=report_file,
        causes=causes,
        dry_run=dry_run,
        rows_per_s=rows_per_s,
        leftovers=everything,
        allow_unreviewed=allow_unreviewed,
    )
    found = run_repair(Workspace(), scope, reason=reason)
    _tell(found, as_json=as_json, show=show_repair)


def _tell(found: dict[str, Any], *, as_json: bool, show: Any) -> None:
    if as_json:
        print_json(found)
        return
    show(found)
    if found["dry_run"] and any(each["left"] for each in found["reasons"]):
        say("nothing was changed; run it again without --dry-run")
