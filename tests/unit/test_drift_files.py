"""Parquet files beside each other: the same bins as bundles, statistics of the raw rows, alarms over time."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import ks_2samp, wasserstein_distance

from skewless.adapters import drift_files
from skewless.adapters.drift_files import Split as FileSplit
from skewless.adapters.drift_files import agreed, counted, counter_of, dtype_of, open_table, slices_of, window_for
from skewless.cli.main import main
from skewless.drift.check import Columns, Finding, Severity, compare
from skewless.drift.traffic import ALL
from skewless.dtypes import Column, Dtype, column_of
from skewless.errors import InvalidDefinition, NotFound
from skewless.statistics.bins import column_bins
from skewless.statistics.words import KNOWN_MAX
from skewless.timestamps import DAY_US, HOUR_US, MINUTE_US

GENERATOR = np.random.default_rng(7)
HOURS = 5 * 7 * 24
ROWS_AN_HOUR = 60


def write(path: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def check(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["drift", "check", *map(str, arguments)])


def report(*arguments: object, exit_code: int) -> dict[str, Any]:
    result = check(*arguments, "--json")
    assert result.exit_code == exit_code, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def findings(reference: Path, current: Path) -> dict[str, Finding]:
    first, second = open_table(reference), open_table(current)
    inputs, columns = agreed(first, second, frozenset())
    counter = counter_of(first, inputs)
    (before, _), (after, _) = (counted(each, inputs, counter, FileSplit(), DAY_US) for each in (first, second))
    return {each.difference.name: each for each in compare(before, after, columns).of(ALL)}


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(-1.0, 1.0), st.floats(0.3, 3.0), st.floats(0.0, 0.3), st.integers(0, 2**31))
def test_statistics_are_those_of_the_raw_rows_within_their_bounds(
    tmp_path: Path, shift: float, scale: float, nulls: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    first = generator.normal(size=4_000)
    second = generator.normal(shift, scale, 3_000)
    missing = generator.random(3_000) < nulls
    a = write(tmp_path / "a.parquet", {"x": first})
    b = write(tmp_path / "b.parquet", {"x": pa.array(second, mask=missing)})
    found = findings(a, b)["x"].difference
    raw = second[~missing]
    assert found.null_share.second == pytest.approx(missing.mean())
    assert found.mean.second == pytest.approx(raw.mean(), abs=0.01)
    assert found.deviation.second == pytest.approx(raw.std(), rel=0.01)
    for bounds, exact in (
        (found.kolmogorov_smirnov, ks_2samp(first, raw, method="asymp").statistic),
        (found.wasserstein, wasserstein_distance(first, raw)),
    ):
        assert bounds is not None
        assert bounds.low - 1e-9 <= exact <= bounds.high + 1e-9


def test_bins_are_those_that_a_bundle_would_choose(tmp_path: Path) -> None:
    numbers, words = GENERATOR.lognormal(size=5_000), GENERATOR.choice(["a", "b", "c"], 5_000)
    path = write(tmp_path / "a.parquet", {"x": numbers, "w": words})
    layout = counter_of(open_table(path), [("x", Dtype.FLOAT64), ("w", Dtype.STRING)]).layout
    columns = Column(Dtype.FLOAT64, numbers, np.ones(5_000, dtype=np.bool_)), column_of(Dtype.STRING, words.tolist())
    for found, name, column in zip(layout.variables, ("x", "w"), columns, strict=True):
        expected = column_bins(name, column, served=False, known_max=KNOWN_MAX)
        assert (found.edges, found.vocabulary, found.grid) == (expected.edges, expected.vocabulary, expected.grid)


def test_bins_of_large_files_come_from_a_bounded_sample_and_the_extremes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = GENERATOR.normal(size=200_000)
    numbers[77_777], numbers[123_456] = -50.0, 60.0
    path = write(tmp_path / "a.parquet", {"x": numbers})
    monkeypatch.setattr(drift_files, "DRIFT_BIN_ROWS_MAX", 1_000)
    (variable,) = counter_of(open_table(path), [("x", Dtype.FLOAT64)]).layout.variables
    assert variable.edges[0] == -50.0
    assert variable.edges[-1] == np.nextafter(60.0, np.inf)
    middle = np.array(variable.edges)[(np.array(variable.edges) > -2) & (np.array(variable.edges) < 2)]
    assert np.abs(np.interp([0.25, 0.5, 0.75], np.linspace(0, 1, len(middle)), middle)[1]) < 0.2
    assert variable.moments is not None
    assert variable.moments.count < 2_000


def test_words_that_are_rare_among_very_many_are_forgotten_and_frequent_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift_files, "DRIFT_WORDS_MAX", 50_000)
    words = np.array([f"id-{number}" for number in range(140_000)], dtype=object)
    words[::7] = "often"
    path = write(tmp_path / "a.parquet", {"w": pa.array(words)})
    (variable,) = counter_of(open_table(path), [("w", Dtype.STRING)]).layout.variables
    assert variable.vocabulary is not None
    assert variable.vocabulary.listed == ("often",)
    assert not variable.vocabulary.closed


@pytest.mark.parametrize(
    ("arrow", "expected"),
    [
        (pa.int8(), Dtype.INT64),
        (pa.uint32(), Dtype.INT64),
        (pa.float16(), Dtype.FLOAT64),
        (pa.float32(), Dtype.FLOAT32),
        (pa.decimal128(10, 2), Dtype.FLOAT64),
        (pa.large_string(), Dtype.STRING),
        (pa.dictionary(pa.int32(), pa.string()), Dtype.STRING),
        (pa.date32(), Dtype.TIMESTAMP),
        (pa.timestamp("ns"), Dtype.TIMESTAMP),
        (pa.list_(pa.float32()), Dtype.FLOAT32_LIST),
        (pa.struct([("x", pa.int64())]), None),
        (pa.list_(pa.list_(pa.int64())), None),
    ],
)
def test_arrow_types_are_compared_as_the_dtype_that_holds_them(arrow: Any, expected: Dtype | None) -> None:
    assert dtype_of(arrow) is expected


def test_every_type_that_is_compared_can_be_counted(tmp_path: Path) -> None:
    columns = {
        "bool": [True, False, None],
        "small": pa.array([1, None, 3], pa.int8()),
        "half": pa.array(np.array([1, 2, 3], dtype=np.float16)),
        "decimal": pa.array([1, 2, 3], pa.decimal128(10, 2)),
        "word": pa.array(["a", None, "b"]).dictionary_encode(),
        "day": pa.array([0, 1, None], pa.date32()),
        "list": pa.array([[1.0], None, [1.0, 2.0]]),
        "bytes": pa.array([b"x", b"", None]),
        "never": pa.nulls(3),
        "nested": pa.array([{"x": 1}] * 3),
    }
    path = write(tmp_path / "a.parquet", columns)
    found = report("--reference", path, "--current", path, exit_code=0)
    assert [each["name"] for each in found["columns"]] == [name for name in columns if name != "nested"]
    assert found["left_out"] == [["nested", "struct<x: int64>"]]
    assert {each["psi"] for each in found["columns"]} == {0.0}


def test_columns_that_changed_are_told_and_fail(tmp_path: Path) -> None:
    a = write(tmp_path / "a.parquet", {"x": [1, 2], "gone": [1, 2], "y": ["a", "b"]})
    b = write(tmp_path / "b.parquet", {"x": [1.0, None], "new": [1, 2], "y": [1, 2]})
    found = report("--reference", a, "--current", b, "--fail-on", "broken", exit_code=4)
    assert (found["only_in_reference"], found["only_in_current"]) == (["gone"], ["new"])
    assert found["retyped"] == [["y", "string", "int64"]]
    assert [each["name"] for each in found["columns"]] == ["x"], "whole numbers with a null became floats"
    inputs, columns = agreed(open_table(a), open_table(b), frozenset())
    assert inputs == [("x", Dtype.FLOAT64)]
    assert columns.broken
    assert not Columns(only_in_current=("new",)).broken


def drawn(rows: int, seed: int, **changed: float) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    words = generator.choice(["a", "b", "c"], rows, p=[0.5, 0.3, 0.2])
    return {
        "steady": generator.normal(size=rows),
        "moving": generator.normal(changed.get("shift", 0.0), 1.0, rows),
        "word": words,
    }


def test_a_random_split_is_quiet_and_a_shift_is_named_first(tmp_path: Path) -> None:
    a = write(tmp_path / "a.parquet", drawn(20_000, 1))
    b = write(tmp_path / "b.parquet", drawn(20_000, 2))
    c = write(tmp_path / "c.parquet", drawn(20_000, 3, shift=0.8))
    quiet = report("--reference", a, "--current", b, exit_code=0)
    assert {each["severity"] for each in quiet["columns"]} == {"quiet"}
    loud = report("--reference", a, "--current", c, exit_code=4)
    first = loud["columns"][0]
    assert (first["name"], first["severity"]) == ("moving", "large")
    assert first["psi"] > 20 * first["psi_floor"]


@pytest.mark.parametrize(
    ("shift", "codes"),
    [(0.0, {"broken": 0, "large": 0, "small": 0}), (0.35, {"large": 0, "small": 4}), (0.8, {"broken": 0, "large": 4})],
)
def test_the_exit_code_is_that_of_what_was_asked_to_fail_on(
    tmp_path: Path, shift: float, codes: dict[str, int]
) -> None:
    a = write(tmp_path / "a.parquet", drawn(20_000, 1))
    b = write(tmp_path / "b.parquet", drawn(20_000, 2, shift=shift))
    for level, code in codes.items():
        assert check("--reference", a, "--current", b, "--fail-on", level).exit_code == code, level
    assert check("--reference", a, "--current", b, "--fail-on", "never").exit_code == 0


@pytest.mark.parametrize(
    ("values", "current"),
    [
        ([1.0, 2.0] * 50, [None] * 90 + [1.0] * 10),
        ([1.0, 2.0] * 50, [2.0] * 100),
        (["a", "b"] * 50, ["new"] * 60 + ["a"] * 40),
    ],
)
def test_columns_that_emptied_stand_still_or_are_full_of_news_are_broken(
    tmp_path: Path, values: list[object], current: list[object]
) -> None:
    a, b = write(tmp_path / "a.parquet", {"x": values}), write(tmp_path / "b.parquet", {"x": current})
    assert findings(a, b)["x"].severity is Severity.BROKEN


def test_one_bad_slice_is_found_that_the_whole_hides(tmp_path: Path) -> None:
    def rows(seed: int, shift: float) -> dict[str, Any]:
        generator = np.random.default_rng(seed)
        places = generator.choice(["north", "south", "west"], 30_000, p=[0.6, 0.36, 0.04])
        values = generator.normal(size=30_000)
        values[places == "west"] += shift
        return {"place": places, "x": values}

    a, b = (write(tmp_path / f"{seed}.parquet", rows(seed, shift)) for seed, shift in ((1, 0.0), (2, 1.5)))
    found = report("--reference", a, "--current", b, "--by", "place", exit_code=4)
    assert {each["severity"] for each in found["columns"]} == {"quiet"}
    worst = {name: each[0]["severity"] for name, each in found["slices"].items()}
    assert worst == {"north": "quiet", "south": "quiet", "west": "large"}


def test_slices_are_the_most_frequent_values_and_one_for_all_others(tmp_path: Path) -> None:
    values = [number % 40 for number in range(4_000)] + [None] * 10
    path = write(tmp_path / "a.parquet", {"n": pa.array(values, pa.int32()), "f": pa.array([1.5] * len(values))})
    table = open_table(path)
    inputs = [("n", Dtype.INT64), ("f", Dtype.FLOAT64)]
    split = slices_of(table, "n", inputs)
    traffic, _ = counted(table, inputs, counter_of(table, inputs), split, DAY_US)
    assert len(traffic.slices) == 17
    assert {"(null)", "(other)"} < set(traffic.slices)
    assert traffic.total("(null)").rows == 10
    with pytest.raises(InvalidDefinition, match="has no slices"):
        slices_of(table, "f", inputs)
    with pytest.raises(NotFound, match="`x` does not exist"):
        slices_of(table, "x", inputs)


def hourly(start: int, stop: int, seed: int, *, shift: float = 0.0, only: str = "") -> dict[str, Any]:
    """Rows of hours `start` to `stop`, with a daily cycle, shifted in one place or in all."""
    generator = np.random.default_rng(seed)
    hours = np.repeat(np.arange(start, stop), ROWS_AN_HOUR)
    rows = len(hours)
    places = generator.choice(["east", "west"], rows, p=[0.5, 0.5])
    cycle: NDArray[np.float64] = np.sin(2 * np.pi * hours / 24)
    temperature = cycle + generator.normal(size=rows)
    temperature[np.isin(places, [only] if only else ["east", "west"])] += shift
    times = hours * HOUR_US + generator.integers(0, HOUR_US, rows)
    return {
        "at": pa.array(times, pa.timestamp("us", tz="UTC")),
        "temperature": temperature,
        "demand": generator.poisson(20 + 5 * cycle).astype(np.int64),
        "place": places,
    }


@pytest.fixture(scope="module")
def weeks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("weeks") / "reference.parquet", hourly(0, HOURS, 1))


def test_a_change_in_time_is_an_alarm_with_its_time_and_name(weeks: Path, tmp_path: Path) -> None:
    calm, shifted = hourly(HOURS, HOURS + 30, 2), hourly(HOURS + 30, HOURS + 60, 3, shift=1.0)
    both = {name: pa.concat_arrays([pa.array(calm[name]), pa.array(shifted[name])]) for name in calm}
    current, page = write(tmp_path / "b.parquet", both), tmp_path / "report.html"
    options = ("--reference", weeks, "--current", current, "--time-column", "at", "--window", "1h", "--html", page)
    found = report(*options, exit_code=4)["timeline"]
    assert (found["reference"], found["calibrated"]) == ("hour of week", True)
    (alarm,) = found["alarms"]
    assert alarm["moved"][0]["name"] == "temperature"
    assert (HOURS + 30) * HOUR_US < alarm["opened_us"] <= (HOURS + 36) * HOUR_US
    assert abs(alarm["since_us"] - (HOURS + 30) * HOUR_US) <= 2 * HOUR_US
    text = page.read_text()
    assert "temperature" in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", ""), "the page needs nothing from elsewhere"
    told = check(*options[:-2])
    assert told.exit_code == 4
    assert "alarm 1970-02-06T" in told.stdout
    assert check(*options[:-2], "--fail-on", "never").exit_code == 0


def test_the_same_weeks_again_raise_no_alarm(weeks: Path, tmp_path: Path) -> None:
    current = write(tmp_path / "b.parquet", hourly(HOURS, HOURS + 48, 4))
    options = ("--reference", weeks, "--current", current, "--time-column", "at", "--window", "1h")
    found = report(*options, exit_code=0)["timeline"]
    assert found["alarms"] == []
    assert found["breaks"] == []
    assert found["windows"] == 48


def test_an_alarm_names_the_slice(weeks: Path, tmp_path: Path) -> None:
    current = write(tmp_path / "b.parquet", hourly(HOURS, HOURS + 30, 5, shift=1.0, only="west"))
    options = ("--reference", weeks, "--current", current, "--time-column", "at", "--window", "1h", "--by", "place")
    found = report(*options, exit_code=4)["timeline"]
    named = {(each["name"], each["slice"]) for each in found["alarms"][0]["moved"] if each["named"]}
    assert ("temperature", "west") in named
    assert ("temperature", "east") not in named


def test_little_history_is_marked_uncalibrated(tmp_path: Path) -> None:
    reference = write(tmp_path / "a.parquet", hourly(0, 72, 6))
    current = write(tmp_path / "b.parquet", hourly(72, 96, 7, shift=3.0))
    options = ("--reference", reference, "--current", current, "--time-column", "at", "--window", "1h")
    found = report(*options, exit_code=4)["timeline"]
    assert (found["reference"], found["calibrated"], found["height"]) == ("training", False, None)
    assert found["alarms"][0]["moved"][0]["name"] == "temperature"
    assert "UNCALIBRATED" in check(*options).stdout


def test_rows_without_a_time_are_left_out_and_told(weeks: Path, tmp_path: Path) -> None:
    columns = hourly(HOURS, HOURS + 30, 8)
    columns["at"] = pa.concat_arrays([columns["at"].slice(0, len(columns["at"]) - 5), pa.nulls(5, columns["at"].type)])
    current = write(tmp_path / "b.parquet", columns)
    result = check("--reference", weeks, "--current", current, "--time-column", "at", "--window", "1h")
    assert "5 of the current file" in result.stderr


def test_windows_are_as_short_as_their_rows_allow(weeks: Path) -> None:
    table, span = open_table(weeks), (0, HOURS * HOUR_US - 1)
    assert window_for(table, span, 1, 100) == 6 * HOUR_US
    assert window_for(table, span, 8, 100) == DAY_US
    assert window_for(table, (0, 10 * HOUR_US), 1, 100) == 5 * MINUTE_US


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (("--time-column", "temperature"), 2, "allowed: timestamps or dates"),
        (("--time-column", "nowhere"), 2, "does not exist"),
        (("--by", "nowhere"), 2, "does not exist"),
        (("--by", "temperature"), 2, "has no slices"),
        (("--window", "1h"), 2, "--window needs --time-column"),
        (("--time-column", "at", "--window", "7m"), 2, "whole parts of an hour"),
        (("--time-column", "at", "--window", "soon"), 2, "no length of a window"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(weeks: Path, options: tuple[str, ...], code: int, told: str) -> None:
    result = check("--reference", weeks, "--current", weeks, *options)
    assert result.exit_code == code
    assert told in result.stderr


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    text, empty = tmp_path / "a.txt", write(tmp_path / "empty.parquet", {"x": pa.array([], pa.int64())})
    text.write_text("no Parquet")
    other = write(tmp_path / "other.parquet", {"y": [1]})
    for path, told in ((tmp_path / "none", "does not exist"), (text, "cannot be read as Parquet"), (empty, "no rows")):
        result = check("--reference", path, "--current", path)
        assert result.exit_code == 2
        assert told in result.stderr
    nothing = check("--reference", write(tmp_path / "x.parquet", {"x": [1]}), "--current", other)
    assert "no column in common" in nothing.stderr


def test_names_that_look_like_markup_are_shown_as_they_are(tmp_path: Path) -> None:
    path, page = write(tmp_path / "a.parquet", {"[red]x": [1, 2], "<b>": [1, 2]}), tmp_path / "page.html"
    result = check("--reference", path, "--current", path, "--html", page)
    assert "[red]x" in result.stdout
    assert "<b></b>" not in page.read_text()
    assert "&lt;b&gt;" in page.read_text()
