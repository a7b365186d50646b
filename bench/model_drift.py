"""`python -m bench.model_drift run` judges a model that was trained on winter through the year; `table` prints it.

Flights out of New York in 2013: will one arrive more than 15 minutes late? Two models of the same kind and number of
rows: one is trained on flights of January to April, one on flights of the whole year. Both score the same other half of
all flights. Predictions go into a prediction log and outcomes after them, live and shadow, and what is printed is what
the monitor computes from that log. The second model says how hard each month is for a model that has seen its like; so
what the first one loses beside it is drift.
"""

import json
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import duckdb
import lightgbm
import numpy as np
import uuid_utils
from numpy.typing import NDArray

from feature_repo.sources import package_folder
from skewless.adapters.log_reader import open_log
from skewless.adapters.model_metrics_log import LogOutcomes, look_at_outcomes
from skewless.adapters.spool import SPOOL, SpoolFile
from skewless.canonical_json import Digest, digest
from skewless.dtypes import Dtype, column_of
from skewless.features.frame import FeatureFrame
from skewless.model_metrics.compute import Subject, keep_up
from skewless.model_metrics.history import estimate_errors
from skewless.model_metrics.records import MetricRecord
from skewless.registry import database
from skewless.registry.model_metrics import ModelMetrics
from skewless.registry.repository import system_clock
from skewless.serving.log_blocks import blocks, encode
from skewless.serving.monitoring_policy import MetricsPolicy
from skewless.serving.outcome_terms import OutcomeTerms
from skewless.serving.records import AnsweredBatch, LogEntry, Outcome
from skewless.timestamps import DAY_US, Micros, format_timestamp, parse_timestamp
from skewless.training.definition import BinaryLabels

RESULTS = Path(__file__).parent / "model_drift.json"
ENDPOINT = "flight-delay"
WINTER, YEAR = digest("trained on winter"), digest("trained on the year")
PERIOD_DAYS = 30
WINTER_END = parse_timestamp("2013-05-01")
LABELS = BinaryLabels("on_time", "late", threshold=0.3)
_ROWS_EACH = 2_000
_FLIGHTS = """
    SELECT row_number() OVER () AS place, origin, carrier, dest, tailnum, distance, arr_delay,
        time_hour + to_minutes(minute) AS asked, hour, dayofweek(time_hour) AS weekday,
        time_hour + to_minutes(minute) + to_minutes(CAST(dep_delay AS INT)) AS departed, dep_delay,
        time_hour + to_minutes(minute) + to_minutes(CAST(dep_delay + air_time + 30 AS INT)) AS landed,
        time_hour
    FROM read_csv(?, nullstr = ['', 'NA'])
"""
_WEATHER = "FROM read_csv(?, nullstr = ['', 'NA'])"
# What was known when a flight was to depart: the weather of its hour, departures of the last three hours from its
# airport, and the last landing of its aircraft.
_FEATURES = """
    WITH departures AS (
        SELECT origin, departed, sum(dep_delay) OVER so_far AS total, count(*) OVER so_far AS flights
        FROM flights WHERE departed IS NOT NULL WINDOW so_far AS (PARTITION BY origin ORDER BY departed, place)
    ), landings AS (SELECT tailnum, landed, arr_delay FROM flights WHERE landed IS NOT NULL AND tailnum IS NOT NULL)
    SELECT asked.place, epoch_us(asked.asked) AS as_of, asked.arr_delay > 15 AS late, asked.origin, asked.tailnum,
        asked.hour, asked.weekday, asked.distance,
        dense_rank() OVER (ORDER BY asked.carrier) AS carrier, hash(asked.dest) % 128 AS dest,
        dense_rank() OVER (ORDER BY asked.origin) AS airport,
        weather.temp, weather.dewp, weather.humid, weather.wind_speed, weather.precip, weather.pressure, weather.visib,
        (until.total - since.total) / nullif(until.flights - since.flights, 0) AS delay_3h,
        until.flights - since.flights AS flights_3h, previous.arr_delay AS previous_delay
    FROM flights AS asked
    ASOF LEFT JOIN departures AS until ON asked.origin = until.origin AND until.departed < asked.asked
    ASOF LEFT JOIN departures AS since ON asked.origin = since.origin
        AND since.departed < asked.asked - INTERVAL 3 HOURS
    ASOF LEFT JOIN landings AS previous ON asked.tailnum = previous.tailnum AND previous.landed < asked.asked
    LEFT JOIN weather ON weather.origin = asked.origin AND weather.time_hour = asked.time_hour
    WHERE asked.arr_delay IS NOT NULL
    ORDER BY hash(asked.place) LIMIT ?
"""
_NOT_FEATURES = ("place", "as_of", "late", "origin", "tailnum")


