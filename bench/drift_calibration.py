"""`python -m bench.drift_calibration run` simulates the drift detector; `table` prints what docs/drift.md shows of it.

Every world has 28 days of history, on which the detector is calibrated, and 28 days in which nothing happens: alarms in
them are false. Then changes are put in, each at two moments of each world, and the windows until it is named counted.
One seed gives one world and one result, anywhere.
"""

import json
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from scipy.stats import chi2

from bench.drift_worlds import WINDOW_US, WINDOWS_A_DAY, Change, World, counted, history_and_after, world
from skewless.drift.alarms import Reading
from skewless.drift.calibration import PROMISE_DAYS, WATCHED, Calibration, calibrate
from skewless.drift.contract_breaks import ContractRules
from skewless.drift.detector import Detector
from skewless.drift.traffic import ALL, Series
from skewless.timestamps import MINUTE_US

RESULTS = Path(__file__).parent / "drift_calibration.json"
HISTORY_DAYS, QUIET_DAYS = 28, 28
TRIAL_DAYS = 5
"""A change that nobody named after so many days counts as missed."""
MOMENTS = ((33, 100), (45, 205))
"""Day and window of the day at which changes begin: in the morning of one day, in the evening of another."""
SLICES = {"north": 0.5, "east": 0.25, "south": 0.15, "west": 0.1}


@dataclass(frozen=True, slots=True)
class Scenario:
    """A change, what it is called, and within how many windows nine of ten are promised to be named."""

    title: str
    change: Change
    windows_max: int
    only: str = ""

    @property
    def key(self) -> str:
        return f"{self.change.kind} {self.change.size:g} {self.change.feature} {self.only}".strip()


SCENARIOS = (
    Scenario("mean +0.5 deviations", Change("shift", 0.5, "number_01"), 8),
    Scenario("mean +0.3 of a feature with a daily cycle", Change("shift", 0.3, "number_03"), 14),
    Scenario("mean +0.2", Change("shift", 0.2, "number_01"), 30),
    Scenario("mean +0.1", Change("shift", 0.1, "number_01"), 200),
    Scenario("spread times 1.3", Change("scale", 1.3, "number_01"), 10),
    Scenario("inches become centimetres", Change("unit", 2.54, "number_01"), 4),
    Scenario("slow ramp, 0.1 deviations a day", Change("ramp", 0.1, "number_01"), 400),
    Scenario("3 % stuck at one value", Change("stuck", 0.03, "number_01"), 80),
    Scenario("half of the values null", Change("nulls", 0.5, "number_01"), 4),
    Scenario("a new word in 1 % of the rows", Change("new word", 0.01, "words_01"), 8),
    Scenario("mean +0.5 in one slice of 10 %", Change("shift", 0.5, "number_01"), 20, only="west"),
)


@dataclass(frozen=True, slots=True, eq=False)
class Tried:
    """A world with a detector calibrated on its history; `after` are the days in which nothing happens."""

    seed: int
    made: World
    calibration: Calibration
    rules: ContractRules
    after: Mapping[str, Series]


def tried(seed: int, *, numbers: int = 24, words: int = 6, sliced: bool = False) -> Tried:
    """The world of a seed, calibrated."""
    made = world(seed, days=HISTORY_DAYS + QUIET_DAYS, numbers=numbers, words=words, slices=SLICES if sliced else None)
    history, quiet = history_and_after(made, HISTORY_DAYS, seed)
    return Tried(seed, made, calibrate(history), ContractRules.of(history[ALL], WATCHED), quiet)


def run_world(seed: int, *, numbers: int = 24, words: int = 6, sliced: bool = False) -> dict[str, Any]:
    """What one world gives, as plain data: false alarms, and by scenario the windows until it was named or None."""
    trial = tried(seed, numbers=numbers, words=words, sliced=sliced)
    return {
        **quiet_days(trial),
        "sliced": sliced,
        "delays": {
            each.key: [delay(trial, each, day * WINDOWS_A_DAY + at) for day, at in MOMENTS]
            for each in SCENARIOS
            if bool(each.only) == sliced
        },
    }


def quiet_days(trial: Tried) -> dict[str, Any]:
    """Alarms and breaks of the days in which nothing happens: all of them false."""
    detector = Detector(trial.calibration, trial.rules)
    readings = detector.advance(trial.after)
    return {
        "seed": trial.seed,
        "streams": len(trial.calibration.streams),
        "days": QUIET_DAYS,
        "alarms": len(detector.alarms),
        "breaks": sum(bool(each.breaks) for each in readings),
        "height": round(trial.calibration.threshold.height, 4),
    }


def delay(trial: Tried, scenario: Scenario, at: int) -> int | None:
    """Windows from the change at window `at` until an alarm or a break names its feature; None where none does.

    The detector has seen a day before, and a false alarm of that day does not count.
    """
    detector = Detector(trial.calibration, trial.rules)
    for start in range(at - WINDOWS_A_DAY, min(at + TRIAL_DAYS * WINDOWS_A_DAY, len(trial.made)), WINDOWS_A_DAY):
        stop = min(start + WINDOWS_A_DAY, len(trial.made))
        windows = counted(trial.made, start, stop, trial.seed, scenario.change, at, scenario.only)
        if start < at:
            detector.advance(windows)
            continue
        for place in range(stop - start):
            first = windows[ALL].first + place
            (reading,) = detector.advance(_between(windows, first, first + 1))
            if _is_named(detector, reading, scenario):
                return start + place - at + 1
    return None


