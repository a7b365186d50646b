"""What "the last N hours" means in every table, and the expressions over such windows.

A window of N hours at `t` is `t - N h < moment <= t`: half open, so that neighbouring windows share nothing.
All times of the source are whole minutes, therefore the tables count in minutes since 1970 until they are
written, and a window is a frame of N * 60 - 1 preceding minutes.
"""

from dataclasses import dataclass

HOUR_MIN = 60
DAY_MIN = 24 * HOUR_MIN
LATE_MIN = 15
"""A flight is late, and a departure delayed, when it is more than this many minutes behind its schedule."""


@dataclass(frozen=True, slots=True)
class Table:
    """One Parquet file: `<name>.parquet` holds the rows of `sql`, in the order of `order_by`."""

    name: str
    sql: str
    order_by: str


def last_minutes(minutes: int) -> str:
    """SQL frame of the window `(t - minutes, t]` over an order by whole minutes.

    >>> last_minutes(60)
    'RANGE BETWEEN 59 PRECEDING AND CURRENT ROW'
    """
    return f"RANGE BETWEEN {minutes - 1} PRECEDING AND CURRENT ROW"


def next_minutes(minutes: int) -> str:
    """SQL frame of the window `(t, t + minutes]` over an order by whole minutes."""
    return f"RANGE BETWEEN 1 FOLLOWING AND {minutes} FOLLOWING"


def timestamp(minute: str) -> str:
    """SQL that turns minutes since 1970 into a timestamp with time zone."""
    return f"make_timestamptz({minute} * 60000000)"


def slot(moment: str, *, every_minutes: int, offset_minutes: int = 0) -> str:
    """SQL for the first tick not before a moment; ticks stand every so many minutes since 1970 plus an offset.

    A window that is a multiple of the ticks' distance holds a moment exactly when it holds the moment's slot, so
    events are added up per slot first and windows run over far fewer rows.
    """
    return (
        f"(({moment} - {offset_minutes} + {every_minutes - 1}) // {every_minutes} * {every_minutes} + {offset_minutes})"
    )


def tally(value: str, name: str) -> str:
    """SQL aggregates over an integer column, read by `count`, `mean`, `deviation`, `share_late` and `largest`.

    Sums of integers are exact: no result depends on the order in which rows are added.
    """
    return f"""count({value}) AS {name}_count, sum({value}) AS {name}_sum, sum({value} * {value}) AS {name}_squares,
        max({value}) AS {name}_max, count(*) FILTER ({value} > {LATE_MIN}) AS {name}_late"""


def count(name: str, window: str) -> str:
    """SQL for how many values a window holds, int64, 0 where it is empty."""
    return f"coalesce(sum({name}_count) OVER {window}, 0)::BIGINT"


def mean(name: str, window: str) -> str:
    """SQL for the mean of a tally over a window, float32; null where the window is empty."""
    return f"(sum({name}_sum) OVER {window} / nullif(sum({name}_count) OVER {window}, 0))::FLOAT"


def share_late(name: str, window: str) -> str:
    """SQL for the share of values above LATE_MIN in a window, float32; null where the window is empty."""
    return f"(sum({name}_late) OVER {window} / nullif(sum({name}_count) OVER {window}, 0))::FLOAT"


def largest(name: str, window: str) -> str:
    """SQL for the largest value of a tally in a window, float32; null where the window is empty."""
    return f"(max({name}_max) OVER {window})::FLOAT"


def deviation(name: str, window: str) -> str:
    """SQL for the sample standard deviation of a tally, float32; null for fewer than two values."""
    number = f"(sum({name}_count) OVER {window})"
    total = f"(sum({name}_sum) OVER {window})"
    squares = f"(sum({name}_squares) OVER {window})"
    variance = f"({number} * {squares} - {total} * {total}) / ({number} * ({number} - 1))"
    return f"(CASE WHEN {number} > 1 THEN sqrt({variance}) END)::FLOAT"


def ticks(key: str, *, first: str, every_minutes: int, offset_minutes: int = 0) -> str:
    """SQL for rows (key, moment, tick): regular moments per entity, as far as questions are asked.

    `first` is an aggregate over the flights of one entity: its ticks start at that moment's slot. They end with
    the last scheduled departure of any flight.
    """
    start = slot(f"({first})", every_minutes=every_minutes, offset_minutes=offset_minutes)
    return f"""
        SELECT {key}, unnest(generate_series(
            {start}, (SELECT max(scheduled) FROM flight), {every_minutes})) AS moment, true AS tick
        FROM flight GROUP BY {key} HAVING ({first}) IS NOT NULL"""
