"""A log store of any size, made quickly: what gateways would have logged of months of traffic, with its outcomes.

Run as `python -m bench.logged_store FOLDER --rows 10000000` it fills a store and says what it takes; with `--ask` it
then asks it: one prediction by id, aggregations, and outcomes beside predictions, in milliseconds each.

Rows are as those of the gateway benchmark: one bundle, 6 views, 44 columns. Values repeat as features of some thousand
entities do that change by the hour, so that files are about as large as those of real traffic.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from skewless.adapters.log_reader import LogReader, open_log
from skewless.adapters.log_store import open_log_store
from skewless.adapters.log_tables import (
    OUTCOME_SCHEMA,
    OUTCOMES,
    PREDICTION_SCHEMA,
    PREDICTIONS,
    LogTable,
    columns_of,
)
from skewless.adapters.outcome_maturity import label_maturity
from skewless.canonical_json import digest
from skewless.serving.outcome_terms import OutcomeTerms
from skewless.timestamps import DAY_US, HOUR_US, MINUTE_US, format_timestamp, parse_timestamp

ENDPOINT = "flight-delay"
ROWS = 10_000_000
CHUNK = 250_000
"""Rows of one commit and, where they are of one day, of one file: what compaction makes of a busy day."""
DAYS = 30
ENTITIES = 4_000
TOLD = 0.7
"""Share of the predictions that an outcome comes for; one in fifty of these is told again, one in fifty corrected."""
VIEWS = ("weather", "departures", "carrier", "route", "leg", "plane")
FLOATS, INTEGERS, TEXTS = 30, 8, 6
START = parse_timestamp("2026-01-01")
_HEX = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
_PLACES = [place for place in range(36) if place not in (8, 13, 18, 23)]
"""Of a UUID's digits in its text."""


@dataclass(frozen=True, slots=True)
class Made:
    """What was made: one id of a prediction in the middle, and what the store takes on the disk."""

    rows: int
    outcomes: int
    bytes: int
    some_id: str
    end: int


