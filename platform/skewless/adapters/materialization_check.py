"""Compares a sample of what a materialization wrote with the offline store, by parity's rules of equality.

    expected     before the run writes: what of each entity is visible, or of a run with bounds what it takes
    compared     after it: what a gateway reads of the same entities

The offline side of a full run is the point-in-time join that training uses, and not the query that finds the rows. It
is asked first, so rows that come into the source meanwhile are newer online, or are the next run's. A stored row that
is newer is no fault: somebody else wrote it meanwhile, or before.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from skewless.adapters.duckdb_point_in_time import OfflineSession
from skewless.adapters.online_rows import OnlineRows
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.canonical_json import digest
from skewless.dtypes import Column, to_python
from skewless.features.contract import FeatureContract, ViewRead, column_name
from skewless.features.feature_rows import FeatureRows
from skewless.features.frame import NO_EVENT_TIME, FeatureFrame
from skewless.features.materialization import EVERYTHING, Taking
from skewless.features.point_in_time import OfflineSource
from skewless.features.redis_layout import HashCommand, KeyTemplate
from skewless.features.row_order import created_times_of, layout_of, row_time_field
from skewless.features.visibility import STATUS_CODE, Status
from skewless.ingest_limits import MATERIALIZATION_TOLD_MAX, ONLINE_WRITE_TIMEOUT_S
from skewless.parity.equality import Mask
from skewless.parity.evidence import take
from skewless.parity.repair_plan import questions
from skewless.timestamps import format_timestamp

_LATER_THAN_ANY = 1 << 62
"""A moment at which no stored row is of the future."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What came of comparing entities: how many were, how many are newer online, and what differs, for people."""

    entities: int
    newer: int = 0
    differing: int = 0
    told: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """Entities, the newest row that a run takes of each, and what a reader is to find of them afterwards."""

    rows: FeatureRows
    frame: FeatureFrame


class OnlineCheck:
    """Compares entities of one view; `view` has all of its features under its own join keys."""

    def __init__(self, store: BlockingRedisOnlineStore, project: str, view: ViewRead, source: OfflineSource) -> None:
        self._store = store
        self._view = replace(view, ttl_us=0)
        self._source = source
        self._contract = FeatureContract(project, (self._view,), (), digest(None))
        self._rows = OnlineRows(store, project, self._view)
        self._template = KeyTemplate.compile(view.join_keys, project)

    def expected(self, rows: FeatureRows, taken: Taking) -> Expected:
        """What the store is to hold of entities once a run is done; `rows` are the newest that it takes of each.

        A full run's is the point-in-time answer of the offline store. Raises Unavailable.
        """
        if taken.bounds != EVERYTHING or not rows.rows:
            return Expected(rows, self._frame(rows))
        with OfflineSession(self._contract, {self._view.name: self._source}) as session:
            return Expected(rows, session.features_at(rows.keys, np.full(rows.rows, taken.as_of, dtype=np.int64)))

    def compared(self, expected: Expected, counts: Mask) -> Verified:
        """What the store holds of those entities (entities,) that count. Raises Unavailable."""
        keys, offline = expected.rows.keys, expected.frame
        if not counts.any():
            return Verified(0)
        online = self._rows.read(keys, expected.rows.rows, _LATER_THAN_ANY).frame
        wrong = questions(self._view, online, offline)
        wrong = wrong[counts[wrong]]
        newer = self._newer(expected, wrong, online)
        faults = wrong[~newer]
        told = tuple(self._told(keys, row, online, offline) for row in faults[:MATERIALIZATION_TOLD_MAX].tolist())
        return Verified(int(counts.sum()), int(newer.sum()), len(faults), told)

    def _frame(self, rows: FeatureRows) -> FeatureFrame:
        """Rows as a reader would find them."""
        columns = {column_name(self._view.name, name): column for name, column in rows.values.items()}
        ok, null = STATUS_CODE[Status.OK], STATUS_CODE[Status.NULL]
        statuses = {name: np.where(each.valid, ok, null).astype(np.uint8) for name, each in columns.items()}
        return FeatureFrame(rows.rows, columns, statuses, {self._view.name: rows.event_times})

    def _newer(self, expected: Expected, rows: NDArray[np.int64], online: FeatureFrame) -> Mask:
        """Which of the rows that differ are newer online, or are no more offline."""
        mine, its = (frame.event_times[self._view.name][rows] for frame in (online, expected.frame))
        restated = np.zeros(len(rows), dtype=np.bool_)
        tied = np.flatnonzero(mine == its)
        if len(tied):
            stored = self._created_times(expected.rows.keys, rows[tied], mine[tied])
            restated[tied] = stored > expected.rows.created_times[rows[tied]]
        found: Mask = (mine > its) | (its == NO_EVENT_TIME) | restated
        return found

    def _created_times(
        self, keys: Mapping[str, Column], rows: NDArray[np.int64], event_times: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        entities = [to_python(take(keys[name], rows)) for name in self._template.names]
        listed = list(zip(*entities, strict=True)) if len(entities) != 1 else entities[0]
        stored_keys = self._template.keys(listed or range(len(rows)))
        command = HashCommand.compile((row_time_field(self._view.field_name),), hash_size=0)
        replies = self._store.read(
            stored_keys, [command.pack(each) for each in stored_keys], timeout_s=ONLINE_WRITE_TIMEOUT_S
        )
        items = [None if isinstance(reply, Exception) else reply[0] for reply in replies]
        created, _ = created_times_of(items, event_times, layout_of(self._view))
        return created

    def _told(self, keys: Mapping[str, Column], row: int, online: FeatureFrame, offline: FeatureFrame) -> str:
        """One entity that differs: which, at which times, and the first values that are not the same."""
        place = np.array([row], dtype=np.int64)
        entity = ", ".join(f"{name} {to_python(take(column, place))[0]!r}" for name, column in keys.items())
        times = [_moment(frame.event_times[self._view.name][row]) for frame in (online, offline)]
        values = []
        for feature in self._view.features:
            name = column_name(self._view.name, feature.name)
            mine, its = (to_python(take(frame.columns[name], place))[0] for frame in (online, offline))
            if mine != its:
                values.append(f"{feature.name} online {mine!r}, offline {its!r}")
        return f"{entity or 'its one row'}: event time online {times[0]}, offline {times[1]}" + "".join(
            f"; {each}" for each in values[:MATERIALIZATION_TOLD_MAX]
        )


def _moment(event_time: int) -> str:
    return "none" if event_time == NO_EVENT_TIME else format_timestamp(int(event_time))
