"""Plots of the suite `scaling`: latency and processor time over features and rows, memory over loaded bundles."""

from collections.abc import Callable, Sequence

from bench.gateway_goals import load_of
from bench.load_timing import SERVED
from bench.measure import Timing
from bench.plots import Point, line_plot
from bench.report import Case

BY_FEATURES, BY_ROWS = "features", "rows"


def scaling_plots(cases: Sequence[Case]) -> dict[str, str]:
    """SVG texts by file name; a plot of which there are not two points is left out."""
    sizes = [case for case in cases if case.parameters.keys() == {"features", "rows"}]
    one_row = [case for case in sizes if case.parameters["rows"] == 1]
    forty = [case for case in sizes if case.parameters["features"] == 40]
    plots = {
        "scaling-features-p50.svg": (
            "Latency of one row, one caller",
            BY_FEATURES,
            "milliseconds (median)",
            one_row,
            _p50,
        ),
        "scaling-features-cpu.svg": ("Processor time of one row", BY_FEATURES, "ms of processor time", one_row, _cpu),
        "scaling-rows-p50.svg": ("Latency of 40 features, one caller", BY_ROWS, "milliseconds (median)", forty, _p50),
        "scaling-rows-cpu.svg": ("Processor time of 40 features", BY_ROWS, "ms of processor time", forty, _cpu),
    }
    drawn = {
        name: line_plot(title, axis, y_label, _series(chosen, axis, value))
        for name, (title, axis, y_label, chosen, value) in plots.items()
        if len(chosen) > 1
    }
    memory = [
        (float(case.parameters["bundles"]), case.facts["memory, MiB"]) for case in cases if "bundles" in case.parameters
    ]
    if len(memory) > 1:
        drawn["scaling-bundles-memory.svg"] = line_plot(
            "Memory of a gateway worker", "loaded bundles", "MiB (PSS)", {"gateway, in process": memory}
        )
    return drawn


def _series(cases: Sequence[Case], axis: str, value: Callable[[Timing], float]) -> dict[str, list[Point]]:
    names = dict.fromkeys(name for case in cases for name in case.timings)
    return {name: [(float(case.parameters[axis]), value(case.timings[name])) for case in cases] for name in names}


def _p50(timing: Timing) -> float:
    return timing.p50_us / 1_000


def _cpu(timing: Timing) -> float:
    return load_of(timing).cpu_us[SERVED] / 1_000
