"""What the benchmarks write: result files, tables, plots, and what a comparison of two runs calls a regression."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from bench.history import change_table, changes, newest
from bench.measure import Block, Ratio, Timing, timing_of
from bench.plots import bar_plot, line_plot
from bench.report import Case, Goal, SuiteResult, read, single, write
from bench.tables import markdown, suite_tables
from skewless.errors import InvalidDefinition, NotFound

FLOOR = "floor"


def _timing(*medians_us: float) -> Timing:
    return timing_of([Block((round(each * 1_000),), round(each * 1_000)) for each in medians_us])


def _result(ours: tuple[float, ...], floor: tuple[float, ...] = (10, 10, 10)) -> SuiteResult:
    case = Case("1 row", {"rows": 1}, {FLOOR: _timing(*floor), "ours": _timing(*ours)}, values=40)
    return SuiteResult("reads", (case,), floor=FLOOR)


def test_a_result_file_gives_back_what_was_written(tmp_path: Path) -> None:
    goal = Goal("1 row: SDK / ours", Ratio(11, 10, 12), 10)
    case = Case("1 row", {"rows": 1, "shape": "one"}, {"a": _timing(1, 2)}, values=40, facts={"peak_mib": 1.5})
    result = SuiteResult("reads", (case,), (goal,), FLOOR, ("a note",), {"rows.svg": "<svg/>"})
    path = tmp_path / "results" / "run.json"
    files = write(path, {"commit": "abc"}, (result,))
    assert files == (path, tmp_path / "results" / "run-rows.svg")
    assert files[1].read_text() == "<svg/>"
    environment, (again,) = read(path)
    assert environment == {"commit": "abc"}
    assert (again.cases, again.goals, again.floor, again.notes) == ((case,), (goal,), FLOOR, ("a note",))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "environment": {}, "suites": [{}]}'])
def test_a_file_that_is_no_result_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(InvalidDefinition, match=r"other\.json"):
        read(path)


def test_a_goal_is_reached_at_its_bound_and_on_its_own_side_of_it() -> None:
    assert Goal("faster", single(10), 10).reached
    assert not Goal("faster", single(9.9), 10).reached
    assert Goal("cheaper", single(1.3), 1.3, at_most=True).reached
    assert not Goal("cheaper", single(1.4), 1.3, at_most=True).reached


def test_tables_show_medians_beside_the_floor_and_the_cost_of_a_thousand_values() -> None:
    text = suite_tables(_result((20, 25, 30)))
    assert "25 µs (2.5x)" in text
    assert "10 µs" in text
    assert "625 µs" in text, "25 µs of processor time for 40 values"


def test_the_columns_of_a_table_line_up() -> None:
    lines = markdown(["case", "µs"], [["a", "1"], ["long name", "1,000"]]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1] == "| --------- | ----: |"


def test_a_slow_down_beyond_both_spreads_is_a_regression() -> None:
    (change,) = changes([_result((20, 21, 22))], [_result((30, 31, 32))])
    assert change.verdict == "slower"
    assert change.growth == pytest.approx(31 / 21)
    assert "slower" in change_table([change])


def test_a_slow_down_within_the_spread_is_none() -> None:
    (change,) = changes([_result((20, 21, 40))], [_result((30, 31, 32))])
    assert change.verdict == "same"
    assert change_table([change]) == "None of 1 timings moved beyond its spread."


def test_a_change_smaller_than_the_tolerance_is_none_however_narrow_the_spread() -> None:
    (change,) = changes([_result((20, 20, 20))], [_result((20.5, 20.5, 20.5))])
    assert change.verdict == "same"


def test_a_speed_up_is_told_too() -> None:
    (change,) = changes([_result((30, 31, 32))], [_result((20, 21, 22))])
    assert change.verdict == "faster"


def test_a_machine_that_is_slower_as_a_whole_is_no_regression() -> None:
    (change,) = changes([_result((20, 20, 20))], [_result((60, 60, 60), floor=(30, 30, 30))])
    assert change.verdict == "same"
    assert change.unit == "x floor"


def test_cases_that_only_one_run_has_are_left_out() -> None:
    other = SuiteResult("reads", (Case("2 rows", {}, {"ours": _timing(1)}),))
    assert changes([_result((1, 1, 1))], [other]) == []


def test_the_newest_result_of_a_commit_is_found_wherever_it_lies_under_the_folder(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    for folder, name in ((kept, "20260101T000000Z-aaa1"), (tmp_path, "20260201T000000Z-bbb2")):
        (folder / f"{name}.json").write_text("{}")
    (kept / "20260102T000000Z-aaa1-changed.json").write_text("{}")
    assert newest(tmp_path).name == "20260201T000000Z-bbb2.json"
    assert newest(tmp_path, "aaa1") == kept / "20260102T000000Z-aaa1-changed.json"
    with pytest.raises(NotFound, match="ccc3"):
        newest(tmp_path, "ccc3")


def test_a_plot_is_an_image_that_names_every_line_and_grows_upwards() -> None:
    svg = line_plot("Reads & rows", "rows", "ms", {"floor": [(1, 0.1), (1000, 5)], "SDK": [(1000, 900), (1, 1.5)]})
    root = ElementTree.fromstring(svg)  # noqa: S314  # written one line above
    space = {"svg": "http://www.w3.org/2000/svg"}
    texts = [each.text for each in root.iterfind(".//svg:text", space)]
    assert {"floor", "SDK", "rows", "ms", "Reads & rows", "1", "1,000"} <= set(texts)
    marks = [float(each.attrib["cy"]) for each in root.iterfind(".//svg:circle", space)]
    assert marks[0] > marks[1], "the larger value of the floor is nearer to the top"


@pytest.mark.parametrize("series", [{}, {"floor": []}, {"floor": [(0.0, 1.0)]}])
def test_a_plot_without_positive_points_is_refused(series: dict[str, list[tuple[float, float]]]) -> None:
    with pytest.raises(ValueError, match="positive"):
        line_plot("none", "x", "y", series)


def test_a_bar_is_as_long_as_its_value() -> None:
    root = ElementTree.fromstring(bar_plot("Stages", "µs", {"read": 30.0, "model": 60.0}))  # noqa: S314  # as above
    widths = [float(each.attrib["width"]) for each in root.iter("{http://www.w3.org/2000/svg}rect")]
    assert widths[1] == pytest.approx(2 * widths[0])


@pytest.mark.parametrize("bars", [{}, {"none": 0.0}, {"below": -1.0, "above": 1.0}])
def test_bars_without_a_length_are_refused(bars: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        bar_plot("none", "x", bars)
