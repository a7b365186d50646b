"""Feature rows of one view on their way out of the outbox: into the online store, then into the view's Delta table.

Both take a row again without any further effect: the online store by the order of rows, the table by the number of the
batch. Rows whose created time nobody gave became known when their batch was accepted; that moment is put in here, so
that it is the same in both stores whenever, and however often, they are written.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from skewless.adapters.feature_rows_arrow import feature_rows
from skewless.adapters.offline_tables import OfflineTable
from skewless.adapters.online_writer import OnlineWriter
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.errors import Conflict, InvalidDefinition, Unavailable
from skewless.features.contract import ViewRead
from skewless.features.feature_rows import FeatureRows
from skewless.features.kept_out import KeptOut
from skewless.features.point_in_time import OfflineSource
from skewless.ingestion.batches import Delivered, StoredBatch


class RowView(Protocol):
    """A view that rows are brought for."""

    @property
    def project(self) -> str:
        """Feast's project."""
        ...

    @property
    def read(self) -> ViewRead:
        """All features of the view, under its own join keys."""
        ...

    @property
    def source(self) -> OfflineSource:
        """Its Delta table, with the columns of both times."""
        ...


class RowLane:
    """Implements `LaneHandler` for one view. One thread at a time."""

    def __init__(
        self,
        name: str,
        views: Callable[[str], RowView],
        open_store: Callable[[], BlockingRedisOnlineStore],
        deletions: KeptOut,
        *,
        lifetime_s: int = 0,
    ) -> None:
        """`views` gives a view as it is defined now; `lifetime_s`: how long a hash lives after a write, 0 for ever."""
        self._name = name
        self._views = views
        self._store = open_store()
        self._deletions = deletions
        self._lifetime_s = lifetime_s
        self._view: RowView | None = None

    def deliver(self, batch: StoredBatch) -> Delivered:
        """See `LaneHandler.deliver`."""
        view = self._prepared()
        rows = feature_rows(_dated(batch, view.source), view.read, view.source)
        kept = ~self._kept_out(view, rows)
        self._writer.write(rows if kept.all() else rows.take(np.flatnonzero(kept)))
        return Delivered(is_whole=False)

    def settle(self, batches: Sequence[StoredBatch]) -> None:
        """See `LaneHandler.settle`: one commit, whose number is that of the last batch."""
        view = self._prepared()
        done = self._table.done(batches[0].lane)
        left = [each for each in batches if done is None or each.number > done]
        if not left:
            return
        tables = []
        for each in left:
            table = _dated(each, view.source)
            kept_out = self._kept_out(view, feature_rows(table, view.read, view.source))
            tables.append(table.filter(pa.array(~kept_out)) if kept_out.any() else table)
        # Batches of before and after a definition changed have different columns; what one lacks is null.
        rows = pa.concat_tables(tables, promote_options="default")
        try:
            self._table.append(rows, writer=left[-1].lane, number=left[-1].number)
        except Conflict as error:  # the batches are not to blame for who else writes to their table
            raise Unavailable(f"the table of feature view `{self._name}`", error.message) from error

    def close(self) -> None:
        """Close its connection."""
        self._store.close()

    def _prepared(self) -> RowView:
        """The view as it is defined now, with a writer and a table for it."""
        view = self._views(self._name)
        if view is not self._view:
            if not view.source.created_time:
                raise InvalidDefinition(
                    f"the source of feature view `{self._name}` has no created time",
                    hint="declare created_timestamp_column in its FileSource",
                )
            self._table = OfflineTable.of(view.source)
            self._writer = OnlineWriter(
                self._store, view.project, view.read, lifetime_s=self._lifetime_s, has_created_time=True
            )
            self._view = view
        return view

    def _kept_out(self, view: RowView, rows: FeatureRows) -> NDArray[np.bool_]:
        return self._deletions.kept_out(view.read.field_name, rows.keys, rows.created_times, rows.event_times)


def _dated(batch: StoredBatch, source: OfflineSource) -> pa.Table:
    """The batch's rows; those whose created time nobody gave became known when the batch was accepted."""
    name = source.created_time
    assert name is not None, "checked when the view was prepared"
    rows = batch.rows
    created = rows.column(name)
    given = pc.not_equal(created, pa.scalar(batch.received_time, pa.int64()).cast(created.type))
    accepted = pa.scalar(batch.accepted_time, pa.int64()).cast(created.type)
    dated = pc.if_else(pc.fill_null(given, False), created, accepted)
    return rows.set_column(rows.column_names.index(name), rows.schema.field(name), dated)
