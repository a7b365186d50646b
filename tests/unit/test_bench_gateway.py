"""The gateway's benchmark without its processes: the textbook's transform, the goals, the tables and plots."""

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.gateway_goals import FLOOR, GATEWAY, IN_PROCESS_GATEWAY, TEXTBOOK, goals
from bench.gateway_model import QUANTITY, groups_of, transform_of
from bench.gateway_plots import gateway_plots
from bench.load_block import LoadBlock
from bench.load_timing import SERVED, timing_of_load
from bench.measure import Timing
from bench.report import Case, SuiteResult, read, write
from bench.scaling_plots import scaling_plots
from bench.tables import suite_tables
from bench.textbook.pipeline import frame_of
from bench.textbook.transform import CATEGORIES, make_transform, typed
from skewless.canonical_json import digest
from skewless.dtypes import Dtype, column_of
from skewless.features.contract import FeatureContract, FeatureField, JoinKey, ViewRead
from skewless.timestamps import HOUR_US

ROWS = 400
FIELDS = {
    "single": Dtype.FLOAT32, "double": Dtype.FLOAT64, "count": Dtype.INT64, "flag": Dtype.BOOL,
    "word": Dtype.STRING, "moment": Dtype.TIMESTAMP,
}  # fmt: skip


def _contract() -> FeatureContract:
    fields = tuple(FeatureField(name, dtype) for name, dtype in FIELDS.items())
    view = ViewRead("view", (JoinKey("customer", Dtype.INT64),), 0, fields)
    return FeatureContract("tests", (view,), (QUANTITY,), digest("the tests' own"))


