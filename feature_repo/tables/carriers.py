"""Tables of the entity carrier: its last hours and its last thirty days."""

from feature_repo.tables.windows import (
    DAY_MIN,
    HOUR_MIN,
    Table,
    count,
    deviation,
    last_minutes,
    mean,
    share_late,
    slot,
    tally,
    ticks,
    timestamp,
)

HISTORY_AT_MIN = 9 * HOUR_MIN
"""Daily histories are computed at 09:00 UTC, before New York's first departures of the day."""
FIRST_LANDING = "min(landed) FILTER (outcome = 'landed')"


def history_slot(moment: str) -> str:
    """SQL for the first daily history that includes a moment."""
    return slot(moment, every_minutes=DAY_MIN, offset_minutes=HISTORY_AT_MIN)


# An arrival counts from the moment of landing, a departure from the moment it happens.
CARRIER_RECENT = Table(
    "carrier_recent",
    f"""
    WITH line AS (
        {ticks("carrier", first="min(departed)", every_minutes=HOUR_MIN)}
        UNION ALL BY NAME
        SELECT carrier, {slot("landed", every_minutes=HOUR_MIN)} AS moment, {tally("arr_delay", "arrival")}
        FROM flight WHERE outcome = 'landed' GROUP BY ALL
        UNION ALL BY NAME
        SELECT carrier, {slot("departed", every_minutes=HOUR_MIN)} AS moment, {tally("dep_delay", "departure")}
        FROM flight WHERE departed IS NOT NULL GROUP BY ALL
    )
    SELECT carrier,
        {count("arrival", "hours_6")} AS arrivals_6h,
        {mean("arrival", "hours_6")} AS arr_delay_mean_6h,
        {share_late("arrival", "hours_6")} AS late_share_6h,
        {mean("arrival", "hours_24")} AS arr_delay_mean_24h,
        {mean("departure", "hours_3")} AS dep_delay_mean_3h,
        {timestamp("moment")} AS event_time, event_time AS created_time
    FROM line
    WINDOW hours_3 AS (PARTITION BY carrier ORDER BY moment {last_minutes(3 * HOUR_MIN)}),
        hours_6 AS (PARTITION BY carrier ORDER BY moment {last_minutes(6 * HOUR_MIN)}),
        hours_24 AS (PARTITION BY carrier ORDER BY moment {last_minutes(DAY_MIN)})
    QUALIFY tick
    """,
    "event_time, carrier",
)

CARRIER_HISTORY = Table(
    "carrier_history",
    f"""
    WITH line AS (
        {ticks("carrier", first=FIRST_LANDING, every_minutes=DAY_MIN, offset_minutes=HISTORY_AT_MIN)}
        UNION ALL BY NAME
        SELECT carrier, {history_slot("landed")} AS moment, {tally("arr_delay", "arrival")}
        FROM flight WHERE outcome = 'landed' GROUP BY ALL
    )
    SELECT carrier,
        {count("arrival", "days_30")} AS flights_30d,
        {mean("arrival", "days_30")} AS arr_delay_mean_30d,
        {deviation("arrival", "days_30")} AS arr_delay_std_30d,
        {share_late("arrival", "days_30")} AS late_share_30d,
        {timestamp("moment")} AS event_time, event_time AS created_time
    FROM line
    WINDOW days_30 AS (PARTITION BY carrier ORDER BY moment {last_minutes(30 * DAY_MIN)})
    QUALIFY tick
    """,
    "event_time, carrier",
)
