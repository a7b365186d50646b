"""Rows of the prediction log as columns again, so that they can be compared with the same rows computed offline."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from skewless.adapters.arrow_columns import column_from_arrow
from skewless.canonical_json import Digest
from skewless.dtypes import Column
from skewless.errors import NotFound
from skewless.features.contract import FeatureContract
from skewless.features.frame import NO_EVENT_TIME, STATUS_CODES, FeatureFrame
from skewless.parity.compare import Scored


@dataclass(frozen=True, slots=True)
class ServedRows:
    """Logged predictions of one bundle. `as_of` is int64 µs (rows,); `given` holds join keys and request fields.

    Where `tensor_known` (rows,) is False the tensor was not kept, and the row of `scored.tensor` is zeros.
    """

    prediction_ids: tuple[str, ...]
    as_of: NDArray[np.int64]
    given: dict[str, Column]
    scored: Scored
    tensor_known: NDArray[np.bool_]
    tensor_digests: tuple[str, ...]
    roles: tuple[str, ...]
    rungs: tuple[str, ...]


def bundle_of(table: pa.Table) -> Digest:
    """The one bundle that answered every row of a log table. Raises NotFound where there is none or several."""
    digests = tuple(sorted(set(table.column("bundle_digest").to_pylist())))
    if len(digests) != 1:
        raise NotFound("single bundle", "of these predictions", known=tuple(digests))
    return Digest(digests[0])


def pick(table: pa.Table, prediction_ids: Sequence[str]) -> pa.Table:
    """The rows of a log table with these ids, in their order. Raises NotFound naming an id the log does not have."""
    positions = pc.index_in(pa.array(prediction_ids, pa.string()), value_set=table.column("prediction_id"))
    if positions.null_count:
        lost = prediction_ids[int(np.flatnonzero(positions.is_null().to_numpy(zero_copy_only=False))[0])]
        raise NotFound(
            "prediction", lost, hint="the log keeps a prediction at the latest one flush interval after its answer"
        )
    return table.take(positions)


def served_rows(table: pa.Table, contract: FeatureContract, output: str) -> ServedRows:
    """Columns of a log table; `output` names the model output to compare."""
    given = {key.name: _column(table, f"key.{key.name}", key.dtype) for key in contract.join_keys}
    given |= {each.name: _column(table, f"request.{each.name}", each.dtype) for each in contract.request_fields}
    columns, statuses, event_times = {}, {}, {}
    dtypes = dict(contract.columns)
    for name, view in contract.view_of_column.items():
        if view not in event_times:
            times = table.column(f"event_time.{view}").cast(pa.int64()).fill_null(NO_EVENT_TIME)
            event_times[view] = times.to_numpy().astype(np.int64)
        columns[name] = _column(table, f"feature.{name}", dtypes[name])
        statuses[name] = _statuses(table.column(f"status.{name}"))
    tensor, tensor_known = _tensor(table.column("tensor"))
    outputs = np.array(table.column(f"output.{output}").to_pylist(), dtype=np.float32).reshape(table.num_rows, -1)
    return ServedRows(
        prediction_ids=_texts(table, "prediction_id"),
        as_of=table.column("as_of").cast(pa.int64()).to_numpy().astype(np.int64),
        given=given,
        scored=Scored(FeatureFrame(table.num_rows, columns, statuses, event_times), tensor, outputs),
        tensor_known=tensor_known,
        tensor_digests=_texts(table, "tensor_digest"),
        roles=_texts(table, "role"),
        rungs=_texts(table, "rung"),
    )


def _tensor(column: pa.ChunkedArray) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The tensor (rows, columns), zeros where it was not kept, and (rows,) where it was."""
    rows = [np.frombuffer(each, dtype="<f4") if each is not None else None for each in column.to_pylist()]
    known = np.array([each is not None for each in rows], dtype=np.bool_)
    width = max((len(each) for each in rows if each is not None), default=0)
    nothing = np.zeros(width, dtype=np.float32)
    tensor = np.array([nothing if each is None else each for each in rows], dtype=np.float32)
    return tensor.reshape(len(rows), width), known


def _statuses(column: pa.ChunkedArray) -> NDArray[np.uint8]:
    """Codes of a column of status names."""
    names = pa.array([str(status) for status in STATUS_CODES], pa.string())
    codes: NDArray[np.uint8] = pc.index_in(column, value_set=names).to_numpy().astype(np.uint8)
    return codes


def _texts(table: pa.Table, name: str) -> tuple[str, ...]:
    return tuple(table.column(name).to_pylist())


def _column(table: pa.Table, name: str, dtype: Any) -> Column:
    return column_from_arrow(table.column(name), dtype)
