"""The flights' year: what the seasons moved is named, with its time; a random split of one season is quiet."""

import json
import zipfile
from pathlib import Path
from typing import Any

import duckdb
import pytest
from click.testing import CliRunner

from feature_repo.sources import package_folder
from skewless.cli.main import main
from skewless.timestamps import parse_timestamp

SELECTED = """
    SELECT f.time_hour, f.origin, f.carrier, f.dest, f.distance, f.hour, f.dep_delay,
        w.temp, w.dewp, w.humid, w.wind_speed, w.precip, w.pressure, w.visib
    FROM flights f LEFT JOIN weather w ON w.origin = f.origin AND w.time_hour = f.time_hour
"""
MAY = "TIMESTAMPTZ '2013-05-01 00:00:00Z'"
FILES = {
    "winter": f"time_hour < {MAY}",
    "later": f"time_hour >= {MAY}",
    "winter_a": f"time_hour < {MAY} AND hash(place) % 2 = 0",
    "winter_b": f"time_hour < {MAY} AND hash(place) % 2 = 1",
}


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the year's flights and the weather at their origin, cut at May."""
    folder, data = tmp_path_factory.mktemp("flights"), package_folder()
    with zipfile.ZipFile(data / "flights.csv.zip") as archive:
        archive.extract("flights.csv", folder)
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for name, path in (("flights", folder / "flights.csv"), ("weather", data / "weather.csv")):
            connection.execute(f"CREATE TABLE {name} AS FROM read_csv(?, nullstr = ['', 'NA'])", [str(path)])
        connection.execute(f"CREATE TABLE year AS SELECT row_number() OVER () AS place, * FROM ({SELECTED})")
        for name, where in FILES.items():
            path = folder / f"{name}.parquet"
            connection.execute(
                f"COPY (SELECT * EXCLUDE place FROM year WHERE {where} ORDER BY time_hour) TO '{path}' (FORMAT parquet)"
            )
    return folder


def check(reference: Path, current: Path, *options: str) -> tuple[dict[str, Any], int]:
    command = ["drift", "check", "--reference", str(reference), "--current", str(current), "--json", *options]
    result = CliRunner().invoke(main, command)
    assert result.exit_code in (0, 4), result.output
    return json.loads(result.stdout), result.exit_code


def test_the_seasons_are_named(year: Path) -> None:
    found, code = check(year / "winter.parquet", year / "later.parquet")
    assert code == 4
    severity = {each["name"]: each["severity"] for each in found["columns"]}
    assert {name for name, each in severity.items() if each in ("large", "broken")} == {"temp", "dewp"}
    assert [severity[name] for name in ("carrier", "hour", "dep_delay", "origin")] == ["quiet"] * 4


def test_a_random_split_of_one_season_is_quiet(year: Path) -> None:
    found, code = check(year / "winter_a.parquet", year / "winter_b.parquet", "--by", "origin", "--fail-on", "small")
    assert code == 0
    assert found["worst"] == "quiet"
    assert all(each["psi"] < 2 * each["psi_floor"] for each in found["columns"])


def test_the_windows_say_when_the_seasons_moved_what(year: Path) -> None:
    found, code = check(year / "winter.parquet", year / "later.parquet", "--time-column", "time_hour", "--window", "1d")
    assert code == 4
    timeline = found["timeline"]
    assert timeline["calibrated"]
    first = timeline["alarms"][0]
    assert parse_timestamp("2013-05-02") <= first["opened_us"] <= parse_timestamp("2013-05-15")
    reached = {each["name"]: each["reached_us"] for each in first["moved"] if each["named"]}
    for name, until in (
        ("dest", "2013-05-15"),
        ("temp", "2013-05-31"),
        ("dewp", "2013-05-31"),
        ("dep_delay", "2013-07-31"),
    ):
        assert reached[name] <= parse_timestamp(until), name
    heat = [each for each in timeline["breaks"] if (each["rule"], each["name"]) == ("unseen values", "temp")]
    assert "2013-05-15" < heat[0]["start"] < heat[-1]["start"] < "2013-09-30", (
        "days hotter than any that was trained on"
    )


def test_a_split_of_one_season_in_time_keeps_to_the_promised_rate(year: Path) -> None:
    """Four months at one false alarm in 120 days: storms are real, so a few days stand out all the same."""
    options = ("--time-column", "time_hour", "--window", "1d", "--false-alarm-days", "120")
    found, _ = check(year / "winter_a.parquet", year / "winter_b.parquet", *options)
    assert found["timeline"]["windows"] == 120
    assert len(found["timeline"]["alarms"]) <= 4
