"""Tables of the entity route (such as `EWR-ORD`): its last landings and its last thirty days."""

from feature_repo.tables.carriers import FIRST_LANDING, HISTORY_AT_MIN, history_slot
from feature_repo.tables.windows import (
    DAY_MIN,
    Table,
    count,
    deviation,
    last_minutes,
    mean,
    share_late,
    tally,
    ticks,
    timestamp,
)

# Two routes have two distances one mile apart; the larger is taken of those flown so far.
ROUTE_HISTORY = Table(
    "route_history",
    f"""
    WITH line AS (
        {ticks("route", first=FIRST_LANDING, every_minutes=DAY_MIN, offset_minutes=HISTORY_AT_MIN)}
        UNION ALL BY NAME
        SELECT route, {history_slot("landed")} AS moment, {tally("arr_delay", "arrival")},
            {tally("air_time", "air")}, max(distance) AS miles
        FROM flight WHERE outcome = 'landed' GROUP BY ALL
    )
    SELECT route,
        {count("arrival", "days_30")} AS flights_30d,
        {mean("arrival", "days_30")} AS arr_delay_mean_30d,
        {deviation("arrival", "days_30")} AS arr_delay_std_30d,
        {share_late("arrival", "days_30")} AS late_share_30d,
        {mean("air", "days_30")} AS air_time_mean_30d,
        (max(miles) OVER so_far)::FLOAT AS distance,
        {timestamp("moment")} AS event_time, event_time AS created_time
    FROM line
    WINDOW days_30 AS (PARTITION BY route ORDER BY moment {last_minutes(30 * DAY_MIN)}),
        so_far AS (PARTITION BY route ORDER BY moment RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
    QUALIFY tick
    """,
    "event_time, route",
)

# Landings of one minute are ordered by departure, carrier and flight number; the last of them stands for the
# minute, because an entity has one row per event time.
ROUTE_RECENT = Table(
    "route_recent",
    f"""
    SELECT route,
        arr_delay::FLOAT AS last_arr_delay,
        dep_delay::FLOAT AS last_dep_delay,
        (avg(arr_delay) OVER last_5)::FLOAT AS arr_delay_mean_last_5,
        {timestamp("landed")} AS event_time, event_time AS created_time
    FROM flight
    WHERE outcome = 'landed'
    WINDOW last_5 AS (PARTITION BY route ORDER BY landed, departed, carrier, flight
        ROWS BETWEEN 4 PRECEDING AND CURRENT ROW)
    QUALIFY row_number() OVER (PARTITION BY route, landed
        ORDER BY departed DESC, carrier DESC, flight DESC) = 1
    """,
    "event_time, route",
)
MERGED_COUNTS = """
SELECT count(*) - count(DISTINCT (route, landed)) AS landings_merged FROM flight WHERE outcome = 'landed'
"""
