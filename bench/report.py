"""What a suite of benchmarks hands back, as one JSON file and one readable table.

A suite is a module with `run(options: Options) -> SuiteResult`. A case is one comparison of candidates at some
parameters; a goal is a number the project wants to reach, stated beside what was measured.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.load_block import Load
from bench.measure import Ratio, Timing
from skewless.errors import InvalidDefinition

FORMAT = 1
"""Version of the result file."""


@dataclass(frozen=True, slots=True)
class Options:
    """How thoroughly to measure. `scratch` is an empty folder of the suite's own, removed afterwards."""

    scratch: Path
    progress: Callable[[str], None]
    quick: bool = False

    @property
    def repetitions(self) -> int:
        """Turns of each candidate of a comparison; many and short ones, so that neighbours disturb all alike."""
        return 7 if self.quick else 11

    @property
    def min_time_s(self) -> float:
        """Length of one turn."""
        return 0.01 if self.quick else 0.02


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison: what ran side by side, at which parameters, and what came out.

    `name` is unique within the suite and stays the same from run to run, so that runs can be compared. `values` is
    how many values one call gives, for the cost of 1,000; 0 where that means nothing. `facts` are further numbers
    by name with its unit (`peak_mib`), which no timing holds.
    """

    name: str
    parameters: Mapping[str, int | float | str]
    timings: Mapping[str, Timing]
    values: int = 0
    facts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Goal:
    """A number to reach: at least `bound`, or at most where `at_most`. `measured` is median and spread."""

    name: str
    measured: Ratio
    bound: float
    unit: str = "x"
    at_most: bool = False

    @property
    def reached(self) -> bool:
        """Whether the median meets the bound."""
        return self.measured.median <= self.bound if self.at_most else self.measured.median >= self.bound


@dataclass(frozen=True, slots=True)
class SuiteResult:
    """Everything one suite measured. `floor` names the candidate that ratios are formed to, None for none.

    `plots` are SVG texts by file name. `notes` say what was held equal, and what the numbers leave out.
    """

    suite: str
    cases: tuple[Case, ...]
    goals: tuple[Goal, ...] = ()
    floor: str | None = None
    notes: tuple[str, ...] = ()
    plots: Mapping[str, str] = field(default_factory=dict)


def single(value: float) -> Ratio:
    """A number that was measured once, for a Goal.

    >>> single(2.5)
    Ratio(median=2.5, low=2.5, high=2.5)
    """
    return Ratio(value, value, value)


def to_json(result: SuiteResult) -> dict[str, Any]:
    """Plain data of a result, without its plots, which are files of their own."""
    data = asdict(result)
    del data["plots"]
    return data


def from_json(data: dict[str, Any]) -> SuiteResult:
    """The inverse of `to_json`. Raises KeyError or TypeError for data of another form."""
    return SuiteResult(
        suite=data["suite"],
        cases=tuple(_case(each) for each in data["cases"]),
        goals=tuple(Goal(**{**each, "measured": Ratio(**each["measured"])}) for each in data["goals"]),
        floor=data["floor"],
        notes=tuple(data["notes"]),
    )


def write(path: Path, environment: Mapping[str, Any], results: tuple[SuiteResult, ...]) -> tuple[Path, ...]:
    """Write a run's result file, and its plots beside it as `<file's stem>-<plot's name>`. Returns every file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = {"format": FORMAT, "environment": dict(environment), "suites": [to_json(each) for each in results]}
    path.write_text(json.dumps(data, separators=(",", ":")) + "\n")
    plots = {path.with_name(f"{path.stem}-{name}"): svg for each in results for name, svg in each.plots.items()}
    for file, svg in plots.items():
        file.write_text(svg)
    return (path, *plots)


def read(path: Path) -> tuple[dict[str, Any], tuple[SuiteResult, ...]]:
    """The environment and the suites of a result file. Raises InvalidDefinition for a file that is none."""
    try:
        data = json.loads(path.read_text())
        if data["format"] != FORMAT:
            raise InvalidDefinition(
                f"`{path}` has format {data['format']!r}; allowed: {FORMAT}", hint="run the benchmark again"
            )
        return data["environment"], tuple(from_json(each) for each in data["suites"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidDefinition(f"`{path}` is not a result file of `make bench`: {error!r}") from error


def _case(data: dict[str, Any]) -> Case:
    timings = {
        name: Timing(
            **{
                **each,
                "p50s_us": tuple(each["p50s_us"]),
                "cpus_us": tuple(each["cpus_us"]),
                "load": _load(each.get("load")),
            }
        )
        for name, each in data["timings"].items()
    }
    return Case(data["name"], data["parameters"], timings, data["values"], data["facts"])


def _load(data: dict[str, Any] | None) -> Load | None:
    return None if data is None else Load(**{**data, "per_s": tuple(data["per_s"]), "p99s_us": tuple(data["p99s_us"])})
