"""Results as Markdown tables, which read well in a terminal too."""

import statistics
from collections.abc import Sequence

from bench.measure import Timing, ratio
from bench.report import Case, Goal, SuiteResult


def suite_tables(result: SuiteResult) -> str:
    """Goals, times and CPU of a suite, then its notes."""
    parts = [f"## {result.suite}"]
    if result.goals:
        parts.append(goal_table(result.goals))
    parts += [f"Time of one call, median{_beside_floor(result.floor)}:", time_table(result.cases, result.floor)]
    if any(case.values for case in result.cases):
        parts += ["Process time of the caller for 1,000 values:", cpu_table(result.cases)]
    if any(timing.load for case in result.cases for timing in case.timings.values()):
        parts += ["Answers under load, and processor time for one answer:", load_table(result.cases)]
    if any(case.facts for case in result.cases):
        parts.append(fact_table(result.cases))
    parts.append("\n".join(f"- {note}" for note in result.notes))
    return "\n\n".join(part for part in parts if part) + "\n"


def goal_table(goals: Sequence[Goal]) -> str:
    """A row per goal: what is wanted, the median and the spread over repetitions."""
    rows = [
        [
            goal.name,
            f"{'≤' if goal.at_most else '≥'} {number(goal.bound)} {goal.unit}",
            f"{number(goal.measured.median)} {goal.unit}",
            f"{number(goal.measured.low)} to {number(goal.measured.high)}",
            "yes" if goal.reached else "no",
        ]
        for goal in goals
    ]
    return markdown(["goal", "wanted", "measured", "spread", "reached"], rows)


def time_table(cases: Sequence[Case], floor: str | None) -> str:
    """A row per case, a column per candidate: median, and the ratio to the floor's."""
    names = _candidates(cases)
    rows = [[case.name, *(_time(case, name, floor) for name in names)] for case in cases]
    return markdown(["case", *names], rows)


def cpu_table(cases: Sequence[Case]) -> str:
    """A row per case that counts values, a column per candidate: process time for 1,000 values."""
    counting = [case for case in cases if case.values]
    names = _candidates(counting)
    rows = [[case.name, *(_cpu(case.timings.get(name), case.values) for name in names)] for case in counting]
    return markdown(["case", *names], rows)


def load_table(cases: Sequence[Case]) -> str:
    """A row per case and candidate that a load generator asked: rate, latencies, and whose processor time it took."""
    loads = [
        (case, name, timing, timing.load)
        for case in cases
        for name, timing in case.timings.items()
        if timing.load is not None
    ]
    owners = sorted({owner for *_, load in loads for owner in load.cpu_us}, key=lambda name: (name != "served", name))
    rows = [
        [
            f"{case.name}: {name}",
            number(statistics.median(load.per_s)),
            *(duration(each) for each in (timing.p50_us, statistics.median(load.p99s_us), load.p999_us)),
            *(duration(load.cpu_us[owner]) if owner in load.cpu_us else "" for owner in owners),
            str(load.failed),
        ]
        for case, name, timing, load in loads
    ]
    return markdown(["case: candidate", "answers/s", "p50", "p99", "p99.9", *owners, "failed"], rows)


def fact_table(cases: Sequence[Case]) -> str:
    """A row per case with facts, a column per fact."""
    stating = [case for case in cases if case.facts]
    names = list(dict.fromkeys(name for case in stating for name in case.facts))
    rows = [
        [case.name, *(number(case.facts[name]) if name in case.facts else "" for name in names)] for case in stating
    ]
    return markdown(["case", *names], rows)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An aligned Markdown table; the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [
        [cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in enumerate(zipped)]
        for zipped in (list(zip(row, widths, strict=True)) for row in [header, rule, *rows])
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def duration(us: float) -> str:
    """Microseconds with a unit and three digits.

    >>> duration(0.25), duration(43.21), duration(1234), duration(2_500_000)
    ('0.25 µs', '43.2 µs', '1.23 ms', '2.5 s')
    """
    for limit, unit in ((1e3, "µs"), (1e6, "ms")):
        if us < limit:
            return f"{number(us / limit * 1e3)} {unit}"
    return f"{number(us / 1e6)} s"


def _candidates(cases: Sequence[Case]) -> list[str]:
    return list(dict.fromkeys(name for case in cases for name in case.timings))


def _time(case: Case, name: str, floor: str | None) -> str:
    timing = case.timings.get(name)
    if timing is None:
        return ""
    beside = case.timings.get(floor) if floor is not None and name != floor else None
    return duration(timing.p50_us) + (f" ({number(ratio(timing, beside).median)}x)" if beside else "")


def _cpu(timing: Timing | None, values: int) -> str:
    return "" if timing is None else duration(timing.cpu_us / values * 1_000)


def _beside_floor(floor: str | None) -> str:
    return "" if floor is None else f", and how many times the {floor}'s it is"


def number(value: float) -> str:
    """Three significant digits, no exponent.

    >>> number(0.1234), number(12.345), number(12345.6)
    ('0.123', '12.3', '12,346')
    """
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
