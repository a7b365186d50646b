"""The meaning of the example's source tables, on a handful of flights whose answers are worked out by hand."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pytest

from feature_repo.sources import SourcesReport, build_tables
from feature_repo.tables import aircraft, flights, origins

AIRPORTS = {"ORD": "America/Chicago", "LAX": "America/Los_Angeles", "BOS": "America/New_York"}
NEW_YORK = ZoneInfo("America/New_York")


@dataclass(frozen=True, slots=True)
class Built:
    """Tables written from a few flights."""

    folder: Path
    report: SourcesReport

    def rows(self, table: str, where: str = "true") -> list[dict[str, Any]]:
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            source = str(self.folder / f"{table}.parquet")
            result = connection.execute(f"SELECT * FROM read_parquet(?) WHERE {where}", [source])
            names = [column[0] for column in result.description]
            return [dict(zip(names, row, strict=True)) for row in result.fetchall()]

    def row(self, table: str, where: str = "true") -> dict[str, Any]:
        (only,) = self.rows(table, where)
        return only


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def flight(scheduled: str, dep_delay: int | None = 0, arr_time: int | None = None, **other: Any) -> dict[str, Any]:
    """A CSV row for a flight scheduled at a UTC time."""
    moment = utc(scheduled)
    departed = None if dep_delay is None else (moment + timedelta(minutes=dep_delay)).astimezone(NEW_YORK)
    row = {
        "dep_time": None if departed is None else departed.hour * 100 + departed.minute,
        "dep_delay": dep_delay,
        "arr_time": arr_time,
        "arr_delay": None if arr_time is None else 0,
        "carrier": "UA",
        "flight": 1,
        "tailnum": "N1",
        "origin": "EWR",
        "dest": "ORD",
        "air_time": None if arr_time is None else 60,
        "distance": 719,
        "minute": moment.minute,
        "time_hour": moment.replace(minute=0).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return row | other


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([["NA" if row.get(name) is None else row[name] for name in columns] for row in rows])
    return path


def build(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    *,
    weather: Sequence[Mapping[str, Any]] = (),
    planes: Sequence[Mapping[str, Any]] = (),
) -> Built:
    folder.mkdir(exist_ok=True)
    zones = [{"faa": name, "tzone": zone} for name, zone in AIRPORTS.items()]
    sources = {
        "flights": write_csv(folder / "flights.csv", list(flights.CSV_COLUMNS), rows),
        "airports": write_csv(folder / "airports.csv", list(flights.AIRPORT_COLUMNS), zones),
        "weather": write_csv(folder / "weather.csv", list(origins.CSV_COLUMNS), weather),
        "planes": write_csv(folder / "planes.csv", list(aircraft.CSV_COLUMNS), planes),
    }
    return Built(folder / "data", build_tables(sources, folder / "data", lambda _: None))


@pytest.mark.parametrize(
    ("scheduled", "dep_delay", "arr_time", "dest", "landing"),
    [
        ("2013-01-05T12:00", 0, 830, "ORD", "2013-01-05T14:30"),
        ("2013-07-05T12:00", 10, 930, "ORD", "2013-07-05T14:30"),
        ("2013-01-06T02:00", 0, 30, "LAX", "2013-01-06T08:30"),
        ("2013-01-06T03:00", 30, 2400, "ORD", "2013-01-06T06:00"),
        ("2013-01-05T12:00", 1200, 730, "BOS", "2013-01-06T12:30"),
        ("2013-01-05T12:00", 0, 1230, "SJU", "2013-01-05T16:30"),
        # The clocks go forward in the air, at 07:00 UTC in New York and at 08:00 UTC in Chicago.
        ("2013-03-10T04:00", 0, 330, "BOS", "2013-03-10T07:30"),
        ("2013-03-10T06:30", 0, 330, "ORD", "2013-03-10T08:30"),
        # The clocks go back at 06:00 UTC: 01:20 comes twice, and the landing is the first one after departure.
        ("2013-11-03T04:00", 0, 120, "BOS", "2013-11-03T05:20"),
        ("2013-11-03T05:10", 30, 120, "BOS", "2013-11-03T06:20"),
    ],
)
def test_landing_is_the_first_moment_after_departure_at_which_the_destination_clock_shows_the_arrival_time(
    tmp_path: Path, scheduled: str, dep_delay: int, arr_time: int, dest: str, landing: str
) -> None:
    air_time = 20
    built = build(tmp_path, [flight(scheduled, dep_delay, arr_time, dest=dest, air_time=air_time)])
    assert built.report.landed == 1
    assert built.row("examples")["outcome_time"] == utc(landing)
    leg = built.row("aircraft_previous_leg")
    assert leg["event_time"] == utc(scheduled) + timedelta(minutes=dep_delay)
    assert leg["created_time"] == utc(landing)


def test_an_arrival_time_that_daylight_saving_skips_is_read_from_a_clock_not_put_forward_yet(tmp_path: Path) -> None:
    built = build(tmp_path, [flight("2013-03-10T04:00", 0, 203, dest="BOS")])
    assert built.report.landed_by_clock_behind == 1
    assert built.row("examples")["outcome_time"] == utc("2013-03-10T07:03")


def test_every_flight_is_counted_once_and_asked_once(tmp_path: Path) -> None:
    built = build(
        tmp_path,
        [
            flight("2013-01-05T12:00", 0, 830, flight=1, arr_delay=16),
            flight("2013-01-05T12:00", 0, 830, flight=2, arr_delay=15),
            flight("2013-01-05T12:00", None, None, flight=3, tailnum=None),
            flight("2013-01-05T12:00", 0, None, flight=4, tailnum="N4"),
            flight("2013-01-05T12:00", 0, 2030, flight=5, arr_delay=None, air_time=None, tailnum="N5"),
            flight("2013-01-05T12:00", 0, 830, flight=6, air_time=151, tailnum="N6"),
            flight("2013-01-05T12:00", 0, 1299, flight=7, tailnum="N7"),
            flight("2013-01-05T12:00", 0, 830, flight=8, dest="???", tailnum="N8"),
        ],
    )
    report = built.report
    assert (report.landed, report.cancelled, report.diverted, report.contradicting) == (2, 1, 2, 3)
    assert report.flights == report.landed + report.cancelled + report.diverted + report.contradicting
    assert report.diverted_without_arrival_time == 1
    labels = [(row["flight"], row["label"], row["outcome_time"] is None) for row in built.rows("examples")]
    unlabelled = [(number, None, True) for number in range(3, 9)]
    assert labels == [(1, True, False), (2, False, False), *unlabelled]


def test_a_leg_without_a_trusted_landing_is_known_a_day_after_its_departure(tmp_path: Path) -> None:
    built = build(tmp_path, [flight("2013-01-05T12:00", 5, None), flight("2013-01-07T12:00", 0, 830, air_time=151)])
    legs = built.rows("aircraft_previous_leg")
    assert [leg["created_time"] for leg in legs] == [utc("2013-01-06T12:05"), utc("2013-01-08T12:00")]
    assert [leg["prev_arr_delay"] for leg in legs] == [None, None]
    assert [leg["prev_dep_delay"] for leg in legs] == [5.0, 0.0]


def test_a_cancelled_flight_waits_for_three_hours_because_nobody_knows_that_it_never_departs(tmp_path: Path) -> None:
    built = build(
        tmp_path,
        [
            flight("2013-01-05T12:00", None, None),
            flight("2013-01-05T12:20", 25, 830),
            flight("2013-01-05T16:00", 0, 1200),
        ],
    )
    waiting = {row["event_time"].strftime("%H:%M"): row["waiting_3h"] for row in built.rows("origin_departures")}
    assert waiting["12:00"] == 1
    assert waiting["12:30"] == 2
    assert waiting["12:45"] == 1
    assert waiting["14:45"] == 1
    assert waiting["15:00"] == 0


def test_windows_are_open_at_their_start_and_closed_at_their_end(tmp_path: Path) -> None:
    built = build(
        tmp_path,
        [
            flight("2013-01-05T12:00", 0, 830, flight=1),
            flight("2013-01-05T12:00", 15, 830, flight=2),
            flight("2013-01-05T13:15", 0, 930, flight=3),
        ],
    )
    ticks = {row["event_time"].strftime("%H:%M"): row for row in built.rows("origin_departures")}
    assert (ticks["12:15"]["dep_count_1h"], ticks["13:00"]["dep_count_1h"], ticks["13:15"]["dep_count_1h"]) == (2, 1, 1)
    assert ticks["12:15"]["dep_delay_mean_1h"] == 7.5
    assert ticks["12:15"]["dep_delay_max_1h"] == 15.0
    assert ticks["12:15"]["dep_delayed_share_3h"] == 0.0
    assert (ticks["12:15"]["scheduled_next_1h"], ticks["13:15"]["scheduled_next_1h"]) == (1, 0)


def test_landings_of_one_minute_on_a_route_become_one_row(tmp_path: Path) -> None:
    built = build(
        tmp_path,
        [
            flight("2013-01-05T12:00", 0, 830, flight=1, arr_delay=10),
            flight("2013-01-05T12:10", 0, 830, flight=2, arr_delay=30),
            flight("2013-01-05T12:20", 0, 900, flight=3, arr_delay=2),
        ],
    )
    rows = built.rows("route_recent")
    assert [(row["last_arr_delay"], row["arr_delay_mean_last_5"]) for row in rows] == [(30.0, 20.0), (2.0, 14.0)]
    assert built.report.landings_merged == 1


def test_legs_of_an_aircraft_that_depart_together_become_one_row_and_are_counted(tmp_path: Path) -> None:
    built = build(tmp_path, [flight("2013-01-05T12:00", 0, 830), flight("2013-01-05T12:00", 0, 900, flight=2)])
    assert built.row("aircraft_previous_leg")["created_time"] == utc("2013-01-05T15:00")
    assert built.report.legs_departing_together == 1


def test_weather_is_known_when_its_hour_is_over_and_gaps_are_counted(tmp_path: Path) -> None:
    weather = [
        {"origin": "EWR", "time_hour": f"2013-01-05T{hour}:00:00Z", "temp": 39.02, "wind_speed": speed, "precip": 0}
        for hour, speed in (("12", 5), ("15", 1048.36))
    ]
    built = build(tmp_path, [flight("2013-01-05T12:00", 0, 830)], weather=weather)
    first = built.rows("origin_weather")[0]
    assert first["created_time"] - first["event_time"] == timedelta(hours=1)
    assert first["wind_gust"] is None
    assert built.report.weather_hours_missing == 2
    assert built.report.weather_values_missing == 2 * 6
    assert built.report.wind_speeds_implausible == 1


def test_an_aircraft_without_a_record_is_absent_and_counted(tmp_path: Path) -> None:
    planes = [
        {"tailnum": "N2", "year": None, "engines": 2, "seats": 55, "engine": "Turbo-fan", "manufacturer": "EMBRAER"}
    ]
    built = build(tmp_path, [flight("2013-01-05T12:00", 0, 830)], planes=planes)
    assert built.report.without_plane_record == built.report.aircraft_without_plane_record == 1
    record = built.row("aircraft")
    assert (record["tailnum"], record["manufacture_year"], record["seats"]) == ("N2", None, 55)


def test_the_same_source_gives_the_same_bytes_and_leaves_nothing_unfinished(tmp_path: Path) -> None:
    rows = [flight(f"2013-01-{day:02}T12:00", day, 830 + day, flight=day) for day in range(1, 29)]
    first, second = build(tmp_path / "a", rows), build(tmp_path / "b", rows)
    names = sorted(path.name for path in first.folder.iterdir())
    assert names == sorted(f"{name}.parquet" for name in first.report.rows)
    assert all((first.folder / name).read_bytes() == (second.folder / name).read_bytes() for name in names)
    assert str(first.report).startswith("flights: 28\n")