def make_store(
    folder: Path,
    *,
    rows: int = ROWS,
    chunk: int = CHUNK,
    seed: int = 7,
    progress: Callable[[str], None] = lambda _: None,
) -> Made:
    """Fill the store `<folder>/store` with predictions of DAYS days in order, and their outcomes."""
    random = np.random.default_rng(seed)
    store = open_log_store(str(folder / "store"))
    traffic = _Traffic(random, rows)
    some_id, outcomes = "", 0
    for number, first in enumerate(range(0, rows, chunk), start=1):
        count = min(chunk, rows - first)
        as_of = traffic.moments(first, count)
        ids = uuids(random, as_of)
        told = _outcomes(random, ids, as_of, number)
        store.append(f"made-{seed}", number, [_log_table(PREDICTIONS, traffic.predictions(ids, as_of, number)), told])
        outcomes += told.table.num_rows
        if first <= rows // 2 < first + count:
            some_id = ids[rows // 2 - first].as_py()
        progress(f"{first + count:,} of {rows:,} predictions")
    size = sum(path.stat().st_size for path in (folder / "store" / PREDICTIONS).rglob("*.parquet"))
    return Made(rows, outcomes, size, some_id, START + DAYS * DAY_US)


def uuids(random: np.random.Generator, moments: NDArray[np.int64]) -> Any:
    """A UUIDv7 for each moment (µs), ascending where the moments are, as an Arrow array of text."""
    count = len(moments)
    data = random.integers(0, 256, size=(count, 16), dtype=np.uint8)
    data[:, :6] = (moments // 1_000).astype(">u8").view(np.uint8).reshape(count, 8)[:, 2:]
    data[:, 6] = data[:, 6] & 0x0F | 0x70
    data[:, 8] = data[:, 8] & 0x3F | 0x80
    digits = np.empty((count, 36), dtype=np.uint8)
    digits[:, [8, 13, 18, 23]] = ord("-")
    nibbles = np.stack([data >> 4, data & 15], axis=2).reshape(count, 32)
    digits[:, _PLACES] = _HEX[nibbles]
    return _texts_of(digits)


class _Traffic:
    """Predictions as one endpoint's gateways log them."""

    def __init__(self, random: np.random.Generator, rows: int) -> None:
        self._random = random
        self._rows = rows
        hours = DAYS * 24
        self._floats = random.normal(size=(FLOATS, hours, 64)).astype(np.float32)
        self._integers = random.integers(0, 500, size=(INTEGERS, ENTITIES))
        self._words = [pa.array([f"word-{place}-{word}" for word in range(200)]) for place in range(TEXTS)]
        self._keys = pa.array([f"N{10_000 + entity}" for entity in range(ENTITIES)])
        self._bundle = digest("made")

    def moments(self, first: int, count: int) -> NDArray[np.int64]:
        """as_of of rows (µs), ascending over DAYS days."""
        step = DAYS * DAY_US / self._rows
        return (START + (np.arange(first, first + count) + self._random.random(count)) * step).astype(np.int64)

    def predictions(self, ids: Any, as_of: NDArray[np.int64], number: int) -> Any:
        """One row per id, in the columns of the log."""
        random, rows = self._random, len(as_of)
        entity = random.integers(0, ENTITIES, size=rows)
        hour = (as_of - START) // HOUR_US
        floats = [self._floats[place, hour, entity % 64] for place in range(FLOATS)]
        probability = random.random(rows, dtype=np.float32)
        columns: dict[str, Any] = {
            **_fixed(ids, as_of, self._bundle, probability, random),
            "tensor": _binary(np.stack([*floats, *floats[:10]], axis=1)),
            "tensor_digest": _texts_of(_HEX[random.integers(0, 16, size=(rows, 64), dtype=np.uint8)]),
            "segment": _constant(f"{START + number:014x}made", rows),
            "day": pa.array([format_timestamp(START + day * DAY_US)[:10] for day in range(DAYS + 1)]).take(
                pa.array((as_of - START) // DAY_US)
            ),
            "key.tail_number": self._keys.take(pa.array(entity)),
            "request.distance": pa.array(self._integers[0][entity].astype(np.float64)),
        }
        columns = {name: columns[name] for name in (*PREDICTION_SCHEMA.names, "key.tail_number", "request.distance")}
        features = {f"{VIEWS[place % 6]}__number_{place}": pa.array(floats[place]) for place in range(FLOATS)}
        features |= {
            f"{VIEWS[place % 6]}__count_{place}": pa.array(self._integers[place][entity]) for place in range(INTEGERS)
        }
        features |= {
            f"{VIEWS[place]}__word_{place}": words.take(pa.array(entity % 200))
            for place, words in enumerate(self._words)
        }
        statuses = pa.DictionaryArray.from_arrays(
            pa.array((entity % 50 == 0).astype(np.int8)), pa.array(["ok", "missing"])
        )
        for name, values in features.items():
            columns[f"feature.{name}"] = values
            columns[f"status.{name}"] = statuses
        for place, view in enumerate(VIEWS):
            columns[f"event_time.{view}"] = _times(as_of // HOUR_US * HOUR_US - place * MINUTE_US)
        both = np.stack([1 - probability, probability], axis=1)
        offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * 2)
        columns["output.probabilities"] = pa.ListArray.from_arrays(offsets, pa.array(both.ravel()))
        return pa.table(columns)


def _fixed(
    ids: Any, as_of: NDArray[np.int64], bundle: str, probability: NDArray[np.float32], random: np.random.Generator
) -> dict[str, Any]:
    rows = len(as_of)
    stages = np.round(random.gamma(2.0, 0.5, size=(rows, 3)), 3).ravel()
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * 3)
    names = pa.array(["features", "transform", "model"]).take(pa.array(np.tile(np.arange(3), rows)))
    labels = pa.array(["on_time", "late"]).take(pa.array((probability > 0.5).astype(np.int8)))
    nothing = {name: pa.nulls(rows, pa.string()) for name in ("experiment", "arm", "live_prediction_id")}
    return {
        "prediction_id": ids,
        "as_of": _times(as_of),
        "endpoint": _constant(ENDPOINT, rows),
        "bundle_digest": _constant(bundle, rows),
        "role": _constant("live", rows),
        **nothing,
        "rung": _constant("normal", rows),
        "request_id": _texts_of(_HEX[random.integers(0, 16, size=(rows, 32), dtype=np.uint8)]),
        "caller": _constant("key:shop", rows),
        "sampled": pa.nulls(rows, pa.string()),
        "row": pa.array(np.zeros(rows, dtype=np.int32)),
        "label": labels,
        "probability": pa.array(probability),
        "stage_ms": pa.MapArray.from_arrays(offsets, names, pa.array(stages)),
    }


def _outcomes(random: np.random.Generator, ids: Any, as_of: NDArray[np.int64], number: int) -> LogTable:
    """Outcomes of some of the predictions, hours later; some told again or corrected."""
    first = np.flatnonzero(random.random(len(as_of)) < TOLD)
    again = random.choice(first, size=len(first) // 25, replace=False)
    of = np.concatenate([first, again])
    delay = random.exponential(3 * HOUR_US, size=len(of)).astype(np.int64)
    received = as_of[of] + delay + np.concatenate([np.zeros(len(first)), np.full(len(again), DAY_US)]).astype(np.int64)
    is_late = (random.random(len(of)) < 0.3).astype(np.int8)
    rows = len(of)
    columns: dict[str, Any] = {name: pa.nulls(rows, OUTCOME_SCHEMA.field(name).type) for name in OUTCOME_SCHEMA.names}
    columns |= {
        "outcome_id": uuids(random, received),
        "prediction_id": ids.take(pa.array(of)),
        "label": pa.array(["on_time", "late"]).take(pa.array(is_late)),
        "received_time": _times(received),
        "caller": _constant("key:ops", rows),
        "segment": _constant(f"{START + number:014x}made", rows),
        # One file for each commit: which day an outcome lies in changes nothing that is measured.
        "day": _constant(format_timestamp(int(received.min()))[:10], rows),
    }
    return _log_table(OUTCOMES, pa.table(columns))


def _log_table(kind: str, table: Any) -> LogTable:
    return LogTable(kind, ENDPOINT if kind == PREDICTIONS else "", columns_of(table.schema), table)


def _constant(value: str, rows: int) -> Any:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, dtype=np.int8)), pa.array([value]))


