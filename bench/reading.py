"""One feature read in every way that is compared: Feast's SDK, a bare pipeline, and ours."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pyarrow as pa

from bench.read_store import ReadStore
from bench.wire_floor import WireFloor, words_of
from skewless.adapters.arrow_columns import column_to_arrow
from skewless.dtypes import Column, column_of, to_python
from skewless.features.frame import FeatureFrame
from skewless.features.online_store import BlockingOnlineStore
from skewless.features.reader import FeatureReads
from skewless.timestamps import to_micros

TIMEOUT_S = 30.0
"""No candidate ever waits that long; a call that does is a fault, not a number."""


class Reading:
    """The same `rows` of a store, read again and again. Each method does the whole of one read."""

    def __init__(
        self, store: ReadStore, rows: int, *, floor: WireFloor, blocking: BlockingOnlineStore, draw: int = 0
    ) -> None:
        """`draw` chooses among different keys."""
        self.rows = rows
        self.values = rows * store.shape.features
        self._store = store
        self._entity_rows = store.entity_rows(rows, draw)
        self._dtypes = {key.name: key.dtype for key in store.contract.join_keys}
        self._keys = self._columns()
        self._plan = store.plan
        self._floor, self._blocking = floor, blocking
        prepared = self._plan.prepare(self._keys, rows)
        self._words = [words_of(command) for command in prepared.commands]
        self._packed = b"".join(prepared.commands)
        self._replies = blocking.read(prepared.keys, prepared.commands, timeout_s=TIMEOUT_S)

    def sdk(self) -> dict[str, list[Any]]:
        """Feast's answer as lists by name."""
        values: dict[str, list[Any]] = self.sdk_response().to_dict()
        return values

    def sdk_response(self) -> Any:
        """Feast's answer as its protobuf response; its registry is cached, its resolution of the service too."""
        return self._store.sdk.get_online_features(self._store.service, self._entity_rows, full_feature_names=True)

    def floor(self) -> list[object]:
        """The raw replies to our commands, packed word by word."""
        return self._floor.read(self._words)

    def prepacked_floor(self) -> list[object]:
        """The raw replies to our commands, which were packed before the clock started."""
        return self._floor.read_packed(self._packed, len(self._words))

    def blocking(self) -> FeatureFrame:
        """From keys as columns to a frame with statuses and event times, from a thread."""
        return self._frame(self._keys)

    async def awaited(self, reads: FeatureReads) -> FeatureFrame:
        """The same from an event loop, through the queue that lets concurrent callers share a read."""
        return await reads.read(self._plan, self._keys, self.rows, self._store.as_of, timeout_s=TIMEOUT_S)

    def prepare_and_decode(self) -> FeatureFrame:
        """What ours adds to the bare exchange: keys to commands, and replies that were read before to a frame."""
        return self._plan.prepare(self._keys, self.rows).decode(self._replies, self._store.as_of).frame

    def lists(self) -> dict[str, list[object]]:
        """From keys as lists to values as lists by name, which is what Feast's SDK is given and gives."""
        frame = self._frame(self._columns())
        return {name: to_python(column) for name, column in frame.columns.items()}

    def arrow(self) -> Any:
        """The frame's values as an Arrow table."""
        return pa.table({name: column_to_arrow(column) for name, column in self._frame(self._keys).columns.items()})

    def pandas(self) -> Any:
        """The frame's values as a pandas DataFrame."""
        return self.arrow().to_pandas()

    def check(self, frame: FeatureFrame) -> None:
        """Compare a frame with what Feast's SDK reads. Raises ValueError at the first column that differs."""
        expected = self.sdk()
        for name, column in frame.columns.items():
            ours, theirs = to_python(column), [_micros(value) for value in expected[name]]
            if ours != theirs:
                row = next(row for row, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
                raise ValueError(f"`{name}` row {row}: we read {ours[row]!r}, Feast's SDK {theirs[row]!r}")

    def _columns(self) -> dict[str, Column]:
        return {name: column_of(dtype, self._entity_rows[name]) for name, dtype in self._dtypes.items()}

    def _frame(self, keys: Mapping[str, Column]) -> FeatureFrame:
        prepared = self._plan.prepare(keys, self.rows)
        replies = self._blocking.read(prepared.keys, prepared.commands, timeout_s=TIMEOUT_S)
        return prepared.decode(replies, self._store.as_of).frame


def _micros(value: Any) -> Any:
    return to_micros(value) if isinstance(value, datetime) else value
