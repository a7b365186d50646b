"""Batches as the data plane hands them to the prediction log, and what a log's folder holds of them."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from skewless.adapters.spool import SPOOL, segment_frames
from skewless.canonical_json import digest
from skewless.dtypes import Dtype, column_of
from skewless.features.frame import STATUS_CODE, FeatureFrame
from skewless.features.visibility import Status
from skewless.serving.log_blocks import AnsweredBlock, LoggedEntry, decode
from skewless.serving.records import AnsweredBatch
from skewless.timestamps import parse_timestamp

NOW = parse_timestamp("2013-05-01T12:30:00Z")
OK, MISSING, STALE = (STATUS_CODE[each] for each in (Status.OK, Status.MISSING, Status.STALE))


def cycled(items: list[object], rows: int) -> list[object]:
    return (items * rows)[:rows]


def a_batch(
    name: str, *, rows: int = 2, as_of: int = NOW, bundle: str = "one", dtype: Dtype = Dtype.FLOAT32
) -> AnsweredBatch:
    """Predictions with every dtype, nulls, a NaN, an infinity and a negative zero among the values."""
    temps: list[object] = [float("nan"), -0.0, None, float("inf")] if dtype is Dtype.FLOAT32 else [1, 2, None, 3]
    columns = {
        "v__temp": column_of(dtype, cycled(temps, rows)),
        "v__name": column_of(Dtype.STRING, cycled(["", None, "ä\0"], rows)),
        "v__exact": column_of(Dtype.INT64, [(1 << 53) + 1] * rows),
        "v__raw": column_of(Dtype.BYTES, cycled([b"\x00\xff", None], rows)),
        "v__flag": column_of(Dtype.BOOL, cycled([True, None], rows)),
        "v__time": column_of(Dtype.TIMESTAMP, [NOW + 1] * rows),
        "v__last": column_of(Dtype.INT64_LIST, cycled([(), (1, 2), None], rows)),
    }
    generator = np.random.default_rng(len(name))
    probabilities = generator.random(rows, dtype=np.float32)
    return AnsweredBatch(
        endpoint="flight-delay",
        bundle=digest(bundle),
        role="live",
        rung="normal",
        request_id=name,
        as_of=as_of,
        prediction_ids=[f"{name}-{row}" for row in range(rows)],
        key_names=("origin",),
        given={
            "origin": column_of(Dtype.STRING, cycled(["JFK", None], rows)),
            "distance": column_of(Dtype.FLOAT64, [0.1] * rows),
        },
        frame=FeatureFrame(
            rows,
            columns,
            {each: np.array(cycled([OK, MISSING, STALE], rows), np.uint8) for each in columns},
            {"v": np.array(cycled([NOW - 5, -1], rows), np.int64)},
        ),
        tensor=generator.normal(size=(rows, 3)).astype(np.float32),
        outputs={"probabilities": np.stack([1 - probabilities, probabilities], axis=1)},
        labels=["late", *["on_time"] * (rows - 1)],
        probabilities=probabilities,
        stage_ms={"features": 0.5, "model": 1.25},
        caller="key:shop",
    )


def kept_entries(folder: Path) -> list[LoggedEntry]:
    """Everything in the segments of a log's folder, in the order in which it was written."""
    return [decode(frame) for _, frames in segment_frames(folder / SPOOL) for frame in frames]


def kept_blocks(folder: Path) -> list[AnsweredBlock]:
    return [each for each in kept_entries(folder) if isinstance(each, AnsweredBlock)]


def ids_in(blocks: Iterable[AnsweredBlock]) -> list[str]:
    return [prediction_id for each in blocks for prediction_id in each.prediction_ids]


def kept_ids(folder: Path) -> list[str]:
    """Ids of all predictions in a log's folder."""
    return ids_in(kept_blocks(folder))
