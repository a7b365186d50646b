"""Tables of the entity origin: its weather, and how its departures are going."""

from feature_repo.tables.windows import (
    HOUR_MIN,
    Table,
    count,
    largest,
    last_minutes,
    mean,
    next_minutes,
    share_late,
    slot,
    tally,
    ticks,
    timestamp,
)

CSV_COLUMNS = {
    "origin": "VARCHAR",
    "year": "BIGINT",
    "month": "BIGINT",
    "day": "BIGINT",
    "hour": "BIGINT",
    "temp": "DOUBLE",
    "dewp": "DOUBLE",
    "humid": "DOUBLE",
    "wind_dir": "DOUBLE",
    "wind_speed": "DOUBLE",
    "wind_gust": "DOUBLE",
    "precip": "DOUBLE",
    "pressure": "DOUBLE",
    "visib": "DOUBLE",
    "time_hour": "TIMESTAMPTZ",
}
_MEASUREMENTS = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]

# An observation is taken some time during its hour, nobody says when: it counts as known when the hour is over.
ORIGIN_WEATHER = Table(
    "origin_weather",
    f"""
    SELECT origin, {", ".join(f"{name}::FLOAT AS {name}" for name in _MEASUREMENTS)},
        time_hour AS event_time, time_hour + to_hours(1) AS created_time
    FROM weather
    """,
    "event_time, origin",
)
WEATHER_COUNTS = f"""
SELECT count(*) AS weather_rows,
    (SELECT coalesce(sum(hours), 0) FROM (
        SELECT date_diff('hour', min(time_hour), max(time_hour)) + 1 - count(DISTINCT time_hour) AS hours
        FROM weather GROUP BY origin))::BIGINT AS weather_hours_missing,
    coalesce(sum({" + ".join(f"({name} IS NULL)::BIGINT" for name in _MEASUREMENTS)}), 0)::BIGINT
        AS weather_values_missing,
    count(*) FILTER (wind_speed > 100) AS wind_speeds_implausible
FROM weather
"""

_TICK_MIN = 15
_WAITS = "departed IS NULL OR departed > scheduled"


def _slot(moment: str) -> str:
    return slot(moment, every_minutes=_TICK_MIN)


# A departure, and with it its delay, is known the moment it happens; the schedule is known long before.
# A flight waits from its scheduled departure until it departs, for at most the 3 hours of the window: +1 when it
# starts to wait, -1 when it stops, and the running sum is how many wait now. Cancelled ones never depart, and at
# the tick nobody knows which those are.
ORIGIN_DEPARTURES = Table(
    "origin_departures",
    f"""
    WITH line AS (
        {ticks("origin", first="min(scheduled)", every_minutes=_TICK_MIN)}
        UNION ALL BY NAME
        SELECT origin, {_slot("departed")} AS moment, {tally("dep_delay", "delay")}
        FROM flight WHERE departed IS NOT NULL GROUP BY ALL
        UNION ALL BY NAME
        SELECT origin, {_slot("scheduled")} AS moment, count(*) AS scheduled_count,
            count(*) FILTER ({_WAITS}) AS waiting_change
        FROM flight GROUP BY ALL
        UNION ALL BY NAME
        SELECT origin, {_slot(f"least(departed, scheduled + {3 * HOUR_MIN})")} AS moment,
            -count(*) AS waiting_change
        FROM flight WHERE {_WAITS} GROUP BY ALL
    )
    SELECT origin,
        {count("delay", "hour_1")} AS dep_count_1h,
        {mean("delay", "hour_1")} AS dep_delay_mean_1h,
        {largest("delay", "hour_1")} AS dep_delay_max_1h,
        {mean("delay", "hours_3")} AS dep_delay_mean_3h,
        {share_late("delay", "hours_3")} AS dep_delayed_share_3h,
        coalesce(sum(waiting_change) OVER so_far, 0)::BIGINT AS waiting_3h,
        {count("scheduled", "next_hour")} AS scheduled_next_1h,
        {timestamp("moment")} AS event_time, event_time AS created_time
    FROM line
    WINDOW hour_1 AS (PARTITION BY origin ORDER BY moment {last_minutes(HOUR_MIN)}),
        hours_3 AS (PARTITION BY origin ORDER BY moment {last_minutes(3 * HOUR_MIN)}),
        so_far AS (PARTITION BY origin ORDER BY moment RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW),
        next_hour AS (PARTITION BY origin ORDER BY moment {next_minutes(HOUR_MIN)})
    QUALIFY tick
    """,
    "event_time, origin",
)
