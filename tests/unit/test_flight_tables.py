"""The example's tables over the whole year, against a naive twin that sees each flight one minute at a time."""

import csv
import io
import random
import statistics
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pytest

from feature_repo import features
from feature_repo.sources import TABLES, SourcesReport, build_sources, package_folder
from skewless.dtypes import TABLE, from_feast

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SEED = 20130501
SAMPLE = 6
KEYS = {
    "origin_weather": "origin",
    "origin_departures": "origin",
    "carrier_recent": "carrier",
    "carrier_history": "carrier",
    "route_history": "route",
    "route_recent": "route",
    "aircraft_previous_leg": "tailnum",
    "aircraft": "tailnum",
}


class Flight:
    """One CSV row; its moments are found by looking at clocks, not by arithmetic over offsets."""

    def __init__(self, row: dict[str, str], zone: ZoneInfo) -> None:
        self.row, self.zone = row, zone

    @cached_property
    def scheduled(self) -> datetime:
        return datetime.fromisoformat(self.row["time_hour"]) + timedelta(minutes=int(self.row["minute"]))

    @cached_property
    def route(self) -> str:
        return f"{self.row['origin']}-{self.row['dest']}"

    def number(self, name: str) -> int | None:
        return None if self.row[name] == "NA" else int(self.row[name])

    @cached_property
    def departed(self) -> datetime | None:
        delay = self.number("dep_delay")
        return None if delay is None else self.scheduled + timedelta(minutes=delay)

    @cached_property
    def landed(self) -> datetime | None:
        """The first minute from departure on at which the destination's clock shows the arrival time."""
        shown = self.number("arr_time")
        if self.departed is None or shown is None:
            return None
        clock = (shown // 100 % 24, shown % 100)
        for minutes in range(24 * 60):
            moment = self.departed + timedelta(minutes=minutes)
            local = moment.astimezone(self.zone)
            if (local.hour, local.minute) == clock:
                return moment
        return None

    @property
    def arrival(self) -> tuple[datetime, int] | None:
        """When it landed and its arrival delay, where it has one."""
        delay = self.number("arr_delay")
        return None if delay is None or self.landed is None else (self.landed, delay)


@dataclass(frozen=True)
class Year:
    folder: Path
    report: SourcesReport
    flights: list[Flight]

    @cached_property
    def flights_of_day(self) -> dict[date, list[Flight]]:
        """Flights by the UTC date of their schedule."""
        found: dict[date, list[Flight]] = {}
        for each in self.flights:
            found.setdefault(date.fromisoformat(each.row["time_hour"][:10]), []).append(each)
        return found

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Rows of SQL in which `{table}` stands for a table's file."""
        files = {each.name: f"read_parquet('{self.folder / each.name}.parquet')" for each in TABLES}
        with duckdb.connect(config={"threads": 1}) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            result = connection.execute(sql.format(**files))
            names = [column[0] for column in result.description]
            return [dict(zip(names, row, strict=True)) for row in result.fetchall()]

    def sample(self, table: str) -> Iterator[dict[str, Any]]:
        """A few rows, the same in every run."""
        chosen = random.Random(f"{SEED} {table}").sample(range(self.report.rows[table]), SAMPLE)
        source = f"read_parquet('{self.folder / table}.parquet', file_row_number = true)"
        rows = self.query(f"SELECT * FROM {source} WHERE file_row_number IN {tuple(chosen)}")
        assert len(rows) == SAMPLE
        yield from rows

    def near(self, column: str, value: str, until: datetime, span: timedelta) -> list[Flight]:
        """Flights of an entity whose moments can lie in the `span` before `until`."""
        days = [(until - span + DAY * offset).date() for offset in range(-2, span.days + 3)]
        flights = [each for day in days for each in self.flights_of_day.get(day, [])]
        return [each for each in flights if (each.route if column == "route" else each.row[column]) == value]


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Year:
    folder = tmp_path_factory.mktemp("flights")
    report = build_sources(folder, lambda _: None)
    with (package_folder() / "airports.csv").open(newline="") as file:
        zones = {row["faa"]: row["tzone"] for row in csv.DictReader(file)}
    zone_of = {name: ZoneInfo(zone) for name, zone in zones.items() if "/" in zone}
    puerto_rico = ZoneInfo("America/Puerto_Rico")
    with zipfile.ZipFile(package_folder() / "flights.csv.zip") as archive, archive.open("flights.csv") as raw:
        rows = csv.DictReader(io.TextIOWrapper(raw, newline=""))
        flights = [Flight(row, zone_of.get(row["dest"], puerto_rico)) for row in rows]
    return Year(folder, report, flights)


def within(moment: datetime | None, until: datetime, span: timedelta) -> bool:
    return moment is not None and until - span < moment <= until


def arrivals(flights: Iterable[Flight], until: datetime, span: timedelta) -> list[int]:
    found = [each.arrival for each in flights]
    return [arrival[1] for arrival in found if arrival is not None and within(arrival[0], until, span)]


def departures(flights: Iterable[Flight], until: datetime, span: timedelta) -> list[int]:
    delays = [each.number("dep_delay") for each in flights if within(each.departed, until, span)]
    return [delay for delay in delays if delay is not None]


def mean(values: list[int]) -> float | None:
    return statistics.fmean(values) if values else None


def share_late(values: list[int]) -> float | None:
    return sum(value > 15 for value in values) / len(values) if values else None


def deviation(values: list[int]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def assert_row(row: dict[str, Any], **expected: float | None) -> None:
    for name, value in expected.items():
        assert row[name] == (None if value is None else pytest.approx(value, rel=1e-6, abs=1e-6)), (name, row)


def test_every_flight_of_the_source_is_one_example_and_is_accounted_for(year: Year) -> None:
    report = year.report
    assert report.flights == report.rows["examples"] == len(year.flights) == 336_776
    assert report.landed + report.cancelled + report.diverted + report.contradicting == report.flights
    counted = Counter("cancelled" if each.number("dep_delay") is None else "flown" for each in year.flights)
    assert counted["cancelled"] == report.cancelled == 8_255
    assert (report.landed, report.diverted, report.contradicting) == (327_346, 1_175, 0)
    assert report.without_tailnum == 2_512
    assert report.rows["aircraft_previous_leg"] + report.legs_departing_together == counted["flown"]
    assert report.rows["route_recent"] + report.landings_merged == report.landed


def test_no_entity_has_two_rows_with_one_event_time_and_none_is_known_before_it_happens(year: Year) -> None:
    for table, key in KEYS.items():
        (found,) = year.query(
            f"SELECT count(*) - count(DISTINCT ({key}, event_time)) AS repeated,"
            f" count(*) FILTER ({key} IS NULL) AS keyless, "
            f" count(*) FILTER (created_time < event_time) AS early FROM {{{table}}}"
        )
        assert found == {"repeated": 0, "keyless": 0, "early": 0}, table


def test_examples_are_in_order_and_have_a_label_exactly_where_an_outcome_arrives(year: Year) -> None:
    rows = year.query("SELECT *, count(*) OVER () AS n FROM {examples} LIMIT 5000")
    assert [(row["as_of"], row["flight"]) for row in rows] == sorted((row["as_of"], row["flight"]) for row in rows)
    (found,) = year.query(
        "SELECT count(label) AS labels, count(*) FILTER ((label IS NULL) != (outcome_time IS NULL)) AS halves,"
        " count(*) FILTER (outcome_time <= as_of) AS early, count(*) FILTER (as_of != scheduled_departure) AS moved,"
        " count(*) FILTER (tailnum IS NULL) AS without_tailnum FROM {examples}"
    )
    assert found == {"labels": 327_346, "halves": 0, "early": 0, "moved": 0, "without_tailnum": 2_512}


def test_landings_agree_with_a_walk_over_the_destination_clock_also_when_clocks_change(year: Year) -> None:
    chosen = random.Random(SEED).sample(year.flights, 200)
    changes = [date(2013, 3, 9), date(2013, 3, 10), date(2013, 11, 2), date(2013, 11, 3)]
    days = [each for day in changes for each in year.flights_of_day[day]]
    chosen += random.Random(SEED).sample(days, 300)
    outcomes = {
        (row["carrier"], row["flight"], row["route"], row["as_of"]): row["outcome_time"]
        for row in year.query("SELECT carrier, flight, route, as_of, outcome_time FROM {examples}")
    }
    for each in chosen:
        expected = None if each.arrival is None else each.arrival[0]
        key = (each.row["carrier"], int(each.row["flight"]), each.route, each.scheduled)
        assert outcomes[key] == expected, each.row


def test_origin_departures_use_only_what_was_known_at_their_tick(year: Year) -> None:
    for row in year.sample("origin_departures"):
        at = row["created_time"]
        flights = year.near("origin", row["origin"], at, 3 * HOUR)
        last, last_3 = departures(flights, at, HOUR), departures(flights, at, 3 * HOUR)
        waiting = [
            each
            for each in flights
            if within(each.scheduled, at, 3 * HOUR) and not (each.departed and each.departed <= at)
        ]
        assert_row(
            row,
            dep_count_1h=len(last),
            dep_delay_mean_1h=mean(last),
            dep_delay_max_1h=max(last, default=None),
            dep_delay_mean_3h=mean(last_3),
            dep_delayed_share_3h=share_late(last_3),
            waiting_3h=len(waiting),
            scheduled_next_1h=sum(at < each.scheduled <= at + HOUR for each in flights),
        )


def test_carrier_recent_uses_only_what_had_landed_or_departed(year: Year) -> None:
    for row in year.sample("carrier_recent"):
        at = row["created_time"]
        flights = year.near("carrier", row["carrier"], at, DAY)
        landed = arrivals(flights, at, 6 * HOUR)
        assert_row(
            row,
            arrivals_6h=len(landed),
            arr_delay_mean_6h=mean(landed),
            late_share_6h=share_late(landed),
            arr_delay_mean_24h=mean(arrivals(flights, at, DAY)),
            dep_delay_mean_3h=mean(departures(flights, at, 3 * HOUR)),
        )


@pytest.mark.parametrize(("table", "key"), [("carrier_history", "carrier"), ("route_history", "route")])
def test_histories_use_only_the_thirty_days_before_nine_o_clock(year: Year, table: str, key: str) -> None:
    for row in year.sample(table):
        at = row["created_time"]
        assert at == row["event_time"]
        assert (at.hour, at.minute) == (9, 0)
        flights = year.near(key, row[key], at, 30 * DAY)
        landed = arrivals(flights, at, 30 * DAY)
        assert_row(
            row,
            flights_30d=len(landed),
            arr_delay_mean_30d=mean(landed),
            arr_delay_std_30d=deviation(landed),
            late_share_30d=share_late(landed),
        )
        if key == "route":
            flown = [each for each in flights if each.arrival and within(each.arrival[0], at, 30 * DAY)]
            assert_row(row, air_time_mean_30d=mean([int(each.row["air_time"]) for each in flown]))


def test_route_recent_describes_the_landings_up_to_its_own(year: Year) -> None:
    for row in year.sample("route_recent"):
        at = row["created_time"]
        flights = [each for each in year.near("route", row["route"], at, 60 * DAY) if each.arrival]
        known = sorted(
            (
                (each.arrival[0], each.departed, each.row["carrier"], int(each.row["flight"]), each)
                for each in flights
                if each.arrival and each.arrival[0] <= at
            ),
            key=lambda item: item[:4],
        )
        last = [item[-1] for item in known[-5:]]
        assert last[-1].landed == at == row["event_time"]
        delays = [int(each.row["arr_delay"]) for each in last]
        assert_row(row, last_arr_delay=delays[-1], last_dep_delay=last[-1].number("dep_delay"))
        assert_row(row, arr_delay_mean_last_5=mean(delays))


def test_a_leg_happens_at_its_departure_and_is_known_at_its_landing(year: Year) -> None:
    for row in year.sample("aircraft_previous_leg"):
        flights = year.near("tailnum", row["tailnum"], row["created_time"], 7 * DAY)
        (leg,) = [each for each in flights if each.departed == row["event_time"]]
        known = {id(each): each.landed or (each.departed + DAY if each.departed else None) for each in flights}
        assert row["created_time"] == known[id(leg)]
        assert_row(
            row,
            prev_arr_delay=leg.number("arr_delay"),
            prev_dep_delay=leg.number("dep_delay"),
            prev_air_time=leg.number("air_time"),
            prev_distance=leg.number("distance"),
            legs_7d=sum(within(moment, row["created_time"], 7 * DAY) for moment in known.values()),
        )


def test_every_file_has_exactly_its_columns_with_their_declared_types(year: Year) -> None:
    for table, key in KEYS.items():
        columns = {row["column_name"]: row["column_type"] for row in year.query(f"DESCRIBE SELECT * FROM {{{table}}}")}
        time = "TIMESTAMP WITH TIME ZONE"
        assert {columns.pop("event_time"), columns.pop("created_time")} == {time}
        assert columns.pop(key) == "VARCHAR"
        view = vars(features)[table]
        assert columns == {
            field.name: TABLE[from_feast(str(field.dtype), where=table)].duckdb for field in view.features
        }


def test_the_questions_span_the_year(year: Year) -> None:
    (span,) = year.query("SELECT min(as_of) AS first, max(as_of) AS last FROM {examples}")
    assert span["first"] == datetime(2013, 1, 1, 10, 15, tzinfo=UTC)
    assert span["last"] == max(each.scheduled for each in year.flights_of_day[max(year.flights_of_day)])
