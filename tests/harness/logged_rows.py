"""Predictions and outcomes to be logged, small and told by their ids; and a spool that has them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import uuid_utils

from skewless.adapters.spool import SPOOL, SpoolFile
from skewless.canonical_json import digest
from skewless.dtypes import Dtype, column_of
from skewless.features.frame import FeatureFrame
from skewless.serving.log_blocks import blocks, encode
from skewless.serving.records import AnsweredBatch, LogEntry, Outcome
from skewless.serving.scored_outcome import prediction_time
from skewless.timestamps import parse_timestamp

NOW = parse_timestamp("2013-05-01T12:30:00Z")
ENDPOINT = "flight-delay"


def new_id(made: int | None = None) -> str:
    """A UUIDv7, greater than all before; `made` (µs) gives one of another moment."""
    fresh = str(uuid_utils.uuid7())
    if made is None:
        return fresh
    text = f"{made // 1_000:012x}"
    return f"{text[:8]}-{text[8:12]}{fresh[13:]}"


def a_batch(
    keys: Sequence[object] = ("EWR",),
    *,
    as_of: int = NOW,
    ids: Sequence[str] = (),
    role: str = "live",
    twins: Sequence[str] = (),
    bundle: str = "one",
    endpoint: str = ENDPOINT,
    key: str = "origin",
    dtype: Dtype = Dtype.STRING,
    feature: Dtype = Dtype.FLOAT32,
) -> AnsweredBatch:
    """A prediction for each value of one join key."""
    rows = len(keys)
    return AnsweredBatch(
        endpoint=endpoint,
        bundle=digest(bundle),
        role=role,
        rung="normal",
        request_id="request",
        as_of=as_of,
        prediction_ids=list(ids) or [new_id() for _ in keys],
        key_names=(key,),
        given={key: column_of(dtype, list(keys)), "distance": column_of(Dtype.FLOAT64, [0.1] * rows)},
        frame=FeatureFrame(
            rows,
            {"view__temp": column_of(feature, [1] * rows)},
            {"view__temp": np.zeros(rows, np.uint8)},
            {"view": np.full(rows, as_of - 5)},
        ),
        tensor=np.arange(rows * 3, dtype=np.float32).reshape(rows, 3),
        outputs={"probabilities": np.full((rows, 2), 0.5, np.float32)},
        labels=["late"] * rows,
        probabilities=np.full(rows, 0.5, np.float32),
        stage_ms={"model": 1.5},
        twins=twins,
    )


def told(prediction_id: str, label: str = "late", *, after_us: int = 0, outcome_time: int | None = None) -> Outcome:
    """An outcome by id, received so long after its prediction was made."""
    received = prediction_time(prediction_id) + after_us
    return Outcome(prediction_id, label, outcome_time, received, outcome_id=new_id(), caller="key:ops")


def told_of(entity: str, at: int, label: str = "late", *, endpoint: str = ENDPOINT, received: int = NOW) -> Outcome:
    """An outcome by entity (canonical JSON) and moment."""
    return Outcome(None, label, None, received, outcome_id=new_id(), endpoint=endpoint, entity=entity, at=at)


def spool(folder: Path, *entries: LogEntry | Sequence[Outcome], seal: bool = False) -> str:
    """Write entries as one segment of a log's folder, left open as by a gateway or sealed; returns its name."""
    (folder / SPOOL).mkdir(parents=True, exist_ok=True)
    file = SpoolFile.create(folder / SPOOL)
    for entry in blocks([tuple(each) if isinstance(each, list) else each for each in entries]):  # type: ignore[misc]  # lists became tuples
        file.append(encode(entry))
    name = file.path.stem
    if seal:
        file.seal()
    else:
        file.release()
    return name
