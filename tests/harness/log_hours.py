"""Recorded traffic of some hours, written as a gateway writes it, in many segments; nothing waits for the hours."""

import asyncio
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import uuid_utils

from skewless.adapters.prediction_log import FolderPredictionLog
from skewless.canonical_json import digest
from skewless.dtypes import Dtype, column_of
from skewless.features.frame import STATUS_CODE, FeatureFrame
from skewless.features.visibility import Status
from skewless.serving.records import AnsweredBatch, Outcome
from skewless.timestamps import HOUR_US, SECOND_US, Micros

ENDPOINT = "flight-delay"
_OK = STATUS_CODE[Status.OK]


@dataclass(frozen=True, slots=True)
class Written:
    """Ids of what was written, each once."""

    predictions: frozenset[str]
    outcomes: frozenset[str]


def write_hour(folder: Path, *, start: Micros, segments: int, rows: int) -> Written:
    """An hour of answers and outcomes in a log's folder, evenly spread over so many segments of so many rows."""
    return asyncio.run(_write_hour(folder, start, segments, rows))


async def _write_hour(folder: Path, start: Micros, segments: int, rows: int) -> Written:
    # Each flush is a segment of its own.
    log = FolderPredictionLog(folder, flush_ms=0, segment_bytes_max=1)
    predictions: list[str] = []
    outcomes: list[str] = []
    for number in range(segments):
        as_of = Micros(start + number * HOUR_US // segments)
        batch = _answers(number, as_of, rows)
        told = Outcome(batch.prediction_ids[0], "late", None, as_of + SECOND_US, outcome_id=str(uuid_utils.uuid7()))
        log.append(batch)
        log.append_outcomes([told])
        await log.commit()
        predictions += batch.prediction_ids
        outcomes.append(told.outcome_id)
    await log.close()
    return Written(frozenset(predictions), frozenset(outcomes))


def _answers(number: int, as_of: Micros, rows: int) -> AnsweredBatch:
    draw = np.random.default_rng(number)
    tensor = draw.normal(size=(rows, 8)).astype(np.float32)
    probabilities = draw.random(rows, dtype=np.float32)
    columns = {
        "weather__temp": column_of(Dtype.FLOAT32, tensor[:, 0].tolist()),
        "weather__sky": column_of(Dtype.STRING, list(itertools.islice(itertools.cycle(["clear", None, "rain"]), rows))),
    }
    return AnsweredBatch(
        endpoint=ENDPOINT,
        bundle=digest("the only one"),
        role="live",
        rung="normal",
        request_id=f"request-{number}",
        as_of=as_of,
        prediction_ids=[str(uuid_utils.uuid7()) for _ in range(rows)],
        key_names=("tailnum",),
        given={"tailnum": column_of(Dtype.STRING, [f"N{number}-{row}" for row in range(rows)])},
        frame=FeatureFrame(
            rows,
            columns,
            {name: np.full(rows, _OK, dtype=np.uint8) for name in columns},
            {"weather": np.full(rows, as_of - HOUR_US, dtype=np.int64)},
        ),
        tensor=tensor,
        outputs={"probabilities": np.stack([1 - probabilities, probabilities], axis=1)},
        labels=["late"] * rows,
        probabilities=probabilities,
        stage_ms={"features": 0.5, "model": 1.25},
        caller="anonymous",
    )
