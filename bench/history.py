"""Two result files side by side: what became slower beyond what repetitions of one run differ by."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.measure import Ratio, Timing, ratio
from bench.report import Case, SuiteResult
from bench.tables import markdown, number
from skewless.errors import NotFound

TOLERANCE = 0.05
"""A median that moved by less is not worth a look, however narrow the spreads are."""


@dataclass(frozen=True, slots=True)
class Change:
    """One candidate of one case in two runs.

    `before` and `after` are ratios to the floor of their own run where the suite has one, so that another machine or
    a busier hour does not show as a change; otherwise microseconds (`unit`).
    """

    suite: str
    case: str
    candidate: str
    before: Ratio
    after: Ratio
    unit: str

    @property
    def growth(self) -> float:
        """How many times the median before the median after is."""
        return self.after.median / self.before.median

    @property
    def verdict(self) -> str:
        """`slower` or `faster` where the medians differ and the spreads do not overlap, else `same`."""
        if self.growth > 1 + TOLERANCE and self.after.low > self.before.high:
            return "slower"
        if self.growth < 1 / (1 + TOLERANCE) and self.after.high < self.before.low:
            return "faster"
        return "same"


def changes(before: Sequence[SuiteResult], after: Sequence[SuiteResult]) -> list[Change]:
    """Every candidate of every case that both runs have; the largest growth first."""
    earlier = {result.suite: result for result in before}
    found = [
        change
        for result in after
        if result.suite in earlier
        for change in _suite_changes(earlier[result.suite], result)
    ]
    return sorted(found, key=lambda change: -change.growth)


def change_table(found: Sequence[Change]) -> str:
    """What became slower or faster, a row each; a sentence where nothing did."""
    moved = [change for change in found if change.verdict != "same"]
    if not moved:
        return f"None of {len(found)} timings moved beyond its spread."
    rows = [
        [
            f"{change.suite}: {change.case}, {change.candidate}",
            _spread(change.before, change.unit),
            _spread(change.after, change.unit),
            f"{number(change.growth)} x",
            change.verdict,
        ]
        for change in moved
    ]
    return markdown(["timing", "before", "after", "growth", "verdict"], rows)


def newest(folder: Path, commit: str | None = None) -> Path:
    """The newest result file under a folder, of a commit where one is given. Raises NotFound where there is none."""
    files = {path.stem: path for path in folder.rglob("*.json")}
    fitting = [stem for stem in sorted(files) if commit is None or f"-{commit}" in stem]
    if not fitting:
        raise NotFound(
            "result file of",
            commit or "any commit",
            known=tuple(sorted(files)),
            hint="check the revision out in a worktree of its own, run `make bench` there, and copy its result here",
        )
    return files[fitting[-1]]


def _suite_changes(before: SuiteResult, after: SuiteResult) -> Iterator[Change]:
    earlier = {case.name: case for case in before.cases}
    floor = after.floor if after.floor == before.floor else None
    for case in after.cases:
        if case.name not in earlier:
            continue
        for name in case.timings.keys() & earlier[case.name].timings.keys():
            if name != floor:
                old, unit = _measure(earlier[case.name], name, floor)
                new, _ = _measure(case, name, floor)
                yield Change(after.suite, case.name, name, old, new, unit)


def _measure(case: Case, name: str, floor: str | None) -> tuple[Ratio, str]:
    timing = case.timings[name]
    if floor is not None and floor in case.timings:
        return ratio(timing, case.timings[floor]), "x floor"
    return _absolute(timing), "µs"


def _absolute(timing: Timing) -> Ratio:
    return Ratio(timing.p50_us, timing.p50_low_us, timing.p50_high_us)


def _spread(each: Ratio, unit: str) -> str:
    return f"{number(each.median)} ({number(each.low)} to {number(each.high)}) {unit}"
