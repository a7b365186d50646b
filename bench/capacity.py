"""`python -m bench.capacity RESULT…`: fit the sheet of costs of `skewless capacity` to results, and check it.

    python -m bench.capacity bench/results/kept/…scaling.json bench/results/kept/…gateway.json --write

The fit takes the cases of the suites `scaling` (features, rows, memory), `log` and `monitor`, and of the suite
`gateway` what 32 callers cost beside one. Its other cases were not seen by the fit: what they measured stands beside
what the sheet says.
"""

import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from scipy.optimize import nnls

from bench.gateway_goals import GATEWAY, load_of
from bench.load_timing import SERVED
from bench.report import Case, SuiteResult, read
from bench.tables import markdown
from skewless.capacity.costs import Costs, RequestCost

SHEET = Path(__file__).parents[1] / "platform" / "skewless" / "capacity" / "costs.json"
VALKEY, TRITON = "Valkey", "Triton"
SHARED_CALLERS = 32
EXPONENTS = tuple(float(each) for each in np.round(np.arange(0.4, 1.01, 0.02), 2))


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--write", "is_written", is_flag=True, help="Keep the sheet as the shipped one.")
def main(results: tuple[Path, ...], *, is_written: bool) -> None:
    """Fit, print what was measured beside what the sheet says, and the sheet."""
    environments, suites = _read(results)
    sheet = fitted(suites, environments[-1])
    click.echo(check_table(sheet, suites["gateway"]))
    click.echo(json.dumps(sheet.to_json(), indent=1))
    if is_written:
        SHEET.write_text(json.dumps(sheet.to_json(), indent=1) + "\n")


def fitted(suites: dict[str, SuiteResult], environment: dict[str, Any]) -> Costs:
    """The sheet. Raises KeyError where a suite is missing that it needs."""
    sizes = [case for case in suites["scaling"].cases if {"features", "rows"} <= case.parameters.keys()]
    hash_bytes, value_bytes = _stored(sizes)
    bundles = [(float(case.parameters["bundles"]), case.facts["memory, MiB"]) for case in _with(suites, "bundles")]
    slope, base = _line(bundles)
    log, monitor = suites["log"], suites["monitor"]
    return Costs(
        measured={
            "date": environment["date"][:10],
            "commit": environment["commit"],
            "processor": f"{environment['processor']}, {environment['cores']} cores",
        },
        gateway=_fit(sizes, SERVED, suites["gateway"]),
        store=_fit(sizes, VALKEY, suites["gateway"]),
        model=_fit(sizes, TRITON, suites["gateway"]),
        ship_us=round(_fact(log, "shipping, µs") + _fact(log, "compacting, µs"), 2),
        monitor_us=round(1e6 / _fact(monitor, "predictions counted per processor second"), 2),
        log_bytes=round(_fact(log, "store, bytes per prediction"), 1),
        hash_bytes=round(hash_bytes, 1),
        value_bytes=round(value_bytes, 2),
        bundle_mib=round(slope, 2),
        gateway_mib=round(base, 1),
    )


def check_table(sheet: Costs, gateway: SuiteResult) -> str:
    """What was measured of cases that the fit has not seen, beside what the sheet says, as Markdown."""
    return markdown(
        ("case", "part", "measured, µs", "by the sheet, µs", "sheet / measured"), list(_checks(sheet, gateway))
    )


def _checks(sheet: Costs, gateway: SuiteResult) -> Iterator[tuple[str, ...]]:
    for case in gateway.cases:
        callers = case.parameters.get("callers")
        if callers in (None, SHARED_CALLERS) or "workers" in case.parameters or GATEWAY not in case.timings:
            continue
        for part, cost in ((SERVED, sheet.gateway), (VALKEY, sheet.store), (TRITON, sheet.model)):
            told = cost.alone if callers == 1 else cost.crowded
            measured, said = _cpu(case, GATEWAY, part), told(float(case.parameters["rows"]), 40)
            yield (case.name, part, f"{measured:,.0f}", f"{said:,.0f}", f"{said / measured:.2f}")


def _fit(sizes: Sequence[Case], part: str, gateway: SuiteResult) -> RequestCost:
    """Costs that are least wrong in relation to what was measured; none is negative."""
    wanted = np.array([_cpu(case, GATEWAY, part) for case in sizes])
    tried = []
    for exponent in EXPONENTS:
        terms = np.array([_terms(case, exponent) for case in sizes])
        found, missed = nnls(terms / wanted[:, np.newaxis], np.ones(len(wanted)))
        tried.append((missed, exponent, found))
    _, exponent, found = min(tried, key=lambda each: each[0])
    request_us, row_us, value_us = (round(float(each), 3) for each in found)
    return RequestCost(request_us, row_us, value_us, exponent, _shared(gateway, part))


def _terms(case: Case, exponent: float) -> tuple[float, float, float]:
    rows, features = float(case.parameters["rows"]) ** exponent, float(case.parameters["features"])
    return 1.0, rows, rows * features


def _shared(gateway: SuiteResult, part: str) -> float:
    """What a request of 32 callers costs, as a share of what one of a single caller does."""
    by_callers = {
        case.parameters["callers"]: _cpu(case, GATEWAY, part)
        for case in gateway.cases
        if case.parameters.keys() == {"rows", "callers"} and case.parameters["rows"] == 1
    }
    return round(by_callers[SHARED_CALLERS] / by_callers[1], 3)


def _cpu(case: Case, candidate: str, part: str) -> float:
    return load_of(case.timings[candidate]).cpu_us[part]


def _stored(sizes: Sequence[Case]) -> tuple[float, float]:
    """Bytes of a hash without features, and of one feature: a third of a row's features lie in each of three hashes."""
    told = [
        (float(case.parameters["features"]) / case.facts["hashes of a row"], case.facts["bytes of a hash"])
        for case in sizes
        if "bytes of a hash" in case.facts
    ]
    value_bytes, hash_bytes = _line(told)
    return hash_bytes, value_bytes


def _line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Slope and height at 0 of the line nearest to points."""
    xs, ys = (np.array(each) for each in zip(*points, strict=True))
    slope, base = np.polynomial.Polynomial.fit(xs, ys, 1).convert().coef[::-1]
    return float(slope), float(base)


def _with(suites: dict[str, SuiteResult], parameter: str) -> list[Case]:
    return [case for case in suites["scaling"].cases if parameter in case.parameters]


def _fact(suite: SuiteResult, name: str) -> float:
    return statistics.median(case.facts[name] for case in suite.cases if name in case.facts)


def _read(results: Sequence[Path]) -> tuple[list[dict[str, Any]], dict[str, SuiteResult]]:
    environments, suites = [], {}
    for path in results:
        environment, found = read(path)
        environments.append(environment)
        suites.update({each.suite: each for each in found})
    return environments, suites


if __name__ == "__main__":
    main()