@dataclass(frozen=True, slots=True, eq=False)
class Flights:
    """Flights that landed, each array (rows,), in order of the moment asked about; `features` is (rows, columns)."""

    as_of: NDArray[np.int64]
    late: NDArray[np.bool_]
    origin: list[str]
    tailnum: list[str | None]
    features: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.as_of)


def flights(rows_max: int) -> Flights:
    """So many flights of the year, chosen by a hash, or all where there are fewer."""
    data = package_folder()
    with tempfile.TemporaryDirectory() as scratch, duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        with zipfile.ZipFile(data / "flights.csv.zip") as archive:
            archive.extract("flights.csv", scratch)
        connection.sql(_FLIGHTS, params=[str(Path(scratch) / "flights.csv")]).create("flights")
        connection.sql(_WEATHER, params=[str(data / "weather.csv")]).create("weather")
        table = connection.sql(_FEATURES, params=[rows_max]).order("as_of, place").to_arrow_table()
    named = [name for name in table.column_names if name not in _NOT_FEATURES]
    features = [table.column(name).cast("double").to_numpy() for name in named]
    return Flights(
        as_of=table.column("as_of").to_numpy(),
        late=table.column("late").to_numpy(),
        origin=table.column("origin").to_pylist(),
        tailnum=table.column("tailnum").to_pylist(),
        features=np.stack(features, axis=1).astype(np.float32),
    )


def scored(
    found: Flights, *, rounds: int, seed: int = 7
) -> tuple[NDArray[np.bool_], dict[Digest, NDArray[np.float32]]]:
    """Which rows (rows,) are judged, and the scores (judged rows,) that each model gives them."""
    random = np.random.default_rng(seed)
    judged = random.random(len(found)) < 0.5
    winter = np.flatnonzero(~judged & (found.as_of < WINTER_END))
    year = np.sort(random.choice(np.flatnonzero(~judged), len(winter), replace=False))
    scores = {}
    for bundle, rows in ((WINTER, winter), (YEAR, year)):
        model = lightgbm.train(
            {"objective": "binary", "verbosity": -1, "seed": seed, "num_threads": 1, "deterministic": True,
             "learning_rate": 0.08, "min_data_in_leaf": 80},
            lightgbm.Dataset(found.features[rows], found.late[rows]),
            num_boost_round=rounds,
        )  # fmt: skip
        scores[bundle] = np.asarray(model.predict(found.features[judged]), dtype=np.float32)
    return judged, scores