def _times(moments: NDArray[np.int64]) -> Any:
    return pa.array(moments).cast(pa.timestamp("us", tz="UTC"))


def _texts_of(characters: NDArray[np.uint8]) -> Any:
    return _binary(characters).cast(pa.string())


def _binary(rows: NDArray[Any]) -> Any:
    """Each row's bytes."""
    data = np.ascontiguousarray(rows)
    width = data.shape[1] * data.itemsize
    offsets = pa.array(np.arange(len(data) + 1, dtype=np.int32) * np.int32(width))
    return pa.Array.from_buffers(pa.binary(), len(data), [None, offsets.buffers()[1], pa.py_buffer(data)])


QUESTIONS: dict[str, Callable[[LogReader, Made], object]] = {
    "one prediction by id, all of its columns": lambda log, made: log.find(made.some_id),
    "predictions per day": lambda log, _: log.sql(
        "SELECT date_trunc('day', as_of) AS day, count(*) AS n FROM predictions GROUP BY day ORDER BY day"
    ).read_all(),
    "mean of a feature by label": lambda log, _: log.sql(
        'SELECT label, avg("feature.weather__number_0") AS mean FROM predictions GROUP BY label'
    ).read_all(),
    "counts of outcomes by class": lambda log, _: log.outcome_counts(ENDPOINT),
    "accuracy by day, on outcomes": lambda log, _: log.sql(
        "SELECT date_trunc('day', as_of) AS day, avg((label = outcome)::INT) AS accuracy "
        "FROM predictions_with_outcomes WHERE outcome IS NOT NULL GROUP BY day ORDER BY day"
    ).read_all(),
    "label maturity": lambda log, made: label_maturity(log, ENDPOINT, now=made.end, terms=OutcomeTerms()),
}
"""What is asked of a store, and measured."""


def ask(folder: Path, made: Made, *, times: int = 3) -> Iterator[tuple[str, float]]:
    """(question, the median of its seconds) for each of QUESTIONS, the log opened anew each time."""
    for words, question in QUESTIONS.items():
        taken = []
        for _ in range(times):
            begun = time.perf_counter()
            with open_log(folder) as log:
                question(log, made)
            taken.append(time.perf_counter() - begun)
        yield words, sorted(taken)[times // 2]


def main() -> None:
    """The command line; see the module."""
    parser = argparse.ArgumentParser(description="Make a log store, and ask it.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--ask", action="store_true", help="ask the store afterwards, and say how long each took")
    options = parser.parse_args()
    begun = time.perf_counter()
    made = make_store(options.folder, rows=options.rows, progress=lambda text: _say(f"\r{text}", end=""))
    _say(f"\n{made.rows:,} predictions, {made.outcomes:,} outcomes in {time.perf_counter() - begun:.0f} s")
    _say(f"{made.bytes / made.rows:.0f} bytes per prediction; one of them: {made.some_id}")
    if options.ask:
        for words, taken_s in ask(options.folder, made):
            _say(f"{taken_s * 1_000:8.0f} ms  {words}")


def _say(text: str, *, end: str = "\n") -> None:
    sys.stdout.write(text + end)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
