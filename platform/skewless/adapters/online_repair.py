"""Compares the online store with the offline store as of one moment, view by view, and mends what differs.

per view      newest rows of every entity of the source       in parts of REPAIR_CHUNK_ROWS, from DuckDB
              the same entities in the store                  one exchange
              reasons of what differs                         `parity/repair_plan.py`
              changes                                         compare-and-set, one script per entity (`online_rows.py`)
              entities in the store that the source lacks     by SCAN, then as above
at the end    fields and hashes that nobody reads             by SCAN

Nothing is kept from one part to the next but counts, so memory does not grow with the store; stopping or killing it
anywhere leaves rows that are old or new, and running it again does the rest.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from skewless.adapters.duckdb_point_in_time import OfflineSession
from skewless.adapters.feast_stored_views import StoredProject, StoredView
from skewless.adapters.online_rows import HashChange, OnlineRows, StoredRows, change_hashes
from skewless.adapters.online_scan import OnlineScan
from skewless.adapters.parity_keys import OtherKeys
from skewless.adapters.redis_blocking_store import BlockingRedisOnlineStore
from skewless.canonical_json import digest
from skewless.dtypes import Column, column_of
from skewless.features.contract import FeatureContract, ViewRead, column_name
from skewless.features.frame import NO_EVENT_TIME, STATUS_CODE, FeatureFrame
from skewless.features.redis_layout import StoredKey, key_types
from skewless.features.stored_hashes import KnownHashes, Leftover
from skewless.features.visibility import Status
from skewless.monitor_limits import REPAIR_CHUNK_ROWS
from skewless.parity.equality import Mask
from skewless.parity.evidence import Versions, Watermark, Written, take
from skewless.parity.repair_plan import Action, Difference, explain, questions
from skewless.parity.repair_report import RepairFindings
from skewless.parity.stored_causes import ViewState

Entities = Sequence[Mapping[str, object]]
"""Some entities, each by its join keys' names; keys of other views may be among them."""


