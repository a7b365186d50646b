"""What parity checks found, as tables for a terminal."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from skewless.parity.causes import ACCOUNTS, CAUSES
from skewless.parity.check import Checked
from skewless.parity.explanation import Explained, Side
from skewless.timestamps import SECOND_US, format_timestamp

_EXAMPLES_SHOWN = 1
_PIPE_WIDTH = 200
_LEVELS = {
    "values": "values",
    "statuses_and_ages": "statuses and ages",
    "model_inputs": "model inputs",
    "predictions": "predictions",
}


def show_report(report: Mapping[str, Any]) -> None:
    """Levels, then every cause with its rate, an example and what helps."""
    console = _console()
    sample = "" if report["sample"] >= 1 else f", a sample of {report['sample']:.2%} of entities"
    console.print(
        f"{report['endpoint']}, {report['since']} to {report['until']}: {report['predictions']:,} predictions of "
        f"{report['entities']:,} entities{sample}",
        markup=False,
        soft_wrap=True,
    )
    levels = _table("level", "compared", "equal", "share")
    for name, title in _LEVELS.items():
        level = report["levels"][name]
        levels.add_row(
            title, f"{level['compared']:,}", f"{level['equal']:,}", _share(level["equal"], level["compared"])
        )
    console.print(levels)
    values = report["levels"]["values"]
    for count, told in (
        (values["given_in_requests"], "values were given in requests and are not compared"),
        (values["pending"], "values are of rows that the source has not got yet, and wait"),
    ):
        if count:
            console.print(f"{count:,} {told}", markup=False, soft_wrap=True)
    for view, told in report["definitions_changed"].items():
        console.print(f"view {view} is defined otherwise today: {told}", markup=False, soft_wrap=True)
    for each in report["unchecked"]:
        told = f"{each['predictions']:,} predictions of bundle {each['bundle'][:12]} are not checked: {each['reason']}"
        console.print(told, markup=False, soft_wrap=True)
    for bundle, names in report.get("not_comparable", {}).items():
        told = f"of bundle {bundle[:12]} the log does not keep {', '.join(names)} as served: not compared"
        console.print(told, markup=False, soft_wrap=True)
    _show_causes(console, report["causes"])
    for each in report["known_later"]:
        words = "a row arrived late" if each["cause"] == "late_row" else "a row was corrected"
        console.print(
            f"{each['view']}: {words} after {each['differing']:,} predictions ({each['rate']:.3%})", markup=False
        )


def _show_causes(console: Console, causes: Sequence[Mapping[str, Any]]) -> None:
    if not causes:
        console.print("no mismatch")
        return
    table = _table("cause", "where", "kind", "predictions", "rate", "95 % interval")
    for each in causes:
        interval = f"{each['low']:.3%} to {each['high']:.3%}"
        table.add_row(
            each["cause"], each["view"], each["kind"], f"{each['differing']:,}", f"{each['rate']:.3%}", interval
        )
    console.print(table)
    for each in causes:
        console.print(
            f"\n{each['cause']} in {each['view']}: {each['meaning']}", markup=False, highlight=False, soft_wrap=True
        )
        for example in each["examples"][:_EXAMPLES_SHOWN]:
            column = f"{example['column']} " if "column" in example else ""
            told = example.get("words") or f"served {example['served']}"
            console.print(f"  {example['prediction_id']} {column}{told}", markup=False, highlight=False, soft_wrap=True)
        for column, rule in each.get("rules", {}).items():
            console.print(f"  {column}: {rule}", markup=False, highlight=False, soft_wrap=True)
        repair = f" ({each['repair']})" if each["repair"] else ""
        console.print(f"  {each['advice']}{repair}", markup=False, highlight=False, soft_wrap=True)


def show_explanation(checked: Checked, told: Sequence[Explained]) -> None:
    """One prediction: both sides of every feature, then in words what differs."""
    console, served = _console(), checked.served
    as_of = int(served.as_of[0])
    console.print(
        f"{served.prediction_ids[0]} as of {format_timestamp(as_of)}, rung {served.rungs[0]}",
        markup=False,
        soft_wrap=True,
    )
    table = _table("feature", "served", "age", "offline", "age", "cause")
    for each in told:
        same = each.cause is None and not each.pending
        cause = "pending" if each.pending else str(each.cause or "")
        style = "red" if each.cause else "yellow" if each.pending else ""
        table.add_row(
            *(Text(cell) for cell in (each.column, _value(each.served), _age(each.served, as_of))),
            *(Text("=" if same else cell) for cell in (_value(each.offline), _age(each.offline, as_of))),
            Text(cause, style=style),
        )
    console.print(table)
    for level, equal, codes in (
        ("model input", checked.tensor_same, checked.tensor),
        ("prediction", checked.output_same, checked.output),
    ):
        words = "equal" if equal[0] else f"differs: {_cause(int(codes[0]))}"
        console.print(f"{level}: {words}", markup=False, soft_wrap=True)
    for each in told:
        if each.words:
            console.print(f"\n{each.column}: {each.words}.", markup=False, highlight=False, soft_wrap=True)
        if each.cause:
            account = ACCOUNTS[each.cause]
            repair = f" ({account.repair})" if account.repair else ""
            console.print(f"  {account.advice}{repair}", markup=False, highlight=False, soft_wrap=True)


def explanation_json(checked: Checked, told: Sequence[Explained]) -> dict[str, Any]:
    """One prediction as plain data."""
    served = checked.served
    return {
        "prediction_id": served.prediction_ids[0],
        "as_of": format_timestamp(int(served.as_of[0])),
        "rung": served.rungs[0],
        "features": [each.to_json() for each in told],
        "model_input": {"equal": bool(checked.tensor_same[0]), "cause": _cause(int(checked.tensor[0]))},
        "prediction": {"equal": bool(checked.output_same[0]), "cause": _cause(int(checked.output[0]))},
    }


def _table(*columns: str) -> Table:
    """A table in which no cell is cut: on a narrow terminal it goes on below."""
    table = Table()
    for title in columns:
        table.add_column(title, overflow="fold")
    return table


def _cause(code: int) -> str | None:
    return CAUSES[code].value if code < len(CAUSES) else None


def _value(side: Side) -> str:
    return side.value if side.status == "ok" else f"{side.value} ({side.status})"


def _age(side: Side, as_of: int) -> str:
    return "-" if side.event_time is None else f"{(as_of - side.event_time) / SECOND_US:,.0f} s"


def _share(part: int, whole: int) -> str:
    return "-" if not whole else f"{part / whole:.4%}" if part < whole else "100 %"


def _console() -> Console:
    # Made for each use: a test or a caller may have replaced standard output since. A pipe has no width of its own.
    return Console() if sys.stdout.isatty() else Console(width=_PIPE_WIDTH)
