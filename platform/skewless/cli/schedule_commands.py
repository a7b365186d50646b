"""`skewless schedule`: which views are materialized when, and how that goes."""

from collections.abc import Mapping, Sequence
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from skewless.adapters.cron_times import CronTimes
from skewless.cli.freshness_views import span, told_console
from skewless.cli.output import print_json
from skewless.cli.workspace import Workspace
from skewless.errors import InvalidDefinition
from skewless.features.schedule import ScheduleState, lateness_us, scheduled, to_run
from skewless.registry.definitions import Definitions
from skewless.registry.schedules import SchedulerRecord, Schedules
from skewless.registry.transactions import system_clock
from skewless.timestamps import SECOND_US, format_timestamp

_STYLES = {"failed": "red", "wrong": "red", "refused": "yellow", "interrupted": "yellow", "running": "cyan"}
_NEVER = "never ran"
_NONE_ALIVE = (
    "No scheduler is at work: start one with SKEWLESS_STACK_SCHEDULER=true and `skewless up`, or "
    "`python -m skewless_scheduler`."
)
_NONE_SCHEDULED = (
    'No view is scheduled: give one a tag such as {"schedule": "15 * * * *"} (cron, UTC) and run `skewless apply`.'
)
_WORDS_MAX = 160


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
def schedule(as_json: bool) -> None:
    """List the scheduled views: when each is due next, and what came of its last run.

    Needs the registry database alone. Times are UTC.
    """
    workspace = Workspace()
    now = system_clock()
    with workspace.kept(Definitions, create=True) as definitions:
        current = definitions.current()
    with workspace.kept(Schedules) as schedules:
        states, schedulers = schedules.states(), schedules.schedulers()
    expressions = {} if current is None else scheduled(current.definitions.views)
    found = [described(view, each, states.get(view), now) for view, each in expressions.items()]
    alive = [each for each in schedulers if each.is_alive]
    if as_json:
        print_json({"now": format_timestamp(now), "views": found, "schedulers": [_scheduler(each) for each in alive]})
        return
    _show(found, alive)


def described(view: str, expression: str, state: ScheduleState | None, now: int) -> dict[str, Any]:
    """How a scheduled view stands, as plain data. `state` is None while no scheduler has seen it."""
    try:
        times = CronTimes(expression)
    except InvalidDefinition as error:
        return {"view": view, "schedule": expression, "outcome": "wrong", "told": error.message, "hint": error.hint}
    found: dict[str, Any] = {
        "view": view,
        "schedule": expression,
        "words": times.described,
        "next_due": _moment(times.next_after(now)),
        "outcome": None,
    }
    if state is None or state.expression != expression:
        return found
    run = to_run(state, times, now)
    return found | {
        "outcome": None if state.outcome is None else state.outcome.value,
        "last_due": _moment(state.due),
        "started": _moment(state.started),
        "ended": _moment(state.ended),
        "last_success": _moment(state.last_success),
        "next_try": _moment(state.next_try),
        "attempts": state.attempts,
        "is_given_up": state.is_given_up,
        "missed": state.missed,
        "late_s": round(lateness_us(state, times, now) / SECOND_US, 3),
        "waits_for_a_scheduler": run is not None,
        "told": state.told,
        "scheduler": state.owner,
    }


def _scheduler(record: SchedulerRecord) -> dict[str, Any]:
    return {
        "scheduler": record.owner,
        "runs_max": record.runs_max,
        "started": format_timestamp(record.started),
        "seen": format_timestamp(record.seen),
    }


def _show(found: Sequence[Mapping[str, Any]], alive: Sequence[SchedulerRecord]) -> None:
    console = told_console()
    if not found:
        console.print(_NONE_SCHEDULED, markup=False, highlight=False, soft_wrap=True)
    else:
        console.print(_table(found))
        for each in found:
            if each.get("told"):
                told = " ".join(str(each["told"]).split())[:_WORDS_MAX]
                console.print(f"{each['view']}: {told}", markup=False, highlight=False, soft_wrap=True)
    if not alive:
        console.print(_NONE_ALIVE, markup=False, highlight=False, soft_wrap=True)


def _table(found: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("view", "schedule", "next due", "last run", "last success", "late"):
        table.add_column(title, overflow="fold")
    for each in found:
        outcome = each["outcome"] or _NEVER
        tries = f" {each['attempts']}x" if each.get("attempts", 0) > 1 else ""
        given_up = ", left until the next time" if each.get("is_given_up") else ""
        table.add_row(
            each["view"],
            each["schedule"],
            _short(each.get("next_due")),
            Text(f"{outcome}{tries}{given_up}", style=_STYLES.get(outcome, "")),
            _short(each.get("last_success")),
            span(each.get("late_s") or None),
        )
    return table


def _moment(moment: int | None) -> str | None:
    return None if moment is None else format_timestamp(moment // SECOND_US * SECOND_US)


def _short(moment: str | None) -> str:
    """A moment to the minute.

    >>> _short("2026-03-01T10:15:00Z")
    '2026-03-01 10:15'
    """
    return "-" if moment is None else moment[:16].replace("T", " ")
