"""How fresh views are, as plain data and as a table for a terminal."""

import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from skewless.features.freshness import Clock, Standing, ViewFreshness, told_span
from skewless.timestamps import SECOND_US, format_timestamp

_PIPE_WIDTH = 200
_STYLES = {Standing.FRESH: "green", Standing.LATE: "red", Standing.STOPPED: "bold red", Standing.UNKNOWN: "yellow"}
_WORDS = {Standing.NO_TARGET: "no target"}
_CLOCKS = {
    Clock.WALL: "now",
    Clock.REPLAY: "the newest moment asked about by traffic that replays a past",
    Clock.GIVEN: "as asked for",
}
_NOTHING = "No feature view is registered: run `skewless apply` first."
_COLUMNS = ("view", "target", "source", "arrived", "store", "entities p50 / p90 / max", "served p50 / p99", "state")


def told_console() -> Console:
    """Standard output; wide where nobody looks, so that lines of a pipe are whole."""
    return Console() if sys.stdout.isatty() else Console(width=_PIPE_WIDTH)


def span(span_s: float | None) -> str:
    """A span of time for a cell; `-` where there is none, and in words where it is still to come.

    >>> span(5400.0), span(None), span(-5400.0)
    ('1.5 h', '-', '1.5 h ahead')
    """
    if span_s is None:
        return "-"
    return told_span(span_s * SECOND_US) if span_s >= 0 else f"{told_span(-span_s * SECOND_US)} ahead"


def freshness_json(each: ViewFreshness) -> dict[str, Any]:
    """One view as plain data: ages in seconds, None where they are not known."""
    cadence, online, served = each.source.cadence, each.online, each.served
    return {
        "view": each.view,
        "as_of": format_timestamp(each.as_of),
        "clock": each.clock.value,
        "state": each.standing.value,
        "target_s": _s(each.target_us),
        "source": {
            "path": each.path,
            "rows": each.source.rows,
            "age_s": _s(each.source_age_us),
            "arrival_age_s": _s(each.arrival_age_us),
            "cadence": None
            if cadence is None
            else {
                "typical_s": _s(cadence.typical_us),
                "silent_s": _s(cadence.silent_us),
                "missing": round(cadence.missing, 2),
                "missing_allowed": round(cadence.allowed, 2),
                "history_s": _s(cadence.history_us),
            },
            "problem": each.source.problem,
            "note": each.source.note,
        },
        "online": {
            "age_s": _s(each.online_age_us),
            "entities_asked": online.asked,
            "entities_found": online.found,
            "entity_ages_s": {f"{share:g}": _s(age) for share, age in (online.ages_us or {}).items()},
            "problem": online.problem,
        },
        "served": None
        if served is None
        else {"rows": served.rows, "median_s": _s(served.median_us), "p99_s": _s(served.p99_us)},
        "advice": each.advice,
    }


def show(found: Sequence[ViewFreshness], problem: str) -> None:
    """Print the table, then what is to be done about whom, then at which moment ages were told."""
    console = told_console()
    if not found:
        console.print(_NOTHING, markup=False, highlight=False, soft_wrap=True)
        return
    console.print(_table(found))
    lines = [f"{each.view}: {each.advice}" for each in found if each.advice and each.standing is not Standing.NO_TARGET]
    lines += [f"{each.view}: {each.source.note}" for each in found if each.source.note]
    without = [each.view for each in found if each.standing is Standing.NO_TARGET]
    if without:
        lines.append(f'without a target: {", ".join(without)}; give them a tag such as {{"freshness": "2h"}}')
    unseen = dict.fromkeys(each.online.problem for each in found if each.is_online and each.online.problem)
    lines += [f"what the online store holds is not known: {each}" for each in unseen]
    if problem:
        lines.append(problem)
    for line in [*lines, *_moments(found)]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _table(found: Sequence[ViewFreshness]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in _COLUMNS:
        table.add_column(title, overflow="fold")
    for each in found:
        ages, served = each.online.ages_us, each.served
        entities = " / ".join(map(told_span, ages.values())) if ages else "-"
        missing = each.online.asked - each.online.found
        if ages and missing:
            entities += f" ({missing:,} of {each.online.asked:,} missing)"
        standing = each.standing
        table.add_row(
            each.view,
            _cell(each.target_us),
            _cell(each.source_age_us),
            _cell(each.arrival_age_us),
            ("none" if each.is_missing_online else _cell(each.online_age_us)) if each.is_online else "not kept",
            entities,
            "-" if served is None else f"{told_span(served.median_us)} / {told_span(served.p99_us)}",
            Text(_WORDS.get(standing, standing.value), style=_STYLES.get(standing, "")),
        )
    return table


def _moments(found: Sequence[ViewFreshness]) -> list[str]:
    """The moments at which ages are told, each with what it is."""
    known = dict.fromkeys((each.clock, each.as_of) for each in found)
    if len(known) == 1:
        ((clock, as_of),) = known
        return [f"ages at {format_timestamp(as_of // SECOND_US * SECOND_US)}, {_CLOCKS[clock]}"]
    return [
        f"ages of {', '.join(each.view for each in found if (each.clock, each.as_of) == (clock, as_of))} at "
        f"{format_timestamp(as_of // SECOND_US * SECOND_US)}, {_CLOCKS[clock]}"
        for clock, as_of in known
    ]


def _cell(span_us: int | None) -> str:
    return "-" if span_us is None else told_span(span_us)


def _s(span_us: int | None) -> float | None:
    return None if span_us is None else round(span_us / SECOND_US, 3)
