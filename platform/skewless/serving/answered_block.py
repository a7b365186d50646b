"""Rows of one bundle of many requests, side by side: what the prediction log keeps of answers.

For requests of one row the cost is the count of NumPy calls, not their size, so the arrays of a few hundred batches are
put end to end by one call for each.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from skewless.canonical_json import Digest
from skewless.column_table import ColumnTable
from skewless.dtypes import Column
from skewless.features.frame import FeatureFrame, Lines
from skewless.rollout.routes import Role
from skewless.serving.log_privacy import LogPrivacy
from skewless.serving.log_sampling import NO_SAMPLING, Codes, LogSampling
from skewless.serving.records import AnsweredBatch, tensor_digest

NO_PRIVACY = LogPrivacy()
ValueT = TypeVar("ValueT")


class LoggedRequest(msgspec.Struct, frozen=True, array_like=True):
    """What the rows of one request in a block have in common. `as_of` in µs; `rows` is how many of them there are."""

    request_id: str
    as_of: int
    role: str
    rung: str
    experiment: str
    arm: str
    caller: str
    """Empty where an older gateway wrote it."""
    stage_ms: Mapping[str, float]
    rows: int


@dataclass(frozen=True, slots=True)
class AnsweredBlock:
    """Predictions of one bundle for one endpoint, of any number of requests; every array has them in one order.

    `requests` says which rows belong to which request, one after another. `given` has a Column (rows,) per join key
    and request field, `frame` the features; a column that must not be kept as it was is text or null here. `outputs`
    has (rows, columns) per model output.
    """

    endpoint: str
    bundle: Digest
    key_names: Sequence[str]
    requests: Sequence[LoggedRequest]
    prediction_ids: Sequence[str]
    positions: NDArray[np.int32]
    """(rows,): which row of its request each is."""
    twins: Sequence[str]
    """Per row, of a shadow: the id of the live prediction that it stands beside; else empty."""
    given: Mapping[str, Column]
    frame: FeatureFrame
    """Without faults, and without what came from the near cache."""
    tensor: NDArray[np.float32] | None
    """(rows, model inputs); None where it was made of something that must not be kept."""
    outputs: Mapping[str, NDArray[np.float32]]
    labels: Sequence[str]
    probabilities: NDArray[np.float32]
    """(rows,)"""
    kept_digests: Sequence[str] = ()
    """Digests of the tensor's rows, where it is left out."""
    sampled: Codes | None = None
    """(rows,) codes of `log_sampling.SAMPLES`; None where no row is sampled."""

    @property
    def rows(self) -> int:
        """Predictions in the block."""
        return len(self.prediction_ids)

    @property
    def tensor_digests(self) -> Sequence[str]:
        """SHA-256 of each row's tensor, worked out anew each time where the tensor is there."""
        if self.tensor is None:
            return self.kept_digests
        return [tensor_digest(row) for row in self.tensor]

    def per_row(self, of_requests: Iterable[ValueT]) -> list[ValueT]:
        """A value of each request, once per row of it: `block.per_row(each.caller for each in block.requests)`."""
        return [value for each, value in zip(self.requests, of_requests, strict=True) for _ in range(each.rows)]

    @classmethod
    def of(
        cls,
        batches: Sequence[AnsweredBatch],
        privacy: LogPrivacy = NO_PRIVACY,
        sampling: LogSampling = NO_SAMPLING,
    ) -> "AnsweredBlock":
        """Batches of one bundle and layout end to end; one alone is taken as it is. Marks of the bundle are heeded."""
        first = batches[0]
        given: Mapping[str, Column] = _merged_columns([(batch.given, batch.rows) for batch in batches])
        columns: Mapping[str, Column] = _merged_columns([(batch.frame.columns, batch.rows) for batch in batches])
        tensor: NDArray[np.float32] | None = _end_to_end([batch.tensor for batch in batches])
        rows = len(tensor) if tensor is not None else 0
        digests: Sequence[str] = ()
        ids = _listed([batch.prediction_ids for batch in batches])
        # Before anything is hashed: an entity has one hash, whatever the log keeps of its keys.
        sampled = sampling.codes(first.endpoint, {name: given[name] for name in first.key_names}, ids)
        if (marks := first.marks) is not None:
            given, columns = privacy.kept(given, marks, rows), privacy.kept(columns, marks, rows)
            if not marks.keeps_tensor and tensor is not None:
                digests, tensor = [tensor_digest(row) for row in tensor], None
        frame = FeatureFrame(
            rows,
            columns,
            _merged_lines([(batch.frame.statuses, batch.rows) for batch in batches], np.uint8),
            _merged_lines([(batch.frame.event_times, batch.rows) for batch in batches], np.int64),
        )
        return cls(
            endpoint=first.endpoint,
            bundle=first.bundle,
            key_names=list(first.key_names),
            requests=[_request(batch) for batch in batches],
            prediction_ids=ids,
            positions=_positions(batches),
            twins=_listed([batch.twins or [""] * batch.rows for batch in batches]),
            given=given,
            frame=frame,
            tensor=tensor,
            outputs={name: _end_to_end([batch.outputs[name] for batch in batches]) for name in first.outputs},
            labels=_listed([batch.labels for batch in batches]),
            probabilities=_end_to_end([batch.probabilities for batch in batches]),
            kept_digests=digests,
            sampled=_answered(sampled, batches),
        )