def write_log(folder: Path, found: Flights, judged: NDArray[np.bool_], scores: Mapping[Digest, Any]) -> None:
    """Log what both models say of the judged rows, the winter's as live and the year's as its shadow, and outcomes."""
    places = np.flatnonzero(judged)
    (folder / SPOOL).mkdir(parents=True)
    received = int(system_clock())
    for first in range(0, len(places), _ROWS_EACH):
        rows = slice(first, first + _ROWS_EACH)
        chosen = places[rows]
        entries: list[LogEntry] = []
        for day in np.unique(found.as_of[chosen] // DAY_US):
            of_day = np.flatnonzero(found.as_of[chosen] // DAY_US == day)
            own = chosen[of_day]
            live = _batch(found, own, WINTER, scores[WINTER][rows][of_day], as_of=int(found.as_of[own[0]]))
            shadow = _batch(found, own, YEAR, scores[YEAR][rows][of_day], as_of=live.as_of, twins=live.prediction_ids)
            labels = np.where(found.late[own], LABELS.positive, LABELS.negative).tolist()
            told = tuple(
                Outcome(each, label, None, received, outcome_id=str(uuid_utils.uuid7()), caller="bench")
                for each, label in zip(live.prediction_ids, labels, strict=True)
            )
            entries += [live, shadow, told]
        spool = SpoolFile.create(folder / SPOOL)
        for block in blocks(entries):
            spool.append(encode(block))
        spool.seal()


def _batch(
    found: Flights,
    rows: NDArray[np.intp],
    bundle: Digest,
    scores: NDArray[np.float32],
    *,
    as_of: int,
    twins: Sequence[str] = (),
) -> AnsweredBatch:
    count = len(rows)
    return AnsweredBatch(
        endpoint=ENDPOINT,
        bundle=bundle,
        role="shadow" if twins else "live",
        rung="normal",
        request_id=str(as_of),
        as_of=as_of,
        prediction_ids=[str(uuid_utils.uuid7()) for _ in rows],
        key_names=("tailnum",),
        given={
            "tailnum": column_of(Dtype.STRING, [found.tailnum[row] for row in rows]),
            "origin": column_of(Dtype.STRING, [found.origin[row] for row in rows]),
        },
        frame=FeatureFrame(count, {}, {}, {}),
        tensor=np.zeros((count, 1), dtype=np.float32),
        outputs={"probabilities": np.stack([1 - scores, scores], axis=1)},
        labels=[LABELS.positive if each >= LABELS.threshold else LABELS.negative for each in scores.tolist()],
        probabilities=scores,
        stage_ms={},
        twins=twins,
    )


def judged_by_log(folder: Path, rows_max: int, *, rounds: int) -> tuple[MetricRecord, ...]:
    """The metrics of all periods, over all rows and by origin, as a monitor of that log computes them."""
    found = flights(rows_max)
    judged, scores = scored(found, rounds=rounds)
    write_log(folder, found, judged, scores)
    url = f"sqlite:///{folder / 'registry.db'}"
    database.upgrade(url)
    policy = MetricsPolicy(period_us=PERIOD_DAYS * DAY_US, slices=("origin",))
    subject = Subject(ENDPOINT, policy, OutcomeTerms(), lambda _bundle: LABELS)
    store = ModelMetrics(database.engine(url))
    try:

        def compute(look: LogOutcomes) -> None:
            keep_up(subject, look, store, now=system_clock(), periods_max=1_000)

        with open_log(folder) as log:
            look_at_outcomes(log, ENDPOINT, subject.terms, compute)
        return store.metrics(ENDPOINT, slice_called=None)
    finally:
        store.close()


def result_of(records: Sequence[MetricRecord]) -> dict[str, Any]:
    """What the table is made of, as plain data."""
    overall = [each for each in records if not each.slice]
    by_key = {(each.period_start, each.bundle, each.metric, each.is_estimate): each for each in overall}
    starts = sorted({each.period_start for each in overall if each.rows >= 500})
    errors = estimate_errors(overall)
    return {
        "periods": [_period(start, by_key) for start in starts],
        "estimate_errors": {metric: errors.get((WINTER, "live", metric)) for metric in ("accuracy", "auroc", "brier")},
    }


def _period(start: Micros, found: Mapping[tuple[Micros, Digest, str, bool], MetricRecord]) -> dict[str, Any]:
    auroc = found[start, WINTER, "auroc", False]
    told = {name: found[start, bundle, "auroc", False].value for name, bundle in (("winter", WINTER), ("year", YEAR))}
    return {
        "start": format_timestamp(start)[:10],
        "rows": auroc.rows,
        "maturity": auroc.maturity,
        "auroc": told,
        "low": auroc.low,
        "high": auroc.high,
        "auroc_estimate": found[start, WINTER, "auroc", True].value,
        "brier": found[start, WINTER, "brier", False].value,
        "brier_year": found[start, YEAR, "brier", False].value,
        "brier_estimate": found[start, WINTER, "brier", True].value,
        "ece": found[start, WINTER, "ece", False].value,
        "late": found[start, WINTER, "positive_share", False].value,
    }


def table_lines(result: Mapping[str, Any]) -> Iterator[str]:
    """The table of docs/model-metrics.md."""
    yield "| 30 days from | rows | late | AUROC of winter | of the year | lost | ≈ AUROC | Brier | ≈ Brier | ECE |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for each in result["periods"]:
        winter, year = each["auroc"]["winter"], each["auroc"]["year"]
        yield (
            f"| {each['start']} | {each['rows']:,} | {each['late']:.0%} |"
            f" {winter:.3f} ({each['low']:.3f} to {each['high']:.3f}) | {year:.3f} | {year - winter:+.3f} |"
            f" {each['auroc_estimate']:.3f} | {each['brier']:.3f} | {each['brier_estimate']:.3f} | {each['ece']:.3f} |"
        )
    told = ", ".join(f"{name} {error:.3f}" for name, error in result["estimate_errors"].items() if error is not None)
    yield ""
    yield f"Estimates were off by, on average: {told}."


@click.group()
def main() -> None:
    """A model trained on winter, judged through the year from a prediction log."""


@main.command()
@click.option("--rows", default=400_000, show_default=True, help="Flights at most.")
@click.option("--rounds", default=150, show_default=True, help="Trees of each model.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=RESULTS, show_default=False)
def run(rows: int, rounds: int, out: Path) -> None:
    """Train, log, compute, and write the results; takes some minutes."""
    with tempfile.TemporaryDirectory() as scratch:
        result = result_of(judged_by_log(Path(scratch), rows, rounds=rounds))
    out.write_text(json.dumps(result, indent=1) + "\n")
    click.echo("\n".join(table_lines(result)))


@main.command()
def table() -> None:
    """Print the table of the last run."""
    click.echo("\n".join(table_lines(stored())))


def stored() -> dict[str, Any]:
    """The last run."""
    result: dict[str, Any] = json.loads(RESULTS.read_text())
    return result


if __name__ == "__main__":
    main()
