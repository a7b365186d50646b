"""Tables of the entity tailnum: the aircraft itself and the leg it flew last."""

from feature_repo.tables.windows import DAY_MIN, Table, last_minutes, timestamp

CSV_COLUMNS = {
    "tailnum": "VARCHAR",
    "year": "BIGINT",
    "type": "VARCHAR",
    "manufacturer": "VARCHAR",
    "model": "VARCHAR",
    "engines": "BIGINT",
    "seats": "BIGINT",
    "speed": "BIGINT",
    "engine": "VARCHAR",
}

# A leg happens at its departure and is known at its landing: here created_time is truly later than event_time.
# Legs of one aircraft that depart in the same minute contradict each other; the one known last stays.
AIRCRAFT_PREVIOUS_LEG = Table(
    "aircraft_previous_leg",
    f"""
    SELECT tailnum,
        arr_delay::FLOAT AS prev_arr_delay,
        dep_delay::FLOAT AS prev_dep_delay,
        air_time::FLOAT AS prev_air_time,
        distance::FLOAT AS prev_distance,
        count(*) OVER (PARTITION BY tailnum ORDER BY known {last_minutes(7 * DAY_MIN)}) AS legs_7d,
        {timestamp("departed")} AS event_time,
        {timestamp("known")} AS created_time
    FROM flight
    WHERE departed IS NOT NULL AND tailnum IS NOT NULL
    QUALIFY row_number() OVER (PARTITION BY tailnum, departed ORDER BY known DESC, carrier DESC, flight DESC) = 1
    """,
    "event_time, tailnum",
)
DUPLICATE_LEG_COUNTS = """
SELECT count(*) - count(DISTINCT (tailnum, departed)) AS legs_departing_together
FROM flight WHERE departed IS NOT NULL AND tailnum IS NOT NULL
"""

# The register of aircraft has no times: it counts as known from the first day of the data on.
AIRCRAFT = Table(
    "aircraft",
    """
    SELECT tailnum, year AS manufacture_year, seats, engines, engine AS engine_type, manufacturer,
        TIMESTAMPTZ '2013-01-01 00:00:00+00' AS event_time, event_time AS created_time
    FROM planes
    """,
    "tailnum",
)
