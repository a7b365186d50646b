"""How parity stands, as tables for a terminal."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from skewless.cli.drift_table import spark
from skewless.monitor_limits import PARITY_SHOWN_DAYS

_PIPE_WIDTH = 200
_STYLES = {"fault": "red", "timing": "yellow"}
_NOTHING = (
    "Nothing was compared yet.",
    "The monitor compares a sample of the predictions once their sources have passed them: start it with",
    "`skewless up`, ask an endpoint, look again after the next materialization. `skewless doctor` says what lacks;",
    "`skewless parity check --endpoint NAME` compares what the log holds at once.",
)


def show_status(found: Sequence[Mapping[str, Any]]) -> None:
    """A line for each endpoint; of a single one everything."""
    console = Console() if sys.stdout.isatty() else Console(width=_PIPE_WIDTH)
    if not found:
        for line in _NOTHING:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        return
    console.print(_endpoints(found))
    if len(found) == 1:
        _details(console, found[0])
    for each in found:
        for text in each["next"]:
            console.print(f"{each['endpoint']}: {text}", markup=False, highlight=False, soft_wrap=True)


def _endpoints(found: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("endpoint", "compared", "values", "inputs", "predictions", "worst cause", "waiting", "verdict after"):
        table.add_column(title, overflow="fold")
    table.add_column(f"{PARITY_SHOWN_DAYS} days", overflow="fold")
    for each in found:
        levels = each["levels"]
        worst = max(each["causes"], key=lambda cause: (cause["kind"] == "fault", cause["rate"]), default=None)
        told = Text("none", style="green") if worst is None else _cause(worst)
        verdict = each["progress"]["verdict_s"]
        table.add_row(
            each["endpoint"],
            f"{each['predictions']['entity']:,} + {each['predictions']['uniform']:,}",
            *(_share(levels[name]) for name in ("values", "model_inputs", "predictions")),
            told,
            f"{each['progress']['backlog']:,}",
            "-" if verdict is None else f"{verdict:,.0f} s",
            spark([day["worst_rate"] or 0.0 for day in each["days"]], PARITY_SHOWN_DAYS),
        )
    return table


def _details(console: Console, found: Mapping[str, Any]) -> None:
    console.print(
        "\nlast day; compared: predictions of whole entities + of the uniform sample, whose shares the levels are",
        markup=False,
        soft_wrap=True,
    )
    views = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("view", "sample", "predictions", "differing", "rate", "95 % interval", "source behind"):
        views.add_column(title, overflow="fold")
    for each in found["views"]:
        behind = found["progress"]["source_behind_s"].get(each["view"])
        views.add_row(
            each["view"], each["stratum"], f"{each['units']:,}", f"{each['differing']:,}", f"{each['rate']:.3%}",
            _interval(each), "" if behind is None else f"{behind:,.0f} s",
        )  # fmt: skip
    console.print(views)
    for each in found["causes"]:
        console.print(
            f"\n{each['cause']} in {each['view']} ({each['kind']}): {each['meaning']}; {each['differing']:,} of "
            f"{each['units']:,} ({each['rate']:.3%}, {_interval(each)})",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
        for example in each["examples"][:1]:
            told = example.get("words") or f"served {example.get('served')}"
            console.print(
                f"  {example['prediction_id']} {example.get('column', '')} {told}",
                markup=False, highlight=False, soft_wrap=True,
            )  # fmt: skip
    for count, told in (
        (found["pending_values"], "values are of rows that their source has not got yet, and wait"),
        (found["unchecked_predictions"], "predictions are of bundles that cannot be computed again here"),
    ):
        if count:
            console.print(f"{count:,} {told}", markup=False, soft_wrap=True)
    for digest, names in found["not_comparable"].items():
        console.print(
            f"of bundle {digest[:12]} the log does not keep {', '.join(names)} as served: not compared",
            markup=False, soft_wrap=True,
        )  # fmt: skip


def _cause(worst: Mapping[str, Any]) -> Text:
    return Text(f"{worst['cause']} {worst['rate']:.2%}", style=_STYLES[worst["kind"]])


def _share(level: Mapping[str, Any]) -> str:
    compared, equal = level["compared"], level["equal"]
    return "-" if not compared else "100 %" if equal == compared else f"{equal / compared:.4%}"


def _interval(each: Mapping[str, Any]) -> str:
    return f"{each['low']:.3%} to {each['high']:.3%}"