def _is_named(detector: Detector, reading: Reading, scenario: Scenario) -> bool:
    told = {each.name for each in reading.breaks}
    if reading.is_open:
        named = detector.alarms[-1].named
        told |= {each.stream.name for each in named if not scenario.only or each.stream.slice == scenario.only}
    return scenario.change.feature in told


def _between(windows: Mapping[str, Series], first: int, stop: int) -> dict[str, Series]:
    return {name: each.between(first, stop) for name, each in windows.items()}


def poisson_interval(count: int, expected: float) -> tuple[float, float]:
    """The 95 % interval of a rate, as a multiple of the promised one, from `count` where `expected` were promised."""
    low = chi2.ppf(0.025, 2 * count) / 2 if count else 0.0
    return float(low / expected), float(chi2.ppf(0.975, 2 * count + 2) / 2 / expected)


def false_alarms(worlds: Sequence[Mapping[str, Any]]) -> tuple[int, float]:
    """How many there were, and how many the promise allows on average."""
    return sum(each["alarms"] for each in worlds), sum(each["days"] for each in worlds) / PROMISE_DAYS


def table_lines(worlds: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The tables of docs/drift.md."""
    yield "| worlds | streams | days | false alarms | promised | measured / promised, 95 % interval |"
    yield "|---|---|---|---|---|---|"
    for title, sliced in (("30 features", False), ("10 features in 4 slices", True)):
        chosen = [each for each in worlds if each["sliced"] is sliced]
        if not chosen:
            continue
        count, expected = false_alarms(chosen)
        low, high = poisson_interval(count, expected)
        days = sum(each["days"] for each in chosen)
        yield (
            f"| {len(chosen)} of {title} | {chosen[0]['streams']} | {days:,} | {count} | {expected:.1f} |"
            f" {count / expected:.2f} ({low:.2f} to {high:.2f}) |"
        )
    yield ""
    yield "| change | named | windows until named, median | 90 % | time, 90 % | promised, 90 % |"
    yield "|---|---|---|---|---|---|"
    for scenario in SCENARIOS:
        delays = [windows for each in worlds for windows in each["delays"].get(scenario.key, ())]
        if delays:
            yield _delay_line(scenario, delays)


def late_share(delays: Sequence[int | None], windows_max: int) -> float:
    """Share of the changes that were named later than after `windows_max` windows, or not at all."""
    return sum(each is None or each > windows_max for each in delays) / len(delays)


def _delay_line(scenario: Scenario, delays: Sequence[int | None]) -> str:
    windows = np.array([np.inf if each is None else each for each in delays])
    median, high = (float(np.quantile(windows, level, method="higher")) for level in (0.5, 0.9))
    named = int(np.isfinite(windows).sum())
    return (
        f"| {scenario.title} | {named} of {len(delays)} | {_count(median)} | {_count(high)} | {_time(high)} |"
        f" {scenario.windows_max} |"
    )


def _count(windows: float) -> str:
    return f"{windows:.0f}" if np.isfinite(windows) else "not named"


def _time(windows: float) -> str:
    minutes = windows * WINDOW_US / MINUTE_US
    if not np.isfinite(minutes):
        return ""
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


@click.group()
def main() -> None:
    """False alarms and delays of the drift detector in simulated worlds."""


@main.command()
@click.option("--worlds", default=16, show_default=True, help="Worlds of 30 features, and half as many in slices.")
@click.option("--processes", default=2, show_default=True, help="Worlds that are simulated at once.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=RESULTS, show_default=False)
def run(worlds: int, processes: int, out: Path) -> None:
    """Simulate, and write the results; takes a processor about half a minute a world."""
    asked = [(seed, False) for seed in range(1, worlds + 1)] + [(seed, True) for seed in range(1, worlds // 2 + 1)]
    found = []
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        for each in pool.map(_run_asked, asked):
            found.append(each)
            click.echo(f"world {each['seed']}: {each['alarms']} false alarms", err=True)
    out.write_text(json.dumps({"worlds": found}, indent=1) + "\n")
    click.echo("\n".join(table_lines(found)))


def _run_asked(asked: tuple[int, bool]) -> dict[str, Any]:
    seed, sliced = asked
    return run_world(seed, numbers=8, words=2, sliced=True) if sliced else run_world(seed)


@main.command()
def table() -> None:
    """Print the tables of the last run."""
    click.echo("\n".join(table_lines(stored())))


def stored() -> list[dict[str, Any]]:
    """The worlds of the last run."""
    worlds: list[dict[str, Any]] = json.loads(RESULTS.read_text())["worlds"]
    return worlds


if __name__ == "__main__":
    main()
