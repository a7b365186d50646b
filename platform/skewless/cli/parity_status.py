"""How parity stands by what the running monitor has compared: plain data, for tables, pages and scripts."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from skewless.cli.workspace import Workspace
from skewless.errors import NotFound
from skewless.monitor_limits import PARITY_EXAMPLES_MAX, PARITY_SHOWN_DAYS
from skewless.parity.causes import ACCOUNTS, CAUSE_CODE, Cause
from skewless.parity.tally import LEVELS, Level, Stratum
from skewless.registry.parity_history import ParityExample, ParityHistory, ParityResult, ParityState, added_up
from skewless.timestamps import DAY_US, SECOND_US, format_timestamp

FORMAT = 1
Sums = Mapping[tuple[str, Stratum, Level, str, str], ParityResult]


def read_status(workspace: Workspace, endpoint: str | None = None) -> list[dict[str, Any]]:
    """What is known of an endpoint (None: of all that the monitor has looked at), by name.

    Raises NotFound where the monitor has not seen a sampled prediction of the endpoint yet.
    """
    with workspace.kept(ParityHistory) as history:
        states = [each for each in history.states() if endpoint in (None, each.endpoint)]
        if endpoint is not None and not states:
            raise NotFound(
                "comparison",
                f"of endpoint {endpoint}",
                hint="the monitor compares sampled predictions once their sources have passed them: `skewless doctor` "
                "says whether it runs, `skewless endpoint show` how much is sampled",
            )
        return [_status(history, each) for each in states]


def _status(history: ParityHistory, state: ParityState) -> dict[str, Any]:
    now = int(state.state["now"])
    since = now - now % DAY_US - (PARITY_SHOWN_DAYS - 1) * DAY_US
    results = history.results(state.endpoint, since=since)
    day = added_up([each for each in results if each.period_start_us >= now - DAY_US])
    found = {
        "format": FORMAT,
        "endpoint": state.endpoint,
        "now": format_timestamp(now),
        "looked_at": format_timestamp(state.changed_time),
        "progress": _progress(state.state, now),
        "predictions": {each.value: _units(day, Level.VIEWS, each, "(prediction)") for each in Stratum},
        "levels": {level.value: _level(day, level) for level in LEVELS},
        "views": _views(day),
        "causes": _causes(day, history.examples(state.endpoint, limit=PARITY_EXAMPLES_MAX)),
        "known_later": _known_later(day),
        "pending_values": _mismatches(day, Level.PENDING),
        "unchecked": dict(state.state["unchecked"]),
        "unchecked_predictions": _mismatches(day, Level.UNCHECKED),
        "not_comparable": dict(state.state["not_comparable"]),
        "failed": state.state.get("failed", ""),  # which older monitors did not note
        "days": list(_days(results, since)),
    }
    return {**found, "next": list(_next_steps(found))}


def _progress(state: Mapping[str, Any], now: int) -> dict[str, Any]:
    oldest = state["oldest"]
    return {
        "backlog": state["backlog"],
        "waiting_for_sources": state["waiting"],
        "oldest_open_s": None if oldest is None else (now - oldest) / SECOND_US,
        "verdict_s": state["verdict_s"],
        "source_behind_s": {view: max(0.0, (now - passed) / SECOND_US) for view, passed in state["passed"].items()},
        "quiet_s": state["quiet_us"] / SECOND_US,
        "horizon_s": state["horizon_us"] / SECOND_US,
    }


def _level(day: Sums, level: Level) -> dict[str, Any]:
    """Of the uniform sample, whose shares are those of the traffic, where it has any; else of the entities'."""
    for stratum in (Stratum.UNIFORM, Stratum.ENTITY):
        for (_, of, found, _, _), each in day.items():
            if (of, found) == (stratum, level) and each.units:
                return {"stratum": of.value, "compared": each.units, "equal": each.units - each.mismatches}
    return {"stratum": Stratum.ENTITY.value, "compared": 0, "equal": 0}


