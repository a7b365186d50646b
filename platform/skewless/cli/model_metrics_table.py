"""Metrics of an endpoint's models as tables for a terminal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from skewless.canonical_json import Digest
from skewless.cli.drift_table import spark
from skewless.model_metrics.bounds import Validity
from skewless.model_metrics.history import compare_counters, counter_totals, estimate_errors
from skewless.model_metrics.judged import ALL
from skewless.model_metrics.records import MetricRecord
from skewless.timestamps import format_timestamp

Key = tuple[Digest, str]
Line = tuple[str, bool]
"""A metric's name, and whether it is the estimate of it."""
_SHORT = 12
_CELLS = 24
_MINUTES = len("2013-05-01T00:00")
_ORDER = (
    "accuracy", "auroc", "average_precision", "log_loss", "brier", "ece", "calibration_slope",
    "calibration_intercept", "observed_expected", "precision", "recall", "f1", "positive_share",
    "mae", "rmse", "bias", "ndcg", "map",
)  # fmt: skip


def print_metrics(records: Sequence[MetricRecord], references: Mapping[Digest, Mapping[str, Any]]) -> None:
    """Write metrics to standard output: a column for each bundle and role, a line for each metric."""
    console = Console()
    keys = sorted({(each.bundle, each.role) for each in records}, key=lambda key: (key[1] != "live", key))
    table = Table("metric", box=None, pad_edge=False, header_style="bold")
    for key in keys:
        table.add_column(f"{key[0][:_SHORT]} {key[1]}", no_wrap=True)
    by_line: dict[Line, dict[Key, list[MetricRecord]]] = {}
    for each in records:
        of_line = by_line.setdefault((each.metric, each.is_estimate), {})
        of_line.setdefault((each.bundle, each.role), []).append(each)
    errors = estimate_errors(records)
    periods = {
        key: list({each.period_start: each for each in records if (each.bundle, each.role) == key}.values())
        for key in keys
    }
    for title, told in (("newest period", _newest), ("outcomes", _outcomes), ("newest mature", _mature)):
        table.add_row(title, *(Text(told(periods[key])) for key in keys), style="dim")
    for line in sorted(by_line, key=_place):
        cells = [_cell(by_line[line].get(key, []), errors.get((*key, line[0])), references) for key in keys]
        table.add_row(f"≈ {line[0]}" if line[1] else line[0], *map(Text, cells), style="italic" if line[1] else "")
    slice_called = records[0].slice
    title = "all rows" if slice_called == ALL else slice_called
    console.print(f"{records[0].endpoint}, {title}; [low, high]*: at all moments, without *: at one look", markup=False)
    console.print(table)
    for text in _counter_lines(records):
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    if any(each.is_estimate for each in records):
        console.print(
            "≈ is expected from the scores alone, ± how far it was off before; it cannot see a change of the outcome"
            " given the features",
            style="dim",
            soft_wrap=True,
        )


def _place(line: Line) -> tuple[int, str, bool]:
    name, estimate = line
    return (_ORDER.index(name) if name in _ORDER else len(_ORDER), name, estimate)


def _newest(records: Sequence[MetricRecord]) -> str:
    return "-" if not records else _span(records[-1])


def _outcomes(records: Sequence[MetricRecord]) -> str:
    """How complete the newest period's outcomes are."""
    if not records:
        return "-"
    last = records[-1]
    usual = "" if last.expected is None else f", usual at that age {last.expected:.0%}"
    return f"{last.labelled:,} of {last.rows:,} ({last.maturity:.0%}{usual}){'' if last.mature else ' IMMATURE'}"


def _mature(records: Sequence[MetricRecord]) -> str:
    mature = [each for each in records if each.mature]
    return _span(mature[-1]) if mature else "none yet"


def _span(record: MetricRecord) -> str:
    return f"from {format_timestamp(record.period_start)[:_MINUTES]}, {record.rows:,} rows"


def _cell(records: Sequence[MetricRecord], error: float | None, references: Mapping[Digest, Mapping[str, Any]]) -> str:
    """The newest value that counts (of an estimate: the newest), its bounds, and all periods as a line."""
    counted = [each for each in records if each.is_estimate or each.mature]
    if not counted:
        return "-"
    last = counted[-1]
    if last.value is None:
        return f"none: {last.reason}"
    told = f"{last.value:.4g}"
    if last.low is not None and last.high is not None:
        star = "*" if last.bounds == Validity.ALWAYS else ""
        told += f" [{last.low:.4g}, {last.high:.4g}]{star}"
    if last.is_estimate and error is not None:
        told += f" ±{error:.2g}"
    reference = references.get(last.bundle, {}).get(last.metric)
    if not last.is_estimate and isinstance(reference, int | float) and last.slice == ALL:
        told += f" hold-out {reference:.4g}"
    line = _line([each.value for each in counted if each.value is not None])
    return f"{told}  {line}" if line else told


def _line(values: Sequence[float]) -> str:
    """Values as bars from the lowest to the highest; nothing for a single one."""
    if len(values) < 2:
        return ""
    lowest = min(values)
    return spark([each - lowest for each in values], _CELLS)


def _counter_lines(records: Sequence[MetricRecord]) -> Iterator[str]:
    totals = counter_totals(records)
    for each in totals:
        yield (
            f"{each.counter} of {each.bundle[:_SHORT]} {each.role}: {each.value:.3%}, at all moments {each.low:.3%} to "
            f"{each.high:.3%}, at one look {each.wilson_low:.3%} to {each.wilson_high:.3%} (Wilson)"
        )
    for found in compare_counters(totals):
        verdict = "open" if found.better is None else f"{found.better[:_SHORT]} is higher"
        yield (
            f"{found.counter}: {found.second[:_SHORT]} minus {found.first[:_SHORT]} is {found.difference:+.3%} "
            f"({found.low:+.3%} to {found.high:+.3%}): {verdict}"
        )
