"""Receipts: what a caller is told about its predictions besides the predictions."""

import base64
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skewless.dtypes import Column, Dtype, to_python
from skewless.features.frame import NO_EVENT_TIME, STATUS_CODE, STATUS_CODES, Lines
from skewless.features.visibility import Status
from skewless.serving.records import NORMAL_RUNG, AnsweredBatch, tensor_digest
from skewless.serving.request import ReceiptLevel
from skewless.serving.rungs import lowest
from skewless.serving.served_bundle import ServedBundle
from skewless.timestamps import SECOND_US, format_timestamp

_OK = STATUS_CODE[Status.OK]
assert _OK == 0, "whether all is well is asked by `any`"
_STATUS_NAMES = tuple(map(str, STATUS_CODES))


def receipt(level: ReceiptLevel, answered: Sequence[tuple[AnsweredBatch, ServedBundle]]) -> dict[str, Any] | None:
    """Plain data for JSON about the batches of one request; None where the caller wants none.

    What several bundles answered is told part by part, each with the rows of the request that it is about; `full` adds
    every value of every instance.
    """
    if level is ReceiptLevel.NONE:
        return None
    first = answered[0][0]
    told: dict[str, Any] = {
        "endpoint": first.endpoint,
        "as_of": format_timestamp(first.as_of),
        "rung": first.rung if len(answered) == 1 else lowest([batch.rung for batch, _ in answered]),
    }
    if len(answered) == 1:
        _tell_part(told, level, *answered[0])
        return told
    told["parts"] = parts = []
    for batch, served in answered:
        part: dict[str, Any] = {"rows": [] if batch.positions is None else batch.positions.tolist()}
        _tell_part(part, level, batch, served)
        parts.append(part)
    return told


def _tell_part(told: dict[str, Any], level: ReceiptLevel, batch: AnsweredBatch, served: ServedBundle) -> None:
    """Add to `told` what one bundle answered."""
    told["bundle"] = batch.bundle
    told["role"] = batch.role
    if batch.rung != NORMAL_RUNG:
        told["rung"], told["reasons"] = batch.rung, list(batch.reasons)
    if batch.known_age_s is not None:
        told["features_age_s"] = round(batch.known_age_s, 3)
    if batch.arm:
        told["experiment"], told["arm"] = batch.experiment, batch.arm
    told["statuses"] = status_counts((batch,))
    told["not_ok"] = _not_ok(batch, served)
    if batch.frame.near:
        told.update(_near(batch))
    if level is ReceiptLevel.FULL:
        told["instances"] = _instances(batch, served)


def status_counts(batches: Sequence[AnsweredBatch]) -> dict[str, int]:
    """How many served values have each status, statuses that did not occur left out."""
    if len(batches) == 1:
        codes = _codes(batches[0])
        if codes.size and not codes.any():  # what nearly all requests are
            return {_STATUS_NAMES[_OK]: codes.size}
    counts = np.zeros(len(STATUS_CODES), dtype=np.intp)
    for batch in batches:
        counts += np.bincount(_codes(batch).ravel(), minlength=len(STATUS_CODES))
    return {_STATUS_NAMES[code]: count for code, count in enumerate(counts.tolist()) if count}


def _codes(batch: AnsweredBatch) -> NDArray[np.uint8]:
    """Status codes (columns, rows), in the order of the statuses' names."""
    statuses = batch.frame.statuses
    if isinstance(statuses, Lines):
        codes: NDArray[np.uint8] = statuses.matrix
        return codes
    return np.array(list(statuses.values()), dtype=np.uint8).reshape(len(statuses), batch.rows)


def _not_ok(batch: AnsweredBatch, served: ServedBundle) -> list[dict[str, Any]]:
    """Columns with a value that is not `ok`: how many of each status, and the age of the oldest of them."""
    codes = _codes(batch)
    if not codes.any():
        return []
    names = list(batch.frame.statuses)
    found = []
    for line in np.flatnonzero(codes.any(axis=1)).tolist():
        column = names[line]
        wrong = codes[line] != _OK
        counts = np.bincount(codes[line][wrong], minlength=len(STATUS_CODES)).tolist()
        found.append(
            {
                "column": column,
                "statuses": {_STATUS_NAMES[code]: count for code, count in enumerate(counts) if count},
                **_reasons(batch, column),
                "worst_age_s": _worst_age_s(batch.frame.event_times[served.view_of_column[column]][wrong], batch.as_of),
            }
        )
    return found


def _reasons(batch: AnsweredBatch, column: str) -> dict[str, list[str]]:
    """Why values of a column could not be read, each reason once; nothing where all could."""
    reasons = dict.fromkeys(fault.reason for fault in batch.frame.faults if fault.column == column)
    return {"reasons": list(reasons)} if reasons else {}


def _near(batch: AnsweredBatch) -> dict[str, dict[str, int]]:
    """How many rows of which views came from the near cache; nothing where none did."""
    counts = {view: int(near.sum()) for view, near in batch.frame.near.items()}
    found = {view: count for view, count in counts.items() if count}
    return {"near_cache": found} if found else {}


def _worst_age_s(event_times: NDArray[np.int64], as_of: int) -> float | None:
    """Age of the oldest row in seconds; None where there is no row at all."""
    known = event_times[event_times != NO_EVENT_TIME]
    return (as_of - int(known.min())) / SECOND_US if len(known) else None


def _instances(batch: AnsweredBatch, served: ServedBundle) -> list[dict[str, Any]]:
    features: list[dict[str, Any]] = [{} for _ in range(batch.rows)]
    for name, column in batch.frame.columns.items():
        codes = batch.frame.statuses[name].tolist()
        times = batch.frame.event_times[served.view_of_column[name]].tolist()
        for row, value in enumerate(json_values(column)):
            age_s = None if times[row] == NO_EVENT_TIME else (batch.as_of - times[row]) / SECOND_US
            features[row][name] = {"status": str(STATUS_CODES[codes[row]]), "age_s": age_s, "value": value}
    return [{"features": features[row], "tensor_digest": tensor_digest(batch.tensor[row])} for row in range(batch.rows)]


def json_values(column: Column) -> list[object]:
    """A column's values as JSON can hold them: null, RFC 3339 for timestamps, base64 for bytes, words for NaN."""
    values = to_python(column)
    if column.dtype is Dtype.TIMESTAMP:
        return [None if value is None else _timestamp(value) for value in values]
    if column.dtype is Dtype.BYTES:
        return [base64.b64encode(value).decode() if isinstance(value, bytes) else None for value in values]
    return [_word(value) if isinstance(value, float) and not math.isfinite(value) else value for value in values]


def _timestamp(value: object) -> object:
    """RFC 3339, or the bare microseconds of a moment outside the years 1 to 9999."""
    assert isinstance(value, int), "timestamp columns hold integers"
    try:
        return format_timestamp(value)
    except OverflowError:
        return value


def _word(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