def _views(day: Sums) -> list[dict[str, Any]]:
    return [
        {"view": view, "stratum": stratum.value, **_rate(each)}
        for (_, stratum, level, view, _), each in sorted(day.items(), key=lambda pair: pair[0][3])
        if level is Level.VIEWS
    ]


def _causes(day: Sums, examples: Sequence[ParityExample]) -> list[dict[str, Any]]:
    """From the entities' sample, which keeps histories; from the uniform one what only that has."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for stratum in (Stratum.UNIFORM, Stratum.ENTITY):
        for (_, of, level, view, cause), each in day.items():
            if (of, level) != (stratum, Level.CAUSES):
                continue
            account = ACCOUNTS[Cause(cause)]
            found[view, cause] = {
                "view": view,
                "cause": cause,
                "kind": account.kind.value,
                "stratum": of.value,
                **_rate(each),
                "meaning": account.meaning,
                "advice": account.advice,
                "repair": account.repair,
                "examples": [dict(one.explanation) for one in examples if (one.view, one.cause) == (view, cause)],
            }
    return sorted(found.values(), key=lambda each: (CAUSE_CODE[Cause(each["cause"])], each["view"]))


def _known_later(day: Sums) -> list[dict[str, Any]]:
    return [
        {"view": view, "cause": cause, "stratum": stratum.value, **_rate(each)}
        for (_, stratum, level, view, cause), each in sorted(day.items(), key=lambda pair: pair[0][3:])
        if level is Level.KNOWN_LATER and stratum is Stratum.ENTITY
    ]


def _days(results: Sequence[ParityResult], since: int) -> Iterator[dict[str, Any]]:
    for number in range(PARITY_SHOWN_DAYS):
        start = since + number * DAY_US
        sums = added_up([each for each in results if start <= each.period_start_us < start + DAY_US])
        views = [each for (_, stratum, level, _, _), each in sums.items() if level is Level.VIEWS]
        worst = max(views, key=lambda each: each.rate, default=None)
        yield {
            "day": format_timestamp(start)[:10],
            "predictions": max((each.units for each in views), default=0),
            "worst_view": worst.view if worst is not None and worst.mismatches else None,
            "worst_rate": None if worst is None else worst.rate,
        }


def _next_steps(found: Mapping[str, Any]) -> Iterator[str]:
    """What somebody should do, most urgent first; nothing where all is well."""
    for each in found["causes"]:
        if each["kind"] == "fault":
            repair = f": `{each['repair']}`" if each["repair"] else ""
            yield f"{each['cause']} in {each['view']}: {each['advice']}{repair}"
    for digest, reason in found["unchecked"].items():
        yield f"predictions of bundle {digest[:12]} are not compared: {reason}"
    if found["failed"]:
        yield f"the last run compared no more, and the next tries again: {found['failed']}"
    progress = found["progress"]
    late = {
        view: behind
        for view, behind in progress["source_behind_s"].items()
        if behind > progress["quiet_s"] and progress["waiting_for_sources"]
    }
    if late:
        view = max(late, key=lambda name: late[name])
        yield (
            f"predictions wait for the source of {view}, which is {late[view]:,.0f} s behind: see that its job and "
            "`skewless materialize` run"
        )
    if not sum(found["predictions"].values()) and not progress["backlog"]:
        yield "nothing was sampled in the last day: ask the endpoint, or raise `parity.entity_share` of its policy"


def _rate(each: ParityResult) -> dict[str, Any]:
    return {
        "units": each.units,
        "differing": each.mismatches,
        "entities": each.entities,
        "rate": each.rate,
        "low": each.low,
        "high": each.high,
    }


def _units(day: Sums, level: Level, stratum: Stratum, view: str) -> int:
    return sum(each.units for key, each in day.items() if key[1:4] == (stratum, level, view))


def _mismatches(day: Sums, level: Level) -> int:
    return sum(each.mismatches for key, each in day.items() if key[1:3] == (Stratum.ENTITY, level))
