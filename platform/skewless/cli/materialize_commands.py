"""`skewless materialize`: feature rows into the online store."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import click

from skewless.adapters.materialization import FEAST, LOCAL
from skewless.cli.arguments import moment
from skewless.cli.materialize_run import MaterializeScope, compare_materialize, run_materialize
from skewless.cli.output import print_json, say
from skewless.cli.workspace import Workspace
from skewless.ingest_limits import (
    MATERIALIZATION_OVERLAP_S,
    MATERIALIZATION_VERIFY_ROWS,
    MATERIALIZATION_VERIFY_ROWS_MAX,
)
from skewless.registry.materializations import StartedBy
from skewless.registry.repository import system_clock
from skewless.timestamps import format_timestamp

if TYPE_CHECKING:
    from skewless.adapters.materialization import Planned
    from skewless.adapters.online_writer import Written

_TERMINATED = 128 + signal.SIGTERM
"""What shells report for a program ended by SIGTERM."""


@click.command()
@click.argument("views", nargs=-1, metavar="[VIEW]…")
@click.option("--as-of", "as_of", metavar="TIME", help="RFC 3339 time or a date (UTC midnight); now where not given.")
@click.option("--reset", is_flag=True, help="Empty the project's online store first; needed to go back in time.")
@click.option("--full", is_flag=True, help="Take all rows, not only those known since the last run.")
@click.option("--from", "from_time", metavar="TIME", help="Back-fill: rows that happened at this time or later.")
@click.option("--to", "to_time", metavar="TIME", help="Back-fill: rows that happened before this time.")
@click.option("--overlap", "overlap_s", type=click.FloatRange(min=0), default=MATERIALIZATION_OVERLAP_S,
              show_default=True, metavar="SECONDS", help="Look back so much longer than needed.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Say what would be written, and change nothing.")
@click.option("--scheduled", is_flag=True, help="Keep with the run that a schedule asked for it.")
@click.option("--verify", "verify_rows", type=click.IntRange(min=1, max=MATERIALIZATION_VERIFY_ROWS_MAX),
              default=MATERIALIZATION_VERIFY_ROWS, show_default=True, metavar="N",
              help="Entities to compare with the offline store afterwards.")  # fmt: skip
@click.option("--no-verify", is_flag=True, help="Compare none.")
@click.option("--engine", type=click.Choice([LOCAL, FEAST]), default=LOCAL, show_default=True,
              help="feast: by the engine of feature_store.yaml (Ray, Spark), all rows.")  # fmt: skip
@click.option("--allow-unreviewed", is_flag=True, help="Rely on quality suites that nobody has reviewed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
def materialize(
    views: tuple[str, ...],
    as_of: str | None,
    reset: bool,
    full: bool,
    from_time: str | None,
    to_time: str | None,
    overlap_s: float,
    dry_run: bool,
    scheduled: bool,
    verify_rows: int,
    no_verify: bool,
    engine: str,
    allow_unreviewed: bool,
    as_json: bool,
) -> None:
    """Write the newest row of every entity that was visible at a moment into the online store, of all views or some.

    A run takes what became known since the last one; the first one, and one after a change of the view or the store,
    takes all. A stored row is replaced by one with a later event time, or the same and a later created time, so going
    back in time needs --reset. Views with a quality suite are judged first: failing rows are set aside or nothing is
    written. Killed anywhere, the next run goes on.
    """
    scope = MaterializeScope(
        as_of=system_clock() if as_of is None else moment(as_of, option="--as-of"),
        views=views,
        reset=reset,
        full=full,
        from_time=None if from_time is None else moment(from_time, option="--from"),
        to_time=None if to_time is None else moment(to_time, option="--to"),
        started_by=StartedBy.SCHEDULED if scheduled else StartedBy.MANUAL,
        engine=engine,
        verify_rows=0 if no_verify else verify_rows,
        overlap_s=overlap_s,
        allow_unreviewed=allow_unreviewed,
    )
    workspace = Workspace()
    with _ended_by_sigterm():
        if dry_run:
            _tell_dry_run(scope, compare_materialize(workspace, scope), as_json=as_json)
            return
        done = run_materialize(workspace, scope)
    if as_json:
        print_json(done.to_json())
    else:
        say(f"{done.entities:,} entities of {len(done.views)} feature views are as at {format_timestamp(done.as_of)}")


def _tell_dry_run(scope: MaterializeScope, found: "Sequence[tuple[Planned, Written]]", *, as_json: bool) -> None:
    if as_json:
        listed = [
            {
                "view": plan.view,
                "kind": plan.run.kind.value,
                "reason": plan.run.reason,
                "goes_on": not plan.is_new,
                "source_rows": plan.run.source_rows,
                "entities": written.rows,
                **written._asdict(),
            }
            for plan, written in found
        ]
        print_json({"as_of": format_timestamp(scope.as_of), "dry_run": True, "views": listed})
        return
    for plan, written in found:
        click.echo(f"{plan.view}: {plan.run.taking.told}")
        click.echo(
            f"  {plan.run.source_rows:,} rows of {written.rows:,} entities: {written.new:,} would be new, "
            f"{written.replaced:,} replaced, {written.older:,} older than what is stored, {written.same:,} the same"
        )
    say("nothing was changed, and nothing was judged by quality suites; run it again without --dry-run")


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """A process that is asked to end gives back its leases first; a killed one's end by themselves."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(_TERMINATED)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
