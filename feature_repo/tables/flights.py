"""The table `flight`: one row per flight of the source, with its moments in minutes since 1970 (UTC).

Columns: carrier, flight, tailnum, origin, dest, route, distance, scheduled, departed, landed, known, dep_delay,
arr_delay, air_time, clock_behind, outcome. `outcome` is one of

- `landed`: the arrival delay is known at `landed`, and `known` is that moment;
- `cancelled`: never departed; departed, landed and known are null;
- `diverted`: departed, but has no arrival delay. `landed` is set where the source has an arrival time;
- `contradicting`: departed, but its times cannot all be true. Its arrival counts as unknown.

`known` is when the end of a leg may be used: at its landing, and where there is none that can be trusted a whole
day after its departure, which is longer than any flight of the source takes.
"""

from feature_repo.tables.windows import DAY_MIN

CSV_COLUMNS = {
    "year": "BIGINT",
    "month": "BIGINT",
    "day": "BIGINT",
    "dep_time": "BIGINT",
    "sched_dep_time": "BIGINT",
    "dep_delay": "BIGINT",
    "arr_time": "BIGINT",
    "sched_arr_time": "BIGINT",
    "arr_delay": "BIGINT",
    "carrier": "VARCHAR",
    "flight": "BIGINT",
    "tailnum": "VARCHAR",
    "origin": "VARCHAR",
    "dest": "VARCHAR",
    "air_time": "BIGINT",
    "distance": "BIGINT",
    "hour": "BIGINT",
    "minute": "BIGINT",
    "time_hour": "TIMESTAMPTZ",
}
AIRPORT_COLUMNS = {
    "faa": "VARCHAR",
    "name": "VARCHAR",
    "lat": "DOUBLE",
    "lon": "DOUBLE",
    "alt": "DOUBLE",
    "tz": "DOUBLE",
    "dst": "VARCHAR",
    "tzone": "VARCHAR",
}
ORIGIN_TIME_ZONE = "America/New_York"
DESTINATIONS_MISSING = ("BQN", "PSE", "SJU", "STT")
"""Destinations that airports.csv lacks: Puerto Rico and the Virgin Islands, which share a clock."""
DESTINATIONS_MISSING_TIME_ZONE = "America/Puerto_Rico"


def _minute_of_day(clock: str) -> str:
    """SQL for the minute of the day that a clock reading such as 1730 means; 2400 is midnight."""
    return f"({clock} // 100 % 24 * 60 + {clock} % 100)"


def _is_clock(clock: str) -> str:
    """SQL for whether a number is a clock reading, 0000 to 2400."""
    return f"({clock} BETWEEN 0 AND 2400 AND {clock} % 100 < 60)"


def _local_minute(moment: str, zone: str) -> str:
    """SQL for the minute of the day that a clock in `zone` shows at `moment` (minutes since 1970)."""
    local = f"timezone({zone}, make_timestamptz(({moment}) * 60000000))"
    return f"(hour({local}) * 60 + minute({local}))"


def _first_moment(*, shows: str, after: str, zone: str) -> str:
    """SQL for the first minute not before `after` at which a clock in `zone` shows minute `shows` of the day.

    Within a day the zone's offset changes at most once, so the moment counted with the offset at `after` or the
    one counted with the offset a day later is right; the clock itself says which. A local time that daylight
    saving skips is neither: it was read from a clock not put forward yet, whose offset is the one at `after`.
    """
    candidates = [
        f"({after} + ({shows} - {_local_minute(moment, zone)} + {DAY_MIN}) % {DAY_MIN})"
        for moment in (after, f"{after} + {DAY_MIN}")
    ]
    checked = [f"CASE WHEN {_local_minute(each, zone)} = {shows} THEN {each} END" for each in candidates]
    return f"coalesce(least({', '.join(checked)}), {candidates[0]})"


ZONED = f"""
CREATE TEMP VIEW flight_zoned AS
SELECT flights.*, origin || '-' || dest AS route,
    CASE WHEN dest IN {DESTINATIONS_MISSING} THEN coalesce(tzone, '{DESTINATIONS_MISSING_TIME_ZONE}')
         ELSE tzone END AS zone,
    epoch_us(time_hour) // 60000000 + minute AS scheduled,
    scheduled + dep_delay AS departed
FROM flights LEFT JOIN airports ON faa = dest
"""
LANDED = f"""
CREATE TEMP VIEW flight_timed AS
SELECT *,
    {_first_moment(shows=_minute_of_day("arr_time"), after="departed", zone="zone")} AS landed_by_clock,
    departed IS NOT NULL AND (
        {_local_minute("departed", f"'{ORIGIN_TIME_ZONE}'")} IS DISTINCT FROM {_minute_of_day("dep_time")}
        OR (arr_delay IS NOT NULL AND landed_by_clock IS NULL)
        OR coalesce(NOT {_is_clock("arr_time")}, false)
        OR coalesce(landed_by_clock - departed < air_time, false)
    ) AS contradicts,
    {_local_minute("landed_by_clock", "zone")} != {_minute_of_day("arr_time")} AS clock_behind
FROM flight_zoned
"""
FLIGHT = f"""
CREATE TABLE flight AS
SELECT carrier, flight, tailnum, origin, dest, route, distance, scheduled, departed, dep_delay, air_time,
    coalesce(clock_behind, false) AS clock_behind,
    CASE WHEN departed IS NULL THEN 'cancelled' WHEN contradicts THEN 'contradicting'
         WHEN arr_delay IS NULL THEN 'diverted' ELSE 'landed' END AS outcome,
    CASE WHEN NOT contradicts THEN landed_by_clock END AS landed,
    CASE WHEN outcome = 'landed' THEN arr_delay END AS arr_delay,
    coalesce(landed, departed + {DAY_MIN}) AS known
FROM flight_timed
"""
STATEMENTS = (ZONED, LANDED, FLIGHT)
"""Build `flight` from the tables `flights` and `airports`, in this order."""

COUNTS = """
SELECT count(*) AS flights,
    count(*) FILTER (outcome = 'landed') AS landed,
    count(*) FILTER (outcome = 'cancelled') AS cancelled,
    count(*) FILTER (outcome = 'diverted') AS diverted,
    count(*) FILTER (outcome = 'diverted' AND landed IS NULL) AS diverted_without_arrival_time,
    count(*) FILTER (outcome = 'contradicting') AS contradicting,
    count(*) FILTER (outcome = 'landed' AND landed - departed - air_time > 180) AS long_on_the_ground,
    count(*) FILTER (clock_behind) AS landed_by_clock_behind,
    count(*) FILTER (tailnum IS NULL) AS without_tailnum,
    count(*) FILTER (tailnum NOT IN (SELECT tailnum FROM planes)) AS without_plane_record,
    count(DISTINCT tailnum) FILTER (tailnum NOT IN (SELECT tailnum FROM planes)) AS aircraft_without_plane_record
FROM flight
"""
