"""Measures label maturity over a prediction log; `serving/label_maturity.py` says what it means."""

from skewless.adapters.log_reader import LogReader
from skewless.adapters.log_session import LogSession
from skewless.adapters.log_sources import ALL_DAYS, Wanted
from skewless.adapters.log_tables import OUTCOMES, PREDICTIONS, day_of
from skewless.adapters.log_views import made_us, records_sql, since_sql
from skewless.serving.label_maturity import AGES_US, MATURE_QUANTILE, QUANTILES, AgeShare, DayOutcomes, LabelMaturity
from skewless.serving.outcome_terms import OutcomeTerms
from skewless.timestamps import DAY_US


def label_maturity(
    log: LogReader,
    endpoint: str,
    *,
    now: int,
    terms: OutcomeTerms,
    start: int | None = None,
    end: int | None = None,
) -> LabelMaturity:
    """Of an endpoint's predictions with `start` <= as_of < `end` (µs) that answered a caller, as it is `now`.

    Predictions whose id is no UUIDv7 have no age and are left out.
    """

    return log.ask(
        Wanted({PREDICTIONS: ALL_DAYS, OUTCOMES: ALL_DAYS}, endpoint),
        lambda session: maturity_of(session, endpoint, now=now, terms=terms, start=start, end=end),
    )


def maturity_of(
    session: LogSession,
    endpoint: str,
    *,
    now: int,
    terms: OutcomeTerms,
    start: int | None = None,
    end: int | None = None,
) -> LabelMaturity:
    """As `label_maturity`, by a session over all predictions of the endpoint and all outcomes."""
    session.outcome_views({endpoint: terms})
    own = records_sql(
        session.scans(PREDICTIONS),
        PREDICTIONS,
        where=since_sql("as_of", start, end),
        only=("prediction_id", "role"),
    )
    session.table(
        "paired",
        f"SELECT made, told - made AS delay FROM (SELECT prediction_id, {made_us('prediction_id')} AS made "
        f"FROM ({own}) WHERE role <> 'shadow') AS answered LEFT JOIN (SELECT prediction_id, "
        "min(epoch_us(received_time)) AS told FROM outcomes_told GROUP BY prediction_id) AS first "
        "ON answered.prediction_id = first.prediction_id WHERE made IS NOT NULL",
    )
    return LabelMaturity(
        endpoint, now, terms.label_horizon_us, _ages(session, now), _delays(session, now), _days(session)
    )


def _ages(session: LogSession, now: int) -> tuple[AgeShare, ...]:
    """Of every age that any prediction has."""
    counts = ", ".join(
        f"count(*) FILTER (made <= {now - age}), count(*) FILTER (made <= {now - age} AND delay <= {age})"
        for age in AGES_US
    )
    row = [column[0].as_py() for column in session.arrow(f"SELECT {counts} FROM paired").columns]
    found = [AgeShare(age, row[2 * place], row[2 * place + 1]) for place, age in enumerate(AGES_US)]
    return tuple(each for each in found if each.predictions)


def _delays(session: LogSession, now: int) -> dict[float, float]:
    """By quantile, of predictions old enough that their outcomes have had time to come.

    Young ones only have the outcomes that came fast, and would make all look faster than it is.
    """
    slow = f"(SELECT quantile_cont(delay, {MATURE_QUANTILE}) FROM paired)"
    listed = ", ".join(f"{quantile}" for quantile in QUANTILES)
    sql = f"SELECT quantile_cont(delay, [{listed}]) FROM paired WHERE delay IS NOT NULL AND made <= {now} - {slow}"
    found = session.arrow(sql).column(0)[0].as_py()
    return {} if found is None else dict(zip(QUANTILES, found, strict=True))


def _days(session: LogSession) -> tuple[DayOutcomes, ...]:
    counted = session.arrow(
        f"SELECT made // {DAY_US} AS day, count(*) AS predictions, count(delay) AS told "
        "FROM paired GROUP BY day ORDER BY day"
    )
    return tuple(
        DayOutcomes(day_of(row["day"] * DAY_US), (row["day"] + 1) * DAY_US, row["predictions"], row["told"])
        for row in counted.to_pylist()
    )
