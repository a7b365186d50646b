"""What a log store holds, read past every reader of ours; and outcomes joined to predictions by a naive twin.

Only the Delta log says which Parquet files are alive; everything else is plain rows and loops.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from deltalake import DeltaTable

from skewless.timestamps import Micros, to_micros

DELTA_LOG = "_delta_log"
PREDICTIONS, OUTCOMES = "predictions", "outcomes"
Row = Mapping[str, Any]


COLUMNS = {
    PREDICTIONS: ("prediction_id", "request_id", "row", "key.tailnum", "as_of", "probability", "bundle_digest"),
    OUTCOMES: ("outcome_id", "prediction_id", "entity", "at", "label", "outcome_time", "received_time"),
}


def stored_files(store: Path, kind: str) -> list[str]:
    """The live Parquet files of the tables of a kind."""
    tables = sorted((store / kind).rglob(DELTA_LOG))
    return [file for found in tables for file in DeltaTable(str(found.parent)).file_uris()]


def stored_rows(store: Path, kind: str) -> list[Row]:
    """Every row of the tables of a kind, in no order, with what the checks ask for."""
    return [
        row
        for file in stored_files(store, kind)
        for row in pq.ParquetFile(file).read(columns=list(COLUMNS[kind])).to_pylist()
    ]


@dataclass(frozen=True, slots=True)
class Joined:
    """The outcome that holds for a prediction, and how many were told about it."""

    label: str
    told: int


def naive_join(predictions: Iterable[Row], outcomes: Iterable[Row], *, window_us: int) -> dict[str, Joined]:
    """By prediction id: the label that was received last.

    One told by entity is about the latest prediction of that entity at its moment or before, within the window.
    """
    known = {row["prediction_id"] for row in predictions}
    of_entity: dict[str, list[tuple[Micros, str]]] = defaultdict(list)
    for row in predictions:
        of_entity[row["key.tailnum"]].append((to_micros(row["as_of"]), row["prediction_id"]))
    received: dict[str, list[tuple[Any, str, str]]] = defaultdict(list)
    for row in outcomes:
        told = row["prediction_id"]
        if told is None:
            at = to_micros(row["at"])
            candidates = [each for each in of_entity[tailnum_of(row)] if at - window_us <= each[0] <= at]
            told = max(candidates)[1] if candidates else None
        if told in known:
            received[told].append((row["received_time"], row["outcome_id"], row["label"]))
    return {told: Joined(max(each)[2], len(each)) for told, each in received.items()}


def tailnum_of(outcome: Row) -> str:
    """The tail number of an outcome that was told by entity."""
    tailnum: str = json.loads(outcome["entity"])["tailnum"]
    return tailnum