class Pace:
    """Keeps work below a rate: `spend` waits until so many rows may have been worked on. A rate of 0 is no bound."""

    def __init__(
        self,
        rows_per_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        self._rows_per_s = rows_per_s
        self._clock = clock
        self._wait = wait
        self._ready_s = clock()

    def spend(self, rows: int) -> None:
        """Count rows, and return once they are due. Time that went by unused is not saved up."""
        if not self._rows_per_s:
            return
        now_s = self._clock()
        if self._ready_s > now_s:
            self._wait(self._ready_s - now_s)
        self._ready_s = max(self._ready_s, now_s) + rows / self._rows_per_s


@dataclass(frozen=True, slots=True)
class RepairChoice:
    """What is repaired: for which `reasons`, as of which moment (µs), in `dry_run` nothing."""

    as_of: int
    reasons: frozenset[str]
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class _Opened:
    """One view, ready to be compared."""

    stored: StoredView
    ageless: ViewRead
    rows: OnlineRows
    session: OfflineSession
    watermark: Watermark
    probe: OtherKeys


class OnlineRepair:
    """See the module. Every method raises Unavailable where the online store does not answer."""

    def __init__(
        self,
        store: BlockingRedisOnlineStore,
        project: StoredProject,
        choice: RepairChoice,
        *,
        clock: Callable[[], int],
        pace: Pace,
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`clock` goes on from the choice's `as_of` (µs): what comes into the store while it does is left alone."""
        self.findings = RepairFindings()
        self._store = store
        self._project = project
        self._choice = choice
        self._clock = clock
        self._pace = pace
        self._progress = progress

    def whole_views(self, names: Iterable[str], scan: OnlineScan) -> None:
        """Every entity of some views, by their names in the store: those of the source, then those beside it."""
        for name in names:
            with self._opened(name) as opened, opened.session.newest(opened.ageless, self._choice.as_of) as newest:
                for start in range(0, newest.count, REPAIR_CHUNK_ROWS):
                    keys, offline = newest.part(start, start + REPAIR_CHUNK_ROWS)
                    self._compare(opened, keys, offline)
                if opened.ageless.join_keys:
                    for keys in _stored_entities(scan, opened.ageless):
                        beside = np.flatnonzero(newest.lacks(keys))
                        if len(beside):
                            asked = {key: take(column, beside) for key, column in keys.items()}
                            self._compare(opened, asked, _no_rows(opened.ageless, len(beside)))

    def entities(self, names: Iterable[str], parts: Callable[[], Iterator[Entities]]) -> None:
        """Some entities of some views; `parts` begins them anew. A view whose join keys an entity lacks is left out."""
        for name in names:
            with self._opened(name) as opened:
                for part in parts():
                    keys = _columns(opened.ageless, part)
                    if keys is not None:
                        self._ask(keys, opened)

    def leftovers(self, scan: OnlineScan, known: KnownHashes) -> None:
        """Fields and whole hashes that nobody reads."""
        for part in scan.parts():
            held = scan.fields([key for key, _ in part])
            self._pace.spend(len(part))
            found = [
                (key, told, fields)
                for (key, told), names in zip(part, held, strict=True)
                if (fields := known.orphans(told, names))
            ]
            if found:
                self._remove(scan, known, found)

    def _remove(
        self, scan: OnlineScan, known: KnownHashes, found: Sequence[tuple[bytes, StoredKey, list[bytes]]]
    ) -> None:
        reasons = [known.why_unread(told) or Leftover.FIELD for _, told, _ in found]
        tried = [reason in self._choice.reasons and not self._choice.dry_run for reason in reasons]
        wanted = [each for each, is_tried in zip(found, tried, strict=True) if is_tried]
        held = scan.held([key for key, *_ in wanted], [fields for *_, fields in wanted])
        changes = [HashChange(key, old, {}) for (key, *_), old in zip(wanted, held, strict=True)]
        done = iter(change_hashes(self._store, changes))
        self._pace.spend(len(changes))
        for (_, told, fields), reason, is_tried in zip(found, reasons, tried, strict=True):
            self.findings.add_leftover(reason, told.told, fields, next(done) if is_tried else None)

    @contextmanager
    def _opened(self, name: str) -> Iterator[_Opened]:
        stored = self._project.views[name]
        ageless = replace(stored.read, ttl_us=0)
        project = self._project.project
        contract = FeatureContract(project, (ageless,), (), digest(None))
        rows = OnlineRows(self._store, project, stored.read, lifetime_s=self._project.lifetime_s)
        self._progress(f"{name}: reading its source")
        with OfflineSession(contract, {ageless.name: stored.source}) as session:
            watermark = session.watermarks()[ageless.name]
            yield _Opened(stored, ageless, rows, session, watermark, OtherKeys(contract, self._store))

    def _ask(self, keys: Mapping[str, Column], opened: _Opened) -> None:
        """Compare entities that are asked for one by one."""
        rows = len(next(iter(keys.values()))) if keys else 1
        for start in range(0, rows, REPAIR_CHUNK_ROWS):
            places = np.arange(start, min(rows, start + REPAIR_CHUNK_ROWS))
            part = {name: take(column, places) for name, column in keys.items()}
            moments = np.full(len(places), self._choice.as_of, dtype=np.int64)
            self._compare(opened, part, opened.session.features_at(part, moments))

    def _compare(self, opened: _Opened, keys: Mapping[str, Column], offline: FeatureFrame) -> None:
        """Compare entities with their offline rows (entities,), and change what is to be changed."""
        view = opened.stored.read
        stored = opened.rows.read(keys, offline.rows, self._choice.as_of)
        read_at = self._clock()  # after it was read: whatever was there is from before
        self._pace.spend(offline.rows)
        rows = questions(opened.ageless, stored.frame, offline)
        readable = np.array([stored.held[row] is not None for row in rows.tolist()], dtype=np.bool_)
        self.findings.look(view.field_name, offline.rows, int(np.count_nonzero(~readable)))
        rows = rows[readable]
        if len(rows):
            difference = self._explained(opened, keys, rows, stored, offline, read_at)
            actions = difference.actions(offline, view.name, self._choice.reasons)
            done = self._done(opened, difference, actions, stored, offline)
            self.findings.add(view, difference, actions, done, keys, (stored.frame, offline))
        self._progress(
            f"{view.field_name}: {self.findings.entities:,} rows compared, {self.findings.differing:,} differ"
        )

    def _explained(
        self,
        opened: _Opened,
        keys: Mapping[str, Column],
        rows: NDArray[np.int64],
        stored: StoredRows,
        offline: FeatureFrame,
        read_at: int,
    ) -> Difference:
        sides = (stored.frame, offline)
        nowhere = np.zeros(offline.rows, dtype=np.bool_)
        state = ViewState(
            changed=False,
            written=Written.of(opened.stored.runs) if opened.stored.runs else None,
            watermark=opened.watermark,
            lower_rung=nowhere,
            under_other_key=_under_other_key(opened, keys, rows, sides),
        )
        versions = _versions(opened, keys, rows, sides)
        return explain(
            opened.stored.read, rows, sides, self._choice.as_of, read_at=read_at, versions=versions, state=state
        )

    def _done(
        self,
        opened: _Opened,
        difference: Difference,
        actions: Sequence[Action],
        stored: StoredRows,
        offline: FeatureFrame,
    ) -> list[bool | None]:
        """Make the changes, and say of each row whether it was changed; None where nothing was tried."""
        done: list[bool | None] = [None] * len(actions)
        if self._choice.dry_run:
            return done
        places = {
            kind: [at for at, each in enumerate(actions) if each is kind] for kind in (Action.WRITE, Action.REMOVE)
        }
        writes, removals = (difference.rows[places[kind]] for kind in (Action.WRITE, Action.REMOVE))
        changes = [*opened.rows.changes(stored, writes, offline), *opened.rows.removals(stored, removals)]
        self._pace.spend(len(changes))
        made = opened.rows.apply(changes)
        for place, was_made in zip(places[Action.WRITE] + places[Action.REMOVE], made, strict=True):
            done[place] = was_made
        return done


def _versions(
    opened: _Opened, keys: Mapping[str, Column], rows: NDArray[np.int64], sides: tuple[FeatureFrame, FeatureFrame]
) -> Versions:
    """The source's rows at both event times of every row that differs."""
    moments = np.concatenate([frame.event_times[opened.ageless.name][rows] for frame in sides])
    there = moments != NO_EVENT_TIME
    return opened.session.versions(opened.ageless, keys, np.tile(rows, 2)[there], moments[there])


def _under_other_key(
    opened: _Opened, keys: Mapping[str, Column], rows: NDArray[np.int64], sides: tuple[FeatureFrame, FeatureFrame]
) -> Mask:
    """Which entities are missing online and found there under another type of key."""
    online, offline = (frame.event_times[opened.ageless.name] for frame in sides)
    found = np.zeros(len(online), dtype=np.bool_)
    absent = rows[(online[rows] == NO_EVENT_TIME) & (offline[rows] != NO_EVENT_TIME)]
    if len(absent) and keys:
        found[absent] = opened.probe(opened.ageless, {name: take(column, absent) for name, column in keys.items()})
    return found


def _stored_entities(scan: OnlineScan, view: ViewRead) -> Iterator[dict[str, Column]]:
    """Entities that have a hash under the view's join keys, in parts."""
    kind = key_types(view.join_keys)
    for part in scan.parts():
        entities = [told.entity(view.join_keys) for _, told in part if (told.names, told.types) == kind]
        if entities:
            yield {key.name: column_of(key.dtype, [each[key.name] for each in entities]) for key in view.join_keys}


def _no_rows(view: ViewRead, rows: int) -> FeatureFrame:
    """The offline answer about entities of which the source has nothing."""
    missing = np.full(rows, STATUS_CODE[Status.MISSING], dtype=np.uint8)
    named = {column_name(view.name, each.name): each.dtype for each in view.features}
    return FeatureFrame(
        rows,
        {name: column_of(dtype, [None] * rows) for name, dtype in named.items()},
        dict.fromkeys(named, missing),
        {view.name: np.full(rows, NO_EVENT_TIME, dtype=np.int64)},
    )


def _columns(view: ViewRead, part: Entities) -> dict[str, Column] | None:
    """Each entity's join keys of the view once; None where the entities have not all of them."""
    names = [key.name for key in view.join_keys]
    if any(name not in each for name in names for each in part):
        return None
    distinct = list(dict.fromkeys(tuple(each[name] for name in names) for each in part))
    return {
        key.name: column_of(key.dtype, [entity[place] for entity in distinct])
        for place, key in enumerate(view.join_keys)
    }
