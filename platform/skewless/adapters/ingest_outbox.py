"""Where accepted rows are kept until both stores have them: durable before the caller is answered, each key once.

Arrow table ─▶ rows that later ones take the place of are left out ─▶ Arrow stream under zstd ─▶ one transaction
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from skewless.adapters.arrow_columns import kept_rows
from skewless.errors import InvalidDefinition, LimitExceeded
from skewless.ingest_limits import INGEST_BATCH_ROWS_MAX, INGEST_WAITING_BATCHES_MAX, INGEST_WAITING_BYTES_MAX
from skewless.ingestion.batches import Accepted, BatchKind, IncomingBatch, LaneState, StoredKey, StoredState
from skewless.ingestion.restated_rows import last_of_equal
from skewless.registry.ingest_batches import Bounds, IngestBatches, PackedBatch

Matching = Callable[[pa.Table], pa.Array]
"""Which rows of a table (bool, no nulls)."""

_OPTIONS = pa.ipc.IpcWriteOptions(compression="zstd")


class Outbox:
    """Takes batches of rows and events. Threads and processes may share it.

    Every method raises Unavailable where the database does not answer.
    """

    def __init__(
        self,
        batches: IngestBatches,
        *,
        bytes_max: int = INGEST_WAITING_BYTES_MAX,
        batches_max: int = INGEST_WAITING_BATCHES_MAX,
    ) -> None:
        """`bytes_max` and `batches_max` bound what waits or has failed of all views and streams together."""
        self._batches = batches
        self._bounds = Bounds(bytes_max, batches_max)

    def accept(self, batch: IncomingBatch) -> Accepted:
        """Keep a batch; it is durable when this returns, and both stores will have it.

        Raises Conflict where a key of it was used before, Overloaded where too much is kept, LimitExceeded for more
        rows than a batch may have, Unavailable where this machine's clock is wrong; then nothing is kept.
        """
        if batch.rows.num_rows > INGEST_BATCH_ROWS_MAX:
            raise LimitExceeded(
                f"a batch has {batch.rows.num_rows:,} rows", path="rows", allowed=f"at most {INGEST_BATCH_ROWS_MAX:,}"
            )
        rows = _without_restated(batch)
        packed = PackedBatch(
            batch.kind,
            batch.name,
            packed_rows(rows),
            rows.num_rows,
            _newest(rows, batch.event_time),
            batch.requests,
            batch.received_time,
            batch.quality_run,
            rows.nbytes,
        )
        batch_id, accepted_time = self._batches.accept(packed, self._bounds)
        return Accepted(batch_id, accepted_time, rows.num_rows, batch.rows.num_rows - rows.num_rows)

    def known_keys(
        self, kind: BatchKind, name: str, pairs: Sequence[tuple[str, str]]
    ) -> Mapping[tuple[str, str], StoredKey]:
        """What is known of some (caller, key); those that were never used, or too long ago, are left out."""
        return self._batches.known_keys(kind, name, pairs)

    def known_key(self, kind: BatchKind, name: str, caller: str, key: str) -> StoredKey | None:
        """What is known of a key; None where the caller has not used it."""
        return self.known_keys(kind, name, ((caller, key),)).get((caller, key))

    def batch(self, batch_id: str) -> StoredState | None:
        """Where a batch stands; None where there is none of that id, or was long ago."""
        return self._batches.batch(batch_id)

    def lanes(self) -> tuple[LaneState, ...]:
        """Every view and stream that anything was ever accepted for, with what waits."""
        return self._batches.lanes()

    def lane(self, kind: BatchKind, name: str) -> LaneState:
        """What waits for one view or stream."""
        found = [each for each in self.lanes() if (each.kind, each.name) == (kind, name)]
        return found[0] if found else LaneState(kind, name, 0, 0, 0, 0, 0, None, None)

    def erase(self, name: str, matching: Matching, *, dry_run: bool) -> int:
        """Take matching rows out of what is still kept of a view or stream, and return how many those are.

        Rows that are on their way at this moment are not undone; whoever deletes asks the lane's lease first.
        """
        count = 0
        for batch_id in self._batches.kept_ids(name):
            while (before := self._batches.payload(batch_id)) is not None:
                rows = unpacked_rows(before)
                found = matching(rows)
                matches = int(pc.sum(found).as_py() or 0)
                kept = kept_rows(rows, pc.invert(found))
                if dry_run or not matches:
                    count += matches
                    break
                if self._batches.replace_payload(
                    batch_id, before, packed_rows(kept), rows=kept.num_rows, decoded_bytes=kept.nbytes
                ):
                    count += matches
                    break
        return count


def packed_rows(rows: pa.Table) -> bytes:
    """A table as an Arrow stream under zstd."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema, options=_OPTIONS) as writer:
        writer.write_table(rows)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


def unpacked_rows(payload: bytes) -> pa.Table:
    """The table of `packed_rows`. Raises InvalidDefinition for bytes that are none."""
    try:
        with pa.ipc.open_stream(payload) as reader:
            return reader.read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise InvalidDefinition(
            f"the rows of a batch cannot be read: {error}"[:300], hint="its row in the database was damaged; drop it"
        ) from error


def _without_restated(batch: IncomingBatch) -> pa.Table:
    rows: pa.Table = batch.rows.combine_chunks()
    if not batch.keys or not batch.created_time or rows.num_rows < 2:
        return rows
    columns = [rows.column(name).to_pylist() for name in batch.keys]
    times = (_micros(rows, batch.event_time), _micros(rows, batch.created_time))
    stays = last_of_equal(list(zip(*columns, strict=True)), *times)
    return rows if stays.all() else rows.filter(pa.array(stays))


def _micros(rows: pa.Table, column: str) -> NDArray[np.int64]:
    times: NDArray[np.int64] = rows.column(column).cast(pa.int64()).to_numpy()
    return times


def _newest(rows: pa.Table, event_time: str) -> int | None:
    if not event_time or not rows.num_rows:
        return None
    newest: int | None = pc.max(rows.column(event_time).cast(pa.int64())).as_py()
    return newest
