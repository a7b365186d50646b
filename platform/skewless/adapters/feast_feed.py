"""Moves the online store forward through Feast's write path, row by row as rows become visible."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from skewless.adapters.duckdb_point_in_time import rows_available_between
from skewless.adapters.feast_contract import pinned_version
from skewless.adapters.feast_repository import FeatureRepository
from skewless.features.contract import FeatureContract, ViewRead
from skewless.features.point_in_time import AVAILABLE_US, CREATED_US, EVENT_US, OfflineSource
from skewless.training.definition import Period

_MICROS = pa.timestamp("us", tz="UTC")


@dataclass(slots=True)
class _ViewFeed:
    """One view's rows in the order in which they become visible, and how many of them are written."""

    rows: pa.RecordBatch
    available: NDArray[np.int64]
    write: Callable[[pa.RecordBatch], None]
    written: int = 0


class FeastFeed:
    """Implements `simulation.replay.FeatureFeed` over a repository's offline rows of one period."""

    def __init__(
        self,
        repository: FeatureRepository,
        contract: FeatureContract,
        sources: Mapping[str, OfflineSource],
        period: Period,
    ) -> None:
        # A view that is used under several names is stored, and so written, once.
        stored = {view.field_name: view for view in contract.views}
        self._views = [_view_feed(repository, view, sources[view.name], period) for view in stored.values()]

    def advance(self, to: int) -> int:
        """Write every row visible by `to` (µs) that was not yet; the number of rows written.

        Raises Unavailable when the online store is away: what was not written then is written by the next call.
        """
        count = 0
        for view in self._views:
            end = int(np.searchsorted(view.available, to, side="right"))
            if end > view.written:
                view.write(view.rows.slice(view.written, end - view.written))
                count += end - view.written
                view.written = end
        return count


def _view_feed(repository: FeatureRepository, view: ViewRead, source: OfflineSource, period: Period) -> _ViewFeed:
    table = rows_available_between(repository.stored_view(view), source, period)
    available = table.column(AVAILABLE_US).to_numpy().astype(np.int64)
    internal = {EVENT_US, CREATED_US, AVAILABLE_US}
    columns = {name: table.column(name) for name in table.column_names if name not in internal}
    columns[source.event_time] = table.column(EVENT_US).cast(_MICROS)
    if source.created_time:
        columns[source.created_time] = table.column(CREATED_US).cast(_MICROS)
    batches = pa.table(columns).combine_chunks().to_batches()
    empty = pa.RecordBatch.from_pylist([], schema=pa.table(columns).schema)
    write = repository.writer(view.view, pinned_version(view.name))
    return _ViewFeed(batches[0] if batches else empty, available, write)
