"""The table of examples: one question per flight, asked at its scheduled departure."""

from feature_repo.tables.windows import LATE_MIN, Table, timestamp

# A cancelled, diverted or contradicting flight has no label, and so nothing that could become known.
EXAMPLES = Table(
    "examples",
    f"""
    SELECT origin, carrier, route, tailnum, flight,
        {timestamp("scheduled")} AS scheduled_departure,
        scheduled_departure AS as_of,
        arr_delay > {LATE_MIN} AS label,
        CASE WHEN outcome = 'landed' THEN {timestamp("landed")} END AS outcome_time
    FROM flight
    """,
    "as_of, flight, carrier, origin, route",
)