def _values(rng: np.random.Generator) -> dict[str, list[object]]:
    """Every column's values, one in ten of them null."""
    made: dict[str, list[object]] = {
        "single": rng.normal(0, 100, ROWS).astype(np.float32).tolist(),
        "double": rng.lognormal(0, 3, ROWS).tolist(),
        "count": rng.integers(-5, 100_000, ROWS).tolist(),
        "flag": (rng.random(ROWS) < 0.3).tolist(),
        "word": [[*CATEGORIES, "another"][place] for place in rng.integers(0, len(CATEGORIES) + 1, ROWS)],
        "moment": (rng.integers(0, 10_000, ROWS) * HOUR_US // 7).tolist(),
        QUANTITY.name: rng.gamma(2.0, 3.0, ROWS).astype(np.float32).tolist(),
    }
    return {name: [None if rng.random() < 0.1 else value for value in values] for name, values in made.items()}


def test_the_textbook_gives_the_model_what_the_bundle_gives_it() -> None:
    contract, values = _contract(), _values(np.random.default_rng(20))
    columns = {"customer": column_of(Dtype.INT64, list(range(ROWS)))}
    columns |= {f"view__{name}": column_of(dtype, values[name]) for name, dtype in FIELDS.items()}
    columns[QUANTITY.name] = column_of(QUANTITY.dtype, values[QUANTITY.name])
    groups = groups_of(contract)
    fitted = transform_of(contract, groups).fit(columns, ROWS)
    frame = typed(frame_of(columns), groups)
    theirs = make_transform(groups).fit(frame).transform(frame).astype(np.float32)
    ours = fitted.prepare().apply(columns, ROWS)
    assert ours.shape == theirs.shape == (ROWS, 3 + 1 + 1 + len(CATEGORIES) + 1)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def _timing(p50_us: float, per_s: float = 100.0) -> Timing:
    """Three repetitions of the same: half of the answers take 0.8 p50, half 1.2 p50."""
    latencies = (np.array([0.8, 1.2] * 50) * p50_us * 1_000).astype(np.int64)
    blocks = [LoadBlock(latencies, int(per_s), 1.0, {}, {SERVED: p50_us / 1e6}, 1) for _ in range(3)]
    return timing_of_load(blocks)


def _case(rows: int, callers: int, timings: Mapping[str, Timing]) -> Case:
    return Case(f"{rows} rows, {callers} callers", {"rows": rows, "callers": callers}, timings)


def _cases() -> tuple[Case, ...]:
    alone = {FLOOR: _timing(1_000), GATEWAY: _timing(1_250), IN_PROCESS_GATEWAY: _timing(700)}
    crowd = {GATEWAY: _timing(10_000, 3_000), TEXTBOOK: _timing(90_000, 120)}
    many = {FLOOR: _timing(2_000), GATEWAY: _timing(4_000), TEXTBOOK: _timing(80_000)}
    return _case(1, 1, alone), _case(1, 32, crowd), _case(100, 1, many)


def test_every_goal_is_a_ratio_within_its_own_case() -> None:
    found = {goal.name: (round(goal.measured.median, 3), goal.reached) for goal in goals(_cases())}
    assert found == {
        "1 caller: gateway / floor, p50": (1.25, True),
        "1 caller: gateway / floor, p99": (1.25, True),
        "1 caller: gateway, in process / floor, p50": (0.7, False),
        "32 callers: gateway / textbook, answers per second": (25.0, True),
        "32 callers: gateway / textbook, p99": (0.111, False),
        "100 rows: gateway / textbook, p50": (0.05, True),
    }
    assert list(goals(_cases()[1:2])) != []
    assert list(goals(())) == []


def test_load_survives_a_result_file_and_is_told_in_a_table(tmp_path: Path) -> None:
    result = SuiteResult("gateway", _cases(), floor=FLOOR)
    write(tmp_path / "run.json", {}, (result,))
    _, (again,) = read(tmp_path / "run.json")
    assert again.cases == result.cases
    lines = [line for line in suite_tables(again).splitlines() if "1 rows, 32 callers: textbook" in line]
    assert [cell.strip() for cell in lines[0].split("|")[2:-1]] == ["120", "90 ms", "108 ms", "108 ms", "90 ms", "0"]


def test_plots_show_callers_rows_and_rates_each_from_its_own_cases() -> None:
    opened = Case("1 row, open loop, 100 /s", {"rows": 1, "per_s": 100}, {GATEWAY: _timing(1_300)})
    plots = gateway_plots((*_cases(), opened))
    assert set(plots) == {
        "gateway-callers-p50.svg", "gateway-callers-p99.svg", "gateway-callers-rate.svg", "gateway-rows.svg",
        "gateway-rate-p50.svg", "gateway-rate-p99.svg",
    }  # fmt: skip
    for svg in plots.values():
        ElementTree.fromstring(svg)  # noqa: S314  # written here
    assert TEXTBOOK not in plots["gateway-rate-p50.svg"]


def test_a_plot_of_stages_shows_what_lies_between_them_too() -> None:
    case = replace(_cases()[0], facts={"validate, µs": 100.0, "model, µs": 500.0, "total, µs": 700.0})
    stages = ElementTree.fromstring(gateway_plots((case,))["gateway-stages.svg"])  # noqa: S314  # written here
    texts = [each.text for each in stages.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[1:] == ["validate", "100 µs", "model", "500 µs", "between stages", "100 µs"]


def test_scaling_is_plotted_over_features_rows_and_bundles() -> None:
    sizes = [
        Case("", {"features": features, "rows": rows}, {GATEWAY: _timing(100.0 * features * rows)})
        for features, rows in ((1, 1), (40, 1), (40, 100))
    ]
    bundles = [Case("", {"bundles": count}, {}, facts={"memory, MiB": 100.0 + count}) for count in (1, 20)]
    assert set(scaling_plots((*sizes, *bundles))) == {
        "scaling-features-p50.svg", "scaling-features-cpu.svg", "scaling-rows-p50.svg", "scaling-rows-cpu.svg",
        "scaling-bundles-memory.svg",
    }  # fmt: skip
    assert scaling_plots(bundles[:1]) == {}


def test_plots_of_one_kind_alone_are_drawn_alone() -> None:
    opened = Case("1 row, open loop, 100 /s", {"rows": 1, "per_s": 100}, {GATEWAY: _timing(1_300)})
    assert set(gateway_plots((opened,))) == {"gateway-rate-p50.svg", "gateway-rate-p99.svg"}


def test_a_result_file_of_before_load_was_measured_is_still_read(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write(path, {}, (SuiteResult("gateway", _cases()),))
    data = json.loads(path.read_text())
    for case in data["suites"][0]["cases"]:
        for timing in case["timings"].values():
            del timing["load"]
    path.write_text(json.dumps(data))
    _, (again,) = read(path)
    assert [timing.load for case in again.cases for timing in case.timings.values()] == [None] * 8
    assert "answers/s" not in suite_tables(again)
