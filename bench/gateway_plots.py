"""Plots of the gateway's benchmark: over callers, rows and arrivals, and where the time of a request goes."""

import statistics
from collections.abc import Callable, Sequence

from bench.gateway_goals import load_of
from bench.measure import Timing
from bench.plots import Point, bar_plot, line_plot
from bench.report import Case


def gateway_plots(cases: Sequence[Case]) -> dict[str, str]:
    """SVG texts by file name."""
    alike = [case for case in cases if case.parameters.keys() == {"rows", "callers"}]
    one_row = [case for case in alike if case.parameters["rows"] == 1]
    alone = [case for case in alike if case.parameters["callers"] == 1]
    opened = [case for case in cases if "per_s" in case.parameters]
    closed = "Latency of one row, closed loop"
    plots = {
        "gateway-callers-p50.svg": (
            "Latency of one row, closed loop",
            "callers",
            "milliseconds (median)",
            one_row,
            _p50,
        ),
        "gateway-callers-p99.svg": (closed, "callers", "milliseconds (p99)", one_row, _p99),
        "gateway-callers-rate.svg": (
            "Answers of one row, closed loop",
            "callers",
            "answers per second",
            one_row,
            _per_s,
        ),
        "gateway-rows.svg": ("Latency of one caller", "rows", "milliseconds (median)", alone, _p50),
        "gateway-rate-p50.svg": ("Latency of one row, open loop", "per_s", "milliseconds (median)", opened, _p50),
        "gateway-rate-p99.svg": ("Latency of one row, open loop", "per_s", "milliseconds (p99)", opened, _p99),
    }
    labels = {"per_s": "requests due per second"}
    drawn = {
        name: line_plot(title, labels.get(axis, axis), y_label, _series(chosen, axis, value))
        for name, (title, axis, y_label, chosen, value) in plots.items()
        if chosen
    }
    stages = next((_stages(case) for case in one_row if case.facts), {})
    return drawn | ({"gateway-stages.svg": bar_plot("Where the time of one row goes", "µs", stages)} if stages else {})


def _stages(case: Case) -> dict[str, float]:
    """Median µs per stage of a request, by the receipts of one caller, and what of the total lies between stages."""
    told = {name.removesuffix(", µs"): value for name, value in case.facts.items() if name.endswith(", µs")}
    total = told.pop("total", 0.0)
    return told | {"between stages": max(0.0, total - sum(told.values()))}


def _series(cases: Sequence[Case], axis: str, value: Callable[[Timing], float]) -> dict[str, list[Point]]:
    names = dict.fromkeys(name for case in cases for name in case.timings)
    return {
        name: [(float(case.parameters[axis]), value(case.timings[name])) for case in cases if name in case.timings]
        for name in names
    }


def _p50(timing: Timing) -> float:
    return timing.p50_us / 1_000


def _p99(timing: Timing) -> float:
    return statistics.median(load_of(timing).p99s_us) / 1_000


def _per_s(timing: Timing) -> float:
    return statistics.median(load_of(timing).per_s)