def _answered(sampled: Codes | None, batches: Sequence[AnsweredBatch]) -> Codes | None:
    """The codes with those of shadows taken out: the live prediction beside one has the same features."""
    if sampled is None or not any(batch.role == Role.SHADOW for batch in batches):
        return sampled
    shadows = np.repeat([batch.role == Role.SHADOW for batch in batches], [batch.rows for batch in batches])
    return np.where(shadows, np.uint8(0), sampled)


def _request(batch: AnsweredBatch) -> LoggedRequest:
    return LoggedRequest(
        batch.request_id,
        batch.as_of,
        str(batch.role),
        batch.rung,
        batch.experiment,
        batch.arm,
        batch.caller,
        batch.stage_ms,
        batch.rows,
    )


def _listed(parts: Sequence[Sequence[str]]) -> list[str]:
    return list(parts[0]) if len(parts) == 1 else [each for part in parts for each in part]


def _end_to_end(arrays: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _positions(batches: Sequence[AnsweredBatch]) -> NDArray[np.int32]:
    if len(batches) == 1:
        (batch,) = batches
        return (np.arange(batch.rows) if batch.positions is None else batch.positions).astype(np.int32)
    found: list[int] = []
    for batch in batches:
        found += range(batch.rows) if batch.positions is None else batch.positions.tolist()
    return np.array(found, dtype=np.int32)


def _merged_columns(parts: Sequence[tuple[Mapping[str, Column], int]]) -> ColumnTable:
    """Columns of one layout, each part with its rows, end to end."""
    tables = [
        columns if isinstance(columns, ColumnTable) else ColumnTable.from_columns(columns, rows)
        for columns, rows in parts
    ]
    if len(tables) == 1:
        return tables[0]
    layout = tables[0].layout
    places = range(len(layout.blocks))
    values: list[NDArray[Any]] = [np.concatenate([each.value_blocks[at] for each in tables], axis=1) for at in places]
    valid = [np.concatenate([each.valid_blocks[at] for each in tables], axis=1) for at in places]
    return ColumnTable(layout, values, valid, sum([rows for _, rows in parts]))


def _merged_lines(parts: Sequence[tuple[Mapping[str, NDArray[Any]], int]], dtype: type[np.generic]) -> Lines:
    """Lines of the same names in the same order, each part with its rows, end to end."""
    names = {name: line for line, name in enumerate(parts[0][0])}
    matrices = [_matrix(lines, rows, dtype) for lines, rows in parts]
    return Lines(names, matrices[0] if len(matrices) == 1 else np.concatenate(matrices, axis=1))


def _matrix(lines: Mapping[str, NDArray[Any]], rows: int, dtype: type[np.generic]) -> NDArray[Any]:
    if isinstance(lines, Lines) and len(lines.line) == len(lines.matrix):
        return lines.matrix
    return np.array(list(lines.values()), dtype=dtype).reshape(len(lines), rows)
