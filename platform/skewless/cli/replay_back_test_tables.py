"""A back-test for a terminal: what would change, how far scores are apart, and which bundle outcomes speak for."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

from skewless.replays.back_test import QUANTILES, SCORE_BINS, BackTestResult, ScoreComparison, SlicePart
from skewless.replays.paired import PairedMetric
from skewless.training.intervals import LEVEL

_SHORT = 12
_WORDS = {True: ("better", "green"), False: ("worse", "bold red"), None: ("cannot be told", "")}
_NAMES = {"auroc": "AUROC", "log_loss": "log loss", "brier": "Brier", "accuracy": "accuracy"}


def show_back_test(result: BackTestResult, other: str, shown: Console) -> None:
    """Everything that a back-test found; `other` names the bundle that recorded traffic was scored with."""
    shown.print(f"{result.rows:,} recorded predictions, scored with bundle {other}")
    shown.print(f"answered by {_counted({name[:_SHORT]: rows for name, rows in result.bundles.items()})}")
    shown.print(f"in the role {_counted(result.roles)}; on the rung {_counted(result.rungs)}")
    for reason, rows in result.left_out.items():
        shown.print(f"left out, {rows:,}: {reason}")
    if result.scores is None:
        shown.print("none of them could be scored by both")
        return
    shown.print(_scores_table(result.scores))
    shown.print(_histogram_table(result.scores))
    _show_metrics(result, shown)
    if result.slices:
        shown.print(_slices_table(result.slices))


def _scores_table(scores: ScoreComparison) -> Table:
    table = Table("scores", "")
    table.columns[1].justify = "right"
    table.add_row("compared", f"{scores.rows:,}")
    table.add_row("equal bit for bit", f"{scores.equal:,} ({scores.equal / scores.rows:.2%})")
    table.add_row("another label", f"{scores.label_changes:,} ({scores.label_changes / scores.rows:.2%})")
    table.add_row("  to the positive one", f"{scores.to_positive:,}")
    table.add_row("  to the negative one", f"{scores.to_negative:,}")
    table.add_row("mean, as answered", f"{scores.recorded_mean:.4f}")
    table.add_row("mean, other bundle", f"{scores.other_mean:.4f}")
    table.add_row("mean distance", f"{scores.mean_distance:.4g}")
    table.add_row("correlation", "undefined" if scores.correlation is None else f"{scores.correlation:.4f}")
    for quantile, value in zip(QUANTILES, scores.quantiles, strict=True):
        table.add_row(f"difference, {quantile:.0%} quantile", f"{value:+.4f}")
    return table


def _histogram_table(scores: ScoreComparison) -> Table:
    table = Table("score", "as answered", "other bundle")
    for column in table.columns[1:]:
        column.justify = "right"
    both = zip(scores.recorded_histogram, scores.other_histogram, strict=True)
    for index, (recorded, other) in enumerate(both):
        bounds = f"{index / SCORE_BINS:.1f} to {(index + 1) / SCORE_BINS:.1f}"
        table.add_row(bounds, f"{recorded / scores.rows:.1%}", f"{other / scores.rows:.1%}")
    return table


def _show_metrics(result: BackTestResult, shown: Console) -> None:
    if result.other_outcomes:
        shown.print(f"outcomes that are neither label: {result.other_outcomes:,}; metrics leave them out")
    if not result.metrics:
        shown.print("no outcome has arrived for them, so which bundle is better is not known")
        return
    shown.print(f"{result.outcomes:,} of them have an outcome, {result.positives:,} positive")
    table = Table("metric", "as answered", "other bundle", f"difference ({LEVEL:.0%} interval)", "other is")
    for metric in result.metrics:
        words, style = ("the same", "") if metric.first == metric.second else _WORDS[metric.better]
        table.add_row(
            _NAMES.get(metric.name, metric.name),
            _number(metric.first),
            _number(metric.second),
            _difference(metric),
            Text(words, style=style),
        )
    shown.print(table)


def _slices_table(parts: tuple[SlicePart, ...]) -> Table:
    table = Table(
        "slice", "part", "rows", "mean", "other", "other label", "outcomes", "AUROC", "other", "Brier", "other",
    )  # fmt: skip
    for column in table.columns[2:]:
        column.justify = "right"
    for each in parts:
        metrics = {metric.name: metric for metric in each.metrics}
        pairs = [metrics.get(name) for name in ("auroc", "brier")]
        table.add_row(
            each.slice,
            each.part,
            f"{each.scores.rows:,}",
            f"{each.scores.recorded_mean:.4f}",
            f"{each.scores.other_mean:.4f}",
            f"{each.scores.label_changes / each.scores.rows:.1%}",
            f"{each.outcomes:,}",
            *(_number(value) for pair in pairs for value in ((pair.first, pair.second) if pair else (None, None))),
        )
    return table


def _difference(metric: PairedMetric) -> str:
    if metric.difference is None:
        return ""
    within = "" if metric.interval is None else f" ({metric.interval.low:+.4f} to {metric.interval.high:+.4f})"
    return f"{metric.difference:+.4f}{within}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({rows:,})" for name, rows in counts.items()) or "nobody"
